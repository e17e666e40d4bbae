"""Composes a kernel's module: ``kernels/``, a surface's gradient, a dynamics' update."""

from __future__ import annotations

import re

import numpy as np

from langevin.dynamics import SGD, Underdamped
from langevin.engines.compiling import pasted
from langevin.kernels import float32, float64, library, observers, philox, sampling, steps

PRECISION = {"float32": float32, "float64": float64}
GROUP = 4  # steps that share one Philox block of each component: a permanent layout


def names(prefix: str, count: int) -> list[str]:
    """``prefix0, prefix1, ...``."""
    return [f"{prefix}{k}" for k in range(count)]


def joined(*groups) -> str:
    """A call's arguments, or a tuple's items with the comma that a 1-tuple needs."""
    return ", ".join(name for group in groups for name in group)


def operations(text: str) -> int:
    """Rough number of arithmetic operations in a function's source; a call counts as 15."""
    body = text.split("\n", 1)[1]
    calls = len(re.findall(r"\b(?!real)[a-z]+\(", body))
    return sum(body.count(sign) for sign in "+-*/") + 15 * calls


def has_momentum(dynamics) -> bool:
    """Whether the state holds a momentum buffer or a velocity."""
    if isinstance(dynamics, Underdamped):
        return True
    return isinstance(dynamics, SGD) and bool(np.any(np.asarray(dynamics.momentum) != 0))


def state_names(dim: int, dynamics) -> list[str]:
    """Positions, then what else a replica carries from step to step."""
    integrator = getattr(dynamics, "integrator", "")
    carried = has_momentum(dynamics) or integrator == "leimkuhler_matthews"
    return names("x", dim) + (names("v", dim) if carried else [])


def n_noises(dynamics) -> int:
    """Normals a component takes in each step."""
    return dynamics.splitting.count("O") if isinstance(dynamics, Underdamped) else 1


def coefficient_names(dynamics, *, gaussian: bool) -> list[str]:
    """The run-time coefficients of a step, one row of the coefficient array each."""
    if isinstance(dynamics, SGD):
        coefficients = ["learning_rate"]
        coefficients += ["noise_scale"] if gaussian else []
        return coefficients + (["momentum"] if has_momentum(dynamics) else [])
    if isinstance(dynamics, Underdamped):
        return ["kick_dt", "drift_dt", "decay", "spread"]
    return {
        "euler_maruyama": ["dt", "amplitude"],
        "heun": ["dt", "half_dt", "amplitude"],
        "leimkuhler_matthews": ["dt", "half_amplitude"],
    }[dynamics.integrator]


def step_source(dim: int, dynamics, *, gaussian: bool, parameters: list[str] | None) -> str:
    """``advance(state, [gradient], [normals], coefficients, [parameters]) -> state``.

    On a formula (``parameters`` given) the step calls ``gradient`` itself, as often as it needs; on
    data (None) the gradient at the start of the step is an argument.
    """
    state, g = state_names(dim, dynamics), names("g", dim)
    noise = names("z", dim * n_noises(dynamics)) if gaussian else []
    arguments = [state, [] if parameters is not None else g, noise]
    arguments += [coefficient_names(dynamics, gaussian=gaussian), parameters or []]
    slope = f"({joined(g)},) = gradient({joined(names('x', dim), parameters or [])})"
    first = [slope] if parameters is not None else []
    if isinstance(dynamics, Underdamped):
        lines = _splitting(dim, dynamics.splitting, slope)
    elif isinstance(dynamics, SGD):
        lines = first + _descent(dim, gaussian=gaussian, momentum=has_momentum(dynamics))
    else:
        lines = first + _overdamped(dim, dynamics.integrator, parameters or [])
    head = f"def advance({joined(*arguments)}):"
    return "\n".join([head, *("    " + x for x in [*lines, f"return ({joined(state)},)"])]) + "\n"


def _descent(dim: int, *, gaussian: bool, momentum: bool) -> list[str]:
    lines = []
    for k in range(dim):
        if gaussian:
            lines.append(f"g{k} = noisy_gradient(g{k}, z{k}, noise_scale)")
        if momentum:
            lines.append(f"v{k} = momentum_buffer(v{k}, g{k}, momentum)")
        lines.append(f"x{k} = sgd(x{k}, {'v' if momentum else 'g'}{k}, learning_rate)")
    return lines


def _overdamped(dim: int, integrator: str, parameters: list[str]) -> list[str]:
    if integrator == "euler_maruyama":
        return [f"x{k} = euler_maruyama(x{k}, g{k}, z{k}, dt, amplitude)" for k in range(dim)]
    if integrator == "leimkuhler_matthews":
        step = "leimkuhler_matthews(x{k}, g{k}, v{k}, z{k}, dt, half_amplitude)"
        return [f"x{k} = {step.format(k=k)}" for k in range(dim)] + [
            f"v{k} = z{k}" for k in range(dim)
        ]
    predicted = [f"y{k} = euler_maruyama(x{k}, g{k}, z{k}, dt, amplitude)" for k in range(dim)]
    slope = f"({joined(names('h', dim))},) = gradient({joined(names('y', dim), parameters)})"
    final = [f"x{k} = heun(x{k}, g{k}, h{k}, z{k}, half_dt, amplitude)" for k in range(dim)]
    return [*predicted, slope, *final]


def _splitting(dim: int, splitting: str, slope: str) -> list[str]:
    """B, A and O in the order given, each over its share of dt."""
    lines, fresh, noises = [], False, 0
    for letter in splitting:
        if letter == "B":
            lines += [] if fresh else [slope]
            lines += [f"v{k} = kick(v{k}, g{k}, kick_dt)" for k in range(dim)]
            fresh = True
        elif letter == "A":
            lines += [f"x{k} = drift(x{k}, v{k}, drift_dt)" for k in range(dim)]
            fresh = False
        else:
            z = [f"z{noises * dim + k}" for k in range(dim)]
            lines += [f"v{k} = ornstein_uhlenbeck(v{k}, {z[k]}, decay, spread)" for k in range(dim)]
            noises += 1
    return lines


def module_source(dtype: str, *parts: str) -> str:
    """A whole kernel module, from the kernels' text and the parts that are this run's own."""
    physics = (philox, PRECISION[dtype], library, sampling, steps, observers)
    head = (
        '"""A generated kernel of langevin: do not edit."""\n\nimport math\n\nimport numpy as np\n'
    )
    return "\n\n".join([head, *(pasted(module) for module in physics), *parts])

"""Composes a kernel's module: ``kernels/``, a surface's gradient, a dynamics' update."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import numpy as np

from langevin.dynamics import SGD, Adam, Underdamped
from langevin.engines.compiling import pasted
from langevin.kernels import (
    adam,
    factors,
    float32,
    float64,
    heavy_tails,
    library,
    observers,
    philox,
    sampling,
    steps,
)

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


def carries_gradient(dynamics) -> bool:
    """Whether a step ends where its first kick begins: BAOAB's gradient serves two steps."""
    if not isinstance(dynamics, Underdamped):
        return False
    before, _, _ = dynamics.splitting.partition("B")
    _, _, after = dynamics.splitting.rpartition("B")
    return "A" not in before + after


@dataclass(frozen=True)
class Step:
    """The names one step is written in.

    ``noise``: the surface's, for SGD on a formula, else None. ``gaussian``: whether normals are
    drawn, rather than mini-batches. ``parameters``: names of the surface's parameters on a
    formula, or None on data, where the gradient is an argument.
    """

    dim: int
    dynamics: Any
    gaussian: bool = True
    noise: Any = None
    surface: Any = None
    parameters: tuple[str, ...] | None = None

    @property
    def state(self) -> list[str]:
        """Positions, then what else a replica carries from step to step."""
        state = names("x", self.dim)
        if isinstance(self.dynamics, Adam):
            return state + names("m", self.dim) + names("s", self.dim)
        integrator = getattr(self.dynamics, "integrator", "")
        if has_momentum(self.dynamics) or integrator == "leimkuhler_matthews":
            state += names("v", self.dim)
        return state + (names("g", self.dim) if carries_gradient(self.dynamics) else [])

    @property
    def n_normals(self) -> int:
        """Normals that a step takes."""
        if not self.gaussian:
            return 0
        if self.noise is not None:
            return self.noise.n_normals(self.dim)
        if isinstance(self.dynamics, Underdamped):
            return self.dim * self.dynamics.splitting.count("O")
        return self.dim

    @property
    def coefficients(self) -> list[str]:
        """Run-time coefficients that may differ between replicas, a row each."""
        dynamics = self.dynamics
        if isinstance(dynamics, Adam):
            return ["learning_rate", "root_correction", "beta1", "beta2", "epsilon"]
        if isinstance(dynamics, SGD):
            found = ["learning_rate"]
            found += ["noise_scale"] if self.gaussian else []
            found += ["drift_scale"] if self.noise and self.noise.convention != "ito" else []
            found += ["momentum"] if has_momentum(dynamics) else []
            decay = np.any(np.asarray(dynamics.weight_decay) != 0)
            return found + (["weight_decay"] if decay else [])
        if isinstance(dynamics, Underdamped):
            return ["kick_dt", "drift_dt", "decay", "spread"]
        return {
            "euler_maruyama": ["dt", "amplitude"],
            "heun": ["dt", "half_dt", "amplitude"],
            "leimkuhler_matthews": ["dt", "half_amplitude"],
            "exact": ["root_temperature"],
        }[dynamics.integrator]

    @property
    def scheduled(self) -> dict[str, int]:
        """Which row of the schedule multiplies a coefficient."""
        if not getattr(self.dynamics, "is_scheduled", False):
            return {}
        rows = {"learning_rate": 0, "noise_scale": 1, "drift_scale": 2}
        return {name: rows[name] for name in self.coefficients if name in rows}

    @property
    def n_constants(self) -> int:
        """Run-time numbers q0, q1, ... that all replicas share."""
        if self.surface is None:
            return 0
        return len(constants(self.surface, self.dynamics))

    @property
    def arguments(self) -> list[str]:
        """What ``advance`` takes after state, gradient, normals and coefficients."""
        return list(self.parameters or ()) + names("q", self.n_constants)


def step_of(surface, dynamics, *, gaussian: bool = True) -> Step:
    """The step of a dynamics on a formula."""
    noise = surface.noise if isinstance(dynamics, SGD) else None
    parameters = tuple(names("p", len(surface.parameters)))
    return Step(surface.dim, dynamics, gaussian, noise, surface, parameters)


def constants(surface, dynamics) -> list[float]:
    """The values of q0, q1, ...: of the noise, the masses, or an exact step's matrices."""
    if isinstance(dynamics, SGD):
        return surface.noise.constants(surface.dim) if surface.noise is not None else []
    if isinstance(dynamics, Underdamped):
        if np.all(np.asarray(dynamics.masses) == 1):
            return []
        masses = np.broadcast_to(np.asarray(dynamics.masses, dtype=float), surface.dim)
        return [*(1 / masses), *(1 / np.sqrt(masses))]
    return _exact_matrices(surface, float(dynamics.dt)) if dynamics.integrator == "exact" else []


def _exact_matrices(surface, dt: float) -> list[float]:
    """x*, ``exp(-H dt)`` and a factor of ``H^-1 (1 - exp(-2 H dt))``, row by row."""
    hessian = np.atleast_2d(surface.hessian(np.zeros(surface.dim)))
    centre = -np.linalg.solve(hessian, surface.gradient(np.zeros(surface.dim)))
    h, axes = np.linalg.eigh(hessian)
    decay = (axes * np.exp(-h * dt)) @ axes.T
    spread = (axes * np.sqrt(-np.expm1(-2 * h * dt) / h)) @ axes.T
    return [*centre, *decay.ravel(), *spread.ravel()]


def step_source(step: Step) -> str:
    """``advance(state, [gradient], [normals], coefficients, parameters) -> state``.

    On a formula the step calls ``gradient`` itself, as often as it needs; on data the gradient at
    the start of the step is an argument.
    """
    dim, dynamics = step.dim, step.dynamics
    g, known = names("g", dim), step.parameters is not None
    arguments = [step.state, [] if known else g, names("z", step.n_normals)]
    arguments += [step.coefficients, step.arguments]
    slope = f"({joined(g)},) = gradient({joined(names('x', dim), step.parameters or [])})"
    first = [slope] if known else []
    if isinstance(dynamics, Underdamped):
        lines = _splitting(step, slope)
    elif isinstance(dynamics, Adam):
        lines = _adam(dim)
    elif isinstance(dynamics, SGD):
        lines = first + _descent(step)
    elif dynamics.integrator == "exact":
        lines = _exact(dim)
    else:
        lines = first + _overdamped(dim, dynamics.integrator, step.parameters or [])
    head = f"def advance({joined(*arguments)}):"
    body = [*lines, f"return ({joined(step.state)},)"]
    return _noise_source(step) + "\n".join([head, *("    " + x for x in body)]) + "\n"


def _noise_source(step: Step) -> str:
    """The functions of the gradient noise that are the surface's own."""
    if step.noise is None or not step.gaussian:
        return ""
    texts = (step.noise.source(step.surface), step.noise.drift_source(step.surface))
    return "".join(text + "\n" for text in texts if text)


def _descent(step: Step) -> list[str]:
    dim, dynamics, lines = step.dim, step.dynamics, []
    x, z, n = names("x", dim), names("z", step.n_normals), names("z", dim)
    momentum = has_momentum(dynamics)
    if step.noise is not None and step.gaussian and step.noise.source(step.surface):
        n = names("n", dim)
        lines.append(f"({joined(n)},) = gradient_noise({joined(x, z, step.arguments)})")
    if "drift_scale" in step.coefficients:
        drift = f"noise_drift({joined(x, step.parameters or [])})"
        lines.append(f"({joined(names('d', dim))},) = {drift}")
    for k in range(dim):
        if "weight_decay" in step.coefficients:
            lines.append(f"g{k} = decayed_gradient(g{k}, x{k}, weight_decay)")
        if step.gaussian:
            lines.append(f"g{k} = noisy_gradient(g{k}, {n[k]}, noise_scale)")
        if "drift_scale" in step.coefficients:
            lines.append(f"g{k} = drifting_gradient(g{k}, d{k}, drift_scale)")
        if momentum:
            lines.append(f"v{k} = momentum_buffer(v{k}, g{k}, momentum)")
        if dynamics.nesterov:
            lines.append(f"g{k} = nesterov_gradient(g{k}, v{k}, momentum)")
        along = "v" if momentum and not dynamics.nesterov else "g"
        lines.append(f"x{k} = sgd(x{k}, {along}{k}, learning_rate)")
    return lines


def _adam(dim: int) -> list[str]:
    lines = []
    for k in range(dim):
        lines.append(f"m{k} = adam_mean(m{k}, g{k}, beta1)")
        lines.append(f"s{k} = adam_square(s{k}, g{k}, beta2)")
        lines.append(f"x{k} = adam(x{k}, m{k}, s{k}, learning_rate, root_correction, epsilon)")
    return lines


def _overdamped(dim: int, integrator: str, parameters) -> list[str]:
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


def _exact(dim: int) -> list[str]:
    """``x* + exp(-H dt)(x - x*) + sqrt(T) B z``, the matrices among the constants."""
    decay, spread = dim, dim + dim * dim
    lines = [f"d{k} = x{k} - q{k}" for k in range(dim)]
    for i in range(dim):
        mean = " + ".join(f"q{decay + i * dim + j} * d{j}" for j in range(dim))
        noise = " + ".join(f"q{spread + i * dim + j} * z{j}" for j in range(dim))
        lines.append(f"x{i} = exact_step(q{i}, {mean}, {noise}, root_temperature)")
    return lines


def _splitting(step: Step, slope: str) -> list[str]:
    """B, A and O in the order given, each over its share of dt."""
    dim = step.dim
    lines, noises = [], 0
    fresh = carries_gradient(step.dynamics)
    heavy = step.n_constants > 0
    per_mass = [f" * q{k}" if heavy else "" for k in range(dim)]
    per_root = [f" * q{dim + k}" if heavy else "" for k in range(dim)]
    for letter in step.dynamics.splitting:
        if letter == "B":
            lines += [] if fresh else [slope]
            lines += [f"v{k} = kick(v{k}, g{k}, kick_dt{per_mass[k]})" for k in range(dim)]
            fresh = True
        elif letter == "A":
            lines += [f"x{k} = drift(x{k}, v{k}, drift_dt)" for k in range(dim)]
            fresh = False
        else:
            for k in range(dim):
                z, spread = f"z{noises * dim + k}", f"spread{per_root[k]}"
                lines.append(f"v{k} = ornstein_uhlenbeck(v{k}, {z}, decay, {spread})")
            noises += 1
    return lines


def module_source(dtype: str, *parts: str) -> str:
    """A whole kernel module, from the kernels' text and the parts that are this run's own."""
    physics = (philox, PRECISION[dtype], library, factors, heavy_tails, sampling, steps, adam)
    physics += (observers,)
    head = (
        '"""A generated kernel of langevin: do not edit."""\n\nimport math\n\nimport numpy as np\n'
    )
    return "\n\n".join([head, *(pasted(module) for module in physics), *parts])

"""Composes a kernel's module: ``kernels/``, a surface's gradient, a dynamics' update."""

from __future__ import annotations

import re

import numpy as np

from langevin.dynamics import SGD
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
    """Whether the state holds a momentum buffer."""
    return isinstance(dynamics, SGD) and bool(np.any(np.asarray(dynamics.momentum) != 0))


def coefficient_names(dynamics, *, gaussian: bool) -> list[str]:
    """The run-time coefficients of an update, one row of the coefficient array each."""
    if isinstance(dynamics, SGD):
        coefficients = ["learning_rate"]
        coefficients += ["noise_scale"] if gaussian else []
        return coefficients + (["momentum"] if has_momentum(dynamics) else [])
    return ["dt", "amplitude"]


def update_source(dim: int, dynamics, *, gaussian: bool) -> str:
    """``update(state, gradient, [normals], coefficients) -> state``: one step of any dimension."""
    x, b, g, z = names("x", dim), names("b", dim), names("g", dim), names("z", dim)
    momentum = has_momentum(dynamics)
    state = x + b if momentum else x
    arguments = joined(
        state, g, z if gaussian else [], coefficient_names(dynamics, gaussian=gaussian)
    )
    lines = [f"def update({arguments}):"]
    for k in range(dim):
        if isinstance(dynamics, SGD):
            if gaussian:
                lines.append(f"    g{k} = noisy_gradient(g{k}, z{k}, noise_scale)")
            if momentum:
                lines.append(f"    b{k} = momentum_buffer(b{k}, g{k}, momentum)")
            direction = f"b{k}" if momentum else f"g{k}"
            lines.append(f"    x{k} = sgd(x{k}, {direction}, learning_rate)")
        else:
            lines.append(f"    x{k} = euler_maruyama(x{k}, g{k}, z{k}, dt, amplitude)")
    return "\n".join([*lines, f"    return ({joined(state)},)"]) + "\n"


def module_source(dtype: str, *parts: str) -> str:
    """A whole kernel module, from the kernels' text and the parts that are this run's own."""
    physics = (philox, PRECISION[dtype], library, sampling, steps, observers)
    head = (
        '"""A generated kernel of langevin: do not edit."""\n\nimport math\n\nimport numpy as np\n'
    )
    return "\n\n".join([head, *(pasted(module) for module in physics), *parts])

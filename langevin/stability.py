"""Whether a step can be stable: at every minimum, at some, at none."""

from __future__ import annotations

import warnings

import numpy as np

from langevin.dynamics import SGD, Underdamped
from langevin.errors import LangevinError, StabilityWarning, UnsoundError
from langevin.schedules import Schedule


def check_stability(surface, dynamics, n_steps: int) -> None:
    """Refuses a step that must diverge; warns where only some minima are unstable.

    Gradient descent is stable at a minimum iff ``eta lambda_max < 2 (1 + m)``. Minima are looked
    at where they are known; divergence elsewhere is caught while running. Of a schedule the
    smallest learning rate must be stable somewhere: an unstable phase may be survived.
    """
    if isinstance(getattr(dynamics, "learning_rate", None), Schedule):
        steps = np.unique(np.linspace(0, n_steps - 1, 10_000).astype(np.int64))
        dynamics = dynamics.at(int(steps[np.argmin(dynamics.learning_rate.factors(steps))]))
    elif getattr(dynamics, "is_scheduled", False):
        dynamics = dynamics.at(0)
    if hasattr(surface, "check_stability"):
        surface.check_stability(dynamics)
        return
    try:
        minima = surface.minima()
    except LangevinError:
        return
    if not minima:
        return
    tops = np.array([np.linalg.eigvalsh(np.atleast_2d(m.hessian))[-1] for m in minima])
    limit = np.atleast_1d(dynamics.curvature_limit)
    name = "learning_rate" if isinstance(dynamics, SGD) else "dt"
    power = 0.5 if isinstance(dynamics, Underdamped) else 1.0
    step = np.broadcast_to(np.asarray(dynamics.step_size, dtype=float), limit.shape)
    if (limit <= tops.min()).any():
        r = int(np.argmin(limit))
        raise UnsoundError(
            f"{name}={step[r]:g} is unstable at every minimum: the smallest of their curvatures is "
            f"{tops.min():.4g}, which needs {name} < "
            f"{step[r] * (limit[r] / tops.min()) ** power:.4g}. Reduce it."
        )
    for k in np.flatnonzero(tops >= limit.min()):
        r = int(np.argmin(limit))
        warnings.warn(
            f"{name}={step[r]:g} is unstable at the minimum at {minima[k].position}: curvature "
            f"{tops[k]:.4g} needs {name} < {step[r] * (limit[r] / tops[k]) ** power:.4g}. Replicas "
            "will leave it.",
            StabilityWarning,
            stacklevel=3,
        )

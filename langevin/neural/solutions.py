"""Which solutions an ensemble of networks is in: p_A/p_B between minima of a network's loss."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import torch

from langevin.analysis.occupation import MeasuredOccupation
from langevin.checks import one_of, whole_number
from langevin.errors import ParameterError, UnsoundError
from langevin.neural.derivatives import Derivatives
from langevin.surfaces.critical_points import Minimum
from langevin.surfaces.flow import phi

LARGEST = 400  # parameters: each step of each point takes a whole Hessian
MOST = 200  # solutions
NUMBERS = 2**22  # examples times parameters times points at once
FLAT = 1e-9  # smallest over largest curvature
SAME = 1e-5  # relative distance of two solutions, or of their outputs
LONGEST = 0.05  # of a step, over 1 + |theta|
ERROR = 0.2  # of the gradient after a step, over that before
ROUNDING = 1e-12  # of a gradient, over the curvature times 1 + |theta|
GROUPS = 64  # of replicas, for errors
BY = ("minimum", "function")


@dataclass(frozen=True, eq=False)
class Solutions:
    """The minima found, lowest first, and the one in whose basin each point lies.

    ``labels`` (n,) or (times, n) number the minima; -1 where the descent did not arrive.
    ``origins`` (n,) are those of the starts, if they were given. To predictions this is a surface:
    ``predict.laplace(solutions, temperature=T)``.
    """

    surface: Any
    found: tuple[Minimum, ...]
    labels: np.ndarray
    origins: np.ndarray | None = None
    hessian_is_constant: bool = field(default=False, repr=False)

    @property
    def dim(self) -> int:
        """How many parameters there are."""
        return self.surface.dim

    def minima(self) -> tuple[Minimum, ...]:
        """Position (dim,), energy and Hessian (dim, dim) of each solution."""
        return self.found

    @cached_property
    def functions(self) -> np.ndarray:
        """For each minimum, the first one that gives the training inputs the same outputs.

        Hidden units may change places, and signs where the activation is odd: other parameters of
        the same function.
        """
        first = np.arange(len(self.found))
        outputs = [_outputs(self.surface, m.position) for m in self.found]
        for k, own in enumerate(outputs):
            scale = SAME * (np.abs(own).max() + 1e-12)
            same = (j for j in range(k) if np.abs(own - outputs[j]).max() <= 10 * scale)
            first[k] = first[next(same, k)]
        return first

    def occupation(
        self, by: str = "minimum", *, allow_unequilibrated: bool = False
    ) -> MeasuredOccupation:
        """p_A/p_B: ``.probability``, ``.ratio(i, j)``, with standard errors over replicas.

        ``by`` "minimum" (parameters), or "function": then those of one function count together, at
        the number of the first, and what stands at the others' is 0.

        Raises UnsoundError where replicas still remember the basins that they began in (``starts``
        of `solutions`, or the first of several times, which then is not counted), where no start
        is known, and where nothing was assigned, unless ``allow_unequilibrated``.
        """
        one_of("by", by, BY)
        names = np.arange(len(self.found)) if by == "minimum" else self.functions
        names = np.append(names, len(self.found))  # -1: unassigned
        labels = np.atleast_2d(self.labels)
        origins = self.origins
        if origins is None and len(labels) > 1:
            origins, labels = labels[0], labels[1:]
        if origins is None and not allow_unequilibrated:
            raise UnsoundError(
                "the occupation says something about the dynamics only if replicas crossed between "
                "solutions, and one set of points cannot tell. Give solutions(..., starts=) or "
                "points of several times, (times, n, dim), or allow_unequilibrated=True."
            )
        origins = np.zeros(labels.shape[1], int) if origins is None else origins
        n = labels.shape[1]
        group = np.arange(n) * min(n, GROUPS) // n
        half = (2 * np.arange(len(labels)) // len(labels))[:, None] + np.zeros_like(labels)
        size = len(names)
        counts = np.zeros((group.max() + 1, 1, size, 2, size), np.int64)
        place = (group, 0, names[origins], half, names[labels])
        np.add.at(counts, np.broadcast_arrays(*place), 1)
        return MeasuredOccupation(counts).checked(allow_unequilibrated=allow_unequilibrated)

    def __repr__(self) -> str:
        shown = ", ".join(f"{m.energy:.6g}" for m in self.found[:6])
        more = ", ..." if len(self.found) > 6 else ""
        lost = int((self.labels < 0).sum())
        return (
            f"Solutions({len(self.found)} minima of loss {shown}{more}; "
            f"{self.labels.size - lost} points assigned, {lost} not)"
        )


def solutions(
    surface: Any, points: Any, *, starts: Any = None, max_steps: int = 2_000
) -> Solutions:
    """Quenches ``points`` and says which minimum of the loss each of them comes to rest in.

    ``points`` (n, dim), (times, n, dim), or what `simulate` returned; ``starts`` (n, dim) where the
    replicas began. Each point follows the gradient flow, step by step that of the quadratic
    expansion (exponential Euler), which near the minimum is Newton's method: it ends there to
    rounding. In float64, on all training data.

    Raises UnsoundError where minima are not isolated (more parameters than the data determine, or
    batch normalisation, whose scales are free): there no point is *in* one of them, and p_A/p_B
    means nothing. A penalty (``l2=`` of the surface) isolates them. Raises ParameterError for more
    than 400 parameters, or points of a wrong shape.
    """
    max_steps = whole_number("max_steps", max_steps, 1, 10**8)
    if surface.dim > LARGEST:
        raise ParameterError(
            f"solutions: {surface.dim:,} parameters given; whole Hessians are taken, and minima "
            f"told apart, up to {LARGEST:,}. Use a smaller network, or compare functions: "
            "interpolate() between two of them."
        )
    points = _points(surface, getattr(points, "positions", points), "points", (2, 3))
    x = points.reshape(-1, surface.dim)
    if starts is not None:
        starts = _points(surface, starts, "starts", (2,))
        if len(starts) != points.shape[-2]:
            raise ParameterError(
                f"starts: {len(starts)} given, needed: one for each of {points.shape[-2]} replicas."
            )
        x = np.concatenate([x, starts])
    curved = _Curved(surface)
    found, labels = _gathered(curved, *_descend(curved, x, max_steps))
    if not found:
        raise UnsoundError(
            f"solutions: no point arrived at a minimum in {max_steps:,} steps. Raise max_steps=."
        )
    # Minima of one energy, but for rounding, in the order of their parameters.
    keys = [(float(f"{m.energy:.9e}"), *np.round(m.position, 6)) for m in found]
    order = sorted(range(len(found)), key=keys.__getitem__)
    rank = np.append(np.argsort(order), -1)
    labels, n = rank[labels], points[..., 0].size
    return Solutions(
        surface,
        tuple(found[k] for k in order),
        labels[:n].reshape(points.shape[:-1]),
        None if starts is None else labels[n:],
    )


def _points(surface, given, name, dimensions):
    points = np.asarray(given, dtype=float)
    if points.ndim not in dimensions or points.shape[-1] != surface.dim or not points.size:
        raise ParameterError(
            f"{name} of shape {points.shape}; needed: (n, {surface.dim})"
            + (f" or (times, n, {surface.dim})." if 3 in dimensions else ".")
        )
    return points


def _outputs(surface, theta):
    own = Derivatives(surface, theta)
    with torch.no_grad():
        views = {k: v[0] for k, v in own.layout.views(own.theta[None]).items()}
        parts = [
            torch.func.functional_call(own.module, views, (own.examples(part)[0],))
            for part in own.parts()
        ]
    return own.array(torch.cat(parts))


class _Curved:
    """Gradients and Hessians of many points, at once where the module can be vmapped."""

    def __init__(self, surface):
        self.surface = surface
        self.own = own = Derivatives(surface, surface.flat().astype(np.float64))
        X, y = own.examples(slice(0, own.n))

        def loss(theta):
            penalty = 0.5 * surface.l2 * theta.square().sum()
            return own.losses(theta, X, y).mean() + penalty

        at_once = max(1, NUMBERS // (own.dim * own.n))
        both = torch.func.hessian(loss), torch.func.grad(loss)
        self.many = [torch.func.vmap(f, chunk_size=at_once) for f in both]

    def __call__(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Hessians (n, dim, dim) and gradients (n, dim) at x (n, dim)."""
        if self.many is not None:
            try:
                found = [f(self.own.tensor(x)) for f in self.many]
                return tuple(self.own.array(one) for one in found)
            except Exception:  # a module that vmap refuses, with whatever error of its own
                self.many = None
        each = [Derivatives(self.surface, theta) for theta in x]
        slopes = [own.array(own.gradient()) for own in each]
        return np.array([own.hessian() for own in each]), np.array(slopes)


def _descend(curved: _Curved, x: np.ndarray, max_steps: int) -> tuple[np.ndarray, np.ndarray]:
    """Where the gradient flow from x (n, dim) ends, and which points have arrived (n,).

    Each step is the exact flow of the quadratic expansion, over a time that keeps what it leaves
    out of the gradient small: far from a minimum the flow's own scale, near one Newton's step.
    """
    x, arrived = x.copy(), np.zeros(len(x), bool)
    H, g = curved(x)
    time = 0.1 / np.maximum(np.abs(H).sum(axis=2).max(axis=1), 1e-12)
    active = np.arange(len(x))
    for _ in range(max_steps):
        curvature, modes = np.linalg.eigh(H[active])
        along = np.einsum("nij,ni->nj", modes, g[active])
        span = curvature * time[active, None]
        decay = np.exp(-np.clip(span, -30, 700))
        move = -phi(curvature, time[active, None]) * along
        far = np.linalg.norm(move, axis=1) > LONGEST * (1 + np.linalg.norm(x[active], axis=1))
        trial = x[active] + np.einsum("nij,nj->ni", modes, move)
        new_H, new_g = curved(trial)
        left_out = new_g - np.einsum("nij,nj->ni", modes, decay * along)
        size = np.linalg.norm(g[active], axis=1)
        floor = ROUNDING * np.abs(curvature).max(axis=1) * (1 + np.linalg.norm(x[active], axis=1))
        error = np.linalg.norm(left_out, axis=1) / (size + floor)
        good = ~far & (error <= ERROR)  # never where anything is NaN
        taken = active[good]
        x[taken], H[taken], g[taken] = trial[good], new_H[good], new_g[good]
        time[active] *= np.where(good, np.where(error < ERROR / 4, 4.0, 1.0), 0.4)
        arrived[taken] = np.linalg.norm(g[taken], axis=1) <= floor[good]
        active = active[~arrived[active] & (time[active] > 0)]
        if not len(active):
            break
    return x, arrived


def _gathered(curved: _Curved, x: np.ndarray, arrived: np.ndarray):
    """The different minima among end points, and the label of each point."""
    labels, found = np.full(len(x), -1), []
    for k in np.flatnonzero(arrived):
        near = (m for m, known in enumerate(found) if _close(x[k], known.position))
        labels[k] = next(near, len(found))
        if labels[k] == len(found):
            H, _ = curved(x[k][None])
            H = (H[0] + H[0].T) / 2
            curvature = np.linalg.eigvalsh(H)
            flat = int((np.abs(curvature) <= FLAT * np.abs(curvature).max()).sum())
            if flat:
                raise UnsoundError(
                    f"solutions: the minimum of loss {curved.own.loss(curved.own.tensor(x[k])):.6g}"
                    f" has {flat} flat directions of {len(curvature)} (curvatures "
                    f"{curvature[0]:.2g} to {curvature[-1]:.2g}): it is part of a valley, not a "
                    "point, and p_A/p_B means nothing. Give the surface a penalty (l2=), or fewer "
                    "parameters."
                )
            if curvature[0] < 0:
                labels[k] = -1  # a saddle, reached along its ridge
                continue
            found.append(Minimum(x[k], curved.own.loss(curved.own.tensor(x[k])), H))
        if len(found) > MOST:
            raise UnsoundError(
                f"solutions: more than {MOST} minima: hardly any point shares its minimum with "
                "another, so that occupations mean nothing. Use a smaller network, more data, or "
                "a larger penalty (l2=)."
            )
    return found, labels


def _close(a: np.ndarray, b: np.ndarray) -> bool:
    return bool(np.linalg.norm(a - b) <= SAME * (1 + np.linalg.norm(b)))

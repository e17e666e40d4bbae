"""The loss between solutions: along a line and over a plane through weights."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from langevin.checks import one_of, real_array
from langevin.errors import ParameterError
from langevin.neural.derivatives import parameters
from langevin.neural.evaluation import Evaluation, _statistic
from langevin.neural.surface import BATCH_NORM, pair

AT_ONCE = 8  # copies of the network


@dataclass(frozen=True, eq=False)
class Line:
    """Loss and accuracy at ``(1 - a) first + a second``, on all the data: nothing is sampled.

    ``at`` (k,) are the numbers a; ``loss`` (k,) includes the penalty; ``accuracy`` (k,) or None.
    ``batch_norm`` is the policy under which every point was measured.
    """

    at: np.ndarray
    loss: np.ndarray
    accuracy: np.ndarray | None
    batch_norm: str

    @property
    def barrier(self) -> float:
        """The largest rise over the straight line between both ends' losses, for a in 0..1.

        Needs the points 0 and 1; raises ParameterError without them.
        """
        ends = [np.flatnonzero(self.at == a) for a in (0.0, 1.0)]
        if not all(len(e) for e in ends):
            raise ParameterError("barrier: the line was not measured at both a=0 and a=1.")
        first, second = (self.loss[e[0]] for e in ends)
        inside = (self.at >= 0) & (self.at <= 1)
        chord = (1 - self.at[inside]) * first + self.at[inside] * second
        return float((self.loss[inside] - chord).max())


@dataclass(frozen=True, eq=False)
class Plane:
    """Loss and accuracy (len(x), len(y)) over the plane through three points.

    ``x`` and ``y`` are distances along two orthonormal directions from the first point; ``points``
    (3, 2) are where the three lie.
    """

    x: np.ndarray
    y: np.ndarray
    points: np.ndarray
    loss: np.ndarray
    accuracy: np.ndarray | None
    batch_norm: str


def interpolate(
    surface: Any,
    first: Any,
    second: Any,
    *,
    at: Any = None,
    data: Any = None,
    batch_norm: str | None = None,
) -> Line:
    """The loss at ``(1 - a) first + a second`` for 25 numbers a in -1..2, or those in ``at``.

    Goodfellow, Vinyals & Saxe (2015); Keskar et al. (2017), figure 2. ``first`` and ``second`` are
    parameters (dim,) or modules. Only parameters are interpolated: batch normalisation's statistics
    are those of the policy at each point (``batch_norm``, by default the surface's):
    "recalibrate", of the training set anew; "batch", of the examples measured; "eval", the buffers
    of the surface's module throughout, which is refused for modules that have others. ``data``
    (X, y) by default the training data. At a=0 and a=1 the losses are those of the two ends.
    Everything is computed in the parameters' own precision.
    """
    surface, ends = _prepared(surface, (first, second), batch_norm)
    at = np.linspace(-1, 2, 25) if at is None else real_array("at", at, "needs numbers (k,)")
    if at.ndim != 1 or not at.size or not np.isfinite(at).all():
        raise ParameterError(f"at: shape {at.shape} given; needed: finite numbers (k,).")
    rows = np.multiply.outer(1 - at, ends[0]) + np.multiply.outer(at, ends[1])
    loss, accuracy = _measured(surface, rows.astype(ends[0].dtype), data)
    return Line(at, loss, accuracy, surface.batch_norm)


def loss_plane(
    surface: Any,
    first: Any,
    second: Any,
    third: Any,
    *,
    x: Any = None,
    y: Any = None,
    data: Any = None,
    batch_norm: str | None = None,
) -> Plane:
    """The loss over the plane through three points, as in Garipov et al. (2018), figure 1.

    ``x`` and ``y`` are distances along (second - first) and the part of (third - first) at right
    angles to it; by default 21 each, a quarter beyond the points on every side. Statistics of batch
    normalisation and precision as in `interpolate`. Raises ParameterError for three points on one
    line.
    """
    surface, (a, b, c) = _prepared(surface, (first, second, third), batch_norm)
    u = b - a
    length = np.linalg.norm(u)
    along = (c - a) @ u / length if length > 0 else 0.0
    v = c - a - along * (u / length if length > 0 else u)
    height = np.linalg.norm(v)
    if not height > 1e-9 * np.linalg.norm(c - a) or length == 0:
        raise ParameterError("loss_plane: the three points lie on one line; use interpolate.")
    points = np.array([[0.0, 0.0], [length, 0.0], [along, height]])
    axes = []
    for k, given in enumerate((x, y)):
        low, high = points[:, k].min(), points[:, k].max()
        margin = 0.25 * (high - low)
        given = np.linspace(low - margin, high + margin, 21) if given is None else given
        axes.append(np.atleast_1d(real_array("xy"[k], given, "needs numbers (k,)")))
    # In terms of the three points themselves, so that each is met to rounding.
    gamma = np.broadcast_to(axes[1] / height, (len(axes[0]), len(axes[1])))
    beta = axes[0][:, None] / length - gamma * (along / length)
    weights = np.stack([1 - beta - gamma, beta, gamma], axis=-1).reshape(-1, 3)
    loss, accuracy = _measured(surface, (weights @ np.stack([a, b, c])).astype(a.dtype), data)
    shape = gamma.shape
    accuracy = None if accuracy is None else accuracy.reshape(shape)
    return Plane(*axes, points, loss.reshape(shape), accuracy, surface.batch_norm)


def recalibrated(surface: Any, at: Any = None) -> nn.Module:
    """A copy of the module at ``at`` whose batch normalisation has the training set's statistics.

    What averaged, interpolated or perturbed weights need before they are used elsewhere: the
    buffers of the networks they were made of belong to other weights (Izmailov et al. 2018).
    """
    theta = parameters(surface, at)
    evaluation = Evaluation(surface, getattr(torch, str(theta.dtype)))
    return evaluation.recalibrated_module(torch.as_tensor(theta)).eval()


def _prepared(surface, points, batch_norm):
    policy = one_of("batch_norm", batch_norm or surface.batch_norm, BATCH_NORM)
    own = copy.copy(surface)
    own.batch_norm = policy
    if policy == "eval":
        expected = dict(surface.module.named_buffers())
        for point in points:
            if isinstance(point, nn.Module) and any(
                _statistic(name) and not torch.equal(buffer, expected[name].to(buffer.dtype))
                for name, buffer in point.named_buffers()
            ):
                raise ParameterError(
                    "batch_norm='eval' takes the surface's own statistics at every point, but a "
                    "module was given whose statistics are others. Use batch_norm='recalibrate'."
                )
    found = [parameters(surface, point) for point in points]
    kind = np.result_type(*found)
    return own, [theta.astype(kind) for theta in found]


def _measured(surface, rows, data):
    X, y = (surface.X, surface.y) if data is None else pair("data", data)
    evaluation = Evaluation(surface, getattr(torch, str(rows.dtype)))
    loss, accuracy = [], []
    for low in range(0, len(rows), AT_ONCE):
        found = evaluation.measured(torch.as_tensor(rows[low : low + AT_ONCE]), X, y)
        loss.append(found.loss.numpy())
        accuracy.append(None if found.accuracy is None else found.accuracy.double().numpy())
    known = accuracy[0] is not None
    return np.concatenate(loss), np.concatenate(accuracy) if known else None

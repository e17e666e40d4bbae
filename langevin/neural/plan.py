"""Larger batches at equal noise: Smith & Le's appendix E and McCandlish's critical batch size."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from langevin.checks import whole_number
from langevin.dynamics import SGD
from langevin.errors import ParameterError, UnsoundError
from langevin.neural import intervals
from langevin.neural.curvature import top_eigenvalues
from langevin.neural.intervals import Interval
from langevin.neural.noise_scale import NoiseScale, gradient_noise_scale
from langevin.neural.observers import Accuracy, Loss, Record
from langevin.result import Estimate

LARGEST_MOMENTUM = 0.99
SHARE = 0.1  # of the data that a batch may be: beyond, N/B - 1 is no longer N/B
PASSES = (0.1, 0.4, 1.0)  # of the baseline, where it is measured


@dataclass(frozen=True)
class Triple:
    """Learning rate, batch size and momentum of the baseline's noise scale, for ``n_steps``.

    ``how``: what was scaled with the batch, "baseline", "learning rate" or "momentum". ``holds``:
    "yes" below the smallest batch at which the curve may break, "no" beyond the predicted break,
    "unsure" between. ``examples``: how many examples it is predicted to need, relative to small
    batches, ``1 + B/B_crit``. ``accuracy``, if it was tried, on the test data.
    """

    learning_rate: float
    batch_size: int
    momentum: float
    n_steps: int
    how: str
    holds: str
    examples: float
    accuracy: Estimate | None = None


@dataclass(frozen=True, eq=False)
class Snapshot:
    """What was measured after ``step`` steps of the baseline, over its replicas."""

    step: int
    noise: NoiseScale
    curvature: Estimate


@dataclass(frozen=True, eq=False)
class LargeBatchPlan:
    """A report on a model: its noise, the curve of equal noise, and where that should break.

    ``noise_scale`` is g = eta N/(B (1 - m)) of the baseline, which every triple keeps.
    ``critical`` B_crit = tr Sigma/|G|^2 (mid-run): batches beyond it save few steps. ``breaks``:
    batch sizes beyond which the curve of scaled learning rates is predicted to fail, by cause, with
    intervals; ``break_at`` the first of them. ``accuracy`` of the baseline on the test data, or on
    the training data without any.
    """

    noise_scale: float
    snapshots: tuple[Snapshot, ...]
    critical: Interval
    breaks: dict[str, Interval]
    triples: tuple[Triple, ...]
    accuracy: Estimate
    loss: Estimate
    n_examples: int
    tested: bool
    warnings: tuple[str, ...] = field(default=())

    @property
    def break_at(self) -> tuple[str, Interval]:
        """The cause that is met first, and its batch size."""
        return _first(self.breaks)

    @property
    def recommended(self) -> Triple:
        """The largest batch that holds, the learning rate scaled where both ways exist."""
        good = [t for t in self.triples if t.holds == "yes"]
        return max(good, key=lambda t: (t.batch_size, t.how == "learning rate"))

    def __rich__(self) -> Any:
        from langevin.neural.plan_table import shown

        return shown(self)

    def __repr__(self) -> str:
        cause, size = self.break_at
        best = self.recommended
        return (
            f"LargeBatchPlan(critical batch {self.critical}; breaks at {size} by {cause}; "
            f"recommended: learning_rate={best.learning_rate:.4g}, batch_size={best.batch_size}, "
            f"momentum={best.momentum:.4g}, n_steps={best.n_steps})"
        )


def large_batch_plan(
    surface: Any,
    dynamics: Any = None,
    *,
    test: Any = None,
    n_steps: int = 400,
    n_replicas: int = 4,
    measured: int = 2,
    n: int | None = 2_000,
    verify: bool = False,
    seed: int = 0,
) -> LargeBatchPlan:
    """How far the batch can grow at equal noise, for a model, its data and a baseline that works.

    Trains ``n_replicas`` networks by ``dynamics`` (SGD; by default learning rate 0.1, batches of
    32, momentum 0.9) for ``n_steps`` and measures, at a tenth, two fifths and the end, the top
    eigenvalue, and in ``measured`` of them the gradient noise scale on ``n`` examples at most.
    Batches of 2, 4, 8, ... times the baseline's then keep g = eta N/(B (1 - m)) with as many
    epochs: the learning rate grows with the batch, or 1 - m shrinks (Smith & Le 2018, appendix E).

    The curve of learning rates is predicted to break at the smallest of: "stability", where
    eta lambda_max = 2 (1 + m) with the largest curvature seen; "overshoot", where eta is twice
    McCandlish's eps_opt(B) early in training, beyond which a step without momentum raises the loss;
    "data", a tenth of the examples. A prediction below the baseline's own batch is disproved by it
    and left out. With ``verify`` every triple is trained, too.

    Raises UnsoundError for dynamics without a constant noise scale, ParameterError.
    """
    import langevin

    sgd = SGD(0.1, 32, momentum=0.9) if dynamics is None else dynamics
    _constant(sgd)
    n_steps = whole_number("n_steps", n_steps, 10, 10**8)
    n_replicas = whole_number("n_replicas", n_replicas, 2, 10**5)
    measured = whole_number("measured", measured, 1, n_replicas)
    every = max(1, n_steps // 10)
    base = langevin.simulate(
        surface, sgd, n_replicas=n_replicas, n_steps=n_steps, seed=seed, dtype="float32",
        progress=False, observe=(*_observers(test), Record(_flat, every=every)),
    )  # fmt: skip
    rows = base["record"]
    snapshots = []
    for part in PASSES:
        at = int(np.argmin(np.abs(rows.steps - part * n_steps)))
        snapshots.append(
            _snapshot(surface, int(rows.steps[at]), rows.values[:, at], measured, n, seed)
        )
    critical = snapshots[1].noise.simple
    breaks = _breaks(surface.n_examples, sgd, snapshots)
    triples = _triples(surface, sgd, n_steps, breaks, critical)
    if verify:
        triples = [_tried(t, surface, test, n_replicas, seed) for t in triples]
    g = float(sgd.learning_rate) * surface.n_examples
    g /= float(sgd.batch_size) * (1 - float(sgd.momentum))
    return LargeBatchPlan(
        g,
        tuple(snapshots),
        critical,
        breaks,
        tuple(triples),
        _mean(base["accuracy"].final) if "accuracy" in base.observed else Estimate(math.nan, 0.0),
        _mean(base["loss"].final),
        surface.n_examples,
        test is not None,
        tuple(_cautions(snapshots, critical, breaks)),
    )


def _constant(sgd: Any) -> None:
    if not isinstance(sgd, SGD) or getattr(sgd, "is_scheduled", False):
        raise UnsoundError(
            f"large_batch_plan: {sgd!r} has no constant noise scale; give SGD with one learning "
            "rate, batch size and momentum."
        )
    for name in ("learning_rate", "batch_size", "momentum"):
        if np.ndim(getattr(sgd, name)):
            raise ParameterError(f"large_batch_plan: {name} must be one number.")


def _flat(module: Any, parameters: dict, buffers: dict) -> torch.Tensor:
    return torch.cat([p.reshape(-1) for p in parameters.values()])


def _observers(test: Any) -> tuple:
    """The last step's loss and accuracy, on the test data where there are some."""
    return (Loss(test, every=2**61), Accuracy(test, every=2**61))


def _mean(values: np.ndarray) -> Estimate:
    n = len(values)
    return Estimate(float(values.mean()), float(values.std(ddof=1) / math.sqrt(n)), n - 1)


def _snapshot(surface, step, rows, measured, n, seed) -> Snapshot:
    """Noise scale and top eigenvalue, averaged over replicas before any ratio is taken."""
    n = None if n is None else min(n, surface.n_examples)
    how = {"method": "batches", "batch_size": 16} if _shared(surface) else {}
    found = [
        gradient_noise_scale(surface, row.astype(np.float32), n=n, probes=12, seed=seed, **how)
        for row in rows[:measured]
    ]
    k = len(found)
    values = np.array([f.values for f in found])
    covariance = sum(f.covariance for f in found) / k**2
    if k > 1:  # replicas differ by more than the sampling of examples
        covariance = covariance + np.cov(values.T, ddof=1) / k
    noise = NoiseScale(
        values.mean(axis=0), covariance, found[0].dof, "population", found[0].method,
        found[0].n_examples, found[0].confidence,
    )  # fmt: skip
    tops = np.array(
        [
            top_eigenvalues(surface, 1, row.astype(np.float32), tolerance=1e-3).values[0]
            for row in rows
        ]
    )
    return Snapshot(step, noise, _mean(tops))


def _shared(surface: Any) -> bool:
    normalised = any(
        isinstance(m, torch.nn.modules.batchnorm._BatchNorm) for m in surface.module.modules()
    )
    return normalised and surface.batch_norm != "eval"


def _breaks(n_examples: int, sgd: SGD, snapshots: list[Snapshot]) -> dict[str, Interval]:
    """Batch sizes at which scaled learning rates are predicted to fail."""
    eta, b, m = (float(v) for v in (sgd.learning_rate, sgd.batch_size, sgd.momentum))
    sharpest = max(snapshots, key=lambda s: s.curvature.value).curvature
    limit = 2 * (1 + m) * b / eta
    width = intervals.quantile(sharpest.dof, 0.95) * sharpest.stderr if sharpest.dof else 0.0
    low = limit / (sharpest.value + width)
    high = limit / (sharpest.value - width) if sharpest.value > width else math.inf
    found = {"stability": Interval(limit / sharpest.value, low, high)}
    # eta = 2 eps_opt(B) with eta ~ B: B = 2 eps_max B0/eta - B_noise, so by values
    # (tr, |G|^2, q, h): (2 k |G|^2 - h)/q, whose interval is Fieller's.
    noise = snapshots[0].noise
    k = b / eta
    rows = np.array([[0, 2 * k, 0, -1.0], [0, 0, 1.0, 0]])
    a, q = rows @ noise.values
    reason = "G'HG early in training is not told apart from 0"
    turn = intervals.ratio(a, q, rows @ noise.covariance @ rows.T, noise.dof, 0.95, reason)
    found["overshoot"] = turn
    share = SHARE * n_examples
    found["data"] = Interval(share, share, share)
    for cause, size in found.items():
        if size.resolved and size.value < b:  # which the baseline itself disproves
            reason = f"the baseline trains beyond B = {size.value:.3g}, where this predicts a break"
            found[cause] = Interval(math.nan, 0.0, math.inf, size.confidence, reason)
    return found


def _first(breaks: dict[str, Interval]) -> tuple[str, Interval]:
    known = {cause: size for cause, size in breaks.items() if size.resolved}
    if not known:  # a baseline whose batch is more than a tenth of the data, and so on
        return "nothing that was foreseen", Interval(math.inf, 0.0, math.inf)
    return min(known.items(), key=lambda item: item[1].value)


def _triples(surface, sgd, n_steps, breaks, critical) -> list[Triple]:
    eta, b0, m = float(sgd.learning_rate), int(sgd.batch_size), float(sgd.momentum)
    _, size = _first(breaks)
    lowest = min((each.low for each in breaks.values() if each.resolved), default=0.0)
    share = SHARE * surface.n_examples
    found, factor = [], 1
    while factor * b0 <= min(max(2 * size.value, b0), surface.n_examples):
        b = factor * b0
        cost = (1 + b / critical.value) if critical.resolved else math.nan
        steps = max(1, round(n_steps / factor))
        holds = "yes" if b <= lowest else "unsure" if b <= size.value else "no"
        if factor == 1:
            found.append(Triple(eta, b, m, steps, "baseline", "yes", cost))
        else:
            found.append(Triple(factor * eta, b, m, steps, "learning rate", holds, cost))
            slower = 1 - (1 - m) / factor
            if slower <= LARGEST_MOMENTUM:
                # The step's length is the same; but it must forget its past within the run.
                settled = steps * (1 - slower) >= 10
                holds = "no" if b > share else "yes" if settled and b <= lowest else "unsure"
                found.append(Triple(eta, b, slower, steps, "momentum", holds, cost))
        factor *= 2
    return found


def _tried(triple: Triple, surface, test, n_replicas, seed) -> Triple:
    """Trains a triple; accuracy NaN where it diverges."""
    import dataclasses

    import langevin

    sgd = SGD(triple.learning_rate, triple.batch_size, momentum=triple.momentum)
    result = langevin.simulate(
        surface, sgd, n_replicas=n_replicas, n_steps=triple.n_steps, seed=seed, dtype="float32",
        progress=False, observe=_observers(test), on_divergence="absorb",
    )  # fmt: skip
    values = result["accuracy"].final
    accuracy = _mean(values) if np.isfinite(values).all() else Estimate(math.nan, math.nan, 0)
    return dataclasses.replace(triple, accuracy=accuracy)


def _cautions(snapshots, critical, breaks):
    for cause, size in breaks.items():
        if not size.resolved:
            yield f"Break by {cause}: {size}."
    if not critical.resolved:
        yield f"The critical batch size mid-run: {critical}."
    last = snapshots[-1].noise.simple
    if critical.resolved and not last.resolved:
        yield f"At the end of the run the noise scale {last}."

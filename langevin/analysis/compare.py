"""compare(): the one place where a measurement and a prediction meet."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from langevin.analysis import pairs, timed
from langevin.analysis.comparison import (
    RESOLUTION,
    SIGNIFICANCE,
    Comparison,
    Comparisons,
    check_significance,
    combine,
    judged,
)
from langevin.analysis.distances import Distance, distances
from langevin.analysis.finals import chi_square_rows, final_counts, kolmogorov_rows
from langevin.analysis.groups import PerGroup, Series
from langevin.analysis.rows import Row, estimate_row, moment_rows, occupation_rows
from langevin.analysis.significance import holm, student
from langevin.errors import LangevinError, ParameterError, UnsoundError
from langevin.result import Result

__all__ = ["Comparison", "Comparisons", "Row", "combine", "compare", "holm", "student"]

SHAPED = ("histogram", "moments")  # observers of a law's shape: the final positions test it too


@dataclass
class Found:
    """What a comparison has found so far."""

    rows: list[Row] = field(default_factory=list)
    distances: list[Distance] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def compare(
    result: Result,
    prediction: Any,
    *,
    group: int | tuple[int, int] | None = None,
    significance: float = SIGNIFICANCE,
    resolution: float = RESOLUTION,
    margin: float | None = None,
    allow_unequilibrated: bool = False,
    start: Any = None,
    observer: str | None = None,
) -> Comparison:
    """Tests a result against a prediction, in every quantity that both know.

    An Occupation observer gives the ratios (or, above two minima, the probabilities) of the
    minima; Moments gives mean and covariance; Histogram gives total variation, KL divergence and
    Wasserstein-1 with bootstrap intervals; the final positions, which are independent, a
    chi-square test on its bins and a Kolmogorov-Smirnov test along each axis that a Histogram or
    Moments looked at. Observers with ``at=`` are compared with ``prediction.at(time)``, step by
    step, where the prediction has that: with the law of a run that began where this one did, or at
    ``start``. A prediction with ``mean_passage_time`` is compared with the FirstPassage.

    ``prediction`` may be another Result, of independent noise: then every quantity, and the final
    positions, of one are tested against those of the other, and the steps of an ``at=`` in order.

    ``group`` picks one user group of a sweep (of two results: or a pair, one of each), ``observer``
    one observer by its name. ``significance``, ``resolution`` and ``margin`` (relative) decide the
    verdict, see Comparison.

    Raises ParameterError when result and prediction share no quantity, UnsoundError when the
    occupation has not equilibrated (unless ``allow_unequilibrated``), or when two results share
    their noise.
    """
    if not isinstance(result, Result):
        raise ParameterError(
            f"compare(result={type(result).__name__}): the first argument must be the Result of "
            "langevin.simulate or langevin.load."
        )
    result = result.to_numpy()
    prediction = prediction.to_numpy() if isinstance(prediction, Result) else prediction
    check_significance(significance)
    if margin is not None and not (np.ndim(margin) == 0 and margin > 0):
        raise ParameterError(f"margin={margin!r}: needs a number > 0, such as 0.01 for 1 %.")
    if observer is not None and observer not in result.kinds:
        have = ", ".join(result.kinds) or "none"
        raise ParameterError(f"observer={observer!r}: this run has no such observer, but: {have}.")
    found = Found()
    _same_dimension(result, prediction)
    if isinstance(prediction, Result):
        name, regime = pairs.gather(
            found, result, prediction, group, allow_unequilibrated, observer
        )
    elif hasattr(prediction, "mean_passage_time"):
        _passage(found, result, prediction, group, observer)
        name, regime = _named(prediction, "escape"), getattr(prediction, "regime", "")
    elif hasattr(prediction, "regime") and hasattr(prediction, "moments"):
        _gather(found, result, prediction, group, allow_unequilibrated, start, observer)
        name, regime = prediction.name, prediction.regime
    else:
        raise ParameterError(
            f"compare(result, {_shown(prediction)}): the second argument must be a stationary "
            "prediction, such as langevin.predict.chain(surface, dynamics), a prediction of a "
            "passage time, or another result."
        )
    if not found.rows:
        raise ParameterError(
            f"the result (observed: {', '.join(result.observed) or 'nothing'}) and the prediction "
            f"{name!r} share no quantity. Observe Occupation, Moments or Histogram, and "
            "not with at=, unless the prediction has .at(time), as those of predict.chain, "
            "predict.fokker_planck and predict.quadratic have: densities at given times are not "
            "stationary ones." + "".join(f" {note}" for note in found.notes)
        )
    # A stationary distance first, else that of the time at which it is largest.
    variation = [d for d in found.distances if d.name == "total variation"] or sorted(
        (d for d in found.distances if d.name.startswith("total variation")),
        key=lambda d: -d.value,
    )
    return Comparison(
        prediction=name,
        regime=regime,
        rows=judged(found.rows, significance),
        total_variation=variation[0].value if variation else math.nan,
        total_variation_noise=variation[0].noise if variation else math.nan,
        significance=significance,
        wanted_resolution=resolution,
        notes=tuple(found.notes),
        distances=tuple(found.distances),
        margin=margin,
    )


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"a {type(value).__name__}"


def _same_dimension(result: Result, prediction: Any) -> None:
    """Refuses a law of another dimension than the run's."""
    if isinstance(prediction, Result) or not hasattr(prediction, "moments"):
        return
    try:
        dim = len(prediction.moments()[0])
    except LangevinError:
        return
    if dim != result.surface.dim:
        raise ParameterError(
            f"compare: the prediction {_named(prediction, 'given')!r} has {dim} dimensions, the "
            f"result {result.surface.dim}. Predict on result.surface and result.dynamics."
        )


def _named(prediction: Any, otherwise: str) -> str:
    return str(getattr(prediction, "name", otherwise))


def _gather(found: Found, result, prediction, group, allow, start, only) -> None:
    """Rows and distances of every observer that shares a quantity with a law."""
    rounding = float(np.finfo(result.dtype).eps)
    axes: dict[int, np.ndarray] = {}  # axes whose shape was looked at, and the replicas behind
    for name, kind in result.kinds.items():
        observed = result.observed[name]
        if isinstance(observed, Exception) or only not in (None, name):
            continue
        members = alive(result, name, group)
        if isinstance(observed, Series):
            timed.gather(found, result, prediction, name, group, start)
            continue
        if kind == "occupation":
            checked = observed.checked(allow_unequilibrated=allow)
            if group is not None and name in result.groups:
                checked = checked.group(group)
            found.rows += occupation_rows(
                checked, prediction, *_basin_counts(result, checked, members)
            )
            continue
        if kind not in SHAPED:
            continue
        observed = one_group(observed, name, group)
        positions = result.positions[members]
        exact = getattr(prediction, "gaussian", True)  # else only its moments are exact
        if kind == "moments":
            found.rows += moment_rows(observed, prediction, rounding)
            looked = range(result.surface.dim)
        else:
            looked = observed.axes
            expected = bin_probabilities(prediction, observed, result.surface.dim)
            if expected is None:
                continue
            found.distances += distances(observed, expected)
            if exact:
                found.rows += chi_square_rows(
                    final_counts(positions, observed),
                    expected.ravel(),
                    "final positions",
                    order=expected.ndim > 1,
                )
        if exact:
            axes.update((a, members) for a in looked)
    for a in sorted(axes):
        found.rows += kolmogorov_rows(result.positions[axes[a]], prediction, (a,))
    found.notes += _notes(result, prediction)


def alive(result: Result, name: str, group: int | None) -> np.ndarray:
    """The replicas still alive, of one group of an observer."""
    living = result.diverged < 0
    labels = result.groups.get(name)
    return living if labels is None or group is None else living & (labels == group)


def one_group(observed: Any, name: str, group: int | None) -> Any:
    """The estimate itself, or that of the group asked for; ParameterError where none was."""
    if not isinstance(observed, PerGroup):
        return observed
    if group is None or not 0 <= group < len(observed):
        raise ParameterError(
            f"{name!r} has the groups 0 to {len(observed) - 1}: group={group!r} given."
        )
    return observed[group]


def _basin_counts(result, occupation, members) -> tuple[np.ndarray | None, int]:
    """The final positions by basin, for the minima too rare for an average over time."""
    if not (occupation.seen < 16).any() or result.surface.dim > 2:
        return None, 0
    labels = result.surface.basins().label(result.positions[members].astype(float))
    n = len(occupation.probability)
    return np.array([(labels == k).sum() for k in range(n)]), len(labels)


def bin_probabilities(prediction: Any, density: Any, dim: int) -> np.ndarray | None:
    """The predicted probability of each bin of a Density; None where it is not known."""
    edges = density.edges
    axes = density.axes[0] if len(density.axes) == 1 else density.axes
    whole = density.axes == tuple(range(dim))
    try:
        return np.asarray(prediction.bin_probabilities(edges, axes=None if whole else axes))
    except UnsoundError:
        return None


def _passage(found: Found, result: Result, prediction: Any, group, observer) -> None:
    """The mean first-passage time beside the predicted one."""
    passage = one_group(result.first_passage(observer), observer or "first_passage", group)
    predicted = float(prediction.mean_passage_time)
    if not predicted > 0:
        raise UnsoundError(
            f"{_named(prediction, 'escape')}: mean_passage_time is {predicted:g}, so there is "
            "nothing to compare with. Predict another barrier or start."
        )
    found.rows.append(estimate_row(f"mean passage time ({passage.unit})", passage.mean, predicted))
    found.notes += _other_start(result, prediction)
    if passage.censored:
        found.notes.append(
            f"note: {passage.censored:,} of {len(passage.times):,} replicas had not passed when "
            "the run ended; the mean takes their tail to be exponential."
        )


def _other_start(result: Result, prediction: Any) -> list[str]:
    """A note where replicas began in another basin than the one predicted for."""
    start = getattr(prediction, "start", None)
    if start is None or _n_minima(result.surface) < 2 or result.surface.dim > 2:
        return []
    minima = np.array([m.position for m in result.surface.minima()])
    began = minima if result.start is None else np.reshape(result.start, (-1, len(minima[0])))
    label = result.surface.basins().label
    if not len(began) or (label(began.astype(float)) == label(np.asarray(start)[None])[0]).all():
        return []
    return [
        f"note: the prediction starts at {np.round(start, 6).tolist()}, but not all replicas began "
        "in that basin (start=None puts them at every minimum in turn): simulate(start=...)."
    ]


def _n_minima(surface) -> int:
    try:
        return len(surface.minima())
    except LangevinError:
        return 0


def _notes(result: Result, prediction) -> list[str]:
    lifetime = getattr(prediction, "lifetime", math.inf)
    total = result.n_replicas * result.steps_done
    notes = []
    diverged = int((result.diverged >= 0).sum())
    if diverged:
        notes.append(
            f"note: {diverged:,} of {result.n_replicas:,} replicas diverged; the averages hold "
            "what they did until then, also on their way out, the final positions do not."
        )
    if lifetime < total:
        notes.append(
            f"note: the law is quasi-stationary; a replica escapes to infinity after "
            f"{lifetime:.3g} steps on average, and this run took {total:.3g} replica-steps."
        )
    if "occupation" not in result.kinds.values() and _n_minima(result.surface) > 1:
        notes.append(
            "note: nothing checked whether the replicas crossed between the minima; observe "
            "Occupation() to have that checked."
        )
    return notes

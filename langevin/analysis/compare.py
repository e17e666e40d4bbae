"""compare(): the one place where a measurement and a prediction meet."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from langevin.analysis.groups import PerGroup, Series
from langevin.errors import LangevinError, ParameterError, UnsoundError
from langevin.result import Estimate, Result

SIGNIFICANCE = 1e-3
RESOLUTION = 0.05


@dataclass(frozen=True)
class Row:
    """One quantity: measured, predicted, and how far apart in standard errors.

    ``scale`` is what its error is small or large against: the prediction itself, or for the entries
    of a mean or a covariance the predicted standard deviations.
    """

    quantity: str
    measured: float
    stderr: float
    predicted: float
    z: float
    p_value: float
    scale: float

    @property
    def relative_error(self) -> float:
        """Standard error over scale; 0 for a test without one."""
        return self.stderr / self.scale if self.stderr > 0 and self.scale > 0 else 0.0


@dataclass(frozen=True)
class Comparison:
    """A measurement beside a prediction.

    ``rows``: every quantity tested, p-values two-sided (Student's t with the degrees of freedom of
    the error groups; chi-square for the final positions). ``p_value``: the smallest after Holm's
    correction over the rows. ``z``: that of the row with the smallest p-value. ``resolution``: the
    largest standard error of the rows relative to their scale. ``total_variation``: distance
    between the measured and the predicted histogram, with the part of it that counting noise alone
    would give in ``total_variation_noise`` (NaN without a Histogram).

    ``verdict``: "differs" if p_value < significance; else "agrees" if the errors are small enough
    to have seen a deviation of the wanted resolution; else "undecided".
    """

    prediction: str
    regime: str
    rows: tuple[Row, ...]
    total_variation: float
    total_variation_noise: float
    significance: float
    wanted_resolution: float
    notes: tuple[str, ...] = ()

    @property
    def worst(self) -> Row:
        """The row with the smallest p-value."""
        tested = [row for row in self.rows if not math.isnan(row.p_value)]
        return min(tested or self.rows, key=lambda row: (row.p_value, -abs(row.z)))

    @property
    def z(self) -> float:
        """Standard errors between measurement and prediction in the worst row."""
        return self.worst.z

    @property
    def p_value(self) -> float:
        """Holm-corrected p-value over all rows; NaN if no row could be tested."""
        p = self.worst.p_value
        return p if math.isnan(p) else min(1.0, p * len(self.rows))

    @property
    def resolution(self) -> float:
        """Largest standard error relative to its scale.

        Without a row that has one (a Histogram alone), the total variation that noise would give.
        """
        relative = max((row.relative_error for row in self.rows), default=0.0)
        if relative == 0.0:
            relative = self.total_variation_noise
        return relative if math.isfinite(relative) else math.inf

    @property
    def verdict(self) -> str:
        """``agrees``, ``differs`` or ``undecided``."""
        if self.p_value < self.significance:
            return "differs"
        untested = any(math.isnan(row.p_value) for row in self.rows)
        sharp = self.resolution <= self.wanted_resolution
        return "agrees" if sharp and not untested else "undecided"

    def __str__(self) -> str:
        shown = sorted(self.rows, key=lambda r: (math.isnan(r.p_value), r.p_value))[:12]
        width = max(len(row.quantity) for row in shown)
        head = f"{'quantity':<{width}}  {'measured':>12} {'stderr':>9} {'predicted':>12} {'z':>7}"
        lines = [f"measured against {self.prediction}: {self.verdict}", head]
        for row in shown:
            lines.append(
                f"{row.quantity:<{width}}  {row.measured:12.6g} {row.stderr:9.2g} "
                f"{row.predicted:12.6g} {row.z:7.2f}"
            )
        if len(self.rows) > len(shown):
            lines.append(f"({len(self.rows) - len(shown)} more rows, all with larger p-values)")
        tail = f"p = {self.p_value:.3g} (Holm over {len(self.rows)} rows)"
        if not math.isnan(self.total_variation):
            tail += (
                f"; total variation {self.total_variation:.4f} "
                f"(noise alone {self.total_variation_noise:.4f})"
            )
        return "\n".join([*lines, tail, *self.notes])


def compare(
    result: Result,
    prediction: Any,
    *,
    group: int | None = None,
    significance: float = SIGNIFICANCE,
    resolution: float = RESOLUTION,
    allow_unequilibrated: bool = False,
) -> Comparison:
    """Tests a result against a prediction, in every quantity that both know.

    An Occupation observer gives the ratios (or, above two minima, the probabilities) of the
    minima; Moments gives mean and covariance; Histogram gives the total variation, and the final
    positions, which are independent, a chi-square test on its bins. ``group`` picks one user group
    of a sweep. ``significance`` and ``resolution`` (relative) decide the verdict, see Comparison.

    Raises ParameterError when result and prediction share no quantity, UnsoundError when the
    occupation has not equilibrated (unless ``allow_unequilibrated``).
    """
    if not (hasattr(prediction, "regime") and hasattr(prediction, "moments")):
        raise ParameterError(
            f"compare(result, {prediction!r}): the second argument must be a stationary "
            "prediction, "
            "such as langevin.predict.chain(surface, dynamics)."
        )
    rows: list[Row] = []
    variation = noise = math.nan
    rounding = float(np.finfo(result.dtype).eps)
    for name, kind in result.kinds.items():
        observed = result.observed[name]
        if isinstance(observed, (Exception, Series)):  # a Series, at given times, is transient
            continue
        if kind == "occupation":
            checked = observed.checked(allow_unequilibrated=allow_unequilibrated)
            if group is not None and name in result.groups:
                checked = checked.group(group)
            rows += _occupation_rows(checked, prediction, result, _members(result, name, group))
            continue
        if isinstance(observed, PerGroup):
            if group is None or not 0 <= group < len(observed):
                raise ParameterError(
                    f"{name!r} has the groups 0 to {len(observed) - 1}: group={group!r} given."
                )
            observed = observed[group]
        if kind == "moments":
            rows += _moment_rows(observed, prediction, rounding)
        if kind == "histogram":
            expected = _bin_probabilities(prediction, observed, result.surface.dim)
            if expected is not None:
                variation, noise = total_variation(observed, expected)
                exact = getattr(prediction, "gaussian", True)  # else only its moments are exact
                if exact:
                    members = _members(result, name, group)
                    rows += _final_rows(result.positions[members], observed, expected)
    if not rows:
        raise ParameterError(
            f"the result (observed: {', '.join(result.observed) or 'nothing'}) and the prediction "
            f"{prediction.name!r} share no quantity. Observe Occupation, Moments or Histogram, and "
            "not with at=: densities at given times are not stationary ones."
        )
    return Comparison(
        prediction=prediction.name,
        regime=prediction.regime,
        rows=tuple(rows),
        total_variation=variation,
        total_variation_noise=noise,
        significance=significance,
        wanted_resolution=resolution,
        notes=_notes(result, prediction),
    )


def student(z: float, dof: int) -> float:
    """Two-sided p-value of a difference of ``z`` standard errors."""
    from scipy import special

    if math.isnan(z):
        return math.nan
    return float(2 * special.stdtr(dof, -abs(z))) if dof > 0 else math.nan


def _members(result: Result, name: str, group: int | None) -> np.ndarray:
    """The replicas still alive, of one group of an observer."""
    alive = result.diverged < 0
    labels = result.groups.get(name)
    return alive if labels is None or group is None else alive & (labels == group)


def _row(quantity, measured: Estimate, predicted, scale=None, floor: float = -1.0) -> Row:
    """A row; a difference of at most ``floor`` is rounding, and none."""
    predicted = float(predicted)
    scale = abs(predicted) if scale is None else float(scale)
    same = abs(measured.value - predicted) <= floor
    z = 0.0 if same else measured.z(predicted)
    p_value = 1.0 if same else student(z, measured.dof)
    return Row(quantity, measured.value, measured.stderr, predicted, z, p_value, scale)


ROUNDINGS = 64  # last places by which a mean may be off through rounding alone
SEEN = 16  # error groups that must have seen a minimum for its standard error to mean anything


def _occupation_rows(occupation, prediction, result: Result, members: np.ndarray) -> list[Row]:
    """Ratio or probabilities; a rare minimum is tested by the final positions instead."""
    try:
        expected = np.asarray(prediction.occupation())
    except UnsoundError:
        return []
    probability, stderr, dof = occupation.probability, occupation.stderr, occupation.dof
    n = len(probability)
    if len(expected) != n or n < 2:
        return []
    rare = occupation.seen < SEEN
    if n == 2 and not rare.any():
        return [_row("p_0/p_1", occupation.ratio(0, 1), prediction.ratio(0, 1))]
    labels = None
    if rare.any() and result.surface.dim <= 2:
        labels = result.surface.basins().label(result.positions[members].astype(float))
    rows = []
    for k in range(n):
        if not rare[k]:
            measured = Estimate(float(probability[k]), float(stderr[k]), dof)
            rows.append(_row(f"p_{k}", measured, expected[k]))
        elif labels is not None:
            rows.append(_binomial_row(k, int((labels == k).sum()), len(labels), expected[k]))
        else:
            rows.append(Row(f"p_{k}", probability[k], math.nan, expected[k], *[math.nan] * 2, 0.0))
    return rows


def _binomial_row(k: int, count: int, n: int, expected: float) -> Row:
    """The exact test of a minimum's share of the final positions, which are independent."""
    from scipy import special, stats

    expected = min(max(float(expected), 0.0), 1.0)
    p_value = float(stats.binomtest(count, n, expected).pvalue) if n else math.nan
    error = math.sqrt(expected * (1 - expected) / n) if n else math.nan
    sign = math.copysign(1.0, count - n * expected)
    z = sign * float(-special.ndtri(max(p_value, 1e-300) / 2))
    name = f"p_{k} (rare: final positions)"
    return Row(name, count / max(n, 1), error, expected, z, p_value, expected)


def _moment_rows(moments, prediction, rounding: float) -> list[Row]:
    try:
        mean, covariance = prediction.moments()
    except UnsoundError:
        return []
    rows = []
    dim = len(moments.mean)
    deviation = np.sqrt(np.diag(np.atleast_2d(covariance)))
    error = ROUNDINGS * rounding * (np.abs(moments.mean) + deviation)
    for a in range(dim):
        for b in range(a, dim):
            measured = Estimate(
                float(moments.covariance[a, b]), float(moments.covariance_stderr[a, b]), moments.dof
            )
            scale = deviation[a] * deviation[b]
            rows.append(
                _row(f"cov[{a},{b}]", measured, covariance[a][b], scale, error[a] * error[b])
            )
    for a in range(dim):
        measured = Estimate(float(moments.mean[a]), float(moments.mean_stderr[a]), moments.dof)
        rows.append(_row(f"mean[{a}]", measured, mean[a], deviation[a], error[a]))
    return rows


def _bin_probabilities(prediction, density, dim: int) -> np.ndarray | None:
    edges = density.edges
    axes = density.axes[0] if len(density.axes) == 1 else density.axes
    whole = density.axes == tuple(range(dim))
    try:
        return np.asarray(prediction.bin_probabilities(edges, axes=None if whole else axes))
    except UnsoundError:
        return None


def total_variation(density, expected: np.ndarray) -> tuple[float, float]:
    """``1/2 sum |p - q|`` with what lies outside, and its expectation from noise alone."""
    p = np.append(density.probability.ravel(), density.outside)
    q = np.append(expected.ravel(), max(0.0, 1.0 - expected.sum()))
    noise = 0.5 * math.sqrt(2 / math.pi) * float(density.probability_stderr.sum())
    return 0.5 * float(np.abs(p - q).sum()), noise


def _final_rows(positions: np.ndarray, density, expected: np.ndarray) -> list[Row]:
    """Chi-square of the final positions, which are independent, on bins merged to 10 or more."""
    from scipy import special

    positions = positions[:, list(density.axes)].astype(float)
    n = len(positions)
    counts = np.histogramdd(positions, bins=list(density.axis_edges))[0].ravel()
    q = expected.ravel()
    order = np.argsort(-q, kind="stable") if len(density.axis_edges) > 1 else np.arange(len(q))
    counts, q = np.append(counts[order], n - counts.sum()), np.append(q[order], 1 - q.sum())
    cells = np.floor(np.cumsum(np.clip(q, 0, None)) * n / 10 * (1 - 1e-12)).astype(int)
    labels = np.unique(cells, return_inverse=True)[1]
    observed, wanted = np.bincount(labels, counts), np.bincount(labels, np.clip(q, 0, None)) * n
    good = wanted >= 5
    observed = np.append(observed[good], observed[~good].sum())
    wanted = np.append(wanted[good], wanted[~good].sum())
    if wanted[-1] < 5:
        observed, wanted = (np.append(v[:-2], v[-2:].sum()) for v in (observed, wanted))
    dof = len(wanted) - 1
    if dof < 2:
        return []
    statistic = float(((observed - wanted) ** 2 / wanted).sum())
    p = float(special.chdtrc(dof, statistic))
    z = float(-special.ndtri(max(p, 1e-300)))
    name = f"chi-square of {n:,} final positions, {dof} dof"
    return [Row(name, statistic, 0.0, float(dof), z, p, float(dof))]


def _n_minima(surface) -> int:
    try:
        return len(surface.minima())
    except LangevinError:
        return 0


def _notes(result: Result, prediction) -> tuple[str, ...]:
    lifetime = getattr(prediction, "lifetime", math.inf)
    total = result.n_replicas * result.steps_done
    notes = []
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
    return tuple(notes)

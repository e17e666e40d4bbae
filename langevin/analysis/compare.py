"""compare(): the one place where a measurement and a prediction meet."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from langevin.analysis.groups import PerGroup
from langevin.errors import ParameterError, UnsoundError
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
        return min(self.rows, key=lambda row: (row.p_value, -abs(row.z)))

    @property
    def z(self) -> float:
        """Standard errors between measurement and prediction in the worst row."""
        return self.worst.z

    @property
    def p_value(self) -> float:
        """Holm-corrected p-value over all rows."""
        return min(1.0, self.worst.p_value * len(self.rows))

    @property
    def resolution(self) -> float:
        """Largest relative standard error among the rows that have one."""
        relative = [row.stderr / row.scale for row in self.rows if row.stderr > 0 and row.scale > 0]
        return max(relative, default=math.inf)

    @property
    def verdict(self) -> str:
        """``agrees``, ``differs`` or ``undecided``."""
        if not math.isfinite(self.worst.p_value):
            return "undecided"
        if self.p_value < self.significance:
            return "differs"
        return "agrees" if self.resolution <= self.wanted_resolution else "undecided"

    def __str__(self) -> str:
        shown = sorted(self.rows, key=lambda row: row.p_value)[:12]
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
    rows: list[Row] = []
    variation = noise = math.nan
    for name, kind in result.kinds.items():
        observed = result.observed[name]
        if isinstance(observed, Exception):
            continue
        if kind == "occupation":
            checked = observed.checked(allow_unequilibrated=allow_unequilibrated)
            checked = checked.group(group) if group is not None else checked
            rows += _occupation_rows(checked, prediction)
            continue
        if isinstance(observed, PerGroup):
            if group is None:
                raise ParameterError(f"{name!r} has {len(observed)} groups: give group=.")
            observed = observed[group]
        if kind == "moments":
            rows += _moment_rows(observed, prediction)
        if kind == "histogram":
            expected = _bin_probabilities(prediction, observed)
            if expected is not None:
                variation, noise = total_variation(observed, expected)
                exact = getattr(prediction, "gaussian", True)  # else only its moments are exact
                if group is None and exact:
                    rows += _final_rows(result, observed, expected)
    if not rows:
        raise ParameterError(
            f"the result (observed: {', '.join(result.observed) or 'nothing'}) and the prediction "
            f"{prediction.name!r} share no quantity. Observe Occupation, Moments or Histogram."
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


def _row(quantity: str, measured: Estimate, predicted: float, scale: float | None = None) -> Row:
    z, predicted = measured.z(predicted), float(predicted)
    p_value = student(z, measured.dof)
    scale = abs(predicted) if scale is None else float(scale)
    return Row(quantity, measured.value, measured.stderr, predicted, z, p_value, scale)


def _occupation_rows(occupation, prediction) -> list[Row]:
    try:
        expected = np.asarray(prediction.occupation())
    except UnsoundError:
        return []
    probability, stderr, dof = occupation.probability, occupation.stderr, occupation.dof
    n = len(probability)
    if len(expected) != n or n < 2:
        return []
    if n == 2:
        return [_row("p_0/p_1", occupation.ratio(0, 1), prediction.ratio(0, 1))]
    return [
        _row(f"p_{k}", Estimate(float(probability[k]), float(stderr[k]), dof), expected[k])
        for k in range(n)
        if stderr[k] > 0
    ]


def _moment_rows(moments, prediction) -> list[Row]:
    try:
        mean, covariance = prediction.moments()
    except UnsoundError:
        return []
    rows = []
    dim = len(moments.mean)
    deviation = np.sqrt(np.diag(np.atleast_2d(covariance)))
    for a in range(dim):
        for b in range(a, dim):
            measured = Estimate(
                float(moments.covariance[a, b]), float(moments.covariance_stderr[a, b]), moments.dof
            )
            scale = deviation[a] * deviation[b]
            rows.append(_row(f"cov[{a},{b}]", measured, covariance[a][b], scale))
    for a in range(dim):
        measured = Estimate(float(moments.mean[a]), float(moments.mean_stderr[a]), moments.dof)
        rows.append(_row(f"mean[{a}]", measured, mean[a], deviation[a]))
    return rows


def _bin_probabilities(prediction, density) -> np.ndarray | None:
    edges = density.edges
    try:
        try:
            return np.asarray(prediction.bin_probabilities(edges, axes=density.axes))
        except TypeError:
            return np.asarray(prediction.bin_probabilities(edges))
    except UnsoundError:
        return None


def total_variation(density, expected: np.ndarray) -> tuple[float, float]:
    """``1/2 sum |p - q|`` with what lies outside, and its expectation from noise alone."""
    p = np.append(density.probability.ravel(), density.outside)
    q = np.append(expected.ravel(), max(0.0, 1.0 - expected.sum()))
    noise = 0.5 * math.sqrt(2 / math.pi) * float(density.probability_stderr.sum())
    return 0.5 * float(np.abs(p - q).sum()), noise


def _final_rows(result: Result, density, expected: np.ndarray) -> list[Row]:
    """Chi-square of the final positions, which are independent, on bins merged to 10 or more."""
    from scipy import special, stats

    alive = result.positions[result.diverged < 0][:, list(density.axes)].astype(float)
    n = len(alive)
    counts = np.histogramdd(alive, bins=list(density.axis_edges))[0].ravel()
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
    z = float(stats.norm.isf(max(p, 1e-300)))
    name = f"chi-square of {n:,} final positions, {dof} dof"
    return [Row(name, statistic, 0.0, float(dof), z, p, float(dof))]


def _notes(result: Result, prediction) -> tuple[str, ...]:
    lifetime = getattr(prediction, "lifetime", math.inf)
    total = result.n_replicas * result.steps_done
    if lifetime < total:
        return (
            f"note: the law is quasi-stationary; a replica escapes to infinity after {lifetime:.3g}"
            " "
            f"steps on average, and this run took {total:.3g} replica-steps.",
        )
    return ()

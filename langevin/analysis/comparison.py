"""What compare() returns: rows, distances, a verdict, and both told in words."""

from __future__ import annotations

import math
import re
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from langevin.analysis.distances import Distance
from langevin.analysis.rows import Row
from langevin.analysis.significance import CONFIDENCE, POWER, holm
from langevin.errors import ParameterError

SIGNIFICANCE = 1e-3
RESOLUTION = 0.05
SHOWN = 12  # rows of a printed table
COLUMNS = 100  # of a printed line
DISTANCES = 3  # distances below it


@dataclass(frozen=True)
class Comparison:
    """A measurement beside a prediction, or beside another measurement.

    ``rows``: every quantity tested, p-values two-sided (Student's t with the degrees of freedom of
    the error groups; chi-square and Kolmogorov-Smirnov for the final positions), each with its
    value after Holm's correction in ``.p_adjusted``. ``p_value``: the smallest of those. ``z``:
    that of the row with the smallest p-value. ``resolution``: the largest standard error of the
    rows relative to their scale. ``distances``: total variation, KL divergence and Wasserstein-1,
    with intervals; ``total_variation`` and its ``total_variation_noise``, what counting noise alone
    would give, are NaN without a Histogram.

    ``verdict``: "differs" if p_value < significance. Else "agrees" if a deviation worth seeing
    would have been seen: if every standard error is at most ``wanted_resolution``; or, where a
    ``margin`` was asked for, if `equivalent` at that margin. Else "undecided". A difference can be
    certain and small at once: `within` and `statement` say how small.
    """

    prediction: str
    regime: str
    rows: tuple[Row, ...]
    total_variation: float
    total_variation_noise: float
    significance: float
    wanted_resolution: float
    notes: tuple[str, ...] = ()
    distances: tuple[Distance, ...] = ()
    margin: float | None = None

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
        """The smallest p-value after Holm's correction over all rows; NaN if none was tested."""
        return self.worst.p_adjusted

    @property
    def resolution(self) -> float:
        """Largest standard error relative to its scale.

        Without a row that has one (a Histogram alone), the total variation that noise would give.
        """
        relative = max((row.relative_error for row in self.rows), default=0.0)
        if relative == 0.0:
            relative = self.total_variation_noise
        return relative if math.isfinite(relative) else math.inf

    def _within(self, confidence: float) -> float:
        margins = [row._within(confidence) for row in self.rows if row.has_interval]
        if margins:
            return max(math.inf if math.isnan(m) else m for m in margins)
        upper = [d.interval[1] for d in self.distances if d.name.startswith("total variation")]
        return max((u for u in upper if not math.isnan(u)), default=math.inf)

    @property
    def within(self) -> float:
        """The smallest margin within which every row is shown to agree, with 95 % confidence.

        Relative to the rows' scales. Every row has to pass its own test, so their number needs no
        correction (Berger 1982). Without a row that has a standard error (a Histogram alone), the
        upper end of the interval of the total variation.
        """
        return self._within(CONFIDENCE)

    def equivalent(self, margin: float = 0.01, confidence: float = CONFIDENCE) -> bool:
        """Whether "agrees within ``margin`` with this confidence" is shown; see Row.equivalent.

        Raises ParameterError for a margin or a confidence out of range.
        """
        if not (np.ndim(margin) == 0 and margin > 0):
            raise ParameterError(f"margin={margin!r}: needs a number > 0, such as 0.01 for 1 %.")
        if not (np.ndim(confidence) == 0 and 0.5 <= confidence < 1):
            raise ParameterError(f"confidence={confidence!r}: needs a number in [0.5, 1).")
        return bool(self._within(confidence) <= margin)

    @property
    def detectable(self) -> float:
        """The relative deviation that would have been seen, in any row, with 80 % probability.

        At the significance of this comparison, shared out over its rows. NaN without a row that
        has a standard error.
        """
        found = [row.detectable for row in self.rows if row.has_interval]
        return max((math.inf if math.isnan(d) else d for d in found), default=math.nan)

    def power(self, deviation: float) -> float:
        """The probability of seeing a true relative deviation of this size, in its worst row."""
        found = [row.power(deviation) for row in self.rows if row.has_interval]
        return min((0.0 if math.isnan(p) else p for p in found), default=math.nan)

    @property
    def verdict(self) -> str:
        """``agrees``, ``differs`` or ``undecided``."""
        if self.p_value < self.significance:
            return "differs"
        if any(math.isnan(row.p_value) for row in self.rows):
            return "undecided"
        if self.margin is not None:
            return "agrees" if self.equivalent(self.margin) else "undecided"
        return "agrees" if self.resolution <= self.wanted_resolution else "undecided"

    @property
    def _shape(self) -> Distance | None:
        """A total variation that is certain, its lower end above what noise alone gives."""
        found = (d for d in self.distances if d.name.startswith("total variation"))
        return next((d for d in found if d.interval[0] > d.noise), None)

    @property
    def statement(self) -> str:
        """The verdict in words: difference, equivalence and power."""
        within, seen = self.within, self.detectable
        aimed = self.margin if self.margin is not None else self.wanted_resolution
        what = "every quantity" if any(r.has_interval for r in self.rows) else "every probability"
        text = {
            "agrees": "no difference was found",
            "undecided": "no difference was found, but this run could hardly have seen one",
            "differs": f"the difference is no accident ({self.worst.quantity})",
        }[self.verdict]
        if self.verdict != "differs" and (shape := self._shape) is not None:
            text += (
                f" in a row, but the whole histogram is off: its {shape.name} is at least "
                f"{shape.interval[0]:.2g} at {_percent(CONFIDENCE)}"
            )
        if not math.isfinite(within):
            text += "; no bound on the deviation is known"
        elif self.verdict == "differs" and within > aimed:
            text += f"; {what} is within {_percent(within)} at {_percent(CONFIDENCE)}"
        else:
            small = ", yet it is small" if self.verdict == "differs" else ""
            text += f"{small}; {what} agrees within {_percent(within)} at {_percent(CONFIDENCE)}"
        if math.isfinite(seen) and seen > 0:
            text += (
                f"; a deviation of {_percent(seen)} would have been seen with "
                f"{_percent(POWER)} probability"
            )
        return text + "."

    def __str__(self) -> str:
        shown = sorted(self.rows, key=lambda r: (math.isnan(r.p_value), r.p_value))[:SHOWN]
        labels = [_short(row.quantity) for row in shown]
        width = max(8, *(len(label) for label in labels))
        other = "other run" if self.prediction.startswith("another run") else "predicted"
        head = (
            f"{'quantity':<{width}} {'measured':>10} {'stderr':>8} {other:>10} {'z':>7} "
            f"{'p (Holm)':>8}  deviation, 95 %"
        )
        lines = [f"measured against {self.prediction}: {self.verdict}", head]
        for label, row in zip(labels, shown, strict=True):
            error = f"{row.stderr:8.2g}" if row.has_interval else f"{'-':>8}"
            lines.append(
                f"{label:<{width}} {row.measured:10.5g} {error} {row.predicted:10.5g} "
                f"{row.z:7.2f} {row.p_adjusted:8.2g}  {_interval(row)}".rstrip()
            )
        if len(self.rows) > len(shown):
            lines.append(f"({len(self.rows) - len(shown)} more rows, all with larger p-values)")
        words = [f"p = {self.p_value:.3g} (Holm over {len(self.rows)} rows): {self.statement}"]
        more = len(self.distances) - DISTANCES
        words += ["; ".join(map(str, self.distances[:DISTANCES]))] if self.distances else []
        words += [f"({more} more distances, in .distances)"] if more > 0 else []
        folded = [textwrap.fill(t, COLUMNS, subsequent_indent="  ") for t in (*words, *self.notes)]
        return "\n".join([*lines, *folded])


def _short(quantity: str) -> str:
    """A row's name as a table has room for: the tests of whole distributions have long ones."""
    short = quantity.replace("Kolmogorov-Smirnov", "KS").replace("chi-square", "chi2")
    short = short.replace("final positions", "finals").replace(" along axis ", ", axis ")
    return re.sub(r", \d+ dof$", "", short)  # the column of the prediction says how many


def _percent(share: float) -> str:
    """A share in per cent, in few digits."""
    return f"{100 * share:.2g} %" if not 0.995 <= share < 100 else f"{100 * share:.0f} %"


def _interval(row: Row) -> str:
    low, high = row.interval
    if not (math.isfinite(low) and math.isfinite(high)):
        return ""
    return " to ".join(
        f"{100 * v:+.0f} %" if 0.995 <= abs(v) < 100 else f"{100 * v:+.2g} %" for v in (low, high)
    )


def judged(rows: Sequence[Row], significance: float) -> tuple[Row, ...]:
    """The rows with their p-values after Holm's correction, and the level of each."""
    adjusted = holm([row.p_value for row in rows])
    tested = max(1, int((~np.isnan(adjusted)).sum()))
    return tuple(
        replace(row, p_adjusted=float(p), level=significance / tested)
        for row, p in zip(rows, adjusted, strict=True)
    )


@dataclass(frozen=True)
class Comparisons(Sequence):
    """Several comparisons under one verdict: Holm's correction runs over all their rows.

    Each of ``comparisons`` is judged anew under that correction. ``verdict``: "differs" if any
    does, "agrees" if all agree, else "undecided"; ``differing`` names those that do.
    """

    comparisons: tuple[Comparison, ...]
    labels: tuple[str, ...]
    significance: float = field(default=SIGNIFICANCE)

    def __len__(self) -> int:
        return len(self.comparisons)

    def __getitem__(self, key: int | str) -> Comparison:
        if not isinstance(key, str):
            return self.comparisons[key]
        if key not in self.labels:
            raise ParameterError(f"no comparison {key!r}; there are: {', '.join(self.labels)}.")
        return self.comparisons[self.labels.index(key)]

    @property
    def p_value(self) -> float:
        """The smallest p-value after Holm's correction over the rows of all comparisons."""
        p = [c.p_value for c in self.comparisons]
        return float(np.nanmin(p)) if not np.isnan(p).all() else math.nan

    @property
    def within(self) -> float:
        """The smallest margin within which all are shown to agree, with 95 % confidence."""
        return max(c.within for c in self.comparisons)

    @property
    def differing(self) -> tuple[str, ...]:
        """The labels of the comparisons that differ."""
        pairs = zip(self.labels, self.comparisons, strict=True)
        return tuple(label for label, c in pairs if c.verdict == "differs")

    @property
    def verdict(self) -> str:
        """``agrees``, ``differs`` or ``undecided``."""
        verdicts = {c.verdict for c in self.comparisons}
        if "differs" in verdicts:
            return "differs"
        return "agrees" if verdicts == {"agrees"} else "undecided"

    def __str__(self) -> str:
        width = max(len(label) for label in (*self.labels, "comparison"))
        lines = [
            f"{len(self)} comparisons: {self.verdict}",
            f"{'comparison':<{width}}  {'verdict':<9} {'p (Holm)':>9} {'within':>8}  worst row",
        ]
        for label, c in zip(self.labels, self.comparisons, strict=True):
            within = _percent(c.within) if math.isfinite(c.within) else "-"
            lines.append(
                f"{label:<{width}}  {c.verdict:<9} {c.p_value:9.2g} {within:>8}  "
                f"{c.worst.quantity} (z = {c.z:.2f}, {c.prediction})"
            )
        n = sum(len(c.rows) for c in self.comparisons)
        return "\n".join([*lines, f"p = {self.p_value:.3g} (Holm over {n} rows)"])


def combine(
    comparisons: Mapping[Any, Comparison] | Iterable[Comparison],
    *,
    significance: float = SIGNIFICANCE,
) -> Comparisons:
    """One verdict over several comparisons, such as those of a sweep's points.

    Looking at many comparisons finds a "difference" by chance in some: here the probability that
    *any* false one is declared stays below ``significance``, by Holm's correction over all rows of
    all of them. A mapping names them by its keys. Raises ParameterError for anything else.
    """
    named = isinstance(comparisons, Mapping)
    try:
        given = list(comparisons.values() if named else comparisons)
    except TypeError:
        given = []
    if not given or not all(isinstance(c, Comparison) for c in given):
        raise ParameterError(
            f"combine({comparisons!r}): needs at least one Comparison, the results of "
            "langevin.compare, in a list or a dict."
        )
    check_significance(significance)
    rows = judged([row for c in given for row in c.rows], significance)
    ends = np.cumsum([len(c.rows) for c in given])
    made = tuple(
        replace(c, rows=rows[end - len(c.rows) : end], significance=significance)
        for c, end in zip(given, ends, strict=True)
    )
    labels = [str(k) for k in (comparisons if named else range(len(given)))]
    return Comparisons(made, tuple(labels), significance)


def check_significance(significance: float) -> None:
    """Raises ParameterError for a significance out of (0, 1)."""
    if not (np.ndim(significance) == 0 and 0 < significance < 1):
        raise ParameterError(f"significance={significance!r}: needs a number in (0, 1).")

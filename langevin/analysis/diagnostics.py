"""Whether each estimate of a run has converged, by which test, and what to do where it has not."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from langevin.analysis.averages import Averages, MeasuredAverage, Temperatures
from langevin.analysis.correlation import MeasuredAutocorrelation
from langevin.analysis.density import Density, Moments
from langevin.analysis.groups import PerGroup
from langevin.analysis.occupation import MeasuredOccupation
from langevin.analysis.passage import PassageTimes
from langevin.analysis.transitions import MeasuredTransitions
from langevin.errors import ConvergenceWarning, LangevinError
from langevin.result import Estimate

R_HAT = 1.01  # Vehtari et al. 2021, Bayesian Analysis 16
SAMPLES = 400  # effective, so that an error is a twentieth of the spread; the same source
PRECISION = 0.05  # relative error asked for where there is no spread to compare with
DISAGREE = 5.0  # normal z beyond which two parts of a run differ
ERROR_GROUPS = 16  # behind a standard error, so that it is known to a fifth


@dataclass(frozen=True)
class Diagnosis:
    """What is known of the convergence of one estimate; NaN where a test does not apply.

    ``relative_error``: standard error over the value (of a mean: over the standard deviation).
    ``drift``: between the halves of the run, ``equilibration``: between replicas that began in
    different basins, both as normal z. ``verdict``: "converged", "not converged" or "too few
    replicas", for the ``reason`` given.
    """

    quantity: str
    estimate: Estimate
    relative_error: float
    effective_sample_size: float = math.nan
    r_hat: float = math.nan
    drift: float = math.nan
    equilibration: float = math.nan
    refusal: str = ""

    @property
    def verdict(self) -> str:
        """``converged``, ``not converged`` or ``too few replicas``."""
        return self._judged[0]

    @property
    def reason(self) -> str:
        """Which test decided, and the remedy; empty where converged."""
        return self._judged[1]

    @property
    def _judged(self) -> tuple[str, str]:
        if self.refusal:
            return "not converged", self.refusal
        if self.estimate.dof < ERROR_GROUPS - 1 or math.isnan(self.estimate.stderr):
            return "too few replicas", (
                f"the error rests on {self.estimate.dof + 1} groups of replicas; use at least "
                f"{ERROR_GROUPS} replicas (in each user group)"
            )
        if abs(self.equilibration) > DISAGREE:
            return "not converged", (
                "replicas that began in different basins still differ; raise burn_in and n_steps, "
                "or read Transitions"
            )
        if abs(self.drift) > DISAGREE:
            return "not converged", "the halves of the run differ; raise burn_in and n_steps"
        if self.r_hat > R_HAT:
            return "not converged", (
                f"R-hat is above {R_HAT}: superchains still differ; raise burn_in and n_steps"
            )
        if self.effective_sample_size < SAMPLES:
            return "not converged", (
                f"fewer than {SAMPLES} effective observations; use more replicas or steps"
            )
        if math.isnan(self.effective_sample_size) and not self.relative_error <= PRECISION:
            return "not converged", (
                f"its error exceeds {PRECISION:.0%}; use more replicas or steps"
            )
        return "converged", ""


@dataclass(frozen=True)
class Diagnostics:
    """The diagnosis of every estimate of a run; prints as a table.

    ``untested``: names of observers with nothing to converge: trajectories, series at given times.
    """

    rows: tuple[Diagnosis, ...]
    untested: tuple[str, ...] = ()

    @property
    def converged(self) -> bool:
        """Whether every estimate has converged."""
        return all(row.verdict == "converged" for row in self.rows)

    def __getitem__(self, quantity: str) -> Diagnosis:
        for row in self.rows:
            if row.quantity == quantity:
                return row
        raise KeyError(f"{quantity!r}; there are {', '.join(r.quantity for r in self.rows)}")

    def __str__(self) -> str:
        width = max([len(row.quantity) for row in self.rows], default=8)
        head = f"{'quantity':<{width}} {'estimate':>11} {'rel. error':>10} {'ESS':>9}"
        lines = [f"{head} {'R-hat':>6} {'drift z':>7} {'basin z':>7}  verdict"]
        for row in self.rows:
            tests = (
                f"{_shown(row.effective_sample_size, '9.3g')} {_shown(row.r_hat, '6.3f')} "
                f"{_shown(row.drift, '7.1f')} {_shown(row.equilibration, '7.1f')}"
            )
            lines.append(
                f"{row.quantity:<{width}} {_shown(row.estimate.value, '11.5g')} "
                f"{_shown(row.relative_error, '10.2g')} {tests}  {row.verdict}"
                + (f": {row.reason}" if row.reason else "")
            )
        if self.untested:
            lines.append(f"nothing to converge: {', '.join(self.untested)}")
        return "\n".join(lines)


def _shown(value: float, form: str) -> str:
    return " " * (int(form.split(".")[0]) - 1) + "-" if math.isnan(value) else f"{value:{form}}"


def diagnostics(observed) -> Diagnostics:
    """Diagnoses every estimate of a mapping from names to what observers measured."""
    rows: list[Diagnosis] = []
    untested = []
    for name, found in observed.items():
        if isinstance(found, MeasuredOccupation) and found.n_groups > 1 and found.index is None:
            groups = [(f"{name}[{g}]", replace(found, index=g)) for g in range(len(found))]
        elif isinstance(found, PerGroup):
            groups = [
                (f"{name}[{g}]", _tried(lambda g=g, f=found: f[g])) for g in range(len(found))
            ]
        else:
            groups = [(name, found)]
        for label, estimate in groups:
            kind = type(estimate)
            if isinstance(estimate, LangevinError):
                rows.append(_refused(label, estimate))
            elif kind in _ROWS:
                rows += _ROWS[kind](label, estimate)
            else:
                untested.append(label)
    return Diagnostics(tuple(rows), tuple(untested))


def _tried(read):
    """What ``read`` returns, or the LangevinError that it raises."""
    try:
        return read()
    except LangevinError as error:
        return error


def _refused(name: str, error: Exception) -> Diagnosis:
    return Diagnosis(name, Estimate(math.nan, math.nan, 0), math.nan, refusal=str(error))


def _relative(estimate: Estimate, scale: float | None = None) -> float:
    scale = abs(estimate.value) if scale is None else scale
    return estimate.stderr / scale if scale > 0 else math.nan


def _of_moments(name: str, found: Moments) -> Iterator[Diagnosis]:
    for a in range(len(found.mean)):
        mean = Estimate(float(found.mean[a]), float(found.mean_stderr[a]), found.dof)
        variance = Estimate(
            float(found.covariance[a, a]), float(found.covariance_stderr[a, a]), found.dof
        )
        yield Diagnosis(
            f"{name} mean[{a}]", mean, _relative(mean, math.sqrt(max(variance.value, 0.0))),
            float(found.effective_sample_size[a]), float(found.r_hat[a]), float(found.drift[0, a]),
        )  # fmt: skip
        yield Diagnosis(
            f"{name} var[{a}]", variance, _relative(variance), drift=float(found.drift[1, a])
        )


def _of_average(name: str, found: MeasuredAverage) -> Iterator[Diagnosis]:
    yield Diagnosis(
        name, found, _relative(found), found.effective_sample_size, found.r_hat, found.drift
    )


def _of_averages(name: str, found: Averages) -> Iterator[Diagnosis]:
    for average in found:
        yield from _of_average(f"{name} {average.formula}", average)


def _of_occupation(name: str, found: MeasuredOccupation) -> Iterator[Diagnosis]:
    empty = _tried(found.observed)
    if isinstance(empty, LangevinError):
        yield _refused(name, empty)
        return
    equilibration = found.equilibration
    probability, stderr = found.probability, found.stderr
    for k in range(len(probability)):
        p = Estimate(float(probability[k]), float(stderr[k]), found.dof)
        stuck = "no replica was seen outside the basin it began in; raise n_steps or temperature"
        yield Diagnosis(
            f"{name} p_{k}",
            p,
            _relative(p),
            drift=float(equilibration.drifts[k]),
            equilibration=float(equilibration.z_basins[k]),
            refusal="" if equilibration.crossed else stuck,
        )


def _of_density(name: str, found: Density) -> Iterator[Diagnosis]:
    noise = 0.5 * math.sqrt(2 / math.pi) * float(found.probability_stderr.sum())
    inside = Estimate(1 - found.outside, noise, found.dof)
    yield Diagnosis(f"{name} (total variation of noise)", inside, noise)


def _of_temperatures(name: str, found: Temperatures) -> Iterator[Diagnosis]:
    for kind in ("configurational", "virial", "kinetic"):
        value = getattr(found, kind)
        if value is not None:
            drift = found.drift if kind == "configurational" else math.nan
            yield Diagnosis(f"{name} {kind}", value, _relative(value), drift=drift)


def _of_one(name: str, read) -> Diagnosis:
    """A single estimate that may be refused."""
    found = _tried(read)
    if isinstance(found, LangevinError):
        return _refused(name, found)
    return Diagnosis(name, found, _relative(found))


def _of_passage(name: str, found: PassageTimes) -> Iterator[Diagnosis]:
    yield _of_one(f"{name} mean", lambda: found.mean)


def _of_transitions(name: str, found: MeasuredTransitions) -> Iterator[Diagnosis]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # said in the table instead
        law = _tried(lambda: found.stationary)
    if isinstance(law, LangevinError):
        yield _refused(name, law)
        return
    for k, estimate in enumerate(law):
        yield Diagnosis(f"{name} p_{k}", estimate, _relative(estimate), refusal=found.doubt)


def _of_autocorrelation(name: str, found: MeasuredAutocorrelation) -> Iterator[Diagnosis]:
    times = _tried(lambda: found.integrated_time)
    if isinstance(times, LangevinError):
        yield _refused(name, times)
        return
    sizes = np.atleast_1d(found.effective_sample_size)
    for k, formula in enumerate(found.formulas):
        time = times if found.single else times[k]
        yield Diagnosis(f"{name} time of {formula}", time, _relative(time), float(sizes[k]))


_ROWS = {
    Averages: _of_averages,
    Density: _of_density,
    MeasuredAutocorrelation: _of_autocorrelation,
    MeasuredAverage: _of_average,
    MeasuredOccupation: _of_occupation,
    MeasuredTransitions: _of_transitions,
    Moments: _of_moments,
    PassageTimes: _of_passage,
    Temperatures: _of_temperatures,
}

"""Is it Boltzmann's law? Two temperatures tell, without its normaliser, in any dimension."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from langevin.analysis.comparison import (
    RESOLUTION,
    SIGNIFICANCE,
    Comparison,
    check_significance,
    judged,
)
from langevin.analysis.pairs import _refuse_shared_noise
from langevin.analysis.rows import estimate_row
from langevin.checks import real_array, real_number
from langevin.errors import ParameterError, UnsoundError
from langevin.result import Estimate, Result

FEWEST = 50  # energies of each ensemble for the errors of a maximum-likelihood fit to hold
ROUNDS = 60  # of Newton's method; a few are enough where the ensembles overlap


def temperature_ratio_test(
    first: Any,
    second: Any,
    *,
    temperatures: tuple[float, float] | None = None,
    significance: float = SIGNIFICANCE,
    resolution: float = RESOLUTION,
    margin: float | None = None,
) -> Comparison:
    """Tests two ensembles for ``exp(-E/T)`` by the ratio of their energies' distributions.

    Whatever the density of states, ``ln[P(E|T2)/P(E|T1)] = c + (1/T1 - 1/T2) E``: a straight line
    of known slope. It is fitted by maximum likelihood (logistic regression of which ensemble an
    energy came from), and so are the slope and a curvature that Boltzmann's law does not have. The
    rows of the Comparison are the two; ``rows[0].measured`` and ``.stderr`` are the slope.

    ``first`` and ``second`` are two Results (the potential energies of their final positions, and
    the temperatures of their dynamics) or two arrays of energies of independent replicas, with
    ``temperatures``. The test is sharpest where the mean energies are about two standard deviations
    apart. It sees a wrong temperature, a finite step, noise that is not Gaussian or not isotropic;
    it does not see what the energy does not: a wrong p_A/p_B between minima of one depth.
    Source: Shirts 2013, J. Chem. Theory Comput. 9, 909, Eq. 5 and 14.

    Raises ParameterError for arrays without temperatures, equal temperatures or too few energies,
    UnsoundError where the energies hardly overlap or two results share their noise.
    """
    check_significance(significance)
    if isinstance(first, Result) and isinstance(second, Result):
        _refuse_shared_noise(first, second, [r.diverged < 0 for r in (first, second)])
    energies = [_energies(which) for which in (first, second)]
    if temperatures is None:
        temperatures = tuple(_temperature(which) for which in (first, second))
    t1, t2 = _pair(temperatures)
    centre = np.concatenate(energies).mean()
    spread = np.concatenate(energies).std()
    if not spread > 0:
        raise UnsoundError("every energy is the same: an ensemble without noise has no law.")
    u = (np.concatenate(energies) - centre) / spread
    label = np.repeat([0.0, 1.0], [len(e) for e in energies])
    predicted = 1 / t1 - 1 / t2
    slope, slope_error, _ = _fitted(np.stack([np.ones_like(u), u]), label, 1)
    bend, bend_error, _ = _fitted(np.stack([np.ones_like(u), u, u**2]), label, 2)
    n = len(u)
    rows = [
        estimate_row(
            f"slope of ln P(E|T={t2:g})/P(E|T={t1:g})",
            Estimate(slope / spread, slope_error / spread, n - 2),
            predicted,
        ),
        estimate_row(
            "its curvature over a standard deviation of E",
            Estimate(bend, bend_error, n - 3),
            0.0,
            abs(predicted) * spread,
        ),
    ]
    return Comparison(
        prediction=f"Boltzmann's law at T = {t1:g} and {t2:g}",
        regime="any surface, any dimension; energies of independent replicas",
        rows=judged(rows, significance),
        total_variation=math.nan,
        total_variation_noise=math.nan,
        significance=significance,
        wanted_resolution=resolution,
        margin=margin,
    )


def _fitted(features: np.ndarray, label: np.ndarray, which: int) -> tuple[float, float, np.ndarray]:
    """A coefficient of a logistic regression, and its standard error, by Newton's method.

    The intercept absorbs the normalisers and the two sample sizes (Prentice and Pyke 1979).
    """
    from scipy import special

    k = np.zeros(len(features))

    def loss(k: np.ndarray) -> float:
        z = k @ features
        return float((np.logaddexp(0, z) - label * z).sum())

    now = loss(k)
    for _ in range(ROUNDS):
        p = special.expit(k @ features)
        weight = p * (1 - p)
        information = (features * weight) @ features.T
        if not np.linalg.cond(information) < 1e12:
            break
        step = np.linalg.solve(information, features @ (label - p))
        shrink = 1.0
        while (then := loss(k + shrink * step)) > now + 1e-9 and shrink > 1e-6:
            shrink /= 2
        k, now = k + shrink * step, then
        if np.abs(step).max() < 1e-9 * (1 + np.abs(k).max()):
            covariance = np.linalg.inv(information)
            return float(k[which]), float(math.sqrt(covariance[which, which])), k
    raise UnsoundError(
        "the energies of the two ensembles hardly overlap, so their ratio has no slope. Take "
        "temperatures closer to each other: best are mean energies about two standard deviations "
        "apart."
    )


def _energies(given: Any) -> np.ndarray:
    """The energies of an ensemble (n,), from a Result or as they were given."""
    if isinstance(given, Result):
        given = given.to_numpy()
        alive = given.positions[given.diverged < 0]
        found = np.asarray(given.surface.energy(alive.astype(float)), dtype=float)
    else:
        found = real_array("energies", given, "needed: a Result, or an array (n,) of energies")
    if found.ndim != 1 or len(found) < FEWEST or not np.isfinite(found).all():
        raise ParameterError(
            f"energies of shape {found.shape}: needed are at least {FEWEST} finite ones, (n,), of "
            "independent replicas."
        )
    return found


def _temperature(given: Any) -> float:
    if not isinstance(given, Result):
        raise ParameterError(
            "temperature_ratio_test: arrays of energies need temperatures=(T1, T2)."
        )
    found = given.dynamics.effective_temperature(given.surface)
    if np.ndim(found) > 0:
        raise ParameterError(
            "temperature_ratio_test: this run has one temperature for each replica. Pass the "
            "energies of two groups as arrays, surface.energy(result.positions[labels == k]), and "
            "temperatures=."
        )
    return float(found)


def _pair(temperatures: Any) -> tuple[float, float]:
    good = isinstance(temperatures, (tuple, list, np.ndarray)) and len(temperatures) == 2
    good = good and all(real_number(t) and 0 < float(t) < math.inf for t in temperatures)
    if not good or temperatures[0] == temperatures[1]:
        raise ParameterError(
            f"temperatures={temperatures!r}: needed are two different positive numbers."
        )
    return float(temperatures[0]), float(temperatures[1])

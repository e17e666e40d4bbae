"""The law of a small but finite step, to first order in it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from langevin.dynamics import SGD, Overdamped
from langevin.errors import ParameterError, UnsoundError
from langevin.predict.common import (
    check_index,
    check_points,
    check_surface,
    find_minima,
    is_finite_sum,
    momentum_of,
    positive,
    single_valued,
    temperature_of,
)
from langevin.predict.gibbs import boltzmann_gibbs
from langevin.predict.laplace import laplace
from langevin.predict.line import GibbsLine, Weight, moments_of
from langevin.predict.plane import GibbsPlane

WHO = "predict.finite_step"
NEGATIVE = 0.01  # more negative mass than this: the first order says nothing
LARGEST = 0.25  # total variation: a correction this large is no correction
KINETIC = 0.1  # of (1 - m)**2: a larger eta h, and first order is off by a fifth or far more


@dataclass(frozen=True, eq=False)
class FiniteStep:
    """What is known of the law of a finite step to first order, for every surface and dimension.

    ``step`` is eta (or dt), ``momentum`` m, ``temperature`` T; all derivatives in the step are at
    fixed T and m. This class answers what needs the minima alone, so its ``ratio`` is the one of
    low temperature; `FiniteStepLaw` (1-D, 2-D) and `FiniteStepGaussian` (quadratic surfaces)
    are whole laws.
    """

    name: str
    regime: str
    temperature: float
    step: float
    momentum: float
    surface: Any

    @property
    def effective_step(self) -> float:
        """``eta/(1 + m)``: what takes the place of the step in every first-order formula."""
        return self.step / (1 + self.momentum)

    def modified_loss(self, points: Any) -> np.ndarray:
        """``L + (eta/4) (1 + m)/(1 - m)**2 |grad L|**2`` at ``points`` (..., dim), shape (...).

        The loss whose gradient flow, in the time eta/(1 - m) a step, follows descent *without
        noise* to one order more. It says which path is taken, not how often a place is visited:
        exp(-modified_loss/T) is not the stationary law. Source: Smith et al. 2021, Eq. 1
        (full batches, m = 0).
        """
        points = check_points(points, self.surface.dim)
        square = (self.surface.gradient(points) ** 2).sum(-1)
        scale = self.step * (1 + self.momentum) / (1 - self.momentum) ** 2
        return self.surface.energy(points) + scale / 4 * square

    def low_temperature_slope(self, i: int, j: int) -> float:
        """``d ln(p_i/p_j)/d eta`` as T -> 0: ``-(tr H_i - tr H_j)/(4 (1 + m))``.

        Positive for the flatter minimum i: a finite step favours flat minima beyond Gibbs.
        """
        minima = self.surface.minima()
        i, j = check_index(i, len(minima)), check_index(j, len(minima))
        traces = [float(np.trace(minima[k].hessian)) for k in (i, j)]
        return -(traces[0] - traces[1]) / (4 * (1 + self.momentum))

    def low_temperature_ratio(self, i: int, j: int) -> float:
        """Laplace's ratio (Theorem 2) times ``exp(eta low_temperature_slope(i, j))``."""
        zeroth = laplace(self.surface, temperature=self.temperature)
        return zeroth.ratio(i, j) * float(np.exp(self.step * self.low_temperature_slope(i, j)))

    def slope(self, i: int, j: int) -> float:
        """``d ln(p_i/p_j)/d eta`` at this temperature; refused where no law is integrated."""
        raise self._unanswered("slope", "Use .low_temperature_slope(i, j) where T is small")

    def ratio(self, i: int, j: int) -> float:
        """``p_i / p_j`` for two minima: here the low-temperature ratio."""
        return self.low_temperature_ratio(i, j)

    def occupation(self) -> np.ndarray:
        """The probability of each minimum, (n_minima,), here from the low-temperature ratios."""
        zeroth = laplace(self.surface, temperature=self.temperature).log_weights
        slopes = [self.low_temperature_slope(k, 0) for k in range(len(zeroth))]
        log_p = zeroth + self.step * np.array(slopes)
        p = np.exp(log_p - log_p.max())
        return p / p.sum()

    @property
    def gibbs(self) -> Any:
        """The law of the limit step -> 0; refused where no law is integrated."""
        raise self._unanswered("gibbs", "Use predict.laplace")

    @property
    def size(self) -> float:
        """The total variation between ``gibbs`` and this law: how large the correction is."""
        raise self._unanswered("size", "Compare .low_temperature_ratio with predict.laplace")

    @property
    def negative_mass(self) -> float:
        """The integral of the negative part of the density, which a true law has not."""
        raise self._unanswered("negative_mass", "There is no density to integrate")

    def density(self, points: Any) -> np.ndarray:
        """Refused above two dimensions, unless the surface is quadratic."""
        raise self._unanswered("density", "Use predict.laplace for a density near the minima")

    def bin_probabilities(self, edges: Any, *, axes: Any = None) -> np.ndarray:
        """Refused above two dimensions, unless the surface is quadratic."""
        raise self._unanswered("bin_probabilities", "Use predict.laplace for the limit step -> 0")

    def moments(self) -> tuple[np.ndarray, np.ndarray]:
        """Refused above two dimensions, unless the surface is quadratic."""
        raise self._unanswered("moments", "Use predict.laplace for the limit step -> 0")

    def cdf(self, x: Any) -> np.ndarray:
        """Refused: a cdf needs one dimension."""
        raise self._unanswered("cdf", "Give a surface of one dimension")

    def _unanswered(self, what: str, instead: str) -> UnsoundError:
        return UnsoundError(
            f"{WHO}: .{what} needs an integral over the density, which is done in 1-D, 2-D and on "
            f"quadratic surfaces; this surface has {self.surface.dim} dimensions. {instead}, or "
            "simulate."
        )


@dataclass(frozen=True, eq=False)
class FiniteStepLaw(FiniteStep):
    """``P_0 [1 + e (|grad U|**2/(4T) - lap U/2 - mean)]``, e = eta/(1 + m), in 1-D and 2-D.

    ``zeroth`` is the Gibbs law P_0. The density is this linear form, not its exponential (which
    has no integral where U outgrows a quadratic), so it may be negative: see ``negative_mass``.
    """

    zeroth: GibbsLine | GibbsPlane

    @property
    def gibbs(self) -> GibbsLine | GibbsPlane:
        """The law of the limit step -> 0."""
        return self.zeroth

    def _bend(self, points: np.ndarray) -> np.ndarray:
        """``|grad U|**2/(4T) - lap U/2``, whose deviation from its mean bends the density."""
        square = (self.surface.gradient(points) ** 2).sum(-1)
        return square / (4 * self.temperature) - self._laplacian(points) / 2

    def _laplacian(self, points: np.ndarray) -> np.ndarray:
        return np.trace(self.surface.hessian(points), axis1=-2, axis2=-1)

    @cached_property
    def _mean(self) -> float:
        return float(self.gibbs.average(self._bend))

    def _factor(self, points: np.ndarray) -> np.ndarray:
        return 1 + self.effective_step * (self._bend(points) - self._mean)

    @cached_property
    def _basin_factors(self) -> np.ndarray:
        averages = self.gibbs.basin_averages(self._bend)
        return 1 + self.effective_step * (averages - self._mean)

    @cached_property
    def basin_laplacians(self) -> np.ndarray:
        """The Gibbs average of lap U over each basin, (n_minima,)."""
        return self.gibbs.basin_averages(self._laplacian)

    def density(self, points: Any) -> np.ndarray:
        """The density at ``points`` (..., dim), shape (...); the linear form, perhaps negative."""
        points = check_points(points, self.surface.dim)
        with np.errstate(over="ignore", invalid="ignore"):
            value = self.gibbs.density(points) * self._factor(points)
        return np.where(np.isnan(value), 0.0, value)  # 0 times infinity, far out

    def occupation(self) -> np.ndarray:
        """The probability of each basin, (n_minima,): the linear form integrated over it."""
        with np.errstate(invalid="ignore"):
            return np.nan_to_num(self.gibbs.occupation() * self._basin_factors)

    def ratio(self, i: int, j: int) -> float:
        """``p_i / p_j`` for two minima; raises ParameterError for an unknown index."""
        zeroth = self.gibbs.ratio(i, j)
        return zeroth * float(self._basin_factors[i] / self._basin_factors[j])

    def slope(self, i: int, j: int) -> float:
        """``d ln(p_i/p_j)/d eta`` at fixed T: ``-(<lap U>_i - <lap U>_j)/(4 (1 + m))``.

        <.>_i is the Gibbs average over basin i. It equals the linear form integrated over the
        basins: grad U is tangent to their border, so integrating by parts leaves nothing there.
        """
        n = len(self.basin_laplacians)
        i, j = check_index(i, n), check_index(j, n)
        difference = self.basin_laplacians[i] - self.basin_laplacians[j]
        return -float(difference) / (4 * (1 + self.momentum))

    @cached_property
    def next_order(self) -> float:
        """About how far the next order in the step moves ``ln(p_i/p_j)`` of neighbouring wells.

        Its value at low temperature, where it grows as ``eta**2/T``; with momentum its size, for
        eta/(1 - m). See `langevin.predict.next_order`.
        """
        from langevin.predict.next_order import next_order

        scale = (self.step / (1 - self.momentum)) ** 2 / self.temperature
        return next_order(self.surface, scale, self.effective_step)

    @cached_property
    def size(self) -> float:
        """The total variation between ``gibbs`` and this law: how large the correction is."""
        return float(self.gibbs.average(lambda x: np.abs(self._factor(x) - 1))) / 2

    @cached_property
    def negative_mass(self) -> float:
        """The integral of the negative part of the density, which a true law has not."""
        return float(self.gibbs.average(lambda x: np.maximum(-self._factor(x), 0.0)))

    def bin_probabilities(self, edges: Any, *, axes: Any = None) -> np.ndarray:
        """The probability of each bin, as ``predict.boltzmann_gibbs``'s: (b,) or (bx, by)."""
        return self.gibbs.bin_probabilities(edges, axes=axes, weight=self._factor)

    def cdf(self, x: Any) -> np.ndarray:
        """The cumulative probability at ``x`` (any shape), 1-D only; UnsoundError otherwise."""
        if isinstance(self.gibbs, GibbsPlane):
            raise UnsoundError(
                f"{self.name}: a cdf needs one dimension, this law has 2. Use "
                ".bin_probabilities(edges, axes=k) for the marginal along axis k."
            )
        return self.gibbs.cdf(x, weight=self._factor)

    def moments(self) -> tuple[np.ndarray, np.ndarray]:
        """Mean (dim,) and covariance (dim, dim)."""

        def average(weight: Weight) -> np.ndarray:
            return self.gibbs.average(lambda x: weight(x) * self._factor(x)[..., None])

        return moments_of(average, self.gibbs.moments()[0])


def finite_step(
    surface: Any,
    dynamics: Any = None,
    *,
    temperature: float | None = None,
    step: float | None = None,
) -> FiniteStep:
    """The stationary law of a finite step to first order, for isotropic Gaussian noise.

    ``P = P_0 [1 + e (|grad U|**2/(4T) - lap U/2 - mean)] + O(eta**2)``, P_0 = exp(-U/T)/Z, for SGD
    with ``e = eta/(1 + m)`` (m the momentum, ``T = eta sigma**2/(2 S (1 - m))``) and Overdamped
    (Euler-Maruyama) with e = dt; or give ``temperature=`` and ``step=`` for SGD without momentum.
    1-D and 2-D by quadrature, quadratic surfaces of any dimension in closed form; for other
    surfaces above 2-D only what the minima alone decide is answered (``.low_temperature_ratio``).

    ``.slope(i, j)`` is the first-order effect of the step on ln(p_i/p_j), ``.size`` how far the
    correction moves the law and ``.negative_mass`` how far it leaves what a density can be;
    ``.next_order`` is about what is left out of ln(p_i/p_j), which grows as eta**2/T.

    With momentum this is the limit eta -> 0 at a fixed m, which is reached where eta times the
    curvature is far below (1 - m)**2; at common settings (m = 0.9) it is not, and the true effect
    is several times larger. Raises UnsoundError above a tenth of that, for other integrators, for
    noise that is not isotropic and Gaussian, for a step at which the minima are unstable or either
    order is no longer small.

    Source: first-order expansion of the stationary law, Talay & Tubaro 1990; with momentum the
    same expansion in the slow variable ``(x_t - m x_{t-1})/(1 - m)``.
    """
    check_surface(WHO, surface)
    T, eta, m = _settings(surface, dynamics, temperature, step)
    minima = find_minima(WHO, surface)
    top = [float(np.linalg.eigvalsh(minimum.hessian)[-1]) for minimum in minima]
    bound = 2 * (1 + m)
    if eta * min(top) >= bound:
        raise UnsoundError(
            f"{WHO}: the step {eta:g} is unstable at every minimum: the flattest has curvature "
            f"{min(top):.4g} and needs a step below {bound / min(top):.4g}. Reduce it."
        )
    regime = f"first order in the step, isotropic Gaussian noise (T = {T:.6g}, step {eta:g}"
    # The next order in eta grows like 1/(1 - m)**2, whatever the prefactor of this one.
    regime += f", momentum {m:g}; needs step * curvature << {(1 - m) ** 2:.2g}" if m else ""
    regime += f"; step * curvature is up to {eta * max(top):.2g})"
    if not surface.hessian_is_constant:  # a parabola's variance has no such term
        _refuse_kinetic(surface, eta, m, max(top))
    for k, curvature in enumerate(top):
        if eta * curvature >= bound:
            regime += f"; minimum {k} is unstable at this step, where first order says little"
    about = (T, eta, m, surface)
    if surface.hessian_is_constant:
        from langevin.predict.finite_step_gaussian import gaussian_law

        return _accepted(gaussian_law(regime, *about))
    if surface.dim > 2:
        regime += "; and low temperature: every well is replaced by its quadratic expansion"
        return FiniteStep("finite step (low temperature)", regime, *about)
    zeroth = boltzmann_gibbs(surface, temperature=T)
    return _accepted(FiniteStepLaw("finite step", regime, *about, zeroth))


def _refuse_kinetic(surface: Any, step: float, momentum: float, curvature: float) -> None:
    """Refuse momentum where the limit eta -> 0 at fixed m is not reached."""
    bound = KINETIC * (1 - momentum) ** 2 / curvature
    if momentum > 0 and step > bound:
        better = "predict.chain, which solves the discrete step, " if surface.dim == 1 else ""
        raise UnsoundError(
            f"{WHO}: with momentum={momentum:g} first order needs step * curvature <= {KINETIC:g} "
            f"* (1 - m)**2; the sharpest minimum has curvature {curvature:.4g}, so a step below "
            f"{bound:.3g}, and it is {step:g}. Beyond, the effect of the step is several times "
            f"larger. Use {better}or simulate (predict.boltzmann_gibbs is the limit step -> 0)."
        )


def _settings(surface, dynamics, temperature, step) -> tuple[float, float, float]:
    """Temperature, step and momentum, or a refusal that names the prediction which can answer."""
    if dynamics is None:
        if step is None or temperature is None:
            raise ParameterError(f"{WHO}(surface): give a dynamics, or temperature= and step=.")
        step = positive(f"{WHO}(step", step)
        return temperature_of(WHO, surface, None, temperature), step, 0.0
    if step is not None or temperature is not None:
        raise ParameterError(f"{WHO}: give a dynamics, or temperature= and step=, not both.")
    single_valued(WHO, dynamics)
    _known_step(dynamics)
    if isinstance(dynamics, SGD):
        noise = getattr(surface, "noise", None)
        if is_finite_sum(surface) or not getattr(noise, "gaussian", True):
            what = "that of real mini-batches" if is_finite_sum(surface) else repr(noise)
            raise UnsoundError(
                f"{WHO}: needs isotropic Gaussian gradient noise, and it is {what}. Use "
                "predict.quadratic for least squares, or simulate."
            )
    T = temperature_of(WHO, surface, dynamics, None)
    return T, float(dynamics.step_size), momentum_of(dynamics)


def _known_step(dynamics: Any) -> None:
    """Refuse a step other than that of SGD (heavy ball) or Euler-Maruyama."""
    if isinstance(dynamics, SGD) and not dynamics.nesterov:
        return
    if isinstance(dynamics, Overdamped) and dynamics.integrator == "euler_maruyama":
        return
    exact = "predict.chain (any step, 1-D), " if isinstance(dynamics, SGD) else ""
    raise UnsoundError(
        f"{WHO}: knows the first-order error of SGD (with heavy-ball momentum too) and of "
        f"Overdamped with integrator='euler_maruyama', not of {dynamics!r}. Use predict.quadratic "
        f"(exact, quadratic surfaces), {exact}or predict.boltzmann_gibbs (step -> 0)."
    )


def _accepted(law: Any) -> Any:
    """The law with its size in the regime, or a refusal where the correction is not small."""
    if law.negative_mass > NEGATIVE or not law.size < LARGEST:
        raise UnsoundError(
            f"{WHO}: at step {law.step:g} the correction moves {law.size:.2g} of the probability "
            f"and makes {law.negative_mass:.2g} of it negative; first order holds below "
            f"{LARGEST:g} and {NEGATIVE:g}. Use predict.chain (any step, 1-D and 2-D) or "
            "predict.quadratic (quadratic surfaces), or reduce the step."
        )
    regime = law.regime + f"; it moves {law.size:.2g} of the probability"
    left = getattr(law, "next_order", 0.0)
    if left > LARGEST:
        raise UnsoundError(
            f"{WHO}: at T = {law.temperature:g} the next order in the step moves ln(p_i/p_j) by "
            f"about {left:.2g} (it grows as step**2/T). Use predict.chain (any step, 1-D and 2-D), "
            "or reduce the step."
        )
    if left > 1e-9:
        regime += f"; the next order moves ln(p_i/p_j) by about {left:.1g} or more"
    if law.negative_mass > 1e-12:
        regime += f", {law.negative_mass:.1e} of it below 0"
    object.__setattr__(law, "regime", regime)  # replace() would forget the integrals done
    return law

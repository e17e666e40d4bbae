"""Which runs of SGD are equivalent by their noise scale, and where the equivalence must break."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from langevin.checks import real_number
from langevin.dynamics import SGD
from langevin.errors import LangevinError, ParameterError, UnsoundError
from langevin.predict.common import (
    at_least_one,
    check_surface,
    find_minima,
    is_finite_sum,
    penalised,
    single_valued,
)
from langevin.predict.finite_step import finite_step
from langevin.predict.moments import LinearChain
from langevin.predict.quadratic import MAX_DATA_DIM, example_noise

WHO = "predict.scaling"
FARTHEST = 1e6  # factors beyond are not looked at
KINETIC = 0.1  # eta h/(1 - m)**2 beyond which momentum is more than an effective learning rate


@dataclass(frozen=True)
class Breaking:
    """Where a scaling rule stops holding: at ``factor``, with these values, for this ``cause``.

    ``dynamics`` is the SGD there; ``limit`` tells a hard end (instability, all data in a batch)
    from a deviation that has grown past the tolerance.
    """

    factor: float
    dynamics: SGD
    cause: str
    limit: bool

    def __float__(self) -> float:
        return self.factor


@dataclass(frozen=True, eq=False)
class Scaling:
    """The noise scale of an SGD, its equivalents, and what a finite step adds to it.

    ``noise_scale``: Smith & Le's g, ``eta N/(S (1-m))`` with replacement and
    ``eta (N/S - 1)/(1-m)`` without; with ``n_examples`` None it is ``eta/(S (1-m))``, g per
    example. ``temperature``: ``eta sigma**2/(2 S (1-m))`` where the noise is isotropic, else None.
    """

    name: str
    regime: str
    surface: Any
    dynamics: SGD
    n_examples: float | None
    noise_scale: float
    temperature: float | None

    @property
    def effective_learning_rate(self) -> float:
        """``eta/(1 - m)``: the time, in units of the gradient flow's, that one step stands for."""
        return _pace(self.dynamics)

    def steps(self, other: SGD, n_steps: float) -> float:
        """How many steps of ``other`` cover the time of ``n_steps`` steps of this dynamics.

        Equal paths of the density are equal at equal ``t eta/(1 - m)``.
        """
        return n_steps * self.effective_learning_rate / _pace(_checked(self.surface, other))

    def equivalent(
        self,
        *,
        learning_rate: float | None = None,
        batch_size: float | None = None,
        momentum: float | None = None,
        n_examples: float | None = None,
    ) -> SGD:
        """An SGD of the same noise scale with the values given.

        Of learning rate, batch size and momentum the last not given in the order (batch size,
        learning rate, momentum) is solved for, the others are kept: ``equivalent(learning_rate=)``
        scales the batch, ``equivalent(batch_size=)`` the learning rate. ``n_examples`` asks for
        the equivalent on a data set of another size. On data the batch size is rounded to a whole
        number. Raises ParameterError where there is no such SGD.
        """
        for value in (learning_rate, batch_size, momentum):
            if not (value is None or (real_number(value) and math.isfinite(value))):
                raise ParameterError(f"equivalent(): {value!r} given, needs finite numbers.")
        n = self.n_examples
        if n_examples is not None and self.n_examples is None:
            raise ParameterError(
                f"{WHO}: equivalent(n_examples=...) needs to know how many examples there are now: "
                "predict.scaling(surface, dynamics, n_examples=N)."
            )
        if n_examples is not None:
            n = at_least_one("equivalent(n_examples", n_examples)
        eta, m, g = self.dynamics.learning_rate, self.dynamics.momentum, self.noise_scale
        eta = float(eta if learning_rate is None else learning_rate)
        m = float(m if momentum is None else momentum)
        base = replace(self.dynamics, learning_rate=eta, momentum=m)
        if batch_size is None:
            size = self._batch(eta, m, n)
        else:
            size = float(batch_size)
            per_rate = _noise_scale(replace(base, learning_rate=1.0, batch_size=size), n)
            if not per_rate > 0:
                raise ParameterError(
                    f"equivalent(batch_size={size:g}): a batch of all {n:g} examples has no noise, "
                    "whatever the learning rate. Give a smaller batch."
                )
            if learning_rate is None:
                eta = g / per_rate
            elif momentum is None:
                m = 1 - (1 - m) * eta * per_rate / g
            else:
                raise ParameterError(
                    "equivalent(): learning rate, batch size and momentum are all given, so none "
                    "is left to solve for. Leave one out."
                )
        if not (0 <= m < 1 and eta > 0):
            raise ParameterError(
                f"equivalent(): the same noise scale needs learning_rate={eta:.6g}, momentum="
                f"{m:.6g}, and a momentum is in [0, 1). Give a larger batch or learning rate."
            )
        if is_finite_sum(self.surface):
            size = max(1.0, float(round(size)))
        return replace(base, learning_rate=eta, batch_size=size, momentum=m)

    def _batch(self, eta: float, m: float, n: float | None) -> float:
        """The batch size of the same noise scale."""
        if n is None:
            return eta / (self.noise_scale * (1 - m))
        ratio = self.noise_scale * (1 - m) / eta
        if self.dynamics.sampling != "with_replacement":
            ratio += 1
        return n / ratio

    # --- the finite step, in the same units -------------------------------------------------------

    @cached_property
    def noise_scales(self) -> tuple[np.ndarray, ...]:
        """For each minimum, the noise scale that each curvature feels, (dim,), lowest first.

        A finite step widens a parabola of curvature h as if g were
        ``g/(1 - eta h/(2 (1 + m)))`` (heavy ball; Nesterov's is its own). Infinite where the step
        is unstable.
        """
        found = []
        for minimum in find_minima(WHO, self.surface):
            curvatures = np.linalg.eigvalsh(minimum.hessian)
            found.append(
                np.array([self.noise_scale * _widening(self.dynamics, h) for h in curvatures])
            )
        return tuple(found)

    def deviations(self, other: SGD) -> dict[str, float]:
        """How far the law of ``other`` is from this dynamics', relative, by quantity.

        The variance along every curvature of every minimum (exact where the surface is quadratic,
        mini-batches included; else that of its quadratic expansion) and, where the noise is
        isotropic and the surface 1-D or 2-D, p_i/p_j of neighbouring minima to first order in the
        step. Zero for equivalent dynamics of small steps.
        """
        other = _checked(self.surface, other)
        found = {}
        minima = find_minima(WHO, self.surface)
        for k, minimum in enumerate(minima):
            ours = _variances(self.surface, self.dynamics, minimum)
            theirs = _variances(self.surface, other, minimum)
            curvatures = np.linalg.eigvalsh(minimum.hessian)
            for h, a, b in zip(curvatures, ours, theirs, strict=True):
                label = f"variance along curvature {h:.4g} of minimum {k}"
                found[label] = float(b / a - 1) if np.isfinite(a) else math.inf
        slopes = self.slopes
        if slopes and not (_kinetic(self.surface, other) or _kinetic(self.surface, self.dynamics)):
            ours, theirs = (d.learning_rate / (1 + d.momentum) for d in (self.dynamics, other))
            for (i, j), slope in slopes.items():
                found[f"p_{i}/p_{j}"] = float(np.expm1(slope * (theirs - ours)))
        return found

    def deviation(self, other: SGD) -> float:
        """The largest absolute of `deviations`."""
        return max(abs(v) for v in self.deviations(other).values())

    @cached_property
    def slopes(self) -> dict[tuple[int, int], float]:
        """``d ln(p_i/p_i+1)/d eta`` at fixed temperature and m = 0; empty where not known."""
        minima = find_minima(WHO, self.surface)
        if len(minima) < 2 or self.temperature is None or self.surface.dim > 2:
            return {}
        try:
            law = finite_step(self.surface, temperature=self.temperature, step=1e-9)
            return {(i, i + 1): law.slope(i, i + 1) for i in range(len(minima) - 1)}
        except LangevinError:
            return {}

    def breaking(self, tolerance: float = 0.05, *, vary: str = "learning_rate") -> Breaking:
        """The factor a at which the rule breaks: the law deviates by ``tolerance`` (relative).

        ``vary="learning_rate"``: (eta, S) -> (a eta, a S); ``vary="momentum"``: 1 - m ->
        (1 - m)/a with S -> a S; S by the rule of the sampling, which without replacement grows
        less. Deviation from the dynamics at hand, see `deviations`. With momentum the *path* is
        that of the rule only below ``m = (1 - sqrt(eta h))**2``, where a well begins to oscillate.
        """
        if not (real_number(tolerance) and 0 < tolerance < 10):
            raise ParameterError(
                f"breaking(tolerance={tolerance!r}): needs a number above 0, below 10."
            )
        if vary not in ("learning_rate", "momentum"):
            raise ParameterError(f"breaking(vary={vary!r}): 'learning_rate' or 'momentum'.")
        end, why = self._end(vary)
        low, high = 1.0, end
        grid = np.geomspace(1.0, end * (1 - 1e-9), 200)[1:]
        for a in grid:
            if self.deviation(self._scaled(float(a), vary)) > tolerance:
                high = float(a)
                break
            low = float(a)
        else:
            return Breaking(end, self._scaled(low, vary), why, limit=True)
        for _ in range(60):
            middle = math.sqrt(low * high)
            inside = self.deviation(self._scaled(middle, vary)) <= tolerance
            low, high = (middle, high) if inside else (low, middle)
        worst = self.deviations(there := self._scaled(high, vary))
        cause = max(worst, key=lambda name: abs(worst[name]))
        return Breaking(high, there, f"{cause} is off by {worst[cause]:+.3g}", limit=False)

    def _scaled(self, a: float, vary: str) -> SGD:
        """This dynamics with the rule applied by a factor, the batch size not rounded."""
        eta, m = float(self.dynamics.learning_rate), float(self.dynamics.momentum)
        eta, m = (a * eta, m) if vary == "learning_rate" else (eta, 1 - (1 - m) / a)
        size = self._batch(eta, m, self.n_examples)
        return replace(self.dynamics, learning_rate=eta, momentum=m, batch_size=size)

    def _end(self, vary: str) -> tuple[float, str]:
        """The factor beyond which the rule has no meaning, and why."""
        ends = [(FARTHEST, f"nothing up to a factor of {FARTHEST:g}")]
        if vary == "learning_rate":
            for k, minimum in enumerate(find_minima(WHO, self.surface)):
                sharpest = float(np.linalg.eigvalsh(minimum.hessian)[-1])
                limit = float(self.dynamics.curvature_limit) / sharpest
                ends.append((limit, f"minimum {k} becomes unstable (curvature {sharpest:.4g})"))
        else:  # (1 - sqrt m)**2 = eta h: from there on the mean oscillates on its way down
            m, eta = float(self.dynamics.momentum), float(self.dynamics.learning_rate)
            for k, minimum in enumerate(find_minima(WHO, self.surface)):
                sharpest = float(np.linalg.eigvalsh(minimum.hessian)[-1])
                largest = (1 - math.sqrt(min(eta * sharpest, 1.0))) ** 2
                cause = f"the path into minimum {k} begins to oscillate (curvature {sharpest:.4g})"
                ends.append((max((1 - m) / (1 - largest), 1.0 + 1e-6), cause))
        if self.n_examples is not None and self.dynamics.sampling == "with_replacement":
            ends.append(
                (self.n_examples / float(self.dynamics.batch_size), "the batch is the whole data")
            )
        return min(ends)

    def __str__(self) -> str:
        d = self.dynamics
        lines = [
            f"noise scale {'g' if self.n_examples else 'g/N'} = {self.noise_scale:.6g}   "
            f"(eta = {d.learning_rate:g}, S = {d.batch_size:g}, m = {d.momentum:g})",
            "felt along each curvature, in units of it:",
        ]
        for k, (minimum, scales) in enumerate(
            zip(find_minima(WHO, self.surface), self.noise_scales, strict=True)
        ):
            curvatures = np.linalg.eigvalsh(minimum.hessian)
            pairs = list(zip(curvatures, scales / self.noise_scale, strict=True))
            shown = pairs if len(pairs) <= 4 else [*pairs[:2], *pairs[-2:]]
            lines.append(f"  minimum {k}: " + ", ".join(f"h = {h:.4g}: {r:.4f}" for h, r in shown))
        for vary in ("learning_rate", "momentum"):
            found = self.breaking(vary=vary)
            rule = "(a eta, a S)" if vary == "learning_rate" else "((1 - m)/a, a S)"
            lines.append(f"{rule} breaks by 5 % at a = {found.factor:.4g}: {found.cause}")
        return "\n".join(lines)


def scaling(surface: Any, dynamics: SGD, *, n_examples: float | None = None) -> Scaling:
    """The noise scale of SGD, the SGDs equivalent to it, and where equivalence must break.

    ``g = eta N/(S (1-m))`` (Smith & Le 2017, Eq. 32; without replacement ``eta (N/S - 1)/(1-m)``):
    SGDs of equal g on the same data have the same stationary law, and the same path in the time
    ``t eta/(1-m)``, to zeroth order in the step. What the step adds, in the same units, is
    `Scaling.noise_scales`; `Scaling.breaking` finds where it passes a tolerance.
    ``n_examples``: N; that of the data on a FiniteSum.

    Raises UnsoundError for dynamics other than SGD, schedules, arrays or a weight decay (put it
    into the loss), and where a minimum does not exist.
    """
    check_surface(WHO, surface)
    if not isinstance(dynamics, SGD):
        raise UnsoundError(
            f"{WHO}: {type(dynamics).__name__} has no learning rate, batch size and momentum to "
            "scale. Give an SGD; for Langevin dynamics the temperature says it all."
        )
    dynamics = _checked(surface, dynamics)
    find_minima(WHO, surface)
    n = getattr(surface, "n_examples", None)
    if n_examples is not None:
        if n is not None and not np.array_equal(n, n_examples):
            raise ParameterError(
                f"{WHO}(n_examples={n_examples!r}): this surface has {n} examples. Leave it out, "
                "and ask .equivalent(n_examples=...)."
            )
        n = at_least_one(f"{WHO}(n_examples", n_examples)
    g = _noise_scale(dynamics, n)
    if not g > 0:
        raise UnsoundError(
            f"{WHO}: a batch of all {n:g} examples drawn without replacement has no noise to "
            "scale. Give a smaller batch_size."
        )
    try:
        temperature = float(dynamics.temperature(surface))
    except UnsoundError:
        temperature = None
    regime = "equal noise scales are equivalent to zeroth order in the step"
    if _kinetic(surface, dynamics):
        regime += (
            "; here eta h/(1 - m)**2 is not small, so that the path is a damped oscillation and "
            "p_i/p_j has a step error that is not predicted"
        )
    return Scaling("noise scale", regime, surface, dynamics, n, g, temperature)


def _checked(surface: Any, dynamics: SGD) -> SGD:
    if not isinstance(dynamics, SGD):
        raise ParameterError(f"{WHO}: {dynamics!r} given, an SGD is needed.")
    single_valued(WHO, dynamics)
    penalised(WHO, dynamics)
    return dynamics


def _noise_scale(dynamics: SGD, n: float | None) -> float:
    if n is not None:
        return float(dynamics.noise_scale(n))
    return float(dynamics.learning_rate / (dynamics.batch_size * (1 - dynamics.momentum)))


def _pace(dynamics: SGD) -> float:
    return float(dynamics.learning_rate) / (1 - float(dynamics.momentum))


def _gains(dynamics: SGD, curvatures: np.ndarray) -> np.ndarray:
    """Variances for unit gradient noise a step, (dim, dim) in the eigenbasis; inf if unstable."""
    chain = LinearChain(
        curvatures, float(dynamics.learning_rate), float(dynamics.momentum), dynamics.nesterov
    )
    if chain.rate >= chain.bound:
        return np.full((len(curvatures),) * 2, math.inf)
    return chain.position_gains()


def _widening(dynamics: SGD, curvature: float) -> float:
    """The variance in a parabola over its continuum limit ``eta/(2 (1 - m) h)``."""
    if not curvature > 0:
        return math.nan
    gain = float(_gains(dynamics, np.array([curvature]))[0, 0])
    return gain * 2 * curvature / _pace(dynamics)


def _kinetic(surface: Any, dynamics: SGD) -> bool:
    """Whether some minimum oscillates: eta h is not small against (1 - m)**2."""
    sharpest = max(float(np.linalg.eigvalsh(m.hessian)[-1]) for m in surface.minima())
    m = float(dynamics.momentum)
    return m > 0 and float(dynamics.learning_rate) * sharpest > KINETIC * (1 - m) ** 2


def _variances(surface: Any, dynamics: SGD, minimum: Any) -> np.ndarray:
    """The variance along each axis of a minimum's Hessian, (dim,), lowest curvature first."""
    curvatures, axes = np.linalg.eigh(np.asarray(minimum.hessian, dtype=float))
    if not (curvatures > 0).all():
        raise UnsoundError(
            f"{WHO}: a minimum has the curvature {curvatures[0]:.3g}: nothing holds the chain "
            "there. Add l2=, or a confining term."
        )
    gains = _gains(dynamics, curvatures)
    if not np.isfinite(gains).all():
        return np.full(len(curvatures), math.inf)
    size = float(dynamics.batch_size)
    position = np.asarray(minimum.position, dtype=float)
    if is_finite_sum(surface):
        factor = float(dynamics.sampling_factor(surface)) / size
        if surface.hessian_is_constant and surface.dim <= MAX_DATA_DIM:
            noise = replace(example_noise(surface, position, axes), factor=factor)
            if not noise.radius(gains) < 1:
                return np.full(len(curvatures), math.inf)
            return np.diag(noise.solve(gains))
    else:
        factor = 1 / size
    covariance = axes.T @ np.asarray(surface.noise_covariance(position)) @ axes
    return np.diag(gains) * np.diag(covariance) * factor

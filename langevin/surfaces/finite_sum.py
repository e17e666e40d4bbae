"""FiniteSum: the mean of a per-example loss over data, descended with real mini-batches."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import sympy

from langevin.checks import on_host, real_array, real_number
from langevin.errors import FormulaError, ParameterError, UnsoundError
from langevin.surfaces import parsing, printing
from langevin.surfaces.critical_points import Minimum

MAX_NEWTON = 100


@dataclass(frozen=True)
class Predictor:
    """One linear predictor ``z = <weights[offset : offset + size], features>``."""

    name: str
    offset: int
    size: int
    feature: int | None  # first column in ``features``; None for a scalar weight, whose z is itself


class FiniteSum:
    """``L(w) = (1/N) sum_n f(w; example n) + (l2/2) |w|**2``, from a per-example formula.

    ``data`` maps symbols to arrays: (N,) for a number per example, (N, d) for its features. A
    product of a weight and a feature symbol, ``w*u``, is the dot product <w, u>, and w then has d
    components; any other free symbol that is not a parameter is a scalar weight. The weights are
    laid out in order of their names. Kernels see features, not symbols: 784 weights cost no more
    to compile than one.

    The gradient noise is the data's own: ``noise_covariance(w)`` is the population covariance of
    the per-example gradients (divisor N). Raises FormulaError, ParameterError.
    """

    noise = None

    def __init__(
        self, formula: str, *, data: Mapping[str, Any], l2: float = 0.0, **parameters: float
    ):
        if not isinstance(formula, str):
            raise FormulaError(
                f"FiniteSum({formula!r}): needs a formula in text, such as '(w*u - v)**2/2'."
            )
        arrays = _arrays(data)
        symbols: dict[str, sympy.Symbol] = {}
        expression = parsing.parse(formula, symbols)
        _check_names(symbols, arrays, parameters)
        self.formula, self.name = printing.formula_text(expression), "FiniteSum"
        self.data = arrays
        self._whole = parsing.with_symbols(self.formula, expression, set(symbols))
        self.n_examples = len(next(iter(arrays.values())))
        self.parameters = {k: _number(k, parameters[k]) for k in sorted(parameters)}
        self.l2 = _number("l2", l2)
        if self.l2 < 0:
            raise ParameterError(f"l2={l2!r}: a penalty cannot be negative. Give l2 >= 0.")
        self._build(expression, symbols, arrays)
        self._cache: dict[str, Any] = {}

    def _build(self, expression, symbols, arrays) -> None:
        """Finds the predictors, lays out weights and features, derives the slopes."""
        weights = sorted(set(symbols) - set(arrays) - set(self.parameters))
        if not weights:
            raise FormulaError("the formula has no weight to descend in: every symbol has a value.")
        expression, paired = _pair(expression, weights, arrays)
        predictors, features, offset, column = [], [], 0, 0
        for weight in weights:
            block = arrays[paired[weight]] if weight in paired else None
            size = 1 if block is None else block.shape[1]
            predictors.append(Predictor(weight, offset, size, None if block is None else column))
            offset += size
            if block is not None:
                features.append(block)
                column += size
        self.predictors, self.dim = tuple(predictors), offset
        self.variables = tuple(
            f"{p.name}{k}" if p.size > 1 else p.name for p in predictors for k in range(p.size)
        )
        n = self.n_examples
        if len(features) != 1:  # a single block is shared with ``data``, not copied
            features = [np.concatenate(features, axis=1) if features else np.empty((n, 0))]
        self.features = np.ascontiguousarray(features[0])
        used = [s for s in sorted(arrays) if arrays[s].ndim == 1 and s in symbols]
        self.columns = np.ascontiguousarray(
            np.stack([arrays[s] for s in used], axis=1) if used else np.empty((n, 0))
        )
        z = [sympy.Symbol(p.name) for p in predictors]
        arguments = z + [sympy.Symbol(s) for s in used]
        constants = [sympy.Symbol(p) for p in self.parameters]
        slopes = [sympy.diff(expression, s) for s in z]
        curvatures = [sympy.diff(s, t) for s in slopes for t in z]
        self._arguments = (arguments, constants)
        self._slopes = slopes
        make = printing.source
        self._functions = {
            name: printing.numpy_function(make(name, e, arguments, constants), name)
            for name, e in (("loss", [expression]), ("slopes", slopes), ("bends", curvatures))
        }
        self.hessian_is_constant = not any(c.free_symbols & set(z) for c in curvatures)

    def __repr__(self) -> str:
        return f"FiniteSum({self.formula!r}, N={self.n_examples}, dim={self.dim}, l2={self.l2:g})"

    def __reduce__(self):
        return _rebuild, (self._whole, self.data, self.l2, self.parameters, self.name)

    # --- values ---------------------------------------------------------------------------------

    def _points(self, points) -> np.ndarray:
        points = np.asarray(on_host(points), dtype=float)
        if points.ndim == 0 or points.shape[-1] != self.dim:
            raise ParameterError(
                f"points of shape {points.shape}: the last axis must be the {self.dim} weights "
                f"{', '.join(self.variables[:8])}{', ...' if self.dim > 8 else ''}."
            )
        return points

    def _call(self, name: str, point: np.ndarray) -> list[np.ndarray]:
        """A per-example function at one point (dim,): arrays (N,)."""
        z = []
        for p in self.predictors:
            w = point[p.offset : p.offset + p.size]
            z.append(w[0] if p.feature is None else self.features[:, self._block(p)] @ w)
        values = self._functions[name](*z, *self.columns.T, *self.parameters.values())
        return [np.broadcast_to(v, self.n_examples) for v in values]

    @staticmethod
    def _block(p: Predictor) -> slice:
        return slice(p.feature, p.feature + p.size)

    def _each(self, function, points, shape: tuple) -> np.ndarray:
        points = self._points(points)
        flat = points.reshape(-1, self.dim)
        with np.errstate(all="ignore"):
            values = np.array([function(point) for point in flat], dtype=float)
        return values.reshape(points.shape[:-1] + shape)

    def energy(self, points: np.ndarray) -> np.ndarray:
        """The mean loss at ``points`` (..., dim), shape (...)."""

        def at(w):
            return self._call("loss", w)[0].mean() + 0.5 * self.l2 * w @ w

        return self._each(at, points, ())

    def gradient(self, points: np.ndarray) -> np.ndarray:
        """Gradient of the mean loss at ``points`` (..., dim), same shape."""
        return self._each(lambda w: self.example_gradients(w).mean(axis=0), points, (self.dim,))

    def hessian(self, points: np.ndarray) -> np.ndarray:
        """Hessian of the mean loss at ``points`` (..., dim), shape (..., dim, dim)."""
        return self._each(self._mean_hessian, points, (self.dim, self.dim))

    def noise_covariance(self, points: np.ndarray) -> np.ndarray:
        """Population covariance of the example gradients (divisor N), shape (..., dim, dim)."""

        def at(w):
            g = self.example_gradients(w)
            g = g - g.mean(axis=0)
            return g.T @ g / self.n_examples

        return self._each(at, points, (self.dim, self.dim))

    def _inputs(self, p: Predictor) -> np.ndarray:
        """dz/dw of one predictor, (N, size)."""
        if p.feature is None:
            return np.ones((self.n_examples, 1))
        return self.features[:, self._block(p)]

    def example_gradients(self, point: np.ndarray) -> np.ndarray:
        """Each example's gradient at one point (dim,), penalty included: (N, dim)."""
        point = self._points(point)
        slopes = self._call("slopes", point)
        parts = [s[:, None] * self._inputs(p) for s, p in zip(slopes, self.predictors, strict=True)]
        return np.concatenate(parts, axis=1) + self.l2 * point

    def _bends(self, point: np.ndarray) -> np.ndarray:
        m = len(self.predictors)
        return np.array(self._call("bends", point)).reshape(m, m, self.n_examples)

    def example_hessians(self, point: np.ndarray) -> np.ndarray:
        """Each example's Hessian at one point (dim,), penalty included: (N, dim, dim)."""
        bends = self._bends(self._points(point))
        result = np.zeros((self.n_examples, self.dim, self.dim))
        for a, p in enumerate(self.predictors):
            for b, q in enumerate(self.predictors):
                block = np.einsum("n,ni,nj->nij", bends[a, b], self._inputs(p), self._inputs(q))
                result[:, p.offset : p.offset + p.size, q.offset : q.offset + q.size] = block
        return result + self.l2 * np.eye(self.dim)

    def _mean_hessian(self, point: np.ndarray) -> np.ndarray:
        bends = self._bends(point)
        result = np.zeros((self.dim, self.dim))
        for a, p in enumerate(self.predictors):
            for b, q in enumerate(self.predictors):
                block = (self._inputs(p) * bends[a, b][:, None]).T @ self._inputs(q)
                result[p.offset : p.offset + p.size, q.offset : q.offset + q.size] = block
        return result / self.n_examples + self.l2 * np.eye(self.dim)

    # --- the landscape --------------------------------------------------------------------------

    def minima(self, within=None) -> tuple[Minimum, ...]:
        """The minimum that Newton's method with backtracking reaches from zero weights.

        Exact in one step for least squares; the only one for a convex loss. Raises UnsoundError
        where none is isolated (features linearly dependent: add l2=) or none is reached.
        """
        if "minima" not in self._cache:
            self._cache["minima"] = (self._newton(),)
        return self._cache["minima"]

    def saddles(self, within=None) -> tuple:
        """None are searched for."""
        return ()

    def _newton(self) -> Minimum:
        w, settled = np.zeros(self.dim), False
        for _ in range(MAX_NEWTON):
            hessian, gradient = self.hessian(w), self.gradient(w)
            values, vectors = np.linalg.eigh(hessian)
            scale = max(abs(values[-1]), abs(values[0]))
            if self.hessian_is_constant and values[0] <= 1e-12 * scale:
                raise UnsoundError(
                    f"{self!r} has no isolated minimum: its smallest curvature is {values[0]:.3g} "
                    f"against {scale:.3g}. Drop linearly dependent features, or add l2=."
                )
            step = vectors @ ((vectors.T @ gradient) / np.maximum(np.abs(values), 1e-9 * scale))
            length, energy = 1.0, self.energy(w)
            while not self.energy(w - length * step) <= energy and length > 1e-10:
                length /= 2
            w = w - length * step
            settled = np.linalg.norm(length * step) <= 1e-10 * (1 + np.linalg.norm(w))
            if settled:
                break
        hessian = self.hessian(w)
        values = np.linalg.eigvalsh(hessian)
        flat = values[0] <= 1e-12 * abs(values[-1])
        if not settled or np.linalg.norm(self.gradient(w)) > 1e-6 or flat:
            raise UnsoundError(
                f"no minimum of {self!r} was reached from zero weights: the loss may have none "
                "(separable data) or a valley of them (linearly dependent features). Add l2=, or "
                "give simulate(start=...)."
            )
        return Minimum(position=w, energy=float(self.energy(w)), hessian=hessian)

    def basins(self):
        """One basin: that of the one known minimum."""
        return _OneBasin()

    def bounds(self, temperature: float, depth: float = 30.0) -> tuple[np.ndarray, np.ndarray]:
        """A box of ``sqrt(2 depth T)`` widths of the minimum's Gaussian, for every weight."""
        (minimum,) = self.minima()
        width = np.sqrt(2 * depth * temperature * np.diag(np.linalg.inv(minimum.hessian)))
        return minimum.position - width, minimum.position + width

    # --- what kernels need ----------------------------------------------------------------------

    def slopes_source(self, name: str = "slopes") -> str:
        """Source of ``slopes(z..., columns..., parameters...)``: df/dz for each predictor."""
        return printing.source(name, self._slopes, *self._arguments)

    def check_stability(self, dynamics) -> None:
        """Refuses a step that must diverge: least squares with ``eta lambda_max >= 2 (1 + m)``."""
        if not self.hessian_is_constant:
            return
        top = float(np.linalg.eigvalsh(self.hessian(np.zeros(self.dim)))[-1])
        limit = np.atleast_1d(dynamics.curvature_limit)
        if (limit <= top).any():
            r = int(np.argmin(limit))
            step = float(np.broadcast_to(dynamics.step_size, limit.shape)[r])
            raise UnsoundError(
                f"a step of {step:g} must diverge: the largest curvature of this least squares is "
                f"{top:.4g}, which needs a step below {step * limit[r] / top:.4g}. Reduce it."
            )


class _OneBasin:
    n = 1
    thresholds = np.empty(0)
    labels = np.zeros((1, 1), np.int16)
    low = np.array([-1.0, -1.0])
    high = np.array([1.0, 1.0])

    def label(self, points) -> np.ndarray:
        return np.zeros(np.shape(points)[:-1], dtype=int)


def _rebuild(formula, data, l2, parameters, name) -> FiniteSum:
    surface = FiniteSum(formula, data=data, l2=l2, **parameters)
    surface.name = name
    return surface


def _arrays(data) -> dict[str, np.ndarray]:
    if not isinstance(data, Mapping) or not data:
        raise ParameterError(
            "data= must map the formula's symbols to arrays: data={'u': features, 'v': targets}."
        )
    arrays = {}
    for name, values in data.items():
        array = real_array(f"data[{name!r}]", values, "needed: real numbers, (N,) or (N, d)")
        if array.ndim not in (1, 2) or array.size == 0:
            raise ParameterError(
                f"data[{name!r}] has shape {array.shape}; needed: (N,), or (N, d) for features."
            )
        if not np.isfinite(array).all():
            raise ParameterError(f"data[{name!r}] holds NaN or infinity. Clean it first.")
        arrays[name] = array
    lengths = {name: len(array) for name, array in arrays.items()}
    if len(set(lengths.values())) > 1:
        raise ParameterError(f"the data disagree on the number of examples: {lengths}.")
    return arrays


def _check_names(symbols, arrays, parameters) -> None:
    for name in [*arrays, *parameters]:
        if name not in symbols:
            raise ParameterError(
                f"{name!r} was given but the formula has no such symbol; it has "
                f"{', '.join(sorted(symbols)) or 'none'}."
            )
    both = sorted(set(arrays) & set(parameters))
    if both:
        raise ParameterError(f"{both[0]!r} is given both as data and as a parameter.")


def _number(name: str, value: Any) -> float:
    if not real_number(value) or not math.isfinite(value):
        raise ParameterError(f"{name}={value!r}: needs one finite number.")
    return float(value)


def _pair(expression, weights, arrays):
    """Replaces each product weight * features by the weight's symbol, now a linear predictor."""
    features = {sympy.Symbol(s) for s, a in arrays.items() if a.ndim == 2}
    dots = {sympy.Symbol(w): sympy.Dummy(w) for w in weights}
    paired: dict[str, str] = {}

    def rewrite(e):
        if e.is_Mul:
            powers = dict(f.as_base_exp() for f in e.args)
            inputs = [f for f in powers if f in features]
            ours = [f for f in powers if f in dots]
            # (w*u)**2 reaches us as w**2 * u**2: the powers must be the same.
            if len(inputs) == 1 and len(ours) == 1 and powers[inputs[0]] == powers[ours[0]]:
                (feature,), (weight,) = inputs, ours
                if paired.setdefault(weight.name, feature.name) != feature.name:
                    raise FormulaError(
                        f"the weight {weight} multiplies two feature symbols; give each its own."
                    )
                rest = [rewrite(f) for f in e.args if f.as_base_exp()[0] not in (feature, weight)]
                return sympy.Mul(dots[weight] ** powers[weight], *rest)
        return e if e.is_Atom else e.func(*(rewrite(a) for a in e.args))

    marked = rewrite(expression)
    left = sorted(s.name for s in marked.free_symbols & features)
    if left:
        raise FormulaError(
            f"the feature symbol {left[0]!r} has shape (N, d) and must stand in a product with one "
            "weight, such as w*u, which is their dot product."
        )
    alone = sorted(s.name for s in marked.free_symbols if s.name in paired and s in dots)
    if alone:
        raise FormulaError(
            f"the weight {alone[0]!r} is a vector (it multiplies features) and also stands alone; "
            "a penalty on it is given by l2=."
        )
    return marked.xreplace({dot: weight for weight, dot in dots.items()}), paired

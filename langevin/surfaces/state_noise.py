"""Gradient noise that depends on the state: C(theta) from formulas, and two named cases of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import sympy

from langevin.checks import one_of, real_number
from langevin.errors import ParameterError, UnsoundError
from langevin.surfaces import parsing, printing
from langevin.surfaces.noise import _Noise, _scale, noise_function

CONVENTIONS = ("ito", "stratonovich")


class _StateNoise(_Noise):
    """Noise ``B(theta) xi`` with ``C = B B'``, from a factor B or a covariance in formulas."""

    def factor_matrix(self, surface: Any) -> sympy.Matrix | None:
        """B as formulas (dim, k), or None where only C is known."""
        raise NotImplementedError

    def covariance_matrix(self, surface: Any) -> sympy.Matrix:
        """C as formulas (dim, dim)."""
        factor = self.factor_matrix(surface)
        return factor * factor.T

    def covariance(self, points: np.ndarray, surface: Any) -> np.ndarray:
        """C at ``points`` (..., dim), shape (..., dim, dim)."""
        return matrix_values(surface, "noise covariance", self.covariance_matrix(surface), points)

    def check(self, surface: Any) -> None:
        """Refuses formulas of other symbols, and a C that is no covariance where it matters."""
        known = set(surface.variables) | set(surface.parameters)
        unknown = sorted(self.symbols() - known)
        if unknown:
            raise ParameterError(
                f"noise: the symbol {unknown[0]!r} has no value. The surface has the coordinates "
                f"{', '.join(surface.variables)} and the parameters "
                f"{', '.join(surface.parameters) or '(none)'}: give {unknown[0]}=<number> to the "
                "Surface."
            )
        points = _probes(surface)
        values = np.linalg.eigvalsh(_finite(self.covariance(points, surface), points))
        bad = values[:, 0] < -1e-9 * np.maximum(np.abs(values[:, -1]), 1e-300)
        if bad.any():
            where = points[np.argmax(bad)]
            raise UnsoundError(
                f"noise: at {where} the covariance has the eigenvalue {values[bad][0, 0]:.4g}. A "
                "covariance is positive semi-definite everywhere: add a constant, or take squares."
            )

    def source(self, surface: Any) -> str:
        """``n = B(x) z``; from a full C by Cholesky, unrolled."""
        x, p = surface._symbolic.variables, surface._symbolic.parameters
        dim, factor = surface.dim, self.factor_matrix(surface)
        call = ", ".join([f"x{k}" for k in range(dim)] + [f"p{k}" for k in range(len(p))])
        if factor is not None:
            text = printing.source("noise_factor", list(factor), x, p)
            columns = factor.shape[1]
            entries = [f"b{k}" for k in range(len(factor))]
            lines = [f"({', '.join(entries)},) = noise_factor({call})"]
            rows = [
                " + ".join(f"b{i * columns + j} * z{j}" for j in range(columns)) for i in range(dim)
            ]
            return text + "\n" + noise_function(surface, lines, rows)
        covariance = self.covariance_matrix(surface)
        if covariance.is_diagonal():
            text = printing.source("noise_variance", list(covariance.diagonal()), x, p)
            names = [f"c{k}" for k in range(dim)]
            lines = [f"({', '.join(names)},) = noise_variance({call})"]
            rows = [f"sqrt(c{k}) * z{k}" for k in range(dim)]
            return text + "\n" + noise_function(surface, lines, rows)
        lower = [covariance[i, j] for i in range(dim) for j in range(i + 1)]
        text = printing.source("noise_covariance", lower, x, p)
        names = [f"c{i}_{j}" for i in range(dim) for j in range(i + 1)]
        lines = [f"({', '.join(names)},) = noise_covariance({call})", *_cholesky(dim)]
        rows = [" + ".join(f"l{i}_{j} * z{j}" for j in range(i + 1)) for i in range(dim)]
        return text + "\n" + noise_function(surface, lines, rows)

    def drift_source(self, surface: Any) -> str | None:
        """Source of ``noise_drift``, ``sum_jk B_jk dB_ik/dx_j``; None in Ito's convention."""
        if self.convention == "ito":
            return None
        x, p = surface._symbolic.variables, surface._symbolic.parameters
        return printing.source("noise_drift", self.drift(surface), x, p)

    def drift(self, surface: Any) -> list[sympy.Expr]:
        """The formulas of the Stratonovich drift, one a coordinate."""
        x, factor = surface._symbolic.variables, self.factor_matrix(surface)
        if factor is None:  # diagonal: B = sqrt(C)
            covariance = self.covariance_matrix(surface)
            return [sympy.diff(covariance[i, i], x[i]) / 2 for i in range(surface.dim)]
        return [
            sum(
                factor[j, k] * sympy.diff(factor[i, k], x[j])
                for j in range(surface.dim)
                for k in range(factor.shape[1])
            )
            for i in range(surface.dim)
        ]


def _cholesky(dim: int) -> list[str]:
    """Lines for the lower triangle l of ``l l' = c``; a pivot that is only rounding counts as 0."""
    lines = []
    for i in range(dim):
        for j in range(i + 1):
            rest = "".join(f" - l{i}_{k} * l{j}_{k}" for k in range(j))
            if i == j:
                lines.append(f"l{i}_{i} = sqrt(pivot(c{i}_{i}{rest}, c{i}_{i}))")
            else:
                lines.append(f"l{i}_{j} = quotient(c{i}_{j}{rest}, l{j}_{j})")
    return lines


def matrix_values(surface: Any, key: str, matrix: sympy.Matrix, points: Any) -> np.ndarray:
    """A matrix of formulas at ``points`` (..., dim), shape (..., rows, columns)."""
    points = surface._points(points)
    if key not in surface._cache:
        x, p = surface._symbolic.variables, surface._symbolic.parameters
        text = printing.source("matrix", list(matrix), x, p)
        surface._cache[key] = printing.numpy_function(text, "matrix")
    coordinates = (points[..., k] for k in range(surface.dim))
    constants = (np.float64(v) for v in surface.parameters.values())
    with np.errstate(all="ignore"):
        values = surface._cache[key](*coordinates, *constants)
    flat = np.stack([np.broadcast_to(v, points.shape[:-1]) for v in values], axis=-1)
    return flat.reshape(*points.shape[:-1], *matrix.shape)


def _probes(surface: Any) -> np.ndarray:
    """Points where C must be a covariance: the minima, the saddles, and a grid around them."""
    try:
        known = [m.position for m in surface.minima()] + [s.position for s in surface.saddles()]
    except UnsoundError:
        known = []
    known = np.array(known or [np.zeros(surface.dim)], dtype=float)
    low, high = known.min(axis=0), known.max(axis=0)
    reach = np.maximum(high - low, 1.0) / 2
    number = {1: 41, 2: 9}.get(surface.dim, 3 if surface.dim <= 6 else 1)
    sides = [np.linspace(a - r, b + r, number) for a, b, r in zip(low, high, reach, strict=True)]
    grid = np.stack(np.meshgrid(*sides, indexing="ij"), axis=-1).reshape(-1, surface.dim)
    return np.concatenate([known, grid])


def _finite(values: np.ndarray, points: np.ndarray) -> np.ndarray:
    good = np.isfinite(values).all(axis=(-2, -1))
    if not good.all():
        raise UnsoundError(
            f"noise: its covariance is not finite at {points[np.argmin(good)]}. Write a formula "
            "that is defined wherever replicas may go."
        )
    return values


def _parsed(owner: str, entry: Any, symbols: dict) -> sympy.Expr:
    if real_number(entry):
        entry = repr(float(entry))
    if not isinstance(entry, str):
        raise ParameterError(
            f"{owner}: {entry!r} is no formula. Give text such as '1 + x**2', or a number."
        )
    return parsing.parse(entry, symbols)


def _frozen_entries(value: Any) -> Any:
    """Lists of formulas as tuples, so that a frozen noise stays as it was."""
    if isinstance(value, (list, tuple, np.ndarray)):
        return tuple(_frozen_entries(v) for v in value)
    return value


def _matrix(owner: str, entries: Any, symbols: dict) -> list[list[sympy.Expr]]:
    """Rows of formulas from a nested sequence; ParameterError unless all rows are as long."""
    if not (isinstance(entries, tuple) and entries and all(isinstance(r, tuple) for r in entries)):
        raise ParameterError(f"{owner}: needs rows of formulas, [['1', '0'], ['0', '1 + x**2']].")
    if len({len(row) for row in entries}) != 1 or not entries[0]:
        raise ParameterError(f"{owner}: its rows have the lengths {[len(r) for r in entries]}.")
    return [[_parsed(owner, entry, symbols) for entry in row] for row in entries]


@dataclass(frozen=True)
class StateDependent(_StateNoise):
    """Gaussian gradient noise of one example whose covariance ``C(theta)`` is given by formulas.

    ``covariance``: one formula (times the identity above one dimension), one for each coordinate
    (a diagonal), or a matrix of them; or ``factor``: a matrix B (dim, k) with ``C = B B'``. The
    formulas use the coordinates and parameters of the surface.

    SGD evaluates the noise before the step: its small-step limit is the Ito equation
    ``d theta = -grad L dt + sqrt(eta C/(S (1 - m))) dW``, of time eta/(1 - m) a step under the
    momentum m, which has no noise-induced drift. ``convention="stratonovich"`` adds the drift
    ``eta/(2 S (1 - m)) sum_jk B_jk dB_ik/dx_j`` that turns the limit into the Stratonovich equation
    of the same B (a factor, or a diagonal C: for a full C the drift would depend on the choice of
    B).

    Raises ParameterError or FormulaError for malformed formulas.
    """

    covariance_formula: Any = None
    factor: Any = None
    convention: str = "ito"

    def __post_init__(self):
        one_of("StateDependent: convention", self.convention, CONVENTIONS)
        if (self.covariance_formula is None) == (self.factor is None):
            raise ParameterError(
                "StateDependent: give the covariance, such as StateDependent('1 + x**2'), or "
                "factor=, one of the two."
            )
        for name in ("covariance_formula", "factor"):
            object.__setattr__(self, name, _frozen_entries(getattr(self, name)))
        symbols: dict[str, sympy.Symbol] = {}
        self._rows(symbols)
        if self.convention == "stratonovich" and self._is_matrix:
            raise ParameterError(
                "StateDependent(convention='stratonovich'): the drift of a full covariance depends "
                "on how it is factored. Give factor=, a matrix B with C = B B'."
            )

    @property
    def _is_matrix(self) -> bool:
        given = self.covariance_formula
        return isinstance(given, tuple) and any(isinstance(v, tuple) for v in given)

    def _rows(self, symbols: dict) -> Any:
        """The parsed formulas, nested as they were given."""
        if self.factor is not None:
            return _matrix("StateDependent: factor", self.factor, symbols)
        given, owner = self.covariance_formula, "StateDependent"
        if self._is_matrix:
            return _matrix(owner, given, symbols)
        if isinstance(given, tuple):
            return [_parsed(owner, entry, symbols) for entry in given]
        return _parsed(owner, given, symbols)

    def symbols(self) -> set[str]:
        """Names that the formulas use."""
        found: dict[str, sympy.Symbol] = {}
        self._rows(found)
        return set(found)

    def n_normals(self, dim: int) -> int:
        """A normal for each column of B."""
        return dim if self.factor is None else len(self.factor[0])

    def factor_matrix(self, surface: Any) -> sympy.Matrix | None:
        """B, where it was given."""
        if self.factor is None:
            return None
        rows = sympy.Matrix(self._rows({}))
        return _shaped("factor", rows, (surface.dim, rows.shape[1]), surface)

    def covariance_matrix(self, surface: Any) -> sympy.Matrix:
        """C as formulas."""
        if self.factor is not None:
            return super().covariance_matrix(surface)
        rows, dim = self._rows({}), surface.dim
        if isinstance(rows, sympy.Expr):
            return sympy.eye(dim) * rows
        if not self._is_matrix:
            rows = sympy.diag(*rows)
        matrix = _shaped("covariance", sympy.Matrix(rows), (dim, dim), surface)
        if not (matrix - matrix.T).expand().is_zero_matrix:
            raise ParameterError("StateDependent: the covariance is not symmetric.")
        return matrix


def _shaped(name: str, matrix: sympy.Matrix, shape: tuple, surface: Any) -> sympy.Matrix:
    if matrix.shape != shape:
        raise ParameterError(
            f"StateDependent: {name} has the shape {matrix.shape}; the surface has the coordinates "
            f"{', '.join(surface.variables)}, which needs {shape}."
        )
    return matrix


@dataclass(frozen=True)
class LabelNoise(_StateNoise):
    """The gradient noise that noisy labels make: ``B = sigma [grad f_1, ..., grad f_k]/sqrt(k)``.

    For the squared loss ``(1/k) sum_i (f_i(theta) - y_i)**2/2`` with label noise of standard
    deviation ``sigma``, one example's gradient is off by ``sigma xi grad f_i``, so
    ``C = (sigma**2/k) sum_i grad f_i grad f_i'``. It vanishes where the outputs do not depend on
    theta, and drives SGD along a valley of minima towards the flat end. ``outputs``: the formulas
    f_i. Source: Blanc, Gupta, Valiant and Valiant 2020, Eq. 2; Ito.

    Raises ParameterError or FormulaError for malformed arguments.
    """

    outputs: Any
    sigma_label: float = 1.0

    def __post_init__(self):
        _scale("LabelNoise", "sigma_label", self.sigma_label, "the standard deviation of a label")
        given = (self.outputs,) if isinstance(self.outputs, str) else _frozen_entries(self.outputs)
        if not isinstance(given, tuple) or not given:
            raise ParameterError(
                f"LabelNoise(outputs={self.outputs!r}): needs the model's outputs as formulas, "
                "such as 'x*y' or ['x*y', 'x + y']."
            )
        object.__setattr__(self, "outputs", given)
        self.symbols()

    def symbols(self) -> set[str]:
        """Names that the outputs use."""
        found: dict[str, sympy.Symbol] = {}
        for text in self.outputs:
            _parsed("LabelNoise", text, found)
        return set(found)

    def n_normals(self, dim: int) -> int:
        """One for each output."""
        return len(self.outputs)

    def factor_matrix(self, surface: Any) -> sympy.Matrix:
        """``sigma grad f_i / sqrt(k)``, a column for each output."""
        x = surface._symbolic.variables
        scale = sympy.Float(self.sigma_label / np.sqrt(len(self.outputs)))
        outputs = [_parsed("LabelNoise", text, {}) for text in self.outputs]
        return sympy.Matrix([[scale * sympy.diff(f, v) for f in outputs] for v in x])


@dataclass(frozen=True)
class Multiplicative(_StateNoise):
    """Gradient noise in proportion to the gradient: ``C = additive**2 I + relative**2 diag(g**2)``.

    g is the gradient of the surface. Near a quadratic minimum the variance of component i is
    ``additive**2 + (relative h_i x_i)**2``, and the stationary law has power-law tails (Hodgkinson
    and Mahoney 2021; theory: the noise c0 + c1 x**2). Ito.

    Raises ParameterError for negative numbers.
    """

    relative: float
    additive: float = 0.0

    def __post_init__(self):
        _scale("Multiplicative", "relative", self.relative, "the noise relative to the gradient")
        _scale("Multiplicative", "additive", self.additive, "the noise where the gradient is zero")

    def factor_matrix(self, surface: Any) -> None:
        """None: C is diagonal."""

    def covariance_matrix(self, surface: Any) -> sympy.Matrix:
        """The diagonal of variances."""
        a, r = sympy.Float(self.additive) ** 2, sympy.Float(self.relative) ** 2
        return sympy.diag(*(a + r * g**2 for g in surface._symbolic.gradient))

"""A loss surface from one formula: energy, gradient, Hessian, minima and kernel source."""

from __future__ import annotations

import math
import numbers
import re
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import sympy

from langevin.checks import on_host
from langevin.errors import FormulaError, ParameterError, UnsoundError
from langevin.surfaces import language, parsing, printing
from langevin.surfaces.critical_points import Minimum, Saddle
from langevin.surfaces.symbolic import Symbolic

__all__ = ["Minimum", "Saddle", "Surface"]

_KEEP = object()


class Surface:
    """A smooth function ``U(x; a, b, ...)`` to descend, from one formula.

    ``formula`` is text in a small language (names, numbers, ``+ - * / **``, pi, and exp log sin cos
    tan tanh sinh cosh atan sqrt abs sign sigmoid softplus of one argument) or a Python callable of
    the coordinates, which is traced once with symbolic arguments, so np.exp(x) and friends work
    (np.logaddexp(0, x) is softplus, scipy.special.expit(x) sigmoid). Symbols given as
    keyword arguments are parameters; all others are coordinates, in natural order (x2 before x10)
    or in the order of ``variables``. Parameters are values at run time: `replace` changes them
    without deriving or compiling anything again, except a parameter in an exponent, which is part
    of the formula. ``noise`` is the law of one example's gradient about its mean (`Isotropic`,
    `Anisotropic`, `StateDependent`, ...; its formulas may use parameters too), or None.

    Energies are in units of the temperature that the dynamics will be given. Points have shape
    (..., dim), also in one dimension. Where a formula is undefined (log of a negative number) its
    value is NaN, which simulations and bounds treat as an infinite wall.

    Raises FormulaError for a formula outside the language, ParameterError for its parameters.
    """

    def __init__(
        self,
        formula: str | Callable[..., Any],
        /,
        *,
        variables: Sequence[str] | None = None,
        noise: Any = None,
        **parameters: float,
    ):
        names = _variable_names(variables)
        for name in parameters:
            language.check_name(name)
        symbols: dict[str, sympy.Symbol] = {}
        if isinstance(formula, str):
            expression = parsing.parse(formula, symbols)
        elif callable(formula):
            expression, names, parameters = parsing.trace(formula, names, parameters, symbols)
        else:
            raise FormulaError(
                f"Surface({formula!r}): needs a formula such as 'x**4/4 - x**2/2', or a function "
                "of the coordinates."
            )
        noise = _checked_noise(noise)
        self.variables = _settle_names(set(symbols), names, parameters, noise)
        self.dim = len(self.variables)
        self.parameters = {k: _value(k, parameters[k]) for k in sorted(parameters, key=_natural)}
        self.formula = printing.formula_text(expression)
        self.noise = noise
        self.name = self.formula if len(self.formula) <= 60 else self.formula[:57] + "..."
        self._box: tuple[np.ndarray, np.ndarray] | None = None
        self._symbolic = Symbolic(expression, self.variables, self.parameters)
        self._cache: dict[str, Any] = {}

    @classmethod
    def _named(cls, name: str, formula: str, *, box=None, **options) -> Surface:
        """A catalogue surface: with a name of its own and, perhaps, a box to search in."""
        surface = cls(formula, **options)
        surface.name = name
        if box is not None:
            surface._box = tuple(np.array(np.broadcast_to(b, surface.dim), float) for b in box)
        return surface

    def replace(self, *, noise: Any = _KEEP, **parameters: float) -> Surface:
        """The same surface with other parameter values or another noise; derives nothing again.

        Raises ParameterError for a parameter that the formula does not have.
        """
        unknown = sorted(set(parameters) - set(self.parameters))
        if unknown:
            raise ParameterError(
                f"replace({unknown[0]}=...): the formula has the parameters "
                f"{', '.join(self.parameters) or '(none)'}."
            )
        new = object.__new__(Surface)
        new.__dict__.update(self.__dict__)
        new._cache = {}
        new.noise = self.noise if noise is _KEEP else _checked_noise(noise)
        new.parameters = {k: _value(k, parameters.get(k, v)) for k, v in self.parameters.items()}
        if any(new.parameters[k] != self.parameters[k] for k in self._symbolic.structural):
            new._symbolic = Symbolic(self._symbolic.given, self.variables, new.parameters)
        return new

    def __repr__(self) -> str:
        values = "".join(f", {k}={v!r}" for k, v in self.parameters.items())
        noise = "" if self.noise is None else f", noise={self.noise!r}"
        return f"Surface({self.formula!r}, variables={self.variables!r}{values}{noise})"

    def __reduce__(self):
        names = {*self.variables, *self.parameters}
        formula = parsing.with_symbols(self.formula, self._symbolic.given, names)
        state = (formula, self.variables, self.noise, self.parameters, self.name, self._box)
        return _rebuild, state

    # --- values ---------------------------------------------------------------------------------

    def energy(self, points: np.ndarray) -> np.ndarray:
        """U at ``points`` (..., dim), shape (...). Raises ParameterError for a wrong last axis."""
        return self._evaluate("energy", points)[..., 0][()]

    def gradient(self, points: np.ndarray) -> np.ndarray:
        """``dU/dx_i`` at ``points`` (..., dim), shape (..., dim)."""
        return self._evaluate("gradient", points)

    def hessian(self, points: np.ndarray) -> np.ndarray:
        """``d2U/dx_i dx_j`` at ``points`` (..., dim), shape (..., dim, dim)."""
        upper = self._evaluate("hessian", points)
        result = np.empty((*upper.shape[:-1], self.dim, self.dim))
        i, j = np.triu_indices(self.dim)
        result[..., i, j] = upper
        result[..., j, i] = upper
        return result

    def noise_covariance(self, points: np.ndarray) -> np.ndarray:
        """Covariance C of one example's gradient at ``points`` (..., dim), shape (..., dim, dim).

        Raises UnsoundError for a surface without noise.
        """
        if self.noise is None:
            raise UnsoundError(
                f"the surface {self.name!r} has no gradient noise. Give it one: "
                "Surface(..., noise=lv.Isotropic(sigma)), or surface.replace(noise=...)."
            )
        return self.noise.covariance(self._points(points), self)

    def _points(self, points: np.ndarray) -> np.ndarray:
        try:
            points = np.asarray(on_host(points), dtype=float)
        except (TypeError, ValueError):
            raise ParameterError(
                f"points={points!r}: needs numbers of shape (..., {self.dim})."
            ) from None
        if points.ndim == 0 or points.shape[-1] != self.dim:
            hint = " In one dimension write x[:, None]." if self.dim == 1 else ""
            raise ParameterError(
                f"points of shape {points.shape}: this surface has the coordinates "
                f"{', '.join(self.variables)}, so the last axis must be {self.dim}.{hint}"
            )
        return points

    def _evaluate(self, what: str, points: np.ndarray) -> np.ndarray:
        points = self._points(points)
        function = self._symbolic.function(what)
        coordinates = (points[..., i] for i in range(self.dim))
        constants = (np.float64(v) for v in self.parameters.values())
        with np.errstate(all="ignore"):
            values = function(*coordinates, *constants)
        result = np.empty((*points.shape[:-1], len(values)))
        for i, value in enumerate(values):
            result[..., i] = value
        return result

    # --- source for kernels ---------------------------------------------------------------------

    def energy_source(self, name: str = "energy") -> str:
        """Source of a scalar function ``name(x0, ..., p0, ...)`` that returns U; see `printing`."""
        return self._symbolic.source("energy", name, scalar=True)

    def gradient_source(self, name: str = "gradient") -> str:
        """Source of ``name(x0, ..., p0, ...)`` that returns the tuple of dU/dx_i."""
        return self._symbolic.source("gradient", name)

    @property
    def hessian_is_constant(self) -> bool:
        """Whether the surface is quadratic: then exact laws for the discrete chain exist."""
        return self._symbolic.hessian_is_constant

    # --- the landscape --------------------------------------------------------------------------

    def minima(self, within: tuple[Any, Any] | None = None) -> tuple[Minimum, ...]:
        """Every minimum found inside ``within=(low, high)``, sorted by position.

        In one dimension polynomials are solved exactly and other formulas scanned densely; from two
        dimensions on a deterministic multi-start descent is used, which may miss a minimum with a
        basin smaller than about a thousandth of the box. Without ``within`` the catalogue's box is
        searched, or one grown from [-10, 10] until the gradient points inwards from outside.
        Minima closer than 1e-6 of the box's width are one.

        Raises UnsoundError if there is none, or if they are not isolated.
        """
        from langevin.surfaces import critical_points

        if within is not None:
            return critical_points.find_minima(self, within)
        return self._cached("minima", lambda: critical_points.find_minima(self, None))

    def saddles(self, within: tuple[Any, Any] | None = None) -> tuple[Saddle, ...]:
        """Every saddle of index 1 found (in one dimension the maxima), sorted by position.

        Searched as `minima` are; an empty tuple if there is none.
        """
        from langevin.surfaces import critical_points

        if within is not None:
            return critical_points.find_saddles(self, within)
        return self._cached("saddles", lambda: critical_points.find_saddles(self, None))

    def bounds(self, temperature: float, depth: float = 30.0) -> tuple[np.ndarray, np.ndarray]:
        """The box (low (dim,), high (dim,)) that holds all but ``exp(-depth)`` of the density.

        It contains the points with ``U - U_min <= depth * temperature`` connected to the minima.
        Raises UnsoundError when exp(-U/T) cannot be normalised, as far as that is decidable.
        """
        from langevin.surfaces import confinement

        key = f"bounds {temperature!r} {depth!r}"
        low, high = self._cached(key, lambda: confinement.bounds(self, temperature, depth))
        return low.copy(), high.copy()

    def basins(self):
        """The basins of attraction of `minima` under gradient flow, as a `Basins`."""
        from langevin.surfaces.basins import Basins

        return self._cached("basins", lambda: Basins(self))

    def _cached(self, key: str, compute: Callable[[], Any]) -> Any:
        if key not in self._cache:
            try:
                self._cache[key] = compute()
            except UnsoundError as error:
                self._cache[key] = error
        if isinstance(self._cache[key], UnsoundError):
            raise UnsoundError(str(self._cache[key]))
        return self._cache[key]

    def gradient_polynomial(self) -> sympy.Poly | None:
        """The 1-D gradient as an exact polynomial at these parameters, or None if it is not one."""
        return self._symbolic.gradient_polynomial(self.parameters)


def _natural(name: str) -> list:
    """Sort key with numbers by value: x2 before x10."""
    return [(not p.isdigit(), int(p) if p.isdigit() else 0, p) for p in re.split(r"(\d+)", name)]


def _variable_names(variables: Any) -> tuple[str, ...] | None:
    if variables is None:
        return None
    if isinstance(variables, str):
        variables = variables.replace(",", " ").split()
    names = tuple(language.check_name(v) for v in variables)
    if not names or len(set(names)) != len(names):
        raise FormulaError(f"variables={names!r}: give at least one name, each only once.")
    return names


def _settle_names(found: set[str], names, parameters, noise) -> tuple[str, ...]:
    """The coordinates in order, once every symbol has been accounted for."""
    unknown = sorted(set(parameters) - found - (noise.symbols() if noise is not None else set()))
    if unknown:
        raise ParameterError(
            f"parameter {unknown[0]}={parameters[unknown[0]]!r}: the formula has no symbol "
            f"{unknown[0]!r}, only {', '.join(sorted(found)) or 'numbers'}."
        )
    if names is None:
        names = tuple(sorted(found - set(parameters), key=_natural))
    both = sorted(set(names) & set(parameters))
    if both:
        raise FormulaError(f"{both[0]!r} is given as a variable and as a parameter. Choose one.")
    absent = [v for v in names if v not in found]
    if absent:
        raise FormulaError(
            f"variables={tuple(names)!r}: the formula has no symbol {absent[0]!r}, "
            f"only {', '.join(sorted(found)) or 'numbers'}."
        )
    missing = sorted(found - set(names) - set(parameters), key=_natural)
    if missing:
        raise ParameterError(
            f"the symbol {missing[0]!r} has no value: give {missing[0]}=<number>, or add it to "
            "variables=."
        )
    if not names:
        raise FormulaError(
            "the formula has no coordinate to descend in: every symbol is a parameter. "
            "Leave at least one symbol without a value, for example x."
        )
    return tuple(names)


def _value(name: str, value: Any) -> float:
    if isinstance(value, np.ndarray) and value.ndim == 0:
        value = value.item()
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, numbers.Real):
        raise ParameterError(f"parameter {name}={value!r}: needs one real number.")
    if not math.isfinite(value):
        raise ParameterError(f"parameter {name}={value!r}: must be finite.")
    return float(value)


def _checked_noise(noise: Any) -> Any:
    if noise is not None and not hasattr(noise, "batch_power"):
        raise ParameterError(
            f"noise={noise!r}: give noise=lv.Isotropic(sigma), the standard deviation of one "
            "example's gradient, or None; or Anisotropic, StateDependent, LabelNoise, "
            "Multiplicative, StudentT, AlphaStable."
        )
    return noise


def _rebuild(formula, variables, noise, parameters, name, box) -> Surface:
    surface = Surface(formula, variables=variables, noise=noise, **parameters)
    surface.name, surface._box = name, box
    return surface

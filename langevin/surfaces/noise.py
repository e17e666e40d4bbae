"""Gradient noise: the law of one example's gradient about its mean, a property of the surface.

Each noise answers to the same names. ``sigma``: what the kernel multiplies its noise by;
``batch_power``: the noise of a mini-batch of S examples is ``S**-batch_power`` times that of one;
``n_normals(dim)``: standard normals a step takes; ``constants(dim)``: numbers that the kernel gets
at run time; ``symbols()``: names that its formulas use; ``source(surface)``: the scalar function
``gradient_noise``, or None where the normals are the noise; ``covariance(points, surface)``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from langevin.checks import frozen, on_host, real_array, real_number
from langevin.errors import ParameterError, UnsoundError


class _Noise:
    """What most noises share."""

    sigma = 1.0
    batch_power = 0.5
    gaussian = True
    convention = "ito"

    def drift_source(self, surface: Any) -> str | None:
        """Source of the Stratonovich convention's drift; None in Ito's."""
        return None

    def n_normals(self, dim: int) -> int:
        """Standard normals that a step takes."""
        return dim

    def constants(self, dim: int) -> list[float]:
        """Numbers the kernel gets at run time; changing them compiles nothing."""
        return []

    def symbols(self) -> set[str]:
        """Names of coordinates and parameters that the formulas of the noise use."""
        return set()

    def check(self, surface: Any) -> None:
        """Refuses a noise that does not fit the surface."""

    def source(self, surface: Any) -> str | None:
        """Source of ``gradient_noise(x..., z..., p..., q...)``; None: the normals themselves."""
        return None


def _scale(owner: str, name: str, value: Any, meaning: str) -> float:
    if not (real_number(value) and math.isfinite(value)):
        raise ParameterError(
            f"{owner}({name}={value!r}): {name} must be a finite number, {meaning}."
        )
    if value < 0:
        raise ParameterError(
            f"{owner}({name}={value!r}): {meaning} cannot be negative. "
            f"Give {name} >= 0; {name}=0 means exact gradients."
        )
    return value


@dataclass(frozen=True)
class Isotropic(_Noise):
    """Gaussian gradient noise of one example with covariance ``C = sigma**2 I`` everywhere.

    ``sigma`` is a standard deviation in units of the gradient. A mini-batch of S examples has
    covariance ``sigma**2 I / S``; SGD then has temperature ``eta sigma**2 / (2 S)``
    (Jastrzebski et al. 2017, Theorem 1).

    Raises ParameterError if sigma is negative, NaN or infinite.
    """

    sigma: float = 1.0

    def __post_init__(self):
        _scale("Isotropic", "sigma", self.sigma, "the standard deviation of one example's gradient")

    def covariance(self, points: np.ndarray, surface: Any = None) -> np.ndarray:
        """C at ``points`` (..., dim), shape (..., dim, dim)."""
        points = np.asarray(on_host(points), dtype=float)
        eye = np.eye(points.shape[-1]) * self.sigma**2
        return np.broadcast_to(eye, points.shape[:-1] + eye.shape).copy()


@dataclass(frozen=True, eq=False)
class Anisotropic(_Noise):
    """Gaussian gradient noise of one example with the same covariance matrix C everywhere.

    ``matrix`` (dim, dim): symmetric, positive semi-definite, in units of the gradient squared; a
    vector (dim,) is its diagonal. SGD then has no single temperature, and where C and the Hessian
    do not commute its stationary state carries a current (`predict.quadratic`).

    Raises ParameterError for another shape, an asymmetric or an indefinite matrix.
    """

    matrix: Any

    def __post_init__(self):
        needs = "needs a symmetric matrix (dim, dim), or its diagonal (dim,)"
        matrix = real_array("Anisotropic: matrix", self.matrix, needs)
        if matrix.ndim == 1:
            matrix = np.diag(matrix)
        if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1] or not matrix.size:
            raise ParameterError(f"Anisotropic: matrix of shape {matrix.shape} given; {needs}.")
        if not np.isfinite(matrix).all():
            raise ParameterError(f"Anisotropic: the matrix holds NaN or infinity; {needs}.")
        if not np.allclose(matrix, matrix.T, rtol=1e-9, atol=1e-12 * np.abs(matrix).max()):
            raise ParameterError(
                "Anisotropic: the matrix is not symmetric. A covariance is: use (C + C.T)/2."
            )
        values = np.linalg.eigvalsh(matrix)
        if values[0] < -1e-9 * max(abs(values[-1]), 1e-300):
            raise ParameterError(
                f"Anisotropic: the matrix has the eigenvalue {values[0]:.4g}. A covariance is "
                "positive semi-definite: no direction has a negative variance."
            )
        object.__setattr__(self, "matrix", frozen((matrix + matrix.T) / 2))

    def __repr__(self) -> str:
        return f"Anisotropic({np.array2string(self.matrix, separator=', ', threshold=50)})"

    def check(self, surface: Any) -> None:
        """Refuses a matrix of another dimension."""
        if len(self.matrix) != surface.dim:
            raise ParameterError(
                f"Anisotropic: a matrix {self.matrix.shape} was given for a surface of dimension "
                f"{surface.dim} with the coordinates {', '.join(surface.variables)}."
            )

    def covariance(self, points: np.ndarray, surface: Any = None) -> np.ndarray:
        """C at ``points`` (..., dim), shape (..., dim, dim)."""
        shape = np.shape(points)[:-1] + self.matrix.shape
        return np.broadcast_to(self.matrix, shape).copy()

    def constants(self, dim: int) -> list[float]:
        """The lower triangle, row by row, of a factor L with L L' = C (semi-definite C too)."""
        values, vectors = np.linalg.eigh(self.matrix)
        root = vectors * np.sqrt(np.maximum(values, 0))
        lower = np.linalg.qr(root.T, mode="r").T
        return [float(v) for v in lower[np.tril_indices(dim)]]

    def source(self, surface: Any) -> str:
        """``n = L z``."""
        dim, q = surface.dim, iter(range(surface.dim * (surface.dim + 1) // 2))
        rows = [" + ".join(f"q{next(q)} * z{j}" for j in range(i + 1)) for i in range(dim)]
        return noise_function(surface, [], rows)


@dataclass(frozen=True)
class StudentT(_Noise):
    """Heavy-tailed gradient noise: every component ``scale`` times an independent Student t.

    ``dof`` (nu): the tails decay as ``|n|**-(1 + nu)``; the variance ``scale**2 nu/(nu - 2)`` is
    finite above 2. It is the noise of a whole mini-batch gradient: ``scale/sqrt(S)`` for S
    examples, although the mean of S Student variables is not exactly a Student variable. Source:
    Bailey 1994, Mathematics of Computation 62, 779.

    Raises ParameterError for dof or scale out of range.
    """

    dof: float
    scale: float = 1.0
    gaussian = False

    def __post_init__(self):
        if not (real_number(self.dof) and math.isfinite(self.dof) and 0.1 <= self.dof <= 1e4):
            raise ParameterError(
                f"StudentT(dof={self.dof!r}): needs a number from 0.1 to 10,000; above that it is "
                "Gaussian to all intents, use Isotropic(scale)."
            )
        _scale("StudentT", "scale", self.scale, "the scale of the noise")

    @property
    def sigma(self) -> float:
        """What the standard variable is multiplied by."""
        return self.scale

    def covariance(self, points: np.ndarray, surface: Any = None) -> np.ndarray:
        """``scale**2 nu/(nu - 2) I`` at ``points``; UnsoundError where it is infinite."""
        if self.dof <= 2:
            raise UnsoundError(
                f"{self!r}: with dof <= 2 the gradient noise has no variance, so no prediction "
                "from a covariance applies. Simulate it."
            )
        return Isotropic(self.scale * math.sqrt(self.dof / (self.dof - 2))).covariance(points)

    def n_normals(self, dim: int) -> int:
        """Two normals a component."""
        return 2 * dim

    def constants(self, dim: int) -> list[float]:
        """The degrees of freedom."""
        return [float(self.dof)]

    def source(self, surface: Any) -> str:
        """One Student variable from two normals."""
        d = surface.dim
        return noise_function(surface, [], [f"student_t(z{k}, z{d + k}, q0)" for k in range(d)])


@dataclass(frozen=True)
class AlphaStable(_Noise):
    """Heavy-tailed gradient noise: every component an independent symmetric alpha-stable variable.

    Characteristic function ``exp(-|scale u|**alpha)`` for one example: Gaussian with variance
    ``2 scale**2`` at alpha = 2, Cauchy at 1. The mean of S examples is exactly stable again, with
    ``S**(1/alpha - 1) scale``. Sources: Chambers, Mallows and Stuck 1976; Simsekli et al. 2019.

    Raises ParameterError for alpha outside [0.3, 2] or a negative scale.
    """

    alpha: float
    scale: float = 1.0

    def __post_init__(self):
        if not (real_number(self.alpha) and 0.3 <= self.alpha <= 2):
            raise ParameterError(
                f"AlphaStable(alpha={self.alpha!r}): needs a number from 0.3 to 2 (2 is Gaussian)."
            )
        _scale("AlphaStable", "scale", self.scale, "the scale of the noise")

    @property
    def sigma(self) -> float:
        """What the standard variable is multiplied by."""
        return self.scale

    @property
    def gaussian(self) -> bool:
        """Only at alpha = 2."""
        return self.alpha == 2

    @property
    def batch_power(self) -> float:
        """``1 - 1/alpha``: how fast an average over a batch quietens the noise."""
        return 1 - 1 / self.alpha

    def covariance(self, points: np.ndarray, surface: Any = None) -> np.ndarray:
        """``2 scale**2 I`` at alpha = 2; UnsoundError below, where it is infinite."""
        if self.alpha < 2:
            raise UnsoundError(
                f"{self!r}: below alpha = 2 the gradient noise has no variance, so no prediction "
                "from a covariance applies. Simulate it."
            )
        return Isotropic(self.scale * math.sqrt(2)).covariance(points)

    def n_normals(self, dim: int) -> int:
        """Two normals a component."""
        return 2 * dim

    def constants(self, dim: int) -> list[float]:
        """alpha, its inverse, and the exponent of Chambers, Mallows and Stuck."""
        a = float(self.alpha)
        return [a, 1 / a, (1 - a) / a]

    def source(self, surface: Any) -> str:
        """One stable variable from two normals."""
        d = surface.dim
        rows = [f"symmetric_stable(z{k}, z{d + k}, q0, q1, q2)" for k in range(d)]
        return noise_function(surface, [], rows)


def noise_function(surface: Any, lines: list[str], components: list[str]) -> str:
    """Source of ``gradient_noise(x..., z..., p..., q...)`` from its lines and components."""
    noise, dim = surface.noise, surface.dim
    names = [f"x{k}" for k in range(dim)]
    names += [f"z{k}" for k in range(noise.n_normals(dim))]
    names += [f"p{k}" for k in range(len(surface.parameters))]
    names += [f"q{k}" for k in range(len(noise.constants(dim)))]
    body = "".join(f"    {line}\n" for line in lines)
    return f"def gradient_noise({', '.join(names)}):\n{body}    return ({', '.join(components)},)\n"

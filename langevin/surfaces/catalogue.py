"""Named surfaces with known minima, depths and curvatures; the noise defaults to Isotropic(1)."""

from __future__ import annotations

from typing import Any

import numpy as np

from langevin.errors import ParameterError
from langevin.surfaces.expression import Surface
from langevin.surfaces.noise import Isotropic
from langevin.surfaces.two_wells import two_well_polynomial

_UNIT = Isotropic(1.0)


def double_well(a: float = 0.4, *, noise: Any = _UNIT) -> Surface:
    """The tilted double well ``U = x**4/4 - a x**3/3 - x**2/2``, with its barrier at 0.

    Minima at ``x = (a -+ sqrt(a**2 + 4))/2``. ``a = 0`` is symmetric, with depth 1/4 and curvature
    2 in both wells; ``a > 0`` makes the right one deeper and sharper. ``a`` is a parameter of the
    surface. Raises ParameterError unless ``a`` is finite.
    """
    formula = "x**4/4 - a*x**3/3 - x**2/2"
    return Surface._named("double_well", formula, noise=noise, a=a)


def wide_and_sharp(
    *,
    energy_difference: float = 0.0055,
    wide_curvature: float = 1.0,
    sharp_curvature: float = 9.0,
    barrier: float = 0.012,
    separation: float | None = None,
    noise: Any = _UNIT,
) -> Surface:
    """A wide, higher minimum (index 0, left) and a sharp, lower one (index 1, right), set exactly.

    ``energy_difference = U_wide - U_sharp >= 0``, with ``U_sharp = 0``; the curvatures are U'' at
    the minima; ``barrier`` is the height of the top above the *wide* minimum. The top is at x = 0
    and the minima are ``separation`` apart (chosen for a smooth shape if None). U is the polynomial
    of degree 6 (or 8, where 6 does not do) with ``U' = (x - x_A) x (x - x_B) q(x)``, q > 0, which
    meets all of this to rounding and has exactly these two minima. Its coefficients are parameters
    of the surface, so all such wells share one compiled kernel.

    By default the critical noise is ``eta/S = 2 (U_A - U_B)/(sigma**2 ln sqrt(H_B/H_A)) = 0.0100``
    at sigma = 1, a temperature of 0.0050: learning rate 0.05 with batches of 5. There both wells
    hold half the density in Laplace's approximation, the barrier is 2.4 temperatures high, and
    learning rates up to 0.1 are stable.

    Raises ParameterError for values out of range or a combination without such a polynomial.
    """
    coefficients = two_well_polynomial(
        energy_difference=energy_difference,
        wide_curvature=wide_curvature,
        sharp_curvature=sharp_curvature,
        barrier=barrier,
        separation=separation,
    )
    powers = [k for k in range(len(coefficients)) if k != 1]  # the top at 0 leaves no linear term
    formula = " + ".join(f"c{k}*x**{k}" if k else "c0" for k in powers)
    parameters = {f"c{k}": float(coefficients[k]) for k in powers}
    return Surface._named("wide_and_sharp", formula, noise=noise, **parameters)


def quadratic(hessian: Any, *, noise: Any = _UNIT) -> Surface:
    """The quadratic well ``U = x' H x / 2``: a number in 1-D, or a symmetric matrix (dim, dim).

    Up to four dimensions the elements of H are parameters (h00, h01, ...) of the surface; above,
    they are constants of its formula and zeros are left out. Raises ParameterError unless H is
    finite, symmetric and positive definite.
    """
    try:
        h = np.asarray(hessian, dtype=float)
    except (TypeError, ValueError):
        raise ParameterError(f"quadratic({hessian!r}): needs a number or a matrix.") from None
    h = h.reshape(1, 1) if h.ndim == 0 else h
    if h.ndim != 2 or h.shape[0] != h.shape[1] or not h.size:
        raise ParameterError(
            f"quadratic(H) with H of shape {h.shape}: needs a number or a square matrix; "
            "for independent coordinates give numpy.diag(curvatures)."
        )
    if not np.isfinite(h).all():
        raise ParameterError("quadratic(H): every element of H must be finite.")
    if np.abs(h - h.T).max() > 1e-12 * np.abs(h).max():
        raise ParameterError("quadratic(H): H must be symmetric. Give (H + H.T)/2.")
    h = (h + h.T) / 2
    lowest, highest = np.linalg.eigvalsh(h)[[0, -1]]
    if not lowest > 1e-14 * highest:
        raise ParameterError(
            f"quadratic(H): the smallest eigenvalue of H is {lowest:.3g}; all must be positive, "
            "or the density exp(-U/T) cannot be normalised."
        )
    dim = len(h)
    names = coordinate_names(dim)
    terms, parameters = [], {}
    for i in range(dim):
        for j in range(i, dim):
            factor = f"h{i}{j}" if dim <= 4 else repr(float(h[i, j]))
            half = "/2" if i == j else ""
            if dim <= 4:
                parameters[factor] = float(h[i, j])
            elif h[i, j] == 0:
                continue
            terms.append(f"({factor})*{names[i]}*{names[j]}{half}")
    formula = " + ".join(terms)
    return Surface._named("quadratic", formula, variables=names, noise=noise, **parameters)


def mueller_brown(scale: float = 1.0, *, noise: Any = _UNIT) -> Surface:
    """The Mueller-Brown surface of theoretical chemistry, times ``scale``: 2-D, three minima.

    Minima at (-0.558, 1.442), (-0.050, 0.467), (0.623, 0.028) with energies -146.70, -80.77 and
    -108.17 (times scale), saddles at (-0.822, 0.624) and (0.212, 0.293). It confines by itself: its
    last term grows like ``exp(0.7 r**2)``. Its stiffest minimum has a curvature of about 4070 times
    scale, so learning rates must stay below 4.9e-4/scale. ``scale`` is a parameter of the surface.
    Source: Mueller & Brown, Theor. Chim. Acta 53, 75 (1979). Raises ParameterError unless
    scale > 0.
    """
    _require_positive("mueller_brown", "scale", scale)
    wells = (
        (-200, -1, 0, -10, 1, 0),
        (-100, -1, 0, -10, 0, 0.5),
        (-170, -6.5, 11, -6.5, -0.5, 1.5),
        (15, 0.7, 0.6, 0.7, -1, 1),
    )
    terms = (
        f"({height})*exp(({a})*(x - ({u}))**2 + ({b})*(x - ({u}))*(y - ({v}))"
        f" + ({c})*(y - ({v}))**2)"
        for height, a, b, c, u, v in wells
    )
    return Surface._named(
        "mueller_brown",
        f"scale*({' + '.join(terms)})",
        box=((-1.7, -0.6), (1.3, 2.2)),
        noise=noise,
        scale=scale,
    )


def rastrigin(dim: int = 2, *, amplitude: float = 10.0, noise: Any = _UNIT) -> Surface:
    """Rastrigin's egg-box, ``U = sum_i x_i**2 + A (1 - cos(2 pi x_i))``, searched in [-5.12, 5.12].

    With A = 10 it has 11 minima per axis in that box, the lowest (U = 0) at the origin.
    ``amplitude`` is a parameter of the surface. Raises ParameterError unless it is positive.
    """
    _require_positive("rastrigin", "amplitude", amplitude)
    names = coordinate_names(dim)
    formula = " + ".join(f"{x}**2 + amplitude*(1 - cos(2*pi*{x}))" for x in names)
    return Surface._named(
        "rastrigin", formula, box=(-5.12, 5.12), variables=names, noise=noise, amplitude=amplitude
    )


def styblinski_tang(dim: int = 2, *, noise: Any = _UNIT) -> Surface:
    """Styblinski and Tang's ``U = sum_i (x_i**4 - 16 x_i**2 + 5 x_i)/2``, searched in [-5, 5].

    It has 2**dim minima, the lowest at x_i = -2.9035 with U = -39.1662 dim. Raises ParameterError
    for dim < 1.
    """
    names = coordinate_names(dim)
    formula = " + ".join(f"{x}**4/2 - 8*{x}**2 + 5*{x}/2" for x in names)
    return Surface._named("styblinski_tang", formula, box=(-5.0, 5.0), variables=names, noise=noise)


def three_well(*, noise: Any = _UNIT) -> Surface:
    """Two deep wells joined by a low path over a shallow third: 2-D, three minima.

    ``U = 3 exp(-x**2 - (y - 1/3)**2) - 3 exp(-x**2 - (y - 5/3)**2) - 5 exp(-(x - 1)**2 - y**2)
    - 5 exp(-(x + 1)**2 - y**2) + (x**4 + (y - 1/3)**4)/5``. Minima near (-1.05, -0.04),
    (0, 1.54) and (1.05, -0.04). Source: Metzner, Schuette & Vanden-Eijnden, J. Chem. Phys. 125,
    084110 (2006).
    """
    formula = (
        "3*exp(-x**2 - (y - 1/3)**2) - 3*exp(-x**2 - (y - 5/3)**2)"
        " - 5*exp(-(x - 1)**2 - y**2) - 5*exp(-(x + 1)**2 - y**2)"
        " + x**4/5 + (y - 1/3)**4/5"
    )
    return Surface._named("three_well", formula, box=((-2.5, -2.0), (2.5, 3.0)), noise=noise)


def coordinate_names(dim: int) -> tuple[str, ...]:
    """x; x, y; from three dimensions on x0, x1, ...; raises ParameterError for dim < 1."""
    if isinstance(dim, bool) or not isinstance(dim, (int, np.integer)) or dim < 1:
        raise ParameterError(f"dim={dim!r}: needs a whole number of dimensions, at least 1.")
    return ("x", "y")[:dim] if dim <= 2 else tuple(f"x{i}" for i in range(dim))


def _require_positive(owner: str, name: str, value: Any) -> None:
    if not (isinstance(value, (int, float, np.number)) and np.isfinite(value) and value > 0):
        raise ParameterError(f"{owner}({name}={value!r}): needs one finite number above 0.")

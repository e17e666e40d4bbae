"""Loss surfaces: formulas, named wells, and sums over data."""

from langevin.surfaces.basins import Basins
from langevin.surfaces.catalogue import (
    double_well,
    mueller_brown,
    quadratic,
    rastrigin,
    styblinski_tang,
    three_well,
    wide_and_sharp,
)
from langevin.surfaces.expression import Minimum, Saddle, Surface
from langevin.surfaces.finite_sum import FiniteSum
from langevin.surfaces.noise import Isotropic
from langevin.surfaces.regression import diabetes, linear_regression, logistic_regression

__all__ = [
    "Basins",
    "FiniteSum",
    "Isotropic",
    "Minimum",
    "Saddle",
    "Surface",
    "diabetes",
    "double_well",
    "linear_regression",
    "logistic_regression",
    "mueller_brown",
    "quadratic",
    "rastrigin",
    "styblinski_tang",
    "three_well",
    "wide_and_sharp",
]

"""langevin: where SGD ends up, and how learning rate, batch size and noise decide it."""

from langevin import errors, plot, predict, surfaces
from langevin.analysis.compare import compare
from langevin.dynamics import SGD, Overdamped, Underdamped
from langevin.observe import Histogram, Moments, Occupation
from langevin.result import Estimate, Result
from langevin.simulate import simulate
from langevin.surfaces.expression import Surface
from langevin.surfaces.finite_sum import FiniteSum
from langevin.surfaces.noise import Isotropic

__version__ = "0.1.0"

__all__ = [
    "SGD",
    "Estimate",
    "FiniteSum",
    "Histogram",
    "Isotropic",
    "Moments",
    "Occupation",
    "Overdamped",
    "Result",
    "Surface",
    "Underdamped",
    "compare",
    "errors",
    "plot",
    "predict",
    "simulate",
    "surfaces",
]

"""langevin: where SGD ends up, and how learning rate, batch size and noise decide it."""

from importlib import import_module as _import_module

from langevin import errors, plot, predict, schedules, surfaces
from langevin.analysis.compare import combine, compare
from langevin.analysis.temperatures import temperature_ratio_test
from langevin.dynamics import SGD, Adam, Overdamped, Underdamped
from langevin.observers import (
    Autocorrelation,
    Average,
    FirstPassage,
    Histogram,
    Moments,
    Occupation,
    Temperature,
    Trajectory,
    Transitions,
)
from langevin.result import Estimate, Result
from langevin.simulate import simulate
from langevin.storage import load
from langevin.surfaces.expression import Surface
from langevin.surfaces.finite_sum import FiniteSum
from langevin.surfaces.noise import AlphaStable, Anisotropic, Isotropic, StudentT
from langevin.surfaces.state_noise import LabelNoise, Multiplicative, StateDependent

__version__ = "0.1.0"

__all__ = [
    "SGD",
    "Adam",
    "AlphaStable",
    "Anisotropic",
    "Autocorrelation",
    "Average",
    "Estimate",
    "FiniteSum",
    "FirstPassage",
    "Histogram",
    "Isotropic",
    "LabelNoise",
    "Moments",
    "Multiplicative",
    "Occupation",
    "Overdamped",
    "Result",
    "StateDependent",
    "StudentT",
    "Surface",
    "Temperature",
    "Trajectory",
    "Transitions",
    "Underdamped",
    "combine",
    "compare",
    "errors",
    "load",
    "plot",
    "predict",
    "schedules",
    "simulate",
    "surfaces",
    "temperature_ratio_test",
]


def __getattr__(name: str):
    """``langevin.neural`` on first use: it imports torch, which nothing else needs."""
    if name == "neural":
        return _import_module("langevin.neural")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

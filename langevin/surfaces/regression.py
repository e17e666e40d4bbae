"""Regression losses on data, and one real data set that needs no download."""

from __future__ import annotations

from importlib import resources
from typing import Any

import numpy as np

from langevin.checks import real_array
from langevin.errors import ParameterError
from langevin.surfaces.finite_sum import FiniteSum


def diabetes(*, standardize: bool = True) -> tuple[np.ndarray, np.ndarray]:
    """The diabetes study of Efron, Hastie, Johnstone and Tibshirani (2004): X (442, 10), y (442,).

    Ten baseline variables (age, sex, bmi, blood pressure, six serum measurements) and the
    progression of the disease after a year. ``standardize`` gives every column, and y, mean 0 and
    variance 1; else the original values.
    """
    path = resources.files("langevin.surfaces").joinpath("diabetes.csv")
    lines = [line for line in path.read_text(encoding="utf-8").splitlines() if line[0] != "#"]
    table = np.array([line.split(",") for line in lines[1:]], dtype=float)
    if standardize:
        table = (table - table.mean(axis=0)) / table.std(axis=0)
    return table[:, :-1], table[:, -1]


def linear_regression(X: Any, y: Any, *, l2: float = 0.0) -> FiniteSum:
    """Least squares, ``L(w) = (1/N) sum_n (<w, x_n> - y_n)**2 / 2 + (l2/2) |w|**2``.

    X (N, d), y (N,). Its minimum, curvature and mini-batch noise follow from the data;
    `predict.quadratic` gives the exact stationary covariance of SGD on it. Raises ParameterError.
    """
    X = real_array("X", X, "needed: real numbers of shape (N, d)")
    if X.ndim != 2:
        raise ParameterError(f"X has shape {X.shape}; needed: (N, d), a row for each example.")
    surface = FiniteSum("(w*x - y)**2/2", data={"x": X, "y": y}, l2=l2)
    surface.name = f"least squares, N={surface.n_examples}, dim={surface.dim}"
    return surface

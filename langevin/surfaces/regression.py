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


def logistic_regression(X: Any, y: Any, *, l2: float = 0.0) -> FiniteSum:
    """Two classes, ``L(w) = (1/N) sum_n log(1 + exp(-s_n <w, x_n>)) + (l2/2) |w|**2``, s = +-1.

    X (N, d); y (N,) holds the labels, 0 and 1 or -1 and +1: s_n = +1 for 1, -1 for 0 or -1. There
    is no bias: give X a column of ones. With p_n = sigmoid(<w, x_n>) the gradient is
    ``mean((p_n - [s_n = 1]) x_n) + l2 w`` and the Hessian ``mean(p_n (1 - p_n) x_n x_n') + l2 I``,
    so the loss is convex and has at most one minimum if the features are independent. Separable
    data have none without l2: the weights grow for ever, and `minima` raises UnsoundError.
    Source: Bishop (2006), section 4.3.2. Raises ParameterError for other shapes or labels.
    """
    X = real_array("X", X, "needed: real numbers of shape (N, d)")
    if X.ndim != 2:
        raise ParameterError(f"X has shape {X.shape}; needed: (N, d), a row for each example.")
    labels = np.asarray(y)
    y = real_array("y", labels.astype(int) if labels.dtype == bool else y, "needed: 0/1 or -1/+1")
    if y.shape != X.shape[:1]:
        raise ParameterError(f"y has shape {y.shape}; needed: ({len(X)},), a label for each row.")
    found = set(np.unique(y).tolist())
    if not (found <= {0.0, 1.0} or found <= {-1.0, 1.0}):
        shown = ", ".join(f"{v:g}" for v in sorted(found)[:6]) + (", ..." if len(found) > 6 else "")
        raise ParameterError(
            f"y holds the labels {shown}; needed: 0 and 1, or -1 and +1. Two other classes a and b "
            "become 0 and 1 by y == b."
        )
    surface = FiniteSum("softplus(-s*(w*x))", data={"x": X, "s": np.where(y > 0, 1.0, -1.0)}, l2=l2)
    surface.name = f"logistic regression, N={surface.n_examples}, dim={surface.dim}"
    return surface


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

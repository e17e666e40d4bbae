"""The second-moment equation of a linear chain, solved in the eigenbasis of its curvature."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np


@dataclass(frozen=True, eq=False)
class LinearChain:
    """``buf <- m buf + g, x <- x - eta buf`` with ``g = H x + noise``, H diagonal (dim,) here.

    In the eigenbasis of H every pair of axes (i, j) decouples: its covariance block S of
    (x_i, buf_i) with (x_j, buf_j) obeys ``S = F_i S F_j^T + q q^T N_ij``, where
    ``F = [[1 - eta h, -eta m], [h, m]]``, ``q = (-eta, 1)`` and N is the noise covariance of one
    step's gradient. So S is N_ij times four fixed numbers: ``gains`` (dim, dim, 2, 2). Nesterov's
    step ``x <- x - eta (g + m buf')`` has ``F = [[1 - eta (1 + m) h, -eta m**2], [h, m]]`` and
    ``q = (-eta (1 + m), 1)``.
    """

    curvatures: np.ndarray
    rate: float
    momentum: float
    nesterov: bool = False

    @property
    def bound(self) -> float:
        """The rate below which the mean is stable: ``2 (1 + m)/h_max``, Nesterov's /(1 + 2 m)."""
        reach = 1 + 2 * self.momentum if self.nesterov else 1.0
        return 2 * (1 + self.momentum) / (reach * float(self.curvatures.max()))

    def _row(self) -> tuple[float, float]:
        """The rates at which the new position takes the gradient and the old buffer."""
        eta, m = self.rate, self.momentum
        return (eta * (1 + m), eta * m**2) if self.nesterov else (eta, eta * m)

    def gains(self) -> np.ndarray:
        """Covariance blocks for unit noise, (dim, dim, 2, 2), indexed [i, j, of i, of j]."""
        h, eta, m = self.curvatures, self.rate, self.momentum
        if m == 0:
            # Closed form, without the cancellation of a linear solve at small eta h.
            position = eta / (h[:, None] + h - eta * h[:, None] * h)
            cross = h * position * (1 - eta * h[:, None])
            both = 1 + h[:, None] * h * position
            # x' = (1 - eta h) x - eta n and buf' = h x + n of the same step.
            return np.stack(
                [
                    np.stack([position, cross - eta], -1),
                    np.stack([cross.T - eta, both], -1),
                ],
                -2,
            )
        one = np.ones_like(h)
        slope, carried = self._row()
        f = np.moveaxis(np.array([[1 - slope * h, -carried * one], [h, m * one]]), -1, 0)
        product = np.einsum("iac,jbd->ijabcd", f, f).reshape(len(h), len(h), 4, 4)
        q = np.array([-slope, 1.0])
        blocks = np.linalg.solve(np.eye(4) - product, np.outer(q, q).reshape(4, 1))
        return blocks.reshape(len(h), len(h), 2, 2)

    def position_gains(self) -> np.ndarray:
        """Covariance of positions for unit noise, (dim, dim)."""
        return self.gains()[:, :, 0, 0]

    def covariance(self, noise: np.ndarray) -> np.ndarray:
        """The full covariance (2 dim, 2 dim), positions first, for noise covariance (dim, dim)."""
        d = len(self.curvatures)
        blocks = self.gains() * noise[:, :, None, None]
        return blocks.transpose(2, 0, 3, 1).reshape(2 * d, 2 * d)

    def step_matrix(self) -> np.ndarray:
        """F of the whole state (2 dim, 2 dim), positions first."""
        h, (slope, carried) = np.diag(self.curvatures), self._row()
        eye = np.eye(len(h))
        return np.block([[eye - slope * h, -carried * eye], [h, self.momentum * eye]])

    def kick(self, noise: np.ndarray) -> np.ndarray:
        """What the noise covariance (dim, dim) of one gradient adds to the state's in a step."""
        q = np.array([-self._row()[0], 1.0])
        return np.kron(np.outer(q, q), noise)


@dataclass(frozen=True, eq=False)
class BatchNoise:
    """Gradient noise on least squares, ``factor (C + mean_n D_n M D_n) + thermal``.

    ``C`` (dim, dim): covariance of the example gradients at the minimum; ``spread``
    (dim, dim, dim, dim): ``mean_n D_n[a, c] D_n[b, e]`` at [a, b, c, e], where D_n is an example's
    Hessian less the mean one; M is the second moment of x about the minimum. ``factor`` is
    ``kappa/S``, kappa = 1 with and (N-S)/(N-1) without replacement. Example gradients and
    Hessians never meet: E[x] = 0, and x is independent of the batch drawn. ``thermal`` (dim, dim):
    the covariance of noise that is not of the mini-batch.
    """

    constant: np.ndarray
    spread: np.ndarray
    factor: float
    thermal: np.ndarray | float = 0.0

    def operator(self, gains: np.ndarray) -> np.ndarray:
        """``M -> gains * factor * mean_n D_n M D_n`` on the upper triangle of M, (p, p)."""
        d = len(gains)
        a, b = np.triu_indices(d)
        both = self.spread[a, b][:, a, b] + self.spread[a, b][:, b, a]
        both[:, a == b] /= 2
        return gains[a, b][:, None] * self.factor * both

    def solve(self, gains: np.ndarray) -> np.ndarray:
        """The stationary second moment of positions M (dim, dim)."""
        d = len(gains)
        a, b = np.triu_indices(d)
        matrix = np.eye(len(a)) - self.operator(gains)
        right = (gains * (self.factor * self.constant + self.thermal))[a, b]
        moment = np.zeros((d, d))
        moment[a, b] = moment[b, a] = np.linalg.solve(matrix, right)
        return moment

    def total(self, moment: np.ndarray) -> np.ndarray:
        """The noise covariance of one step's gradient, state-dependent part included."""
        batch = self.factor * (self.constant + np.einsum("abce,ce->ab", self.spread, moment))
        return batch + self.thermal

    def radius(self, gains: np.ndarray) -> float:
        """The spectral radius of `operator`: the second moment is finite below 1.

        The map is positive, so power iteration from the identity converges to its Perron root.
        """
        operator = self.operator(gains)
        a, b = np.triu_indices(len(gains))
        vector = (a == b).astype(float)
        value = 0.0
        for _ in range(2000):
            new = operator @ vector
            size = float(np.abs(new).max())
            if size == 0 or not np.isfinite(size):
                return size
            vector = new / size
            if abs(size - value) <= 1e-13 * size:
                break
            value = size
        return size


def largest_rate(chain: LinearChain, noise: BatchNoise) -> float:
    """The learning rate at which the second moment diverges, by bisection below the mean's."""
    low, high = 0.0, chain.bound
    for _ in range(40):
        middle = (low + high) / 2
        stable = noise.radius(replace(chain, rate=middle).position_gains()) < 1
        low, high = (middle, high) if stable else (low, middle)
    return low

"""Adam's step for one component (Kingma and Ba 2015, Algorithm 1, in PyTorch's arrangement)."""

import math

from langevin.kernels.float64 import real


def adam_mean(mean, gradient, beta):
    """``m <- beta1 m + (1 - beta1) g``."""
    return mean + (real(1) - beta) * (gradient - mean)


def adam_square(square, gradient, beta):
    """``v <- beta2 v + (1 - beta2) g^2``."""
    return beta * square + (real(1) - beta) * gradient * gradient


def adam(x, mean, square, learning_rate, root_correction, epsilon):
    """``x - eta m / (sqrt(v)/sqrt(1 - beta2^t) + eps)``, eta already over ``1 - beta1^t``."""
    return x - learning_rate * mean / (real(math.sqrt(square)) / root_correction + epsilon)

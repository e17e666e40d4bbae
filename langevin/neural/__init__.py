"""Networks as loss surfaces: torch modules trained in ensembles by the core's dynamics.

Needs torch, so it is imported on first use.
"""

from langevin.errors import UnavailableError

try:
    import torch as _torch  # noqa: F401
except ImportError:
    raise UnavailableError(
        "langevin.neural needs the package torch, which is not installed: "
        "pip install -c constraints.txt 'langevin[neural]' (without the pin, pip brings several GB "
        "of CUDA packages)."
    ) from None

from langevin.neural import data, models
from langevin.neural.observers import (
    Accuracy,
    BatchLoss,
    Distance,
    GradientNorm,
    Loss,
    Record,
    WeightNorm,
)
from langevin.neural.result import NetworkResult
from langevin.neural.surface import NeuralSurface

__all__ = [
    "Accuracy",
    "BatchLoss",
    "Distance",
    "GradientNorm",
    "Loss",
    "NetworkResult",
    "NeuralSurface",
    "Record",
    "WeightNorm",
    "data",
    "models",
]

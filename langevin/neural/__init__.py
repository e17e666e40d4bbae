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
from langevin.neural.covariance import gradient_covariance, gradient_covariance_operator
from langevin.neural.curvature import (
    HessianOperator,
    hessian,
    hessian_norm,
    hessian_operator,
    hessian_trace,
    top_eigenvalues,
)
from langevin.neural.evidence import log_evidence
from langevin.neural.fluctuations import (
    effective_temperature,
    local_quadratic,
    stationarity,
    weight_fluctuations,
)
from langevin.neural.invariance import rescaled, rescaling_test
from langevin.neural.noise_scale import gradient_noise_scale
from langevin.neural.observers import (
    Accuracy,
    AtLoss,
    BatchLoss,
    Distance,
    FluctuationDissipation,
    GradientNorm,
    HessianNorm,
    Loss,
    Record,
    WeightAverage,
    WeightNorm,
)
from langevin.neural.paths import interpolate, loss_plane, recalibrated
from langevin.neural.plan import large_batch_plan
from langevin.neural.result import NetworkResult
from langevin.neural.sharpness import sharpness
from langevin.neural.solutions import solutions
from langevin.neural.spectrum import spectral_density
from langevin.neural.surface import NeuralSurface

__all__ = [
    "Accuracy",
    "AtLoss",
    "BatchLoss",
    "Distance",
    "FluctuationDissipation",
    "GradientNorm",
    "HessianNorm",
    "HessianOperator",
    "Loss",
    "NetworkResult",
    "NeuralSurface",
    "Record",
    "WeightAverage",
    "WeightNorm",
    "data",
    "effective_temperature",
    "gradient_covariance",
    "gradient_covariance_operator",
    "gradient_noise_scale",
    "hessian",
    "hessian_norm",
    "hessian_operator",
    "hessian_trace",
    "interpolate",
    "large_batch_plan",
    "local_quadratic",
    "log_evidence",
    "loss_plane",
    "models",
    "recalibrated",
    "rescaled",
    "rescaling_test",
    "sharpness",
    "solutions",
    "spectral_density",
    "stationarity",
    "top_eigenvalues",
    "weight_fluctuations",
]

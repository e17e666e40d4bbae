"""Networks: data sets and models. Needs torch, so it is imported on first use."""

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

__all__ = ["data", "models"]

"""Rescalings of a ReLU network that leave its function alone: Dinh, Pascanu, Bengio & Bengio 2017.

They change the Hessian and the sharpness of a minimum as much as one likes, so neither says by
itself how a network generalises. Measures scaled by the weights' own sizes are beside them here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from langevin.checks import real_number, whole_number
from langevin.errors import ParameterError, UnsoundError
from langevin.neural.curvature import hessian_norm, top_eigenvalues
from langevin.neural.derivatives import Derivatives, parameters
from langevin.neural.sharpness import sharpness

LINEAR = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)
NORMS = (nn.modules.batchnorm._BatchNorm, nn.GroupNorm, nn.LayerNorm)
HOMOGENEOUS = (  # f(a x) = a f(x) for a > 0
    nn.ReLU, nn.LeakyReLU, nn.PReLU, nn.Identity, nn.Flatten, nn.Dropout, nn.Dropout2d,
    nn.MaxPool1d, nn.MaxPool2d, nn.AvgPool1d, nn.AvgPool2d, nn.AdaptiveAvgPool2d,
    nn.AdaptiveMaxPool2d,
)  # fmt: skip


def pairs(module: nn.Module) -> list[tuple[str, str]]:
    """Names of layers whose output may be multiplied by a > 0 and of those that divide it again.

    The first is linear, a convolution or an affine normalisation, the second linear or a
    convolution; between them only ReLU, pooling and the like. Sequential modules alone are read.
    """
    found: list[tuple[str, str]] = []
    first = None
    for name, layer in _layers(module, ""):
        if isinstance(layer, LINEAR):
            if first is not None:
                found.append((first, name))
            first = name
        elif isinstance(layer, NORMS):
            first = name if getattr(layer, "weight", None) is not None else None
        elif not isinstance(layer, HOMOGENEOUS):
            first = None
    return found


def _layers(module: nn.Module, path: str):
    if isinstance(module, nn.Sequential):
        for name, child in module.named_children():
            yield from _layers(child, f"{path}.{name}" if path else name)
    else:
        yield path, module


def rescaled(surface: Any, at: Any = None, *, factor: float, pair: int = 0) -> np.ndarray:
    """Parameters (dim,) of the same function, one layer times ``factor`` and the next divided.

    ``pair`` numbers the pairs of layers that have only ReLU, pooling or the like between them.
    Weights and biases of the first are multiplied, the weights of the second divided: ReLU(a x) =
    a ReLU(x) for a > 0. The outputs on the first examples are compared, and a difference beyond
    rounding raises UnsoundError. Raises ParameterError where there is no such pair.
    """
    if not (real_number(factor) and 0 < factor < np.inf):
        raise ParameterError(f"factor={factor!r}: needs a number above 0.")
    known = pairs(surface.module)
    if not known:
        raise ParameterError(
            f"rescaled: {type(surface.module).__name__} has no two layers with only ReLU, pooling "
            "or the like between them (only torch.nn.Sequential is read)."
        )
    first, second = known[whole_number("pair", pair, 0, len(known) - 1)]
    theta = parameters(surface, at).copy()
    before = theta.copy()
    for name, (a, b) in zip(surface.layout.names, surface.layout.places, strict=True):
        layer, _, what = name.rpartition(".")
        if layer == first:
            theta[a:b] *= factor
        elif layer == second and what == "weight":
            theta[a:b] /= factor
    few = slice(0, 64)
    with torch.no_grad():
        a, b = (_outputs(surface, t, few) for t in (before, theta))
    eps = np.finfo(theta.dtype).eps
    difference = float((a - b).abs().max())
    if not difference <= 1e5 * eps * max(1.0, float(a.abs().max())):
        raise UnsoundError(
            f"rescaled: the outputs changed by {difference:.3g}: the layers {first!r} and "
            f"{second!r} are not all that their numbers pass."
        )
    return theta


def _outputs(surface, theta, few):
    own = Derivatives(surface, theta)
    views = {k: v[0] for k, v in own.layout.views(own.theta[None]).items()}
    return torch.func.functional_call(own.module, views, (own.examples(few)[0],))


@dataclass(frozen=True, eq=False)
class RescalingTest:
    """Measures (k,) of one function in k parametrisations, ``factors`` (k,).

    ``raw`` has those of the weights as they are: "hessian_norm", "top_eigenvalue", "sharpness";
    ``scaled`` the same with every weight in units of its tensor's size. ``loss`` (k,).
    """

    factors: np.ndarray
    loss: np.ndarray
    raw: dict[str, np.ndarray]
    scaled: dict[str, np.ndarray]

    def spread(self, measures: dict[str, np.ndarray]) -> dict[str, float]:
        """Largest over smallest value of each measure: 1 where it is invariant."""
        return {name: float(np.max(v) / np.min(v)) for name, v in measures.items()}

    def __repr__(self) -> str:
        raw, scaled = self.spread(self.raw), self.spread(self.scaled)
        rows = [f"{name}: {raw[name]:.4g}, scaled {scaled[name]:.6g}" for name in raw]
        return f"RescalingTest(largest/smallest over {len(self.factors)}: {'; '.join(rows)})"


def rescaling_test(
    surface: Any,
    at: Any = None,
    *,
    factors: Any = (0.2, 1.0, 5.0),
    pair: int = 0,
    epsilon: float = 1e-3,
    iterations: int = 30,
    seed: int = 0,
) -> RescalingTest:
    """Hessian norm, top eigenvalue and sharpness of the same function with layers rescaled.

    Raw ones change with the factor; those of ``scale="layer"`` and ``box="layer"`` do not. A
    penalty would tell the parametrisations apart, so it is left out (l2=0). In float64.
    """
    import copy

    bare = copy.copy(surface)
    bare.l2 = 0.0
    theta = parameters(surface, at).astype(np.float64)
    loss, raw, scaled = [], [], []
    for factor in factors:
        own = rescaled(bare, theta, factor=float(factor), pair=pair)
        loss.append(Derivatives(bare, own).loss())
        for scale, box, found in ((None, "keskar", raw), ("layer", "layer", scaled)):
            phi = sharpness(bare, own, box=box, epsilon=epsilon, iterations=iterations, seed=seed)
            top = top_eigenvalues(bare, 1, own, scale=scale, seed=seed).values[0]
            norm = hessian_norm(bare, own, scale=scale, seed=seed).value
            found.append((norm, float(top), phi.value))
    names = ("hessian_norm", "top_eigenvalue", "sharpness")
    raw, scaled = (dict(zip(names, np.array(m).T, strict=True)) for m in (raw, scaled))
    return RescalingTest(np.array(factors, dtype=float), np.array(loss), raw, scaled)

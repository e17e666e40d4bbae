"""Layers on images for many copies of a module at once: (copies, examples, channels, h, w).

Copies stand beside one another as groups of channels, (examples, copies * channels, h, w), which
is how a convolution leaves its result in memory: from layer to layer nothing is copied.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

POOLS = (nn.MaxPool2d, nn.AvgPool2d, nn.AdaptiveAvgPool2d)
POOLINGS = {F.max_pool2d, F.avg_pool2d, F.adaptive_avg_pool2d}


def folded(x: torch.Tensor) -> torch.Tensor:
    """(copies, examples, channels, h, w) as (examples, copies * channels, h, w)."""
    copies, examples, channels, *size = x.shape
    return x.transpose(0, 1).reshape(examples, copies * channels, *size)


def unfolded(x: torch.Tensor, copies: int) -> torch.Tensor:
    """The other way round."""
    return x.view(len(x), copies, -1, *x.shape[2:]).transpose(0, 1)


def convolution(part: nn.Conv2d, x: torch.Tensor, weight: torch.Tensor, bias) -> torch.Tensor:
    """Each copy's own convolution, weight (copies, out, in / groups, h, w), bias or None."""
    copies = len(x)
    options = {"stride": part.stride, "padding": part.padding, "dilation": part.dilation}
    bias = None if bias is None else bias.reshape(-1)
    found = F.conv2d(
        folded(x), weight.flatten(0, 1), bias, groups=copies * part.groups, **options
    )  # fmt: skip
    return unfolded(found, copies)


def normalised(part: nn.BatchNorm2d, x: torch.Tensor, weight, bias, mean, variance):
    """Batch normalisation with the batch's statistics, or with those given, (copies, channels)."""
    given = (None if each is None else each.flatten() for each in (mean, variance, weight, bias))
    found = F.batch_norm(folded(x), *given, training=mean is None, eps=part.eps)
    return unfolded(found, len(x))


def pooled(pool: Any, x: torch.Tensor, *arguments: Any, **options: Any) -> torch.Tensor:
    """A pooling layer or function."""
    return unfolded(pool(folded(x), *arguments, **options), len(x))


def known(part: nn.Module) -> bool:
    """Whether a layer of images has a form for all copies at once."""
    if isinstance(part, nn.Conv2d):
        return part.padding_mode == "zeros"
    if isinstance(part, nn.MaxPool2d):
        return not part.return_indices
    return isinstance(part, (*POOLS, nn.BatchNorm2d, nn.Dropout2d))


def sliced(index: Any) -> tuple | None:
    """``x[:, a, b]`` of (examples, ...) for (copies, examples, ...); None for other indices."""
    slices = isinstance(index, tuple) and all(isinstance(part, slice) for part in index)
    if not slices or index[0] != slice(None):
        return None
    bounds = [bound for part in index for bound in (part.start, part.stop, part.step)]
    if not all(bound is None or isinstance(bound, int) for bound in bounds):
        return None
    return (slice(None), *index)

"""The networks of the sources: functions that return a fresh ``torch.nn.Module``.

Each takes images (n, channels, height, width), flattens where it needs to, and returns logits
(n, n_out). Initialisation follows ``torch.manual_seed``; `reset` repeats it. Networks without
BatchNorm and dropout run under ``torch.func.vmap`` over stacked parameters; the others need a
policy for their statistics and random numbers, and say here which layers they have. What a source
leaves unstated is called a choice.
"""

from __future__ import annotations

import copy

import torch
import torch.nn.functional as F
from torch import nn

from langevin.checks import one_of, real_number, whole_number
from langevin.errors import ParameterError

# --- fully connected ------------------------------------------------------------------------------


def logistic_regression(n_in: int = 784, n_out: int = 10) -> nn.Module:
    """One linear layer, softmax regression: n_in n_out + n_out parameters (7,850).

    ``n_out=1`` gives the single logit of two classes: Smith and Le (2018), section 3, 785
    parameters.
    """
    _sizes(n_in=n_in, n_out=n_out)
    return nn.Sequential(nn.Flatten(), nn.Linear(n_in, n_out))


def smith_le(hidden: int = 800, *, n_in: int = 784, n_out: int = 10) -> nn.Module:
    """784-800-10 with ReLU: Smith and Le (2018), section 4; 636,010 parameters.

    The initialisation, unstated, is PyTorch's.
    """
    return _dense(n_in, hidden, 1, n_out)


def arpit_mlp(width: int = 256, depth: int = 2, *, n_in: int = 784, n_out: int = 10) -> nn.Module:
    """ReLU MLP with two hidden layers: 784-256-256-10, 269,322 parameters.

    Arpit et al. (2017), section 3, have 4,096 units in each of 2 layers; Jastrzebski et al. (2017),
    section 4.3, "similar ... but with 256 hidden units". That both hidden layers have 256, and
    PyTorch's initialisation, are choices.
    """
    return _dense(n_in, width, depth, n_out)


def batch_norm_mlp(
    width: int, depth: int = 4, *, batch_norm: bool = True, n_in: int = 784, n_out: int = 10
) -> nn.Module:
    """``depth`` hidden layers of linear, BatchNorm, ReLU, then a linear one.

    Jastrzebski et al. (2017), section 4.1: "4-layer Batch Normalized ReLU MLP". That the four are
    hidden layers, the width and PyTorch's initialisation are choices. Parameters: linear layers
    with bias, 2 width for each BatchNorm (width 100: 110,610).
    """
    return _dense(n_in, width, depth, n_out, batch_norm=batch_norm)


def deep_mlp(
    width: int, depth: int = 20, *, init: str = "good", n_in: int = 784, n_out: int = 10
) -> nn.Module:
    """ReLU MLP of ``depth`` hidden layers without BatchNorm, with good or bad initialisation.

    Jastrzebski et al. (2017), figure 9: 20 layers, schemes unstated. "good" is He et al. (2015):
    weights normal with variance 2/n_in of the layer, biases 0, which keeps the signal's size from
    layer to layer. "bad" is Glorot and Bengio (2010): weights uniform with variance
    2/(n_in + n_out), biases 0, which halves the signal's square in each ReLU layer, a factor of a
    million over 20; it trains, late. (PyTorch's default, smaller yet, does not train at all.)
    """
    one_of("init", init, ("good", "bad"))
    kind = HeNormal if init == "good" else GlorotUniform
    return _dense(n_in, width, depth, n_out, kind=kind)


def f1(depth: int = 5, *, batch_norm: bool = True, n_in: int = 784, n_out: int = 10) -> nn.Module:
    """Keskar et al. (2017), appendix B: 784, then ``depth`` times [512, BatchNorm, ReLU], 10.

    1,462,794 parameters. The linear layers keep their bias, as the authors' Keras layers did.
    """
    return _dense(n_in, 512, depth, n_out, batch_norm=batch_norm)


# --- convolutional --------------------------------------------------------------------------------


def c1(n_out: int = 10, *, batch_norm: bool = True, dropout: float = 0.5) -> nn.Module:
    """Keskar's shallow network on (n, 3, 32, 32); ``n_out=100`` is C3.

    Twice [convolution 64 5x5, BatchNorm, ReLU, maximum over 3x3 with stride 2], then 384 and 192
    [BatchNorm, ReLU, dropout], as in the authors' network_zoo.py; 1,757,834 parameters. (Their
    BatchNorm, Keras' mode 2, took the batch's statistics in tests, too.)
    """
    _share(dropout)
    _sizes(n_out=n_out)
    layers: list[nn.Module] = []
    for n_in in (3, 64):
        layers += _convolution(n_in, 64, 5, batch_norm)
        layers += [nn.MaxPool2d(3, stride=2, padding=1)]
    layers += [nn.Flatten()]
    for n_in, width in ((64 * 8 * 8, 384), (384, 192)):
        layers += [*_hidden(n_in, width, batch_norm), nn.Dropout(dropout)]
    return nn.Sequential(*layers, nn.Linear(192, n_out))


def c2(n_out: int = 10, *, batch_norm: bool = True, dropout: float = 0.5) -> nn.Module:
    """Keskar's VGG-like network on (n, 3, 32, 32); ``n_out=100`` is C4.

    Stacks of 3x3 convolutions 64x2, 128x2, 256x3, 512x3, 512x3 with BatchNorm and ReLU, each stack
    ended by a maximum over 2x2, then 512 [BatchNorm, ReLU] and the output. Dropout ``dropout``
    before and after the dense layer, 0.8 times that between the convolutions of a stack (0.6 times
    in the first): 0.5, 0.4, 0.3 as in the authors' network_zoo.py. 14,991,946 parameters, of which
    14,714,688, the published count for VGG-16, are in the convolutions.
    """
    _share(dropout)
    _sizes(n_out=n_out)
    layers: list[nn.Module] = []
    n_in = 3
    for stack, (width, repeats) in enumerate(((64, 2), (128, 2), (256, 3), (512, 3), (512, 3))):
        for k in range(repeats):
            layers += _convolution(n_in, width, 3, batch_norm)
            if k < repeats - 1:
                layers += [nn.Dropout(dropout * (0.8 if stack else 0.6))]
            n_in = width
        layers += [nn.MaxPool2d(2)]
    layers += [nn.Flatten(), nn.Dropout(dropout), *_hidden(512, 512, batch_norm)]
    return nn.Sequential(*layers, nn.Dropout(dropout), nn.Linear(512, n_out))


def vgg11(
    n_out: int = 10, *, batch_norm: bool = False, dropout: float = 0.0, n_channels: int = 3
) -> nn.Module:
    """VGG-11 for (n, n_channels, 32, 32): configuration A of Simonyan and Zisserman (2015).

    Its eight 3x3 convolutions and five maxima over 2x2 leave (512, 1, 1), so the three dense layers
    of ImageNet become one, as is usual on CIFAR-10 (a choice; Jastrzebski et al. say "VGG-11").
    9,225,610 parameters; 9,231,114 with BatchNorm, which the source lacks. The convolutions hold
    9,220,480 of the 132,863,336 of the network for ImageNet. Weights are drawn after He et al.
    (2015), biases 0; ``dropout`` stands before the linear layer.
    """
    _share(dropout)
    _sizes(n_out=n_out, n_channels=n_channels)
    layers: list[nn.Module] = []
    n_in = n_channels
    for stack in ((64,), (128,), (256, 256), (512, 512), (512, 512)):
        for width in stack:
            layers += _convolution(n_in, width, 3, batch_norm)
            n_in = width
        layers += [nn.MaxPool2d(2)]
    layers += [nn.Flatten(), nn.Dropout(dropout)] if dropout else [nn.Flatten()]
    return HeNormal(*layers, nn.Linear(512, n_out))


def resnet56(n_out: int = 10, *, shortcut: str = "A", batch_norm: bool = True) -> nn.Module:
    """ResNet-56 for (n, 3, 32, 32): He et al. (2016), section 4.2; 0.85 M parameters (table 6).

    A 3x3 convolution to 16 channels, 3 x 9 residual blocks of 16, 32 and 64 channels (BatchNorm
    after each convolution), the mean over positions, a linear layer. ``shortcut="A"``, the paper's
    on CIFAR-10, skips pixels and pads channels with zeros: 853,018 parameters; "B" has a 1x1
    convolution with BatchNorm where the shape changes: 855,770. Weights are drawn after He et al.
    (2015), biases 0. ``batch_norm=False`` gives convolutions a bias instead.
    """
    one_of("shortcut", shortcut, ("A", "B"))
    _sizes(n_out=n_out)
    layers: list[nn.Module] = _convolution(3, 16, 3, batch_norm, bias=not batch_norm)
    n_in = 16
    for width in (16, 32, 64):
        for _ in range(9):
            layers += [ResidualBlock(n_in, width, shortcut, batch_norm)]
            n_in = width
    return HeNormal(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, n_out))


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut; where channels double, the image is halved."""

    def __init__(self, n_in: int, width: int, shortcut: str, batch_norm: bool):
        super().__init__()
        self.stride, self.padding = width // n_in, width - n_in
        first = nn.Conv2d(n_in, width, 3, self.stride, padding=1, bias=not batch_norm)
        second = nn.Conv2d(width, width, 3, padding=1, bias=not batch_norm)
        norms = [nn.BatchNorm2d(width) if batch_norm else nn.Identity() for _ in range(2)]
        self.residual = nn.Sequential(first, norms[0], nn.ReLU(), second, norms[1])
        self.projection = None
        if self.padding and shortcut == "B":
            layers: list[nn.Module] = [nn.Conv2d(n_in, width, 1, self.stride, bias=not batch_norm)]
            self.projection = nn.Sequential(*layers, *_norm(width, batch_norm))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(n, n_in, h, w) to (n, width, h / stride, w / stride)."""
        if self.projection is not None:
            past = self.projection(x)
        elif self.padding:
            before = self.padding // 2
            thinned = x[:, :, :: self.stride, :: self.stride]
            past = F.pad(thinned, (0, 0, 0, 0, before, self.padding - before))
        else:
            past = x
        return F.relu(self.residual(x) + past)


# --- initialisation -------------------------------------------------------------------------------


class HeNormal(nn.Sequential):
    """Layers whose weights are normal with variance 2/n_in and whose biases are 0."""

    def __init__(self, *layers: nn.Module):
        super().__init__(*layers)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """He et al. (2015), equation 10."""
        for layer in self.modules():
            if isinstance(layer, (nn.Linear, nn.Conv2d)):
                nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
                if layer.bias is not None:
                    nn.init.zeros_(layer.bias)


class GlorotUniform(nn.Sequential):
    """Layers whose weights are uniform with variance 2/(n_in + n_out) and whose biases are 0."""

    def __init__(self, *layers: nn.Module):
        super().__init__(*layers)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Glorot and Bengio (2010), equation 16."""
        for layer in self.modules():
            if isinstance(layer, nn.Linear):
                nn.init.xavier_uniform_(layer.weight)
                nn.init.zeros_(layer.bias)


def reset(module: nn.Module, *, seed: int | None = None) -> nn.Module:
    """Draws all parameters anew, in place, and resets BatchNorm's statistics; returns the module.

    Calls ``reset_parameters`` of every submodule, children first, so a module's own has the last
    word. After ``torch.manual_seed`` it repeats what the functions of this file construct. With
    ``seed`` (0 to 2**64 - 1) the numbers are drawn on the CPU, the same for every device, and
    PyTorch's global generators are left as they were. Raises ParameterError naming a parameter
    that nothing resets, or a parametrised layer (``torch.nn.utils.parametrize``).
    """
    for name, layer in module.named_modules():
        if nn.utils.parametrize.is_parametrized(layer):  # it would reset a copy
            raise ParameterError(
                f"{type(module).__name__}: {name or 'it'} is parametrised, so its weights cannot "
                "be drawn anew; write the constraint into forward(), or start from its own values."
            )
    missed = [name for name, _ in _uncovered(module, "")]
    if missed:
        raise ParameterError(
            f"{type(module).__name__}: nothing resets the parameter {missed[0]!r}; its module "
            "needs a method reset_parameters()."
        )
    if seed is None:
        _reset(module, set())
        return module
    seed = whole_number("seed", seed, 0, 2**64 - 1)
    elsewhere = any(p.device.type != "cpu" for p in module.parameters())
    drawn = copy.deepcopy(module).to("cpu") if elsewhere else module
    before = torch.get_rng_state()
    try:
        torch.default_generator.manual_seed(seed)
        _reset(drawn, set())
    finally:
        torch.set_rng_state(before)
    if elsewhere:
        module.load_state_dict(drawn.state_dict())
    return module


def n_parameters(module: nn.Module) -> int:
    """How many trainable numbers a module has."""
    return sum(p.numel() for p in module.parameters() if p.requires_grad)


def _resets(module: nn.Module):
    """A module's own way to draw its parameters, or None."""
    own = getattr(module, "reset_parameters", None)
    return own or getattr(module, "_reset_parameters", None)  # MultiheadAttention's


def _uncovered(module: nn.Module, path: str):
    """Parameters, by name, of modules that neither they nor one above them can reset."""
    if _resets(module) is not None:
        return
    for name, parameter in module.named_parameters(path, recurse=False):
        yield name, parameter
    for name, child in module.named_children():
        yield from _uncovered(child, f"{path}.{name}" if path else name)


def _reset(module: nn.Module, done: set[nn.Module]) -> None:
    if module in done:
        return
    done.add(module)
    for child in module.children():
        _reset(child, done)
    own = _resets(module)
    if own is not None:
        with torch.no_grad():
            own()


# --- layers ---------------------------------------------------------------------------------------


def _dense(
    n_in: int,
    width: int,
    depth: int,
    n_out: int,
    *,
    batch_norm: bool = False,
    kind: type[nn.Sequential] = nn.Sequential,
) -> nn.Module:
    """Flatten, hidden layers, and a linear one."""
    _sizes(n_in=n_in, width=width, depth=depth, n_out=n_out)
    layers: list[nn.Module] = [nn.Flatten()]
    for _ in range(depth):
        layers += _hidden(n_in, width, batch_norm)
        n_in = width
    return kind(*layers, nn.Linear(n_in, n_out))


def _hidden(n_in: int, width: int, batch_norm: bool) -> list[nn.Module]:
    norm = [nn.BatchNorm1d(width)] if batch_norm else []
    return [nn.Linear(n_in, width), *norm, nn.ReLU()]


def _convolution(
    n_in: int, width: int, kernel: int, batch_norm: bool, *, bias: bool = True
) -> list[nn.Module]:
    """A convolution that keeps the image's size, BatchNorm, ReLU."""
    layer = nn.Conv2d(n_in, width, kernel, padding=kernel // 2, bias=bias)
    return [layer, *_norm(width, batch_norm), nn.ReLU()]


def _norm(width: int, batch_norm: bool) -> list[nn.Module]:
    return [nn.BatchNorm2d(width)] if batch_norm else []


def _sizes(**sizes: int) -> None:
    for name, size in sizes.items():
        whole_number(name, size, 1, 10**7)


def _share(dropout: float) -> None:
    if not (real_number(dropout) and 0 <= dropout < 1):
        raise ParameterError(f"dropout={dropout!r}: needed: a share from 0 to below 1.")

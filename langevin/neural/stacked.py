"""The losses and gradients of many copies of a module at once, each with its own mini-batch.

Copies are rows of one matrix of parameters. Modules whose parts are known (linear layers, the usual
activations, flattening, batch normalisation, dropout; on images convolutions and pooling) are
evaluated as batched products over all copies; any other module by torch.func.vmap; and one that
cannot be vmapped by a loop over copies.
"""

from __future__ import annotations

import copy
import operator
from collections.abc import Callable
from typing import Any

import torch
from torch import fx, nn
from torch.nn import functional as F

from langevin.neural import images

POINTWISE_MODULES = (
    nn.ReLU, nn.Tanh, nn.Sigmoid, nn.GELU, nn.SiLU, nn.ELU, nn.LeakyReLU, nn.Softplus, nn.Identity,
    nn.Hardtanh, nn.ReLU6, nn.Softsign, nn.LogSigmoid,
)  # fmt: skip
POINTWISE_FUNCTIONS = {
    F.relu, torch.relu, F.tanh, torch.tanh, F.sigmoid, torch.sigmoid, F.gelu, F.silu, F.elu,
    F.leaky_relu, F.softplus, torch.sin, torch.cos, torch.exp, torch.square,
    operator.neg, operator.pow,
}  # fmt: skip
POINTWISE_METHODS = {"relu", "tanh", "sigmoid", "exp", "square", "contiguous", "pow"}
SUMS = {operator.add, operator.sub, operator.mul, torch.add, torch.mul}


class Unknown(Exception):
    """A part of a module that has no batched form here."""


class Shapes:
    """Where each parameter of a module that is to be trained lies in a row of all of them."""

    def __init__(self, module: nn.Module):
        self.names, self.shapes, self.places, at = [], [], [], 0
        for name, parameter in module.named_parameters():
            if not parameter.requires_grad:  # frozen
                continue
            self.names.append(name)
            self.shapes.append(tuple(parameter.shape))
            self.places.append((at, at + parameter.numel()))
            at += parameter.numel()
        self.size = at

    def views(self, rows: torch.Tensor) -> dict[str, torch.Tensor]:
        """Each parameter of all copies, (copies, *shape), from rows (copies, size)."""
        return {
            name: rows[:, a:b].view(len(rows), *shape)
            for name, (a, b), shape in zip(self.names, self.places, self.shapes, strict=True)
        }


class Linear(torch.autograd.Function):
    """A linear layer of all copies, whose gradients go straight to where they are wanted.

    ``token`` is any tensor that requires a gradient: the layer's own parameters do not.
    """

    @staticmethod
    def forward(ctx, x, token, weight, bias, weight_slope, bias_slope):
        """``x W' + b``: (copies, examples, in) to (copies, examples, out)."""
        ctx.save_for_backward(x, weight)
        ctx.slopes = weight_slope, bias_slope
        if bias is None:
            return torch.bmm(x, weight.transpose(1, 2))
        return torch.baddbmm(bias.unsqueeze(1), x, weight.transpose(1, 2))

    @staticmethod
    def backward(ctx, slope):
        """Writes the parameters' gradients; returns that of x."""
        x, weight = ctx.saved_tensors
        weight_slope, bias_slope = ctx.slopes
        if weight_slope.is_contiguous():
            torch.bmm(slope.transpose(1, 2), x, out=weight_slope)
        else:
            weight_slope.copy_(torch.bmm(slope.transpose(1, 2), x))
        if bias_slope is not None:
            torch.sum(slope, 1, out=bias_slope)
        back = torch.bmm(slope, weight) if ctx.needs_input_grad[0] else None
        return back, None, None, None, None, None


class Batched:
    """A module's forward pass for all copies at once, or Unknown where a part has no such form."""

    def __init__(self, module: nn.Module, statistics: str):
        self.statistics = statistics  # of batch normalisation: "batch" or "running"
        try:
            # Within another module, so that a module which is itself one layer stays one.
            self.graph = fx.symbolic_trace(nn.Sequential(module)).graph
        except Exception as error:  # tracing runs the user's forward(): anything may happen
            raise Unknown(f"torch.fx cannot trace it ({error})") from error
        self.modules = {f"0.{name}".rstrip("."): m for name, m in module.named_modules()}
        self.constants = {node.target for node in self.graph.nodes if node.op == "get_attr"}
        if any(_altered(part) for part in module.modules()):
            raise Unknown("it has hooks or parametrisations")
        if self.constants:
            raise Unknown("it uses parameters outside of layers")
        if len(list(module.named_parameters(remove_duplicate=False))) != len(
            list(module.parameters())
        ):
            raise Unknown("layers share parameters")
        self.dropouts = {}  # each use of dropout has a number, that its masks are drawn with
        for node in self.graph.nodes:
            self.check(node)
            if self.dropout(node) is not None:
                self.dropouts[node] = len(self.dropouts)
        used = [node.target for node in self.graph.nodes if node.op == "call_module"]
        self.linear = {  # parameters of layers that occur once: their gradients can be written
            f"{name[2:]}.{p}".lstrip(".")
            for name, m in self.modules.items()
            if isinstance(m, nn.Linear) and used.count(name) == 1
            if all(p.requires_grad for p in m.parameters())
            for p, _ in m.named_parameters()
        }
        if any(isinstance(m, nn.Linear) and used.count(n) > 1 for n, m in self.modules.items()):
            self.linear = set()

    def dropout(self, node: fx.Node) -> float | None:
        """The probability at which a node drops units in training; None if it is no dropout."""
        kinds = (nn.Dropout, nn.Dropout2d)
        if node.op == "call_module" and isinstance(self.modules[node.target], kinds):
            part = self.modules[node.target]
            return part.p if part.training else 0.0
        if node.op == "call_function" and node.target is F.dropout:
            return node.kwargs["p"] if node.kwargs["training"] else 0.0
        return None

    def check(self, node: fx.Node) -> None:
        """Raises Unknown for a part without a batched form."""
        if node.op == "call_module":
            part = self.modules[node.target]
            known = isinstance(part, (*POINTWISE_MODULES, nn.Linear, nn.Flatten, nn.BatchNorm1d))
            known = known or isinstance(part, nn.Dropout) or images.known(part)
            flat = not isinstance(part, nn.Flatten) or (part.start_dim, part.end_dim) == (1, -1)
            if not (known and flat):
                raise Unknown(f"{type(part).__name__} ({node.target})")
        elif node.op == "call_function":
            flat = node.target is torch.flatten and tuple(node.args[1:]) == (1,)
            if _is_shape(node) or _is_count(node) or node.target is F.dropout:
                return
            if node.target is operator.getitem and images.sliced(node.args[1]):
                return
            if node.target in images.POOLINGS and not node.kwargs.get("return_indices"):
                return
            if node.target is F.pad and node.kwargs.get("mode", "constant") == "constant":
                return
            if not (node.target in POINTWISE_FUNCTIONS or node.target in SUMS or flat):
                raise Unknown(f"the function {getattr(node.target, '__name__', node.target)}")
            if node.kwargs and not set(node.kwargs) <= {"inplace", "start_dim", "negative_slope"}:
                raise Unknown(f"options of {node.target}")
        elif node.op == "call_method" and not _is_count(node):
            flat = node.target in ("flatten", "view", "reshape") and len(node.args) > 1
            flat = flat and (node.target == "flatten" or node.args[2:] == (-1,))
            flat = flat and (node.target != "flatten" or node.args[1:] == (1,))
            if not (node.target in POINTWISE_METHODS or flat):
                raise Unknown(f"the method {node.target}")
            if node.target in ("view", "reshape") and not _is_count(node.args[1]):
                raise Unknown(f"{node.target} to another number of examples")

    def is_aside(self, node: fx.Node) -> bool:
        """Whether a node only asks for the number of examples."""
        return _is_shape(node) or _is_count(node)

    def __call__(
        self, parameters: dict, buffers: dict, x: torch.Tensor, sink: Any = None, draw: Any = None
    ) -> torch.Tensor:
        """Outputs (copies, examples, ...) for inputs (copies, examples, ...).

        ``sink`` is a token and where each parameter's gradient goes, for `Linear`; ``draw`` makes
        the masks of dropout.
        """
        values: dict[fx.Node, Any] = {}
        parameters = {**buffers, **parameters}  # frozen ones are among the buffers

        def given(argument):
            return fx.map_arg(argument, lambda node: values[node])

        for node in self.graph.nodes:
            if node.op == "placeholder":
                values[node] = x
            elif node.op == "output":
                return given(node.args[0])
            elif _is_shape(node) or _is_count(node):
                values[node] = None  # of use to view() alone, which is flatten here
            elif node in self.dropouts:
                values[node] = kept = given(node.args[0])
                p = self.dropout(node)
                if p and draw is not None:
                    channels = isinstance(self.modules.get(node.target), nn.Dropout2d)
                    shape = (*kept.shape[:3], 1, 1) if channels else kept.shape
                    mask = draw.mask(self.dropouts[node], shape, p)
                    values[node] = kept * mask.to(kept.device)
            elif node.op == "call_module":
                part = self.modules[node.target]
                inputs = given(node.args)
                values[node] = self.layer(node.target, part, parameters, buffers, *inputs, sink)
            elif node.op == "call_function":
                if node.target is torch.flatten:
                    values[node] = given(node.args[0]).flatten(2)
                elif node.target is operator.getitem:
                    values[node] = given(node.args[0])[images.sliced(node.args[1])]
                elif node.target in images.POOLINGS:
                    values[node] = images.pooled(node.target, *given(node.args), **node.kwargs)
                else:
                    kwargs = {k: v for k, v in node.kwargs.items() if k != "inplace"}
                    values[node] = node.target(*given(node.args), **given(kwargs))
            elif node.target in ("flatten", "view", "reshape"):
                values[node] = given(node.args[0]).flatten(2)
            else:
                first, *rest = given(node.args)
                values[node] = getattr(first, node.target)(*rest)
        raise Unknown("it returns nothing")

    def layer(self, name: str, part, parameters: dict, buffers: dict, x, sink) -> torch.Tensor:
        """One layer."""
        name = name[2:] + "." if len(name) > 1 else ""  # as the module itself names it
        if isinstance(part, nn.Linear):
            weight, bias = parameters[f"{name}weight"], parameters.get(f"{name}bias")
            if sink is not None and f"{name}weight" in self.linear:
                token, slopes = sink
                places = (slopes[f"{name}weight"], slopes.get(f"{name}bias"))
                return Linear.apply(x, token, weight, bias, *places)
            if bias is None:
                return torch.bmm(x, weight.transpose(1, 2))
            return torch.baddbmm(bias.unsqueeze(1), x, weight.transpose(1, 2))
        if isinstance(part, nn.Conv2d):
            own = (parameters[f"{name}weight"], parameters.get(f"{name}bias"))
            return images.convolution(part, x, *own)
        if isinstance(part, images.POOLS):
            return images.pooled(part, x)
        if isinstance(part, nn.Flatten):
            return x.flatten(2)
        if isinstance(part, nn.BatchNorm2d):
            own = [parameters.get(f"{name}{k}") for k in ("weight", "bias")]
            kept = [buffers.get(f"{name}running_{k}") for k in ("mean", "var")]
            return images.normalised(part, x, *own, *kept)
        if isinstance(part, nn.BatchNorm1d):
            return self.normalised(name, part, parameters, buffers, x)
        return part(x)

    def normalised(self, name: str, part, parameters: dict, buffers: dict, x) -> torch.Tensor:
        """Batch normalisation of (copies, examples, features)."""
        if self.statistics == "batch":
            variance, mean = torch.var_mean(x, dim=1, correction=0, keepdim=True)
        else:
            mean = buffers[f"{name}running_mean"].unsqueeze(1)
            variance = buffers[f"{name}running_var"].unsqueeze(1)
        scaled = (x - mean) * torch.rsqrt(variance + part.eps)
        if not part.affine:
            return scaled
        weight, bias = (parameters[f"{name}{k}"].unsqueeze(1) for k in ("weight", "bias"))
        return torch.addcmul(bias, scaled, weight)


def _altered(part: nn.Module) -> bool:
    """Whether calling a module does more than its class says."""
    hooks = (part._forward_hooks, part._forward_pre_hooks, part._backward_hooks)
    return any(hooks) or hasattr(part, "parametrizations")


def _is_shape(node: Any) -> bool:
    """Whether a node is ``x.shape``."""
    return isinstance(node, fx.Node) and node.target is getattr and node.args[1:] == ("shape",)


def _is_count(node: Any) -> bool:
    """Whether a node is the number of examples: ``x.size(0)`` or ``x.shape[0]``."""
    if not isinstance(node, fx.Node):
        return False
    if node.op == "call_method":
        return node.target == "size" and node.args[1:] == (0,)
    return node.target is operator.getitem and _is_shape(node.args[0]) and node.args[1] == 0


def forward_pass(module: nn.Module, statistics: str) -> tuple[Callable, str]:
    """``f(parameters, buffers, x, draw)`` for all copies at once, and how it is done, in words.

    ``parameters`` and ``buffers`` are dictionaries of (copies, *shape), x (copies, examples, ...);
    without ``draw`` the module is in evaluation mode, its batch normalisation apart.
    """
    try:
        return Batched(module, statistics), "batched"
    except Unknown as why:
        reason = str(why)
    noisy, quiet = _modes(module, statistics)

    def vmapped(parameters, buffers, x, draw=None):
        def one(parameters, buffers, x):
            return torch.func.functional_call(
                quiet if draw is None else noisy, (parameters, buffers), (x,)
            )

        return torch.func.vmap(one, randomness="error")(parameters, buffers, x)

    return vmapped, f"vmap: {reason}"


def _modes(module: nn.Module, statistics: str) -> tuple[nn.Module, nn.Module]:
    """The module as it is given, and in evaluation mode: where nothing is dropped."""
    noisy = with_statistics(module, statistics)
    return noisy, with_statistics(copy.deepcopy(module).eval(), statistics)


def looped(module: nn.Module, statistics: str) -> Callable:
    """The same by a loop over copies, for modules that cannot be vmapped.

    Whatever they draw comes from a generator that is seeded anew for each copy and step.
    """
    noisy, quiet = _modes(module, statistics)

    def all_copies(parameters, buffers, x, draw=None):
        found, plain = [], quiet if draw is None else noisy
        with torch.random.fork_rng(enabled=draw is not None):
            for k in range(len(x)):
                own = [{n: p[k] for n, p in given.items()} for given in (parameters, buffers)]
                if draw is not None:
                    torch.manual_seed(draw.seed(k))
                found.append(torch.func.functional_call(plain, tuple(own), (x[k],)))
        return torch.stack(found)

    return all_copies


def with_statistics(module: nn.Module, statistics: str) -> nn.Module:
    """A copy whose batch normalisation takes the batch's statistics, or those of its buffers."""
    own = copy.deepcopy(module)
    for part in own.modules():
        if isinstance(part, nn.modules.batchnorm._BatchNorm):
            part.train(statistics == "batch")
            if statistics == "batch":  # nothing is tracked: buffers would be written to in a vmap
                part.track_running_stats = False
                part.running_mean = part.running_var = part.num_batches_tracked = None
    return own

"""A loss surface made of a torch module and its data."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from langevin.checks import whole_number
from langevin.errors import ParameterError
from langevin.neural import stacked
from langevin.neural.labels import Labels, noisy

BATCH_NORM = ("batch", "eval", "recalibrate")
EXAMPLES = 4096  # of the data that are evaluated at once


def _squared(outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    return 0.5 * (outputs - targets.view_as(outputs)).square().flatten(1).sum(1)


def _mean_squared(outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    return (outputs - targets.view_as(outputs)).square().flatten(1).mean(1)


def _cross_entropy(outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    return F.cross_entropy(outputs, targets, reduction="none")


def _output(outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    return outputs.flatten(1).mean(1)


LOSSES: dict[str, Callable] = {
    "cross_entropy": _cross_entropy,
    "squared": _squared,
    "mse": _mean_squared,
    "output": _output,
}


class NeuralSurface:
    """``L(theta) = 1/N sum_i loss(module(x_i), y_i) + l2/2 |theta|^2`` over a data set.

    ``module`` is any torch.nn.Module, copied; ``dataset`` a pair (X, y) of tensors, X (N, ...) and
    y (N,) or (N, ...). ``loss`` is "cross_entropy", "squared" (half the squared distance), "mse"
    (as torch.nn.MSELoss), "output" (the module's output is the loss itself), or a function
    of outputs (n, ...) and targets (n, ...) that returns the examples' losses (n,).
    theta (dim,) are the parameters of the module in the order of ``module.parameters()``; those
    with ``requires_grad=False`` are frozen: no part of theta, they stay what they are.

    ``batch_norm`` says whose statistics batch normalisation takes: "batch", those of the examples
    it is given, in training and in measurements; "recalibrate", the batch's in training and those
    of the whole training set in measurements; "eval", always those in the module's buffers.

    ``label_noise`` replaces a share of the labels as `corrupt_labels` with the seed ``label_seed``
    does (without it the data set's own, or 0). Arrays (n_replicas,) of shares or seeds are a grid
    in one run: a replica trains, and its training loss and accuracy are measured, on labels of its
    own; ``y`` and what knows no replica keep the labels as given, see `of_replica`.

    Raises ParameterError for data that do not fit the module.
    """

    def __init__(
        self,
        module: nn.Module,
        dataset: Any,
        *,
        loss: str | Callable = "cross_entropy",
        l2: float = 0.0,
        batch_norm: str = "batch",
        label_noise: Any = None,
        label_seed: Any = None,
        noisy_label: str = "any",
    ):
        if not isinstance(module, nn.Module):
            raise ParameterError(
                f"NeuralSurface(module={module!r}): give a torch.nn.Module, such as "
                "langevin.neural.models.smith_le()."
            )
        self.module = copy.deepcopy(module)
        self.X, self.y = pair("NeuralSurface", dataset)
        self.labels: Labels | None = None  # of each replica, where they differ
        self.noise_said = ""  # in words, where labels are noisy
        if label_noise is not None:
            self.labels = noisy(dataset, self.y, label_noise, label_seed, noisy_label)
            shown = np.array2string(np.asarray(label_noise), separator=", ", threshold=8)
            self.noise_said = f", label_noise={shown}, noisy_label={noisy_label!r}"
            if not self.labels.which.size:
                self.y, self.labels = self.labels.table[0], None
        elif label_seed is not None:
            raise ParameterError("NeuralSurface(label_seed=...): give label_noise= with it.")
        if batch_norm not in BATCH_NORM:
            raise ParameterError(
                f"NeuralSurface(batch_norm={batch_norm!r}): choose one of {', '.join(BATCH_NORM)}."
            )
        if not (isinstance(l2, (int, float)) and l2 >= 0):
            raise ParameterError(f"NeuralSurface(l2={l2!r}): needs a number, 0 or more.")
        if not callable(loss) and loss not in LOSSES:
            raise ParameterError(
                f"NeuralSurface(loss={loss!r}): choose one of {', '.join(LOSSES)}, or give a "
                "function of outputs and targets that returns one loss an example."
            )
        self.loss_name = loss if isinstance(loss, str) else getattr(loss, "__name__", "loss")
        self.loss = LOSSES[loss] if isinstance(loss, str) else loss
        self.l2, self.batch_norm = float(l2), batch_norm
        self.layout = stacked.Shapes(self.module)
        if not self.layout.size:
            raise ParameterError(
                "NeuralSurface: the module has no parameters to train (requires_grad=True)."
            )
        self.check()

    @property
    def dim(self) -> int:
        """How many parameters there are."""
        return self.layout.size

    @property
    def n_examples(self) -> int:
        """How many examples there are."""
        return len(self.X)

    def check(self, who: str = "NeuralSurface", data: Any = None) -> tuple:
        """The data as tensors, by default the training data, if module and loss take two of them.

        Raises ParameterError, which begins with ``who``.
        """
        X, y = (self.X, self.y) if data is None else pair(who, data)
        few = slice(0, min(2, len(X)))
        kind = next(self.module.parameters()).dtype
        x = X[few].to(kind) if X.is_floating_point() else X[few]
        plain = stacked.with_statistics(self.module, "running").eval()
        try:
            with torch.no_grad():
                outputs = plain(x)
        except Exception as error:  # whatever a user's module raises
            raise ParameterError(
                f"{who}: the module cannot take X of shape {tuple(X.shape)} and type "
                f"{X.dtype}: {error}. Give examples of the shape that it was made for."
            ) from error
        labels = self.loss_name == "cross_entropy"
        if labels and outputs.ndim == 2 and not y.is_floating_point():
            every = y if data is not None or self.labels is None else self.labels.table
            low, high = int(every.min()), int(every.max())
            if low < 0 or high >= outputs.shape[1]:
                raise ParameterError(
                    f"{who}: labels from {low} to {high}, but the module has "
                    f"{outputs.shape[1]} outputs. Give labels from 0 to {outputs.shape[1] - 1}."
                )
        try:
            losses = self.loss(outputs, self.target(y[few], kind))
            good = losses.shape == (len(outputs),)
        except Exception as error:
            raise ParameterError(
                f"{who}: the loss {self.loss_name!r} cannot take outputs of shape "
                f"{tuple(outputs.shape)} and targets {tuple(y.shape)} of {y.dtype}: "
                f"{error}."
            ) from error
        if not good:
            raise ParameterError(
                f"{who}: the loss gives shape {tuple(losses.shape)}, needed: one number an "
                f"example, ({len(outputs)},)."
            )
        return X, y

    def of_replica(self, number: int) -> NeuralSurface:
        """This surface with the labels of one place of a run, where label_noise is an array."""
        if self.labels is None:
            return self
        number = whole_number("number", number, 0, len(self.labels.which) - 1)
        own = copy.copy(self)
        own.y, own.labels = self.labels.of(np.array([number]))[0], None
        return own

    def target(self, y: torch.Tensor, kind: torch.dtype) -> torch.Tensor:
        """Targets as the loss takes them: numbers in the parameters' precision, or labels."""
        return y.to(kind) if y.is_floating_point() else y

    def flat(self, module: nn.Module | None = None) -> np.ndarray:
        """The parameters theta (dim,) of a module of this kind, by default its own."""
        with torch.no_grad():
            known = dict((module or self.module).named_parameters())
            parts = [known[name].reshape(-1) for name in self.layout.names]
            return torch.cat(parts).cpu().numpy().copy()

    def is_kind(self, module: nn.Module) -> bool:
        """Whether a module has the parameters theta, by name and shape."""
        known = {name: tuple(p.shape) for name, p in module.named_parameters()}
        wanted = zip(self.layout.names, self.layout.shapes, strict=True)
        return all(known.get(name) == shape for name, shape in wanted)

    def with_parameters(self, theta: Any) -> nn.Module:
        """A copy of the module with parameters theta (dim,)."""
        made = copy.deepcopy(self.module)
        theta = torch.as_tensor(np.asarray(theta))
        if theta.shape != (self.dim,):
            raise ParameterError(
                f"parameters of shape {tuple(theta.shape)}; needed: ({self.dim},)."
            )
        with torch.no_grad():
            known = dict(made.named_parameters())
            for name, (a, b) in zip(self.layout.names, self.layout.places, strict=True):
                known[name].copy_(theta[a:b].view_as(known[name]))
        return made

    def energy(self, points: Any, data: Any = None) -> np.ndarray:
        """The loss (...) at parameters (..., dim), on the training data or another pair (X, y)."""
        return self._measured(points, data, gradient=False)[0]

    def gradient(self, points: Any) -> np.ndarray:
        """The gradient (..., dim) of the loss on all training data at parameters (..., dim)."""
        return self._measured(points, None, gradient=True)[1]

    def _measured(self, points, data, gradient):
        from langevin.neural.evaluation import Evaluation

        points = np.asarray(points)
        if points.ndim == 0 or points.shape[-1] != self.dim:
            raise ParameterError(f"points of shape {points.shape}: needs (..., {self.dim}).")
        rows = torch.as_tensor(points.reshape(-1, self.dim))
        X, y = (self.X, self.y) if data is None else self.check("energy: data", data)
        found = Evaluation(self, rows.dtype).measured(rows, X, y, gradient=gradient)
        losses = found.loss.numpy().reshape(points.shape[:-1])
        return losses, found.gradient.numpy().reshape(points.shape) if gradient else None

    def __repr__(self) -> str:
        return (
            f"NeuralSurface({type(self.module).__name__}, {self.dim:,} parameters, "
            f"{self.n_examples:,} examples of shape {tuple(self.X.shape[1:])}, "
            f"loss={self.loss_name!r}, l2={self.l2:g}, batch_norm={self.batch_norm!r}"
            f"{self.noise_said})"
        )


def pair(who: str, dataset: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """A data set as two tensors of the same length, whole-number targets as int64.

    Raises ParameterError, which begins with ``who``.
    """
    try:
        X, y = dataset
        X, y = torch.as_tensor(X), torch.as_tensor(y)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ParameterError(
            f"{who}: the data must be a pair (X, y) of tensors or arrays ({error})."
        ) from None
    if X.ndim == 0 or y.ndim == 0 or len(X) != len(y) or not len(X):
        raise ParameterError(
            f"{who}: X has shape {tuple(X.shape)} and y {tuple(y.shape)}; needed: as many targets "
            "as examples, at least one."
        )
    if X.is_floating_point() and not torch.isfinite(X).all():
        raise ParameterError(f"{who}: X holds NaN or infinite numbers.")
    if not y.is_floating_point():
        return X, y.long()
    if not torch.isfinite(y).all():
        raise ParameterError(f"{who}: y holds NaN or infinite numbers.")
    return X, y

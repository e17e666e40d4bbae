"""Losses, gradients and accuracies of many copies of a network, on given examples."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from langevin.neural import stacked
from langevin.neural.memory import out_of_memory

CHUNK = 4096  # examples at once, times copies


@dataclass
class Measured:
    """The loss (copies,), correct answers (copies,) or None, and gradient (copies, dim) or None."""

    loss: torch.Tensor
    accuracy: torch.Tensor | None
    gradient: torch.Tensor | None


class Evaluation:
    """A surface's loss for rows of parameters, in one precision and on one device."""

    def __init__(self, surface: Any, kind: torch.dtype, device: Any = "cpu"):
        self.surface, self.kind, self.device = surface, kind, device
        self.module = copy.deepcopy(surface.module).to(device=device, dtype=kind)
        self.layout = surface.layout
        training = "running" if surface.batch_norm == "eval" else "batch"
        self.forward, self.how = stacked.forward_pass(self.module, training)
        self.buffers = {
            name: b.to(device=device, dtype=kind) if b.is_floating_point() else b.to(device)
            for name, b in self.module.named_buffers()
        }
        for name, parameter in self.module.named_parameters():
            if not parameter.requires_grad:  # frozen
                self.buffers[name] = parameter.detach()
        self.normalised = any(
            isinstance(m, nn.modules.batchnorm._BatchNorm) for m in self.module.modules()
        )
        self.training = training

    def stacked_buffers(self, copies: int) -> dict[str, torch.Tensor]:
        """The module's buffers, once for each copy; none where the batch's statistics are taken."""
        if self.training == "batch" and self.normalised:
            kept = {n: b for n, b in self.buffers.items() if not _statistic(n)}
        else:
            kept = self.buffers
        return {n: b.expand(copies, *b.shape) for n, b in kept.items()}

    def losses(
        self, parameters: dict, X: torch.Tensor, y: torch.Tensor, sink: Any = None, draw: Any = None
    ) -> torch.Tensor:
        """Each example's loss, (copies, examples), for X (copies, examples, ...)."""
        outputs = self.outputs(parameters, X, sink, draw)
        flat = self.surface.loss(outputs.flatten(0, 1), y.flatten(0, 1))
        return flat.view(outputs.shape[:2])

    def outputs(
        self, parameters: dict, X: torch.Tensor, sink: Any = None, draw: Any = None
    ) -> torch.Tensor:
        """(copies, examples, ...); falls back to a loop where a module cannot be vmapped.

        ``draw`` is the randomness of a step's dropout; without it nothing is dropped.
        """
        buffers = self.stacked_buffers(len(X))
        if self.how == "batched":
            return self.forward(parameters, buffers, X, sink, draw)
        if not self.how.startswith("vmap"):
            return self.forward(parameters, buffers, X, draw)
        try:
            return self.forward(parameters, buffers, X, draw)
        except Exception as error:  # a user's module: vmap's refusals have no type of their own
            if out_of_memory(error):
                raise
            self.forward = stacked.looped(self.module, self.training)
            first = (
                str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
            )
            self.how = f"a loop over replicas: {self.how.removeprefix('vmap: ')}; {first}"
            return self.forward(parameters, buffers, X, draw)

    def gradient(
        self, rows: torch.Tensor, X: torch.Tensor, y: torch.Tensor, weights: torch.Tensor,
        out: torch.Tensor, penalty: float, draw: Any = None,
    ) -> torch.Tensor:  # fmt: skip
        """Weighted losses (copies,) of mini-batches; their gradients go to ``out`` (copies, dim).

        ``weights`` (copies, examples): 1/S for the S examples of a batch, 0 for what pads it.
        ``penalty/2 |theta|^2`` is in both. ``draw`` as in `outputs`.
        """
        views = self.layout.views(rows)
        # Layers that write their own gradients need no leaves; others do.
        written = getattr(self.forward, "linear", set())
        leaves = {n: v.detach().requires_grad_() for n, v in views.items() if n not in written}
        token = torch.empty(0, dtype=self.kind, device=rows.device, requires_grad=True)
        slopes = self.layout.views(out)
        with torch.enable_grad():
            sink = (token, slopes) if written else None
            per_example = self.losses(views | leaves, X, y, sink, draw)
            losses = (per_example * weights).sum(1)
            inputs = [*leaves.values(), *([token] if written else [])]
            found = torch.autograd.grad(losses.sum(), inputs, allow_unused=True)
        for name, part in zip(leaves, found, strict=False):
            if part is None:
                slopes[name].zero_()
            else:
                slopes[name].copy_(part)
        losses = losses.detach()
        if penalty:
            out.add_(rows, alpha=penalty)
            losses = losses + 0.5 * penalty * rows.square().sum(1)
        return losses

    def measured(self, rows, X, y, own=None, *, gradient: bool = False) -> Measured:
        """Means over a whole data set, the same for all copies, a part of it at a time.

        ``own`` (copies, N): targets of each copy instead of ``y``.
        """
        rows = rows.to(device=self.device, dtype=self.kind)
        if self.normalised and self.surface.batch_norm == "recalibrate" and not gradient:
            return self.recalibrated(rows, X, y, own)
        copies, n = len(rows), len(X)
        views = self.layout.views(rows)
        whole = self.normalised and self.training == "batch"  # statistics of all at once
        size = n if whole else max(1, CHUNK // copies)
        loss, right = torch.zeros(copies, dtype=torch.float64), torch.zeros(copies)
        slope = torch.zeros_like(rows) if gradient else None
        labels = not y.is_floating_point() and y.ndim == 1
        for begin in range(0, n, size):
            part = slice(begin, min(n, begin + size))
            some, targets = self.given(X[part], y[part])
            x = some.expand(copies, *some.shape)
            t = targets.expand(copies, *targets.shape)
            t = t if own is None else own[:, part].to(self.device)
            if gradient:
                found = torch.empty_like(slope)
                weights = torch.full(t.shape[:2], 1 / n, dtype=self.kind, device=self.device)
                loss += self.gradient(rows, x, t, weights, found, 0.0).double().cpu()
                slope += found
                continue
            with torch.no_grad():
                outputs = self.outputs(views, x)
                flat = self.surface.loss(outputs.flatten(0, 1), t.flatten(0, 1))
                loss += flat.view(copies, -1).double().sum(1).cpu() / n
                if labels and outputs.ndim == 3:
                    right += (outputs.argmax(-1) == t).sum(1).cpu() / n
        if self.surface.l2:
            loss += 0.5 * self.surface.l2 * rows.double().square().sum(1).cpu()
            if gradient:
                slope += self.surface.l2 * rows
        return Measured(loss, right if labels else None, slope)

    def recalibrated(self, rows: torch.Tensor, X, y, own=None) -> Measured:
        """`measured` with the statistics of the training set, averaged over batches of it."""
        found = []
        for k, row in enumerate(rows):
            targets = y if own is None else own[k]
            found.append(self.of_module(self.recalibrated_module(row), X, targets))
        loss, right = zip(*found, strict=True)
        loss = torch.tensor(loss, dtype=torch.float64)
        if self.surface.l2:
            loss += 0.5 * self.surface.l2 * rows.double().square().sum(1).cpu()
        return Measured(loss, None if right[0] is None else torch.tensor(right), None)

    def recalibrated_module(self, row: torch.Tensor) -> nn.Module:
        """The module at parameters (dim,) whose statistics are those of the training set."""
        module = self.surface.with_parameters(row.cpu().numpy()).to(self.device, self.kind)
        parts = [m for m in module.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
        kept = [part.momentum for part in parts]
        module.eval()  # nothing is dropped
        for part in parts:
            part.reset_running_stats()
            part.momentum = None  # a plain average
            part.train()
        with torch.no_grad():
            for begin in range(0, self.surface.n_examples, CHUNK):
                some = slice(begin, begin + CHUNK)
                module(self.given(self.surface.X[some], self.surface.y[some])[0])
        for part, momentum in zip(parts, kept, strict=True):
            part.momentum = momentum
            part.eval()
        return module

    def of_module(self, module: nn.Module, X, y) -> tuple[float, float | None]:
        """Mean loss, without the penalty, and share of right answers of one module."""
        loss, right, labels = 0.0, 0, not y.is_floating_point() and y.ndim == 1
        with torch.no_grad():
            for begin in range(0, len(X), CHUNK):
                x, t = self.given(X[begin : begin + CHUNK], y[begin : begin + CHUNK])
                outputs = module(x)
                loss += float(self.surface.loss(outputs, t).double().sum())
                right += int((outputs.argmax(-1) == t).sum()) if labels else 0
        return loss / len(X), right / len(X) if labels else None

    def given(self, X: torch.Tensor, y: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Examples and targets in this precision and on this device."""
        X = X.to(device=self.device, dtype=self.kind if X.is_floating_point() else X.dtype)
        return X, self.surface.target(y, self.kind).to(self.device)


def _statistic(name: str) -> bool:
    """Whether a buffer is a running statistic of batch normalisation."""
    return name.rpartition(".")[2] in ("running_mean", "running_var", "num_batches_tracked")

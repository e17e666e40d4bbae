"""The engine for networks on a GPU: parameters, data and activations are tensors that live there.

Mini-batches, normals and masks of dropout are the core's own streams, drawn on the host and copied;
the step is the generated ``advance`` of the native engine, called on tensors. A window of steps
stays on the device; then parameters come home, where checkpoints and observers find them.
"""

from __future__ import annotations

import math
import types
from typing import Any

import numpy as np
import torch

from langevin.engines import compiling, source
from langevin.engines.torch import Engine, clipped
from langevin.neural.dropout import Draw

HELD = 200_000_000  # parameters of replicas that a GPU trains together


class TensorEngine(Engine):
    """One training on a torch device, which mirrors `Engine` name for name."""

    side_by_side = native = False

    def __init__(self, *arguments: Any, device: str):
        self.place = torch.device(device)
        super().__init__(*arguments)
        self.advances = [_on_tensors(self.dtype, text) for text in self.update.texts]

    def _chunks(self) -> list[np.ndarray]:
        """Replicas of one batch size, as many as the device may hold."""
        most, found = max(1, HELD // self.surface.dim), []
        for size in np.unique(self.sizes):
            same = np.flatnonzero(self.sizes == size)
            found += np.array_split(same, -(-len(same) // most))
        return found

    def there(self, array: np.ndarray) -> torch.Tensor:
        """A copy of an array of the host on the device."""
        return torch.tensor(array, device=self.place)

    def home(self, tensor: torch.Tensor) -> np.ndarray:
        """A tensor of the device on the host."""
        return tensor.cpu().numpy()

    def _chunk(self, number: int, state: Any, chunk, begin: int, end: int, window) -> None:
        rows = [self.there(row[chunk]) for row in state.positions]
        out, draw, trace = torch.empty_like(rows[0]), self._draw(chunk), []
        base = self.coefficients
        base = base[:, chunk] if base.shape[1] > 1 else base
        limits = None if self.clip is None else self.clip[chunk].to(self.place)

        def slope(step: int, batch: int) -> torch.Tensor:
            now = None if window is None else window[:, [step - begin]]
            X, y, share = self._batch(draw, chunk, batch, now) if draw else self._all(chunk)
            noise = Draw(self.dtype, self.ids[chunk], batch, self.key)
            given = (rows[0], X, y, share, out, self.surface.l2, noise)
            losses = self.evaluation.gradient(*given)
            if limits is not None:
                clipped(out, limits)
            return losses

        if self.update.carries:
            slope(begin, begin * sum(self.update.before))
        for step in range(begin, end):
            now = self._now(base, step, None if window is None else window[:, [step - begin]])
            coefficients = self.there(now).unsqueeze(2)
            noises = [self.there(each) for each in self._noises(number, chunk, step)]
            for part, before in enumerate(self.update.before):
                if before:
                    losses = slope(step, self.update.batch(step, part))
                count = self.update.parts[part][1]
                drawn, noises = noises[:count], noises[count:]
                rows = list(self.advances[part](*rows, out, *drawn, *coefficients))
            trace.append(losses)
        for all_rows, mine in zip(state.positions, rows, strict=True):
            all_rows[chunk] = self.home(mine)
        self._settle(state, chunk, self.home(torch.stack(trace)).astype(float), begin)


def _on_tensors(dtype: str, text: str):
    """``advance`` of a generated module as plain Python, whose arithmetic takes tensors."""

    def tensors(module: types.ModuleType, entry: str) -> None:
        module.real = lambda value: value
        module.math = types.SimpleNamespace(**vars(math) | {"sqrt": torch.sqrt})

    return compiling.load(source.module_source(dtype, text), "advance", tensors)

"""Multilayer perceptrons, trained by one compiled loop over steps, layers and examples.

Whatever torch does not see costs nothing: no graph, no gathered mini-batch beside the cache, no
padding to the largest of the ensemble's mini-batches. Each replica takes a window of steps on one
thread, so replicas and their settings never wait for one another.
"""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from langevin.engines import compiling, source
from langevin.engines.perceptron_text import (
    BLOCK,
    IDENTITY,
    LOSSES,
    RECTIFIED,
    ROWS,
    SIGMOID,
    TANH,
    perceptron_source,
)
from langevin.engines.streams import Update

FUNCTIONS = {
    F.relu: RECTIFIED, torch.relu: RECTIFIED, "relu": RECTIFIED, nn.ReLU: RECTIFIED,
    F.tanh: TANH, torch.tanh: TANH, "tanh": TANH, nn.Tanh: TANH,
    F.sigmoid: SIGMOID, torch.sigmoid: SIGMOID, "sigmoid": SIGMOID, nn.Sigmoid: SIGMOID,
}  # fmt: skip
FLAT = {torch.flatten, "flatten", "view", "reshape", nn.Flatten}


def layers_of(surface: Any, forward: Any) -> tuple[np.ndarray, list[float]] | None:
    """The table of layers and the slopes below 0, if ``forward`` (Batched) is such a network."""
    places = dict(zip(surface.layout.names, surface.layout.places, strict=True))
    table, slopes, covered, flat = [], [], 0, surface.X.ndim == 2
    previous = None
    for node in forward.graph.nodes:
        inputs = node.all_input_nodes
        if node.op == "placeholder":
            previous = node
            continue
        if forward.is_aside(node):
            continue
        if not inputs or inputs[0] is not previous:
            return None  # not a chain
        previous = node
        if node.op == "output":
            break
        part = forward.modules[node.target] if node.op == "call_module" else None
        key = type(part) if part is not None else node.target
        off = key is nn.Dropout and (part.p == 0 or not part.training)
        if key is nn.Identity or off:
            continue
        if key in FLAT:
            flat = True
        elif key is nn.Linear and flat:
            name = node.target[2:] + "." if len(node.target) > 1 else ""
            if not all(f"{name}{own}" in places for own, _ in part.named_parameters()):
                return None  # frozen
            weight, bias = places[f"{name}weight"], places.get(f"{name}bias", (-1, -1))
            table.append([weight[0], bias[0], part.in_features, part.out_features, IDENTITY])
            slopes.append(0.0)
            covered += weight[1] - weight[0] + bias[1] - bias[0]
        elif (key in FUNCTIONS or key is nn.LeakyReLU) and table and table[-1][4] == IDENTITY:
            table[-1][4] = FUNCTIONS.get(key, RECTIFIED)
            slopes[-1] = part.negative_slope if key is nn.LeakyReLU else 0.0
        else:
            return None
    last = table[-1] if table else None
    if covered != surface.dim or last is None or min(slopes) < 0:
        return None
    return np.array(table, np.int64), slopes


def trains(surface: Any, evaluation: Any) -> tuple[np.ndarray, list[float]] | None:
    """The layers, if this engine can train the surface's module with its data and loss."""
    if evaluation.how != "batched" or not isinstance(surface.loss_name, str):
        return None
    from langevin.neural.surface import LOSSES as KNOWN

    name, X, y = surface.loss_name, surface.X, surface.y
    if name not in LOSSES or surface.loss is not KNOWN[name] or not X.is_floating_point():
        return None
    found = layers_of(surface, evaluation.forward)
    if found is None or X.flatten(1).shape[1] != found[0][0, 2]:
        return None
    labels = name == "cross_entropy"
    if labels != (not y.is_floating_point() and y.ndim == 1):
        return None
    if not labels and y[:1].numel() != found[0][-1, 3]:
        return None
    return found


class Perceptron:
    """One surface's network: its steps, or its gradients where a step needs more than those."""

    def __init__(
        self, found: tuple[np.ndarray, list[float]], surface: Any, update: Update, dtype: str
    ):
        self.layers, slopes = found
        self.kind = np.dtype(dtype)
        self.slopes = np.array(slopes, self.kind)
        self.X = np.ascontiguousarray(surface.X.flatten(1).numpy(), self.kind)
        self.y = surface.y.numpy()
        if self.y.dtype.kind == "f":
            self.y = np.ascontiguousarray(self.y.reshape(len(self.y), -1), self.kind)
        self.y = self.y.astype(np.int64) if self.y.dtype.kind == "i" else self.y
        labels = surface.labels
        self.tables = None if labels is None else (labels.table.numpy(), labels.which)
        self.dim, self.penalty = surface.dim, self.kind.type(surface.l2)
        name = surface.loss_name
        self.slope = compiling.load(perceptron_source(dtype, name, None))
        self.fused = None
        if update.before == [True]:  # one part, which begins with the gradient
            advance = source.step_source(update.step)
            self.fused = compiling.load(perceptron_source(dtype, name, update.step, advance))
        self.own = threading.local()
        widths = [int(self.layers[0, 2]), *(int(w) for w in self.layers[:, 3])]
        widest = -(-max(widths) // ROWS) * ROWS
        self.size = BLOCK * (sum(widths) + 2 * widest) + ROWS * widest

    def _scratch(self, examples: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """This thread's memory: layers, indices, and a gradient if it takes several blocks."""
        own = self.own
        if not hasattr(own, "layers"):
            own.layers, own.index = np.zeros(self.size, self.kind), np.empty(0, np.int64)
            own.gradient = np.empty(0, self.kind)
        if len(own.index) < examples:
            own.index = np.empty(examples, np.int64)
        if examples > BLOCK and not own.gradient.size:
            own.gradient = np.empty(self.dim, self.kind)
        return own.layers, own.index, own.gradient

    def train(self, rows, places, table, noises, replica, step, drawn) -> np.ndarray:
        """Moves a replica's ``rows`` (dim,) by ``len(places)`` steps; the mini-batches' losses.

        ``places`` (steps, 3) are sizes, epochs and offsets of mini-batches, ``table`` (steps,
        coefficients); ``replica`` its place in the run and its number; ``drawn`` an `Indices`, or
        None for all examples.
        """
        layers, index, gradient = self._scratch(int(places[:, 0].max()))
        memory = gradient, layers, index
        return self._run(self.fused, (*rows, *noises), memory, places, table, replica, step, drawn)

    def gradient(self, row, out, places, replica, step, drawn) -> float:
        """The loss of one mini-batch; its gradient goes to ``out`` (dim,)."""
        layers, index, _ = self._scratch(int(places[0, 0]))
        table = np.empty((1, 0), self.kind)
        memory = out, layers, index
        return float(self._run(self.slope, (row,), memory, places, table, replica, step, drawn)[0])

    def _run(self, kernel, rows, memory, places, table, replica, step, drawn) -> np.ndarray:
        gradient, scratch, index = memory
        place, ident = replica
        y = self.y if self.tables is None else self.tables[0][self.tables[1][place]]
        trace = np.empty(len(places))
        numbers = ALL if drawn is None else drawn.numbers
        kernel(
            *rows, gradient, self.X, y, self.layers, self.slopes, scratch, index, trace,
            places, table, self.penalty, np.uint64(ident), np.int64(step), *numbers,
        )  # fmt: skip
        return trace


ALL = (*(np.int64(v) for v in (1, 1, 1, 0, -1)), np.uint64(0), np.uint64(0))  # no drawing

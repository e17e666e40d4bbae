"""What is measured of a network while it trains."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from langevin.checks import whole_number
from langevin.errors import ParameterError


@dataclass(frozen=True, eq=False)
class Loss:
    """The loss, its penalty included, on the training data or another data set (X, y)."""

    data: Any = None
    every: int | None = None
    name: str = "loss"

    def measure(self, view: View) -> np.ndarray:
        """(copies,)."""
        return view.of(self.data).loss.numpy()


@dataclass(frozen=True, eq=False)
class Accuracy:
    """The share of right answers on the training data or another data set (X, y)."""

    data: Any = None
    every: int | None = None
    name: str = "accuracy"

    def measure(self, view: View) -> np.ndarray:
        """(copies,). Raises ParameterError where the targets are not labels."""
        found = view.of(self.data).accuracy
        if found is None:
            raise ParameterError(f"{self.name}: needs labels, whole numbers of shape (N,).")
        return found.double().numpy()


@dataclass(frozen=True, eq=False)
class BatchLoss:
    """Mean and variance of the mini-batches' losses since the last record: (copies, 2).

    The variance from iteration to iteration is what tells a small batch from a small learning rate
    of the same noise scale.
    """

    every: int | None = None
    name: str = "batch_loss"

    def measure(self, view: View) -> np.ndarray:
        """(copies, 2)."""
        sums = view.batch_sums
        mean = sums[1] / np.maximum(sums[0], 1)
        variance = np.maximum(sums[2] / np.maximum(sums[0], 1) - mean**2, 0.0)
        return np.stack([mean, variance * sums[0] / np.maximum(sums[0] - 1, 1)], axis=1)


@dataclass(frozen=True, eq=False)
class GradientNorm:
    """The Euclidean norm of the gradient of the loss on all training data."""

    every: int | None = None
    name: str = "gradient_norm"

    def measure(self, view: View) -> np.ndarray:
        """(copies,)."""
        return view.gradient().double().norm(dim=1).numpy()


@dataclass(frozen=True, eq=False)
class WeightNorm:
    """The Euclidean norm of all parameters."""

    every: int | None = None
    name: str = "weight_norm"

    def measure(self, view: View) -> np.ndarray:
        """(copies,)."""
        return view.rows.double().norm(dim=1).cpu().numpy()


@dataclass(frozen=True, eq=False)
class Distance:
    """The Euclidean distance from where a replica began."""

    every: int | None = None
    name: str = "distance"

    def measure(self, view: View) -> np.ndarray:
        """(copies,)."""
        return (view.rows - view.began).double().norm(dim=1).cpu().numpy()


@dataclass(frozen=True, eq=False)
class WeightAverage:
    """The average of a replica's weights every so many steps after burn_in (SWA).

    Izmailov et al. (2018): average what a constant or cyclical learning rate visits; with cycles,
    ``every`` is their length. ``result["weight_average"]`` is an Averaged. Batch normalisation's
    statistics do not belong to an average: measure it on a surface whose policy is "recalibrate",
    or take `recalibrated`.
    """

    every: int | None = None
    name: str = "weight_average"

    def measure(self, view: View) -> np.ndarray:
        """(copies, dim)."""
        return view.rows.double().cpu().numpy()


@dataclass(frozen=True, eq=False)
class AtLoss:
    """A replica's weights when its training loss first lies at or below each of ``levels``.

    For comparisons at equal loss, which other batch sizes, learning rates and seeds reach after
    other numbers of steps. Looked at every so many steps after burn_in, as `Loss` measures it, on
    all training data. ``result["at_loss"]`` is a Reached, with the losses that were found.
    ``stop`` ends the training once all replicas have reached the lowest level or have diverged.
    """

    levels: Any
    stop: bool = False
    every: int | None = None
    name: str = "at_loss"


@dataclass(frozen=True, eq=False)
class HessianNorm:
    """The Frobenius norm of the Hessian on all training data; see `hessian_norm`."""

    probes: int | None = None
    product: str = "exact"
    scale: str | None = None
    seed: int = 0
    every: int | None = None
    name: str = "hessian_norm"

    def measure(self, view: View) -> np.ndarray:
        """(copies,)."""
        from langevin.neural.curvature import hessian_norm

        options = {"probes": self.probes, "product": self.product, "scale": self.scale}
        options["seed"] = self.seed
        surface = view.evaluation.surface
        rows = view.rows.cpu().numpy()
        return np.array([hessian_norm(surface, row, **options).value for row in rows])


@dataclass(frozen=True, eq=False)
class Record:
    """Any number or array ``function(module, parameters, buffers)`` of one replica at a time.

    ``parameters`` and ``buffers`` are dictionaries of tensors for torch.func.functional_call.
    """

    function: Callable
    every: int | None = None
    name: str = "record"

    def measure(self, view: View) -> np.ndarray:
        """(copies, ...)."""
        found, evaluation = [], view.evaluation
        views = evaluation.layout.views(view.rows.to(evaluation.device))
        for k in range(len(view.rows)):
            parameters = {n: p[k] for n, p in views.items()}
            value = self.function(evaluation.module, parameters, evaluation.buffers)
            value = value.detach().cpu().numpy() if isinstance(value, torch.Tensor) else value
            found.append(np.asarray(value, dtype=float))
        return np.stack(found)


@dataclass(frozen=True, eq=False)
class FluctuationDissipation:
    """Both sides of Yaida's relations at a step, (copies, 4); see `stationarity`.

    ``(theta - c).grad L``, ``|buf|^2``, ``|grad L|^2`` and ``buf' H buf``, with c where the replica
    began and buf the momentum buffer; without momentum, the gradient of a fresh mini-batch.
    ``dynamics`` is the SGD that trains. ``hessian=False`` leaves out the last (NaN).
    """

    dynamics: Any
    hessian: bool = True
    every: int | None = None
    name: str = "fluctuation_dissipation"

    def measure(self, view: View) -> np.ndarray:
        """(copies, 4)."""
        from langevin.neural.fluctuations import both_sides

        return both_sides(view, self.dynamics, self.hessian)


OBSERVERS = (
    Loss,
    Accuracy,
    BatchLoss,
    GradientNorm,
    WeightNorm,
    Distance,
    WeightAverage,
    AtLoss,
    HessianNorm,
    FluctuationDissipation,
    Record,
)


def fitting(surface: Any, observers: tuple) -> tuple:
    """The observers with their data as tensors, the same ones for the same data.

    Raises ParameterError for data that the surface's module or loss cannot take.
    """
    known, found = {}, []
    for observer in observers:
        data = getattr(observer, "data", None) if isinstance(observer, OBSERVERS) else None
        if data is not None:
            if id(data) not in known:
                known[id(data)] = surface.check(f"{observer.name}: data", data)
            observer = replace(observer, data=known[id(data)])
        found.append(observer)
    return tuple(found)


class View:
    """Some replicas at one step, as observers see them; what two of them need is computed once."""

    def __init__(
        self,
        evaluation: Any,
        rows: torch.Tensor,
        began: torch.Tensor,
        batch_sums: Any,
        places: np.ndarray,
        velocities: torch.Tensor | None = None,
        step: int = 0,
        ids: Any = None,
    ):
        self.evaluation, self.rows, self.began = evaluation, rows, began
        self.velocities, self.step, self.ids = velocities, step, ids
        self.batch_sums, self.labels = batch_sums, None
        if evaluation.surface.labels is not None:
            self.labels = evaluation.surface.labels.of(places)
        self.known: dict[int, Any] = {}

    def of(self, data: Any) -> Any:
        """The Measured of the training data, or of another data set."""
        key = 0 if data is None else id(data)
        if key not in self.known:
            surface = self.evaluation.surface
            X, y = (surface.X, surface.y) if data is None else data
            own = self.labels if data is None else None
            self.known[key] = self.evaluation.measured(self.rows, X, y, own)
        return self.known[key]

    def gradient(self) -> torch.Tensor:
        """Of the loss on all training data, (copies, dim)."""
        surface = self.evaluation.surface
        data = (surface.X, surface.y, self.labels)
        found = self.evaluation.measured(self.rows, *data, gradient=True)
        return found.gradient.cpu()


class Bound:
    """An observer with what it recorded: ``values[record]`` (replicas, ...) at ``steps``."""

    def __init__(self, observer: Any, n_replicas: int, n_steps: int, burn_in: int):
        if not isinstance(observer, OBSERVERS):
            raise ParameterError(
                f"observe={observer!r}: networks take "
                f"{', '.join(f'neural.{o.__name__}' for o in OBSERVERS)}."
            )
        self.observer, self.name = observer, observer.name
        given = observer.every
        every = max(1, (n_steps - burn_in) // 20) if given is None else given
        self.every = whole_number(f"{self.name}: every", every, 1, 2**62)
        due = np.arange(self.every, n_steps + 1, self.every)
        self.averages = isinstance(observer, WeightAverage)
        due = due[due > burn_in]
        # the last step always, but no average takes a step that is not its turn
        self.due = due if self.averages else np.unique(np.append(due, n_steps))
        if self.averages and not due.size:
            raise ParameterError(
                f"{self.name}: every={self.every} leaves nothing to average in "
                f"{n_steps - burn_in} steps after burn_in."
            )
        self.n_replicas = n_replicas
        self.store = np.empty(0)  # (records, n_replicas, ...) once something was measured

    def record(self, step: int, places: np.ndarray, view: View) -> None:
        """Measures the replicas of a chunk, whose numbers are ``places``."""
        found = np.asarray(self.observer.measure(view), dtype=float)
        if self.averages:
            if not self.store.size:
                self.store = np.zeros((self.n_replicas, found.shape[1]))
            count = np.searchsorted(self.due, step) + 1
            self.store[places] += (found - self.store[places]) / count
            return
        if not self.store.size:
            self.store = np.full((len(self.due), self.n_replicas, *found.shape[1:]), np.nan)
        self.store[np.searchsorted(self.due, step), places] = found

    def arguments(self) -> tuple:
        """What a checkpoint compares: when it looks, and at which data."""
        data = getattr(self.observer, "data", None)
        given = () if data is None else tuple(torch.as_tensor(part).numpy() for part in data)
        return (self.due, *given)

    def estimate(self, done: int) -> Series | Averaged:
        """What was recorded up to a step."""
        n = int(np.searchsorted(self.due, done, side="right"))
        if self.averages:
            return Averaged(self.name, self.due[:n], self.store.copy())
        values = self.store[:n] if self.store.size else np.empty((0, self.n_replicas))
        return Series(self.name, self.due[:n], np.moveaxis(values, 0, 1).copy())


@dataclass(frozen=True)
class Averaged:
    """Weights (n_replicas, dim) averaged over ``steps``, in ``positions``."""

    name: str
    steps: np.ndarray
    positions: np.ndarray

    @property
    def values(self) -> np.ndarray:
        """(n_replicas, 1, dim), as a Series of one record."""
        return self.positions[:, None]


@dataclass(frozen=True)
class Series:
    """What an observer recorded: ``values`` (n_replicas, records, ...) after ``steps``."""

    name: str
    steps: np.ndarray
    values: np.ndarray

    @property
    def final(self) -> np.ndarray:
        """The last record, (n_replicas, ...)."""
        return self.values[:, -1]

    def mean(self) -> tuple[np.ndarray, np.ndarray]:
        """Mean over replicas and its standard error, (records, ...) each; NaN with one replica."""
        n = len(self.values)
        spread = (
            self.values.std(axis=0, ddof=1) if n > 1 else np.full(self.values.shape[1:], np.nan)
        )
        return self.values.mean(axis=0), spread / np.sqrt(n)

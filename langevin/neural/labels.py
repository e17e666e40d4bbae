"""Label noise that differs between replicas: a grid of shares, or of noises, in one run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from langevin.checks import real_array, whole_number
from langevin.errors import ParameterError
from langevin.neural.dataset import Dataset, corrupt_labels

WHO = "NeuralSurface"


@dataclass(frozen=True, eq=False)
class Labels:
    """``table`` (k, N): the different targets; ``which`` (n_replicas,): each replica's row."""

    table: torch.Tensor
    which: np.ndarray

    def of(self, places: np.ndarray) -> torch.Tensor:
        """Targets (copies, N) of the replicas at ``places`` of a run."""
        return self.table[torch.from_numpy(self.which[places])]

    def at(self, places: np.ndarray, index: torch.Tensor) -> torch.Tensor:
        """Targets (copies, S) of the examples ``index`` (copies, S)."""
        return self.table[torch.from_numpy(self.which[places])[:, None], index]


def noisy(dataset: Any, y: torch.Tensor, share: Any, seed: Any, noisy_label: str) -> Labels:
    """The labels of `corrupt_labels`, once for each different pair of a share and a seed.

    Of a `Dataset` its own seed, classes and places in the file count, so that they are those of the
    same data set made with ``label_noise=share``; of a pair (X, y) the classes are those up to the
    largest label. Raises ParameterError.
    """
    known = dataset if isinstance(dataset, Dataset) else None
    if y.ndim != 1 or y.is_floating_point():
        raise ParameterError(
            f"{WHO}(label_noise=...): needs labels, whole numbers (N,); given: y of shape "
            f"{tuple(y.shape)} and type {y.dtype}."
        )
    if known is not None and known.choices.get("label_noise"):
        raise ParameterError(
            f"{WHO}(label_noise=...): the data already have label_noise="
            f"{known.choices['label_noise']!r}. Make them without."
        )
    given = "needs a share from 0 to 1, or one per replica"
    shares = real_array(f"{WHO}: label_noise", share, given)
    default = 0 if known is None else known.choices.get("seed", 0)
    seeds = np.asarray(default if seed is None else seed)
    if max(shares.ndim, seeds.ndim) > 1 or not shares.size or not seeds.size:
        raise ParameterError(f"{WHO}(label_noise=..., label_seed=...): {given}, and seeds alike.")
    try:
        pairs = list(np.broadcast(shares.astype(object), seeds.astype(object)))
    except ValueError:
        raise ParameterError(
            f"{WHO}: {shares.size} shares of label_noise and {seeds.size} of label_seed; give as "
            "many, or one of either."
        ) from None
    pairs = [(float(s), whole_number("label_seed", k, 0, 2**64 - 1)) for s, k in pairs]
    n_classes = int(y.max()) + 1 if known is None else len(known.classes)
    indices = None if known is None else known.indices
    different = sorted(set(pairs))
    options = {"n_classes": max(n_classes, 2), "noisy_label": noisy_label, "indices": indices}
    table = [corrupt_labels(y, s, seed=k, **options)[0] for s, k in different]
    which = np.array([different.index(pair) for pair in pairs])
    return Labels(torch.stack(table), which if max(shares.ndim, seeds.ndim) else which[:0])

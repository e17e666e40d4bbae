"""A data set in memory, and the choices that make it: subset, classes, label noise, scale.

Every random choice is a word of Philox4x32-10: the seed is the key, the example's place in the file
the counter. So n=1000 are the first 1,000 of n=2000 with the same seed, ``skip=1000`` gives others,
and an example whose label is noise at a share of 25 % keeps that label at 50 %.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch

from langevin.checks import one_of, real_number, whole_number
from langevin.errors import IncompleteDataWarning, ParameterError
from langevin.kernels.philox import philox
from langevin.kernels.purposes import Purpose


@dataclass(frozen=True, eq=False)
class Dataset:
    """Images and labels on one device; ``X, y = dataset`` unpacks it.

    ``X`` (n, channels, height, width) float32, ``y`` (n,) int64 from 0 to ``len(classes) - 1``.
    ``clean_labels`` (n,) are the labels before noise, ``corrupted`` (n,) bool says which were
    replaced (by "any" label, one in ``len(classes)`` stays what it was), ``indices`` (n,) are the
    places in the files' order. ``choices`` and ``files`` say how it came about; ``description``
    puts them in one line.
    """

    X: torch.Tensor
    y: torch.Tensor
    clean_labels: torch.Tensor
    corrupted: torch.Tensor
    indices: torch.Tensor
    name: str
    classes: tuple[str, ...]
    choices: dict[str, Any] = field(default_factory=dict)
    files: tuple[str, ...] = ()

    def __iter__(self) -> Iterator[torch.Tensor]:
        yield self.X
        yield self.y

    def __repr__(self) -> str:
        return f"<{self.description}; X {tuple(self.X.shape)} {self.X.dtype} on {self.X.device}>"

    @property
    def n_examples(self) -> int:
        """How many examples it holds."""
        return len(self.y)

    @property
    def description(self) -> str:
        """Name and choices, for a record or a caption."""
        usual = {"train": True, "n": None, "skip": 0, "balanced": False, "label_noise": 0}
        usual |= {"normalise": None, "batches": None, "classes": None}
        said = [
            f"{name}={value!r}"
            for name, value in self.choices.items()
            if name == "train" or name not in usual or value != usual[name]
        ]
        return f"{self.name}: {self.n_examples:,} examples, {', '.join(said)}"

    def to(self, device: Any = None, dtype: torch.dtype | None = None) -> Dataset:
        """The same data on another device, X in another floating-point type."""
        names = ("y", "clean_labels", "corrupted", "indices")
        moved = {name: getattr(self, name).to(device=device) for name in names}
        return replace(self, X=self.X.to(device=device, dtype=dtype), **moved)


def corrupt_labels(
    labels: torch.Tensor,
    share: float,
    *,
    n_classes: int,
    seed: int = 0,
    noisy_label: str = "any",
    indices: torch.Tensor | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Labels (n,) of which a share is random, and which those are (n,), bool.

    Exactly ``floor(share n + 1/2)`` labels are replaced, by one uniform over ``n_classes`` classes
    (``noisy_label="any"``) or over the wrong ones ("other"). The random label of an example, and
    its rank among those to be replaced, depend on seed and ``indices`` alone (the examples'
    numbers, 0..n-1 without), so a larger share contains a smaller one. Raises ParameterError.
    """
    one_of("noisy_label", noisy_label, ("any", "other"))
    seed = whole_number("seed", seed, 0, 2**64 - 1)
    n_classes = whole_number("n_classes", n_classes, 2, 2**31)
    if not (real_number(share) and 0 <= share <= 1):
        raise ParameterError(f"label_noise={share!r}: needed: a share from 0 to 1.")
    old = labels.cpu().numpy()
    if old.ndim != 1 or old.dtype.kind not in "iu" or (old.size and not _within(old, n_classes)):
        raise ParameterError(f"labels: needed: whole numbers (n,) from 0 to {n_classes - 1}.")
    places = np.arange(len(old)) if indices is None else indices.cpu().numpy()
    order = np.argsort(words(Purpose.NOISY, seed, places), kind="stable")
    mask = np.zeros(len(old), bool)
    mask[order[: int(share * len(old) + 0.5)]] = True
    word = words(Purpose.LABEL, seed, places) >> np.uint64(32)
    choices = n_classes if noisy_label == "any" else n_classes - 1
    drawn = ((word * np.uint64(choices)) >> np.uint64(32)).astype(np.int64)
    if noisy_label == "other":
        drawn = (old + 1 + drawn) % n_classes
    new = torch.from_numpy(np.where(mask, drawn, old).astype(np.int64))
    return new.to(labels.device), torch.from_numpy(mask).to(labels.device)


def make(
    name: str,
    names: tuple[str, ...],
    images: np.ndarray,
    labels: np.ndarray,
    scale: tuple,
    said: tuple[str, ...],
    whole: int | None = None,
    **choices,
) -> Dataset:
    """The subset, the labels and the scale that were asked for."""
    if whole is not None and len(labels) != whole:
        name = f"{name} (only {len(labels):,} of {whole:,})"
        warnings.warn(f"{name}, from {', '.join(said)}.", IncompleteDataWarning, stacklevel=4)
    seed = choices["seed"] = whole_number("seed", choices["seed"], 0, 2**64 - 1)
    kept = _classes(choices["classes"], len(names))
    choices["classes"] = None if choices["classes"] is None else kept
    share, normalise = choices["label_noise"], choices["normalise"]
    if normalise is not None:
        one_of("normalise", normalise, ("unit_norm", "standardise"))
    renamed = np.full(len(names), -1)
    renamed[list(kept)] = np.arange(len(kept))
    relabelled = renamed[labels]
    indices = _subset(name, relabelled, len(kept), choices)
    X = images[indices]
    X = X.astype(np.float32) / np.float32(255) if X.dtype == np.uint8 else X
    X = _scaled(torch.from_numpy(X), normalise, scale)
    clean, places = torch.from_numpy(relabelled[indices]), torch.from_numpy(indices)
    y, mask = corrupt_labels(
        clean, share, n_classes=len(kept), seed=seed, noisy_label=choices["noisy_label"],
        indices=places,
    )  # fmt: skip
    if not share:
        del choices["noisy_label"]
    return Dataset(X, y, clean, mask, places, name, tuple(names[k] for k in kept), choices, said)


def _classes(classes: Sequence[int] | None, n_names: int) -> tuple[int, ...]:
    if classes is None:
        return tuple(range(n_names))
    kept = tuple(whole_number("classes", k, 0, n_names - 1) for k in np.atleast_1d(classes))
    if len(kept) < 2 or len(set(kept)) < len(kept):
        raise ParameterError(f"classes={classes!r}: needed: at least two different classes.")
    return kept


def _subset(name: str, labels: np.ndarray, n_classes: int, choices: dict) -> np.ndarray:
    """The places of the examples wanted; label -1 marks a class that is not."""
    n, skip, balanced = choices["n"], choices["skip"], choices["balanced"]
    pool = np.flatnonzero(labels >= 0)
    skip = whole_number("skip", skip, 0, len(pool))
    if n is None and not skip and not balanced:
        return pool
    order = pool[np.argsort(words(Purpose.SUBSET, choices["seed"], pool), kind="stable")]
    groups = [order[labels[order] == k] for k in range(n_classes)] if balanced else [order]
    least, k = min(len(group) for group in groups), len(groups)
    n = choices["n"] = least * k - skip if n is None else whole_number("n", n, 1, 2**62)
    if n % k or skip % k:
        raise ParameterError(f"n={n}, skip={skip}: balanced needs multiples of the {k} classes.")
    if n < 1 or (skip + n) // k > least:
        raise ParameterError(
            f"{name}: n={n:,} examples after skip={skip:,} were asked for; there are {len(pool):,}"
            + (f", {least:,} in the smallest of {k} classes." if balanced else ".")
        )
    chosen = [group[skip // k : (skip + n) // k] for group in groups]
    return np.stack(chosen, axis=1).ravel() if balanced else chosen[0]


def _scaled(X: torch.Tensor, normalise: str | None, scale: tuple) -> torch.Tensor:
    if normalise == "unit_norm":
        norms = X.flatten(1).norm(dim=1).clamp_min(torch.finfo(X.dtype).tiny)  # a black image: 0
        return X / norms.view(-1, 1, 1, 1)
    if normalise == "standardise":
        mean, deviation = (torch.tensor(s, dtype=X.dtype).view(-1, 1, 1) for s in scale)
        return (X - mean) / deviation
    return X


def _within(labels: np.ndarray, n_classes: int) -> bool:
    return bool(labels.min() >= 0 and labels.max() < n_classes)


def words(purpose: Purpose, seed: int, index: np.ndarray) -> np.ndarray:
    """A random 64-bit word for each index."""
    zero = np.zeros(len(index), np.uint64)
    key = np.uint64(seed & 0xFFFFFFFF), np.uint64(seed >> 32)
    high, low, *_ = philox(index.astype(np.uint64), zero, zero, zero + np.uint64(purpose), *key)
    return (high << np.uint64(32)) | low

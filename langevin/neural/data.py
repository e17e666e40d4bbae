"""Data sets of images for classification: digits, MNIST, Fashion-MNIST, CIFAR-10.

    X, y = lv.neural.data.mnist(train=True, n=1000, seed=0)

X is float32 in [0, 1] with shape (n, channels, height, width), y is int64 with shape (n,). What is
returned is a `Dataset`, which unpacks into this pair and records every choice. Files are looked
for in ``folder``, in the folder that the environment variable LANGEVIN_DATA names, and in the cache
that ``download=True`` fills; `digits` needs none.

Every random choice is a word of Philox4x32-10: the seed is the key, the example's place in the file
the counter. So n=1000 are the first 1,000 of n=2000 with the same seed, ``skip=1000`` gives others,
and an example whose label is noise at a share of 25 % keeps that label at 50 %.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

import numpy as np

from langevin.checks import whole_number
from langevin.errors import ParameterError, UnavailableError
from langevin.kernels.purposes import Purpose
from langevin.neural import files
from langevin.neural.dataset import Dataset, corrupt_labels, make, words
from langevin.neural.files import Source

__all__ = ["Dataset", "cifar10", "corrupt_labels", "digits", "fashion_mnist", "mnist"]

FASHION = (
    "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat",
    "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot",
)  # fmt: skip
CIFAR = (
    "airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck",
)  # fmt: skip
NUMERALS = tuple("0123456789")

# Mean and standard deviation of the channels of the whole training split, pixels in [0, 1].
SCALES = {
    "MNIST": ((0.130660,), (0.308108,)),
    "Fashion-MNIST": ((0.286041,), (0.353024,)),
    "CIFAR-10": ((0.491400, 0.482158, 0.446531), (0.247032, 0.243485, 0.261588)),
}
DIGITS_TRAIN, DIGITS_KEY = 1_437, 0xD161  # of the 1,797; the key of the split


def digits(
    train: bool = True,
    n: int | None = None,
    seed: int = 0,
    *,
    skip: int = 0,
    balanced: bool = False,
    classes: Sequence[int] | None = None,
    label_noise: float = 0.0,
    noisy_label: str = "any",
    normalise: str | None = None,
) -> Dataset:
    """Handwritten digits that come with scikit-learn: X (n, 1, 8, 8), 1,437 to train, 360 to test.

    No files are needed. The 1,797 images are split once and for all at random, whatever the seed;
    pixels 0..16 become [0, 1]. The other options are those of `mnist`. Source: Alpaydin and Kaynak
    (1998), UCI machine learning repository, optdigits, its test part. Raises UnavailableError
    without scikit-learn, and ParameterError.
    """
    try:
        from sklearn.datasets import load_digits
    except ImportError:
        raise UnavailableError(
            "digits needs the package scikit-learn: pip install 'langevin[neural]'."
        ) from None
    images, labels = load_digits(return_X_y=True)
    images = (images / 16).astype(np.float32).reshape(-1, 1, 8, 8)
    order = np.argsort(words(Purpose.SUBSET, DIGITS_KEY, np.arange(len(labels))), kind="stable")
    first, rest = np.sort(order[:DIGITS_TRAIN]), np.sort(order[DIGITS_TRAIN:])
    scale = ((images[first].mean(dtype=float),), (images[first].std(dtype=float),))
    part = first if _split(train) else rest
    return make(
        "digits", NUMERALS, images[part], labels[part], scale, (),
        train=train, n=n, seed=seed, skip=skip, balanced=balanced, classes=classes,
        label_noise=label_noise, noisy_label=noisy_label, normalise=normalise,
    )  # fmt: skip


def mnist(
    train: bool = True,
    n: int | None = None,
    seed: int = 0,
    *,
    skip: int = 0,
    balanced: bool = False,
    classes: Sequence[int] | None = None,
    label_noise: float = 0.0,
    noisy_label: str = "any",
    normalise: str | None = None,
    folder: str | os.PathLike | None = None,
    download: bool = False,
) -> Dataset:
    """MNIST: X (n, 1, 28, 28), 60,000 to train, 10,000 to test.

    ``n`` examples at random, keyed by ``seed``, after ``skip`` others (so that subsets with the
    same seed are disjoint); without ``n``, all of them in the files' order. ``balanced``: equally
    many of each class. ``classes=(3, 5)`` keeps these alone, labelled 0 and 1 in this order.

    ``label_noise``: the share of labels, to the nearest example, that are replaced by a label
    uniform over all classes kept, the true one included (``noisy_label="any"``, "replaced with
    random labels" in Jastrzebski et al. 2017, section 4.3, after Zhang et al. 2017), or over the
    others (``"other"``).

    ``normalise``: None, pixels in [0, 1]; "unit_norm", each image divided by its Euclidean norm;
    "standardise", each channel less its mean over the whole training split, divided by its standard
    deviation (`SCALES`), for test data too.

    ``folder`` holds the IDX files, plain, .gz or .xz, or a folder "mnist" with them; then the
    folder in LANGEVIN_DATA and the cache are searched; ``download=True`` fetches what is missing
    into ``folder`` or the cache and checks its md5. Raises UnavailableError where there are no
    files, DataError for files that are empty, truncated, corrupt or another set's, ParameterError.
    """
    return _idx_set(
        files.MNIST, NUMERALS, folder, download,
        train=train, n=n, seed=seed, skip=skip, balanced=balanced, classes=classes,
        label_noise=label_noise, noisy_label=noisy_label, normalise=normalise,
    )  # fmt: skip


def fashion_mnist(
    train: bool = True,
    n: int | None = None,
    seed: int = 0,
    *,
    skip: int = 0,
    balanced: bool = False,
    classes: Sequence[int] | None = None,
    label_noise: float = 0.0,
    noisy_label: str = "any",
    normalise: str | None = None,
    folder: str | os.PathLike | None = None,
    download: bool = False,
) -> Dataset:
    """Fashion-MNIST (Xiao et al. 2017): X (n, 1, 28, 28), 60,000 to train, 10,000 to test.

    Options and errors are those of `mnist`; the folder is "fashion-mnist".
    """
    return _idx_set(
        files.FASHION_MNIST, FASHION, folder, download,
        train=train, n=n, seed=seed, skip=skip, balanced=balanced, classes=classes,
        label_noise=label_noise, noisy_label=noisy_label, normalise=normalise,
    )  # fmt: skip


def cifar10(
    train: bool = True,
    n: int | None = None,
    seed: int = 0,
    *,
    batches: Sequence[int] | None = None,
    skip: int = 0,
    balanced: bool = False,
    classes: Sequence[int] | None = None,
    label_noise: float = 0.0,
    noisy_label: str = "any",
    normalise: str | None = None,
    folder: str | os.PathLike | None = None,
    download: bool = False,
) -> Dataset:
    """CIFAR-10 (Krizhevsky 2009): X (n, 3, 32, 32), 50,000 to train, 10,000 to test.

    ``batches`` chooses among the five training files of 10,000: ``batches=(1, 2, 3, 4)`` to train
    and ``batches=(5,)`` as a clean hold-out where the test file is missing or is to stay unseen. Of
    a file ``test_batch_first1017.bin`` only these first examples are used, with an
    IncompleteDataWarning. Reads the binary version: .bin, .bin.gz, .bin.xz, or
    cifar-10-binary.tar.gz. Other options and errors are those of `mnist`; the folder is "cifar-10".
    """
    chosen = _batches(_split(train), batches)
    return _cifar_set(
        chosen, folder, download, train=train, batches=chosen if batches is not None else None,
        n=n, seed=seed, skip=skip, balanced=balanced, classes=classes, label_noise=label_noise,
        noisy_label=noisy_label, normalise=normalise,
    )  # fmt: skip


# --- from files -----------------------------------------------------------------------------------


def _split(train: bool) -> bool:
    if not isinstance(train, (bool, np.bool_)):
        raise ParameterError(f"train={train!r}: needed: True or False (the first argument).")
    return bool(train)


def _batches(train: bool, batches: Sequence[int] | None) -> tuple[int, ...]:
    if batches is None:
        return (1, 2, 3, 4, 5)
    chosen = tuple(whole_number("batches", k, 1, 5) for k in np.atleast_1d(batches))
    if not train or not chosen or len(set(chosen)) < len(chosen):
        raise ParameterError(
            f"batches={batches!r}, train={train}: needed: different numbers from 1 to 5, of the "
            "files of the training split (train=True)."
        )
    return chosen


def _idx_set(source: Source, names: tuple[str, ...], folder, download: bool, **choices) -> Dataset:
    """A data set of 28 x 28 images in IDX files."""
    part = "train" if _split(choices["train"]) else "t10k"
    stems = [f"{part}-images-idx3-ubyte", f"{part}-labels-idx1-ubyte"]
    found = files.locate(source, stems, folder, download)
    pixels, bytes_of_labels = files.contents(source, found)
    said = files.identities(source, found)
    images = files.idx(source, found[0], pixels, (28, 28))
    labels = files.idx(source, found[1], bytes_of_labels, ())
    files.check_labels(source, found[1], labels, len(names))
    if len(images) != len(labels):
        raise files.corrupt(
            source, found[1], f"holds {len(labels):,} labels", f"one for each of the "
            f"{len(images):,} images in {found[0]}",
        )  # fmt: skip
    whole = 60_000 if part == "train" else 10_000
    scale = SCALES[source.name]
    return make(source.name, names, images[:, None], labels, scale, said, whole, **choices)


def _cifar_set(chosen: tuple[int, ...], folder, download: bool, **choices) -> Dataset:
    """CIFAR-10's training files of these numbers, or its test file."""
    stems = [f"data_batch_{k}.bin" for k in chosen] if choices["train"] else ["test_batch.bin"]
    source = files.CIFAR10
    found = files.locate(source, stems, folder, download)
    unpacked = files.contents(source, found)
    said = files.identities(source, found)
    images, labels = [], []
    for file, data in zip(found, unpacked, strict=True):
        pixels, its = files.cifar(source, file, data)
        files.check_labels(source, file, its, len(CIFAR))
        images.append(pixels)
        labels.append(its)
    whole, scale = len(found) * files.CIFAR_BATCH, SCALES[source.name]
    return make(
        source.name, CIFAR, np.concatenate(images), np.concatenate(labels), scale, said, whole,
        **choices,
    )  # fmt: skip

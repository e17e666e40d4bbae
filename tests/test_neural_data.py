"""Image data sets: what is read, what is chosen, and what is refused."""

import functools
import gzip
import hashlib
import http.server
import io
import itertools
import lzma
import struct
import sys
import tarfile
import threading
import warnings
from dataclasses import FrozenInstanceError, replace

import naive
import numpy as np
import pytest
from kit import statistical
from scipy import stats

torch = pytest.importorskip("torch")
pytest.importorskip("sklearn")
pooch = pytest.importorskip("pooch")

import langevin as lv  # noqa: E402
from langevin.errors import (  # noqa: E402
    DataError,
    IncompleteDataWarning,
    ParameterError,
    UnavailableError,
)
from langevin.neural import data, files  # noqa: E402

N = 12
CACHE = files.cache
IMAGES, LABELS = "train-images-idx3-ubyte", "train-labels-idx1-ubyte"
PACKED = {"": bytes, ".gz": gzip.compress, ".xz": lzma.compress}
pytestmark = pytest.mark.filterwarnings("ignore::langevin.errors.IncompleteDataWarning")


def pixels(n=N, shape=(28, 28)):
    """Every image different, every value from 0 to 255 somewhere."""
    return (np.arange(n * np.prod(shape)) * 7 % 256).astype(np.uint8).reshape(n, *shape)


def labels(n=N):
    return (np.arange(n) % 10).astype(np.uint8)


def idx(array, magic=None):
    header = struct.pack(f">{1 + array.ndim}I", magic or 2048 + array.ndim, *array.shape)
    return header + array.tobytes()


def write_mnist(folder, images=None, its=None, suffix=""):
    folder.mkdir(parents=True, exist_ok=True)
    pack = PACKED[suffix]
    (folder / f"{IMAGES}{suffix}").write_bytes(pack(idx(pixels() if images is None else images)))
    (folder / f"{LABELS}{suffix}").write_bytes(pack(idx(labels() if its is None else its)))
    return folder


def records(n=N):
    rows = np.concatenate([labels(n)[:, None], pixels(n, (3072,))], axis=1)
    return rows.astype(np.uint8).tobytes()


@pytest.fixture(autouse=True)
def nothing_elsewhere(monkeypatch, tmp_path, request):
    """Neither this machine's data nor its cache, except where a test asks for the real files."""
    if "real" not in request.fixturenames:
        monkeypatch.delenv("LANGEVIN_DATA", raising=False)
    monkeypatch.setattr(files, "cache", lambda: tmp_path / "cache")


@pytest.fixture
def real():
    """Finds real files, or skips."""

    def find(source, *stems):
        try:
            files.locate(source, stems)
        except UnavailableError as error:
            pytest.skip(f"needs real files: {str(error).splitlines()[0]}")

    return find


# --- reading --------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", PACKED)
@pytest.mark.parametrize("below", ["mnist", "MNIST/raw", ""])
def test_idx_files_plain_and_compressed(tmp_path, suffix, below):
    write_mnist(tmp_path / below, suffix=suffix)
    X, y = found = data.mnist(folder=tmp_path)
    assert X.dtype == torch.float32 and X.shape == (N, 1, 28, 28) and y.dtype == torch.int64
    np.testing.assert_array_equal(X[:, 0].numpy(), pixels().astype(np.float32) / np.float32(255))
    np.testing.assert_array_equal(y.numpy(), labels())
    assert X.min() == 0 and X.max() == 1
    assert found.classes == tuple("0123456789") and found.n_examples == N
    assert len(found.files) == 2 and "md5 " in found.files[0]


def test_places_in_their_order(tmp_path, monkeypatch):
    """The argument, LANGEVIN_DATA, the cache; Fashion-MNIST's files bear the same names."""
    for k, place in enumerate(("argument", "environment", "cache")):
        write_mnist(tmp_path / place / "fashion-mnist", its=np.full(N, k, np.uint8))
        write_mnist(tmp_path / place / "mnist", its=np.full(N, 5 + k, np.uint8))
    assert data.fashion_mnist().y[0] == 2
    monkeypatch.setenv("LANGEVIN_DATA", str(tmp_path / "environment"))
    assert data.fashion_mnist().y[0] == 1
    assert data.fashion_mnist(folder=tmp_path / "argument").y[0] == 0
    assert data.mnist(folder=str(tmp_path / "argument")).y[0] == 5
    assert data.mnist(folder=tmp_path / "nowhere").y[0] == 6
    assert data.fashion_mnist().classes[9] == "Ankle boot"


def test_what_is_missing_is_said_with_the_way_to_get_it(tmp_path, monkeypatch):
    with pytest.raises(UnavailableError) as raised:
        data.mnist(folder=tmp_path / "here")
    said = str(raised.value)
    for part in ("here/mnist (no such folder)", "cache/mnist", "download=True", "LANGEVIN_DATA is"):
        assert part in said
    assert "https://ossci-datasets.s3.amazonaws.com/mnist/" in said and IMAGES in said
    monkeypatch.setenv("LANGEVIN_DATA", str(tmp_path))
    with pytest.raises(UnavailableError) as raised:
        data.cifar10(batches=(2,))
    assert f"{tmp_path}/cifar-10" in str(raised.value) and "data_batch_2.bin" in str(raised.value)
    assert "is not set" not in str(raised.value)


@pytest.mark.parametrize("suffix", PACKED)
def test_the_beginning_of_a_cifar_file_is_called_that(tmp_path, suffix):
    (tmp_path / "cifar-10").mkdir()
    path = tmp_path / "cifar-10" / f"test_batch_first12.bin{suffix}"
    path.write_bytes(PACKED[suffix](records()))
    with pytest.warns(IncompleteDataWarning, match="only 12 of 10,000"):
        found = data.cifar10(train=False, folder=tmp_path)
    assert found.X.shape == (N, 3, 32, 32) and "only 12 of 10,000" in found.description
    expected = pixels(N, (3072,)).reshape(N, 3, 32, 32).astype(np.float32) / np.float32(255)
    np.testing.assert_array_equal(found.X.numpy(), expected)
    np.testing.assert_array_equal(found.y.numpy(), labels())
    with pytest.raises(UnavailableError, match=r"data_batch_1\.bin"):
        data.cifar10(folder=tmp_path)


def write_archive(path):
    whole = records(100) * 100
    with tarfile.open(path, "w:gz", compresslevel=1) as archive:
        for k, name in enumerate(("data_batch_2.bin", "data_batch_4.bin", "test_batch.bin")):
            member = tarfile.TarInfo(f"cifar-10-batches-bin/{name}")
            content = whole if k else whole[::-1].replace(b"\xff", b"\x00")
            content = content if k else bytes(len(whole) - 3073) + whole[:3073]
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))


def test_the_archive_is_read_as_it_is(tmp_path):
    """Whole files, in the order asked for; nothing is unpacked to disk."""
    write_archive(tmp_path / "cifar-10-binary.tar.gz")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = data.cifar10(batches=(4, 2), folder=tmp_path)
    assert found.n_examples == 20_000 and found.choices["batches"] == (4, 2)
    assert (found.y[10_000:-1] == 0).all() and (found.y[:10_000] == 9).sum() == 1_000
    assert data.cifar10(train=False, folder=tmp_path).n_examples == 10_000
    assert [path.name for path in tmp_path.iterdir()] == ["cifar-10-binary.tar.gz"]
    with pytest.raises(DataError, match=r"no such file; needed: data_batch_1\.bin"):
        data.cifar10(batches=(1,), folder=tmp_path)


def test_the_whole_file_comes_before_a_beginning(tmp_path):
    place = tmp_path / "cifar-10"
    place.mkdir()
    (place / "test_batch_first12.bin").write_bytes(records())
    (place / "test_batch.bin").write_bytes(records(100) * 100)
    assert data.cifar10(train=False, folder=tmp_path).n_examples == 10_000


# --- bad files ------------------------------------------------------------------------------------


def broken(content, its, kind):
    """A tiny MNIST with one thing wrong: its files' bytes, and what the message must say."""
    image, label = idx(content), idx(its)
    return {
        "empty": (b"", label, "the file is empty"),
        "no header": (image[:10], label, "holds 10 bytes; needed: a header of 16 bytes"),
        "truncated": (image[:-5], label, f"{N * 784 - 5:,} bytes follow; needed: {N * 784:,}"),
        "too long": (image + b"x", label, f"{N * 784 + 1:,} bytes follow; needed: {N * 784:,}"),
        "magic": (idx(content, 2049), label, "magic number 2049; needed: 2051"),
        "swapped": (label, image, "needed: "),
        "shape": (idx(pixels(N, (8, 8))), label, "images of 8 x 8; needed: images of 28 x 28"),
        "none": (idx(content[:0]), label, "announces 0 images"),
        "label": (image, idx(np.where(its == 4, 12, its).astype(np.uint8)), "4 has the label 12"),
        "disagree": (image, idx(its[:-1]), "holds 11 labels; needed: one for each of the 12"),
        "labels truncated": (image, label[:-1], "11 bytes follow; needed: 12 bytes"),
    }[kind]


@pytest.mark.parametrize(
    "kind",
    ["empty", "no header", "truncated", "too long", "magic", "swapped", "shape", "none", "label",
     "disagree", "labels truncated"],
)  # fmt: skip
def test_bad_idx_files_are_named(tmp_path, kind):
    image, label, said = broken(pixels(), labels(), kind)
    (tmp_path / IMAGES).write_bytes(image)
    (tmp_path / LABELS).write_bytes(label)
    with pytest.raises(DataError, match=said) as raised:
        data.mnist(folder=tmp_path)
    wrong = LABELS if kind in ("label", "disagree", "labels truncated") else IMAGES
    assert str(tmp_path / wrong) in str(raised.value)


@pytest.mark.parametrize("suffix", [".gz", ".xz"])
@pytest.mark.parametrize("harm", ["truncated", "flipped", "not compressed"])
def test_corrupt_compressed_files_are_named(tmp_path, suffix, harm):
    write_mnist(tmp_path, suffix=suffix)
    path = tmp_path / f"{IMAGES}{suffix}"
    content = bytearray(path.read_bytes())
    if harm == "flipped":
        content[len(content) // 2] ^= 0xFF
    path.write_bytes(
        {"truncated": content[:-20], "not compressed": idx(pixels())}.get(harm, content)
    )
    with pytest.raises(DataError, match="cannot be read") as raised:
        data.mnist(folder=tmp_path)
    assert str(path) in str(raised.value)
    published = files.MNIST.md5[f"{IMAGES}.gz"]
    assert (published in str(raised.value)) == (suffix == ".gz")


@pytest.mark.parametrize("suffix", [".gz", ".xz"])
@pytest.mark.parametrize("stem", [IMAGES, LABELS])
def test_damage_anywhere_is_named_or_harmless(tmp_path, suffix, stem):
    write_mnist(tmp_path, suffix=suffix)
    path, whole = tmp_path / f"{stem}{suffix}", data.mnist(folder=tmp_path)
    content, named = path.read_bytes(), 0
    for place in np.linspace(0, len(content) - 1, 40).astype(int):
        flipped = bytearray(content)
        flipped[place] ^= 0x10
        for damaged in (content[:place], bytes(flipped)):
            path.write_bytes(damaged)
            try:
                found = data.mnist(folder=tmp_path)
            except DataError as error:
                named += str(path) in str(error)
            else:  # the time or the system in gzip's header
                assert torch.equal(found.X, whole.X) and torch.equal(found.y, whole.y)
    assert named >= 70


@pytest.mark.parametrize(
    "name, content, said",
    [
        ("test_batch.bin", records(), r"36,876 bytes; needed: 30,730,000 \(10,000 examples"),
        ("test_batch_first13.bin", records(), r"36,876 bytes; needed: 39,949 \(13 examples"),
        ("test_batch_first0.bin", b"x", r"needed: 0 \(0 examples"),
        ("test_batch_first12.bin.xz", lzma.compress(records())[:-9], "cannot be read"),
        ("test_batch_first12.bin", b"", "the file is empty"),
        ("test_batch_first1.bin", b"\x0a" + bytes(3072), "example 0 has the label 10"),
        ("cifar-10-binary.tar.gz", b"", "the file is empty"),
        ("cifar-10-binary.tar.gz", gzip.compress(b"x" * 2_000, mtime=0), "cannot be read"),
    ],
)
def test_bad_cifar_files_are_named(tmp_path, name, content, said):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=said) as raised:
        data.cifar10(train=False, folder=tmp_path)
    assert str(tmp_path / name) in str(raised.value)


def test_a_truncated_archive_is_named(tmp_path):
    path = tmp_path / "cifar-10-binary.tar.gz"
    write_archive(path)
    path.write_bytes(path.read_bytes()[:-1_000])
    with pytest.raises(DataError, match="cannot be read") as raised:
        data.cifar10(train=False, folder=tmp_path)
    assert str(path) in str(raised.value) and files.CIFAR10.md5[path.name] in str(raised.value)


def test_checksums_tell_one_set_from_another(tmp_path, monkeypatch):
    """Their files have the same names: MNIST's in the place of Fashion-MNIST's is found out."""
    write_mnist(tmp_path, suffix=".gz")
    md5 = files.md5_of(tmp_path / f"{IMAGES}.gz")
    assert md5 == hashlib.md5((tmp_path / f"{IMAGES}.gz").read_bytes()).hexdigest()
    found = data.mnist(folder=tmp_path)
    assert f"the published file's is {files.MNIST.md5[f'{IMAGES}.gz']}" in found.files[0]
    known = {**files.MNIST.md5, f"{IMAGES}.gz": md5}
    monkeypatch.setattr(files, "MNIST", replace(files.MNIST, md5=known))
    assert f"{md5}, as published" in data.mnist(folder=tmp_path).files[0]
    with pytest.raises(DataError, match=r"is the file train-images.* of MNIST .* of Fashion-MNIST"):
        data.fashion_mnist(folder=tmp_path)


# --- downloads ------------------------------------------------------------------------------------


@pytest.fixture
def served(tmp_path, monkeypatch):
    """A folder that a web server on this machine serves as MNIST's."""
    (tmp_path / "web").mkdir()

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *arguments):
            pass

    handler = functools.partial(Quiet, directory=tmp_path / "web")
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    write_mnist(tmp_path / "web", suffix=".gz")
    md5 = {name: files.md5_of(tmp_path / "web" / name) for name in (f"{IMAGES}.gz", f"{LABELS}.gz")}
    url = f"http://127.0.0.1:{server.server_port}/"
    monkeypatch.setattr(files, "MNIST", replace(files.MNIST, url=url, md5=md5))
    yield tmp_path / "web"
    server.shutdown()
    server.server_close()


def test_downloads_are_checked_and_kept(served, tmp_path):
    with pytest.raises(UnavailableError, match="download=True"):
        data.mnist()
    found = data.mnist(download=True)
    assert found.n_examples == N and all("as published" in each for each in found.files)
    assert (tmp_path / "cache" / "mnist" / f"{IMAGES}.gz").is_file()
    for path in served.iterdir():
        path.unlink()
    assert data.mnist(download=True).n_examples == N  # no second download
    with pytest.raises(UnavailableError, match=r"could not be downloaded.*404"):
        (tmp_path / "cache" / "mnist" / f"{IMAGES}.gz").unlink()
        data.mnist(download=True)


def test_a_wrong_checksum_is_refused_and_nothing_kept(served, tmp_path):
    (served / f"{LABELS}.gz").write_bytes(gzip.compress(idx(labels()[::-1])))
    with pytest.raises(DataError, match=files.MNIST.md5[f"{LABELS}.gz"]):
        data.mnist(folder=tmp_path / "mine", download=True)
    kept = [path.name for path in (tmp_path / "mine" / "mnist").iterdir()]
    assert kept == [f"{IMAGES}.gz"]


def test_missing_packages_are_named(monkeypatch, tmp_path):
    assert CACHE().name == "data" and "langevin" in CACHE().parts
    monkeypatch.setitem(sys.modules, "pooch", None)
    monkeypatch.setattr(files, "cache", CACHE)
    assert CACHE() is None
    with pytest.raises(UnavailableError, match="needs the package pooch"):
        data.mnist(download=True)
    write_mnist(tmp_path)
    assert data.mnist(folder=tmp_path).n_examples == N  # files at hand need no pooch
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(UnavailableError, match="needs the package scikit-learn"):
        data.digits()


# --- choices --------------------------------------------------------------------------------------


def test_digits_need_no_files():
    X, y = digits = lv.neural.data.digits()
    assert X.shape == (1437, 1, 8, 8) and X.min() == 0 and X.max() == 1 and X.dtype == torch.float32
    assert set(y.tolist()) == set(range(10)) and not digits.corrupted.any()
    rest = data.digits(False, seed=3)
    assert rest.X.shape == (360, 1, 8, 8)
    both = torch.cat([X, rest.X]).flatten(1)
    assert len(torch.unique(both, dim=0)) == len(torch.unique(X.flatten(1), dim=0)) + len(
        torch.unique(rest.X.flatten(1), dim=0)
    )
    assert y.bincount().min() >= 133  # of 1,437: near a tenth each
    assert repr(digits).startswith("<digits: 1,437 examples, train=True, seed=0; X (1437, 1, 8, 8)")


def test_subsets_and_noise_follow_from_the_counters_alone():
    """The permanent layout, from the naive generator and from numbers that may never change."""

    def word(place, purpose, seed):
        high, low, *_ = naive.philox((place, 0, 0, purpose), naive.key_of(seed))
        return high, high << 32 | low

    seed = 7 << 40 | 5
    order = sorted(range(1_437), key=lambda k: word(k, 16, seed)[1])
    digits = data.digits(n=50, seed=seed, label_noise=0.3)
    assert digits.indices.tolist() == order[:50]
    chosen = sorted(order[:50], key=lambda k: word(k, 17, seed)[1])[:15]
    assert set(digits.indices[digits.corrupted].tolist()) == set(chosen)
    drawn = [word(k, 18, seed)[0] * 10 >> 32 for k in digits.indices[digits.corrupted].tolist()]
    assert digits.y[digits.corrupted].tolist() == drawn
    assert data.digits(n=5, seed=7).indices.tolist() == [159, 123, 51, 516, 64]
    assert data.digits(False).y[:12].tolist() == [6, 9, 6, 8, 5, 0, 8, 8, 4, 7, 2, 1]


def test_subsets_are_nested_and_disjoint():
    whole = data.digits(seed=2)
    few, more = data.digits(n=100, seed=2), data.digits(n=300, seed=2)
    assert few.indices.tolist() == more.indices[:100].tolist()
    assert torch.equal(more.X, whole.X[more.indices]) and torch.equal(more.y, whole.y[more.indices])
    later = data.digits(n=200, seed=2, skip=100)
    assert later.indices.tolist() == more.indices[100:].tolist()
    assert data.digits(seed=2, skip=100).n_examples == 1337
    assert few.indices.tolist() != data.digits(n=100, seed=3).indices.tolist()
    big = 2**64 - 1
    assert data.digits(n=9, seed=big).indices.tolist() != data.digits(n=9, seed=big >> 32).indices


def test_class_pairs_are_relabelled_in_the_order_given():
    whole, pair = data.digits(), data.digits(classes=(7, 2))
    assert pair.classes == ("7", "2") and set(pair.y.tolist()) == {0, 1}
    assert torch.equal(whole.y[pair.indices], torch.tensor([7, 2])[pair.y])
    even = data.digits(classes=(7, 2), n=60, balanced=True, seed=4)
    assert even.y.bincount().tolist() == [30, 30]
    rest = data.digits(classes=(7, 2), n=40, balanced=True, seed=4, skip=60)
    assert rest.y.bincount().tolist() == [20, 20]
    assert not set(even.indices.tolist()) & set(rest.indices.tolist())
    least = whole.y.bincount().min()
    assert data.digits(balanced=True).y.bincount().tolist() == [least] * 10


@pytest.mark.parametrize("share, replaced", [(0.0, 0), (0.25, 25), (0.5, 50), (1.0, 100)])
def test_label_noise_can_be_undone(share, replaced):
    clean, noisy = data.digits(n=100, seed=1), data.digits(n=100, seed=1, label_noise=share)
    assert torch.equal(noisy.clean_labels, clean.y) and torch.equal(noisy.X, clean.X)
    assert noisy.corrupted.sum() == replaced
    assert torch.equal(noisy.y[~noisy.corrupted], clean.y[~noisy.corrupted])
    other = data.digits(n=100, seed=1, label_noise=share, noisy_label="other")
    assert torch.equal(other.y != clean.y, other.corrupted)
    assert torch.equal(other.corrupted, noisy.corrupted)
    half = data.digits(n=100, seed=1, label_noise=share / 2)
    assert not (half.corrupted & ~noisy.corrupted).any()
    assert torch.equal(half.y[half.corrupted], noisy.y[half.corrupted])
    said = "label_noise" in noisy.description
    assert said == bool(share) == ("noisy_label" in noisy.description)


@statistical(comparisons=4, seed=1)
def test_random_labels_are_uniform(seed, check):
    labels = torch.arange(100_000) % 10
    y, mask = data.corrupt_labels(labels, 0.25, n_classes=10, seed=seed)
    kept = int((y == labels)[mask].sum())
    check.count(kept, 25_000, 0.1, "true by chance")
    check.p(stats.chisquare(y[mask].bincount()).pvalue, "any")
    drawn = stats.chisquare(labels[mask].bincount()).statistic  # without replacement: smaller
    check.p(stats.chi2.sf(drawn * 99_999 / 75_000, 9), "which")
    y, mask = data.corrupt_labels(labels, 0.25, n_classes=10, seed=seed, noisy_label="other")
    check.p(stats.chisquare(((y - labels) % 10)[mask].bincount()[1:]).pvalue, "other")
    still = int((y == labels)[mask].sum())
    check.twin((still - 2_500) / np.sqrt(2_500 * 0.9), "any other label")


@statistical(comparisons=2, seed=1)
def test_subsets_are_uniform_and_those_of_two_seeds_independent(seed, check):
    whole, n, times = 1_437, 400, 12
    drawn = [data.digits(n=n, seed=seed + k).indices.numpy() for k in range(times)]
    share, rest = n / whole, (whole - n) / (whole - 1)
    places = np.mean(drawn) - (whole - 1) / 2
    check.z(places / np.sqrt((whole**2 - 1) / 12 / (n * times) * rest), "places")
    common = [len(np.intersect1d(a, b)) for a, b in itertools.pairwise(drawn)]
    error = np.sqrt(n * share * (1 - share) * rest / len(common))
    check.z((np.mean(common) - n * share) / error, "in common")
    check.twin((n - n * share) / error, "the same seed")


def test_normalisation():
    plain = data.digits()
    unit, standard = data.digits(normalise="unit_norm"), data.digits(normalise="standardise")
    assert torch.allclose(unit.X.flatten(1).norm(dim=1), torch.ones(1437))
    assert torch.allclose(unit.X * plain.X.flatten(1).norm(dim=1).view(-1, 1, 1, 1), plain.X)
    assert abs(standard.X.mean()) < 1e-5 and abs(standard.X.std() - 1) < 1e-3
    test = data.digits(False, normalise="standardise").X * plain.X.std() + plain.X.mean()
    assert torch.allclose(test, data.digits(False).X, atol=1e-3)  # the training split's scale


def test_a_black_image_stays_black(tmp_path):
    images = pixels()
    images[3] = 0
    X, _ = data.mnist(folder=write_mnist(tmp_path, images), normalise="unit_norm")
    assert (X[3] == 0).all() and torch.isfinite(X).all()


def test_a_dataset_is_frozen_and_moves():
    digits = data.digits(n=10, label_noise=0.5)
    moved = digits.to(dtype=torch.float64)
    assert moved.X.dtype == torch.float64 and moved.y.dtype == torch.int64
    assert moved.choices == digits.choices and torch.equal(moved.corrupted, digits.corrupted)
    assert digits.to("meta").y.device.type == "meta"
    with pytest.raises(FrozenInstanceError):
        digits.X = None
    assert [t.shape[0] for t in digits] == [10, 10]


@pytest.mark.parametrize(
    "options, said",
    [
        (dict(n=0), "n=0"),
        (dict(n=2.5), "whole number"),
        (dict(n=1_438), "n=1,438 examples after skip=0 .* there are 1,437"),
        (dict(n=1_400, skip=100), "n=1,400 examples after skip=100"),
        (dict(skip=-1), "skip=-1"),
        (dict(skip=1_437), "n=0 examples"),
        (dict(seed=-1), "seed=-1"),
        (dict(seed=2**64), "seed="),
        (dict(classes=(3,)), "at least two"),
        (dict(classes=(3, 3)), "at least two different"),
        (dict(classes=(3, 10)), "between 0 and 9"),
        (dict(classes="ab"), "classes"),
        (dict(n=101, classes=(3, 5), balanced=True), "multiples of the 2 classes"),
        (dict(n=600, classes=(3, 5), balanced=True), "in the smallest of 2 classes"),
        (dict(label_noise=1.5), "share from 0 to 1"),
        (dict(label_noise=float("nan")), "share from 0 to 1"),
        (dict(label_noise="25%"), "share from 0 to 1"),
        (dict(noisy_label="wrong"), "choose one of any, other"),
        (dict(normalise="unit"), "choose one of unit_norm, standardise"),
        (dict(train=1000), "True or False"),
    ],
)
def test_bad_choices_are_refused(options, said):
    with pytest.raises(ParameterError, match=said):
        data.digits(**options)


@pytest.mark.parametrize("batches", [(), (0,), (6,), (1, 1), (1.5,), "1"])
def test_bad_batches_are_refused(tmp_path, batches):
    with pytest.raises(ParameterError, match="batches"):
        data.cifar10(batches=batches, folder=tmp_path)
    with pytest.raises(ParameterError, match="train=False"):
        data.cifar10(False, batches=(5,), folder=tmp_path)


def test_bad_labels_and_folders_are_refused():
    with pytest.raises(ParameterError, match="folder=5: needed: a path"):
        data.mnist(folder=5)
    for labels in (
        torch.tensor([0, 3]),
        torch.tensor([-1]),
        torch.zeros(3),
        torch.zeros(2, 2).int(),
    ):
        with pytest.raises(ParameterError, match=r"whole numbers \(n,\) from 0 to 2"):
            data.corrupt_labels(labels, 0.5, n_classes=3)
    with pytest.raises(ParameterError, match="n_classes=1"):
        data.corrupt_labels(torch.zeros(3).long(), 0.5, n_classes=1)


# --- the real files -------------------------------------------------------------------------------

COUNTS = {
    "MNIST": [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009],
    "Fashion-MNIST": [1000] * 10,
}


@pytest.mark.parametrize("name", ["mnist", "fashion_mnist"])
def test_the_real_28_by_28_images(real, name):
    source = {"mnist": files.MNIST, "fashion_mnist": files.FASHION_MNIST}[name]
    real(source, IMAGES, LABELS)
    read = getattr(data, name)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # they are whole
        X, y = read(normalise="standardise")
        test = read(False)
    assert X.shape == (60_000, 1, 28, 28) and abs(X.mean()) < 1e-5 and abs(X.std() - 1) < 1e-5
    assert len(y) == 60_000 and test.y.bincount().tolist() == COUNTS[source.name]
    assert all("as published" in each for each in test.files)
    few = read(n=1_000, seed=0, normalise="unit_norm")
    assert few.n_examples == 1_000 and few.name == source.name


def test_the_real_cifar_images(real):
    real(files.CIFAR10, "data_batch_5.bin")
    X, y = data.cifar10(batches=(5,))
    assert X.shape == (10_000, 3, 32, 32)
    assert y.bincount().tolist() == [1014, 1014, 952, 1016, 997, 1025, 980, 977, 1003, 1022]
    mean, deviation = (torch.tensor(each) for each in data.SCALES["CIFAR-10"])
    assert torch.allclose(X.mean(dim=(0, 2, 3)), mean, atol=0.01)
    assert torch.allclose(X.std(dim=(0, 2, 3)), deviation, atol=0.01)
    some = data.cifar10(False, n=1_000)
    assert some.n_examples == 1_000 and ("only 1,017" in some.name or "only" not in some.name)

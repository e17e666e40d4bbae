"""The validations on networks: their arithmetic exactly, and each of them run very small."""

import importlib
import itertools
import json
from dataclasses import replace

import kit
import numpy as np
import pytest
from scipy import stats

import langevin as lv

torch = pytest.importorskip("torch")


@pytest.fixture(scope="module", autouse=True)
def importable():
    with kit.modules_of("validations"):
        yield


@pytest.fixture
def module():
    return importlib.import_module


def images(n=None, train=True, seed=0, normalise=None, **choices):
    """In MNIST's place: digits, enlarged, of unit norm whatever is asked for."""
    X, y = lv.neural.data.digits(train=train, seed=seed)
    X = torch.nn.functional.interpolate(X, size=(28, 28))
    X = X / X.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
    return X[:n], y[:n]


@pytest.fixture
def small(module, monkeypatch):
    """MNIST replaced, and everything small."""
    networks = module("networks")
    monkeypatch.setattr(lv.neural.data, "mnist", images)
    networks.test_images.cache_clear()
    networks._known.clear()
    plan = networks.Plan(6, 20, (1, 30, 80, 500, 1_000), 2, 10, 10, 2, 10, 4)
    monkeypatch.setitem(networks.PLANS, "quick", plan)
    s8, t10, b5n, t12n = (
        module(name)
        for name in (
            "s8_gradient_distribution", "t10_exchangeable_schedules",
            "b5n_decay_or_grow_networks", "t12n_breaking_point_networks",
        )
    )  # fmt: skip
    for one in (t10, b5n, t12n):
        monkeypatch.setitem(one.REPLICAS, "quick", 2)
    monkeypatch.setitem(s8.AMOUNT, "quick", (2, 50))
    monkeypatch.setattr(s8, "WEIGHTS", 3)
    monkeypatch.setattr(t10, "CYCLES", 3)
    monkeypatch.setattr(t10, "HOLD", 90)
    monkeypatch.setattr(t10, "EVERY", 45)
    monkeypatch.setattr(b5n, "STAGE", 243)
    monkeypatch.setattr(t12n, "EPOCHS", 1)
    monkeypatch.setattr(t12n, "FACTORS", (1, 4, 16, 20))
    yield networks
    networks.test_images.cache_clear()
    networks._known.clear()


@pytest.mark.parametrize("row", ["S2", "S3", "S7", "S8", "T10", "B5N", "T12N"])
def test_every_row_on_networks_writes_its_record(small, module, tmp_path, row):
    told = []
    record = module("harness").run(row, "quick", tmp_path, told.append)
    assert record["verdict"] != "error", record["findings"]
    assert len(record["checks"]) >= 5 and record["findings"] and told
    assert any(c["expected"] == "differs" for c in record["checks"])  # a control
    written = json.loads((tmp_path / f"{row}.json").read_text(encoding="utf-8"))
    assert written["settings"] and written["data"]
    for figure in record["figures"]:
        assert "Paper:" in figure["caption"]
        assert (tmp_path / f"{figure['name']}.png").stat().st_size > 2_000


def test_rows_without_mnist_are_skipped_and_say_where_they_looked(
    module, tmp_path, monkeypatch, capsys
):
    monkeypatch.delenv("LANGEVIN_DATA", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("LANGEVIN_CACHE", str(tmp_path))
    monkeypatch.setattr(module("langevin.neural.files"), "cache", lambda: tmp_path / "nowhere")
    module("networks").test_images.cache_clear()
    for row in ("S2", "S3", "S8"):
        record = module("harness").run(row, "quick", tmp_path, lambda text: None)
        assert record["verdict"] == "skipped" and record["holds"]
        assert "LANGEVIN_DATA" in record["findings"][0]


def test_a_finished_seed_is_read_from_its_checkpoint(small, module, tmp_path, monkeypatch):
    harness = module("harness")
    monkeypatch.setattr(harness, "_work", tmp_path)
    first = small.smith_le("quick", lambda text: None)
    resumed = []
    simulate = lv.simulate

    def watched(*given, **options):
        result = simulate(*given, **options)
        resumed.append(result.resumed_at)
        return result

    monkeypatch.setattr(lv, "simulate", watched)
    small._known.clear()
    again = small.smith_le("quick", lambda text: None)
    assert resumed == [20, 20]
    for name in ("accuracy", "test_loss", "train_loss"):
        np.testing.assert_array_equal(getattr(first, name), getattr(again, name))


def test_curves_that_were_cut_short_are_no_measurement(small, monkeypatch):
    simulate = lv.simulate
    monkeypatch.setattr(lv, "simulate", lambda *a, **k: replace(simulate(*a, **k), steps_done=3))
    with pytest.raises(KeyboardInterrupt):
        small.smith_le("quick", lambda text: None)


def test_the_best_batch_size_is_chosen_on_the_other_seeds(module):
    """The first seed alone would choose size 0, the others 2 and, without the third, 1."""
    final = np.array([[0.9, 0.1, 0.2], [0.0, 0.3, 0.2], [0.0, 0.1, 0.6]])
    assert module("networks").best_of_the_others(final).tolist() == [2, 0, 0]


def test_means_over_seeds_have_few_degrees_of_freedom(module):
    found = module("networks").over_seeds([1.0, 2.0, 6.0])
    assert (found.value, found.dof) == (3.0, 2)
    assert found.stderr == pytest.approx(np.sqrt(7 / 3))


def test_moments_of_means_without_replacement_are_exact(module, monkeypatch):
    """All 56 batches of three of eight numbers."""
    s8 = module("s8_gradient_distribution")
    monkeypatch.setattr(s8, "BATCH", 3)
    sample = np.array([0.0, 0.1, 0.5, 0.5, 1.0, 1.1, 2.0, 5.0])
    means = np.array([np.mean(batch) for batch in itertools.combinations(sample, 3)])
    variance, skewness, replaced = s8._of_means(sample)
    assert variance == pytest.approx(means.var(), rel=1e-12)
    assert skewness == pytest.approx(stats.skew(means), rel=1e-12)
    assert replaced == pytest.approx(sample.var() / 3) and replaced > variance


def test_peaks_are_counted(module):
    peaks = module("s8_gradient_distribution").peaks
    bell = stats.norm.ppf((np.arange(800) + 0.5) / 800)
    assert peaks(bell) == 1
    assert peaks(np.concatenate([bell - 4, bell + 4]) / 4) == 2
    small = np.concatenate([bell, bell[::10] / 3 + 8])  # one part in eleven, far away
    assert peaks((small - small.mean()) / small.std()) == 2
    tiny = np.concatenate([bell, bell[::40] / 3 + 8])  # one part in forty is no peak
    assert peaks((tiny - tiny.mean()) / tiny.std()) == 1


def test_gradients_of_one_weight_are_those_of_autograd(small, module):
    s8 = module("s8_gradient_distribution")
    (single, batch), _ = s8.gradients(5, 40)
    X, y = images(n=s8.N, seed=5)
    network = lv.neural.models.reset(lv.neural.models.smith_le(s8.HIDDEN), seed=5)
    losses = torch.nn.functional.cross_entropy(network(X), y)
    losses.backward()
    slopes = network[-1].weight.grad.numpy().ravel()
    for mean in single.mean(axis=0):  # each is the gradient of some weight
        assert np.abs(slopes - mean).min() < 1e-7
    assert batch.shape == (40, 3)
    assert single.min() <= batch.min() and batch.max() <= single.max()


def test_the_breaking_point_is_where_the_accuracy_is_lost(module, monkeypatch):
    t12n = module("t12n_breaking_point_networks")
    monkeypatch.setattr(t12n, "FACTORS", (1, 4, 8, 16))
    assert t12n._break_of(np.array([0.9, 0.9, 0.9, 0.7])) == pytest.approx(8 + 8 * 0.25)
    assert np.isnan(t12n._break_of(np.array([0.9, 0.9, 0.9, 0.9])))
    flat = np.tile(np.array([[0.9], [0.9], [0.9], [0.7]]), 5)
    found = t12n._break({"accuracy": flat}, seed=1)
    assert (found.value, found.stderr, found.dof) == (pytest.approx(10.0), 0.0, 4)

"""The validations of what the papers measured on networks, each very small: they run and record."""

import dataclasses
import functools
import importlib
import json

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs torch: pip install .[neural]")

import kit  # noqa: E402

import langevin as lv  # noqa: E402


@pytest.fixture
def module():
    with kit.modules_of("validations"):
        yield importlib.import_module


def images(n=None, skip=0, **choices):
    """In MNIST's place: digits, enlarged."""
    data = lv.neural.data.digits(n=n, skip=skip, **choices)
    X = torch.nn.functional.interpolate(data.X, size=(28, 28))
    return dataclasses.replace(data, X=X)


small_network = lv.neural.models.batch_norm_mlp


def make_small(monkeypatch, module):
    monkeypatch.setattr(lv.neural.data, "mnist", images)
    monkeypatch.setattr(lv.neural.models, "f1", functools.partial(small_network, 6, 2))
    b1, b2, s1, t11, networks, keskar = (
        module(name)
        for name in (
            "b1_noise_scale", "b2_noise_scale_in_training", "s1_logistic_evidence",
            "t11_memorisation", "networks", "keskar",
        )
    )  # fmt: skip
    for one, name, value in (
        (b1, "AMOUNT", {"quick": (2, 2)}),
        (b1, "N", 64),
        (b1, "HIDDEN", 2),
        (b1, "POINTS", {"early": 4, "later": 8}),
        (b1, "WIDE", 4),
        (b1, "WIDE_STEPS", 20),
        (b2, "AMOUNT", {"quick": (2, 1)}),
        (b2, "N", 128),
        (b2, "HIDDEN", 2),
        (b2, "WARM", 10),
        (b2, "TIMES", (1, 2, 4, 6, 8, 10)),
        (s1, "SEEDS", {"quick": 2}),
        (s1, "N", 40),
        (s1, "N_TEST", 40),
        (s1, "LAMBDAS", 10.0 ** np.arange(-4, 5, 2)),
        (t11, "SEEDS", {"quick": 2}),
        (t11, "SIZES", {"quick": (6, 60, 400, 10)}),
        (t11, "PROBES", 2),
        (keskar, "PLANS", {"quick": keskar.Plan(100, 5, 2, 40)}),
        (keskar, "LEVELS", (2.0, 1.5, 1.0)),
        (networks, "test_images", lambda normalise: images(100)),
    ):
        assert hasattr(one, name)
        monkeypatch.setattr(one, name, value)


@pytest.mark.parametrize("row", ["S1", "B1", "B2", "T11", "K1", "K2", "K3", "K4"])
@pytest.mark.filterwarnings("ignore")  # at this size much warns that it is undecided
def test_every_row_writes_its_record(row, module, monkeypatch, tmp_path):
    torch.set_num_threads(1)
    make_small(monkeypatch, module)
    record = module("harness").run(row, "quick", tmp_path, lambda text: None)
    assert record["verdict"] != "error", record["findings"]
    assert len(record["checks"]) >= 3 and record["findings"]
    # A control; that of K3 is to agree.
    assert row == "K3" or any(c["expected"] == "differs" for c in record["checks"])
    written = json.loads((tmp_path / f"{row}.json").read_text(encoding="utf-8"))
    assert written["settings"] and written["data"]
    assert record["figures"]
    for figure in record["figures"]:
        assert (tmp_path / f"{figure['name']}.png").stat().st_size > 2_000

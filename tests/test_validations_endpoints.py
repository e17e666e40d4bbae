"""T6 and T7: the fits over a grid of (eta, S), and both rows very small."""

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


@pytest.fixture
def plan(module):
    return dataclasses.replace(module("t6_hessian_norm").PLANS["quick"], n_seeds=2)


def test_the_fits_know_which_of_eta_and_S_decides(plan, module):
    """Planted power laws, one of them for each of two seeds."""
    endpoints = module("endpoints")
    eta, size = np.log10(plan.eta), np.log10(plan.size)
    laws = {"ratio": (-0.7, 0.7), "eta": (-1.0, 0.0), "S": (0.0, 0.5), "both": (-0.6, 0.2)}
    alone = {"ratio": 0.0, "eta": 2.0, "S": -2.0, "both": 1.0}
    for name, (b, c) in laws.items():
        values = np.stack([1 + b * eta + c * size, 3 + b * eta + c * size])
        assert endpoints.beside(plan, values) == pytest.approx(np.full(2, alone[name]), abs=1e-9)
    values = np.stack([2 - 0.7 * plan.noise, 1 + 0.3 * plan.noise])
    assert endpoints.rise(plan, values) == pytest.approx([-0.7, 0.3])
    assert endpoints.correlation(plan, values) == pytest.approx([-1, 1])


def test_cells_without_a_value_are_left_out_and_seeds_with_few_of_them(plan, module):
    endpoints = module("endpoints")
    values = np.stack([2 - 0.7 * plan.noise] * 2)
    values[0, 2:5] = np.nan
    assert endpoints.rise(plan, values) == pytest.approx([-0.7, -0.7])
    values[1, 4:] = np.nan
    assert endpoints.rise(plan, values) == pytest.approx([-0.7])


def test_where_a_loss_first_falls_to_a_level(module):
    crossing = module("endpoints").crossing
    k, share = crossing(np.array([1.0, 0.4, 0.025, 0.4, 0.01]), 0.1)
    assert (k, share) == (1, pytest.approx(0.5))
    assert crossing(np.array([1.0, 0.4]), 0.1) is None
    assert crossing(np.array([0.05, 0.01]), 0.1) is None  # already there at the first look
    assert crossing(np.array([1.0, np.nan, np.nan]), 0.1) is None


def small(monkeypatch, module):
    """Digits, enlarged, in Fashion-MNIST's place; plans of a few steps."""

    @functools.cache
    def images(train=True, n=None, seed=0, normalise=None):
        data = lv.neural.data.digits(train=train, n=n, seed=seed, normalise=normalise)
        return dataclasses.replace(data, X=torch.nn.functional.interpolate(data.X, size=(28, 28)))

    monkeypatch.setattr(lv.neural.data, "fashion_mnist", images)
    t6, t7 = module("t6_hessian_norm"), module("t7_deep_networks")
    few = {"width": 6, "n": 60, "rates": (0.1, 0.2), "sizes": (6, 12, 20), "n_seeds": 2}
    shallow = dataclasses.replace(t6.PLANS["quick"], **few, epochs=(1, 2, 24), level=1.0)
    deep = {
        init: dataclasses.replace(
            plan, network=lambda width: lv.neural.models.deep_mlp(width, 2), **few,
            epochs=(1, 2, 24), level=1.5,
        )
        for init, plan in t7.PLANS["quick"].items()
    }  # fmt: skip
    monkeypatch.setattr(t6, "PLANS", {"quick": shallow})
    monkeypatch.setattr(t7, "PLANS", {"quick": deep})
    monkeypatch.setattr(t7, "TRAINED", 0.2)
    monkeypatch.setattr(module("endpoints"), "PROBES", 2)


@pytest.mark.filterwarnings("ignore")  # at this size much warns that it is undecided
def test_both_rows_write_their_records(module, monkeypatch, tmp_path):
    torch.set_num_threads(1)
    small(monkeypatch, module)
    for row in ("T6", "T7"):
        record = module("harness").run(row, "quick", tmp_path, lambda text: None)
        assert record["verdict"] != "error", record["findings"]
        assert any(c["expected"] == "differs" for c in record["checks"])
        assert all(c["value"] is not None for c in record["checks"])
        written = json.loads((tmp_path / f"{row}.json").read_text(encoding="utf-8"))
        assert written["settings"] and written["data"]
        for figure in record["figures"]:
            assert (tmp_path / f"{figure['name']}.png").stat().st_size > 2_000


@pytest.mark.filterwarnings("ignore")
def test_a_work_folder_is_read_again_and_networks_that_diverged_are_none(
    module, monkeypatch, tmp_path
):
    small(monkeypatch, module)
    endpoints, harness = module("endpoints"), module("harness")
    plan = dataclasses.replace(
        module("t7_deep_networks").PLANS["quick"]["good"], rates=(0.05, 1e30), n_seeds=1
    )
    monkeypatch.setattr(harness, "_work", tmp_path)
    said = []
    found = endpoints.trained(plan, said.append)
    assert len(said) == 3 and found["loss"].shape == (1, 6, 3)
    assert np.isfinite(found["norm"][0, ::2]).all() and np.isnan(found["norm"][0, 1::2]).all()
    assert np.isnan(found["loss"][0, 1::2]).all()
    endpoints._known.clear()

    def never(*arguments):
        raise AssertionError("computed again")

    monkeypatch.setattr(endpoints, "_cells", never)
    again = endpoints.trained(plan, said.append)
    assert all(np.array_equal(again[k], found[k], equal_nan=True) for k in found)
    other = dataclasses.replace(plan, width=7)
    with pytest.raises(AssertionError, match="computed again"):
        endpoints.trained(other, said.append)

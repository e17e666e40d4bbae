"""The validations of lines between networks and of averages of weights, each very small."""

import dataclasses
import importlib
import itertools
import json

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs torch: pip install .[neural]")

import kit  # noqa: E402

import langevin as lv  # noqa: E402


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


@pytest.fixture
def module():
    with kit.modules_of("validations"):
        yield importlib.import_module


def images(size: int, channels: int):
    """In CIFAR-10's and Fashion-MNIST's place: digits, enlarged."""

    def given(n=None, batches=None, **choices):
        data = lv.neural.data.digits(n=None if n is None else min(n, 300), **choices)
        X = torch.nn.functional.interpolate(data.X, size=(size, size))
        return dataclasses.replace(data, X=X.expand(-1, channels, -1, -1).contiguous())

    return given


def make_small(monkeypatch, module):
    monkeypatch.setattr(lv.neural.data, "cifar10", images(32, 3))
    monkeypatch.setattr(lv.neural.data, "fashion_mnist", images(28, 1))
    lines, b4 = module("lines"), module("b4_swa")
    plan = lines.PLANS["quick", "T8"]
    cells = {name: (rate, max(size // 2, 2)) for name, (rate, size) in plan.cells.items()}
    small = dataclasses.replace(
        plan, cells=cells, n=48, n_seeds=2, level=1.5, epochs=4, most=400, stretch=4, probes=2
    )
    for row in ("T8", "T9"):
        monkeypatch.setitem(lines.PLANS, ("quick", row), small)
    monkeypatch.setattr(lines, "POINTS", np.linspace(-1, 2, 7))
    few = {"n": 64, "n_test": 50, "n_seeds": 3, "size": 8, "epochs": 8}
    few |= {"directions": 2, "probes": 2}
    monkeypatch.setitem(b4.PLANS, "quick", dataclasses.replace(b4.PLANS["quick"], **few))


@pytest.mark.parametrize("row", ["T8", "T9", "B4"])
@pytest.mark.filterwarnings("ignore")  # at this size much warns that it is undecided
def test_every_row_writes_its_record(row, module, monkeypatch, tmp_path):
    make_small(monkeypatch, module)
    record = module("harness").run(row, "quick", tmp_path, lambda text: None)
    assert record["verdict"] != "error", record["findings"]
    assert len(record["checks"]) >= 8 and record["findings"]
    assert any(c["expected"] == "differs" for c in record["checks"])
    written = json.loads((tmp_path / f"{row}.json").read_text(encoding="utf-8"))
    assert written["settings"] and written["data"]
    for figure in record["figures"]:
        assert (tmp_path / f"{figure['name']}.png").stat().st_size > 2_000


def test_a_training_goes_on_from_what_is_kept(module, monkeypatch, tmp_path):
    """With --work: the second time nothing is trained."""
    make_small(monkeypatch, module)
    lines, harness = module("lines"), module("harness")
    monkeypatch.setattr(harness, "_work", tmp_path)
    plan, said = lines.PLANS["quick", "T8"], []
    first = lines.trained(plan, "base", said.append)
    assert said and (first.loss <= plan.level).all() and first.late_loss.shape == (2,)
    assert first.level == pytest.approx(lines.trained(plan, "base", said.append).level)
    assert len(said) == 1  # known in this process
    lines._known.clear()
    monkeypatch.setattr(lines, "_train", None)
    again = lines.trained(plan, "base", said.append)
    for field in dataclasses.fields(first):
        assert np.array_equal(getattr(first, field.name), getattr(again, field.name))


def test_the_cells_of_a_plan_have_the_ratios_that_their_claims_are_about(module):
    lines = module("lines")
    for (_, row), plan in lines.PLANS.items():
        noise = {name: rate / size for name, (rate, size) in plan.cells.items()}
        if row == "T8":
            assert noise["large batch"] == pytest.approx(noise["low rate"], rel=1e-12)
            assert noise["base"] == pytest.approx(8 * noise["low rate"], rel=1e-12)
        else:
            assert noise["b = 1"] == pytest.approx(noise["b = 4"], rel=1e-12)
            assert noise["b = 1"] == pytest.approx(noise["b = 1/4"], rel=1e-12)
            assert noise["b = 1"] > 3 * noise["large batch"]


def test_ends_of_one_scale_are_the_same_functions(module):
    """So an end that was only rescaled gives the same line again; the plain line is another."""
    lines = module("lines")
    data = images(32, 3)(n=40)
    net = lv.neural.models.reset(lines.small().double(), seed=0)
    surface = lv.neural.NeuralSurface(net, data, batch_norm="recalibrate")
    rows = [surface.flat(lv.neural.models.reset(surface.module, seed=k)) for k in (1, 2)]
    first, second = np.array(rows)[:, None]
    places = lines._normalised(surface)
    assert [surface.layout.names[surface.layout.places.index(p)] for p in places] == [
        "0.weight", "3.weight",
    ]  # fmt: skip
    shrunk = second.copy()
    for a, b in places:
        shrunk[:, a:b] /= 8
    assert surface.energy(shrunk) == pytest.approx(surface.energy(second), rel=0.02)  # but for eps
    scaled = [lines.one_scale(surface, first, other) for other in (second, shrunk)]
    for (a, b), end in itertools.product(places, scaled):
        assert np.linalg.norm(end[0, a:b]) == pytest.approx(np.linalg.norm(first[0, a:b]))
    assert scaled[0] == pytest.approx(scaled[1], rel=1e-12)
    assert surface.energy(scaled[0]) == pytest.approx(surface.energy(second), rel=0.02)
    plain = [lines.between(surface, first, other)[0] for other in (second, shrunk)]
    assert abs(lines.steepness(plain[0]) - lines.steepness(plain[1])) > 0.05


def test_every_convolution_that_is_normalised_is_found(module):
    """In ResNet-56, whose blocks hold them, too; VGG-11 normalises none."""
    lines, models = module("lines"), lv.neural.models
    data = images(32, 3)(n=2)
    for net, count in ((models.resnet56(), 55), (models.vgg11(), 0)):
        surface = lv.neural.NeuralSurface(net, data)
        found = lines._normalised(surface)
        kernels = sum(1 for m in net.modules() if isinstance(m, torch.nn.Conv2d))
        assert len(set(found)) == len(found) == count == (kernels if count else 0)


def test_schedules_of_b4_have_one_budget(module):
    b4 = module("b4_swa")
    plan = b4.PLANS["quick"]
    n_steps = plan.epochs * (plan.n // plan.size)
    found = b4.factors(plan, n_steps)
    before = len(found.pop("before"))
    assert all(before + len(table) == n_steps for table in found.values())
    assert found["decaying"][-1] == pytest.approx(b4.FINAL)
    assert (np.diff(found["decaying"]) <= 0).all() and np.ptp(found["constant"]) == 0
    ends = found["cyclical"][plan.cycle * (plan.n // plan.size) - 1 :: plan.n // plan.size]
    assert ends == pytest.approx(plan.low / plan.rate)
    assert len(found["cyclical"]) % (plan.cycle * (plan.n // plan.size)) == 0

"""Plans for larger batches: what is predicted, by hand, and trained; the command `tune`."""

import dataclasses
import json
import math

import numpy as np
import pytest
from kit import statistical
from typer.testing import CliRunner

import langevin as lv
from langevin import cli
from langevin.errors import ParameterError, UnsoundError

torch = pytest.importorskip("torch", reason="needs torch: pip install .[neural]")
pytest.importorskip("sklearn", reason="needs scikit-learn: pip install .[neural]")

from measured import classifier  # noqa: E402

from langevin import neural  # noqa: E402
from langevin.neural import plan as planning  # noqa: E402
from langevin.neural import tuning  # noqa: E402


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


def digits(n=600):
    module = neural.models.smith_le(8, n_in=64)
    train, test = neural.data.digits(n=n), neural.data.digits(train=False)
    return neural.NeuralSurface(module, train), test


BASE = lv.SGD(0.05, 4, momentum=0.5)


@pytest.fixture(scope="module")
def plan():
    torch.set_num_threads(1)
    surface, test = digits()
    return planning.large_batch_plan(
        surface, BASE, test=test, n_steps=300, n_replicas=2, n=400, seed=1
    )


def test_all_triples_have_the_baseline_s_noise_scale_and_epochs(plan):
    assert plan.noise_scale == pytest.approx(0.05 * 600 / (4 * 0.5))
    assert plan.triples[0].how == "baseline" and len(plan.triples) >= 4
    for t in plan.triples:
        g = t.learning_rate * 600 / (t.batch_size * (1 - t.momentum))
        assert g == pytest.approx(plan.noise_scale, rel=1e-12)
        assert t.n_steps * t.batch_size == pytest.approx(300 * 4, rel=0.05)
        expected = 1 + t.batch_size / plan.critical.value
        assert t.examples == pytest.approx(expected, nan_ok=True)
    assert {t.how for t in plan.triples} == {"baseline", "learning rate", "momentum"}


def test_the_breaks_are_those_of_their_formulas(plan):
    tops = [s.curvature.value for s in plan.snapshots]
    stable = plan.breaks["stability"]
    assert stable.value == pytest.approx(2 * 1.5 * 4 / (0.05 * max(tops)))
    assert stable.low < stable.value < stable.high
    assert plan.breaks["data"].value == 60
    early = plan.snapshots[0].noise
    rate = early.learning_rate
    turn = plan.breaks["overshoot"]
    if turn.resolved:  # eta scaled to that batch is twice the best step there
        assert 0.05 * turn.value / 4 == pytest.approx(2 * rate(turn.value).value, rel=1e-9)
    cause, size = plan.break_at
    assert size.value == min(b.value for b in plan.breaks.values() if b.resolved)
    assert plan.breaks[cause] is size
    lowest = min(b.low for b in plan.breaks.values() if b.resolved)
    for t in plan.triples:
        if t.how == "learning rate":
            wanted = "yes" if t.batch_size <= lowest else "no"
            assert t.holds == wanted or (t.holds == "unsure" and t.batch_size <= size.value)
    best = plan.recommended
    assert best.holds == "yes" and best.batch_size <= max(lowest, 4)


@statistical(comparisons=3, seed=21, dof=10, smoke=False)
def test_the_recommended_triple_reaches_the_baseline_s_accuracy(seed, check):
    """Trained on its own seeds, and beside it a batch grown without its learning rate."""
    surface, test = digits()
    base = neural.large_batch_plan(
        surface, BASE, test=test, n_steps=400, n_replicas=6, measured=1, n=100, seed=seed
    )
    best = base.recommended
    assert best.batch_size >= 8  # a plan that only repeats the baseline would be no help
    accuracy = {}
    forgotten = dataclasses.replace(best, learning_rate=BASE.learning_rate / 8, momentum=0.5)
    for name, triple in (("base", base.triples[0]), ("best", best), ("forgotten", forgotten)):
        tried = planning._tried(triple, surface, test, 6, seed + 1)
        accuracy[name] = tried.accuracy
    a, b, c = (accuracy[name] for name in ("base", "best", "forgotten"))
    check.z((b.value - a.value) / math.hypot(a.stderr, b.stderr), "equal accuracy", dof=10)
    check.twin((c.value - a.value) / math.hypot(a.stderr, c.stderr), "rate not scaled")


def test_a_prediction_that_the_baseline_disproves_is_left_out():
    noise = neural.gradient_noise_scale(classifier(), of="training_set")
    snapshot = planning.Snapshot(1, noise, lv.result.Estimate(100.0, 0.0, 0))
    found = planning._breaks(10_000, lv.SGD(0.1, 32), [snapshot])
    assert not found["stability"].resolved and "baseline trains" in found["stability"].reason
    assert found["data"].value == 1_000
    assert list(planning._cautions([snapshot], noise.simple, found))
    cause, size = planning._first({k: v for k, v in found.items() if k == "stability"})
    assert size.value == math.inf and "nothing" in cause


def test_batch_normalisation_is_measured_in_batches():
    found = neural.large_batch_plan(
        classifier(norm=True, n=200), lv.SGD(0.1, 4), n_steps=40, n_replicas=2
    )
    assert found.snapshots[0].noise.method == "batches" and not found.tested


@pytest.mark.parametrize(
    "sgd, error",
    [
        (lv.SGD(lv.schedules.Cosine(0.1, 10), 4), UnsoundError),
        (lv.SGD(np.array([0.1, 0.2]), 4), ParameterError),
        (lv.Overdamped(0.1, 0.1), UnsoundError),
    ],
)
def test_dynamics_without_a_constant_noise_scale_are_refused(sgd, error):
    with pytest.raises(error, match="large_batch_plan"):
        neural.large_batch_plan(classifier(), sgd)


# --- the command ----------------------------------------------------------------------------------

MODEL = """
import torch

def model():
    g = torch.Generator().manual_seed(0)
    X = torch.randn(120, 4, generator=g)
    return torch.nn.Linear(4, 3), (X, X[:, :3].argmax(1))

def wrong():
    return 3
"""


def test_tune_a_model_of_one_s_own(tmp_path):
    (tmp_path / "mine.py").write_text(MODEL)
    out = tmp_path / "plan.json"
    options = ["--batch-size", "2", "--momentum", "0", "--steps", "60", "--replicas", "2"]
    done = CliRunner().invoke(
        cli.app,
        ["tune", f"{tmp_path}/mine.py:model", *options, "--verify", "--output", str(out)],
    )
    assert done.exit_code == 0, done.output
    assert "Recommended: eta" in done.output and "Critical batch size" in done.output
    assert "training accuracy" in done.output
    content = json.loads(out.read_text())
    assert content["noise_scale"] == pytest.approx(0.1 * 120 / 2)
    assert content["recommended"]["batch_size"] >= 2
    assert all(0 <= t["accuracy"]["value"] <= 1 for t in content["triples"])


@pytest.mark.parametrize(
    "model, why",
    [
        ("mine.py", "give FILE.py:FUNCTION"),
        ("none.py:model", "no file"),
        ("no_such_package:model", "No module named"),
        ("{}/mine.py:absent", "no function absent"),
        ("{}/mine.py:wrong", "must return"),
    ],
)
def test_models_that_cannot_be_loaded_are_refused(tmp_path, model, why):
    (tmp_path / "mine.py").write_text(MODEL)
    with pytest.raises(ParameterError, match=why):
        tuning.load(model.format(tmp_path))


def test_infinite_numbers_are_null_in_a_file():
    assert tuning._known({"a": [math.inf, 1.0, math.nan], "b": ("x", 2)}) == {
        "a": [None, 1.0, None],
        "b": ["x", 2],
    }


def test_a_plan_can_be_read(plan):
    assert "recommended: learning_rate=" in repr(plan)

"""Multilayer perceptrons in one compiled loop: the same numbers as torch's batched products."""

import numpy as np
import pytest

import langevin as lv
from langevin.errors import DivergenceError

torch = pytest.importorskip("torch", reason="needs torch: pip install .[neural]")

from torch import nn  # noqa: E402
from torch.nn import functional as F  # noqa: E402

from langevin import neural  # noqa: E402
from langevin.engines import perceptron, perceptron_text  # noqa: E402
from langevin.engines.perceptron_text import BLOCK, DEPTH, ROWS  # noqa: E402
from langevin.neural import NeuralSurface  # noqa: E402
from langevin.neural.evaluation import Evaluation  # noqa: E402
from langevin.schedules import Exponential, Steps  # noqa: E402


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


def numbers(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


X, LABELS, TARGETS = numbers(300, 13), torch.arange(300) % 10, numbers(300, 10, seed=1)


def network():
    """Widths on both sides of the tiles' edges, every activation, a layer without bias."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Linear(13, 21), nn.ReLU(), nn.Linear(21, 18, bias=False), nn.Tanh(), nn.Linear(18, 9),
        nn.LeakyReLU(0.1), nn.Linear(9, 7), nn.Sigmoid(), nn.Identity(), nn.Linear(7, 10),
    ).double()  # fmt: skip


def train(dynamics, *, compiled=True, loss="cross_entropy", given=None, n_replicas=3, **more):
    y = LABELS if loss == "cross_entropy" else TARGETS
    surface = NeuralSurface(network(), (X, y), loss=loss, **(given or {}))
    options = {"n_steps": 40, "seed": 4, "progress": False}
    observe = neural.BatchLoss(every=10)
    with pytest.MonkeyPatch.context() as patch:
        if not compiled:
            patch.setattr(perceptron, "trains", lambda *given: None)
        result = lv.simulate(
            surface, dynamics, n_replicas=n_replicas, observe=observe, **options, **more
        )
    assert result.how == ("compiled" if compiled else "batched")
    return result


assert {1, 30, 64, 150, 300} & set(range(BLOCK)) and BLOCK < 150  # one block of examples and more
RUNS = {
    "several sizes": (lv.SGD(0.1, [1, 30, 150], momentum=0.9), {"given": {"l2": 0.01}}),
    "all at once": (lv.SGD(0.2, 300, sampling="without_replacement"), {"loss": "squared"}),
    "epochs": (lv.SGD(0.2, 70, sampling="epoch_shuffle", nesterov=True, momentum=0.5), {}),
    "schedules": (
        lv.SGD(Exponential(0.2, 30), Steps(20, (20,), 7.0), weight_decay=0.01),
        {"loss": "mse"},
    ),
    "adam": (lv.Adam(0.01, 9), {"loss": "mse", "given": {"l2": 0.1}}),
    "overdamped": (lv.Overdamped(1e-3, 0.05), {}),
    "averaged noise": (lv.Overdamped(1e-3, 0.05, integrator="leimkuhler_matthews"), {}),
    "mini-batches and noise": (lv.Overdamped(1e-3, 0.05, batch_size=[3, 9, 200]), {}),
    "clipped": (lv.SGD(0.5, 9, momentum=0.9, clip_norm=[0.05, 0.5, 50.0]), {}),
    "noisy labels": (lv.SGD(0.5, 9), {"given": {"label_noise": [0.0, 0.5, 1.0]}}),
    "underdamped": (lv.Underdamped(1e-3, 1.0, 0.1, splitting="OBABO"), {"loss": "squared"}),
}


@pytest.mark.parametrize("name", RUNS)
def test_it_is_the_batched_products(name):
    dynamics, options = RUNS[name]
    compiled, batched = (train(dynamics, compiled=c, **options) for c in (True, False))
    np.testing.assert_allclose(compiled.positions, batched.positions, rtol=0, atol=1e-12)
    losses = (r["batch_loss"].values for r in (compiled, batched))
    np.testing.assert_allclose(*losses, rtol=1e-11, atol=1e-13)
    assert np.abs(compiled.positions[0] - compiled.positions[1]).max() > 1e-3


PLANTED = {  # in the text of the loop
    "S forgotten": ("share = real(1) / real(size)", "share = real(1)"),
    "one step off": ("ident, begin_step + s,", "ident, begin_step + s + 1,"),
    "blocks do not add up": ("if begin > 0:", "if begin > 1000:"),
    "shared mini-batches": ("index, size, ident,", "index, size, np.uint64(0),"),
}


@pytest.mark.parametrize("bug", PLANTED)
def test_a_planted_bug_is_seen(bug, monkeypatch):
    dynamics, options = RUNS["several sizes"]
    right, wrong = PLANTED[bug]

    def planted(*given):
        text = perceptron_text.perceptron_source(*given)
        assert right in text
        return text.replace(right, wrong)

    monkeypatch.setattr(perceptron, "perceptron_source", planted)
    compiled, batched = (train(dynamics, compiled=c, **options) for c in (True, False))
    assert np.abs(compiled.positions - batched.positions).max() > 1e-6


def test_float32_is_float64_rounded():
    sgd = lv.SGD(0.1, 30, momentum=0.9)
    single, double = (train(sgd, dtype=dtype).positions for dtype in ("float32", "float64"))
    assert single.dtype == np.float32
    assert 0 < np.abs(single - double).max() < 2e-5


def test_an_ensemble_is_its_single_runs():
    sgd = lv.SGD(0.1, 30, momentum=0.9)
    together = train(sgd, n_replicas=5).positions
    for k in range(5):
        alone = train(sgd, n_replicas=1, first_replica=k).positions
        np.testing.assert_array_equal(alone[0], together[k])


@pytest.mark.parametrize("compiled", [True, False])
def test_a_loss_that_is_not_finite_is_found(compiled):
    with pytest.raises(DivergenceError, match="replica 1") as caught:
        train(lv.SGD([0.1, 1e200, 0.1], 30), compiled=compiled, loss="squared")
    kept = caught.value.result
    assert (kept.diverged >= 0).tolist() == [False, True, False]
    assert np.isfinite(kept.positions[[0, 2]]).all()


def test_a_replica_that_diverged_leaves_no_trace_in_others():
    """Rows of a tile beyond the mini-batch are read: they must not hold another's NaN."""
    rates = np.array([0.1, 1e300, 0.1])
    sgd = lv.SGD(rates, [3, 90, 3])
    options = {"loss": "squared", "on_divergence": "absorb"}
    with_it = train(sgd, **options).positions
    alone = train(lv.SGD(0.1, 3), **options).positions
    np.testing.assert_array_equal(with_it[[0, 2]], alone[[0, 2]])


class Skip(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(13, 13), nn.Linear(13, 10)

    def forward(self, x):
        return self.second(torch.relu(self.first(x)) + x)


class Written(nn.Module):
    """A forward() of functions, with a view."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(13, 8), nn.Linear(8, 10)

    def forward(self, x):
        return self.second(F.relu(self.first(x.view(x.size(0), -1))))


class Aside(Written):
    """Reads its input twice."""

    def forward(self, x):
        self.first(x)
        return self.second(torch.tanh(self.first(x)))


class Unused(Written):
    def __init__(self):
        super().__init__()
        self.third = nn.Linear(3, 3)


def frozen():
    module = nn.Sequential(nn.Linear(13, 4), nn.ReLU(), nn.Linear(4, 10))
    module[0].bias.requires_grad_(False)
    return module


MODULES = {
    "a frozen bias": (frozen, False),
    "a skip connection": (Skip, False),
    "functions": (Written, True),
    "a layer twice": (Aside, False),
    "a layer never": (Unused, False),
    "batch normalisation": (
        lambda: nn.Sequential(nn.Linear(13, 4), nn.BatchNorm1d(4), nn.Linear(4, 10)), False,
    ),
    "two activations": (lambda: nn.Sequential(nn.Linear(13, 10), nn.ReLU(), nn.Tanh()), False),
    "an activation first": (lambda: nn.Sequential(nn.Tanh(), nn.Linear(13, 10)), False),
    "another activation": (lambda: nn.Sequential(nn.Linear(13, 10), nn.GELU()), False),
    "one layer": (lambda: nn.Linear(13, 10), True),
    "dropout that is off": (lambda: nn.Sequential(nn.Dropout(0.0), nn.Linear(13, 10)), True),
    "dropout": (lambda: nn.Sequential(nn.Dropout(0.5), nn.Linear(13, 10)), False),
    "falling below 0": (lambda: nn.Sequential(nn.Linear(13, 10), nn.LeakyReLU(-0.5)), False),
}  # fmt: skip


@pytest.mark.parametrize("name", MODULES)
def test_it_takes_what_it_can_train_and_nothing_else(name):
    make, wanted = MODULES[name]
    surface = NeuralSurface(make().double(), (X, LABELS))
    found = perceptron.trains(surface, Evaluation(surface, torch.float64))
    assert (found is not None) == wanted


@pytest.mark.parametrize(
    "data, loss, wanted",
    [
        ((X, LABELS), lambda outputs, y: F.cross_entropy(outputs, y, reduction="none"), False),
        ((X, TARGETS.softmax(1)), "cross_entropy", False),
        ((X.view(300, 1, 13), LABELS), "cross_entropy", False),
        ((X, TARGETS), "mse", True),
        ((X, LABELS), "cross_entropy", True),
    ],
)
def test_it_knows_the_losses_and_targets_it_can_take(data, loss, wanted):
    flatten = [nn.Flatten()] if data[0].ndim == 3 else []
    module = nn.Sequential(*flatten, nn.Linear(13, 10)).double()
    surface = NeuralSurface(module, data, loss=loss)
    found = perceptron.trains(surface, Evaluation(surface, torch.float64))
    assert (found is not None) == (wanted or bool(flatten))


def test_tiles_divide_a_block():
    assert BLOCK % ROWS == 0 and BLOCK % DEPTH == 0 and DEPTH % ROWS == 0

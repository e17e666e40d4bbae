"""Dropout in training: masks of their own for each replica, the same alone or in company."""

import naive
import numpy as np
import pytest
from kit import statistical

import langevin as lv

torch = pytest.importorskip("torch", reason="needs torch: pip install .[neural]")

from torch import nn  # noqa: E402
from torch.nn import functional as F  # noqa: E402

from langevin import neural  # noqa: E402
from langevin.neural import NeuralSurface  # noqa: E402
from langevin.neural.dropout import Draw  # noqa: E402

_generator = torch.Generator().manual_seed(0)
X = torch.randn(60, 5, generator=_generator, dtype=torch.float64)
Y = torch.arange(60) % 3
KEY = (5, 0)


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


class Own(nn.Module):
    """What users write: dropout as a function, as a module that is used twice, a norm."""

    def __init__(self):
        super().__init__()
        self.first, self.middle, self.last = nn.Linear(5, 6), nn.Linear(6, 6), nn.Linear(6, 3)
        self.norm, self.dropout = nn.BatchNorm1d(6), nn.Dropout(0.25)

    def forward(self, x):
        x = F.dropout(torch.relu(self.norm(self.first(x))), 0.5, self.training)
        x = self.dropout(torch.relu(self.middle(self.dropout(x))))
        return self.last(x)


class Looped(Own):
    """The same for a module that can neither be traced nor vmapped."""

    def forward(self, x):
        return super().forward(x if float(x.detach().sum()) < 1e9 else -x)


class Convolution(nn.Module):
    """Dropout behind a layer that has no batched form."""

    def __init__(self):
        super().__init__()
        self.convolution, self.last = nn.Conv1d(1, 2, 3), nn.Linear(6, 3)
        self.dropout = nn.Dropout(0.5)

    def forward(self, x):
        hidden = torch.relu(self.convolution(x.unsqueeze(1))).flatten(1)
        return self.last(self.dropout(hidden))


def surface(kind=Own, training=True, **options):
    torch.manual_seed(1)
    return NeuralSurface(kind().double().train(training), (X, Y), **options)


def train(given, dynamics=None, *, n_replicas=1, n_steps=40, **more):
    dynamics = dynamics or lv.SGD(0.1, 8, momentum=0.5)
    return lv.simulate(
        given, dynamics, n_replicas=n_replicas, n_steps=n_steps, seed=5, progress=False, **more
    )


@pytest.mark.parametrize(
    "kind, how", [(Own, "batched"), (Looped, "a loop"), (Convolution, "a loop")]
)
@pytest.mark.parametrize("policy", ["batch", "recalibrate"])
def test_an_ensemble_is_its_single_runs(kind, how, policy):
    observe = (neural.Loss(), neural.Accuracy((X[:20], Y[:20])), neural.BatchLoss(every=9))
    given = surface(kind, batch_norm=policy)
    state = torch.random.get_rng_state()
    together = train(given, n_replicas=4, observe=observe)
    assert together.how.startswith(how), together.how
    for k in range(4):
        alone = train(given, first_replica=k, observe=observe)
        np.testing.assert_allclose(alone.positions[0], together.positions[k], rtol=0, atol=1e-12)
        for name in ("loss", "accuracy", "batch_loss"):
            mine, its = alone[name].values[0], together[name].values[k]
            np.testing.assert_allclose(mine, its, rtol=0, atol=1e-12)
    assert torch.equal(state, torch.random.get_rng_state())
    still = train(surface(kind, training=False, batch_norm=policy), n_replicas=4)
    assert np.abs(still.positions - together.positions).max() > 1e-2


def test_the_same_start_is_dropped_differently_by_each_replica():
    run = train(surface(), lv.SGD(0.1, 60, sampling="without_replacement"), n_replicas=3,
                start="module")  # fmt: skip
    assert np.abs(run.positions[0] - run.positions[1]).max() > 1e-3
    calm = train(surface(training=False), lv.SGD(0.1, 60, sampling="without_replacement"),
                 n_replicas=3, start="module")  # fmt: skip
    np.testing.assert_allclose(calm.positions[0], calm.positions[1], rtol=0, atol=1e-12)


def test_a_step_is_a_plain_one_with_these_masks():
    """The network written out, its masks those of replica 2 at the first step."""
    given = surface()
    run = train(given, lv.SGD(0.1, 60, sampling="without_replacement"), n_steps=1,
                first_replica=2, start="module")  # fmt: skip
    draw = Draw("float64", np.array([2], np.uint64), 0, KEY)
    masks = [draw.mask(k, (1, 60, 6), p)[0] for k, p in enumerate((0.5, 0.25, 0.25))]
    # A batch of all examples is a permutation of them, and units are those of its places.
    from langevin.engines.streams import Indices

    zero = np.zeros(1, np.int64)
    order = Indices("without_replacement", 60, np.array([2]), KEY).draw(
        0, zero + 60, zero, zero, 60
    )
    order = torch.from_numpy(order[0])
    module = given.with_parameters(given.flat())
    x = F.relu(module.norm(module.first(X[order]))) * masks[0] * masks[1]
    loss = F.cross_entropy(module.last(F.relu(module.middle(x)) * masks[2]), Y[order])
    slopes = torch.autograd.grad(loss, list(module.parameters()))
    expected = given.flat() - 0.1 * torch.cat([s.reshape(-1) for s in slopes]).numpy()
    np.testing.assert_allclose(run.positions[0], expected, rtol=0, atol=1e-14)


def test_nothing_is_dropped_when_it_is_measured():
    given = surface()
    run = train(given, n_replicas=2, observe=(neural.Loss(), neural.GradientNorm()))
    calm = surface(training=False)
    for k in range(2):
        assert (
            run["loss"].final[k] == calm.energy(run.positions[k]) == given.energy(run.positions[k])
        )
        norm = np.linalg.norm(calm.gradient(run.positions[k]))
        assert run["gradient_norm"].final[k] == pytest.approx(norm, abs=1e-14)


@pytest.mark.parametrize(
    "dynamics", [lv.Underdamped(0.01, 1.0, 0.1, batch_size=8), lv.Overdamped(0.01, 0.1), lv.Adam()]
)
def test_windows_change_nothing(dynamics):
    whole = train(surface(), dynamics, n_replicas=3, n_steps=100)
    windows = train(surface(), dynamics, n_replicas=3, n_steps=100, observe=neural.Loss(every=7))
    np.testing.assert_array_equal(windows.positions, whole.positions)


def test_masks_are_the_naive_twin_s():
    draw = Draw("float64", np.array([3, 11], np.uint64), 17, (7, 9))
    mask = draw.mask(2, (2, 3, 5), 0.3).numpy().reshape(2, 15)
    for r, replica in enumerate((3, 11)):
        words = [naive.philox((replica, 17, b, 6 | 2 << 8), (7, 9)) for b in range(4)]
        kept = np.concatenate(words)[:15] >= round(0.3 * 2**32)
        np.testing.assert_allclose(mask[r], np.where(kept, 1 / 0.7, 0.0), rtol=1e-15)
    assert (
        draw.seed(1)
        == naive.philox((11, 17, 0, 7), (7, 9))[0] << 32 | naive.philox((11, 17, 0, 7), (7, 9))[1]
    )
    assert not draw.mask(0, (2, 4), 1.0).any() and (draw.mask(0, (2, 4), 0.0) == 1).all()


@statistical(comparisons=6, seed=2)
def test_units_are_kept_with_their_probability_and_independently(seed, check):
    n, p = 40_000, 0.3
    key = (seed & 0xFFFFFFFF, seed >> 32)
    drawn = [
        Draw("float32", np.array([4, 5], np.uint64), step, key).mask(layer, (2, n), p).numpy() > 0
        for step, layer in ((8, 0), (9, 0), (8, 1))
    ]
    check.count(int(drawn[0][0].sum()), n, 1 - p, "kept")
    check.twin((drawn[0][0].sum() - n / 2) / np.sqrt(n / 4), "half of them")
    spread = p * (1 - p) * np.sqrt(n)
    centred = [d - (1 - p) for d in drawn]
    pairs = {
        "replicas": (centred[0][0], centred[0][1]),
        "steps": (centred[0][0], centred[1][0]),
        "layers": (centred[0][0], centred[2][0]),
        "neighbours": (centred[0][0][:-1], centred[0][0][1:]),
        "blocks": (centred[0][0][:-4], centred[0][0][4:]),
    }
    for name, (a, b) in pairs.items():
        check.z((a * b).sum() / spread, name)
    check.twin((centred[0][0] ** 2).sum() / spread, "the same mask")

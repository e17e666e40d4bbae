"""A grid of label noise in one run: each replica on labels of its own."""

import numpy as np
import pytest

import langevin as lv
from langevin.errors import CheckpointError, ParameterError

torch = pytest.importorskip("torch", reason="needs torch: pip install .[neural]")

from torch import nn  # noqa: E402

from langevin import neural  # noqa: E402
from langevin.neural import NeuralSurface  # noqa: E402

SHARES = np.array([0.0, 0.25, 0.5, 0.25])
DIGITS = neural.data.digits(n=120, seed=3)
OBSERVE = (neural.Loss(), neural.Accuracy(), neural.GradientNorm(), neural.BatchLoss())


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


def surface(data=DIGITS, **options):
    torch.manual_seed(1)
    layers = [nn.Flatten(), nn.Linear(64, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Linear(6, 10)]
    return NeuralSurface(nn.Sequential(*layers).double(), data, **options)


def train(given, dynamics, *, n_replicas=1, n_steps=30, observe=OBSERVE, **more):
    return lv.simulate(
        given, dynamics, n_replicas=n_replicas, n_steps=n_steps, seed=5, progress=False,
        observe=observe, **more
    )  # fmt: skip


@pytest.mark.parametrize(
    "dynamics",
    [
        lv.SGD(0.1, np.array([8, 8, 20, 20]), momentum=0.5, sampling="epoch_shuffle"),
        lv.Adam(0.01, 16),
        lv.Overdamped(0.001, 0.05),
    ],
    ids=("sgd", "adam", "overdamped"),
)
@pytest.mark.parametrize("policy", ["batch", "recalibrate"])
def test_each_replica_trains_on_the_labels_of_its_share(dynamics, policy):
    together = train(surface(label_noise=SHARES, batch_norm=policy), dynamics, n_replicas=4)
    for k, share in enumerate(SHARES):
        data = neural.data.digits(n=120, seed=3, label_noise=float(share))
        assert int(data.corrupted.sum()) == 120 * share
        one = dynamics
        if isinstance(dynamics, lv.SGD):
            one = lv.SGD(0.1, dynamics.batch_size[k], momentum=0.5, sampling="epoch_shuffle")
        alone = train(surface(data, batch_norm=policy), one, first_replica=k)
        np.testing.assert_allclose(alone.positions[0], together.positions[k], rtol=0, atol=1e-12)
        for observer in OBSERVE:
            mine, its = (run[observer.name].values for run in (alone, together))
            np.testing.assert_allclose(mine[0], its[k], rtol=0, atol=1e-10)
    clean = train(surface(batch_norm=policy), dynamics, n_replicas=4)
    np.testing.assert_array_equal(clean.positions[0], together.positions[0])
    assert np.abs(clean.positions[1:] - together.positions[1:]).max() > 1e-2


def test_seeds_and_kinds_of_noise():
    X, y = DIGITS

    def noisy(share, seed, kind="any"):
        return neural.data.corrupt_labels(y, share, n_classes=10, seed=seed, noisy_label=kind)[0]

    given = surface((X, y), label_noise=0.5, label_seed=np.array([1, 2, 1]), noisy_label="other")
    assert len(given.labels.table) == 2
    for k, seed in enumerate((1, 2, 1)):
        assert torch.equal(given.of_replica(k).y, noisy(0.5, seed, "other"))
    assert torch.equal(given.y, y)
    one = surface((X, y), label_noise=0.25, label_seed=7)
    assert one.labels is None and torch.equal(one.y, noisy(0.25, 7)) and one.of_replica(0) is one
    assert "label_noise=0.5, noisy_label='other'" in repr(given)
    assert "label_noise" not in repr(surface())
    theta = given.flat()
    own = surface((X, noisy(0.5, 2, "other"))).energy(theta)
    assert given.of_replica(1).energy(theta) == own != given.energy(theta)


def test_other_noise_is_another_run(tmp_path):
    sgd = lv.SGD(0.1, 8)
    first = surface(label_noise=[0.0, 0.5], label_seed=1)
    train(first, sgd, n_replicas=2, checkpoint=tmp_path)
    for other, words in (
        (surface(label_noise=[0.5, 0.0], label_seed=1), "label_noise=.*0.5, 0."),
        (surface(label_noise=[0.0, 0.5], label_seed=2), "data of the surface"),
    ):
        with pytest.raises(CheckpointError, match=words):
            train(other, sgd, n_replicas=2, checkpoint=tmp_path)


NOISY = neural.data.digits(n=120, label_noise=0.25)
NUMBERS = (DIGITS.X, DIGITS.X.flatten(1).mean(1))


@pytest.mark.parametrize(
    "make, words",
    [
        (lambda: surface(label_noise=1.5), "from 0 to 1"),
        (lambda: surface(label_noise=[0.1, -0.1]), "from 0 to 1"),
        (lambda: surface(label_noise=[[0.1, 0.2]]), "one per replica"),
        (lambda: surface(label_noise=[]), "one per replica"),
        (lambda: surface(label_noise="much"), "one per replica"),
        (lambda: surface(label_noise=[0.1, 0.2], label_seed=[1, 2, 3]), "2 shares"),
        (lambda: surface(label_noise=0.1, label_seed=0.5), "whole number"),
        (lambda: surface(label_noise=0.1, noisy_label="wrong"), "noisy_label"),
        (lambda: surface(label_seed=3), "give label_noise"),
        (lambda: surface(NOISY, label_noise=0.5), "already have"),
        (lambda: surface(NUMBERS, label_noise=0.5), "needs labels"),
        (lambda: train(surface(label_noise=[0.1, 0.2]), lv.SGD(0.1, 8), n_replicas=3), "3: give"),
        (lambda: surface(label_noise=[0.1, 0.2]).of_replica(2), "between 0 and 1"),
    ],
)
def test_noise_that_cannot_be_is_refused(make, words):
    with pytest.raises(ParameterError, match=words):
        make()


def test_noise_that_the_module_has_no_output_for_is_refused():
    """Nine outputs are enough for these three images, not for the random ones of ten classes."""
    data = neural.data.digits(n=3, seed=1)
    assert int(data.y.max()) == 8
    module = nn.Sequential(nn.Flatten(), nn.Linear(64, 9))
    neural.NeuralSurface(module, data)
    with pytest.raises(ParameterError, match=r"labels from \d to 9, but the module has 9 outputs"):
        neural.NeuralSurface(module, data, label_noise=[1.0] * 20, label_seed=range(20))

"""Langevin dynamics with the gradient of mini-batches, on data and on networks."""

import numpy as np
import pytest
from kit import replicas, statistical

import langevin as lv
from langevin.errors import LangevinError, UnsoundError

torch = pytest.importorskip("torch", reason="needs torch: pip install .[neural]")

from torch import nn  # noqa: E402

from langevin import neural  # noqa: E402
from langevin.engines.streams import Indices, Normals  # noqa: E402
from langevin.neural import NeuralSurface  # noqa: E402

SAMPLINGS = ("with_replacement", "without_replacement", "epoch_shuffle")
N = 40
_generator = torch.Generator().manual_seed(4)
U = torch.randn(N, 3, generator=_generator, dtype=torch.float64)
V = U @ torch.tensor([1.0, -0.5, 0.3]).double() + torch.randn(N, generator=_generator).double()
LABELS = torch.arange(N) % 2


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


def regression(columns=3):
    """The same least squares as a network and as a FiniteSum."""
    u, v = U[:, :columns], V
    network = NeuralSurface(nn.Linear(columns, 1, bias=False).double(), (u, v), loss="squared")
    return network, lv.surfaces.linear_regression(u.numpy(), v.numpy())


def classifier():
    torch.manual_seed(1)
    module = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)).double()
    return NeuralSurface(module, (U, LABELS))


def train(surface, dynamics, *, n_replicas=1, n_steps=40, seed=5, **more):
    return lv.simulate(
        surface, dynamics, n_replicas=n_replicas, n_steps=n_steps, seed=seed, progress=False, **more
    )


# --- the same steps everywhere --------------------------------------------------------------------


@pytest.mark.parametrize("sampling", SAMPLINGS)
@pytest.mark.parametrize("integrator", ["euler_maruyama", "leimkuhler_matthews"])
@pytest.mark.parametrize("sizes", [6, np.array([6, 1, 9, 9])])
def test_a_network_takes_the_core_s_steps(sampling, integrator, sizes):
    network, data = regression()
    dynamics = lv.Overdamped(
        1 / N, 0.05, integrator, batch_size=sizes, sampling=sampling, drop_last=False
    )
    a, b = (train(s, dynamics, n_replicas=4, start=np.zeros(3)) for s in (network, data))
    np.testing.assert_allclose(a.positions, b.positions, rtol=0, atol=1e-13)
    full = train(data, lv.Overdamped(1 / N, 0.05, integrator), n_replicas=4, start=np.zeros(3))
    assert np.abs(full.positions - b.positions).max() > 1e-2


@pytest.mark.parametrize(
    "dynamics",
    [
        lv.Overdamped(0.1, 0.05, batch_size=N, sampling="without_replacement"),
        lv.Underdamped(0.1, 1.0, 0.1, batch_size=N, sampling="without_replacement"),
    ],
)
def test_a_batch_of_all_examples_is_the_full_gradient(dynamics):
    whole = {"temperature": 0.1, "dt": dynamics.dt}
    if isinstance(dynamics, lv.Underdamped):
        whole = lv.Underdamped(friction=1.0, **whole)
    else:
        whole = lv.Overdamped(**whole)
    a, b = (train(classifier(), d, n_replicas=3) for d in (dynamics, whole))
    np.testing.assert_allclose(a.positions, b.positions, rtol=0, atol=1e-12)


def kicks(splitting, carried):
    """Underdamped dynamics written out, one letter after another; a gradient after every A."""
    surface = classifier()
    x, v = surface.flat(), np.zeros(surface.dim)
    dt, friction, temperature, size = 0.1, 1.0, 0.1, 5
    share = {letter: dt / splitting.count(letter) for letter in "BAO"}
    decay = np.exp(-friction * share["O"])
    spread = np.sqrt(temperature * (1 - decay**2))
    draw = Indices("with_replacement", N, np.array([0]), (5, 0))
    normals = Normals("float64", np.array([0]), splitting.count("O") * surface.dim, (5, 0))
    zero = np.zeros(1, np.int64)
    slope, number = None, 0
    for step in range(40):
        z = normals.at(step)[0].reshape(-1, surface.dim)
        if not carried:
            slope = None
        drawn = 0
        for letter in splitting:
            if letter == "A":
                x, slope = x + share["A"] * v, None
            elif letter == "O":
                v, drawn = decay * v + spread * z[drawn], drawn + 1
            else:
                if slope is None:
                    rows = torch.from_numpy(draw.draw(number, zero + size, zero, zero, size))[0]
                    some = NeuralSurface(surface.module, (U[rows], LABELS[rows]))
                    slope, number = some.gradient(x), number + 1
                v = v - share["B"] * slope
    return x, v


@pytest.mark.parametrize("splitting", ["BAOAB", "ABOBA", "OBABO", "BABAO"])
def test_underdamped_dynamics_on_mini_batches_is_its_letters(splitting):
    x, v = kicks(splitting, splitting in ("BAOAB", "OBABO"))
    dynamics = lv.Underdamped(0.1, 1.0, 0.1, splitting=splitting, batch_size=5)
    run = train(classifier(), dynamics, start="module")
    np.testing.assert_allclose(run.positions[0], x, rtol=0, atol=1e-12)
    np.testing.assert_allclose(run.velocities[0], v, rtol=0, atol=1e-12)
    # Neither company nor windows matter: a carried gradient is that of its own batch.
    more = train(classifier(), dynamics, n_replicas=3, start="module", observe=neural.Loss(every=7))
    np.testing.assert_allclose(more.positions[0], x, rtol=0, atol=1e-12)


# --- the law --------------------------------------------------------------------------------------


def discrete_variance(rate, temperature, size, *, batches=True):
    """Stationary variance of ``x' = (1 - rate a_B) x - rate b_B + sqrt(2 T rate) xi`` in 1-D.

    a_B and b_B are means over a batch of an example's curvature and its gradient at the minimum.
    """
    u, v = U[:, 0].numpy(), V.numpy()
    minimum = (u @ v) / (u @ u)
    curvatures, gradients = u**2, u * (u * minimum - v)
    contraction = (1 - rate * curvatures.mean()) ** 2
    kick = 2 * temperature * rate
    if batches:
        contraction += rate**2 * curvatures.var() / size
        kick += rate**2 * gradients.var() / size
    return minimum, kick / (1 - contraction)


def variance_z(x, mean, variance):
    """z of the second moment about a known mean, whose standard error is the fourth moment's."""
    squares = (x - mean) ** 2
    return (squares.mean() - variance) / (squares.std() / np.sqrt(len(x)))


def test_the_prediction_is_the_recursion():
    data = regression(1)[1]
    dynamics = lv.Overdamped(1 / N, 0.2, batch_size=3)
    law = lv.predict.quadratic(data, dynamics)
    mean, variance = discrete_variance(0.2, 1 / N, 3)
    assert law.covariance[0, 0] == pytest.approx(variance, rel=1e-12)
    assert law.mean[0] == pytest.approx(mean, rel=1e-12)
    cold = lv.predict.quadratic(data, lv.Overdamped(0.0, 0.2, batch_size=3)).covariance
    sgd = lv.predict.quadratic(data, lv.SGD(0.2, 3)).covariance
    np.testing.assert_allclose(cold, sgd, rtol=1e-12)


@statistical(comparisons=2, seed=3)
def test_the_stationary_variance_has_both_noises(seed, check):
    mean, variance = discrete_variance(0.2, 1 / N, 3)
    _, thermal = discrete_variance(0.2, 1 / N, 3, batches=False)
    _, batch = discrete_variance(0.2, 0.0, 3)
    network, data = regression(1)
    dynamics = lv.Overdamped(1 / N, 0.2, batch_size=3)
    sizes = {"network": (network, replicas(4_000)), "data": (data, replicas(40_000))}
    for name, (surface, n) in sizes.items():
        run = train(surface, dynamics, n_replicas=n, n_steps=60, seed=seed, start=np.array([mean]))
        x = run.positions[:, 0]
        check.z(variance_z(x, mean, variance), name)
        check.twin(variance_z(x, mean, thermal), f"{name}, without the noise of the batches")
        check.twin(variance_z(x, mean, batch), f"{name}, without 2 dt/N")


# --- refusals -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "make, words",
    [
        (lambda: lv.Overdamped(0.1, 0.1, batch_size=0), "batch_size"),
        (lambda: lv.Overdamped(0.1, 0.1, batch_size="all"), "batch_size"),
        (lambda: lv.Overdamped(0.1, 0.1, batch_size=lv.schedules.Steps(4, [9], 2.0)), "schedules"),
        (lambda: lv.Underdamped(0.1, 1.0, 0.1, batch_size=2, sampling="once"), "sampling"),
        (lambda: lv.Underdamped(0.1, 1.0, 0.1, batch_size=2, drop_last=3), "drop_last"),
        (lambda: train(lv.surfaces.double_well(), lv.Overdamped(0.1, 0.01, batch_size=2)), "none"),
        (lambda: train(regression()[1], lv.Overdamped(0.1, 0.01, batch_size=2.5)), "whole number"),
        (lambda: train(regression()[0], lv.Overdamped(0.1, 0.01, batch_size=2.5)), "whole number"),
        (
            lambda: train(regression()[0], lv.Overdamped(0.1, 0.01, batch_size=np.array([2, 3]))),
            "2 values but n_replicas=1",
        ),
        (
            lambda: train(
                regression()[1], lv.Overdamped(0.1, 0.01, batch_size=99, sampling="epoch_shuffle")
            ),
            "larger than the data",
        ),
    ],
)
def test_what_cannot_be_is_refused(make, words):
    with pytest.raises(LangevinError, match=words):
        make()


def test_predictions_that_do_not_know_mini_batches_say_so():
    data = regression(1)[1]
    for predict in (lv.predict.boltzmann_gibbs, lv.predict.chain, lv.predict.fokker_planck):
        with pytest.raises(UnsoundError, match="mini-batches"):
            predict(data, lv.Overdamped(0.1, 0.05, batch_size=4))
    for other in (
        lv.Overdamped(0.1, 0.05, "leimkuhler_matthews", batch_size=4),
        lv.Underdamped(0.1, 1.0, 0.05, batch_size=4),
    ):
        with pytest.raises(UnsoundError, match="mini-batches"):
            lv.predict.quadratic(data, other)

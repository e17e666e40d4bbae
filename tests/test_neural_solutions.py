"""p_A/p_B between solutions of a network, by quenching."""

import numpy as np
import pytest
from kit import statistical

from langevin.errors import ParameterError, UnsoundError

torch = pytest.importorskip("torch", reason="needs torch: pip install .[neural]")

from measured import classifier, numbers  # noqa: E402
from scipy import integrate  # noqa: E402
from torch import nn  # noqa: E402

import langevin as lv  # noqa: E402
from langevin import neural  # noqa: E402
from langevin.neural import NeuralSurface, solutions  # noqa: E402

TILTED = "x**4/4 - x**2/2 + x/10"


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


class Polynomial(nn.Module):
    """TILTED as a network of one parameter, whose output is the loss."""

    def __init__(self):
        super().__init__()
        self.x = nn.Parameter(torch.zeros(1, dtype=torch.float64))

    def forward(self, inputs):
        x = self.x
        return inputs * 0 + (x**4 / 4 - x**2 / 2 + x / 10)


def well():
    return NeuralSurface(Polynomial(), (torch.zeros(1, 1).double(), torch.zeros(1)), loss="output")


def tanh_net(hidden=2, l2=1e-3, n=20):
    X = torch.linspace(-2, 2, n, dtype=torch.float64)[:, None]
    y = 0.8 * torch.tanh(1.5 * X) + 0.1 * torch.sin(5 * X)
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(1, hidden), nn.Tanh(), nn.Linear(hidden, 1)).double()
    return NeuralSurface(module, (X, y), loss="squared", l2=l2)


@statistical(comparisons=3, seed=3, smoke=False)
def test_the_occupation_is_that_of_the_chain(seed, check):
    surface, dynamics = lv.Surface(TILTED), lv.Overdamped(temperature=0.1, dt=0.05)
    start = np.resize(np.linspace(-1.5, 1.5, 301), 1_000)[:, None]
    options = {"n_replicas": 1_000, "seed": seed, "progress": False}
    at = [
        lv.simulate(surface, dynamics, n_steps=n, start=start, **options).positions
        for n in (3_000, 4_000)
    ]
    found = solutions(well(), np.array(at), starts=start)
    assert not (found.labels < 0).any() and len(found.minima()) == 2
    measured = found.occupation().ratio(0, 1)
    exact = lv.predict.chain(surface, dynamics).ratio(0, 1)
    check.z((measured.value - exact) / measured.stderr, "p_A/p_B", dof=measured.dof)
    check.twin((measured.value - exact**2) / measured.stderr, "at half the temperature")


def test_to_predictions_the_solutions_are_a_surface():
    found = solutions(well(), [[-1.4], [0.2], [0.0]])
    core = lv.Surface(TILTED)
    for own, other in zip(found.minima(), core.minima(), strict=True):
        np.testing.assert_allclose(own.position, other.position, rtol=0, atol=1e-10)
        np.testing.assert_allclose(own.hessian, other.hessian, rtol=1e-9)
    mine = lv.predict.laplace(found, temperature=0.1).ratio(0, 1)
    assert mine == pytest.approx(lv.predict.laplace(core, temperature=0.1).ratio(0, 1), rel=1e-9)


def tanh_slope(surface, theta):
    """The gradient of tanh_net's loss, by hand."""
    X, y = surface.X.numpy()[:, 0], surface.y.numpy()[:, 0]
    w, b, v, c = theta[:2], theta[2:4], theta[4:6], theta[6]
    a = np.tanh(X[:, None] * w + b)
    wrong = (a @ v + c - y)[:, None]
    back = wrong * v * (1 - a**2)
    parts = back * X[:, None], back, wrong * a, wrong
    return np.concatenate([part.mean(axis=0) for part in parts]) + surface.l2 * theta


def test_basins_are_those_of_the_gradient_flow():
    """Against a stiff solver that follows the flow."""
    surface = tanh_net()
    points = 1.5 * numbers(16, surface.dim, seed=4).numpy()
    np.testing.assert_allclose(
        tanh_slope(surface, points[0]), surface.gradient(points[0]), rtol=0, atol=1e-13
    )
    found = solutions(surface, points)
    ends = [
        integrate.solve_ivp(
            lambda _, theta: -tanh_slope(surface, theta), (0, 1e4), point, method="BDF",
            rtol=1e-6, atol=1e-8,
        ).y[:, -1]
        for point in points
    ]  # fmt: skip
    minima = np.array([m.position for m in found.minima()])
    distance = np.linalg.norm(np.array(ends)[:, None] - minima, axis=2)
    assert (distance.min(axis=1) < 1e-3).all()  # the flow had the time to arrive
    np.testing.assert_array_equal(distance.argmin(axis=1), found.labels)
    assert len(set(found.labels.tolist())) >= 3


def test_signs_and_places_of_hidden_units_are_one_function():
    found = solutions(tanh_net(), 1.5 * numbers(40, 7, seed=5).numpy())
    assert len(found.minima()) == 4 and not found.functions.any()
    by_minimum = found.occupation(allow_unequilibrated=True).probability
    by_function = found.occupation("function", allow_unequilibrated=True).probability
    assert by_minimum.max() < 0.6 and by_function.tolist() == [1, 0, 0, 0]
    energies = [m.energy for m in found.minima()]
    np.testing.assert_allclose(energies, energies[0], rtol=1e-12)
    assert solutions(well(), [[-1.0], [1.0]]).functions.tolist() == [0, 1]  # two functions


def test_a_module_that_vmap_refuses(monkeypatch):
    surface, points = tanh_net(), numbers(6, 7, seed=6).numpy()
    expected = solutions(surface, points)
    monkeypatch.setattr(torch.func, "vmap", lambda *_, **__: lambda *_: 1 / 0)
    found = solutions(surface, points)
    np.testing.assert_array_equal(found.labels, expected.labels)


def test_an_occupation_without_crossings_is_refused():
    surface = well()
    points = np.linspace(-1.5, 1.5, 20)[:, None]
    with pytest.raises(UnsoundError, match="no replica was ever seen outside the basin it began"):
        solutions(surface, points, starts=points).occupation()
    with pytest.raises(UnsoundError, match="no replica was ever seen outside"):
        solutions(surface, np.array([points, points, points])).occupation()
    with pytest.raises(UnsoundError, match="began in different basins still occupy them differ"):
        many = np.linspace(-1.5, 1.5, 200)[:, None]
        solutions(surface, many[::-1], starts=many).occupation()  # nearly all went over
    with pytest.raises(UnsoundError, match=r"Give solutions\(..., starts=\)"):
        solutions(surface, points).occupation()
    with pytest.raises(ParameterError, match="by="):
        solutions(surface, points).occupation("loss")


def test_valleys_are_refused():
    surface = NeuralSurface(nn.Linear(3, 1).double(), (numbers(2, 3), numbers(2)), loss="squared")
    with pytest.raises(UnsoundError, match=r"2 flat directions of 4 .*l2="):
        solutions(surface, numbers(3, 4).numpy())


def test_a_ridge_and_a_point_that_has_no_loss_are_in_no_basin():
    found = solutions(well(), [[-1.0], [np.nan], [1.0]])
    assert found.labels.tolist() == [0, -1, 1]
    ridge = min(np.roots([1, 0, -1, 0.1]).real, key=lambda x: abs(x - 0.1))
    assert solutions(well(), [[ridge], [1.0]]).labels.tolist() == [-1, 0]
    with pytest.raises(UnsoundError, match="Raise max_steps="):
        solutions(well(), [[-1.3]], max_steps=1)


@pytest.mark.parametrize(
    "surface, points, options, said",
    [
        (tanh_net(), np.zeros(7), {}, r"needed: \(n, 7\) or \(times, n, 7\)"),
        (tanh_net(), np.zeros((3, 6)), {}, "points of shape"),
        (tanh_net(), np.zeros((3, 7)), {"starts": np.zeros((2, 7))}, "one for each of 3"),
        (tanh_net(), np.zeros((3, 7)), {"max_steps": 0}, "max_steps"),
        (classifier(hidden=80), np.zeros((3, 643)), {}, "643 parameters given"),
    ],
)
def test_bad_input(surface, points, options, said):
    with pytest.raises(ParameterError, match=said):
        solutions(surface, points, **options)


def test_a_result_of_a_run_is_taken_as_it_is():
    surface = tanh_net()
    result = lv.simulate(surface, lv.SGD(0.1, 5), n_replicas=6, n_steps=20, seed=1, progress=False)
    found = neural.solutions(surface, result)
    np.testing.assert_array_equal(found.labels, solutions(surface, result.positions).labels)
    assert "minima of loss" in repr(found)

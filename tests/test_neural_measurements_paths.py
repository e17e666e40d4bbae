"""Lines and planes between weights, averages of weights, and statistics that belong to them."""

import copy

import numpy as np
import pytest

from langevin.errors import ParameterError

torch = pytest.importorskip("torch", reason="needs torch: pip install .[neural]")

from measured import classifier, numbers  # noqa: E402
from torch import nn  # noqa: E402

import langevin as lv  # noqa: E402
from langevin import neural  # noqa: E402

POLICIES = ("batch", "recalibrate", "eval")


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


def normalised(policy):
    return classifier(norm=True, batch_norm=policy)


def ends(surface):
    a = surface.flat()
    return a, a + 0.5 * numbers(surface.dim, seed=3).numpy()


TEST = (numbers(23, 4, seed=9), torch.arange(23) % 3)


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("data", [None, TEST], ids=["training", "test"])
def test_the_ends_of_a_line_have_their_own_losses(policy, data):
    surface = normalised(policy)
    a, b = ends(surface)
    line = neural.interpolate(surface, a, b, data=data)
    assert len(line.at) == 25 and line.at[0] == -1 and line.at[-1] == 2
    for at, theta in ((0, a), (1, b), (0.5, (a + b) / 2), (-1, 2 * a - b)):
        k = np.argmin(np.abs(line.at - at))
        assert abs(line.at[k] - at) < 1e-15
        assert abs(line.loss[k] - surface.energy(theta, data)) < 1e-12
    line = neural.interpolate(surface, a, b, at=[0.0, 1.0], data=data)
    assert line.loss[0] == surface.energy(a, data) and line.loss[1] == surface.energy(b, data)
    assert ((line.accuracy >= 0) & (line.accuracy <= 1)).all()


def test_losses_are_computed_in_the_precision_of_the_ends():
    """Of float32 numbers too: between the ends nothing turns into float64, at twice the price."""
    seen = set()

    def loss(outputs, targets):
        seen.add(outputs.dtype)
        return torch.nn.functional.cross_entropy(outputs, targets, reduction="none")

    plain = normalised("recalibrate")
    data = (plain.X, plain.y)
    surface = neural.NeuralSurface(plain.module, data, loss=loss, batch_norm="recalibrate")
    a, b = ends(surface)
    for kind in (np.float32, np.float64):
        seen.clear()
        first, second = a.astype(kind), b.astype(kind)
        line = neural.interpolate(surface, first, second, at=[-0.5, 0.0, 0.3, 1.0])
        neural.loss_plane(surface, first, second, -first + 1, x=[0.1], y=[0.2])
        assert seen == {getattr(torch, np.dtype(kind).name)}
        assert line.loss[1] == surface.energy(first) and line.loss[3] == surface.energy(second)


def test_policies_differ_and_can_be_chosen():
    surface = normalised("batch")
    a, b = ends(surface)
    found = {p: neural.interpolate(surface, a, b, at=[0.3], batch_norm=p).loss[0] for p in POLICIES}
    theta = 0.7 * a + 0.3 * b
    for policy, loss in found.items():
        assert loss == pytest.approx(normalised(policy).energy(theta), rel=1e-13)
    assert abs(found["eval"] - found["batch"]) > 0.01
    assert 0 < abs(found["recalibrate"] - found["batch"]) < 0.01  # N/(N - 1) in the variance
    assert surface.batch_norm == "batch"


def test_modules_are_interpolated_by_their_parameters_alone():
    surface = normalised("eval")
    other = copy.deepcopy(surface.module)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.add_(0.1)
    line = neural.interpolate(surface, None, other, at=[1.0])
    assert line.loss[0] == surface.energy(surface.flat(other))
    other[1].running_mean += 1.0
    with pytest.raises(ParameterError, match="Use batch_norm='recalibrate'"):
        neural.interpolate(surface, None, other)
    neural.interpolate(surface, None, other, at=[1.0], batch_norm="recalibrate")


def test_barrier():
    surface = normalised("batch")
    a, b = ends(surface)
    line = neural.interpolate(surface, a, b, at=np.linspace(0, 1, 11))
    rises = [
        surface.energy((1 - t) * a + t * b) - (1 - t) * surface.energy(a) - t * surface.energy(b)
        for t in line.at
    ]
    assert line.barrier == pytest.approx(max(rises), abs=1e-12)
    with pytest.raises(ParameterError, match="a=0 and a=1"):
        _ = neural.interpolate(surface, a, b, at=[0.5]).barrier


@pytest.mark.parametrize("policy", POLICIES)
def test_a_plane_holds_its_three_points(policy):
    surface = normalised(policy)
    a, b = ends(surface)
    c = a + numbers(surface.dim, seed=5).numpy()
    plane = neural.loss_plane(surface, a, b, c)
    assert plane.loss.shape == (21, 21) and np.isfinite(plane.loss).all()
    distances = np.linalg.norm(plane.points[:, None] - plane.points[None], axis=-1)
    points = np.stack([a, b, c])
    expected = np.linalg.norm(points[:, None] - points[None], axis=-1)
    np.testing.assert_allclose(distances, expected, rtol=1e-12, atol=1e-12)
    x, y = plane.points.T
    again = neural.loss_plane(surface, a, b, c, x=x, y=y)
    for k, theta in enumerate((a, b, c)):
        assert abs(again.loss[k, k] - surface.energy(theta)) < 1e-12
    u = (b - a) / x[1]
    v = (c - a - x[2] * u) / y[2]
    one = neural.loss_plane(surface, a, b, c, x=[0.7], y=[-0.2]).loss[0, 0]
    assert abs(one - surface.energy(a + 0.7 * u - 0.2 * v)) < 1e-12


def test_three_points_on_a_line_are_refused():
    surface = normalised("batch")
    a, b = ends(surface)
    with pytest.raises(ParameterError, match="one line"):
        neural.loss_plane(surface, a, b, 3 * b - 2 * a)
    with pytest.raises(ParameterError, match="one line"):
        neural.loss_plane(surface, a, a, b)


# --- averages -------------------------------------------------------------------------------------


def train(surface, n_steps, observe, burn_in=0, **more):
    return lv.simulate(
        surface, lv.SGD(0.1, 10, momentum=0.5), n_replicas=3, n_steps=n_steps, burn_in=burn_in,
        seed=4, start="module", observe=observe, progress=False, **more,
    )  # fmt: skip


def test_the_average_is_that_of_the_weights_visited():
    surface = normalised("recalibrate")
    result = train(surface, 33, (neural.WeightAverage(every=5),), burn_in=10)
    averaged = result["weight_average"]
    np.testing.assert_array_equal(averaged.steps, [15, 20, 25, 30])  # not 33
    visited = [train(surface, int(n), ()).positions for n in averaged.steps]
    np.testing.assert_allclose(averaged.positions, np.mean(visited, axis=0), rtol=0, atol=1e-14)
    assert np.abs(averaged.positions - result.positions).max() > 1e-3


def test_an_average_survives_a_checkpoint_and_a_table(tmp_path):
    surface = normalised("batch")
    observe = (neural.WeightAverage(every=3), neural.Loss(every=6))
    whole = train(surface, 30, observe)
    file = tmp_path / "run.npz"
    train(surface, 30, observe, checkpoint=file)
    again = train(surface, 30, observe, checkpoint=file)
    np.testing.assert_array_equal(
        again["weight_average"].positions, whole["weight_average"].positions
    )
    table = pytest.importorskip("xarray") and whole.to_xarray()
    assert table["weight_average"].dims == ("replica", "parameter")
    assert table["loss"].dims == ("replica", "record")


def test_an_average_of_nothing_is_refused():
    with pytest.raises(ParameterError, match="nothing to average"):
        train(normalised("batch"), 10, (neural.WeightAverage(every=20),))


def test_recalibrated_statistics_are_those_of_the_training_set():
    surface = normalised("recalibrate")
    theta = ends(surface)[1]
    module = neural.recalibrated(surface, theta)
    hidden = nn.functional.linear(surface.X, module[0].weight, module[0].bias)
    torch.testing.assert_close(module[1].running_mean, hidden.mean(0), rtol=0, atol=1e-12)
    torch.testing.assert_close(module[1].running_var, hidden.var(0), rtol=0, atol=1e-12)
    assert module[1].momentum == 0.1 and not module.training
    np.testing.assert_array_equal(surface.flat(module), theta)
    losses = nn.functional.cross_entropy(module(surface.X), surface.y).item()
    penalty = 0.5 * surface.l2 * (theta**2).sum()
    assert surface.energy(theta) == pytest.approx(losses + penalty, rel=1e-13)

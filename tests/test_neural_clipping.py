"""Gradients shortened to a norm: against torch.nn.utils.clip_grad_norm_ in a plain loop."""

import copy

import numpy as np
import pytest

import langevin as lv
from langevin.errors import LangevinError, ParameterError, UnsoundError

torch = pytest.importorskip("torch", reason="needs torch: pip install .[neural]")

from torch import nn  # noqa: E402

from langevin.engines.streams import Indices  # noqa: E402
from langevin.neural import NeuralSurface  # noqa: E402

_generator = torch.Generator().manual_seed(0)
X = torch.randn(60, 5, generator=_generator, dtype=torch.float64)
Y = torch.arange(60) % 3
L2 = 0.05


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


def surface():
    torch.manual_seed(1)
    module = nn.Sequential(nn.Linear(5, 7), nn.BatchNorm1d(7), nn.Tanh(), nn.Linear(7, 3))
    return NeuralSurface(module.double(), (X, Y), l2=L2)


def train(dynamics, *, n_replicas=1, n_steps=50, **more):
    return lv.simulate(
        surface(), dynamics, n_replicas=n_replicas, n_steps=n_steps, seed=5, progress=False, **more
    )


def plain_loop(optimiser, clip, replica=0):
    """A loop as in the documentation of clip_grad_norm_; how often a gradient was too long."""
    own = surface()
    module = copy.deepcopy(own.module)
    optimiser = optimiser(module.parameters())
    draw = Indices("with_replacement", 60, np.array([replica]), (5, 0))
    zero, longer = np.zeros(1, np.int64), 0
    for step in range(50):
        batch = torch.from_numpy(draw.draw(step, zero + 8, zero, zero, 8))[0]
        optimiser.zero_grad()
        loss = nn.functional.cross_entropy(module(X[batch]), Y[batch])
        loss = loss + 0.5 * L2 * sum(p.square().sum() for p in module.parameters())
        loss.backward()
        norm = nn.utils.clip_grad_norm_(module.parameters(), clip)
        longer += bool(norm > clip)
        optimiser.step()
    return own.flat(module), longer


OPTIMISERS = {
    "plain": (lambda **o: lv.SGD(0.1, 8, **o), lambda p: torch.optim.SGD(p, lr=0.1)),
    "momentum": (
        lambda **o: lv.SGD(0.05, 8, momentum=0.9, weight_decay=0.1, **o),
        lambda p: torch.optim.SGD(p, lr=0.05, momentum=0.9, weight_decay=0.1),
    ),
    "adam": (
        lambda **o: lv.Adam(0.01, 8, **o),
        lambda p: torch.optim.Adam(p, lr=0.01),
    ),
}


@pytest.mark.parametrize("name", OPTIMISERS)
def test_clipping_is_torch_s(name):
    ours, theirs = OPTIMISERS[name]
    clips = np.array([0.3, 0.6, 1e-3, np.inf])
    run = train(ours(clip_norm=clips), n_replicas=4, start="module")
    for k, clip in enumerate(clips):
        expected, longer = plain_loop(theirs, float(clip), replica=k)
        np.testing.assert_allclose(run.positions[k], expected, rtol=0, atol=1e-10)
        assert {0.3: 25 < longer, 0.6: 0 < longer < 50, 1e-3: longer == 50}.get(clip, longer == 0)
    free = train(ours(), n_replicas=4, start="module")
    np.testing.assert_array_equal(free.positions[3], run.positions[3])
    assert np.abs(free.positions[0] - run.positions[0]).max() > 1e-3


def test_one_clip_for_all_is_each_one_s():
    sgd = {"learning_rate": 0.1, "batch_size": np.array([4, 8, 8])}
    together = train(lv.SGD(**sgd, clip_norm=0.4), n_replicas=3)
    each = train(lv.SGD(**sgd, clip_norm=np.full(3, 0.4)), n_replicas=3)
    np.testing.assert_array_equal(together.positions, each.positions)
    alone = train(lv.SGD(0.1, 8, clip_norm=0.4), first_replica=2)
    np.testing.assert_allclose(alone.positions[0], together.positions[2], rtol=0, atol=1e-12)


@pytest.mark.parametrize("kind", [lv.SGD, lv.Adam])
@pytest.mark.parametrize(
    "clip", [0.0, -1.0, np.nan, "short", True, [1.0, 0.0], np.ones((2, 2)), []]
)
def test_norms_that_cannot_be_are_refused(kind, clip):
    with pytest.raises(ParameterError, match="clip_norm"):
        kind(0.1, 8, clip_norm=clip)


def test_where_nothing_is_clipped_it_is_said():
    sgd = lv.SGD(0.01, 8, clip_norm=1.0)
    with pytest.raises(ParameterError, match="n_replicas=3"):
        train(lv.SGD(0.1, 8, clip_norm=np.ones(2)), n_replicas=3)
    data = lv.surfaces.linear_regression(X.numpy(), np.ones(60))
    for formula in (lv.surfaces.double_well(), data):
        with pytest.raises(LangevinError, match="networks alone"):
            lv.simulate(formula, sgd, n_replicas=2, n_steps=4, progress=False)
        with pytest.raises(UnsoundError, match="clipped"):
            lv.predict.quadratic(formula, sgd)

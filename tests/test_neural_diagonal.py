"""The exact diagonal of the Hessian of chains with kinks, against the whole Hessian."""

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs torch: pip install .[neural]")

from measured import brute_hessian, classifier, numbers  # noqa: E402
from torch import nn  # noqa: E402

from langevin import neural  # noqa: E402
from langevin.neural import curvature, diagonal  # noqa: E402
from langevin.neural.derivatives import Derivatives  # noqa: E402

N, N_IN, N_OUT = 61, 6, 4
TARGETS = {
    "cross_entropy": torch.arange(N) % N_OUT,
    "mse": numbers(N, N_OUT, seed=1),
    "squared": numbers(N, N_OUT, seed=2),
}


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


def quartic(outputs, targets):
    """A user's own loss; no sum of squares."""
    return ((outputs - targets) ** 4).sum(1)


def chain(*between, loss="cross_entropy", l2=0.01):
    torch.manual_seed(0)
    layers = [nn.Linear(N_IN, 7), between[0], nn.Linear(7, 5, bias=False), *between[1:]]
    module = nn.Sequential(nn.Flatten(), *layers, nn.Linear(5, N_OUT)).double().eval()
    X = numbers(N, 2, 3, seed=3)
    return neural.NeuralSurface(module, (X, TARGETS.get(loss, TARGETS["mse"])), loss=loss, l2=l2)


@pytest.mark.parametrize("loss", [*TARGETS, quartic])
@pytest.mark.parametrize(
    "between",
    [
        (nn.ReLU(), nn.ReLU()),
        (nn.LeakyReLU(0.2), nn.LeakyReLU(0.05)),
        (nn.Identity(),),
        (nn.ReLU(), nn.Dropout(0.5), nn.LeakyReLU()),
    ],
)
def test_it_is_the_diagonal_of_the_whole(between, loss, monkeypatch):
    monkeypatch.setattr(diagonal, "NUMBERS", 7 * N_OUT * 9)  # 61 = 6 * 9 + 7 examples at once
    surface = chain(*between, loss=loss)
    theta = surface.flat() * 1.3
    H = brute_hessian(surface, theta)
    found = diagonal.exact_diagonal(Derivatives(surface, theta)).numpy()
    np.testing.assert_allclose(found, np.diag(H), rtol=0, atol=1e-13 * np.abs(H).max())
    part = chain(*between, loss=loss, l2=0.0)
    assert np.abs(found - 0.01 - np.diag(brute_hessian(part, theta))).max() < 1e-12


@pytest.mark.parametrize("scale", [None, "layer", "relative"])
def test_the_trace_takes_it_where_no_probes_are_asked_for(scale, monkeypatch):
    surface = chain(nn.ReLU(), nn.ReLU())
    H = neural.hessian(surface, scale=scale)
    monkeypatch.setattr(curvature, "EXACT_DIM", 0)
    found = neural.hessian_trace(surface, scale=scale)
    assert found.exact and found.products == 0
    assert found.value == pytest.approx(np.trace(H), rel=1e-12)
    assert not neural.hessian_trace(surface, scale=scale, probes=12).exact
    assert not neural.hessian_trace(surface, scale=scale, product="finite_difference").exact


def alone(outputs, targets):
    """What vmap refuses: a number taken out of a tensor."""
    return torch.stack(
        [o.square().sum() * float(t[0]) for o, t in zip(outputs, targets, strict=True)]
    )


@pytest.mark.parametrize(
    "surface",
    [
        chain(nn.Tanh(), nn.ReLU()),
        chain(nn.ReLU(), nn.Sigmoid()),
        chain(nn.ReLU(), nn.GELU()),
        chain(nn.ReLU(), loss=alone),
        classifier(norm=True),
        classifier(norm=True, batch_norm="eval"),
    ],
    ids=["tanh", "sigmoid", "gelu", "loss", "batch", "eval"],
)
def test_other_networks_are_probed(surface, monkeypatch):
    """They bend by themselves, examples share statistics, or the loss is out of reach."""
    assert diagonal.exact_diagonal(Derivatives(surface)) is None
    monkeypatch.setattr(curvature, "EXACT_DIM", 0)
    assert not neural.hessian_trace(surface).exact


@pytest.mark.parametrize("kind", ["float32", "float64"])
def test_precision(kind):
    surface = chain(nn.ReLU(), nn.ReLU())
    exact = np.trace(brute_hessian(surface))
    found = diagonal.exact_diagonal(Derivatives(surface, dtype=kind))
    assert str(found.dtype) == f"torch.{kind}"
    assert float(found.sum()) == pytest.approx(exact, rel=1e-13 if kind == "float64" else 1e-5)

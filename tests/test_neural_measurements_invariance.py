"""Rescalings that leave a network's function alone, and measures that follow it."""

import numpy as np
import pytest

from langevin.errors import ParameterError, UnsoundError

torch = pytest.importorskip("torch", reason="needs torch: pip install .[neural]")

from measured import brute_hessian, numbers  # noqa: E402
from torch import nn  # noqa: E402

from langevin import neural  # noqa: E402
from langevin.neural import NeuralSurface, curvature, invariance, spectrum  # noqa: E402


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


def surface(*layers, l2=0.0, batch_norm="batch", shape=(4,)):
    X = numbers(41, *shape)
    torch.manual_seed(2)
    module = nn.Sequential(*layers).double()
    return NeuralSurface(module, (X, torch.arange(41) % 3), l2=l2, batch_norm=batch_norm)


def relu(**options):
    torch.manual_seed(2)
    return surface(
        nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 3), **options
    )


@pytest.mark.parametrize("pair", [0, 1])
def test_a_rescaled_network_is_the_same_function(pair):
    s = relu()
    theta = s.flat()
    other = neural.rescaled(s, theta, factor=7.0, pair=pair)
    assert np.abs(other - theta).max() > 1
    a, b = (s.with_parameters(t)(s.X) for t in (theta, other))
    torch.testing.assert_close(a, b, rtol=0, atol=1e-14)
    np.testing.assert_allclose(
        neural.rescaled(s, other, factor=1 / 7, pair=pair), theta, rtol=1e-14
    )


def test_the_hessian_follows_the_rescaling():
    """H becomes D H D with D = 1/factor on what was multiplied."""
    s, factor = relu(), 5.0
    theta = s.flat()
    other = neural.rescaled(s, theta, factor=factor)
    D = np.ones(s.dim)
    D[other != theta] = (theta / other)[other != theta]
    expected = D[:, None] * brute_hessian(s, theta) * D
    np.testing.assert_allclose(neural.hessian(s, other), expected, rtol=0, atol=1e-13)


@pytest.mark.parametrize("scale", ["layer", "relative"])
def test_scaled_curvature_is_that_of_the_scaled_matrix(scale, monkeypatch):
    s = relu(l2=0.1)
    theta = s.flat()
    D = np.abs(theta)
    if scale == "layer":
        D = np.concatenate(
            [np.full(p.numel(), p.detach().square().mean().sqrt()) for p in s.module.parameters()]
        )
    H = D[:, None] * brute_hessian(s) * D
    values = np.linalg.eigvalsh(H)
    np.testing.assert_allclose(neural.hessian(s, scale=scale), H, rtol=0, atol=1e-13)
    assert neural.hessian_norm(s, scale=scale).value == pytest.approx(np.linalg.norm(H), rel=1e-12)
    assert neural.hessian_trace(s, scale=scale).value == pytest.approx(np.trace(H), rel=1e-12)
    found = neural.spectral_density(s, scale=scale).nodes[0]
    np.testing.assert_allclose(found, values, rtol=0, atol=1e-13)
    for module in (curvature, spectrum):
        monkeypatch.setattr(module, "EXACT_DIM", 0)
    for product in ("exact", "finite_difference"):
        top = neural.top_eigenvalues(s, 2, scale=scale, product=product, tolerance=1e-6)
        np.testing.assert_allclose(top.values, values[:-3:-1], rtol=1e-8)


def test_raw_measures_change_and_scaled_ones_do_not():
    s = relu()
    found = neural.rescaling_test(s, factors=(20.0, 1.0, 5.0), iterations=200)
    assert np.ptp(found.loss) < 1e-14
    raw, scaled = found.spread(found.raw), found.spread(found.scaled)
    assert min(raw.values()) > 1.5 and raw["hessian_norm"] > 5
    assert abs(scaled["hessian_norm"] - 1) < 1e-10 and abs(scaled["top_eigenvalue"] - 1) < 1e-8
    assert abs(scaled["sharpness"] - 1) < 1e-6
    H = brute_hessian(s)
    assert found.raw["hessian_norm"][1] == pytest.approx(np.linalg.norm(H), rel=1e-12)
    assert "scaled 1" in repr(found)


def test_a_penalty_tells_parametrisations_apart():
    s = relu(l2=0.1)
    losses = [s.energy(neural.rescaled(s, factor=f)) for f in (1.0, 5.0)]
    assert abs(losses[0] - losses[1]) > 0.1
    assert np.ptp(neural.rescaling_test(s, factors=(1.0, 5.0), iterations=2).loss) < 1e-14


def test_which_layers_make_a_pair():
    layers = [nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten()]
    assert invariance.pairs(nn.Sequential(*layers, nn.Linear(2, 3))) == [("1", "5")]
    plain = nn.Sequential(nn.Sequential(nn.Linear(2, 2), nn.ReLU()), nn.Linear(2, 2))
    assert invariance.pairs(plain) == [("0.0", "1")]
    assert invariance.pairs(nn.Sequential(nn.Linear(2, 2), nn.Tanh(), nn.Linear(2, 2))) == []
    bare = nn.BatchNorm1d(2, affine=False)
    assert invariance.pairs(nn.Sequential(nn.Linear(2, 2), bare, nn.Linear(2, 2))) == []


@pytest.mark.parametrize("policy", ["batch", "eval"])
def test_convolutions_with_batch_normalisation(policy):
    layers = [nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.ReLU(), nn.AvgPool2d(2), nn.Flatten()]
    s = surface(*layers, nn.Linear(8, 3), batch_norm=policy, shape=(1, 6, 6))
    other = neural.rescaled(s, factor=4.0)
    assert abs(s.energy(other) - s.energy(s.flat())) < 1e-14
    raw, scaled = (
        [neural.hessian_norm(s, t, scale=scale).value for t in (s.flat(), other)]
        for scale in (None, "layer")
    )
    assert raw[1] > 2 * raw[0] and scaled[1] == pytest.approx(scaled[0], rel=1e-10)


def test_what_cannot_be_rescaled_is_refused():
    with pytest.raises(ParameterError, match="no two layers"):
        neural.rescaled(surface(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 3)), factor=2.0)
    for factor in (0.0, -1.0, np.nan):
        with pytest.raises(ParameterError, match="factor="):
            neural.rescaled(relu(), factor=factor)
    with pytest.raises(ParameterError, match="pair"):
        neural.rescaled(relu(), factor=2.0, pair=2)

    class Capped(nn.ReLU):
        def forward(self, x):
            return torch.clamp(x, 0, 0.1)

    with pytest.raises(UnsoundError, match="outputs changed"):
        neural.rescaled(surface(nn.Linear(4, 6), Capped(), nn.Linear(6, 3)), factor=20.0)

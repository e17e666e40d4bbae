"""The sources' networks: their parameters, shapes, initialisation, and what torch.func does."""

import math
from itertools import pairwise

import pytest

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402
from torch.func import functional_call, grad, stack_module_state, vmap  # noqa: E402

from langevin.errors import ParameterError  # noqa: E402
from langevin.neural import models  # noqa: E402

GREY, COLOUR = (1, 28, 28), (3, 32, 32)
NETWORKS = {
    "logistic_regression": (models.logistic_regression, GREY),
    "smith_le": (models.smith_le, GREY),
    "arpit_mlp": (models.arpit_mlp, GREY),
    "deep_mlp good": (lambda: models.deep_mlp(32), GREY),
    "deep_mlp bad": (lambda: models.deep_mlp(32, init="bad"), GREY),
    "batch_norm_mlp": (lambda: models.batch_norm_mlp(32), GREY),
    "f1": (models.f1, GREY),
    "c1": (models.c1, COLOUR),
    "c2": (models.c2, COLOUR),
    "vgg11": (models.vgg11, COLOUR),
    "vgg11 BN": (lambda: models.vgg11(batch_norm=True), COLOUR),
    "resnet56": (models.resnet56, COLOUR),
    "resnet56 B": (lambda: models.resnet56(shortcut="B"), COLOUR),
    "plain c1": (lambda: models.c1(batch_norm=False, dropout=0.0), COLOUR),
    "plain resnet56": (lambda: models.resnet56(batch_norm=False), COLOUR),
}
PLAIN = ["logistic_regression", "smith_le", "arpit_mlp", "deep_mlp good", "deep_mlp bad", "vgg11",
         "plain c1", "plain resnet56"]  # fmt: skip


def fresh(name, seed=0):
    torch.manual_seed(seed)
    return NETWORKS[name][0]()


def batch(name, n=4):
    """Small images where a network takes any size."""
    shape = (3, 8, 8) if "resnet" in name else NETWORKS[name][1]
    generator = torch.Generator().manual_seed(1)
    return torch.rand(n, *shape, generator=generator), torch.arange(n) % 10


# --- parameters -----------------------------------------------------------------------------------


def dense(*sizes):
    return sum(a * b + b for a, b in pairwise(sizes))


@pytest.mark.parametrize(
    "module, expected",
    [
        # published: He et al. (2016), table 6, "0.85M"; the two shortcuts counted exactly by others
        (lambda: models.resnet56(), 853_018),
        (lambda: models.resnet56(shortcut="B"), 855_770),
        # published for VGG-11 with BatchNorm and one linear layer on CIFAR-10
        (lambda: models.vgg11(batch_norm=True), 9_231_114),
        (lambda: models.vgg11(), 9_231_114 - 2 * (64 + 128 + 2 * 256 + 4 * 512)),
        # the convolutions of C2 are VGG-16's (14,714,688), plus BatchNorm, 512 and 10
        (lambda: models.c2(), 14_714_688 + 2 * (4_224 + 512) + dense(512, 512, 10)),
        (lambda: models.c2(100), 14_714_688 + 2 * (4_224 + 512) + dense(512, 512, 100)),
        # by hand
        (models.logistic_regression, 7_850),
        (lambda: models.logistic_regression(n_out=1), 785),
        (models.smith_le, 636_010),
        (lambda: models.smith_le(200), dense(784, 200, 10)),
        (models.arpit_mlp, 269_322),
        (lambda: models.arpit_mlp(n_in=64, width=16), dense(64, 16, 16, 10)),
        (lambda: models.batch_norm_mlp(100), 110_610),
        (lambda: models.batch_norm_mlp(100, batch_norm=False), dense(784, *[100] * 4, 10)),
        (lambda: models.deep_mlp(100), dense(784, *[100] * 20, 10)),
        (models.f1, 1_462_794),
        (lambda: models.f1(10), dense(784, *[512] * 10, 10) + 10 * 1_024),
        (models.c1, 1_757_834),
        (lambda: models.c1(100), 1_757_834 + 90 * 193),
    ],
)  # fmt: skip
def test_parameter_counts(module, expected):
    assert models.n_parameters(module()) == expected


def test_the_convolutions_of_vgg11_are_those_of_imagenet():
    """132,863,336 were published for 224 x 224: eight convolutions and three dense layers."""
    convolutions = sum(
        models.n_parameters(layer)
        for layer in models.vgg11().modules()
        if isinstance(layer, nn.Conv2d)
    )
    assert convolutions + dense(512 * 7 * 7, 4_096, 4_096, 1_000) == 132_863_336


def layers(module, *kinds):
    return [layer for layer in module.modules() if isinstance(layer, kinds)]


def test_layers_are_as_many_as_the_names_say():
    assert len(layers(models.resnet56(), nn.Conv2d, nn.Linear)) == 56
    assert len(layers(models.vgg11(), nn.Conv2d, nn.Linear)) == 8 + 1
    assert len(layers(models.c2(), nn.Conv2d)) == 13
    assert len(layers(models.deep_mlp(8), nn.Linear)) == 21
    assert len(layers(models.batch_norm_mlp(8), nn.BatchNorm1d)) == 4
    assert [d.p for d in layers(models.c1(), nn.Dropout)] == [0.5, 0.5]
    rates = [0.3, *[0.4] * 7, 0.5, 0.5]  # network_zoo.py
    assert [d.p for d in layers(models.c2(), nn.Dropout)] == pytest.approx(rates)
    assert not layers(models.vgg11(), nn.Dropout)
    assert [d.p for d in layers(models.vgg11(dropout=0.2), nn.Dropout)] == [0.2]
    norms = (nn.BatchNorm1d, nn.BatchNorm2d)
    for plain in (models.f1(batch_norm=False), models.c1(batch_norm=False), models.vgg11(),
                  models.c2(batch_norm=False), models.resnet56(batch_norm=False)):  # fmt: skip
        assert not layers(plain, *norms)


# --- passes ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("training", [True, False])
def test_a_pass_forward_and_backward(name, training):
    module = fresh(name).train(training)
    X, y = batch(name)
    logits = module(X)
    assert logits.shape == (4, 10)
    nn.functional.cross_entropy(logits, y).backward()
    for which, parameter in module.named_parameters():
        assert parameter.grad is not None and torch.isfinite(parameter.grad).all(), which


def test_images_of_other_sizes():
    assert models.smith_le(5, n_in=64)(torch.rand(2, 1, 8, 8)).shape == (2, 10)
    assert models.vgg11(3, n_channels=1)(torch.rand(2, 1, 32, 32)).shape == (2, 3)
    assert models.c1(100)(torch.rand(2, 3, 32, 32)).shape == (2, 100)
    assert models.resnet56()(torch.rand(2, 3, 32, 32)).shape == (2, 10)


def test_shortcut_a_skips_pixels_and_pads_channels_evenly():
    block = models.ResidualBlock(16, 32, "A", True).eval()
    for parameter in block.parameters():
        nn.init.zeros_(parameter)
    x = torch.rand(1, 16, 8, 8)
    out = block(x)
    assert torch.equal(out[:, 8:24], x[:, :, ::2, ::2])
    assert (out[:, :8] == 0).all() and (out[:, 24:] == 0).all()


@pytest.mark.parametrize("name", NETWORKS)
def test_functional_call_is_the_module(name):
    module = fresh(name).eval()
    X, _ = batch(name)
    state = dict(module.named_parameters()) | dict(module.named_buffers())
    with torch.no_grad():
        assert torch.equal(functional_call(module, state, (X,)), module(X))
        doubled = {k: 2 * v for k, v in state.items()}
        assert not torch.equal(functional_call(module, doubled, (X,)), module(X))


@pytest.mark.parametrize("name", PLAIN)
def test_replicas_under_vmap_are_the_modules_one_by_one(name):
    """Logits and gradients of stacked parameters, in float64 and in train mode."""
    replicas = [fresh(name, seed).double() for seed in (1, 2)]
    X, y = batch(name, 2)
    X = X.double()
    parameters, buffers = stack_module_state(replicas)
    assert not buffers

    def loss(p):
        return nn.functional.cross_entropy(functional_call(replicas[0], p, (X,)), y)

    gradients = vmap(grad(loss))(parameters)
    for r, module in enumerate(replicas):
        nn.functional.cross_entropy(module(X), y).backward()
        for which, parameter in module.named_parameters():
            torch.testing.assert_close(gradients[which][r], parameter.grad, rtol=1e-9, atol=1e-12)
    assert not torch.equal(*(next(iter(gradients.values()))[r] for r in (0, 1)))


# --- initialisation -------------------------------------------------------------------------------


def same(a, b):
    pairs = zip(a.state_dict().items(), b.state_dict().items(), strict=True)
    return all(k == m and torch.equal(v, w) for (k, v), (m, w) in pairs)


@pytest.mark.parametrize("name", NETWORKS)
def test_reset_repeats_the_construction(name):
    """From the same seed, special initialisations and BatchNorm's statistics included."""
    module = fresh(name, 5)
    assert same(module, fresh(name, 5)) and not same(module, fresh(name, 6))
    module(batch(name)[0])  # BatchNorm remembers
    with torch.no_grad():
        for parameter in module.parameters():
            parameter += 1
    torch.manual_seed(5)
    assert models.reset(module) is module and same(module, fresh(name, 5))
    state = torch.get_rng_state()
    assert same(models.reset(module, seed=6), fresh(name, 6))
    torch.manual_seed(0)
    before = torch.get_rng_state()
    models.reset(module, seed=2**64 - 1)
    assert torch.equal(torch.get_rng_state(), before)
    assert not torch.equal(state, before)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_seed_gives_the_same_weights_on_a_gpu():
    module, before = fresh("resnet56").cuda(), torch.cuda.get_rng_state()
    assert same(models.reset(module, seed=6).cpu(), fresh("resnet56", 6))
    assert torch.equal(torch.cuda.get_rng_state(), before)


def test_weights_have_the_variance_that_the_sources_say():
    """Bounds of the uniform law exactly; of 10^6 normal numbers, the spread within 1 %."""
    good, bad = fresh("deep_mlp good"), models.deep_mlp(1_000, 2, init="bad")
    for layer in layers(bad, nn.Linear):
        bound = math.sqrt(6 / (layer.in_features + layer.out_features))
        assert 0.99 * bound < layer.weight.abs().max() <= bound and (layer.bias == 0).all()
    models.reset(wide := models.deep_mlp(1_000, 2), seed=1)
    second = layers(wide, nn.Linear)[1].weight
    assert second.std().item() == pytest.approx(math.sqrt(2 / 1_000), rel=0.01)
    assert second.abs().max() > 4 * math.sqrt(2 / 1_000)  # normal, not uniform
    for layer in layers(good, nn.Linear) + layers(models.resnet56(), nn.Linear):
        assert (layer.bias == 0).all()
    kernel = layers(models.reset(models.vgg11(), seed=1), nn.Conv2d)[-1].weight
    assert kernel.std().item() == pytest.approx(math.sqrt(2 / (9 * 512)), rel=0.01)


def test_good_initialisation_keeps_the_signal_and_bad_loses_it():
    """Over 20 layers, by 2^-10 in size, from the layer before the output."""
    sizes = {}
    for init in ("good", "bad"):
        torch.manual_seed(0)
        deep = models.deep_mlp(300, init=init)[:-1]
        x = torch.randn(50, 784)
        sizes[init] = (deep(x).norm() / deep[:3](x).norm()).item()
    assert 0.3 < sizes["good"] < 3
    assert 0.3 * 2**-9.5 < sizes["bad"] < 3 * 2**-9.5


class Own(nn.Module):
    """A user's module: a bare parameter, reset or not, beside a layer; attention; shared layers."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(4, 4)
        self.again = self.layer
        self.attention = nn.MultiheadAttention(4, 2)
        self.scale = nn.Parameter(torch.ones(3))


class Covered(Own):
    def reset_parameters(self):
        nn.init.constant_(self.scale, 7.0)


def test_reset_of_a_users_module():
    with pytest.raises(ParameterError, match=r"nothing resets the parameter '0\.scale'"):
        models.reset(nn.Sequential(Own()))
    covered = Covered()
    before = covered.layer.weight.clone(), covered.attention.in_proj_weight.clone()
    models.reset(covered, seed=3)
    assert (covered.scale == 7).all()
    assert not torch.equal(before[0], covered.layer.weight)
    assert not torch.equal(before[1], covered.attention.in_proj_weight)
    first = covered.layer.weight.clone()
    assert torch.equal(models.reset(covered, seed=3).layer.weight, first)
    assert covered.layer.weight.requires_grad


def test_a_parametrised_layer_is_refused():
    """Its reset_parameters() writes to a copy: every replica would start at the same point."""
    layer = nn.utils.parametrizations.weight_norm(nn.Linear(4, 4))
    before = layer.weight.clone()
    layer.reset_parameters()
    assert torch.equal(layer.weight, before)
    with pytest.raises(ParameterError, match="1 is parametrised"):
        models.reset(nn.Sequential(nn.ReLU(), layer), seed=1)


@pytest.mark.parametrize(
    "build, said",
    [
        (lambda: models.smith_le(0), "width=0"),
        (lambda: models.smith_le(2.5), "whole number"),
        (lambda: models.deep_mlp(8, 0), "depth=0"),
        (lambda: models.deep_mlp(8, init="ugly"), "choose one of good, bad"),
        (lambda: models.logistic_regression(n_out=0), "n_out=0"),
        (lambda: models.c1(dropout=1.0), "dropout=1.0"),
        (lambda: models.c2(dropout=-0.1), "dropout=-0.1"),
        (lambda: models.vgg11(dropout="half"), "dropout='half'"),
        (lambda: models.vgg11(n_channels=0), "n_channels=0"),
        (lambda: models.resnet56(shortcut="C"), "choose one of A, B"),
        (lambda: models.reset(models.smith_le(2), seed=-1), "seed=-1"),
    ],
)
def test_bad_arguments_are_refused(build, said):
    with pytest.raises(ParameterError, match=said):
        build()

"""Convolutional networks: all copies at once, against a loop over plain torch modules."""

import numpy as np
import pytest

import langevin as lv

torch = pytest.importorskip("torch", reason="needs torch: pip install .[neural]")

from torch import nn  # noqa: E402
from torch.nn import functional as F  # noqa: E402

from langevin import neural  # noqa: E402
from langevin.neural import NeuralSurface, models  # noqa: E402
from langevin.neural.evaluation import Evaluation  # noqa: E402

_generator = torch.Generator().manual_seed(0)


def pictures(n, *shape):
    X = torch.randn(n, *shape, generator=_generator, dtype=torch.float64)
    return X, torch.arange(n) % 3


SMALL = pictures(24, 2, 8, 8)


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


class Tutorial(nn.Module):
    """As in a tutorial: functions for pooling, dropout and flattening."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Conv2d(2, 4, 3, padding="same"), nn.Conv2d(4, 6, 3, stride=2)
        self.last = nn.Linear(6 * 3 * 3, 3)

    def forward(self, x):
        x = F.dropout(F.max_pool2d(F.relu(self.first(x)), 3, 1, 1), 0.2, self.training)
        x = F.avg_pool2d(torch.tanh(self.second(x)), 2, stride=1, padding=1)[:, :, 0:3, :3]
        return self.last(torch.flatten(x, 1))


def layers():
    return nn.Sequential(
        nn.Conv2d(2, 6, 3, padding=1, bias=False), nn.BatchNorm2d(6), nn.ReLU(),
        nn.Dropout2d(0.3), nn.MaxPool2d(2), nn.Dropout(0.2),
        nn.Conv2d(6, 4, (3, 1), dilation=(1, 2), groups=2), nn.BatchNorm2d(4, affine=False),
        nn.AvgPool2d(2, ceil_mode=True), nn.AdaptiveAvgPool2d((1, 2)), nn.Flatten(),
        nn.Linear(8, 3),
    )  # fmt: skip


def surface(kind=layers, data=SMALL, **options):
    torch.manual_seed(1)
    return NeuralSurface(kind().double(), data, **options)


def train(given, dynamics=None, *, n_replicas=1, n_steps=12, **more):
    dynamics = dynamics or lv.SGD(0.1, 6, momentum=0.5)
    return lv.simulate(
        given, dynamics, n_replicas=n_replicas, n_steps=n_steps, seed=5, progress=False, **more
    )


def looped(given, rows, X, y):
    """Losses and gradients of plain modules, in evaluation mode but for batch normalisation."""
    losses, slopes = [], []
    for k, row in enumerate(rows):
        module = given.with_parameters(row).eval()
        for part in module.modules():
            if isinstance(part, (nn.BatchNorm1d, nn.BatchNorm2d)):
                part.train(given.batch_norm != "eval")
        loss = F.cross_entropy(module(X[k]), y[k])
        slopes.append(
            torch.cat([g.flatten() for g in torch.autograd.grad(loss, module.parameters())])
        )
        losses.append(loss.detach())
    return torch.stack(losses), torch.stack(slopes)


NETWORKS = {
    "layers": (layers, (2, 8, 8), 3),
    "tutorial": (Tutorial, (2, 8, 8), 3),
    "c1": (models.c1, (3, 32, 32), 2),
    "vgg11": (lambda: models.vgg11(batch_norm=True), (3, 32, 32), 1),
    "resnet56": (models.resnet56, (3, 32, 32), 2),
    "resnet56 B": (lambda: models.resnet56(shortcut="B"), (3, 32, 32), 2),
}


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("policy", ["batch", "eval"])
def test_all_copies_at_once_are_plain_modules(name, policy):
    kind, shape, copies = NETWORKS[name]
    X, y = pictures(4 * copies, *shape)
    given = surface(kind, (X, y), batch_norm=policy)
    evaluation = Evaluation(given, torch.float64)
    assert evaluation.how == "batched"
    rows = np.stack([given.flat() * (1 + 0.1 * k) for k in range(copies)])
    X, y = X.view(copies, 4, *shape), y.view(copies, 4)
    expected_losses, expected = looped(given, rows, X, y)
    rows = torch.from_numpy(rows)
    out = torch.empty_like(rows)
    losses = evaluation.gradient(rows, X, y, torch.full((copies, 4), 0.25).double(), out, 0.0)
    np.testing.assert_allclose(losses, expected_losses, rtol=1e-10)
    scale = float(expected.abs().max())
    np.testing.assert_allclose(out, expected, rtol=0, atol=1e-10 * scale)


@pytest.mark.parametrize("kind", [layers, Tutorial])
@pytest.mark.parametrize("policy", ["batch", "eval", "recalibrate"])
def test_an_ensemble_is_its_single_runs(kind, policy):
    given = surface(kind, batch_norm=policy)
    observe = (neural.Loss(), neural.Accuracy())
    together = train(given, n_replicas=3, observe=observe)
    assert together.how == "batched"
    for k in range(3):
        alone = train(given, first_replica=k, observe=observe)
        np.testing.assert_allclose(alone.positions[0], together.positions[k], rtol=0, atol=1e-10)
        for name in ("loss", "accuracy"):
            mine, its = alone[name].values[0], together[name].values[k]
            np.testing.assert_allclose(mine, its, rtol=0, atol=1e-10)
    assert np.ptp(together.positions, axis=0).max() > 0.1


def test_whole_channels_are_dropped_in_training_alone():
    given = surface()
    pure = surface(lambda: layers().eval())
    runs = [train(s, lv.SGD(0.1, 24, sampling="without_replacement"), n_replicas=2, start="module")
            for s in (given, pure)]  # fmt: skip
    assert np.abs(np.diff(runs[0].positions, axis=0)).max() > 1e-3
    assert np.abs(np.diff(runs[1].positions, axis=0)).max() < 1e-12
    evaluation = Evaluation(given, torch.float64)
    seen = []

    class Spy:
        def mask(self, layer, shape, p):
            seen.append((layer, tuple(shape), p))
            return torch.ones(shape)

    x = SMALL[0].expand(2, *SMALL[0].shape)
    rows = torch.from_numpy(np.stack([given.flat()] * 2))
    with torch.no_grad():
        evaluation.outputs(evaluation.layout.views(rows), x, None, Spy())
        evaluation.outputs(evaluation.layout.views(rows), x)
    assert seen == [(0, (2, 24, 6, 1, 1), 0.3), (1, (2, 24, 6, 4, 4), 0.2)]


class Circular(nn.Sequential):
    def __init__(self):
        padded = nn.Conv2d(2, 2, 3, padding=1, padding_mode="circular")
        super().__init__(padded, nn.Flatten(), nn.Linear(128, 3))


class Reflected(Tutorial):
    def forward(self, x):
        return super().forward(F.pad(x, (1, 1, 1, 1), mode="reflect")[:, :, 1:9, 1:9])


@pytest.mark.parametrize("kind", [Circular, Reflected])
def test_what_has_no_such_form_goes_through_vmap(kind):
    given = surface(lambda: kind().eval())
    run = train(given, n_replicas=2, n_steps=4)
    assert run.how.startswith("vmap"), run.how
    alone = train(given, n_steps=4, first_replica=1)
    np.testing.assert_allclose(alone.positions[0], run.positions[1], rtol=0, atol=1e-12)

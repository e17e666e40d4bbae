"""Networks: against the core engine, against torch.optim, ensembles against single runs."""

import copy
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import langevin as lv
from langevin.errors import CheckpointError, DivergenceError, LangevinError, ParameterError

torch = pytest.importorskip("torch", reason="needs torch: pip install .[neural]")

from torch import nn  # noqa: E402

from langevin import neural  # noqa: E402
from langevin.engines.streams import Indices, stretches  # noqa: E402
from langevin.neural import NeuralSurface, stacked  # noqa: E402
from langevin.neural.evaluation import Evaluation  # noqa: E402

SAMPLINGS = ("with_replacement", "without_replacement", "epoch_shuffle")
H = np.array([[2.0, 0.3, 0.0], [0.3, 1.0, 0.1], [0.0, 0.1, 0.5]])


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


def numbers(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


X = numbers(60, 5)
Y = torch.arange(60) % 3


def classifier(norm=True):
    torch.manual_seed(1)
    layers = [nn.Linear(5, 7), *([nn.BatchNorm1d(7)] if norm else []), nn.Tanh(), nn.Linear(7, 3)]
    return nn.Sequential(*layers).double()


def train(surface, dynamics, *, n_replicas=1, n_steps=50, seed=5, **more):
    return lv.simulate(
        surface, dynamics, n_replicas=n_replicas, n_steps=n_steps, seed=seed, progress=False, **more
    )


class Quadratic(nn.Module):
    """A module whose output is w'Hw/2, whatever its input."""

    def __init__(self):
        super().__init__()
        self.w = nn.Parameter(torch.zeros(3, dtype=torch.float64))
        self.register_buffer("H", torch.tensor(H))

    def forward(self, x):
        return (0.5 * self.w @ self.H @ self.w) * torch.ones(len(x), 1, dtype=x.dtype)


# --- the core engine's numbers --------------------------------------------------------------------


def regression():
    """The same least squares as a network and as a FiniteSum."""
    u = numbers(200, 8)
    v = u @ numbers(8, seed=1) + 0.3 * numbers(200, seed=2)
    network = NeuralSurface(nn.Linear(8, 1, bias=False).double(), (u, v), loss="squared", l2=0.01)
    data = {"u": u.numpy(), "v": v.numpy()}
    return network, lv.FiniteSum("(w*u - v)**2/2", data=data, l2=0.01)


@pytest.mark.parametrize("sampling", SAMPLINGS)
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"momentum": 0.9},
        {"momentum": 0.9, "nesterov": True, "weight_decay": 0.02},
        {"batch_size": np.array([3, 7, 7, 20, 1])},
        {"learning_rate": lv.schedules.Cosine(0.04, 50)},
        {"learning_rate": np.linspace(0.01, 0.03, 5), "drop_last": False},
    ],
)
def test_a_quadratic_network_takes_the_core_s_steps(sampling, options):
    network, data = regression()
    sgd = lv.SGD(**{"learning_rate": 0.02, "batch_size": 7, "sampling": sampling} | options)
    a, b = (train(s, sgd, n_replicas=5, start=np.zeros(8), seed=3) for s in (network, data))
    assert np.abs(a.positions).max() > 0.1
    np.testing.assert_allclose(a.positions, b.positions, rtol=0, atol=1e-14)
    other = train(network, sgd, n_replicas=5, start=np.zeros(8), seed=4)
    assert np.abs(other.positions - b.positions).max() > 1e-3


def test_a_batch_size_schedule_is_the_core_s():
    network, data = regression()
    sizes = lv.schedules.Steps(5, [10, 25], 2.0)
    for sampling in SAMPLINGS:
        sgd = lv.SGD(0.02, sizes, sampling=sampling)
        a, b = (train(s, sgd, n_replicas=3, start=np.zeros(8)) for s in (network, data))
        np.testing.assert_allclose(a.positions, b.positions, rtol=0, atol=1e-14)


LANGEVIN = [
    lv.Overdamped(0.1, 0.05),
    lv.Overdamped(0.1, 0.05, integrator="leimkuhler_matthews"),
    *(lv.Underdamped(0.1, 1.0, 0.1, splitting=s) for s in ("BAOAB", "OBABO", "ABOBA", "BAO")),
    lv.Underdamped(0.1, 1.0, 0.1, splitting="OABAO"),
]


@pytest.mark.parametrize("dynamics", LANGEVIN, ids=lambda d: getattr(d, "splitting", d.__class__))
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_langevin_dynamics_on_weights_is_the_core_s(dynamics, dtype):
    nothing = (torch.zeros(4, 1, dtype=torch.float64), torch.zeros(4))
    surfaces = (NeuralSurface(Quadratic(), nothing, loss="output"), lv.surfaces.quadratic(H))
    a, b = (
        train(s, dynamics, n_replicas=6, start=np.ones(3), dtype=dtype, first_replica=9)
        for s in surfaces
    )
    close = 1e-13 if dtype == "float64" else 1e-5
    np.testing.assert_allclose(a.positions, b.positions, rtol=0, atol=close)
    if b.velocities is not None:
        np.testing.assert_allclose(a.velocities, b.velocities, rtol=0, atol=close)


def test_a_splitting_is_cut_where_it_needs_a_gradient():
    assert stretches("BAOAB") == ["BAOA", "B"]
    assert stretches("OBABO") == ["OBA", "BO"]
    assert stretches("ABOBA") == ["A", "BOBA"]
    assert stretches("BABO") == ["BA", "BO"]
    assert stretches("BAO") == ["", "BAO"]


# --- torch's own optimisers -----------------------------------------------------------------------

OPTIMISERS = {
    "sgd": (lambda **o: lv.SGD(0.1, 8, **o), lambda p: torch.optim.SGD(p, lr=0.1)),
    "nesterov": (
        lambda **o: lv.SGD(0.1, 8, momentum=0.9, nesterov=True, weight_decay=0.01, **o),
        lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, nesterov=True, weight_decay=0.01),
    ),
    "adam": (
        lambda **o: lv.Adam(0.01, 8, betas=(0.8, 0.99), eps=1e-4, **o),
        lambda p: torch.optim.Adam(p, lr=0.01, betas=(0.8, 0.99), eps=1e-4),
    ),
}


@pytest.mark.parametrize("how", ["batched", "compiled"])
@pytest.mark.parametrize("name", OPTIMISERS)
@pytest.mark.parametrize("sampling", SAMPLINGS)
def test_one_replica_is_a_plain_torch_loop(name, sampling, how):
    ours, theirs = OPTIMISERS[name]
    module = classifier(norm=how == "batched")
    surface = NeuralSurface(module, (X, Y))
    found = train(surface, ours(sampling=sampling), start="module")
    assert found.how == how
    plain = copy.deepcopy(module)
    optimiser = theirs(plain.parameters())
    draw = Indices(sampling, 60, np.array([0]), (5, 0))
    for step in range(50):
        epoch, place = divmod(step, 60 // 8) if sampling == "epoch_shuffle" else (0, 0)
        given = (np.array([v]) for v in (8, epoch, 8 * place))
        batch = torch.from_numpy(draw.draw(step, *given, 8))[0]
        assert sampling == "with_replacement" or len(set(batch.tolist())) == 8
        optimiser.zero_grad()
        nn.functional.cross_entropy(plain(X[batch]), Y[batch]).backward()
        optimiser.step()
    np.testing.assert_allclose(found.positions[0], surface.flat(plain), rtol=0, atol=1e-10)
    assert np.abs(surface.flat(plain) - surface.flat(module)).max() > 0.05


# --- ensembles ------------------------------------------------------------------------------------

ENSEMBLES = {
    "plain": {"dynamics": lambda s: lv.SGD(0.1, 8, sampling=s)},
    "momentum": {"dynamics": lambda s: lv.SGD(0.05, 8, momentum=0.9, sampling=s)},
    "schedule": {
        "dynamics": lambda s: lv.SGD(
            lv.schedules.Cosine(0.1, 50), lv.schedules.Steps(4, [20], 2.0), sampling=s
        )
    },
    "adam": {"dynamics": lambda s: lv.Adam(0.01, 8, sampling=s)},
}


@pytest.mark.parametrize("batch_norm", ["batch", "eval", "recalibrate", None])
@pytest.mark.parametrize("sampling", SAMPLINGS)
@pytest.mark.parametrize("name", ENSEMBLES)
def test_an_ensemble_is_its_single_runs(name, sampling, batch_norm):
    module = classifier(norm=batch_norm is not None)
    surface = NeuralSurface(module, (X, Y), l2=0.01, batch_norm=batch_norm or "batch")
    dynamics = ENSEMBLES[name]["dynamics"](sampling)
    observe = (neural.Loss(), neural.Accuracy())
    together = train(surface, dynamics, n_replicas=8, observe=observe)
    assert together.how == ("batched" if batch_norm else "compiled")
    assert np.ptp(together.positions, axis=0).max() > 0.1
    for k in (0, 3, 7):
        alone = train(surface, dynamics, first_replica=k, observe=observe)
        np.testing.assert_allclose(alone.positions[0], together.positions[k], rtol=0, atol=1e-10)
        for observer in ("loss", "accuracy"):
            mine, theirs = alone[observer].values[0], together[observer].values[k]
            np.testing.assert_allclose(mine, theirs, rtol=0, atol=1e-10)


def test_a_grid_of_settings_is_one_run():
    surface = NeuralSurface(classifier(), (X, Y))
    rates, sizes = np.linspace(0.05, 0.2, 8), np.array([4, 4, 8, 8, 8, 16, 5, 60])
    momenta = np.linspace(0, 0.9, 8)
    grid = lv.SGD(rates, sizes, momentum=momenta, sampling="without_replacement")
    together = train(surface, grid, n_replicas=8, observe=neural.BatchLoss(every=10))
    for k in range(8):
        one = lv.SGD(rates[k], int(sizes[k]), momentum=momenta[k], sampling="without_replacement")
        alone = train(surface, one, first_replica=k, observe=neural.BatchLoss(every=10))
        np.testing.assert_allclose(alone.positions[0], together.positions[k], rtol=0, atol=1e-10)
        np.testing.assert_allclose(
            alone["batch_loss"].values[0], together["batch_loss"].values[k], rtol=0, atol=1e-10
        )
    full = together["batch_loss"].final[-1, 1]
    assert full < 1e-3 < together["batch_loss"].final[0, 1]  # the whole data's loss hardly varies


class Own(nn.Module):
    """What users write: a forward() with functions, a view and a skip connection."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(5, 5), nn.Linear(5, 3)

    def forward(self, x):
        x = x.view(x.size(0), -1)
        return self.second(torch.relu(self.first(x)) + x)


class Branching(Own):
    """A forward() that asks a tensor for its value: neither traced nor vmapped."""

    def forward(self, x):
        hidden = self.first(x)
        return self.second(hidden if float(hidden.sum()) > 0 else -hidden)


class Convolution(nn.Module):
    """A layer without a batched form here."""

    def __init__(self):
        super().__init__()
        self.convolution, self.last = nn.Conv1d(1, 2, 3), nn.Linear(6, 3)

    def forward(self, x):
        return self.last(torch.relu(self.convolution(x.unsqueeze(1))).flatten(1))


@pytest.mark.parametrize(
    "module, how", [(Own, "batched"), (Convolution, "vmap: "), (Branching, "a loop over")]
)
def test_modules_of_all_kinds_train_alike(module, how):
    torch.manual_seed(3)
    surface = NeuralSurface(module().double(), (X, Y))
    sgd = lv.SGD(0.1, 6, momentum=0.5)
    together = train(surface, sgd, n_replicas=4, n_steps=20)
    assert together.how.startswith(how), together.how
    plain = together.surface.with_parameters(train(surface, sgd, n_steps=1).positions[0])
    assert isinstance(plain, module)
    for k in range(4):
        alone = train(surface, sgd, n_steps=20, first_replica=k)
        np.testing.assert_allclose(alone.positions[0], together.positions[k], rtol=0, atol=1e-12)


def hooked():
    module = nn.Sequential(nn.Linear(5, 3))
    module[0].register_forward_hook(lambda module, given, outputs: 3 * outputs)
    return module


def halved():
    module = nn.Sequential(nn.Linear(5, 3))
    module[0].register_forward_pre_hook(lambda module, given: (given[0] / 2,))
    return module


def parametrised():
    return nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Linear(5, 3)))


@pytest.mark.parametrize("make", [hooked, halved, parametrised])
def test_hooks_and_parametrisations_are_not_forgotten(make):
    torch.manual_seed(3)
    module = make().double()
    surface = NeuralSurface(module, (X, Y))
    with torch.no_grad():
        expected = float(nn.functional.cross_entropy(module(X), Y))
    assert surface.energy(surface.flat()) == pytest.approx(expected, abs=1e-14)
    run = train(surface, lv.SGD(0.1, 8), n_replicas=2, n_steps=5, start="module")
    assert run.how.startswith("vmap: it has hooks or parametrisations")


def test_frozen_parameters_stay_what_they_are():
    def frozen(kind, *names):
        torch.manual_seed(3)
        module = kind().double()
        for name, parameter in module.named_parameters():
            parameter.requires_grad_(name not in names)
        return module

    for kind, names, how in (
        (classifier, ("0.weight", "0.bias", "1.weight"), "batched"),
        (Own, ("first.weight",), "batched"),
        (Convolution, ("convolution.weight",), "vmap"),
        (Branching, ("first.weight", "second.bias"), "a loop"),
    ):
        module = frozen(kind, *names)
        surface = NeuralSurface(module, (X, Y), l2=0.01)
        kept = {n: p for n, p in module.named_parameters() if p.requires_grad}
        assert surface.dim == sum(p.numel() for p in kept.values())
        sgd = lv.SGD(0.1, 60, sampling="without_replacement", weight_decay=0.1, momentum=0.5)
        run = train(surface, sgd, n_replicas=2, n_steps=20, start="module")
        assert run.how.startswith(how), run.how
        plain = copy.deepcopy(module)
        optimiser = torch.optim.SGD(kept_of(plain), lr=0.1, momentum=0.5, weight_decay=0.1)
        for _ in range(20):
            optimiser.zero_grad()
            penalty = 0.005 * sum(p.square().sum() for p in kept_of(plain))
            (nn.functional.cross_entropy(plain(X), Y) + penalty).backward()
            optimiser.step()
        np.testing.assert_allclose(run.positions[1], surface.flat(plain), rtol=0, atol=1e-12)
        found = dict(run.module(1).named_parameters())
        assert all(
            torch.equal(found[name], dict(module.named_parameters())[name]) for name in names
        )
        anew = train(surface, sgd, n_replicas=2, n_steps=1)  # each replica's own start
        assert np.abs(np.diff(anew.positions, axis=0)).max() > 0.01


def kept_of(module):
    return [p for p in module.parameters() if p.requires_grad]


class Words(nn.Module):
    """Its inputs are whole numbers."""

    def __init__(self):
        super().__init__()
        self.vectors, self.last = nn.Embedding(9, 4), nn.Linear(4, 3)

    def forward(self, x):
        return self.last(self.vectors(x).mean(1))


@pytest.mark.parametrize(
    "dynamics", [lv.Overdamped(0.0, 0.1), lv.SGD(0.1, 60, sampling="without_replacement")]
)
def test_inputs_may_be_whole_numbers(dynamics):
    torch.manual_seed(3)
    module = Words().double()
    tokens = torch.arange(300).view(60, 5) * 7 % 9
    surface = NeuralSurface(module, (tokens, Y))
    run = train(surface, dynamics, n_replicas=2, n_steps=20, start="module")
    optimiser = torch.optim.SGD(module.parameters(), lr=0.1)
    for _ in range(20):
        optimiser.zero_grad()
        nn.functional.cross_entropy(module(tokens), Y).backward()
        optimiser.step()
    np.testing.assert_allclose(run.positions[1], surface.flat(module), rtol=0, atol=1e-12)
    assert np.abs(run.positions[1] - surface.flat()).max() > 0.05
    short = train(surface, lv.SGD(0.1, 60, clip_norm=1e-3), n_replicas=2, n_steps=5, start="module")
    assert 0 < np.linalg.norm(short.positions[0] - surface.flat()) < 6e-4


def test_layers_that_share_parameters_train_them_once():
    torch.manual_seed(3)
    module = nn.Sequential(nn.Linear(5, 5), nn.Tanh(), nn.Linear(5, 5), nn.Linear(5, 3)).double()
    module[2].weight = module[0].weight
    surface = NeuralSurface(module, (X, Y))
    assert surface.dim == 25 + 5 + 5 + 18
    sgd = lv.SGD(0.1, 60, sampling="without_replacement")
    run = train(surface, sgd, n_replicas=2, n_steps=20, start="module")
    assert run.how.startswith("vmap: layers share parameters")
    optimiser = torch.optim.SGD(module.parameters(), lr=0.1)
    for _ in range(20):
        optimiser.zero_grad()
        nn.functional.cross_entropy(module(X), Y).backward()
        optimiser.step()
    np.testing.assert_allclose(run.positions[1], surface.flat(module), rtol=0, atol=1e-12)


def test_batched_vmapped_and_looped_gradients_are_one():
    surface = NeuralSurface(classifier(norm=False), (X, Y))
    rows = torch.from_numpy(np.stack([surface.flat() * f for f in (0.5, 1.0, 2.0)]))
    found = []
    for way in ("batched", "vmap", "loop"):
        evaluation = Evaluation(surface, torch.float64)
        evaluation.how = way
        if way == "vmap":
            plain = stacked.with_statistics(evaluation.module, "batch")

            def one(parameters, buffers, x, plain=plain):
                return torch.func.functional_call(plain, (parameters, buffers), (x,))

            evaluation.forward = torch.func.vmap(one)
        elif way == "loop":
            evaluation.forward = stacked.looped(evaluation.module, "batch")
        out = torch.empty_like(rows)
        x, y = X.expand(3, *X.shape), Y.expand(3, 60)
        losses = evaluation.gradient(rows, x, y, torch.full((3, 60), 1 / 60.0).double(), out, 0.0)
        found.append((losses, out))
    for losses, out in found[1:]:
        np.testing.assert_allclose(losses, found[0][0], rtol=0, atol=1e-14)
        np.testing.assert_allclose(out, found[0][1], rtol=0, atol=1e-14)


# --- what is measured -----------------------------------------------------------------------------


def test_energy_and_gradient_are_torch_s():
    surface = NeuralSurface(classifier(norm=False), (X, Y), l2=0.1)
    theta = surface.flat()
    module = surface.with_parameters(theta)
    loss = nn.functional.cross_entropy(module(X), Y)
    loss = loss + 0.05 * sum(p.square().sum() for p in module.parameters())
    gradient = torch.cat([g.reshape(-1) for g in torch.autograd.grad(loss, module.parameters())])
    assert surface.energy(theta) == pytest.approx(float(loss), abs=1e-14)
    np.testing.assert_allclose(surface.gradient(theta), gradient, rtol=0, atol=1e-15)
    assert surface.energy(np.stack([theta, 2 * theta])).shape == (2,)


def test_observers_measure_what_they_say():
    surface = NeuralSurface(classifier(norm=False), (X, Y))
    test = (numbers(30, 5, seed=7), torch.arange(30) % 3)
    observe = (
        neural.Loss(), neural.Loss(test, name="test"), neural.Accuracy(test), neural.WeightNorm(),
        neural.Distance(), neural.GradientNorm(),
        neural.Record(lambda module, parameters, buffers: parameters["0.bias"].sum(), name="bias"),
    )  # fmt: skip
    run = train(surface, lv.SGD(0.1, 8), n_replicas=3, observe=observe)
    for k in range(3):
        module = run.module(k)
        with torch.no_grad():
            outputs = module(test[0])
        assert run["test"].final[k] == pytest.approx(
            float(nn.functional.cross_entropy(outputs, test[1])), abs=1e-12
        )
        right = (outputs.argmax(1) == test[1]).double().mean()
        assert run["accuracy"].final[k] == pytest.approx(float(right), abs=1e-7)
        theta = run.positions[k]
        assert run["loss"].final[k] == pytest.approx(surface.energy(theta), abs=1e-12)
        assert run["weight_norm"].final[k] == pytest.approx(np.linalg.norm(theta), abs=1e-12)
        assert run["gradient_norm"].final[k] == pytest.approx(
            np.linalg.norm(surface.gradient(theta)), abs=1e-12
        )
        assert run["bias"].final[k] == pytest.approx(float(module[0].bias.sum()), abs=1e-12)
    begun = train(surface, lv.SGD(0.1, 8), n_replicas=3, n_steps=1).positions
    assert np.all(run["distance"].final > 0.1) and begun.shape == run.positions.shape
    labels = run.to_xarray()
    assert labels["loss"].dims == ("replica", "record")
    assert int(labels["record_step"][-1]) == 50


def test_replicas_begin_apart_and_reproducibly():
    surface = NeuralSurface(classifier(), (X, Y))
    still = lv.SGD(1e-12, 8)
    a = train(surface, still, n_replicas=3, n_steps=1).positions
    b = train(surface, still, n_replicas=2, n_steps=1, first_replica=1).positions
    np.testing.assert_array_equal(a[1:], b)
    assert np.abs(a[0] - a[1]).max() > 0.1
    assert np.abs(train(surface, still, n_steps=1, seed=6).positions[0] - a[0]).max() > 0.1
    state = torch.random.get_rng_state()
    train(surface, still, n_steps=1)
    assert torch.equal(state, torch.random.get_rng_state())  # nobody else's numbers are used up


def test_batch_normalisation_s_policies_differ():
    surfaces = {p: NeuralSurface(classifier(), (X, Y), batch_norm=p) for p in ("batch", "eval")}
    surfaces["recalibrate"] = NeuralSurface(classifier(), (X, Y), batch_norm="recalibrate")
    theta = surfaces["batch"].flat()
    held_out = (numbers(30, 5, seed=7) * 3, torch.arange(30) % 3)
    losses = {p: float(s.energy(theta, held_out)) for p, s in surfaces.items()}
    assert len({round(v, 6) for v in losses.values()}) == 3
    module = copy.deepcopy(surfaces["batch"].module)
    module[1].momentum = None
    module[1].reset_running_stats()
    with torch.no_grad():
        module.train()(X)
        expected = nn.functional.cross_entropy(module.eval()(held_out[0]), held_out[1])
    assert losses["recalibrate"] == pytest.approx(float(expected), abs=1e-12)
    with torch.no_grad():
        untouched = surfaces["eval"].module.eval()(held_out[0])
    expected = nn.functional.cross_entropy(untouched, held_out[1])
    assert losses["eval"] == pytest.approx(float(expected), abs=1e-12)


# --- stopping and going on ------------------------------------------------------------------------

KILLED = """
import os, sys, torch, langevin as lv
from langevin.checkpoint import Checkpoint
sys.path.insert(0, sys.argv[2])
import test_neural
torch.set_num_threads(1)
due = Checkpoint.due
def die(self, done):
    due(self, done)
    if done >= 128:
        os.kill(os.getpid(), 9)
Checkpoint.due = die
test_neural.long_run(sys.argv[3], sys.argv[1])
"""


def long_run(how, folder=None):
    surface = NeuralSurface(classifier(norm=how == "batched"), (X, Y))
    adam = lv.Adam(0.01, 8, sampling="epoch_shuffle")
    observe = (neural.Loss(every=30), neural.BatchLoss(every=50))
    more = {} if folder is None else {"checkpoint": folder, "checkpoint_every": 0.0}
    return train(surface, adam, n_replicas=3, n_steps=300, observe=observe, **more)


@pytest.mark.parametrize("how", ["batched", "compiled"])
def test_killed_and_resumed_gives_the_same_bits(tmp_path, how):
    whole = long_run(how)
    assert whole.how == how
    command = [sys.executable, "-c", KILLED, str(tmp_path / "run"), str(Path(__file__).parent), how]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == -signal.SIGKILL, done.stderr
    rest = long_run(how, tmp_path / "run")
    assert 128 <= rest.resumed_at < 300
    np.testing.assert_array_equal(rest.positions, whole.positions)
    for name in ("loss", "batch_loss"):
        np.testing.assert_array_equal(rest[name].values, whole[name].values)
    with pytest.raises(CheckpointError, match="seed"):
        surface = NeuralSurface(classifier(), (X, Y))
        train(surface, lv.SGD(0.1, 8), seed=8, checkpoint=tmp_path / "run")


def test_a_diverging_network_is_named_and_the_rest_kept():
    surface = NeuralSurface(classifier(norm=False), (X, Y), l2=1.0)
    sgd = lv.SGD(np.array([0.1, 50.0, 0.1]), 8)
    with pytest.raises(DivergenceError, match="replica 1, at step") as caught:
        train(surface, sgd, n_replicas=3, n_steps=500)
    assert caught.value.result.diverged[1] > 0
    absorbed = train(
        surface, sgd, n_replicas=3, n_steps=300, on_divergence="absorb", observe=neural.Loss()
    )
    assert (absorbed.diverged >= 0).tolist() == [False, True, False]
    assert np.isfinite(absorbed["loss"].final[[0, 2]]).all()


# --- refusals -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "make, words",
    [
        (lambda: NeuralSurface("net", (X, Y)), "torch.nn.Module"),
        (lambda: NeuralSurface(classifier(), (X, Y[:5])), "as many targets"),
        (lambda: NeuralSurface(classifier(), X), "pair"),
        (lambda: NeuralSurface(classifier(), (X[:, :4], Y)), "cannot take X of shape"),
        (lambda: NeuralSurface(classifier(), (X, Y + 1)), "labels from 1 to 3"),
        (lambda: NeuralSurface(classifier(), (X, Y - 1)), "labels from -1"),
        (lambda: NeuralSurface(classifier(), (X, Y), loss="hinge"), "choose one of"),
        (lambda: NeuralSurface(classifier(), (X, Y), batch_norm="frozen"), "choose one of"),
        (lambda: NeuralSurface(classifier(), (X, Y), l2=-1.0), "l2=-1.0"),
        (lambda: NeuralSurface(nn.ReLU(), (X, Y)), "no parameters"),
        (lambda: NeuralSurface(classifier(), (X * float("nan"), Y)), "NaN"),
        (lambda: NeuralSurface(classifier(), (X, Y), loss=lambda o, t: o.sum()), "one number an"),
    ],
)
def test_a_surface_that_cannot_be_is_refused(make, words):
    with pytest.raises(ParameterError, match=words):
        make()


@pytest.mark.parametrize(
    "dynamics, options, words",
    [
        (lv.SGD(0.1, 2.5), {}, "whole number"),
        (lv.SGD(0.1, 61, sampling="epoch_shuffle"), {}, "larger than the data"),
        (lv.SGD(np.array([0.1, 0.2]), 8), {}, "2 values but n_replicas=1"),
        (lv.Overdamped(0.1, 0.1, integrator="heun"), {}, "networks take"),
        ("sgd", {}, "networks take"),
        (lv.Underdamped(0.1, np.array([1.0, 2.0]), 0.1), {}, "2 values but n_replicas=1"),
        (lv.Underdamped(0.1, 1.0, 0.1, masses=2.0), {}, "mass 1"),
        (lv.SGD(0.1, 8), {"observe": lv.Histogram()}, "networks take"),
        (lv.SGD(0.1, 8), {"observe": (neural.Loss(), neural.Loss())}, "its own name"),
        (lv.SGD(0.1, 8), {"start": np.zeros(3)}, "start has shape"),
        (lv.SGD(0.1, 8), {"start": "there"}, "start='there'"),
        (lv.SGD(0.1, 8), {"device": "tpu"}, "device"),
        (lv.SGD(0.1, 8), {"n_steps": 0}, "n_steps"),
    ],
)
def test_a_training_that_cannot_be_is_refused(dynamics, options, words):
    with pytest.raises(LangevinError, match=words):
        train(NeuralSurface(classifier(), (X, Y)), dynamics, **options)


NOTHING = float("nan")


@pytest.mark.parametrize(
    "data, words",
    [
        ((X[:, :4], Y), "cannot take X of shape"),
        ((X, Y + 1), "labels from 1 to 3"),
        ((X, Y - 1), "labels from -1 to 1"),
        ((X, Y[:5]), "as many targets"),
        ((X, Y.double()), "cannot take outputs"),
        ((X * NOTHING, Y), "X holds NaN"),
        (X, "must be a pair"),
        ((X, ["a"] * 60), "must be a pair"),
        ((X[:0], Y[:0]), "at least one"),
    ],
)
def test_bad_data_are_refused_before_anything_is_trained(data, words):
    surface = NeuralSurface(classifier(), (X, Y))
    for refused in (
        lambda: NeuralSurface(classifier(), data),
        lambda: surface.energy(surface.flat(), data),
        lambda: train(surface, lv.SGD(0.1, 8), observe=neural.Loss(data)),
        lambda: train(surface, lv.SGD(0.1, 8), observe=neural.Accuracy(data, name="held_out")),
    ):
        with pytest.raises(ParameterError, match=words):
            refused()
    numbers_of = (X, X[:, 0] * NOTHING)
    with pytest.raises(ParameterError, match="y holds NaN"):
        NeuralSurface(nn.Linear(5, 1).double(), numbers_of, loss="squared")


def test_labels_of_any_whole_type_and_lists_are_the_same():
    surface = NeuralSurface(classifier(), (X, Y))
    expected = train(surface, lv.SGD(0.1, 8), observe=neural.Accuracy((X, Y)))
    for x, y in ((X.numpy(), Y.int()), (X.tolist(), Y.tolist()), (X, Y.numpy().astype(np.uint8))):
        own = NeuralSurface(classifier(), (x, y))
        found = train(own, lv.SGD(0.1, 8), observe=neural.Accuracy((x, y)))
        if isinstance(x, list):  # torch makes float32 of lists
            continue
        np.testing.assert_array_equal(found.positions, expected.positions)
        np.testing.assert_array_equal(found["accuracy"].values, expected["accuracy"].values)


def test_two_observers_of_one_data_set_share_its_evaluation(monkeypatch):
    surface, counted = NeuralSurface(classifier(), (X, Y)), []
    measured = Evaluation.measured
    monkeypatch.setattr(
        Evaluation, "measured", lambda *a, **o: counted.append(1) or measured(*a, **o)
    )
    test = (numbers(30, 5, seed=7).numpy(), np.arange(30) % 3)
    train(surface, lv.SGD(0.1, 8), observe=(neural.Loss(test, every=50), neural.Accuracy(test, 50)))
    assert len(counted) == 1


def test_a_formula_refuses_adam():
    with pytest.raises(ParameterError, match="instance such as"):
        train(lv.surfaces.double_well(), lv.Adam(0.1, 8))


THREADS = """
import torch, langevin as lv
from langevin import neural
torch.set_num_threads(1)
surface = neural.NeuralSurface(torch.nn.Linear(2, 2), (torch.rand(4, 2), torch.arange(4) % 2))
lv.simulate(surface, lv.SGD(0.1, 2), n_replicas=1, n_steps=1, seed=1, progress=False)
print(torch.get_num_threads())
"""


def test_a_run_leaves_torch_its_number_of_threads():
    """Numba's threads, once started, set it to their own number: OpenMP has one for both."""
    environment = os.environ | {"NUMBA_NUM_THREADS": "2"}
    command = [sys.executable, "-c", THREADS]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.stdout.strip() == "1", done.stderr

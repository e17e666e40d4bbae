"""Networks on a torch device: the CPU stands in for the GPU, and "meta" says what is elsewhere."""

import contextlib
import functools

import numpy as np
import pytest

import langevin as lv
from langevin.errors import CheckpointError, MemoryWarning, ParameterError, UnavailableError

torch = pytest.importorskip("torch", reason="needs torch: pip install .[neural]")

from torch import nn  # noqa: E402

from langevin import devices, neural  # noqa: E402
from langevin.engines.tensors import TensorEngine  # noqa: E402
from langevin.neural import NeuralSurface, training  # noqa: E402
from langevin.neural.evaluation import Evaluation  # noqa: E402

_generator = torch.Generator().manual_seed(0)
X = torch.randn(60, 5, generator=_generator, dtype=torch.float64)
Y = torch.arange(60) % 3
DYNAMICS = {
    "sgd": lv.SGD(0.1, np.array([6, 6, 9, 9]), sampling="epoch_shuffle", drop_last=False),
    "grid": lv.SGD(
        np.array([0.1, 0.05, 0.02, 0.1]), 8, momentum=0.9, nesterov=True, weight_decay=0.01,
        sampling="without_replacement",
    ),
    "schedules": lv.SGD(lv.schedules.Cosine(0.1, 70), lv.schedules.Steps(4, [20], 2.0)),
    "clipped": lv.SGD(0.1, 8, momentum=0.5, clip_norm=np.array([0.2, 0.5, 1.0, np.inf])),
    "adam": lv.Adam(0.01, 8, clip_norm=0.5),
    "overdamped": lv.Overdamped(0.01, 0.1),
    "sgld": lv.Overdamped(1 / 60, 0.1, "leimkuhler_matthews", batch_size=8),
    "underdamped": lv.Underdamped(0.1, 1.0, 0.1),
    "underdamped batches": lv.Underdamped(np.array([0.1, 0.2, 0.3, 0.0]), 1.0, 0.1, batch_size=8),
    "ABOBA": lv.Underdamped(0.1, 1.0, 0.1, splitting="ABOBA"),
    "BAO": lv.Underdamped(0.1, 1.0, 0.1, splitting="BAO"),
}  # fmt: skip
OBSERVE = (
    neural.Loss(), neural.Accuracy((X[:20], Y[:20])), neural.BatchLoss(every=9),
    neural.GradientNorm(), neural.WeightNorm(), neural.Distance(),
    neural.Record(lambda module, parameters, buffers: parameters["0.bias"].sum()),
)  # fmt: skip


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


@pytest.fixture
def tensors(monkeypatch):
    """Trains on tensors of a torch device, the CPU where there is no other."""

    def on(device="cpu", engine=TensorEngine):
        made = functools.partial(engine, device=device)
        monkeypatch.setattr(training, "engine_on", lambda place: made)

    return on


def surface(dropout=0.25, **options):
    torch.manual_seed(1)
    layers = [nn.Linear(5, 7), nn.BatchNorm1d(7), nn.Tanh(), nn.Dropout(dropout), nn.Linear(7, 3)]
    return NeuralSurface(nn.Sequential(*layers).double(), (X, Y), l2=0.01, **options)


def train(given, dynamics, *, n_steps=70, observe=OBSERVE, **more):
    return lv.simulate(
        given, dynamics, n_replicas=4, n_steps=n_steps, seed=5, progress=False, observe=observe,
        **more,
    )  # fmt: skip


@pytest.mark.parametrize("name", DYNAMICS)
def test_tensors_take_the_native_steps(tensors, name):
    given = surface(label_noise=[0.0, 0.2, 0.4, 0.0])
    native = train(given, DYNAMICS[name])
    tensors()
    found = train(given, DYNAMICS[name])
    assert np.abs(native.positions - surface().flat()).max() > 0.1
    np.testing.assert_allclose(found.positions, native.positions, rtol=0, atol=1e-12)
    if native.velocities is not None:
        np.testing.assert_allclose(found.velocities, native.velocities, rtol=0, atol=1e-12)
    for observer in OBSERVE:
        mine, its = (run[observer.name].values for run in (found, native))
        np.testing.assert_allclose(mine, its, rtol=0, atol=1e-10)


@pytest.mark.parametrize("policy", ["eval", "recalibrate"])
def test_batch_norm_s_policies_too(tensors, policy):
    native = train(surface(batch_norm=policy), DYNAMICS["adam"])
    tensors()
    found = train(surface(batch_norm=policy), DYNAMICS["adam"])
    np.testing.assert_allclose(found.positions, native.positions, rtol=0, atol=1e-12)
    np.testing.assert_allclose(found["loss"].values, native["loss"].values, rtol=0, atol=1e-10)


def test_float32_and_resuming(tensors, tmp_path, monkeypatch):
    sgd = DYNAMICS["underdamped batches"]
    native = train(surface(), sgd, dtype="float32", n_steps=20)
    tensors()
    found = train(surface(), sgd, dtype="float32", n_steps=20)
    assert found.positions.dtype == np.float32
    np.testing.assert_allclose(found.positions, native.positions, rtol=0, atol=1e-4)
    whole = train(surface(), sgd, n_steps=100)

    def stopped():
        calls.append(1)
        return len(calls) > 3

    @contextlib.contextmanager
    def stopping():
        yield stopped

    calls = []
    with monkeypatch.context() as patch:
        patch.setattr(training, "interruptible", stopping)
        part = train(surface(), sgd, n_steps=100, checkpoint=tmp_path)
    assert 0 < part.steps_done < 100
    rest = train(surface(), sgd, n_steps=100, checkpoint=tmp_path)
    assert rest.resumed_at == part.steps_done
    np.testing.assert_array_equal(rest.positions, whole.positions)


def test_a_diverging_replica_and_memory_that_runs_out(tensors, monkeypatch):
    tensors()
    sgd = lv.SGD(np.array([0.1, 1e4, 0.1, 0.1]), 8)
    whole = train(surface(), sgd, on_divergence="absorb")
    assert (whole.diverged >= 0).tolist() == [False, True, False, False]
    gradient = Evaluation.gradient

    def short(self, rows, *arguments, **options):
        if len(rows) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return gradient(self, rows, *arguments, **options)

    monkeypatch.setattr(Evaluation, "gradient", short)
    with pytest.warns(MemoryWarning, match="at most 2"):
        halved = train(surface(), sgd, on_divergence="absorb", observe=neural.Loss())
    np.testing.assert_allclose(halved.positions[0], whole.positions[0], rtol=0, atol=1e-12)


class Elsewhere(TensorEngine):
    """What a device computes is not seen here: zeros come home."""

    def home(self, tensor):
        assert tensor.device == self.place
        return np.zeros(tensor.shape)


@pytest.mark.parametrize("name", DYNAMICS)
def test_everything_a_step_takes_is_on_the_device(tensors, name):
    """torch refuses to mix devices: whatever stayed on the host would be found on "meta"."""
    tensors("meta", Elsewhere)
    given = surface(label_noise=[0.0, 0.2, 0.4, 0.0], batch_norm="batch")
    quiet = (neural.WeightNorm(), neural.Distance())
    assert not train(given, DYNAMICS[name], n_steps=9, observe=quiet).positions.any()
    with pytest.raises(RuntimeError, match="device"):
        torch.zeros(2) + torch.zeros(2, device="meta")


def test_where_networks_train(monkeypatch):
    assert devices.for_networks("cpu") == "cpu"
    with pytest.raises(ParameterError, match="device='tpu'"):
        devices.for_networks("tpu")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert devices.for_networks("auto") == "cpu"
    with pytest.raises(UnavailableError, match=r"torch.cuda is not available, PyTorch .* device="):
        train(surface(), DYNAMICS["sgd"], device="cuda")
    assert train(surface(), DYNAMICS["sgd"], device="auto", n_steps=1).device == "cpu"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert [devices.for_networks(d) for d in ("auto", "cuda", "cuda:1")] == [
        "cuda:0", "cuda:0", "cuda:1",
    ]  # fmt: skip
    for several in ("cuda:all", "cuda:0,1"):
        with pytest.raises(ParameterError, match="one GPU"):
            devices.for_networks(several)
    with pytest.raises(UnavailableError, match="2 GPUs"):
        devices.for_networks("cuda:2")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU that torch can use")
@pytest.mark.parametrize("name", DYNAMICS)
def test_a_real_gpu(name, tmp_path):
    given = surface(label_noise=[0.0, 0.2, 0.4, 0.0])
    native = train(given, DYNAMICS[name])
    found = train(given, DYNAMICS[name], device="cuda", checkpoint=tmp_path)
    assert found.device == "cuda:0"
    np.testing.assert_allclose(found.positions, native.positions, rtol=0, atol=1e-9)
    with pytest.raises(CheckpointError, match="device"):
        train(given, DYNAMICS[name], checkpoint=tmp_path)

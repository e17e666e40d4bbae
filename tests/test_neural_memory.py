"""Memory that runs out: fewer replicas at once, and the same numbers."""

import subprocess
import sys
import warnings

import numpy as np
import pytest

import langevin as lv
from langevin.errors import LangevinError, MemoryWarning, OutOfMemoryError

torch = pytest.importorskip("torch", reason="needs torch: pip install .[neural]")

from torch import nn  # noqa: E402

from langevin import neural  # noqa: E402
from langevin.neural import NeuralSurface  # noqa: E402
from langevin.neural.evaluation import Evaluation  # noqa: E402

_generator = torch.Generator().manual_seed(0)
X = torch.randn(60, 5, generator=_generator, dtype=torch.float64)
Y = torch.arange(60) % 3
SAID = "[enforce fail at alloc_cpu.cpp:117] err == 0. DefaultCPUAllocator: can't allocate memory"
ERRORS = {
    "torch": torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
    "allocator": RuntimeError(SAID),
    "windows": RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 8 B."),
    "numpy": MemoryError("Unable to allocate 8.00 GiB for an array"),
}


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


class Convolution(nn.Module):
    """Without a batched form: it goes through vmap."""

    def __init__(self):
        super().__init__()
        self.convolution, self.last = nn.Conv1d(1, 2, 3), nn.Linear(6, 3)

    def forward(self, x):
        return self.last(torch.relu(self.convolution(x.unsqueeze(1))).flatten(1))


def train(module=None, **more):
    torch.manual_seed(1)
    module = module or nn.Sequential(nn.Linear(5, 7), nn.SiLU(), nn.Linear(7, 3))
    dynamics = more.pop("dynamics", lv.SGD(0.1, 8, momentum=0.9))
    return lv.simulate(
        NeuralSurface(module.double(), (X, Y)), dynamics, n_replicas=7, n_steps=100, seed=5,
        progress=False, **more
    )  # fmt: skip


def short(monkeypatch, error, most, name="gradient", after=0):
    """Evaluations of more than ``most`` replicas fail, from some call on; the sizes tried."""
    whole, tried = getattr(Evaluation, name), []

    def evaluate(self, rows, *arguments, **options):
        tried.append(len(rows))
        if len(rows) > most and len(tried) > after:
            raise error
        return whole(self, rows, *arguments, **options)

    monkeypatch.setattr(Evaluation, name, evaluate)
    return tried


@pytest.mark.parametrize("kind", ERRORS)
@pytest.mark.parametrize("most", [1, 3])
@pytest.mark.parametrize("dynamics", [lv.SGD(0.1, 8, momentum=0.9), lv.Underdamped(0.1, 1.0, 0.1)])
def test_fewer_replicas_at_once_give_the_same_numbers(monkeypatch, kind, most, dynamics):
    observe = (neural.Loss(every=40), neural.BatchLoss(every=40))
    whole = train(dynamics=dynamics, observe=observe)
    tried = short(monkeypatch, ERRORS[kind], most, after=10)  # in the midst of a window
    with pytest.warns(MemoryWarning, match=f"at most {most} replicas") as said:
        run = train(dynamics=dynamics, observe=observe)
    assert len([w for w in said if w.category is MemoryWarning]) == 1
    np.testing.assert_allclose(run.positions, whole.positions, rtol=0, atol=1e-12)
    np.testing.assert_allclose(run.velocities, whole.velocities, rtol=0, atol=1e-12)
    for name in ("loss", "batch_loss"):
        mine, its = run[name].values, whole[name].values
        np.testing.assert_allclose(mine, its, rtol=0, atol=1e-12)
    assert tried.count(7) == 11 and max(tried[-50:]) <= most  # it is not tried again


def test_observers_run_out_of_memory_too(monkeypatch):
    whole = train(observe=neural.Loss(every=40))
    short(monkeypatch, MemoryError(), 2, "measured")
    with pytest.warns(MemoryWarning):
        run = train(observe=neural.Loss(every=40))
    np.testing.assert_allclose(run["loss"].values, whole["loss"].values, rtol=0, atol=1e-12)


def test_a_vmapped_module_stays_vmapped(monkeypatch):
    whole = train(Convolution())
    outputs, failed = Evaluation.outputs, []

    def lacking(self, parameters, given, sink=None, draw=None):
        forward = self.forward

        def fails(parameters, buffers, x, draw=None):
            failed.append(len(x))
            raise RuntimeError(SAID)

        self.forward = fails if len(given) > 2 else forward
        try:
            return outputs(self, parameters, given, sink, draw)
        finally:
            if self.forward is fails:
                self.forward = forward

    monkeypatch.setattr(Evaluation, "outputs", lacking)
    with pytest.warns(MemoryWarning):
        run = train(Convolution())
    assert failed == [7, 4, 3] and run.how == whole.how and run.how.startswith("vmap")
    np.testing.assert_allclose(run.positions, whole.positions, rtol=0, atol=1e-12)


def test_at_one_replica_it_is_an_error_in_words(monkeypatch):
    short(monkeypatch, ERRORS["numpy"], 0)
    words = "one network of 66 parameters on 8 examples of shape \\(5,\\) in float64.*batch_size"
    with pytest.raises(OutOfMemoryError, match=words) as caught:
        train()
    assert isinstance(caught.value, LangevinError) and "8.00 GiB" in str(caught.value)


def test_other_errors_are_not_taken_for_it(monkeypatch):
    short(monkeypatch, RuntimeError("mat1 and mat2 shapes cannot be multiplied"), 3)
    with pytest.raises(RuntimeError, match="shapes"), warnings.catch_warnings():
        warnings.simplefilter("error", MemoryWarning)
        train()


def test_too_many_replicas_to_hold_is_said():
    with pytest.raises(OutOfMemoryError, match="Use fewer replicas"):
        lv.simulate(
            NeuralSurface(nn.Linear(2000, 2000), (torch.zeros(2, 2000), torch.zeros(2, dtype=int))),
            lv.SGD(0.1, 1), n_replicas=2**22, n_steps=1, start="module", progress=False,
        )  # fmt: skip


REAL = """
import resource, sys, warnings, torch, numpy as np, langevin as lv
from torch import nn
from langevin.errors import MemoryWarning
from langevin.neural import NeuralSurface
torch.set_num_threads(1)
X = torch.randn(100_000, 64, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
surface = NeuralSurface(nn.Sequential(nn.Linear(64, 64), nn.SiLU(), nn.Linear(64, 1)).double(),
                        (X, X[:, 0]), loss="squared")
def train(n):
    return lv.simulate(surface, lv.Overdamped(0.0, 0.1), n_replicas=n, n_steps=1, seed=1,
                       progress=False).positions
alone = train(1)
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + 600 * 2**20,) * 2)
with warnings.catch_warnings(record=True) as said:
    warnings.simplefilter("always")
    together = train(6)
assert [w for w in said if w.category is MemoryWarning], said
assert abs(alone[0] - together[0]).max() < 1e-12 and np.isfinite(together).all()
print("went on")
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="limits memory as Linux does")
def test_memory_that_really_runs_out():
    done = subprocess.run([sys.executable, "-c", REAL], capture_output=True, text=True)
    assert done.stdout == "went on\n", done.stderr[-2000:]

"""Runs the CUDA engine, simulated, on arrays that behave as CuPy's do: JSON of what came of it.

A strict array refuses to become a NumPy array unless asked by ``.get()``, mixes with no NumPy
array, and is handed to a kernel by its ``__cuda_array_interface__`` alone.
"""

import json
import operator
import os
import sys

os.environ["NUMBA_ENABLE_CUDASIM"] = "1"

import numpy as np

import langevin as lv
from langevin.engines import compiling


class Strict:
    """An array in the memory of a GPU that is not there."""

    __array_priority__ = 100

    def __init__(self, values):
        self.values = values

    def __array__(self, *_, **__):
        raise TypeError("Implicit conversion to a NumPy array is not allowed. Please use `.get()`")

    @property
    def __cuda_array_interface__(self):
        return {"version": 3}

    def get(self):
        return self.values.copy()

    def own(self, other):
        """What may meet this array: another of its kind, or a number."""
        if isinstance(other, np.ndarray) and other.ndim:
            raise TypeError(f"Unsupported type {type(other)}")
        return other.values if isinstance(other, Strict) else other

    def index(self, key):
        keys = key if isinstance(key, tuple) else (key,)
        keys = tuple(self.own(k) if not isinstance(k, (slice, type(...))) else k for k in keys)
        return keys if isinstance(key, tuple) else keys[0]

    def __getitem__(self, key):
        return Strict(self.values[self.index(key)])

    def __setitem__(self, key, value):
        self.values[self.index(key)] = self.own(value)

    def __bool__(self):
        return bool(self.values)

    def __int__(self):
        return int(self.values)

    def __len__(self):
        return len(self.values)

    def __abs__(self):
        return Strict(abs(self.values))

    def copy(self, order="C"):
        return Strict(self.values.copy(order=order))

    def astype(self, dtype):
        return Strict(self.values.astype(dtype))

    def nonzero(self):
        return tuple(Strict(found) for found in self.values.nonzero())

    def any(self):
        return Strict(self.values.any())

    def sum(self):
        return Strict(self.values.sum())

    @property
    def T(self):
        return Strict(self.values.T)

    shape = property(lambda self: self.values.shape)
    size = property(lambda self: self.values.size)
    ndim = property(lambda self: self.values.ndim)
    dtype = property(lambda self: self.values.dtype)


def _binary(name):
    function = getattr(operator, name)
    return lambda self, other: Strict(np.asarray(function(self.values, self.own(other))))


for _name in ("lt", "le", "gt", "ge", "eq", "ne", "add", "sub", "mul", "and_", "or_"):
    setattr(Strict, f"__{_name.rstrip('_')}__", _binary(_name))
for _name in ("rshift", "lshift", "isub", "iadd"):
    setattr(Strict, f"__{_name}__", _binary(_name))
Strict.__radd__ = _binary("add")


def same_times(*results):
    return np.array_equal(*(r.first_passage().times for r in results), equal_nan=True)


def main(folder):
    compiling.to_device = lambda values: Strict(np.array(values, order="C"))
    compiling.to_host = lambda values: values.get()
    compiling.kernel_array = lambda v: v.values if isinstance(v, Strict) else v
    surface = lv.Surface("x**4/4 - a*x**3/3 - x**2/2", a=0.4, noise=lv.Isotropic(1.0))
    sgd = lv.SGD(0.1, 4)
    run = {"n_replicas": 70, "n_steps": 14, "progress": False, "dtype": "float64"}
    found = {}

    def both(name, observe, dynamics=sgd, **more):
        cpu, gpu = (
            lv.simulate(surface, dynamics, observe=observe(), device=d, **run | more)
            for d in ("cpu", "cuda")
        )
        assert isinstance(gpu.positions, Strict) and "simulated" in gpu.device, gpu.device
        moved = gpu.to_numpy()
        assert isinstance(moved.positions, np.ndarray) and moved.device == "cpu"
        found[name] = float(np.abs(cpu.positions - moved.positions).max())
        return cpu, gpu

    cpu, gpu = both("sums", lambda: (lv.Histogram(20), lv.Moments(), lv.Average("x**2")))
    found["density"] = float(np.abs(cpu.density().value - gpu.density().value).max())
    found["moments"] = float(abs(cpu.moments().mean - gpu.moments().mean)[0])
    compared = lv.compare(gpu, lv.predict.chain(surface, sgd))
    found["compare"] = compared.verdict
    seen = (lv.Histogram(20), lv.Moments())
    other = lv.simulate(surface, sgd, observe=seen, device="cuda", **run | {"seed": 1})
    found["two runs"] = lv.compare(gpu, other).verdict
    energies = [surface.energy(r.positions).mean() for r in (gpu, cpu)]
    found["energy"] = float(energies[0] - energies[1])
    gpu.save(os.path.join(folder, "run.zarr"))
    loaded = lv.load(os.path.join(folder, "run.zarr"))
    found["saved"] = [loaded.device, loaded.provenance["device"]]
    found["labels"] = sorted(gpu.to_xarray().sizes)

    from langevin.engines import cuda

    cuda.ROOM = 10  # exact sums are carried after every launch
    both("carried", lambda: lv.Moments(), n_steps=40)
    rate = np.linspace(0.05, 0.2, 70)
    schedule = lv.SGD(lv.schedules.Cosine(0.1, 14), 4)
    both("scheduled", lambda: lv.Occupation(), schedule)
    cpu, gpu = both("replicas", lambda: lv.FirstPassage("x > 0"), lv.SGD(rate, 4), n_steps=16)
    found["how many"] = [0, 0]
    found["how many"][0] = int(np.isfinite(cpu.first_passage().times).sum())
    found["passed"] = same_times(cpu, gpu)
    module = sys.modules["langevin.simulate"]

    module.GPU_WINDOW = module.WINDOW = 1  # the shortest windows: finished replicas are packed away
    window = module._window
    module._window = lambda *given: 4
    cpu, gpu = both("packed", lambda: lv.FirstPassage("x > -0.55"), n_steps=60, start=-0.6)
    found["how many"][1] = int(np.isfinite(cpu.first_passage().times).sum())
    found["packed passed"] = same_times(cpu, gpu)
    where = os.path.join(folder, "checkpoint")

    def simulated(**more):
        settings = run | {"n_steps": 24} | more
        return lv.simulate(surface, sgd, observe=lv.Moments(), device="cuda", **settings)

    whole = simulated()
    part = {"checkpoint": where, "checkpoint_every": 0.0}
    from langevin.checkpoint import Checkpoint

    write = Checkpoint.write

    def stop(self, done):
        write(self, done)
        if done == 12:
            raise KeyboardInterrupt

    Checkpoint.write = stop
    first = lv.simulate(
        surface, sgd, observe=lv.Moments(), device="cuda", **run | part | {"n_steps": 24}
    )
    Checkpoint.write = write
    rest = lv.simulate(
        surface, sgd, observe=lv.Moments(), device="cuda", **run | part | {"n_steps": 24}
    )
    found["resumed"] = [first.steps_done, rest.resumed_at, rest.steps_done]
    found["same bits"] = bool(
        (rest.positions.get() == whole.positions.get()).all()
        and (rest.moments().covariance == whole.moments().covariance).all()
    )
    module._window = window
    print(json.dumps(found))


if __name__ == "__main__":
    main(sys.argv[1])

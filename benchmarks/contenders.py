"""The contenders of throughput.py: each prepares a run of n replicas and some steps.

The same problem for all but the last: Euler-Maruyama in the double well U = x**4/4 - a x**3/3 -
x**2/2, written as a user of each library would who cares for speed and reads its documentation.
Every run returns when its result is there, and only the final positions are kept.

Run as ``python contenders.py LIBRARY``, this file is the worker of one library.
"""

from __future__ import annotations

import ctypes
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

import harness
import numpy as np

A, DT, TEMPERATURE = 0.4, 0.05, 0.1
AMPLITUDE = (2 * TEMPERATURE * DT) ** 0.5
SEED = 5 + (7 << 32)
SMALL, WIDE = (2**12, 2**14, 2**16), (2**12, 2**14, 2**16, 2**18, 2**20)


def slope(x):
    """U'(x)."""
    return x * (x * (x - A) - 1)


# ------------------------------------------------------------------------------------- langevin

MUELLER_BROWN = (
    "-200*exp(-(x - 1)**2 - 10*y**2) - 100*exp(-x**2 - 10*(y - 0.5)**2)"
    " - 170*exp(-6.5*(x + 0.5)**2 + 11*(x + 0.5)*(y - 1.5) - 6.5*(y - 1.5)**2)"
    " + 15*exp(0.7*(x + 1)**2 + 0.6*(x + 1)*(y - 1) + 0.7*(y - 1)**2)"
)


def problem(name: str):
    """Surface and dynamics."""
    import langevin as lv

    if name == "double well":
        surface = lv.Surface("x**4/4 - a*x**3/3 - x**2/2", a=A)
        return surface, lv.Overdamped(temperature=TEMPERATURE, dt=DT)
    if name == "plane":
        return lv.Surface("(x**2 - 1)**2 + y**2"), lv.Overdamped(temperature=0.1, dt=0.02)
    return lv.Surface(MUELLER_BROWN), lv.Overdamped(temperature=10.0, dt=1e-4)


def langevin(name: str, dtype: str, threads: int, every: int, n: int, steps: int) -> Callable:
    """The whole of simulate(); a Histogram of 200 bins every so many steps, 0 for none."""
    import numba

    import langevin as lv

    surface, dynamics = problem(name)
    observe = (lv.Histogram(bins=200, every=every),) if every else ()
    start = {"double well": [1.2], "plane": [1.0, 0.0]}.get(name, [-0.558, 1.442])

    def run() -> None:
        numba.set_num_threads(threads or numba.config.NUMBA_NUM_THREADS)
        lv.simulate(
            surface,
            dynamics,
            n_replicas=n,
            n_steps=steps,
            start=start,
            observe=observe,
            dtype=dtype,
            progress=False,
        )

    return run


# ------------------------------------------------------------------------------------ by hand


def c_kernel(n: int, steps: int) -> Callable:
    """double_well.c, after a check that it follows langevin's trajectories."""
    kernel = _compiled()
    c_kernel.note = _check(kernel)
    x = np.ones(n, np.float32)
    return lambda: kernel(x.ctypes.data, n, A, DT, AMPLITUDE, 5, 7, steps // 4, 0)


def _compiled():
    if not shutil.which("cc"):
        raise FileNotFoundError("no C compiler named cc")
    with tempfile.TemporaryDirectory() as folder:
        library = Path(folder) / "double_well.so"
        flags = ["-O3", "-march=native", "-fno-math-errno", "-shared", "-fPIC"]
        source = Path(__file__).with_name("double_well.c")
        subprocess.run(["cc", *flags, str(source), "-o", str(library), "-lm"], check=True)
        loaded = ctypes.CDLL(str(library))
    real, word, long = ctypes.c_float, ctypes.c_uint32, ctypes.c_int64
    loaded.run.argtypes = [ctypes.c_void_p, long, real, real, real, word, word, long, word]
    loaded.run.restype = None
    loaded.run.bits = loaded.vector_bits()
    return loaded.run


def _check(kernel) -> str:
    """Same seed, same counters, 100 steps: the same positions up to float32 rounding."""
    import langevin as lv

    surface, dynamics = problem("double well")
    options = {"dtype": "float32", "seed": SEED, "start": 1.0, "progress": False}
    result = lv.simulate(surface, dynamics, n_replicas=4096, n_steps=100, **options)
    x = np.ones(4096, np.float32)
    kernel(x.ctypes.data, 4096, A, DT, AMPLITUDE, 5, 7, 25, 0)
    apart = float(np.abs(x - result.positions[:, 0]).max())
    if not apart < 1e-4:
        raise AssertionError(f"the C kernel left langevin's trajectories: {apart} after 100 steps")
    how = f"AVX-512, {kernel.bits} bits" if kernel.bits else "vectorised by the compiler"
    return f"{how}; within {apart:.1e} of langevin's positions after 100 steps"


def numpy_loop(dtype, n: int, steps: int) -> Callable:
    """A loop over steps, arrays over replicas."""
    rng, x = np.random.default_rng(0), np.ones(n, dtype)
    z = np.empty_like(x)
    dt, amplitude = dtype(DT), dtype(AMPLITUDE)

    def run() -> None:
        nonlocal x
        for _ in range(steps):
            rng.standard_normal(dtype=dtype, out=z)
            x = x - dt * slope(x) + amplitude * z

    return run


def plain_numba(n: int, steps: int) -> Callable:
    """Scalar loops and np.random, float64, one thread, with fastmath."""
    import numba

    compiled_slope = numba.njit(fastmath=True)(slope)

    @numba.njit(fastmath=True)
    def integrate(x, steps, dt, amplitude):
        for i in range(x.size):
            v = x[i]
            for _ in range(steps):
                v += amplitude * np.random.standard_normal() - dt * compiled_slope(v)  # noqa: NPY002
            x[i] = v

    x = np.ones(n)
    return lambda: integrate(x, steps, DT, AMPLITUDE)


def numba_generator(n: int, steps: int) -> Callable:
    """The same with numpy.random.Generator, whose ziggurat is faster."""
    import numba

    compiled_slope = numba.njit(fastmath=True)(slope)

    @numba.njit(fastmath=True)
    def integrate(x, steps, dt, amplitude, rng):
        for i in range(x.size):
            v = x[i]
            for _ in range(steps):
                v += amplitude * rng.standard_normal() - dt * compiled_slope(v)
            x[i] = v

    x, rng = np.ones(n), np.random.default_rng(0)
    return lambda: integrate(x, steps, DT, AMPLITUDE, rng)


# ------------------------------------------------------------------------------------ libraries


def jax_scan(unroll: int, split: bool, n: int, steps: int) -> Callable:
    """lax.scan over steps of a batch, float32, jit; ``split``: one part of the batch a device."""
    import jax
    import jax.numpy as jnp

    @jax.jit
    def integrate(x, key):
        def step(x, key):
            return x - DT * slope(x) + AMPLITUDE * jax.random.normal(key, x.shape, x.dtype), None

        return jax.lax.scan(step, x, jax.random.split(key, steps), unroll=unroll)[0]

    x = jnp.ones(n, jnp.float32)
    if split:
        parts = jax.sharding.PartitionSpec("replica")
        mesh = jax.make_mesh((len(jax.devices()),), ("replica",))
        x = jax.device_put(x, jax.sharding.NamedSharding(mesh, parts))
    return lambda: integrate(x, jax.random.key(0)).block_until_ready()


def jax_vmap(n: int, steps: int) -> Callable:
    """One replica's lax.scan under vmap, a key each, float32, jit."""
    import jax
    import jax.numpy as jnp

    def one(x, key):
        def step(x, key):
            return x - DT * slope(x) + AMPLITUDE * jax.random.normal(key, (), x.dtype), None

        return jax.lax.scan(step, x, jax.random.split(key, steps))[0]

    @jax.jit
    def integrate(x, key):
        return jax.vmap(one)(x, jax.random.split(key, n))

    x = jnp.ones(n, jnp.float32)
    return lambda: integrate(x, jax.random.key(0)).block_until_ready()


def diffrax_euler(n: int, steps: int) -> Callable:
    """diffeqsolve, Euler, UnsafeBrownianPath (its fastest noise), a batch as the state, float32."""
    import diffrax
    import jax
    import jax.numpy as jnp
    import lineax

    @jax.jit
    def integrate(x, key):
        path = diffrax.UnsafeBrownianPath(shape=x.shape, key=key)
        drift = diffrax.ODETerm(lambda t, y, args: -slope(y))
        spread = (2 * TEMPERATURE) ** 0.5
        noise = diffrax.ControlTerm(
            lambda t, y, args: lineax.DiagonalLinearOperator(jnp.full_like(y, spread)), path
        )
        solution = diffrax.diffeqsolve(
            diffrax.MultiTerm(drift, noise),
            diffrax.Euler(),
            t0=0.0,
            t1=DT * steps,
            dt0=DT,
            y0=x,
            max_steps=None,
            saveat=diffrax.SaveAt(t1=True),
            adjoint=diffrax.ForwardMode(),
        )
        return solution.ys

    x = jnp.ones(n, jnp.float32)
    return lambda: integrate(x, jax.random.key(0)).block_until_ready()


def torch_eager(n: int, steps: int) -> Callable:
    """A loop over steps, tensors over replicas, float32."""
    import torch

    x = torch.ones(n)

    def run() -> None:
        nonlocal x
        with torch.inference_mode():
            for _ in range(steps):
                x = x - DT * slope(x) + AMPLITUDE * torch.randn_like(x)

    return run


def torchsde_euler(n: int, steps: int) -> Callable:
    """sdeint, method "euler", diagonal Ito noise, a batch, float32."""
    import torch
    import torchsde

    class DoubleWell(torch.nn.Module):
        noise_type, sde_type = "diagonal", "ito"

        def f(self, t, y):
            return -slope(y)

        def g(self, t, y):
            return torch.full_like(y, (2 * TEMPERATURE) ** 0.5)

    x, times, sde = torch.ones(n, 1), torch.tensor([0.0, DT * steps]), DoubleWell()

    def run() -> None:
        with torch.inference_mode():
            torchsde.sdeint(sde, x, times, method="euler", dt=DT)

    return run


def sdeint_euler(n: int, steps: int) -> Callable:
    """itoEuler on n replicas as one system with diagonal noise, float64."""
    import sdeint

    noise = (2 * TEMPERATURE) ** 0.5 * np.eye(n)
    times, rng = np.arange(steps + 1) * DT, np.random.default_rng(0)
    start = np.ones(n)
    return lambda: sdeint.itoEuler(
        lambda x, t: -slope(x), lambda x, t: noise, start, times, generator=rng
    )


# ------------------------------------------------------------------------------------ the list


def _langevin_contenders() -> dict:
    listed = {}
    for name in ("double well", "plane", "Mueller-Brown"):
        for dtype in ("float32", "float64"):
            for threads in (1, 0):
                for every in (0, 10) if name == "double well" else (0,):
                    key = f"langevin {name} {dtype} {'one' if threads else 'all'}"
                    key += " histogram" if every else ""
                    listed[key] = (partial(langevin, name, dtype, threads, every), (2**16,))
    return listed


# worker: {contender: (prepare, sizes to choose from)}
CONTENDERS = {
    "c": {"C kernel": (c_kernel, (2**16,))},
    "langevin": _langevin_contenders(),
    "numpy": {
        "NumPy float64": (partial(numpy_loop, np.float64), SMALL),
        "NumPy float32": (partial(numpy_loop, np.float32), SMALL),
    },
    "numba": {
        "numba np.random": (plain_numba, (2**12,)),
        "numba Generator": (numba_generator, (2**12,)),
    },
    "jax": {
        "JAX scan": (partial(jax_scan, 1, False), WIDE),
        "JAX scan small": (partial(jax_scan, 1, False), (2**12,)),
        "JAX vmap": (jax_vmap, SMALL),
    },
    "jax_devices": {"JAX devices": (partial(jax_scan, 4, True), SMALL)},
    "diffrax": {"diffrax": (diffrax_euler, WIDE)},
    "torch": {"torch eager": (torch_eager, WIDE), "torchsde": (torchsde_euler, SMALL)},
    "sdeint": {"sdeint": (sdeint_euler, (1, 16, 64))},
}

if __name__ == "__main__":
    harness.serve(CONTENDERS[sys.argv[1]])

"""The contenders of gpu.py: each prepares a run of n replicas and some steps on one GPU.

The same problem for all but a few of langevin's own: SGD in the double well U = x**4/4 - a x**3/3 -
x**2/2, ``x <- x - eta (U'(x) + sigma/sqrt(S) xi)`` with eta = 0.05, S = 8, sigma = 1, written as a
user of each library would who cares for speed and reads its documentation. Every run returns when
its result is there, and only the final positions are kept.

Run as ``python gpu_contenders.py LIBRARY``, this file is the worker of one library.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial

import harness
import numpy as np

A, ETA, BATCH = 0.4, 0.05, 8
NOISE = BATCH**-0.5
KICK = ETA * NOISE
TOGETHER = 16  # steps that a library is asked to fuse, where it can
SIZES = (10**6, 10**7)


def slope(x):
    """U'(x)."""
    return x * (x * (x - A) - 1)


# ------------------------------------------------------------------------------------- langevin

WATCH = ("", "Histogram", "Moments", "Occupation")


def problem(name: str):
    """Surface, dynamics and start."""
    import langevin as lv

    well = lv.Surface("x**4/4 - a*x**3/3 - x**2/2", a=A, noise=lv.Isotropic(1.0))
    if name == "Mueller-Brown":
        return lv.surfaces.mueller_brown(), lv.Overdamped(10.0, 1e-4), [-0.558, 1.442]
    dynamics = {
        "double well": lv.SGD(ETA, BATCH),
        "heavy ball": lv.SGD(ETA, BATCH, momentum=0.9),
        "BAOAB": lv.Underdamped(0.1, 1.0, 0.05),
    }[name]
    return well, dynamics, [1.2]


def langevin(name: str, dtype: str, watch: str, n: int, steps: int) -> Callable:
    """The whole of simulate(), with an observer every 10 steps or none."""
    import langevin as lv

    surface, dynamics, start = problem(name)
    observe = (getattr(lv, watch)(every=10),) if watch else ()
    options = dict(n_replicas=n, n_steps=steps, start=start, dtype=dtype, observe=observe)

    def run() -> None:
        lv.simulate(surface, dynamics, device="cuda", progress=False, **options)

    return run


def memory(n: int, steps: int) -> dict:
    """10^8 replicas and what their run takes of the card's memory."""
    import time

    import cupy

    import langevin as lv

    surface, dynamics, start = problem("double well")
    free = cupy.cuda.runtime.memGetInfo()[0]
    began = time.perf_counter()
    options = {"start": start, "dtype": "float32", "observe": lv.Histogram(every=10)}
    lv.simulate(
        surface, dynamics, n_replicas=n, n_steps=steps, device="cuda", progress=False, **options
    )
    return {
        "replicas": n,
        "steps": steps,
        "seconds": time.perf_counter() - began,
        "peak_bytes": cupy.get_default_memory_pool().total_bytes(),
        "free_before": free,
        "free_after": cupy.cuda.runtime.memGetInfo()[0],
    }


# ------------------------------------------------------------------------------------ libraries


def jax_scan(dtype: str, n: int, steps: int) -> Callable:
    """lax.scan over steps of a batch, jit, unrolled fourfold."""
    import jax
    import jax.numpy as jnp

    jax.config.update("jax_enable_x64", dtype == "float64")
    _on_gpu(jax)

    @jax.jit
    def integrate(x, key):
        def step(carry, k):
            x, key = carry
            z = jax.random.normal(jax.random.fold_in(key, k), x.shape, x.dtype)
            return (x - ETA * slope(x) - KICK * z, key), None

        return jax.lax.scan(step, (x, key), jnp.arange(steps), unroll=4)[0][0]

    x = jnp.ones(n, dtype)
    return lambda: integrate(x, jax.random.key(0, impl="threefry2x32")).block_until_ready()


def jax_vmap(n: int, steps: int) -> Callable:
    """One replica's lax.scan under vmap, a key each, float32, jit."""
    import jax
    import jax.numpy as jnp

    jax.config.update("jax_enable_x64", False)
    _on_gpu(jax)

    def one(x, key):
        def step(x, k):
            z = jax.random.normal(jax.random.fold_in(key, k), (), x.dtype)
            return x - ETA * slope(x) - KICK * z, None

        return jax.lax.scan(step, x, jnp.arange(steps))[0]

    @jax.jit
    def integrate(x, key):
        return jax.vmap(one)(x, jax.random.split(key, n))

    x = jnp.ones(n, jnp.float32)
    return lambda: integrate(x, jax.random.key(0)).block_until_ready()


def _on_gpu(jax) -> None:
    if jax.default_backend() != "gpu":
        raise RuntimeError(f"this JAX runs on the {jax.default_backend()}: pip install jax[cuda13]")


def diffrax_euler(n: int, steps: int) -> Callable:
    """diffeqsolve, Euler, UnsafeBrownianPath (its fastest noise), a batch as the state, float32."""
    import diffrax
    import jax
    import jax.numpy as jnp
    import lineax

    _on_gpu(jax)

    @jax.jit
    def integrate(x, key):
        path = diffrax.UnsafeBrownianPath(shape=x.shape, key=key)
        drift = diffrax.ODETerm(lambda t, y, args: -slope(y))
        spread = KICK / ETA**0.5
        noise = diffrax.ControlTerm(
            lambda t, y, args: lineax.DiagonalLinearOperator(jnp.full_like(y, spread)), path
        )
        solution = diffrax.diffeqsolve(
            diffrax.MultiTerm(drift, noise),
            diffrax.Euler(),
            t0=0.0,
            t1=ETA * steps,
            dt0=ETA,
            y0=x,
            max_steps=None,
            saveat=diffrax.SaveAt(t1=True),
            adjoint=diffrax.ForwardMode(),
        )
        return solution.ys

    x = jnp.ones(n, jnp.float32)
    return lambda: integrate(x, jax.random.key(0)).block_until_ready()


def torch_compiled(n: int, steps: int) -> Callable:
    """torch.compile of 16 steps, whose normals Inductor makes inside the fused kernel, float32."""
    import torch

    def several(x):
        for _ in range(TOGETHER):
            x = x - ETA * slope(x) - KICK * torch.randn_like(x)
        return x

    return _torch_loop(torch, torch.compile(several), n, steps, torch.float32)


def torch_graph(dtype: str, n: int, steps: int) -> Callable:
    """Eager PyTorch, 16 steps captured in a CUDA graph and replayed."""
    import torch

    x = torch.ones(n, dtype=getattr(torch, dtype), device="cuda")

    def several() -> None:
        for _ in range(TOGETHER):
            x.sub_(ETA * slope(x) + KICK * torch.randn_like(x))

    stream = torch.cuda.Stream()
    with torch.inference_mode():
        with torch.cuda.stream(stream):
            several()
        torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            several()

    def run() -> None:
        for _ in range(-(-steps // TOGETHER)):
            graph.replay()
        torch.cuda.synchronize()

    return run


def _torch_loop(torch, several: Callable, n: int, steps: int, dtype) -> Callable:
    start = torch.ones(n, dtype=dtype, device="cuda")

    def run() -> None:
        x = start
        with torch.inference_mode():
            for _ in range(-(-steps // TOGETHER)):
                x = several(x)
        torch.cuda.synchronize()

    return run


def cupy_loop(dtype: str, n: int, steps: int) -> Callable:
    """A loop over steps, arrays over replicas, as with NumPy."""
    import cupy

    generator = cupy.random.Generator(cupy.random.Philox4x3210(0))
    x = cupy.ones(n, dtype)

    def run() -> None:
        nonlocal x
        for _ in range(steps):
            x = x - ETA * slope(x) - KICK * generator.standard_normal(n, dtype=dtype)
        cupy.cuda.Device().synchronize()

    return run


def curand_euler(dtype: str, n: int, steps: int) -> Callable:
    """cuRAND's normals for 16 steps in memory, and one kernel that takes those steps."""
    import cupy

    real = {"float32": "float", "float64": "double"}[dtype]
    kernel = cupy.ElementwiseKernel(
        f"raw {dtype} z, {dtype} a, {dtype} eta, {dtype} kick, int64 n",
        f"{dtype} x",
        f"""
        {real} v = x;
        for (int k = 0; k < {TOGETHER}; k++)
            v -= eta * (v * (v * (v - a) - 1)) + kick * z[k * n + i];
        x = v;
        """,
        "several_steps",
    )
    generator = cupy.random.RandomState(0, method=cupy.cuda.curand.CURAND_RNG_PSEUDO_PHILOX4_32_10)
    x = cupy.ones(n, dtype)

    def run() -> None:
        for _ in range(-(-steps // TOGETHER)):
            z = generator.standard_normal(TOGETHER * n, dtype=dtype)
            kernel(z, A, ETA, KICK, n, x)
        cupy.cuda.Device().synchronize()

    return run


# ------------------------------------------------------------------------------------ the list


def _langevin_contenders() -> dict:
    listed = {}
    for name in ("double well", "heavy ball", "BAOAB", "Mueller-Brown"):
        for dtype in ("float32", "float64"):
            for watch in WATCH if name == "double well" else ("",):
                key = f"langevin {name} {dtype} {watch}".strip()
                listed[key] = (partial(langevin, name, dtype, watch), SIZES)
    return listed


# worker: {contender: (prepare, sizes to choose from)}
CONTENDERS = {
    "langevin": _langevin_contenders(),
    "jax": {
        "JAX scan float32": (partial(jax_scan, "float32"), SIZES),
        "JAX vmap float32": (jax_vmap, SIZES),
    },
    "jax64": {"JAX scan float64": (partial(jax_scan, "float64"), SIZES)},
    "diffrax": {"diffrax float32": (diffrax_euler, SIZES)},
    "torch": {
        "torch.compile float32": (torch_compiled, SIZES),
        "torch CUDA graph float32": (partial(torch_graph, "float32"), SIZES),
        "torch CUDA graph float64": (partial(torch_graph, "float64"), SIZES),
    },
    "cupy": {
        f"{name} {dtype}": (partial(prepare, dtype), SIZES)
        for name, prepare in (("CuPy loop", cupy_loop), ("cuRAND + one kernel", curand_euler))
        for dtype in ("float32", "float64")
    },
}

if __name__ == "__main__":
    if sys.argv[1] == "memory":
        import json

        print(json.dumps(memory(10**8, int(sys.argv[2]))))
    else:
        np.seterr(all="ignore")
        harness.serve(CONTENDERS[sys.argv[1]])

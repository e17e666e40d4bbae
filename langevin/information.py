"""What this machine offers a run."""

from __future__ import annotations

import datetime
import functools
import importlib.metadata
import importlib.util
import os
import platform
import re
import shutil
import subprocess

VECTORS = (
    ("avx512f", 512),
    ("avx2", 256),
    ("avx", 256),
    ("neon", 128),
    ("asimd", 128),
    ("sse2", 128),
)
PACKAGES = ("numpy", "numba", "llvmlite", "scipy", "sympy", "matplotlib")
EXTRAS = ("torch", "cupy-cuda13x", "numba-cuda", "xarray", "zarr", "dask")


def simd_bits() -> int:
    """Width of the CPU's vector registers, in bits."""
    import llvmlite.binding as llvm

    features = llvm.get_host_cpu_features()
    return next((bits for name, bits in VECTORS if features.get(name)), 64)


def cpu_name() -> str:
    """The CPU as LLVM and the operating system call it."""
    import llvmlite.binding as llvm

    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            names = [
                line.split(":", 1)[1].strip() for line in file if line.startswith("model name")
            ]
    except OSError:
        names = []
    return f"{names[0] if names else platform.processor()} ({llvm.get_host_cpu_name()})"


def gpu() -> str:
    """The GPUs that device= can name, by their numbers, and the driver; or why there is none."""
    from langevin.devices import why_no_gpu
    from langevin.engines import compiling

    told, missing = _nvidia_smi(), why_no_gpu()
    if missing:
        return f"{told} (not usable: {missing})" if told else f"none found: {missing}"
    found = [
        f"{k}: {name}, {memory / 2**30:.0f} GiB, compute capability {major}.{minor}"
        for k, (name, (major, minor), memory) in enumerate(compiling.gpus())
    ]
    driver = re.search(r"\d+(\.\d+)+$", told)
    return "; ".join([*found, f"driver {driver[0] if driver else 'of unknown version'}"])


def _nvidia_smi() -> str:
    """Name, memory and driver of every GPU, as the driver's own tool has it; "" without it."""
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return ""
    query = ["--query-gpu=name,memory.total,driver_version", "--format=csv,noheader"]
    try:
        out = subprocess.run([tool, *query], capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError) as error:
        return f"nvidia-smi fails: {' '.join(str(error).split())}"
    return "; ".join(out.stdout.strip().splitlines())


def rate(device: str = "cpu", *, seconds: float = 0.3) -> float:
    """Measured double-well steps of SGD a second, all replicas together, float32."""
    import langevin

    surface = langevin.Surface("x**4/4 - x**2/2", noise=langevin.Isotropic(1.0))
    sgd = langevin.SGD(learning_rate=0.05, batch_size=8)
    # Enough replicas to keep every lane or thread busy, and windows below the time wanted.
    replicas = 2**20 if device != "cpu" else 2**14
    steps, elapsed = 4096, 0.0
    while True:
        result = langevin.simulate(
            surface, sgd, n_replicas=replicas, n_steps=steps, device=device, dtype="float32",
            progress=False,
        )  # fmt: skip
        warm, elapsed = elapsed > 0, result.elapsed
        if warm and elapsed > seconds:
            return replicas * steps / elapsed
        steps = int(min(2**30, steps * max(2, min(64, 1.5 * seconds / elapsed)))) if warm else steps


def version(package: str) -> str | None:
    """The installed version, or None."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def provenance() -> dict[str, str | int]:
    """What a result keeps of the machine and the versions that computed it."""
    from langevin.engines import compiling

    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    return {**_installation(), "threads": compiling.n_threads(), "date": now}


@functools.cache
def _installation() -> dict[str, str]:
    import langevin

    return {
        "langevin": langevin.__version__,
        **{name: version(name) or "unknown" for name in ("numpy", "numba")},
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpu": cpu_name(),
    }


def _measured(device: str) -> str:
    try:
        return f"{rate(device):.2g} double-well steps a second (float32, measured now)"
    except Exception as error:  # what is broken is what a reader of this wants to know
        return f"fails: {type(error).__name__}: {' '.join(str(error).split())}"


def gather(*, measure: bool = True) -> dict[str, str]:
    """Everything ``langevin info`` prints; ``measure``: also how fast the engines are here."""
    from langevin.devices import why_no_gpu
    from langevin.engines import compiling

    bits = simd_bits()
    installed = {name: version(name) for name in (*PACKAGES, *EXTRAS)}
    versions = ", ".join(f"{name} {v}" for name, v in installed.items() if v)
    missing = ", ".join(name for name, v in installed.items() if not v)
    return {
        "langevin": version("langevin") or "source tree",
        "CPU": cpu_name(),
        "cores": str(os.cpu_count()),
        "threads used": str(compiling.n_threads()),
        "SIMD width": f"{bits} bits ({bits // 32} float32 or {bits // 64} float64)",
        "GPU": gpu(),
        **({"CPU engine": _measured("cpu")} if measure else {}),
        **({"GPU engine": _measured("cuda")} if measure and not why_no_gpu() else {}),
        "kernel cache": str(compiling.cache_directory()),
        "Python": f"{platform.python_version()} on {platform.platform()}",
        "versions": versions,
        "not installed": missing or "nothing",
    }

"""Where a run is computed: the CPU, or NVIDIA GPUs, and what is missing for those."""

from __future__ import annotations

import functools
import importlib.util
import re
from dataclasses import dataclass

from langevin.errors import ParameterError, UnavailableError

OLDEST = (7, 0)  # compute capability: Volta, which has 64-bit atomics in shared memory


@dataclass(frozen=True)
class Device:
    """``kind`` is "cpu" or "cuda"; ``numbers`` are the GPUs; ``name`` is for people."""

    kind: str
    numbers: tuple[int, ...] = ()
    name: str = "cpu"


def check(device: str) -> str:
    """The GPUs that a device's text asks for: "", "all" or numbers. Raises ParameterError."""
    found = re.fullmatch(r"cpu|auto|cuda(?::(all|\d+(?:,\d+)*))?", str(device))
    if found is None or not isinstance(device, str):
        raise ParameterError(
            f"device={device!r}: needed: 'cpu', 'cuda', 'cuda:1' (a GPU's number), 'cuda:0,1' or "
            "'cuda:all' (several), or 'auto'."
        )
    return found.group(1) or ""


def choose(device: str) -> Device:
    """The device of a run.

    "cpu"; "cuda", the first GPU; "cuda:1"; "cuda:0,1", the replicas split between GPUs; "cuda:all";
    "auto", a GPU if one works, else the CPU. Raises ParameterError for other text, and
    UnavailableError where a GPU is asked for and none works: it says what is missing.
    """
    asked = check(device)
    if device == "cpu":
        return Device("cpu")
    missing = why_no_gpu()
    if missing:
        if device == "auto":
            return Device("cpu")
        raise UnavailableError(
            f"device={device!r}: {missing} Runs on the CPU need device='cpu'; device='auto' takes "
            "a GPU only where one works."
        )
    present = gpus()
    wanted = "0" if device == "auto" else asked or "0"
    numbers = tuple(range(len(present)))
    if wanted != "all":
        numbers = tuple(dict.fromkeys(int(number) for number in wanted.split(",")))
    if max(numbers) >= len(present):
        raise UnavailableError(
            f"device={device!r}: this machine has {len(present)} GPU"
            f"{'s' if len(present) > 1 else ''}, numbered from 0: {', '.join(present)}."
        )
    shown = ",".join(map(str, numbers))
    return Device("cuda", numbers, f"cuda:{shown} ({', '.join(present[k] for k in numbers)})")


def for_networks(device: str) -> str:
    """ "cpu" or torch's name of one GPU, such as "cuda:0", for the networks of a run.

    Raises ParameterError for other text or several GPUs, UnavailableError where torch has none.
    """
    import torch

    asked = check(device)
    if device == "cpu":
        return device
    if not torch.cuda.is_available():
        if device == "auto":
            return "cpu"
        why = "finds no GPU that works"
        if torch.version.cuda is None:
            why = "was built without CUDA: install one of https://pytorch.org that has it"
        raise UnavailableError(
            f"device={device!r}: torch.cuda is not available, PyTorch {torch.__version__} {why}. "
            "Train with device='cpu'; device='auto' takes a GPU only where one works."
        )
    if asked == "all" or "," in asked:
        raise ParameterError(
            f"device={device!r}: networks train on one GPU, 'cuda' or 'cuda:1'. For several, run "
            "parts of the ensemble with first_replica=, one process each."
        )
    number, present = int(asked or 0), torch.cuda.device_count()
    if number >= present:
        raise UnavailableError(f"device={device!r}: torch finds {present} GPUs, numbered from 0.")
    return f"cuda:{number}"


@functools.cache
def why_no_gpu() -> str:
    """What is missing for a run on a GPU, with the way to get it; "" where nothing is."""
    from langevin.engines import compiling

    if compiling.simulated():
        return ""
    if importlib.util.find_spec("numba_cuda") is None:
        return "the package numba-cuda is not installed: pip install 'langevin[cuda]'."
    try:
        present = compiling.gpus()
    except Exception as error:  # whatever a driver says
        first = " ".join(str(error).split())
        return f"no working NVIDIA driver was found ({first})."
    if not present:
        return "the NVIDIA driver reports no GPU."
    if importlib.util.find_spec("cupy") is None:
        return "the package cupy is not installed: pip install 'langevin[cuda]'."
    try:
        compiling.to_host(compiling.to_device([0.0]))
    except Exception as error:
        return f"CuPy does not work here ({' '.join(str(error).split())})."
    old = [f"{name} ({cc[0]}.{cc[1]})" for name, cc, _ in present if cc < OLDEST]
    if old:
        needed = ".".join(map(str, OLDEST))
        return f"{', '.join(old)}: a compute capability of at least {needed} is needed."
    try:
        _run_a_kernel()
    except Exception as error:
        return (
            f"a kernel cannot run here ({' '.join(str(error).split())}). A driver older than what "
            "pip installed does that: CUDA 13 needs 580 or newer."
        )
    return ""


def _run_a_kernel() -> None:
    """Compiles and launches one that writes a number, and reads that with one of CuPy's own."""
    from langevin.engines import compiling

    with compiling.on_device(0):
        values = compiling.to_device([0.0])
        kernel = compiling.load_cuda("def run(values):\n    values[0] = 1.0\n")
        compiling.launch(kernel, (1, 1, 0), (compiling.kernel_array(values),))
        compiling.synchronise()
        if not bool((values > 0.5).any()):
            raise RuntimeError("it wrote nothing")


def gpus() -> list[str]:
    """The names of the GPUs, in the driver's order."""
    from langevin.engines import compiling

    return [name for name, *_ in compiling.gpus()]

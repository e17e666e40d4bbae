"""The only importer of a compiler: turns generated source into fast functions, cached on disk.

A kernel is one whole module of module-level functions, named by a hash of all its source, so that
numba's disk cache serves it in any later process. Functions inside it call one another through the
module's globals, where the decorated version replaces the plain one.
"""

from __future__ import annotations

import ast
import functools
import hashlib
import importlib.util
import inspect
import math
import os
import sys
import tempfile
import types as python_types
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numba
import numpy as np
from llvmlite import ir
from numba import njit
from numba.core import types
from numba.extending import intrinsic
from numba.np.arrayobj import populate_array

# No nnan, no ninf: they would make isnan(nan) False and kill divergence detection.
FASTMATH = {"contract", "nsz"}
OPTIONS = {"fastmath": FASTMATH, "error_model": "numpy"}
# Sums of these functions may be taken in any order, which the lanes of a vector need.
ANY_ORDER = ("dot_products", "sum_of")
# Large functions, called seldom: inlining them would make compilation three times as long.
APART = ("dot_products", "sums_", "layer", "back", "losses")
INLINED = {"forceinline": True, "no_cpython_wrapper": True, "no_cfunc_wrapper": True}
_loaded: dict[str, python_types.ModuleType] = {}


@intrinsic
def kernel_hints(typing_context):
    """Tells LLVM two things about the function that calls this.

    Use 512-bit registers where the CPU has them: LLVM prefers 256 bits on recent server CPUs, and
    512 gave 1.4 times the steps per second. Array arguments do not overlap (those written to never
    do): without that a gather from the data beside a store stops the vectoriser.
    """

    def generate(context, builder, signature, arguments):
        set.add(builder.function.attributes, '"prefer-vector-width"="512"')
        for argument in builder.function.args:
            if isinstance(argument.type, ir.PointerType):
                argument.add_attribute("noalias")
        return context.get_dummy_value()

    return types.void(), generate


@intrinsic
def matrix(typing_context, flat, at, rows, columns):
    """Part of a flat array as rows of another: what slicing and reshaping do, without their cost.

    Numba's own take seconds to compile. The flat array must outlive what is returned.
    """
    kind = types.Array(flat.dtype, 2, "C")

    def generate(context, builder, signature, arguments):
        whole, at, rows, columns = arguments
        source = context.make_array(signature.args[0])(context, builder, whole)
        made = context.make_array(kind)(context, builder)
        size = context.get_abi_sizeof(context.get_data_type(flat.dtype))
        size = context.get_constant(types.intp, size)
        populate_array(
            made,
            data=builder.gep(source.data, [at]),
            shape=[rows, columns],
            strides=[builder.mul(columns, size), size],
            itemsize=size,
            meminfo=None,
        )
        return made._getvalue()

    return kind(flat, types.int64, types.int64, types.int64), generate


def cache_directory() -> Path:
    """Where generated modules live: LANGEVIN_CACHE, else the user's cache folder."""
    named = os.environ.get("LANGEVIN_CACHE")
    if named:
        return Path(named)
    base = os.environ.get("XDG_CACHE_HOME") or os.environ.get("LOCALAPPDATA")
    return (Path(base) if base else Path.home() / ".cache") / "langevin"


@functools.cache
def pasted(module: python_types.ModuleType) -> str:
    """The source of a kernels module without its docstring and imports."""
    text = inspect.getsource(module)
    head = (ast.Import, ast.ImportFrom, ast.Expr)
    body = [node for node in ast.parse(text).body if not isinstance(node, head)]
    start = min(node.lineno for node in body)
    return "\n".join(text.splitlines()[start - 1 :]).strip() + "\n"


def _written(name: str, text: str) -> Path:
    """The module's file, written atomically; in a private temporary folder if that fails."""
    folder = cache_directory()
    path = folder / f"{name}.py"
    try:
        if path.is_file() and path.read_text(encoding="utf-8") == text:
            return path
        folder.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=folder, suffix=".tmp")
    except OSError:
        folder = Path(tempfile.mkdtemp(prefix="langevin-"))
        path = folder / f"{name}.py"
        handle, temporary = tempfile.mkstemp(dir=folder, suffix=".tmp")
    with os.fdopen(handle, "w", encoding="utf-8") as file:
        file.write(text)
    os.replace(temporary, path)
    return path


def load(text: str, entry: str = "run", decorate: Callable | None = None):
    """The compiled entry function of a generated module; ``decorate`` compiles it otherwise."""
    options = inspect.getsource(sys.modules[__name__])  # flags and hints change the machine code
    stamp = hashlib.sha256(f"{numba.__version__}\n{options}\n{text}".encode()).hexdigest()[:24]
    name = f"langevin_kernel_{stamp}"
    module = _loaded.get(name)
    if module is None:
        spec = importlib.util.spec_from_file_location(name, _written(name, text))
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module  # numba's cache looks the module up by name
        spec.loader.exec_module(module)
        (decorate or _decorate)(module, entry)
        _loaded[name] = module
    return getattr(module, entry)


def _decorate(module: python_types.ModuleType, entry: str) -> None:
    module.kernel_hints, module.matrix = kernel_hints, matrix
    for key, value in list(vars(module).items()):
        if not isinstance(value, python_types.FunctionType):
            continue
        if key == entry:
            setattr(module, key, njit(nogil=True, cache=True, **OPTIONS)(value))
        else:
            order = {"reassoc"} if key.startswith(ANY_ORDER) else set()
            own = OPTIONS | {"fastmath": FASTMATH | order}
            inlined = INLINED | {"forceinline": not key.startswith(APART)}
            setattr(module, key, njit(**inlined, **own)(value))


def scalar_function(text: str, entry: str):
    """One function of a generated module, compiled by itself (for tests of the kernels)."""
    return load(text, entry)


def optimised_code(kernel) -> str:
    """LLVM's code for everything this process compiled of a kernel (for tests)."""
    return "\n".join(kernel.inspect_llvm().values())


def n_threads() -> int:
    """Threads a run uses."""
    return numba.get_num_threads()


@contextmanager
def threads(wanted: int | None) -> Iterator[None]:
    """Runs inside take ``wanted`` threads; None leaves their number as it is."""
    before = numba.get_num_threads()
    numba.set_num_threads(min(wanted or before, numba.config.NUMBA_NUM_THREADS))
    try:
        yield
    finally:
        numba.set_num_threads(before)


def argument_types(arguments) -> tuple:
    """The signature of a call."""
    return tuple(numba.typeof(value) for value in arguments)


# --- CUDA -----------------------------------------------------------------------------------------


def simulated() -> bool:
    """Whether numba runs CUDA kernels in Python, on NumPy arrays (NUMBA_ENABLE_CUDASIM=1)."""
    return bool(numba.config.ENABLE_CUDASIM)


@functools.cache
def cuda():
    """numba.cuda: the only place that names it."""
    from numba import cuda

    numba.config.CUDA_LOW_OCCUPANCY_WARNINGS = 0
    return cuda


def root_steps(inverse, fma, times, minus, number) -> Callable:
    """A correctly rounded root, in the operations given: of 0, or of 2**-500 to 2**500.

    ``inverse`` estimates 1/sqrt(x) within 2**-19: a step of third order brings that below 2**-54,
    and what the root then misses is added with one rounding. As the CUDA compiler has it.
    """

    def root(x):
        y = inverse(fma(number(1.0), x, number(2.0**-900)))  # finite for x = 0
        missing = fma(x, minus(times(y, y)), number(1.0))
        y = fma(fma(missing, number(0.375), number(0.5)), times(y, missing), y)
        near = times(x, y)
        return fma(fma(minus(near), near, x), times(y, number(0.5)), near)

    return root


def ratio_steps(inverse, fma, times, minus, number) -> Callable:
    """A correctly rounded ratio, likewise: of 0 or |a| above 2**-900, and b from 1 to 4.

    ``inverse`` estimates 1/b within 2**-19.
    """

    def ratio(a, b):
        y = inverse(b)
        missing = fma(minus(b), y, number(1.0))
        y = fma(y, fma(missing, missing, missing), y)
        y = fma(y, fma(minus(b), y, number(1.0)), y)
        near = times(a, y)
        return fma(y, fma(minus(b), near, a), near)

    return ratio


@functools.cache
def _hardware() -> dict[str, Callable]:
    """One-instruction functions by the names that the hardware modules of kernels/ call."""
    if simulated():
        named = {"log2": math.log2, "sqrt": math.sqrt, "sine": math.sin, "cosine": math.cos}
        found = {f"hardware_{k}": lambda x, f=f: np.float32(f(x)) for k, f in named.items()}
        found |= {"hardware_product": lambda a, b: np.uint64(a) * np.uint64(b)}
        found |= {"hardware_root": lambda x: np.float64(math.sqrt(x))}
        found |= {"hardware_ratio": lambda a, b: np.float64(a / b)}
        return found | {"memory_may_change": lambda: None}
    from numba.cuda.extending import intrinsic as device_intrinsic

    def unit(instruction: str):
        def generate(context, builder, signature, arguments):
            kind = ir.FunctionType(ir.FloatType(), [ir.FloatType()])
            text = f"{instruction}.approx.ftz.f32 $0, $1;"
            return builder.call(ir.InlineAsm(kind, text, "=f,f"), arguments)

        return device_intrinsic(lambda typing_context, x: (types.float32(types.float32), generate))

    def product(typing_context, a, b):
        def generate(context, builder, signature, arguments):
            kind = ir.FunctionType(ir.IntType(64), [ir.IntType(32)] * 2)
            text = ir.InlineAsm(kind, "mul.wide.u32 $0, $1, $2;", "=l,r,r")
            # Otherwise the rounds that a group's number does not reach stay in the loop.
            return builder.call(text, arguments, attrs=["readnone", "nounwind"])

        return types.uint64(types.uint32, types.uint32), generate

    def changed(typing_context):
        """No instruction, but what is in memory is not kept in registers across it."""

        def generate(context, builder, signature, arguments):
            kind = ir.FunctionType(ir.VoidType(), [])
            builder.call(ir.InlineAsm(kind, "", "~{memory}", side_effect=True), [])
            return context.get_dummy_value()

        return types.void(), generate

    def refined(steps: Callable, instruction: str, count: int):
        def generate(context, builder, signature, arguments):
            kind = ir.FunctionType(ir.DoubleType(), [ir.DoubleType()])
            estimate = ir.InlineAsm(kind, f"{instruction}.approx.ftz.f64 $0, $1;", "=d,d")

            def number(value):
                return ir.Constant(ir.DoubleType(), value)

            def minus(x):
                return builder.fsub(number(-0.0), x)

            guess = lambda x: builder.call(estimate, [x])  # noqa: E731
            return steps(guess, builder.fma, builder.fmul, minus, number)(*arguments)

        real = types.float64
        if count == 1:
            return device_intrinsic(lambda typing_context, x: (real(real), generate))
        return device_intrinsic(lambda typing_context, a, b: (real(real, real), generate))

    named = {"log2": "lg2", "sqrt": "sqrt", "sine": "sin", "cosine": "cos"}
    found = {f"hardware_{k}": unit(instruction) for k, instruction in named.items()}
    found |= {
        "hardware_product": device_intrinsic(product),
        "hardware_root": refined(root_steps, "rsqrt", 1),
        "hardware_ratio": refined(ratio_steps, "rcp", 2),
    }
    return found | {"memory_may_change": device_intrinsic(changed)}


def _decorate_cuda(module: python_types.ModuleType, entry: str) -> None:
    module.cuda = cuda()
    module.int32, module.int64, module.float64 = types.int32, types.int64, types.float64
    vars(module).update(_hardware())
    own = [k for k, v in vars(module).items() if isinstance(v, python_types.FunctionType)]
    for key in own:
        function = getattr(module, key)
        if key == entry:
            setattr(module, key, cuda().jit(cache=not simulated())(function))
        elif not simulated():
            setattr(module, key, cuda().jit(device=True, forceinline=True)(function))


def load_cuda(text: str, entry: str = "run"):
    """The kernel of a generated module, to be launched."""
    return load(text, entry, _decorate_cuda)


def ptx(text: str, arguments, cc: tuple[int, int], entry: str = "run") -> str:
    """PTX of a generated module's kernel for arguments like these, with or without a GPU."""
    from numba.cuda import dispatcher

    kernel = load_cuda(text, entry)
    # Functions that a kernel calls are compiled for the device at hand, and there may be none.
    here = dispatcher.get_current_device
    dispatcher.get_current_device = lambda: python_types.SimpleNamespace(compute_capability=cc)
    try:
        return cuda().compile_ptx(kernel.py_func, argument_types(arguments), cc=cc)[0]
    finally:
        dispatcher.get_current_device = here


def launch(kernel, shape: tuple[int, int, int], arguments) -> None:
    """Starts blocks of threads, with bytes of shared memory; does not wait."""
    blocks, threads, shared = shape
    kernel[blocks, threads, 0, shared](*arguments)


def synchronise() -> None:
    """Waits for the GPU of this context."""
    cuda().synchronize()


@contextmanager
def on_device(number: int) -> Iterator[None]:
    """What runs inside runs on this GPU; CuPy's part and kernels in one stream, in turn.

    Kernels go to the default stream. CuPy would take the caller's, which may wait for nothing, and
    hand freed memory on before a kernel has read it.
    """
    if simulated():
        yield
        return
    import cupy

    with cupy.cuda.Device(number), cuda().gpus[number], cupy.cuda.Stream.null:
        yield


def to_device(values):
    """A copy in the GPU's memory, as a CuPy array."""
    if simulated():
        return np.array(values, order="C")
    import cupy

    return cupy.array(values, order="C")


def to_host(values) -> np.ndarray:
    """A copy in the host's memory."""
    return values.copy() if isinstance(values, np.ndarray) else values.get()


def kernel_array(values):
    """What a kernel takes: an array of the GPU without waiting for it, or a number."""
    if simulated() or not hasattr(values, "__cuda_array_interface__"):
        return values
    return cuda().as_cuda_array(values, sync=False)


def gpus() -> list[tuple[str, tuple[int, int], int]]:
    """Name, compute capability and bytes of memory of each GPU; numba's error without a driver."""
    if simulated():
        return [("simulated GPU", (9, 0), 0)]
    found = []
    for device in cuda().gpus:
        with device:
            memory = cuda().current_context().get_memory_info().total
        name = device.name.decode() if isinstance(device.name, bytes) else device.name
        found.append((name, tuple(device.compute_capability), int(memory)))
    return found

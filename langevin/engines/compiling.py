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
import os
import sys
import tempfile
import types as python_types
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numba
from llvmlite import ir
from numba import njit
from numba.core import types
from numba.extending import intrinsic

# No nnan, no ninf: they would make isnan(nan) False and kill divergence detection.
FASTMATH = {"contract", "nsz"}
OPTIONS = {"fastmath": FASTMATH, "error_model": "numpy"}
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


def load(text: str, entry: str = "run"):
    """The compiled entry function of a generated module."""
    options = inspect.getsource(sys.modules[__name__])  # flags and hints change the machine code
    stamp = hashlib.sha256(f"{numba.__version__}\n{options}\n{text}".encode()).hexdigest()[:24]
    name = f"langevin_kernel_{stamp}"
    module = _loaded.get(name)
    if module is None:
        spec = importlib.util.spec_from_file_location(name, _written(name, text))
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module  # numba's cache looks the module up by name
        spec.loader.exec_module(module)
        _decorate(module, entry)
        _loaded[name] = module
    return getattr(module, entry)


def _decorate(module: python_types.ModuleType, entry: str) -> None:
    module.kernel_hints = kernel_hints
    for key, value in list(vars(module).items()):
        if not isinstance(value, python_types.FunctionType):
            continue
        if key == entry:
            setattr(module, key, njit(nogil=True, cache=True, **OPTIONS)(value))
        else:
            setattr(module, key, njit(**INLINED, **OPTIONS)(value))


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

"""Kernels for a GPU, compiled and assembled where there is none.

Every built-in surface and dynamics, with all observers in one kernel, compiles to PTX and is
assembled. On formulas of up to three dimensions nothing is in local memory, and no group of steps
calls a function. ``pytest -m slow tests/test_cuda_ptx.py`` takes the whole product: PTX for sm_80,
assembled for sm_80 and sm_90. With LANGEVIN_RECORD=FILE each case writes what it found there, and
kernels of which the file says it already, by the digest of their text, are passed over.
"""

import datetime
import fcntl
import functools
import hashlib
import importlib.metadata
import importlib.util
import json
import os
import re
import sys
from pathlib import Path

import numpy as np
import pytest

import langevin as lv
from langevin.engines import compiling, cuda
from langevin.preparation import ready

sys.path.insert(0, str(Path(__file__).parent.parent / "benchmarks"))
import assembly
import gpu

if compiling.simulated():
    pytest.skip("numba simulates CUDA: nothing is compiled", allow_module_level=True)
if importlib.util.find_spec("numba_cuda") is None:
    pytest.skip("numba-cuda is not installed", allow_module_level=True)
if assembly.why_not():
    pytest.skip(assembly.why_not(), allow_module_level=True)


def regression():
    x, y = lv.surfaces.diabetes()
    return lv.surfaces.linear_regression(x[:, :3], y)


def classification():
    x, y = lv.surfaces.diabetes()
    return lv.surfaces.logistic_regression(x[:, :3], y > 0)


SURFACES = {  # every function of langevin.surfaces that makes one
    "double_well": lv.surfaces.double_well,
    "wide_and_sharp": lv.surfaces.wide_and_sharp,
    "quadratic": lambda: lv.surfaces.quadratic(2.0),
    "quadratic 3-D": lambda: lv.surfaces.quadratic(np.diag([1.0, 2.0, 3.0])),
    "quadratic 5-D": lambda: lv.surfaces.quadratic(np.diag([1.0, 2.0, 3.0, 4.0, 5.0])),
    "mueller_brown": lambda: lv.surfaces.mueller_brown(0.01),
    "rastrigin": lv.surfaces.rastrigin,
    "styblinski_tang": lv.surfaces.styblinski_tang,
    "styblinski_tang 3-D": lambda: lv.surfaces.styblinski_tang(3),
    "three_well": lv.surfaces.three_well,
    "linear_regression": regression,
    "logistic_regression": classification,
}
DYNAMICS = {
    "SGD": lv.SGD(1e-3, 8),
    "heavy ball": lv.SGD(1e-3, 8, momentum=0.9),
    "Nesterov": lv.SGD(lv.schedules.Cosine(1e-3, 100), 8, 0.9, nesterov=True, weight_decay=1e-3),
    "Euler-Maruyama": lv.Overdamped(0.1, 1e-3),
    "Heun": lv.Overdamped(0.1, 1e-3, integrator="heun"),
    "Leimkuhler-Matthews": lv.Overdamped(0.1, 1e-3, integrator="leimkuhler_matthews"),
    "exact": lv.Overdamped(0.1, 1e-3, integrator="exact"),
    "BAOAB": lv.Underdamped(0.1, 1.0, 0.01),
    "OBABO": lv.Underdamped(0.1, 1.0, 0.01, splitting="OBABO"),
    "ABOBA": lv.Underdamped(0.1, 1.0, 0.01, splitting="ABOBA"),
}
DATA = ("linear_regression", "logistic_regression")
QUICK = [  # surface, dynamics, dtype, observers
    ("double_well", "SGD", "float32", "all"),
    ("double_well", "BAOAB", "float64", "all"),
    ("rastrigin", "SGD", "float32", "some"),
    ("wide_and_sharp", "heavy ball", "float64", "some"),
    ("mueller_brown", "BAOAB", "float32", "some"),
    ("styblinski_tang 3-D", "OBABO", "float64", "some"),
    ("quadratic 5-D", "Euler-Maruyama", "float64", "some"),
    ("linear_regression", "SGD", "float32", "some"),
]
BIG = ("styblinski_tang 3-D", "quadratic 3-D", "three_well", "mueller_brown", "styblinski_tang")
PRODUCT = [  # what needs most registers first
    (surface, dynamics, dtype)
    for dtype in ("float64", "float32")
    for surface in (*BIG, *(name for name in SURFACES if name not in BIG))
    for dynamics in reversed(DYNAMICS)
    if (dynamics != "exact" or "quadratic" in surface)
    and (surface not in DATA or isinstance(DYNAMICS[dynamics], lv.SGD))
]


@functools.cache
def made(name):
    return SURFACES[name]()


def observers(surface, which):
    """All observers that the surface allows, or some that are usual."""
    first = surface.variables[0] if hasattr(surface, "variables") else "w0"
    axes = None if surface.dim <= 2 else (0, 1)
    found = [lv.Histogram(40, every=10, axes=axes), lv.Moments(every=4)]
    formula = not hasattr(surface, "n_examples")
    if formula:
        found.append(lv.Occupation(every=8))
    if which == "some":
        return tuple(found)
    found += [
        lv.Average(f"{first}**2", every=3),
        lv.FirstPassage(f"{first} > 1"),
        lv.Trajectory(every=100, replicas=10),
        lv.Autocorrelation(lags=20, every=5),
    ]
    if formula:  # a sum over data has no Laplacian in the kernel, and one minimum
        found.append(lv.Temperature(every=12))
        found += [lv.Transitions(every=4)] if len(surface.minima()) > 1 else []
    return tuple(found)


def kernel(surface, dynamics, dtype, which):
    """The digest of a kernel's text."""
    settings = {"n_replicas": 2**20, "n_steps": 1024, "burn_in": 0, "seed": 0, "first_replica": 0}
    watch = observers(made(surface), which)
    _, bound, _ = ready(made(surface), DYNAMICS[dynamics], watch, None, dtype=dtype, **settings)
    text, _ = cuda.kernel_source(made(surface), DYNAMICS[dynamics], bound, dtype)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def assembled(surface, dynamics, dtype, which, cc, targets):
    """The checks of one kernel, compiled for ``cc`` and assembled for ``targets``."""
    case = {"surface": surface, "dynamics": dynamics, "dtype": dtype, "observers": which}
    case |= {"ptx": f"sm_{cc[0]}{cc[1]}"}
    if "LANGEVIN_RECORD" in os.environ:
        case |= {"kernel": kernel(surface, dynamics, dtype, which)}
        told = [entry for entry in record()["cases"] if case.items() <= entry.items()]
        if {entry["target"] for entry in told} >= set(targets):
            for entry in told:
                checked(surface, entry)
            return
    made_here = made(surface)
    ptx = cuda.ptx(made_here, DYNAMICS[dynamics], observers(made_here, which), cc, dtype=dtype)
    assert f".target {case['ptx']}" in ptx
    found = []
    for target in targets:
        code = assembly.assembled(ptx, target)
        measured = {
            "registers": code.registers,
            "stack": code.stack,
            "spill_stores": code.spill_stores,
            "spill_loads": code.spill_loads,
            "calls": assembly.calls(ptx),
        }
        print({**case, "target": target, **measured}, flush=True)
        kept({**case, "target": target}, measured)
        found.append(measured)
    for measured in found:
        checked(surface, measured)


def checked(surface, measured):
    """No calls and, up to three dimensions, no local memory; beyond, less spilled than kept there.

    The rows of a thread are an array of its own on data, and above three dimensions.
    """
    assert measured["calls"] == 0
    spilled = max(measured["spill_stores"], measured["spill_loads"])
    if surface in DATA or made(surface).dim > 3:
        assert spilled <= measured["stack"] > 0
    else:
        assert spilled == measured["stack"] == 0


def record():
    """What the file that LANGEVIN_RECORD names says."""
    path = Path(os.environ["LANGEVIN_RECORD"])
    return json.loads(path.read_text()) if path.exists() else {"cases": []}


def kept(case, measured):
    """Writes a case to the file that LANGEVIN_RECORD names; several processes may."""
    if "LANGEVIN_RECORD" not in os.environ:
        return
    path = Path(os.environ["LANGEVIN_RECORD"])
    packages = ("numba", "numba-cuda", "nvidia-nvjitlink", "nvidia-nvvm")
    with path.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        found = record()
        found["versions"] = {name: importlib.metadata.version(name) for name in packages}
        named = {key: value for key, value in case.items() if key != "kernel"}
        others = [e for e in found["cases"] if not named.items() <= e.items()]
        date = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        found["cases"] = [*others, {**case, **measured, "date": date}]
        written = path.with_suffix(".new")
        written.write_text(json.dumps(found, indent=1) + "\n")
        written.replace(path)


@pytest.mark.parametrize("surface, dynamics, dtype, which", QUICK)
def test_a_handful_stays_in_registers(surface, dynamics, dtype, which):
    assembled(surface, dynamics, dtype, which, (9, 0), ("sm_90",))


@pytest.mark.slow
@pytest.mark.parametrize("which", ["all", "some"])
@pytest.mark.parametrize("surface, dynamics, dtype", PRODUCT)
def test_the_whole_product(surface, dynamics, dtype, which):
    assembled(surface, dynamics, dtype, which, (8, 0), ("sm_80", "sm_90"))


def test_every_built_in_surface_is_in_the_list():
    made_here = {name.split()[0] for name in SURFACES}
    others = {"Basins", "FiniteSum", "Isotropic", "Minimum", "Saddle", "Surface", "diabetes"}
    assert made_here == set(lv.surfaces.__all__) - others
    assert {key[:2] for key in QUICK} <= {key[:2] for key in PRODUCT}


def plain(dtype="float32", observe=()):
    return cuda.ptx(made("double_well"), lv.SGD(0.05, 8), observe, dtype=dtype)


def test_the_loop_over_steps_is_short():
    """The double well in float32: 85 instructions for four steps when this was written."""
    ptx = plain()
    code = assembly.assembled(ptx)
    loop = assembly.step_loop(ptx, code)
    print(f"{loop.slots} instructions, {loop.source}; {code.registers} registers")
    assert loop.special == 8  # a logarithm, a root, a sine and a cosine for each pair
    assert loop.count("IMAD.WIDE.U32", "mul.wide.u32") >= assembly.PHILOX
    assert loop.slots <= (88 if loop.source == "SASS" else 97)
    assert code.registers <= 64  # so that half of the card's threads are at work
    assert not loop.count("CALL", "call", "LDL", "STL", "ld.local", "st.local", "LDG", "ld.global")


def test_a_rare_histogram_is_cheap():
    """Every 10 steps: 251.5 instructions for the 212.5 of 10 plain steps when this was written."""
    found = gpu.watched()
    print(found)
    assert found["histogram"]["local_memory"] == 0
    if found["plain"]["counted_in"] == "SASS":  # in PTX as in SASS no group asks for a look
        assert found["cost"] <= 0.20
    assert found["histogram"]["instructions"] <= found["plain"]["instructions"] + 4


def test_float64_takes_an_estimate_and_no_function():
    """For each of two pairs one of a root and one of a ratio; nothing is called for rare cases."""
    ptx = plain("float64")
    loop = assembly.step_loop(ptx, assembly.assembled(ptx))
    assert loop.count("MUFU.RSQ64H", "rsqrt.approx") == loop.count("MUFU.RCP64H", "rcp.") == 2
    assert loop.special == (4 if loop.source == "SASS" else 2) and not loop.count("CALL", "call")
    assert not re.search(r"sqrt\.rn\.f64|div\.rn\.f64", ptx)


def test_what_must_spill_is_seen():
    """The same kernel with fewer registers than it needs; one whose rows are an array."""
    ptx = plain("float64")
    whole = assembly.assembled(ptx)
    assert whole.local_memory == 0
    starved = assembly.assembled(ptx, limit=24)
    assert starved.spill_stores > 0 and starved.spill_loads > 0 and starved.registers <= 24
    five = cuda.ptx(made("quadratic 5-D"), lv.Overdamped(0.1, 1e-3), (), dtype="float32")
    assert assembly.assembled(five).stack > 0


def test_a_call_is_seen():
    assert assembly.calls("\tcall.uni (retval0),\n\tmov.u32 %r1, 0;\n\tcall (r), f, (a);\n") == 2


def test_a_loop_is_told_from_what_surrounds_it():
    """A listing by hand: 16 products inside a loop, which a larger loop and other text surround."""
    product = "\tmul.wide.u32 \t%rd1, %r1, %r2;"
    inner = ["$L1:", *[product] * 16, "\tmov.u32 \t%r1, 0;", "\t@%p1 bra \t$L1;"]
    text = "\n".join(["$L0:", product, *inner, product, "\t@%p2 bra \t$L0;", "\tret;"])
    loop = assembly.step_loop(text)
    assert len(loop.instructions) == 18 and loop.slots == 17
    with pytest.raises(ValueError, match="no loop"):
        assembly.step_loop(text.replace(product, "", 3).replace("$L0:", ""))


def test_no_tool_is_an_error_that_says_so(monkeypatch):
    monkeypatch.setattr(assembly, "why_not", lambda: "no wheels")
    with pytest.raises(assembly.MissingTool, match="no wheels"):
        assembly.assembled("")


def test_a_broken_text_is_not_assembled():
    with pytest.raises(Exception, match=r"(?i)ptx|error|ptxas|nvjitlink"):
        assembly.assembled(plain().replace("mul.wide.u32", "mul.wild.u32"))

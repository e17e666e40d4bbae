"""Elementary functions of the kernels: errors in ulps over their whole range, and no call in them.

A bound is claimed where it is tested: over all floating-point numbers but the ranges named here.
"""

import inspect
import math
import platform
import re
import struct
import warnings

import mpmath
import numpy as np
import pytest
import sympy
from llvmlite.binding import get_host_cpu_features

import langevin as lv
from langevin.engines import compiling, cpu, source
from langevin.kernels import float32, float64, library
from langevin.surfaces import parsing, printing
from langevin.surfaces.language import FUNCTIONS

DTYPES = ("float32", "float64")
# Largest errors in ulps (float32, float64). Measured over 6 * 10**6 points each, on a CPU with
# fused multiply-add; some room for CPUs without.
BOUNDS = {
    "exp": (1.1, 1.1),  # measured 1.00 1.02
    "expm1": (1.7, 2.3),  # 1.43 2.04
    "log": (1.0, 1.4),  # .84 1.20
    "sin": (1.7, 1.7),  # 1.54 1.56
    "cos": (1.7, 1.7),  # 1.55 1.56
    "tan": (3.9, 3.9),  # 3.62 3.36
    "tanh": (1.5, 1.6),  # 1.30 1.33
    "sinh": (1.9, 2.3),  # 1.75 2.08
    "cosh": (2.0, 1.7),  # 1.79 1.47
    "atan": (2.0, 2.0),  # 1.81 1.77
    "sqrt": (0.501, 0.501),
    "sigmoid": (2.6, 2.6),  # 2.40 2.42
    "softplus": (3.0, 3.0),  # 2.79 2.78
}
NAMES = tuple(BOUNDS)
CIRCULAR = {"float32": 1e5, "float64": 1e12}  # sin, cos and tan: beyond, bounded only
# Results from overflow on are the business of the tests of edges.
TOP = {
    "float32": {"exp": 88.72, "expm1": 88.72, "sinh": 89.41, "cosh": 89.41},
    "float64": {"exp": 709.78, "expm1": 709.78, "sinh": 710.47, "cosh": 710.47},
}
DENSE = {  # where the error is largest, or the range is a small part of all numbers
    "exp": (-104, 88.7),
    "expm1": (-2, 2),
    "log": (0.4, 2.5),
    "sin": (-10, 10),
    "cos": (-10, 10),
    "tan": (-10, 10),
    "tanh": (-1, 1),
    "sinh": (-3, 3),
    "cosh": (-12, 12),
    "atan": (-3, 3),
    "sqrt": (0, 4),
    "sigmoid": (-8, 8),
    "softplus": (-8, 8),
}
ENTRY = "\ndef run(x, out):\n    for i in range(x.size):\n" + "".join(
    f"        out[{k}, i] = {name}(x[i])\n" for k, name in enumerate((*NAMES, "sign"))
)
FUSED = platform.machine() not in ("x86_64", "AMD64") or get_host_cpu_features().get("fma", False)
WIDE = {"float32": np.float64, "float64": np.longdouble}


def values(dtype, x):
    x = np.ascontiguousarray(x, dtype)
    out = np.empty((len(NAMES) + 1, x.size), dtype)
    compiling.load(source.module_source(dtype, ENTRY))(x, out)
    return dict(zip((*NAMES, "sign"), out, strict=True))


def wide(name, x):
    """The function in a wider type."""
    if name == "sigmoid":
        e = np.exp(-np.abs(x))
        return np.where(x >= 0, 1, e) / (1 + e)
    if name == "softplus":
        return np.maximum(x, 0) + np.log1p(np.exp(-np.abs(x)))
    return getattr(np, "arctan" if name == "atan" else name)(x)


def exactly(name, x):
    """The function at one point, from 60 digits."""
    with mpmath.workdps(60):
        x = mpmath.mpf(float(x))
        if name == "sigmoid":
            return 1 / (1 + mpmath.exp(-x))
        if name == "softplus":
            return mpmath.log1p(mpmath.exp(x))
        return getattr(mpmath, name)(x)


def every_kind(dtype, n=400_000):
    """Bit patterns all over: both signs, every exponent, denormals, infinities and NaN."""
    if dtype == "float32":
        return np.arange(0, 2**32, 2**32 // n + 2, dtype=np.uint64).astype(np.uint32).view(dtype)
    step = 2**64 // n + 12345
    return (np.arange(n, dtype=np.uint64) * np.uint64(step)).view(dtype)


def points(dtype, name):
    """Where the bound is claimed."""
    generator = np.random.default_rng(0)
    x = every_kind(dtype)
    low, high = DENSE[name]
    if name in ("exp", "sinh", "cosh", "sigmoid", "softplus") and dtype == "float64":
        x = np.concatenate([x, generator.uniform(-745, 709, 100_000)])  # few bit patterns there
    dense = [generator.uniform(low, high, 200_000), 10 ** generator.uniform(-9, 0, 50_000)]
    if name in ("sin", "cos", "tan"):
        dense.append(10 ** generator.uniform(0, math.log10(CIRCULAR[dtype]), 200_000))
    x = np.concatenate([x, *(d.astype(dtype) for d in dense), np.array([0.0, -0.0], dtype)])
    if name in ("log", "sqrt"):
        x = np.abs(x)
    x = x[np.isfinite(x)]
    if name in ("sin", "cos", "tan"):
        x = x[np.abs(x) <= CIRCULAR[dtype]]
    if name in ("sinh", "cosh"):
        x = x[np.abs(x) <= TOP[dtype][name]]
    return x[(x <= TOP[dtype].get(name, np.inf)) & ((name != "log") | (x != 0))]


def in_ulps(value, reference, dtype):
    """Distance in units of the last place of the reference (a wider type)."""
    spacing = np.spacing(np.abs(reference).astype(dtype)).astype(reference.dtype)
    return np.abs(value.astype(reference.dtype) - reference) / spacing


def bound_of(name, dtype):
    return BOUNDS[name][DTYPES.index(dtype)]


def has_wide(dtype):
    return np.finfo(WIDE[dtype]).nmant > np.finfo(dtype).nmant + 8


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", NAMES)
def test_error_in_ulps_over_the_whole_range(dtype, name):
    if name in ("sin", "cos", "tan") and not FUSED:
        pytest.skip("near their zeros the bounds need fused multiply-add")
    x = points(dtype, name)
    found = values(dtype, x)[name]
    bound = bound_of(name, dtype)
    if has_wide(dtype):
        reference = wide(name, x.astype(WIDE[dtype]))
        error = in_ulps(found, reference, dtype)
        assert error.max() <= bound, (x[error.argmax()], error.max())
        # Negative twin: one bit lost, an error larger by an ulp, is caught.
        away = np.where(found >= reference, np.inf, -np.inf).astype(dtype)
        with np.errstate(over="ignore"):
            lost = np.nextafter(found, away)
        assert in_ulps(lost, reference, dtype).max() > bound
    few = np.random.default_rng(1).choice(x.size, 800, replace=False)
    for point, value in zip(x[few], found[few], strict=True):
        exact = exactly(name, point)
        spacing = float(np.spacing(np.abs(np.array(float(exact), dtype))))
        assert abs(mpmath.mpf(float(value)) - exact) <= bound * spacing, point


@pytest.mark.skipif(not FUSED, reason="near their zeros the bounds need fused multiply-add")
@pytest.mark.parametrize("dtype", DTYPES)
def test_large_arguments_of_sine_and_cosine_against_many_digits(dtype):
    """A wide type's own reduction could be wrong: multiples of pi/2, nearest to a zero."""
    top = CIRCULAR[dtype] / math.pi * 2 - 1
    k = np.unique((10 ** np.random.default_rng(2).uniform(0, math.log10(top), 1500)).astype(int))
    with mpmath.workdps(60):
        x = np.array([float(int(j) * mpmath.pi / 2) for j in k]).astype(dtype)
    found = values(dtype, x)
    for name in ("sin", "cos", "tan"):
        for point, value in zip(x, found[name], strict=True):
            exact = exactly(name, point)
            spacing = float(np.spacing(np.abs(np.array(float(exact), dtype))))
            assert abs(mpmath.mpf(float(value)) - exact) <= bound_of(name, dtype) * spacing, point


def test_sine_and_cosine_stay_bounded_wherever_a_replica_may_be():
    """A replica lives up to 1e12: a sine of 1e26 there would be a force out of nowhere."""
    generator = np.random.default_rng(3)
    x = (10 ** generator.uniform(5, 12, 20_000) * generator.choice([-1, 1], 20_000)).astype("f4")
    found = values("float32", x)
    for name in ("sin", "cos"):
        ok = np.isnan(found[name]) | (np.abs(found[name]) <= 1 + 2 * np.finfo("f4").eps)
        assert ok.all(), f"{name}({x[~ok][0]}) = {found[name][~ok][0]}"


HALF_PI, INF, NAN = math.pi / 2, math.inf, math.nan
SPECIAL = {  # at 0, inf, -inf, nan
    "exp": (1, INF, 0, NAN),
    "expm1": (0, INF, -1, NAN),
    "log": (-INF, INF, NAN, NAN),
    "sin": (0, NAN, NAN, NAN),
    "cos": (1, NAN, NAN, NAN),
    "tan": (0, NAN, NAN, NAN),
    "tanh": (0, 1, -1, NAN),
    "sinh": (0, INF, -INF, NAN),
    "cosh": (1, INF, INF, NAN),
    "atan": (0, HALF_PI, -HALF_PI, NAN),
    "sqrt": (0, INF, NAN, NAN),
    "sigmoid": (0.5, 1, 0, NAN),
    "softplus": (math.log(2), INF, 0, NAN),
    "sign": (0, 1, -1, NAN),
}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", SPECIAL)
def test_special_values(dtype, name):
    found = values(dtype, [0.0, INF, -INF, NAN])[name]
    expected = np.array(SPECIAL[name], dtype)
    assert np.array_equal(found, expected, equal_nan=True), found


@pytest.mark.parametrize("dtype", DTYPES)
def test_every_nan_stays_one(dtype):
    """A NaN's bits reach integer arithmetic: none may come back as a number."""
    if dtype == "float32":
        bits = np.array([0x7FC00000, 0x7FC00001, 0x7F800001, 0xFFFFFFFF, 0xFFC12345], np.uint32)
    else:
        top = 0x7FF8 << 48
        bits = np.array([top, top + 1, (0x7FF0 << 48) + 7, 2**64 - 1, top + 0x12345], np.uint64)
    for name, found in values(dtype, bits.view(dtype)).items():
        assert np.isnan(found).all(), name


@pytest.mark.parametrize("dtype", DTYPES)
def test_overflow_and_underflow(dtype):
    info = np.finfo(dtype)
    edge = float(np.log(np.float64(info.max)))
    x = np.array([edge * 1.0001, edge * 1.01, edge * 50, 1e30, info.max])
    found = values(dtype, np.concatenate([x, -x]))
    n = len(x)
    for name, below in {"exp": 0, "expm1": -1}.items():
        assert (found[name][:n] == INF).all(), name
        assert (found[name][n + 2 :] == below).all(), name
    assert (found["cosh"][[1, 2, 3, 4, n + 1, n + 2]] == INF).all()
    assert (found["sinh"][1:n] == INF).all() and (found["sinh"][n + 1 :] == -INF).all()
    assert (found["sigmoid"][:n] == 1).all() and (found["sigmoid"][n + 2 :] == 0).all()
    assert (found["softplus"][:n] == x.astype(dtype)).all()
    assert (found["softplus"][n + 2 :] == 0).all()
    assert (found["tanh"][:n] == 1).all() and (found["tanh"][n:] == -1).all()
    for name in ("log", "sqrt"):
        assert np.isnan(values(dtype, [-1.0, -info.tiny, -info.max])[name]).all()


@pytest.mark.parametrize("name", NAMES)
def test_functions_as_plain_python(name):
    """The kernels' text is ordinary Python: the same numbers without a compiler."""
    function = getattr(library, name, None) or getattr(float64, name)
    x = np.float64(0.7)
    with np.errstate(over="ignore"):
        assert function(x) == pytest.approx(float(exactly(name, 0.7)), rel=5e-16)
        if hasattr(float32, name):
            single = getattr(float32, name)(np.float32(0.7))
            assert float(single) == pytest.approx(float(exactly(name, np.float32(0.7))), rel=3e-7)


# --- powers ---------------------------------------------------------------------------------------

# Products and square roots: each rounds once. n - 1 products, one more for a division or a root.
EXACT = {"x**2": 1, "x**3": 2, "x**-3": 3, "x**2.5": 3, "x**-0.5": 2, "x**10": 9, "x**64": 63}
# exp(p log x) multiplies the logarithm's rounding by the exponent.
GROWING = {"x**(1/3)": 1 / 3, "x**1.7": 1.7, "x**-2.3": -2.3, "x**20.3": 20.3, "2**x": None}


def power_values(dtype, texts, x):
    functions = [
        printing.source(f"f{k}", [parsing.parse(text)], [sympy.Symbol("x")], [], scalar=True)
        for k, text in enumerate(texts)
    ]
    entry = "\ndef run(x, out):\n    for i in range(x.shape[1]):\n" + "".join(
        f"        out[{k}, i] = f{k}(x[{k}, i])\n" for k in range(len(texts))
    )
    out = np.empty(x.shape, dtype)
    compiling.load(source.module_source(dtype, *functions, entry))(x, out)
    return out


def log_uniform(dtype, exponent, n=100_000):
    """Bases whose powers stay normal numbers."""
    reach = (86 if dtype == "float32" else 700) / max(1, abs(exponent))
    return np.exp(np.random.default_rng(4).uniform(-reach, reach, n)).astype(dtype)


@pytest.mark.parametrize("dtype", DTYPES)
def test_integer_and_half_powers_round_once_a_product(dtype):
    if not has_wide(dtype):
        pytest.skip("no wider type here")
    exponents = [float(text[3:]) for text in EXACT]
    x = np.stack([log_uniform(dtype, p) for p in exponents])
    found = power_values(dtype, list(EXACT), x)
    for row, p, (text, bound) in zip(range(len(x)), exponents, EXACT.items(), strict=True):
        error = in_ulps(found[row], x[row].astype(WIDE[dtype]) ** WIDE[dtype](p), dtype)
        assert error.max() <= bound, text
        assert error.max() > 0.49, text  # it is a bound on something


@pytest.mark.parametrize("dtype", DTYPES)
def test_error_of_other_powers_grows_with_the_exponent(dtype):
    """``1.1 + 3 |p log x|`` ulp (measured: 2.5); a third of that is exceeded."""
    if not has_wide(dtype):
        pytest.skip("no wider type here")
    real = WIDE[dtype]
    reach = 125 if dtype == "float32" else 1020
    rows = [log_uniform(dtype, p) for p in GROWING.values() if p is not None]
    rows.append(np.random.default_rng(5).uniform(-reach, reach, 100_000).astype(dtype))
    x = np.stack(rows)
    found = power_values(dtype, list(GROWING), x)
    for k, (text, p) in enumerate(GROWING.items()):
        wide_x = x[k].astype(real)
        if p is None:
            reference, size = real(2) ** wide_x, np.abs(wide_x) * math.log(2)
        else:
            p = real(1) / 3 if text == "x**(1/3)" else real(text[3:])
            reference, size = wide_x**p, np.abs(p * np.log(wide_x))
        error = in_ulps(found[k], reference, dtype)
        assert (error <= 1.1 + 3 * size).all(), text
        assert (error > 1.1 + size).any() or text == "2**x", text


# --- no call, no scalar ---------------------------------------------------------------------------

EVERYTHING = (
    "exp(-x**2) + log(2 + x**2) + sin(3*x) + cos(x) + tan(x/9) + tanh(x) + sinh(x/3) + cosh(x/2)"
    " + x*atan(4*x) + sqrt(1 + x**2) + abs(x - 1)**3 + sigmoid(x) + x*softplus(5*x)"
    " + sign(x)*x**2 + (1 + x**2)**1.3 + x**4"
)
# Whose coefficients must stand in vector instructions.
PARTS = (
    *("small_expm1", "log_parts", "sine_cosine", "tanh", "half_hyperbolic", "small_atan"),
    "small_log1p",
)
MATHEMATICS = (
    r"(exp|exp2|expm1|log|log1p|log2|pow|sin|cos|sincos|tan|tanh|sinh|cosh|atan|erf|ldexp)"
)


def machine_code(monkeypatch, tmp_path, dtype, edit=lambda text: text):
    """The optimised code of a run on the surface that uses every function."""
    engines, written = [], cpu.kernel_source

    class Watched(cpu.Engine):
        def __init__(self, *arguments):
            super().__init__(*arguments)
            engines.append(self)

    monkeypatch.setenv("LANGEVIN_CACHE", str(tmp_path))  # a kernel read from disk has lost its code
    monkeypatch.setattr(cpu, "Engine", Watched)
    monkeypatch.setattr(cpu, "kernel_source", lambda *arguments: edit(written(*arguments)))
    dynamics = lv.Overdamped(temperature=0.1, dt=1e-3)
    options = {"n_replicas": 64, "n_steps": 4, "progress": False, "dtype": dtype}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        lv.simulate(lv.Surface(EVERYTHING), dynamics, start=[0.5], **options)
    return compiling.optimised_code(engines[0].kernel)


def library_calls(code):
    """Names of the mathematics library that the code calls, intrinsics that end there included."""
    called = set(re.findall(r'call[^\n]*?@"?([\w.]+)', code))
    pattern = re.compile(rf"(llvm\.)?{MATHEMATICS}[fl]?(\.\w+)?$")
    return {name for name in called if pattern.match(name)}


def missing_from_vectors(code, dtype):
    """Parts of the kernels with a coefficient that no vector instruction holds."""
    word = "float" if dtype == "float32" else "double"
    vectors = "\n".join(line for line in code.splitlines() if re.search(rf"<\d+ x {word}>", line))
    module = float32 if dtype == "float32" else float64
    missing = set()
    for part in PARTS:
        text = inspect.getsource(getattr(module, part))
        for found in re.findall(r"real\(-?(\d+\.[\de.-]{8,})\)", text):
            bits = struct.unpack(">Q", struct.pack(">d", float(np.dtype(dtype).type(found))))[0]
            either_sign = f"0x(?:{bits:016X}|{bits | 1 << 63:016X})"
            if not re.search(either_sign, vectors):
                missing.add(part)
    return missing


@pytest.mark.parametrize("dtype", DTYPES)
def test_no_function_stops_the_vectoriser(dtype, monkeypatch, tmp_path):
    assert {w for w in re.findall("[a-z]+", EVERYTHING) if w != "x"} == set(FUNCTIONS)
    code = machine_code(monkeypatch, tmp_path, dtype)
    assert not library_calls(code)
    assert not missing_from_vectors(code, dtype)


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_library_call_would_be_seen(dtype, monkeypatch, tmp_path):
    """Negative twin: with the library's exponential there are calls, with its erf no vectors."""

    def with_library(text):
        head, tail = text.split("def exp(x):\n", 1)
        wrong = "def exp(x):\n    return real(math.exp(x)) + real(math.erf(x))\n"
        return f"{head}{wrong}\n\ndef unused(x):\n{tail}"

    code = machine_code(monkeypatch, tmp_path, dtype, with_library)
    assert any("exp" in name for name in library_calls(code))
    assert any("erf" in name for name in library_calls(code))
    assert {"small_atan", "small_log1p", "half_hyperbolic"} <= missing_from_vectors(code, dtype)

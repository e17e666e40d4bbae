"""The formula language: what it reads, what it refuses, and what it prints for kernels."""

import builtins
import math
import pickle
import subprocess
import sys
import time

import numpy as np
import pytest
import sympy
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import expit

from langevin.errors import FormulaError, LangevinError, ParameterError
from langevin.surfaces.expression import Surface
from langevin.surfaces.parsing import parse
from langevin.surfaces.printing import formula_text

DANGEROUS = [
    "__import__('os').system('true')",
    "__import__",
    "__builtins__",
    "x.__class__",
    "x.real",
    "().__class__.__bases__[0]",
    "(lambda: x)()",
    "lambda x: x**2",
    "[x for x in (1, 2)][0]",
    "{x: 1}",
    "{y for y in x}",
    "x[0]",
    "(x, y)",
    "[x]",
    "x if x else y",
    "x < 1",
    "x == 1",
    "x and y",
    "not x",
    "~x",
    "x % 2",
    "x // 2",
    "x @ y",
    "x ^ 2",
    "x << 2",
    "x | 1",
    "(y := x)",
    "f'{x}'",
    "'x'",
    "b'x'",
    "...",
    "None",
    "True*x",
    "1j*x",
    "eval(x)",
    "exec(x)",
    "open(x)",
    "exp.__call__(x)",
    "exp(x)(x)",
    "exp(*x)",
    "exp(x, y)",
    "exp()",
    "exp(x=1)",
    "log(x, base=2)",
    "exp",
    "pi()",
    "x; y",
    "x\n;import os",
    "import os",
    "x = 1",
    "await x",
    "yield x",
    "x # comment",
    "x \\\n + 1",
    "x\0",
    "_x",
    "x__y",
    "ｅｘｐ(x)",
    "x²",
    "ﬁ + x",
    "lambda",
    "class",
    "2x",
    "x**",
    "((x)",
    "x)",
    "",
    "   ",
    "\n",
    "9**9**9**9",
    "x**9**9",
    "x**9999",
    "((x**900)**900)**900",
    "2**(2**(2**(2**(2**2))))*x",
    "exp(exp(exp(exp(9))))*x",
    "1e999*x",
    "x + 1" + "0" * 400,
    "x/0",
    "x/(1 - 1)",
    "0**-1*x",
    "sqrt(-1)*x",
    "log(-1)*x",
    "log(0)*x",
    "(-8)**(1/3)*x",
    "tan(x, x)",
    "arctan(x)",
    "foo(x)",
    "x(y)",
    "(" * 150 + "x" + ")" * 150,
    "-" * 500 + "x",
    "exp(" * 120 + "x" + ")" * 120,
    "**".join(["x"] * 200),
]


@pytest.mark.parametrize("text", DANGEROUS, ids=lambda t: repr(t[:30]))
def test_dangerous_and_malformed_formulas_are_refused(text):
    started = time.perf_counter()
    with pytest.raises(FormulaError):
        Surface(text)
    assert time.perf_counter() - started < 2.0


@pytest.mark.parametrize(
    "text",
    ["x+" * 5_000_000 + "x", "(" * 100_000 + "x" + ")" * 100_000, "-" * 100_000 + "x", "x" * 10**7],
    ids=["10 MB sum", "10^5 parentheses", "10^5 signs", "10 MB name"],
)
def test_huge_texts_are_refused_quickly(text):
    started = time.perf_counter()
    with pytest.raises(FormulaError, match=r"10,000|nested"):
        Surface(text)
    assert time.perf_counter() - started < 1.0


def test_nothing_is_evaluated(monkeypatch):
    def forbidden(*_):
        raise AssertionError("user text reached an evaluator")

    text = "x**2 + exp(-x)*sin(y)/3 - 0.1"
    expected = parse(text)  # once before: sympy imports some of its modules late, with exec
    monkeypatch.setattr(builtins, "eval", forbidden)
    monkeypatch.setattr(builtins, "exec", forbidden)
    monkeypatch.setattr(sympy, "sympify", forbidden)
    assert parse(text) == expected


@settings(max_examples=300, deadline=None)
@given(st.text(alphabet="xyab019.+-*/()e _,^%'\"[]{}:=<>!&|~@#\\", max_size=40))
def test_any_text_is_read_or_refused(text):
    try:
        Surface(text, variables=None)
    except LangevinError:
        pass


def test_long_sums_are_no_deep_nesting():
    text = " + ".join(f"(x - {i})**2" for i in range(400))
    assert Surface(text).gradient([0.0]) == pytest.approx(-2 * sum(range(400)))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("x - y - z", lambda x, y, z: x - y - z),
        ("x/y/z", lambda x, y, z: x / y / z),
        ("x/y*z", lambda x, y, z: x / y * z),
        ("-x**2 + y*z", lambda x, y, z: -(x**2) + y * z),
        ("2**-x*y + z", lambda x, y, z: 2**-x * y + z),
        ("x**y**z", lambda x, y, z: x ** (y**z)),
        ("+x - -y + z", lambda x, y, z: x + y + z),
        ("1.5e-3*x + .5*y + 2.*z", lambda x, y, z: 1.5e-3 * x + 0.5 * y + 2 * z),
        ("pi*x + y*z", lambda x, y, z: math.pi * x + y * z),
        ("x**2.5 + y**0.5 + z**-1.5", lambda x, y, z: x**2.5 + y**0.5 + z**-1.5),
        ("abs(-x)*sign(y)*atan(z)", lambda x, y, z: x * math.atan(z)),
        ("sqrt(4)*x + cos(0)*y + z*exp(1)", lambda x, y, z: 2 * x + y + math.e * z),
        (
            "softplus(x)/y + z*sigmoid(-3*x)",
            lambda x, y, z: math.log(1 + math.exp(x)) / y + z / (1 + math.exp(3 * x)),
        ),
        ("softplus(0)*x + sigmoid(0)*y + z", lambda x, y, z: math.log(2) * x + y / 2 + z),
        ("x + y**sigmoid(2) + z", lambda x, y, z: x + y ** (1 / (1 + math.exp(-2))) + z),
        ("tan(x + pi/2) + y + z", lambda x, y, z: math.tan(x + math.pi / 2) + y + z),
    ],
)
def test_arithmetic_means_what_it_says(text, expected):
    point = (0.7, 1.3, 0.4)
    assert Surface(text).energy(point) == pytest.approx(expected(*point), rel=1e-14)


def test_coordinates_come_in_natural_order():
    surface = Surface("x10 + x2 + x1 + a*y", a=2.0)
    assert surface.variables == ("x1", "x2", "x10", "y")
    assert Surface("y*x**2", variables=("y", "x")).variables == ("y", "x")
    assert Surface("y*x**2", variables="y, x").variables == ("y", "x")
    assert Surface(lambda w, b: w * b**2).variables == ("w", "b")
    assert Surface("x - x + y").variables == ("x", "y"), "a symbol that cancels is a coordinate"


def test_python_names_may_be_parameters():
    surface = Surface("self*x**2 + formula*x + noise_", noise_=1.0, self=2.0, formula=3.0)
    assert surface.energy([2.0]) == 8 + 6 + 1
    assert list(surface.parameters) == ["formula", "noise_", "self"]


@pytest.mark.parametrize(
    ("arguments", "options", "error", "says"),
    [
        (("x**2 + a*x",), {"variables": ("x",)}, ParameterError, "'a' has no value"),
        (("x**2",), {"a": 1.0}, ParameterError, "no symbol 'a'"),
        (("x**2*a",), {"a": float("nan")}, ParameterError, "finite"),
        (("x**2*a",), {"a": float("inf")}, ParameterError, "finite"),
        (("x**2*a",), {"a": "1"}, ParameterError, "real number"),
        (("x**2*a",), {"a": np.ones(3)}, ParameterError, "real number"),
        (("x**2*a",), {"a": True}, ParameterError, "real number"),
        (("3 + 4",), {}, FormulaError, "no coordinate"),
        (("a**2",), {"a": 1.0}, FormulaError, "no coordinate"),
        (("x**2",), {"variables": ("x", "z")}, FormulaError, "no symbol 'z'"),
        (("x**2",), {"variables": ("x", "x")}, FormulaError, "only once"),
        (("x**2",), {"variables": ()}, FormulaError, "at least one"),
        (("x**2 + a",), {"variables": ("x", "a"), "a": 1.0}, FormulaError, "Choose one"),
        (("x**2",), {"noise": 1.0}, ParameterError, "Isotropic"),
        ((7,), {}, FormulaError, "function"),
        ((None,), {}, FormulaError, "function"),
        (("x**2*exp",), {}, FormulaError, "function"),
    ],
)
def test_names_and_parameters_are_checked(arguments, options, error, says):
    with pytest.raises(error, match=says):
        Surface(*arguments, **options)


# --- callables ----------------------------------------------------------------------------------


def test_callables_and_text_give_the_same_surface():
    text = Surface(
        "exp(-a*x**2)*sin(y) + sqrt(1 + x**2)/2 + abs(x - y)**3 - tanh(x)/(y**2 + 1)", a=2
    )
    traced = Surface(
        lambda x, y, a=2.0: (
            np.exp(-a * x**2) * np.sin(y)
            + np.sqrt(1 + x**2) * np.float64(0.5)
            + np.abs(x - y) ** 3
            - np.tanh(x) / (y**2 + 1)
        )
    )
    assert traced.formula == text.formula
    assert traced.parameters == text.parameters
    assert traced.gradient_source() == text.gradient_source()


def test_sigmoid_and_softplus_are_traced():
    text = Surface("softplus(x) + sigmoid(2*y) + softplus(-x*y) + x + softplus(y - x)")
    traced = Surface(
        lambda x, y: np.logaddexp(0, x) + expit(2 * y) + (-x * y).softplus() + np.logaddexp(x, y)
    )
    assert traced.formula == text.formula
    assert Surface(text.formula).gradient_source() == text.gradient_source()
    assert Surface(lambda x: x.sigmoid() + np.logaddexp(x, 0.0)).formula == (
        Surface("sigmoid(x) + x + softplus(-x)").formula
    )


def test_sigmoid_and_softplus_at_both_ends():
    x = np.array([[-800.0], [-40.0], [0.0], [40.0], [800.0]])
    tail = math.exp(-40)
    surface = Surface("softplus(x)")
    close = {"rtol": 1e-15, "atol": 0}
    assert np.allclose(surface.energy(x), [0, tail, math.log(2), 40, 800], **close)
    assert np.allclose(surface.gradient(x)[:, 0], [0, tail, 0.5, 1, 1], **close)
    assert np.allclose(surface.hessian(x).ravel(), [0, tail, 0.25, 0, 0], **close)


def test_numpy_functions_are_traced():
    def everything(x, y):
        total = np.log(2 + np.cos(x)) + np.sinh(y) + np.cosh(x) + np.tan(y / 4) + np.arctan(x)
        total += (
            np.sign(x) * np.square(y) + np.power(x, 4) + np.negative(y) + np.array([x, y]).sum()
        )
        return total - 2.0**x + np.divide(1, 3 + y**2) + np.dot([x, y], [1.0, 2.0])

    points = np.array([[0.3, -0.7], [1.1, 0.2]])
    assert Surface(everything).energy(points) == pytest.approx(
        [everything(*p) for p in points], rel=1e-14
    )


def test_arguments_of_callables_become_variables_or_parameters():
    def well(x, depth, *, width=2.0):
        return depth * (x / width) ** 2

    surface = Surface(well, depth=3.0)
    assert surface.variables == ("x",)
    assert surface.parameters == {"depth": 3.0, "width": 2.0}
    assert surface.replace(width=1.0).energy([2.0]) == 12.0
    assert Surface(lambda *x: sum(v**2 for v in x), variables=("u", "v")).dim == 2


@pytest.mark.parametrize(
    ("function", "says"),
    [
        (lambda x: x**2 if x > 0 else 0 * x, "compares"),
        (lambda x: x**2 if x else 0 * x, "branches"),
        (lambda x: max(x, 0), "compares"),
        (lambda x: math.exp(x), "into a number"),
        (lambda x: float(x) ** 2, "into a number"),
        (lambda x: np.arcsinh(x), "traced"),
        (lambda x: x.foo, "traced"),
        (lambda x: x[0] ** 2, "traced"),
        (lambda x: undefined * x, "traced"),  # noqa: F821
        (lambda x: "x", "real number"),
        (lambda x: None, "real number"),
        (lambda x: x * math.nan, "not finite"),
        (lambda x: x * 1j, "traced"),
        (lambda x: x**x**5000, "too high"),
        (lambda *x: x[0], "hides"),
        (lambda **x: 1.0, "hides"),
        (lambda _x: _x**2, "refused"),
    ],
)
def test_callables_that_are_no_formula_are_refused(function, says):
    with pytest.raises(FormulaError, match=says):
        Surface(function)


def test_a_callable_that_explodes_is_refused_quickly():
    def tower(x):
        for _ in range(60):
            x = np.sin(x) + x * np.cos(x)
        return x

    started = time.perf_counter()
    with pytest.raises(FormulaError, match="operations"):
        Surface(tower)
    assert time.perf_counter() - started < 5.0


# --- text back from expressions, and kernel source ----------------------------------------------

numbers = st.one_of(
    st.integers(-9, 9).map(str), st.floats(0.01, 9, allow_nan=False).map(lambda v: f"{v:.3g}")
)


SMOOTH = ["sin", "cos", "tanh", "atan", "sigmoid", "softplus"]


def formulas(leaves=8):
    """Random smooth formulas of x, y and the parameter a."""
    atoms = st.one_of(st.sampled_from(["x", "y", "a"]), numbers)
    return st.recursive(
        atoms,
        lambda inner: st.one_of(
            st.tuples(inner, st.sampled_from("+-*"), inner).map(
                lambda t: f"({t[0]} {t[1]} {t[2]})"
            ),
            st.tuples(inner, st.integers(2, 5)).map(lambda t: f"({t[0]})**{t[1]}"),
            st.tuples(
                st.sampled_from(["sin", "cos", "tanh", "atan", "sigmoid", "softplus"]), inner
            ).map(lambda t: f"{t[0]}({t[1]})"),
            inner.map(lambda u: f"exp(-({u})**2)"),
            inner.map(lambda u: f"sqrt(1 + ({u})**2)"),
            inner.map(lambda u: f"log(2 + ({u})**2)"),
            inner.map(lambda u: f"1/(1.5 + ({u})**2)"),
            inner.map(lambda u: f"(1 + ({u})**2)**1.25"),
        ),
        max_leaves=leaves,
    )


def surface_of(text):
    return Surface(f"{text} + 0*(x + y + a)", variables=("x", "y"), a=0.7)


SCALAR = {
    "real": float,
    **{n: getattr(math, n) for n in "exp log sin cos tan tanh sinh cosh atan sqrt".split()},
    "abs": abs,
    "sign": lambda v: float((v > 0) - (v < 0)),
    "sigmoid": lambda v: math.exp(min(v, 0)) / (1 + math.exp(-abs(v))),
    "softplus": lambda v: max(v, 0) + math.log1p(math.exp(-abs(v))),
    "__builtins__": {},
}


def compiled(source, name):
    namespace = dict(SCALAR)
    exec(source, namespace)  # noqa: S102
    return namespace[name]


@settings(max_examples=60, deadline=None)
@given(formulas(), st.floats(-1.5, 1.5), st.floats(-1.5, 1.5))
def test_generated_source_is_the_surface(text, x, y):
    surface = surface_of(text)
    gradient = compiled(surface.gradient_source("slope"), "slope")(x, y, 0.7)
    energy = compiled(surface.energy_source(), "energy")(x, y, 0.7)
    assert isinstance(gradient, tuple)
    assert len(gradient) == 2
    expected = surface.gradient([x, y])
    assert gradient == pytest.approx(expected, rel=1e-12, abs=1e-12 * (1 + np.abs(expected).max()))
    assert energy == pytest.approx(surface.energy([x, y]), rel=1e-12, abs=1e-12)


@settings(max_examples=60, deadline=None)
@given(formulas())
def test_canonical_text_reads_back_to_the_same_expression(text):
    expression = parse(text)
    assert parse(formula_text(expression)) == expression


def test_source_is_one_plain_function():
    surface = Surface("a*exp(-x0**2) + b*cos(x1)**3 + x1**4 + x0**2.5", a=1, b=2)
    lines = surface.gradient_source("f").splitlines()
    assert lines[0] == "def f(x0, x1, p0, p1):"
    assert lines[-1].startswith("    return (")
    assert "**" not in surface.gradient_source() + surface.energy_source()
    for word in ("import", "numpy", "math", "if ", "for "):
        assert word not in surface.gradient_source()


def test_polynomials_are_in_horner_form():
    surface = Surface("x**4/4 - a*x**3/3 - x**2/2", a=0.4)
    assert surface.gradient_source() == (
        "def gradient(x0, p0):\n    return (((x0 - p0)*x0 - real(1.0))*x0,)\n"
    )
    factored = Surface("(x - 100)**4").gradient_source()
    assert "100" in factored, "a factored form is not expanded: it is better conditioned"


def test_powers_need_no_pow():
    surface = Surface("x**7 + x**-3 + x**0.5 + x**-1.5 + x**1.3", variables=("x",))
    energy = compiled(surface.energy_source(), "energy")
    x = 1.7
    assert energy(x) == pytest.approx(x**7 + x**-3 + x**0.5 + x**-1.5 + x**1.3, rel=1e-14)


def test_a_parameter_in_an_exponent_keeps_negative_bases_real():
    surface = Surface("(x**2)**p + x**n", n=4, p=1.5)
    assert surface.energy([-2.0]) == pytest.approx(8 + 16)
    cubic = surface.replace(n=3, p=2)
    assert cubic.energy([-2.0]) == pytest.approx(16 - 8)
    assert cubic.parameters == {"n": 3.0, "p": 2.0}
    assert cubic.replace(n=4, p=1.5).energy_source() == surface.energy_source()


def test_replacing_values_leaves_the_source_alone():
    surface = Surface("a*x**4 + b*x**2", a=1.0, b=-1.0)
    other = surface.replace(a=2.0, noise=None)
    assert other.gradient_source() == surface.gradient_source()
    assert other.gradient([1.0]) == 8 - 2
    assert surface.gradient([1.0]) == 4 - 2
    with pytest.raises(ParameterError, match="a, b"):
        surface.replace(c=1.0)
    with pytest.raises(ParameterError, match="finite"):
        surface.replace(a=math.inf)


def test_source_does_not_depend_on_the_hash_seed():
    code = (
        "from langevin.surfaces.expression import Surface as S;"
        "s = S('a*x*y*z + b*sin(x*y*z)*exp(x*y) + tanh(a*b*x)/(1 + x**2 + z**2)', a=1, b=2);"
        "print(s.gradient_source(), s.energy_source(), s.formula)"
    )
    texts = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={"PYTHONHASHSEED": seed, "PYTHONPATH": ":".join(p for p in sys.path if p)},
            capture_output=True,
            check=True,
        ).stdout
        for seed in ("1", "2", "3")
    }
    assert len(texts) == 1


def test_surfaces_survive_pickling():
    surface = Surface("a*x**4 + b*exp(-(x - 0.1)**2)", a=1.5, b=-1 / 3)
    copy = pickle.loads(pickle.dumps(surface))
    assert copy.gradient_source() == surface.gradient_source()
    assert copy.parameters == surface.parameters
    assert copy.gradient([0.3]) == surface.gradient([0.3])

"""Rules of the house that a reader relies on."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent / "langevin"
MODULES = sorted(ROOT.rglob("*.py"))


def imported(path: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        if isinstance(node, ast.ImportFrom):
            names.add(node.module or "")
    return names


def test_one_importer_of_the_compiler():
    users = {p.name for p in MODULES if any(n.split(".")[0] == "numba" for n in imported(p))}
    assert users == {"compiling.py"}


@pytest.mark.parametrize("path", sorted((ROOT / "kernels").glob("*.py")), ids=lambda p: p.name)
def test_kernels_are_plain_functions(path):
    assert {n.split(".")[0] for n in imported(path)} <= {"math", "numpy", "enum", "langevin"}
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        assert not (isinstance(node, ast.FunctionDef) and node.decorator_list)


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(ROOT)))
def test_modules_are_short_and_safe(path):
    text = path.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 400
    calls = {
        node.func.id
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
    }
    allowed = {"exec"} if path.name == "printing.py" else set()  # its own generated text
    assert not calls & ({"eval", "exec", "sympify"} - allowed)
    assert "pickle" not in imported(path)


def test_predictions_never_simulate():
    for path in (ROOT / "predict").glob("*.py"):
        assert not any("simulate" in n or "engines" in n for n in imported(path)), path.name


def test_no_global_randomness():
    for path in MODULES:
        assert "np.random" not in path.read_text(encoding="utf-8"), path.name

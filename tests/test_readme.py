"""The README's Python runs as written, and its set-up commands are the ones that CI runs."""

import re
from pathlib import Path

import pytest

README = Path(__file__).parent.parent / "README.md"
BLOCKS = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.S)


@pytest.mark.parametrize("block", BLOCKS, ids=range(len(BLOCKS)))
def test_example(block, capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)  # one of them saves its run
    exec(compile(block, "README.md", "exec"), {"__name__": "readme"})  # noqa: S102
    printed = capsys.readouterr().out
    assert printed
    if "compare(" in block:
        assert ": agrees\n" in printed
    if "compare(result, lv.predict.boltzmann_gibbs" in block:
        assert ": differs\n" in printed, "the README says that the small-step limit differs"


def test_exactly_two_commands():
    commands = re.findall(r"```bash\n(.*?)```", README.read_text(encoding="utf-8"), re.S)
    assert len(commands) == 2
    assert all(len(command.strip().splitlines()) == 1 for command in commands)
    assert "langevin demo" in commands[0] and "pytest" in commands[1]
    script = (README.parent / ".ci" / "run").read_text(encoding="utf-8")
    assert "README.md" in script and "test-command" in script

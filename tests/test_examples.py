"""Every file of examples/ runs, in a small size, by the command that its head names."""

import json
import sys
import tomllib
from pathlib import Path

import pytest

from langevin import cli

FOLDER = Path(__file__).parent.parent / "examples"
FILES = sorted(FOLDER.glob("*.toml"))


def test_there_are_examples_and_the_readme_names_each():
    assert len(FILES) >= 5
    readme = (FOLDER / "README.md").read_text(encoding="utf-8")
    for path in FILES:
        assert f"]({path.name})" in readme


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_an_example_runs(path, tmp_path, monkeypatch, capsys):
    text = path.read_text(encoding="utf-8")
    assert f"langevin run {path.name}" in text and text.count("#") >= 5, "commented"
    command = ["langevin", "run", str(path), "--scale", "0.002", "--output", str(tmp_path / "out")]
    monkeypatch.setattr(sys, "argv", command)
    with pytest.raises(SystemExit) as ended:
        cli.main()
    shown = capsys.readouterr()
    assert not ended.value.code, shown.err
    record = json.loads((tmp_path / "out" / "results.json").read_text(encoding="utf-8"))
    given = tomllib.loads(text)
    assert record["title"] == given["title"] and not record["interrupted"]
    assert record["points"] and not record["refused"], record["refused"]
    for point in record["points"]:
        assert point["estimates"] or point["refused"]
        labels = {table.get("name", table["kind"]) for table in given.get("predict", [])}
        assert set(point["predictions"]) == labels, point["refused"]
    assert list((tmp_path / "out").rglob("*.png"))
    assert not [p for p in FOLDER.iterdir() if p.is_dir()], "nothing is written beside the examples"

"""The machinery of validations: verdicts, records, the report, and the exit status."""

import html.parser
import importlib
import json
import re
import sys
import types
from pathlib import Path

import kit
import pytest

FOLDER = Path(__file__).parent.parent / "validations"


@pytest.fixture(scope="module", autouse=True)
def importable():
    with kit.modules_of("validations"):
        yield


@pytest.fixture
def harness(importable):
    return importlib.import_module("harness")


def judged(harness, *checks):
    checks = list(checks)
    harness.judge(checks)
    return [c.verdict for c in checks]


def test_verdicts(harness):
    Check = harness.Check
    assert judged(harness, Check("near", 1.001, 0.001, 1.0, margin=0.02)) == ["agrees"]
    assert judged(harness, Check("wide", 1.0, 0.05, 1.0, margin=0.02)) == ["undecided"]
    assert judged(harness, Check("far", 1.1, 0.001, 1.0, margin=0.2)) == ["differs"]
    # An asymptotic formula is judged by the margin alone, however sharp the measurement.
    near = {"margin": 0.02, "approximate": True}
    assert judged(harness, Check("near", 1.01, 1e-6, 1.0, **near)) == ["agrees"]
    assert judged(harness, Check("beyond", 1.03, 1e-6, 1.0, **near)) == ["differs"]
    assert judged(harness, Check("unclear", 1.02, 0.01, 1.0, **near)) == ["undecided"]
    assert judged(harness, Check("scale", 0.001, 1e-4, 0.0, scale=1.0, **near)) == ["agrees"]


def test_the_reach_of_an_interval(harness):
    check = harness.Check("x", 2.3, 0.1, 2.0, dof=10_000)
    assert check.reach == pytest.approx(((0.3 - 0.196) / 2, (0.3 + 0.196) / 2), rel=1e-3)
    wide = harness.Check("x", 2.1, 0.1, 2.0, scale=4.0, dof=10_000)
    assert wide.reach == pytest.approx((0, 0.296 / 4), rel=1e-3)
    assert harness.Check("x", 2.1, 0.1, 2.0, dof=2).half_width == pytest.approx(0.43027, rel=1e-4)


def test_an_inequality_is_judged_by_the_side_of_its_interval(harness):
    """With three seeds 4.3 standard errors are the interval."""
    for bound, value, verdict in (
        ("above", 1.5, "agrees"),
        ("above", 1.4, "undecided"),
        ("above", 0.5, "differs"),
        ("below", 0.5, "agrees"),
        ("below", 0.6, "undecided"),
        ("below", 1.5, "differs"),
        ("above", float("nan"), "undecided"),
    ):
        check = harness.Check("x", value, 0.1, 1.0, bound=bound, dof=2)
        assert judged(harness, check) == [verdict]


def test_holm_is_shared_among_the_checks_of_a_row(harness):
    """p = 3e-5 is significant alone at 1e-4, not as one of ten; a clear one does not hide it."""
    one = harness.Check("one", 4.53, 1.0, 0.0, scale=100.0, margin=1.0)  # p = 3e-5 at 63 dof
    assert one.p_value < harness.SIGNIFICANCE < 10 * one.p_value
    assert judged(harness, one) == ["differs"]
    others = [harness.Check(str(k), 0.1, 1.0, 0.0, scale=100.0, margin=1.0) for k in range(9)]
    assert judged(harness, one, *others)[0] == "agrees"


def test_an_unexpected_verdict_contradicts_and_an_undecided_one_does_not(harness):
    for value, stderr, expected, holds in (
        (2.0, 0.01, "agrees", False),
        (2.0, 0.01, "differs", True),
        (1.0, 0.001, "differs", False),
        (1.0, 1.0, "differs", True),
    ):
        check = harness.Check("x", value, stderr, 1.0, expected=expected)
        harness.judge([check])
        assert check.holds == holds


def test_the_line_through_measurements(harness):
    import numpy as np

    x = np.array([0.1, 0.2, 0.4, 0.8])
    found = harness.line(x, 3 + 2 * x - x**2, np.full(4, 0.01), degree=2)
    assert found.value == pytest.approx(3, abs=1e-9)
    design = np.vander(x, 3)
    assert found.stderr == pytest.approx(0.01 * np.sqrt(np.linalg.inv(design.T @ design)[-1, -1]))


def test_every_row_is_found_and_described(harness):
    rows = harness.modules()
    assert list(rows)[:5] == ["T1", "T2", "T3", "T4", "T5"]
    assert set(rows) >= {"T12", "S2", "S3", "S8", "S9", "S10", "B3", "B5"}
    assert list(rows).index("T12N") == list(rows).index("T12") + 1
    assert "NETWORKS" not in rows and "B5N" in rows and "T10" in rows
    for row, name in rows.items():
        module = importlib.import_module(name)
        assert module.ROW == row and len(module.CLAIM) > 40 and module.SOURCE
        assert callable(module.validate)


def fake(harness, name, value):
    """A validation that measures ``value`` where 1 is predicted."""
    module = types.ModuleType(name)
    module.ROW, module.CLAIM, module.SOURCE = name.upper(), "A claim <b>&</b> more.", "A source"

    def validate(scale, progress):
        figure, ax = harness.axes(xlabel="x", ylabel="y")
        ax.plot([0, 1], [0, 1], label="a line")
        ax.legend()
        headline = harness.Check("a number", value, 0.001, 1.0)
        control = harness.Check("a control", 3.0, 0.001, 1.0, expected="differs")
        return harness.Outcome(
            "theory", "measured", [headline, control], ["A finding."], [("Caption", figure)],
            settings={"seed": 1}, data={"bad": float("nan")},
        )  # fmt: skip

    module.validate = validate
    return module


@pytest.fixture
def two_rows(harness, monkeypatch):
    for name, value in (("t90", 1.0), ("t91", 1.5)):
        monkeypatch.setitem(sys.modules, name, fake(harness, name, value))
    monkeypatch.setattr(harness, "modules", lambda: {"T90": "t90", "T91": "t91"})


class Page(html.parser.HTMLParser):
    """Open elements and ids of a page."""

    VOID = frozenset(("meta", "link", "br", "path", "use", "rect", "line"))

    def __init__(self):
        super().__init__()
        self.open, self.ids, self.urls, self.text = [], [], [], ""

    def handle_starttag(self, tag, attributes):
        given = dict(attributes)
        self.ids += [given["id"]] if "id" in given else []
        self.urls += [given[k] for k in ("src", "href", "xlink:href") if k in given]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.ids += [dict(attributes)["id"]] if "id" in dict(attributes) else []

    def handle_endtag(self, tag):
        if tag not in self.VOID:
            assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


def test_run_all_writes_records_and_a_self_contained_report(two_rows, tmp_path, capsys):
    run_all = importlib.import_module("run_all")
    assert run_all.main(["--only", "T90", "--output", str(tmp_path)]) == 0
    assert run_all.main(["--output", str(tmp_path)]) == 1  # T91 contradicts
    record = json.loads((tmp_path / "T91.json").read_text(encoding="utf-8"))
    assert {"claim", "prediction", "value", "stderr", "z", "verdict"} <= set(record)
    assert (record["value"], record["prediction"], record["verdict"]) == (1.5, 1.0, "differs")
    assert record["z"] == pytest.approx(500) and not record["holds"]
    assert record["data"]["bad"] is None
    assert (tmp_path / "T91-1.png").stat().st_size > 2_000
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    page = Page()
    page.feed(text)
    assert not page.open
    assert len(page.ids) == len(set(page.ids)) and {"T90", "T91"} <= set(page.ids)
    assert all(url.startswith(("#", "data:")) for url in page.urls)
    assert not re.search(r"(src|href)=.http|@import|<script", text)
    assert "<b>&</b>" not in text and "A claim &lt;b&gt;" in text
    assert "Contradicts the theory: T91" in page.text and "as it must" in page.text
    assert "currentColor" in text and "#222222" not in text
    shown = capsys.readouterr().out
    assert "contradicts the theory" in shown and "Report:" in shown


def test_a_row_that_fails_is_reported_and_the_others_go_on(two_rows, tmp_path, capsys):
    run_all = importlib.import_module("run_all")

    def broken(scale, progress):
        raise RuntimeError("no luck")

    sys.modules["t90"].validate = broken
    assert run_all.main(["--output", str(tmp_path)]) == 1
    record = json.loads((tmp_path / "T90.json").read_text(encoding="utf-8"))
    assert record["verdict"] == "error" and "no luck" in record["findings"][0]
    assert json.loads((tmp_path / "T91.json").read_text(encoding="utf-8"))["verdict"] == "differs"
    assert "no luck" in (tmp_path / "report.html").read_text(encoding="utf-8")


def test_a_row_without_its_data_is_skipped_and_its_record_stays(
    two_rows, harness, tmp_path, capsys
):
    run_all = importlib.import_module("run_all")
    measured = sys.modules["t90"].validate

    def without(scale, progress):
        raise harness.lv.errors.UnavailableError("MNIST was not found in [nowhere]")

    for name in ("t90", "t91"):
        sys.modules[name].validate = without
    assert run_all.main(["--only", "T90", "--output", str(tmp_path)]) == 0
    record = json.loads((tmp_path / "T90.json").read_text(encoding="utf-8"))
    assert record["verdict"] == "skipped" and "[nowhere]" in record["findings"][0]
    assert "MNIST was not found in [nowhere]" in capsys.readouterr().out
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "1 skipped" in text and "[nowhere]" in text
    sys.modules["t90"].validate = measured
    run_all.main(["--only", "T90", "--output", str(tmp_path)])
    sys.modules["t90"].validate = without
    run_all.main(["--only", "T90", "--output", str(tmp_path)])
    record = json.loads((tmp_path / "T90.json").read_text(encoding="utf-8"))
    assert record["verdict"] == "agrees"


def test_long_runs_leave_checkpoints_where_they_are_told_to(two_rows, harness, tmp_path):
    run_all = importlib.import_module("run_all")
    seen = []

    def validate(scale, progress):
        seen.append(harness.checkpoint("a"))
        raise RuntimeError

    sys.modules["t90"].validate = validate
    common = ["--only", "T90", "--output", str(tmp_path)]
    for more in ([], ["--work", "w"], ["--work", "w", "--repetition", "1"]):
        run_all.main([*common, *more])
    assert seen == [None, Path("w/0-a"), Path("w/2000000-a")]


def test_what_is_kept_is_computed_once_for_the_same_settings(harness, tmp_path, monkeypatch):
    networks, calls = importlib.import_module("networks"), []

    def compute():
        calls.append(1)
        return {"a": [1.5, len(calls)]}

    monkeypatch.setattr(harness, "_work", None)
    assert list(networks.kept("x", 1, compute)["a"]) == [1.5, 1]
    assert not list(tmp_path.iterdir())
    monkeypatch.setattr(harness, "_work", tmp_path)
    for settings, last in ((1, 2), (1, 2), ({"n": 3}, 3), ({"n": 3}, 3)):
        assert list(networks.kept("x-0.25-1", settings, compute)["a"]) == [1.5, last]
    assert list(networks.kept("x-0.5-1", {"n": 3}, compute)["a"]) == [1.5, 4]  # another name
    assert [p.suffix for p in tmp_path.iterdir()] == [".npz", ".npz"]


def test_an_unknown_row_is_refused(capsys):
    run_all = importlib.import_module("run_all")
    with pytest.raises(SystemExit) as stopped:
        run_all.main(["--only", "T1,Z9"])
    assert stopped.value.code == 2
    shown = capsys.readouterr().err
    assert "Z9" in shown and "T1,T2,T3" in shown


def test_rows_can_be_left_out(capsys):
    run_all = importlib.import_module("run_all")
    every = run_all.parse([]).rows
    assert run_all.parse(["--skip", "T2,s8"]).rows == [r for r in every if r not in ("T2", "S8")]
    assert run_all.parse(["--only", "T1,T2", "--skip", "T2"]).rows == ["T1"]
    for given in (["--skip", "Z9"], ["--only", "T1", "--skip", "T1"]):
        with pytest.raises(SystemExit):
            run_all.parse(given)
    said = capsys.readouterr().err
    assert "--skip Z9: there is no such row" in said and "no row is left" in said


def test_the_equation_of_appendix_e(harness):
    """The law solves the equation with derivatives by v, not the one as printed."""
    corrected, printed = importlib.import_module("t5_momentum").residuals()
    assert corrected < 1e-12 and printed > 0.1

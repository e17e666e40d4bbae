"""Runs the validations: ``python validations/run_all.py [--only T1,T2] [--scale quick|full]``.

Writes a JSON and figures for each row, and one self-contained report.html, to the output folder
(default: validations/results/SCALE). Exits with 1 if any verdict contradicts the theory. Rows on
MNIST need its files in the folder that LANGEVIN_DATA names, and are skipped without.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import harness
import report
from rich import box
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

MARKS = {"agrees": "green", "differs": "red", "undecided": "yellow", "error": "bold red"}
MARKS["skipped"] = "dim"


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command line; an unknown row is refused with the list of those there are."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--only", default="", help="rows, such as T1,T2")
    parser.add_argument("--skip", default="", help="rows to leave out, such as S2,S3")
    parser.add_argument("--scale", choices=harness.SCALES, default="quick")
    parser.add_argument("--repetition", type=int, default=0, help="other seeds: 1, 2, ...")
    parser.add_argument("--output", type=Path, default=None)
    parser.add_argument(
        "--work", type=Path, default=None,
        help="folder of checkpoints: the same command goes on where it was stopped",
    )  # fmt: skip
    given = parser.parse_args(arguments)
    have = list(harness.modules())
    wanted, left = (
        [row.strip().upper() for row in text.split(",") if row.strip()]
        for text in (given.only, given.skip)
    )
    for option, rows in (("--only", wanted), ("--skip", left)):
        unknown = [row for row in rows if row not in have]
        if unknown:
            parser.error(
                f"{option} {','.join(unknown)}: there is no such row. Choose from {','.join(have)}."
            )
    given.rows = [row for row in have if row in (wanted or have) and row not in left]
    if not given.rows:
        parser.error("no row is left: --skip takes out all that --only names.")
    name = f"{given.scale}-{given.repetition}" if given.repetition else given.scale
    given.output = given.output or harness.HERE / "results" / name
    return given


def main(arguments: list[str] | None = None) -> int:
    """Runs the rows asked for; the exit status."""
    given = parse(arguments)
    console = Console() if sys.stdout.isatty() else Console(width=120)
    began = time.perf_counter()
    records = []
    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("[dim]{task.fields[now]}"),
    )
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("validations", total=len(given.rows), now="")
        for row in given.rows:

            def show(text: str, row: str = row) -> None:
                progress.update(task, now=f"{row}: {text}")

            show("starting")
            record = harness.run(row, given.scale, given.output, show, given.repetition, given.work)
            records.append(record)
            mark = MARKS[record["verdict"]]
            console.print(f"{row:<4} [{mark}]{record['verdict']:<9}[/] {record['seconds']:6.1f} s")
            if record["verdict"] == "skipped":
                console.print(f"     {record['findings'][0]}", style="dim", markup=False)
            progress.advance(task)
    console.print(table(records))
    path = report.build(given.output)
    console.print(f"{time.perf_counter() - began:.0f} s. Report: {path}")
    return 0 if all(record["holds"] for record in records) else 1


def table(records: list[dict]) -> Table:
    """Row, claim, measured, predicted, z, verdict."""
    made = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    made.add_column("row", no_wrap=True)
    made.add_column("claim")
    for name in ("measured", "predicted", "z"):
        made.add_column(name, justify="right", no_wrap=True)
    made.add_column("verdict", no_wrap=True)
    for r in records:
        numbers = ["", "", ""]
        if r["checks"]:
            numbers = [
                f"{r['value']:.5g} ± {r['stderr']:.2g}",
                f"{r['prediction']:.5g}",
                f"{r['z']:.2f}",
            ]
        mark = MARKS[r["verdict"]]
        wrong = "" if r["holds"] else " [bold red](contradicts the theory)[/]"
        made.add_row(r["row"], r["claim"], *numbers, f"[{mark}]{r['verdict']}[/]{wrong}")
    return made


if __name__ == "__main__":
    sys.exit(main())

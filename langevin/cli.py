"""The ``langevin`` command."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from langevin.errors import LangevinError

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Where SGD ends up: ensembles of SGD and Langevin dynamics beside theory.",
)


@app.command()
def demo(
    output: Annotated[Path, typer.Option(help="Folder for figures and results.json.")] = Path(
        "langevin-demo"
    ),
    quick: Annotated[bool, typer.Option(help="Less work, larger error bars.")] = False,
    seed: Annotated[int, typer.Option(help="Seed of the random numbers.")] = 2017,
) -> None:
    """Measures p_A/p_B and mini-batch covariances beside every prediction (about a minute)."""
    from langevin import demo as demonstration

    demonstration.run(output, quick=quick, seed=seed, console=Console())


@app.command()
def info() -> None:
    """Shows the CPU, threads, SIMD width, GPU and versions that a run here would use."""
    from langevin.information import gather

    table = Table(show_header=False, box=None, pad_edge=False)
    for key, value in gather().items():
        table.add_row(f"[bold]{key}[/bold]", value)
    Console().print(table)


def main() -> None:
    """The console script: refusals are printed without a traceback."""
    try:
        app()
    except LangevinError as error:
        Console(stderr=True).print(f"langevin: {error}", style="red", markup=False, highlight=False)
        sys.exit(2)

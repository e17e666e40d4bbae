"""The ``langevin`` command."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

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
def run(
    file: Annotated[Path, typer.Argument(help="The experiment, a TOML file; see examples/.")],
    output: Annotated[
        Path | None, typer.Option(help="Folder for the results, instead of the file's.")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check the file and show what it means; run nothing.")
    ] = False,
    quick: Annotated[
        bool, typer.Option("--quick", help="A trial: a hundredth of the work, larger error bars.")
    ] = False,
    scale: Annotated[
        float | None, typer.Option(help="A trial of so many times the work, for example 0.1.")
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace the results of a file that said otherwise.")
    ] = False,
) -> None:
    """Runs the experiment in a file; run again, it goes on where it ended."""
    from langevin import experiment

    size = scale if scale is not None else experiment.QUICK if quick else 1.0
    record = experiment.run(
        file, output=output, dry_run=dry_run, scale=size, overwrite=overwrite, console=Console()
    )
    if record.get("interrupted"):
        raise typer.Exit(130)


@app.command()
def tune(
    model: Annotated[
        str | None,
        typer.Argument(
            help="FILE.py:FUNCTION or MODULE:FUNCTION that returns (module, (X, y)) or (module, "
            "(X, y), (X_test, y_test)); without it, a small network on scikit-learn's digits."
        ),
    ] = None,
    learning_rate: Annotated[float, typer.Option(help="Of a baseline that works.")] = 0.1,
    batch_size: Annotated[int, typer.Option(help="Of the baseline.")] = 32,
    momentum: Annotated[float, typer.Option(help="Of the baseline, as PyTorch's.")] = 0.9,
    steps: Annotated[int, typer.Option(help="Of the baseline.")] = 400,
    replicas: Annotated[int, typer.Option(help="Networks trained side by side.")] = 4,
    loss: Annotated[str, typer.Option(help="cross_entropy, squared, mse or output.")] = (
        "cross_entropy"
    ),
    l2: Annotated[float, typer.Option(help="Penalty l2/2 |theta|^2 of the mean loss.")] = 0.0,
    verify: Annotated[bool, typer.Option("--verify", help="Train every triple, too.")] = False,
    seed: Annotated[int, typer.Option(help="Seed of the random numbers.")] = 0,
    output: Annotated[Path | None, typer.Option(help="Also write the plan here, as JSON.")] = None,
) -> None:
    """Measures a model's noise scale and plans larger batches at equal noise."""
    from langevin.neural import tuning

    options = {"learning_rate": learning_rate, "batch_size": batch_size, "momentum": momentum}
    options |= {"n_steps": steps, "n_replicas": replicas, "loss": loss, "l2": l2}
    plan = tuning.tune(model, **options, verify=verify, seed=seed)
    Console().print(plan)
    if output is not None:
        tuning.write(plan, output)


@app.command()
def info() -> None:
    """Shows the CPU, threads, SIMD width, GPU and versions that a run here would use."""
    from langevin.information import gather

    table = Table(show_header=False, box=None, pad_edge=False)
    for key, value in gather().items():
        table.add_row(f"[bold]{key}[/bold]", Text(value))  # langevin[cuda] is no markup
    Console().print(table)


def main() -> None:
    """The console script: refusals are printed without a traceback."""
    try:
        app()
    except LangevinError as error:
        Console(stderr=True).print(f"langevin: {error}", style="red", markup=False, highlight=False)
        sys.exit(2)

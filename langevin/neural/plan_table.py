"""A LargeBatchPlan as people read it."""

from __future__ import annotations

import math
from typing import Any

from rich.console import Group
from rich.table import Table
from rich.text import Text


def shown(plan: Any) -> Group:
    """Tables of what was measured and of the triples, and the recommendation in words."""
    measured = Table(title="Measured along the baseline", title_justify="left")
    for name in ("step", "B_simple", "B_noise", "top eigenvalue"):
        measured.add_column(name)
    for each in plan.snapshots:
        row = (str(each.step), _size(each.noise.simple), _size(each.noise.full))
        measured.add_row(*row, f"{each.curvature.value:.3g} +- {each.curvature.stderr:.1g}")
    triples = Table(
        title=f"Equal noise: eta N/(B (1 - m)) = {plan.noise_scale:.4g}, equal epochs",
        title_justify="left",
    )
    tried = any(t.accuracy is not None for t in plan.triples)
    columns = ["scaled", "eta", "B", "m", "steps", "examples", "holds"]
    for name in [*columns, *(["accuracy"] if tried else [])]:
        triples.add_column(name, justify="left" if name in ("scaled", "holds") else "right")
    styles = {"yes": "green", "unsure": "yellow", "no": "red"}
    for t in plan.triples:
        cost = "?" if math.isnan(t.examples) else f"x{t.examples:.2f}"
        row = [t.how, f"{t.learning_rate:.4g}", str(t.batch_size), f"{t.momentum:.4g}"]
        row += [str(t.n_steps), cost, f"[{styles[t.holds]}]{t.holds}[/]"]
        triples.add_row(*row, *([_accuracy(t.accuracy)] if tried else []))
    cause, size = plan.break_at
    best = plan.recommended
    where = "test" if plan.tested else "training"
    words = [
        f"Baseline: {where} accuracy {_accuracy(plan.accuracy)}, loss {plan.loss.value:.4g}.",
        f"Critical batch size (mid-run): {_size(plan.critical)} examples; beyond it a larger batch "
        "saves few steps.",
        f"The curve of scaled learning rates is predicted to break at B = {_size(size)}, by "
        f"{cause}.",
        f"Recommended: eta = {best.learning_rate:.4g}, B = {best.batch_size}, "
        f"m = {best.momentum:.4g}, {best.n_steps} steps.",
        *plan.warnings,
    ]
    return Group(measured, triples, Text("\n".join(words)))


def _size(interval: Any) -> str:
    if interval.resolved:
        return f"{interval.value:.3g} ({interval.low:.3g} to {interval.high:.3g})"
    return f"cannot tell, above {interval.low:.3g}" if interval.low > 0 else "cannot tell"


def _accuracy(estimate: Any) -> str:
    if math.isnan(estimate.value):
        return "diverged"
    return f"{estimate.value:.4f} +- {estimate.stderr:.4f}"

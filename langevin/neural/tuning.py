"""``langevin tune``: a user's model from a file, its plan, and the plan as JSON."""

from __future__ import annotations

import importlib
import importlib.util
import json
import math
import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

from langevin.dynamics import SGD
from langevin.errors import ParameterError, StorageError
from langevin.neural import data, models
from langevin.neural.plan import LargeBatchPlan, large_batch_plan
from langevin.neural.surface import NeuralSurface


def tune(
    model: str | None,
    *,
    learning_rate: float,
    batch_size: int,
    momentum: float,
    n_steps: int,
    n_replicas: int,
    loss: str = "cross_entropy",
    l2: float = 0.0,
    verify: bool = False,
    seed: int = 0,
) -> LargeBatchPlan:
    """The plan of the model that ``model`` names, or of a small network on the digits."""
    module, train, test = digits() if model is None else load(model)
    surface = NeuralSurface(module, train, loss=loss, l2=l2)
    sgd = SGD(learning_rate, batch_size, momentum=momentum)
    return large_batch_plan(
        surface, sgd, test=test, n_steps=n_steps, n_replicas=n_replicas, verify=verify, seed=seed
    )


def digits() -> tuple[Any, Any, Any]:
    """64-32-10 with ReLU on scikit-learn's digits."""
    return models.smith_le(32, n_in=64), data.digits(), data.digits(train=False)


def load(model: str) -> tuple[Any, Any, Any]:
    """What the function named "FILE.py:FUNCTION" or "MODULE:FUNCTION" returns.

    Raises ParameterError naming what is missing; errors of the user's own code are left as they
    are.
    """
    where, _, name = model.rpartition(":")
    if not where or not name.isidentifier():
        raise ParameterError(
            f"tune {model!r}: give FILE.py:FUNCTION or MODULE:FUNCTION, such as train.py:model."
        )
    if where.endswith(".py"):
        if not os.path.isfile(where):
            raise ParameterError(f"tune {model!r}: there is no file {where!r}.")
        spec = importlib.util.spec_from_file_location(Path(where).stem, where)
        home = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(home)
    else:
        try:
            home = importlib.import_module(where)
        except ModuleNotFoundError as error:
            raise ParameterError(f"tune {model!r}: {error}.") from None
    function = getattr(home, name, None)
    if not callable(function):
        raise ParameterError(f"tune {model!r}: {where} has no function {name}().")
    found = function()
    if not isinstance(found, tuple) or len(found) not in (2, 3):
        raise ParameterError(
            f"tune {model!r}: {name}() must return (module, (X, y)) or (module, (X, y), (X_test, "
            f"y_test)), not {type(found).__name__}."
        )
    return (*found, None)[:3]


def write(plan: LargeBatchPlan, path: Path) -> None:
    """The plan as JSON; numbers that are not known are null."""
    cause, size = plan.break_at
    content = {
        "noise_scale": plan.noise_scale,
        "critical_batch_size": asdict(plan.critical),
        "break": {"cause": cause, **asdict(size)},
        "breaks": {name: asdict(each) for name, each in plan.breaks.items()},
        "snapshots": [
            {
                "step": s.step,
                "simple": asdict(s.noise.simple),
                "full": asdict(s.noise.full),
                "top_eigenvalue": asdict(s.curvature),
            }
            for s in plan.snapshots
        ],
        "accuracy": asdict(plan.accuracy),
        "triples": [asdict(t) for t in plan.triples],
        "recommended": asdict(plan.recommended),
        "warnings": list(plan.warnings),
    }
    try:
        Path(path).write_text(json.dumps(_known(content), indent=1) + "\n", encoding="utf-8")
    except OSError as error:
        raise StorageError(f"tune: the plan cannot be written to {path}: {error}.") from None


def _known(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _known(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_known(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value

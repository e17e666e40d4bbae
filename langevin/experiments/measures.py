"""What a run measured and what was predicted, as plain numbers under the same names."""

from __future__ import annotations

import dataclasses
import math
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np

import langevin as lv
from langevin.errors import LangevinError, UnsoundError
from langevin.experiments.fields import is_number
from langevin.experiments.schema import Point
from langevin.result import Estimate, Result

MOST = 64  # numbers that one array may add to a record
FULL_COVARIANCE = 10  # dimensions up to which every covariance is recorded, above only variances


def estimates(result: Result) -> tuple[dict[str, Estimate], dict[str, str]]:
    """Every number measured with its standard error, and why an observer has none.

    Occupation gives ``p_0, ..., p_0/p_1``, Moments ``mean[0], ..., cov[0,0], ...``; other observers
    whatever they hold with an error, as ``name.quantity``. Two observers of a kind are told apart
    by their names, ``name: p_0``.
    """
    found: dict[str, Estimate] = {}
    refused: dict[str, str] = {}
    kinds = list(result.kinds.values())
    for name, kind in result.kinds.items():
        try:
            observed = result[name]
            single = kinds.count(kind) == 1
            own = {"occupation": _occupation, "moments": _moments, "histogram": _nothing}
            for step, one in at_times(observed):
                when = "" if step is None else f" at {step}"
                if kind in own:
                    prefix = "" if single and not when else f"{name}{when}: "
                    numbers = own[kind](one)
                else:
                    prefix, numbers = f"{name}{when}.", _numbers(one)
                found.update({prefix + quantity: number for quantity, number in numbers})
        except LangevinError as error:
            refused[name] = str(error)
    return found, refused


def at_times(observed: Any) -> Iterator[tuple[int | None, Any]]:
    """(step, estimate) for an observer that was asked ``at`` certain steps; else (None, it)."""
    if hasattr(observed, "steps") and hasattr(observed, "estimates"):
        for k, step in enumerate(observed.steps):
            yield int(step), observed[k]
    else:
        yield None, observed


def _nothing(observed: Any) -> Iterator[tuple[str, Estimate]]:
    yield from ()


def _occupation(observed: Any) -> Iterator[tuple[str, Estimate]]:
    probability, stderr, dof = observed.probability, observed.stderr, observed.dof
    for k, (p, error) in enumerate(zip(probability, stderr, strict=True)):
        yield f"p_{k}", Estimate(float(p), float(error), dof)
    if len(probability) == 2:
        yield "p_0/p_1", observed.ratio(0, 1)


def _moments(observed: Any) -> Iterator[tuple[str, Estimate]]:
    dim = len(observed.mean)
    for a in range(dim):
        yield (
            f"mean[{a}]",
            Estimate(float(observed.mean[a]), float(observed.mean_stderr[a]), observed.dof),
        )
    for a, b in _pairs(dim):
        value, error = observed.covariance[a, b], observed.covariance_stderr[a, b]
        yield f"cov[{a},{b}]", Estimate(float(value), float(error), observed.dof)


def _pairs(dim: int) -> list[tuple[int, int]]:
    if dim > FULL_COVARIANCE:
        return [(a, a) for a in range(min(dim, MOST))]
    return [(a, b) for a in range(dim) for b in range(a, dim)]


def _attributes(thing: Any) -> Iterator[tuple[str, Any]]:
    """The public fields and properties of an object that can be read."""
    names = [f.name for f in dataclasses.fields(thing)] if dataclasses.is_dataclass(thing) else []
    names += [n for n in dir(type(thing)) if isinstance(getattr(type(thing), n, None), property)]
    for name in dict.fromkeys(names):
        if name.startswith("_"):
            continue
        try:
            yield name, getattr(thing, name)
        except LangevinError:
            continue


def _numbers(observed: Any) -> Iterator[tuple[str, Estimate]]:
    """Every number with an error in the estimate of an observer unknown here.

    That is: what has a ``value`` and a ``stderr``, several such in a row, and every array ``x``
    that comes with an ``x_stderr``; arrays of at most MOST numbers.
    """
    if isinstance(observed, Estimate):
        yield "value", observed
        return
    held = dict(_attributes(observed))
    for name, value in held.items():
        if f"{name}_stderr" in held:
            yield from _each(name, value, held[f"{name}_stderr"], held.get("dof"))
        elif name == "value" and "stderr" in held:
            yield from _each(name, value, held["stderr"], held.get("dof"))
        elif hasattr(value, "value") and hasattr(value, "stderr"):
            yield from _each(name, value.value, value.stderr, getattr(value, "dof", None))
        elif isinstance(value, tuple) and all(isinstance(e, Estimate) for e in value):
            for k, e in enumerate(value):
                yield getattr(e, "formula", "") or f"{name}[{k}]", e


def _each(name: str, value: Any, stderr: Any, dof: Any) -> Iterator[tuple[str, Estimate]]:
    if np.shape(value) != np.shape(stderr) or np.size(value) > MOST:
        return
    for index in np.ndindex(np.shape(value)):
        label = f"{name}[{','.join(map(str, index))}]" if index else name
        number = float(np.asarray(value)[index]), float(np.asarray(stderr)[index])
        yield label, Estimate(*number, dof if isinstance(dof, int) else 63)


def predicted(law: Any) -> dict[str, float]:
    """The numbers of a prediction, under the names that `estimates` uses."""
    found: dict[str, float] = {}
    if hasattr(law, "occupation"):
        try:
            shares = np.asarray(law.occupation(), dtype=float)
            found.update({f"p_{k}": float(p) for k, p in enumerate(shares)})
            if len(shares) == 2:
                found["p_0/p_1"] = float(law.ratio(0, 1))
        except UnsoundError:
            pass
    if hasattr(law, "moments"):
        try:
            mean, covariance = law.moments()
            found.update({f"mean[{a}]": float(v) for a, v in enumerate(mean)})
            for a, b in _pairs(len(mean)):
                found[f"cov[{a},{b}]"] = float(np.asarray(covariance)[a, b])
        except UnsoundError:
            pass
    if hasattr(law, "mean_passage_time"):
        found["first_passage.mean"] = float(law.mean_passage_time)
    for name, value in _attributes(law):
        if (is_number(value) or isinstance(value, np.floating)) and math.isfinite(value):
            found[name] = float(value)
    return found


def laws(point: Point) -> tuple[dict[str, Any], dict[str, str]]:
    """The predictions of a point by label, and those that refuse to be made, with the reason.

    Raises ExperimentError for one whose fields are wrong.
    """
    from langevin.experiments.fields import located

    made, refused = {}, {}
    for prediction in point.predictions:
        try:
            made[prediction.label] = prediction.function(
                point.surface, point.dynamics, **prediction.arguments
            )
        except UnsoundError as error:
            refused[prediction.label] = str(error)
        except (LangevinError, TypeError, ValueError, ArithmeticError) as error:
            path = ("predict", prediction.index)
            raise located(point.document, path, error, prediction.arguments) from error
    return made, refused


def comparisons(point: Point, result: Result, made: dict[str, Any]) -> tuple[dict, dict[str, str]]:
    """Each prediction compared with the result, as a plain record, or why it is not."""
    found, refused = {}, {}
    for prediction in point.predictions:
        law = made.get(prediction.label)
        if law is None or not prediction.compare:
            continue
        if not (hasattr(law, "moments") or hasattr(law, "mean_passage_time")):
            continue
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                found[prediction.label] = _record(lv.compare(result, law, **prediction.options))
        except LangevinError as error:
            refused[prediction.label] = str(error)
    return found, refused


def _record(comparison: Any) -> dict[str, Any]:
    return {
        "verdict": comparison.verdict,
        "z": comparison.z,
        "p_value": comparison.p_value,
        "statement": comparison.statement,
        "within": comparison.within,
        "detectable": comparison.detectable,
        "worst": comparison.worst.quantity,
        "resolution": comparison.resolution,
        "total_variation": comparison.total_variation,
        "total_variation_noise": comparison.total_variation_noise,
        "distances": [dataclasses.asdict(distance) for distance in comparison.distances],
        "rows": [dataclasses.asdict(row) for row in comparison.rows],
        "notes": list(comparison.notes),
    }

"""Observers: what a run measures while it runs, streamed out of the kernel; a file each."""

from langevin.errors import FormulaError, ParameterError
from langevin.observers.autocorrelation import Autocorrelation, BoundAutocorrelation
from langevin.observers.average import Average, BoundAverage
from langevin.observers.common import Bound, Run
from langevin.observers.histogram import BoundHistogram, Histogram
from langevin.observers.moments import BoundMoments, Moments
from langevin.observers.occupation import BoundOccupation, Occupation
from langevin.observers.passage import BoundFirstPassage, FirstPassage
from langevin.observers.temperature import BoundTemperature, Temperature
from langevin.observers.trajectory import BoundTrajectory, Trajectory
from langevin.observers.transitions import BoundTransitions, Transitions

__all__ = [
    "Autocorrelation",
    "Average",
    "Bound",
    "FirstPassage",
    "Histogram",
    "Moments",
    "Occupation",
    "Run",
    "Temperature",
    "Trajectory",
    "Transitions",
    "bind",
]

_KINDS = {
    Autocorrelation: BoundAutocorrelation,
    Average: BoundAverage,
    FirstPassage: BoundFirstPassage,
    Histogram: BoundHistogram,
    Moments: BoundMoments,
    Occupation: BoundOccupation,
    Temperature: BoundTemperature,
    Trajectory: BoundTrajectory,
    Transitions: BoundTransitions,
}


def bind(observer, run: Run) -> Bound:
    """The observer with its memory, ready to ride in a kernel; a text is an Average."""
    if isinstance(observer, str):
        try:
            return BoundAverage(Average(observer, name=observer), run)
        except FormulaError as error:
            raise ParameterError(
                f"observe={observer!r}: text is read as a formula to average, and {error} Give a "
                "formula such as 'x**2', or an observer such as langevin.Histogram()."
            ) from None
    if type(observer) not in _KINDS:
        raise ParameterError(
            f"observe={observer!r}: an observer is needed, such as langevin.Histogram(bins=200), "
            "langevin.Occupation() or langevin.Moments() (an instance, not the class), or a "
            "formula in text, such as 'x**2'."
        )
    return _KINDS[type(observer)](observer, run)

"""Every refusal langevin makes, so that one ``except`` catches them all."""


class LangevinError(Exception):
    """A request langevin refuses: the message says what was given, what is needed, what to do."""


class FormulaError(LangevinError, ValueError):
    """A formula that is malformed, unsafe or outside the whitelist."""


class ParameterError(LangevinError, ValueError):
    """An argument outside its allowed range, of the wrong shape, or missing."""


class UnsoundError(LangevinError, ValueError):
    """A computation whose answer would be wrong science: no stationary law, no crossing, no fit."""


class ExperimentError(LangevinError, ValueError):
    """An experiment file that cannot be run: the message names the file, the line and the field."""


class DivergenceError(LangevinError, ArithmeticError):
    """Replicas escaped to infinity during a run; ``result`` holds all that was computed."""

    def __init__(self, message: str, result=None):
        super().__init__(message)
        self.result = result


class StorageError(LangevinError, ValueError):
    """A saved run that cannot be written, or read: not a run, corrupt, or of a newer version."""


class CheckpointError(LangevinError, RuntimeError):
    """A checkpoint that is of another run, corrupt, in use, or could not be written.

    Where a run was under way, ``result`` holds all that it computed.
    """

    def __init__(self, message: str, result=None):
        super().__init__(message)
        self.result = result


class UnavailableError(LangevinError, RuntimeError):
    """A device, an optional package or a file that this machine lacks."""


class OutOfMemoryError(LangevinError, MemoryError):
    """A run that needs more memory than there is, even one replica at a time."""


class DataError(LangevinError, ValueError):
    """A data file that is empty, truncated, corrupt, or not what its name says."""


class IncompleteDataWarning(UserWarning):
    """A data set of which only a part is there."""


class MemoryWarning(UserWarning):
    """Memory that ran out, so that a run goes on with fewer replicas at once."""


class ConvergenceWarning(UserWarning):
    """A result that is returned but whose convergence is doubtful."""


class StabilityWarning(UserWarning):
    """A step that is unstable at some, not all, of the minima."""

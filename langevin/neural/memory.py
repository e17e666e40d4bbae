"""What to do when memory runs out: fewer replicas at once, and at one replica an error in words."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from langevin.errors import MemoryWarning, OutOfMemoryError

SIGNS = ("not enough memory", "DefaultCPUAllocator", "out of memory", "CUBLAS_STATUS_ALLOC_FAILED")


def out_of_memory(error: BaseException) -> bool:
    """Whether an error of NumPy or torch says that memory ran out."""
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    return isinstance(error, RuntimeError) and any(sign in str(error) for sign in SIGNS)


class Chunks:
    """Replicas that are computed together; those that memory does not hold are cut in two.

    ``task`` says in words what one replica needs.
    """

    def __init__(self, chunks: list[np.ndarray], task: str):
        self.chunks, self.task = chunks, task
        self.lock = threading.Lock()
        self.said, self.told = "", False

    def __iter__(self):
        return iter(list(self.chunks))

    def __len__(self) -> int:
        return len(self.chunks)

    def work(self, number: int, function: Callable[[int, np.ndarray], Any]) -> None:
        """``function(number, chunk)``, or the same for each half where that runs out of memory.

        What was begun for a chunk is done again for its halves. Raises OutOfMemoryError at one
        replica.
        """
        chunk = self.chunks[number]
        try:
            function(number, chunk)
            return
        except Exception as error:
            if not out_of_memory(error):
                raise
            said = (str(error).strip().splitlines() or [type(error).__name__])[0]
            if len(chunk) == 1:
                raise OutOfMemoryError(
                    f"{self.task} needs more memory than there is ({said}). Use a smaller "
                    "batch_size, dtype='float32', or fewer examples, or a machine with more."
                ) from error
        # Here the error is gone, and with it what its frames held.
        if torch.cuda.is_initialized():
            torch.cuda.empty_cache()
        with self.lock:
            first, second = np.array_split(chunk, 2)
            self.chunks[number] = first
            self.chunks.append(second)
            other, self.said = len(self.chunks) - 1, said
        self.work(number, function)
        self.work(other, function)

    def tell(self) -> None:
        """Warns, once, that memory ran out."""
        if self.said and not self.told:
            self.told = True
            most = max(len(chunk) for chunk in self.chunks)
            warnings.warn(
                f"memory ran out ({self.said}): from now on at most {most} replicas are computed "
                "together, which changes no number but rounding. A smaller batch_size or "
                "dtype='float32' needs less.",
                MemoryWarning,
                stacklevel=5,
            )

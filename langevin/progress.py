"""What a person at the terminal sees and does while a run lasts: a bar, and Ctrl-C."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def interruptible() -> Iterator:
    """Turns the first Ctrl-C into a flag: no replica is left half way. The second raises."""
    pressed: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield lambda: bool(pressed)
        return
    before = signal.getsignal(signal.SIGINT)
    if before is not signal.default_int_handler:  # somebody else handles it
        yield lambda: bool(pressed)
        return

    def handle(number, frame):
        if pressed:
            raise KeyboardInterrupt
        pressed.append(number)

    signal.signal(signal.SIGINT, handle)
    try:
        yield lambda: bool(pressed)
    finally:
        signal.signal(signal.SIGINT, before)


@contextmanager
def progress_bar(wanted: bool, n_replicas: int, n_steps: int) -> Iterator:
    """A function (steps, text) that draws a bar with the rate and the time left."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    if not (wanted and console.is_terminal):
        yield lambda done, text: None
        return
    began, first = time.perf_counter(), -1
    columns = (
        "{task.description}",
        BarColumn(),
        "{task.percentage:>3.0f}%",
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task("compiling", total=n_steps, rate="")

        def show(done: int, text: str) -> None:
            nonlocal began, first
            if first in (-1, done):  # a resumed run does not begin at 0
                began, first = time.perf_counter(), done
            rate = n_replicas * (done - first) / max(time.perf_counter() - began, 1e-9)
            shown = f"{rate:.2e} replica-steps/s" if done > first else ""
            bar.update(task, completed=done, description=text, rate=shown)

        yield show

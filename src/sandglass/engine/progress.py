"""What a person sees while a model trains: a bar in a terminal or notebook, nothing in a pipe."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from types import TracebackType
from typing import Protocol


class Progress(Protocol):
    """What the loop tells about its progress."""

    def start(self, step: int, total: int, steps_per_epoch: int) -> None:
        """Training begins, or goes on, at ``step`` of ``total``."""

    def advance(self, step: int, examples: int) -> None:
        """A step over so many examples is done."""

    def show(self, split: str, terms: Mapping[str, float]) -> None:
        """Means of the terms since the last time."""

    def say(self, text: str) -> None:
        """Something a person should know."""

    def stop(self) -> None:
        """Training ended."""


class Silent:
    """Shows nothing but warnings, which go to standard error."""

    def start(self, step: int, total: int, steps_per_epoch: int) -> None:
        """Nothing."""

    def advance(self, step: int, examples: int) -> None:
        """Nothing."""

    def show(self, split: str, terms: Mapping[str, float]) -> None:
        """Nothing."""

    def say(self, text: str) -> None:
        """Prints the line."""
        print(text, file=sys.stderr)

    def stop(self) -> None:
        """Nothing."""


class Bar:
    """A bar with the epoch, the terms, examples a second and the time left (rich; terminals and notebooks)."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

        self.bar = Progress(
            TextColumn("epoch {task.fields[epoch]}"),
            BarColumn(bar_width=24),
            TextColumn("{task.percentage:>3.0f}%"),
            TextColumn("{task.fields[rate]}"),
            TextColumn("ETA"),
            TimeRemainingColumn(compact=True),
            TextColumn("{task.fields[terms]}"),
            console=Console(stderr=True),
            refresh_per_second=5,
        )
        self.terms: dict[str, str] = {}
        self.examples, self.begun = 0, 0.0

    def start(self, step: int, total: int, steps_per_epoch: int) -> None:
        """Shows the bar."""
        self.steps_per_epoch, self.epochs = steps_per_epoch, -(-total // steps_per_epoch)
        self.begun = time.perf_counter()
        self.task = self.bar.add_task("", total=total, completed=step, epoch=self._epoch(step), rate="", terms="")
        self.bar.start()

    def advance(self, step: int, examples: int) -> None:
        """Moves the bar."""
        self.examples += examples
        self.bar.update(self.task, completed=step)

    def show(self, split: str, terms: Mapping[str, float]) -> None:
        """Shows the terms beside the bar."""
        self.terms[split] = " ".join(f"{k} {v:.4g}" for k, v in terms.items())
        rate = self.examples / max(time.perf_counter() - self.begun, 1e-9)
        shown = " | ".join(f"{split}: {text}" for split, text in self.terms.items() if text)
        step = int(self.bar.tasks[0].completed)
        self.bar.update(self.task, epoch=self._epoch(step), rate=f"{rate:,.0f}/s", terms=shown)

    def say(self, text: str) -> None:
        """Prints a line above the bar."""
        self.bar.console.print(text, highlight=False, markup=False)

    def stop(self) -> None:
        """Leaves the bar as it is."""
        self.bar.stop()

    def _epoch(self, step: int) -> str:
        return f"{min(step // self.steps_per_epoch + 1, self.epochs)}/{self.epochs}"


class watching:  # noqa: N801 (reads as a phrase at the place of use)
    """Stops a progress display however the block ends."""

    def __init__(self, progress: Progress) -> None:
        self.progress = progress

    def __enter__(self) -> Progress:
        return self.progress

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.progress.stop()


def default_progress() -> Progress:
    """A bar where somebody is watching: a terminal or a notebook."""
    notebook = "ipykernel" in sys.modules
    return Bar() if notebook or sys.stderr.isatty() else Silent()

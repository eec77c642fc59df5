"""Progress of training: a bar in a terminal, a line in a notebook, nothing in a pipe."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from types import TracebackType
from typing import Protocol

_WIDE = 130  # columns that all terms of two splits need


class Progress(Protocol):
    """Shows the progress of training; called by the loop."""

    def start(self, step: int, total: int, steps_per_epoch: int, stage: str = "") -> None:
        """A stage begins or resumes at ``step`` of ``total``; it is named if the model has several."""

    def advance(self, step: int, examples: int) -> None:
        """A step on this many examples is done."""

    def show(self, split: str, terms: Mapping[str, float]) -> None:
        """Shows the means of the terms since the last call."""

    def say(self, text: str) -> None:
        """Shows a message."""

    def stop(self) -> None:
        """Training ended."""


class Silent:
    """Shows messages only, on standard error."""

    def start(self, step: int, total: int, steps_per_epoch: int, stage: str = "") -> None:
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
    """A bar with the epoch, examples a second, the time left and the terms (rich).

    If the terminal is too narrow for every term, only the loss is shown; the log and the report have the rest.
    """

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
        from rich.table import Column

        whole = Column(no_wrap=True)
        self.bar = Progress(
            TextColumn("{task.description}{task.fields[epoch]}", table_column=whole),
            BarColumn(bar_width=16),
            TextColumn("{task.fields[rate]}", table_column=whole),
            TextColumn("ETA", table_column=whole),
            TimeRemainingColumn(compact=True, table_column=whole),
            TextColumn("{task.fields[terms]}", table_column=whole),
            console=Console(stderr=True),
            refresh_per_second=5,
        )
        self.terms: dict[str, str] = {}
        self.examples, self.begun = 0, 0.0

    def start(self, step: int, total: int, steps_per_epoch: int, stage: str = "") -> None:
        """Shows a bar of the stage."""
        self.steps_per_epoch, self.epochs = steps_per_epoch, -(-total // steps_per_epoch)
        self.begun, self.examples, self.terms = time.perf_counter(), 0, {}
        named = f"{stage}: " if stage else ""
        self.task = self.bar.add_task(
            named, total=total or None, completed=step, epoch=self._epoch(step), rate="", terms=""
        )
        self.bar.start()

    def advance(self, step: int, examples: int) -> None:
        """Moves the bar."""
        self.examples += examples
        self.bar.update(self.task, completed=step)

    def show(self, split: str, terms: Mapping[str, float]) -> None:
        """Shows the terms beside the bar."""
        first = next((t for t in ("objective", "loss") if t in terms), next(iter(terms), ""))
        wide = self.bar.console.width >= _WIDE
        chosen = [t for t in terms if t not in ("objective", "lr")] if wide and "loss" in terms else [first]
        self.terms[split] = " ".join([split, *(f"{t} {terms[t]:.4g}" for t in chosen if t in terms)])
        rate = self.examples / max(time.perf_counter() - self.begun, 1e-9)
        step = int(self.bar.tasks[-1].completed)
        shown = "  ".join(self.terms.values())
        self.bar.update(self.task, epoch=self._epoch(step), rate=f"{rate:,.0f}/s", terms=shown)

    def say(self, text: str) -> None:
        """Prints a line above the bar."""
        self.bar.console.print(text, highlight=False, markup=False)

    def stop(self) -> None:
        """Leaves the bar as it is."""
        self.bar.stop()

    def _epoch(self, step: int) -> str:
        return f"epoch {min(step // self.steps_per_epoch + 1, self.epochs)}/{self.epochs}" if self.epochs else "fit"


class watching:  # noqa: N801 (a context manager)
    """Stops the progress display when the block ends, with or without an error."""

    def __init__(self, progress: Progress) -> None:
        self.progress = progress

    def __enter__(self) -> Progress:
        return self.progress

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.progress.stop()


class Line(Silent):
    """One line that is overwritten, for notebooks; it needs no widgets."""

    def start(self, step: int, total: int, steps_per_epoch: int, stage: str = "") -> None:
        """A stage begins."""
        self.stage = f"{stage}: " if stage else ""
        self.first, self.step, self.total, self.per_epoch = step, step, total, steps_per_epoch
        self.begun, self.examples, self.width = time.perf_counter(), 0, 0
        self.terms: dict[str, str] = {}

    def advance(self, step: int, examples: int) -> None:
        """Counts."""
        self.step, self.examples = step, self.examples + examples

    def show(self, split: str, terms: Mapping[str, float]) -> None:
        """Writes the line again."""
        self.terms[split] = " ".join([split, *(f"{k} {v:.4g}" for k, v in terms.items() if k != "lr")])
        seconds = max(time.perf_counter() - self.begun, 1e-9)
        left = seconds / max(self.step - self.first, 1) * (self.total - self.step)
        epoch = min(self.step // self.per_epoch + 1, -(-self.total // self.per_epoch))
        text = (
            f"{self.stage}epoch {epoch}/{-(-self.total // self.per_epoch)}  {self.examples / seconds:,.0f}/s  "
            f"ETA {int(left) // 60:02d}:{int(left) % 60:02d}  " + "  ".join(self.terms.values())
        )
        print("\r" + text.ljust(self.width), end="", flush=True)
        self.width = len(text)

    def say(self, text: str) -> None:
        """Prints the text on a line of its own."""
        print("\n" + text)

    def stop(self) -> None:
        """Leaves the line as it is."""
        print()


def default_progress() -> Progress:
    """A line in a notebook, a bar in a terminal, nothing in a pipe."""
    if "ipykernel" in sys.modules:
        return Line()
    return Bar() if sys.stderr.isatty() else Silent()

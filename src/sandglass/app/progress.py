"""Progress for a log file: a line an epoch."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping

from sandglass.app.output import duration, say
from sandglass.engine.progress import Bar, Progress, Silent


class Terminal(Bar):
    """The bar in a terminal of any width: what is minimised is always to be seen, the rest is in the report."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, TextColumn, TimeRemainingColumn
        from rich.progress import Progress as Display
        from rich.table import Column

        super().__init__()
        whole = Column(no_wrap=True)
        self.bar = Display(
            TextColumn("epoch {task.fields[epoch]}", table_column=whole),
            BarColumn(bar_width=16),
            TextColumn("{task.fields[rate]}", table_column=whole),
            TextColumn("left", table_column=whole),
            TimeRemainingColumn(compact=True, table_column=whole),
            TextColumn("{task.fields[terms]}", table_column=whole),
            console=Console(stderr=True),
            refresh_per_second=5,
        )

    def show(self, split: str, terms: Mapping[str, float]) -> None:
        """Shows one figure a split."""
        chosen = next((t for t in ("objective", "loss") if t in terms), next(iter(terms), ""))
        super().show(split, {})
        self.terms[split] = f"{split} {terms[chosen]:.4g}" if chosen else ""
        self.bar.update(self.task, terms="  ".join(text for text in self.terms.values() if text))


class Lines(Silent):
    """Prints a line an epoch to standard error; for a pipe, where a bar would be noise."""

    def start(self, step: int, total: int, steps_per_epoch: int) -> None:
        """Training begins."""
        self.step, self.begun_at, self.total, self.per_epoch = step, step, total, steps_per_epoch
        self.begun = time.perf_counter()
        self.terms: dict[str, str] = {}
        self.printed = step // steps_per_epoch

    def advance(self, step: int, examples: int) -> None:
        """Prints the epoch that has just been left behind, now that its validation is known."""
        if self.step // self.per_epoch > self.printed:
            self.line()
        self.step = step

    def show(self, split: str, terms: Mapping[str, float]) -> None:
        """Remembers the terms."""
        self.terms[split] = " ".join(f"{k} {v:.4g}" for k, v in terms.items() if k not in ("lr", "skipped"))

    def stop(self) -> None:
        """Prints the last epoch."""
        if hasattr(self, "step") and self.step // self.per_epoch > self.printed:
            self.line()

    def line(self) -> None:
        """Where training stands."""
        self.printed = self.step // self.per_epoch
        done = self.step - self.begun_at
        left = (time.perf_counter() - self.begun) / max(done, 1) * (self.total - self.step)
        shown = " | ".join(f"{split}: {text}" for split, text in self.terms.items())
        say(f"epoch {self.printed}/{self.total // self.per_epoch}  {shown}  ({duration(left)} left)")


def progress() -> Progress:
    """A bar where somebody is watching, lines elsewhere."""
    return Terminal() if sys.stderr.isatty() else Lines()

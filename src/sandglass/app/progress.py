"""Progress for a log file: a line an epoch."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping

from sandglass.app.output import duration, say
from sandglass.engine.progress import Bar, Progress, Silent


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
    return Bar() if sys.stderr.isatty() else Lines()

"""Progress of training: a bar in a terminal, one line in a notebook, a line now and then in a pipe."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from rich.progress import Task, TaskID

_WIDE = 130  # columns that all terms of two splits need
_SECONDS = 30.0  # between two lines in a pipe
_TWENTIETH = 10.0  # fewest seconds before the line of a twentieth


class Progress(Protocol):
    """Shows the progress of training; called by the loop."""

    def start(self, step: int, total: int, steps_per_epoch: int, stage: str = "", seconds: float | None = None) -> None:
        """A stage begins or resumes at ``step`` of ``total``; it is named if the model has several.

        Where it has to end at a given time, that is in so many seconds.
        """

    def advance(self, step: int, examples: int) -> None:
        """A step on this many examples is done."""

    def show(self, split: str, terms: Mapping[str, float]) -> None:
        """Shows the means of the terms since the last call."""

    def drawn(self, path: Path) -> None:
        """A sheet of pictures was written."""

    def say(self, text: str) -> None:
        """Shows a message."""

    def stop(self) -> None:
        """Training ended."""


def merged(phases: Mapping[str, Mapping[str, float]], objective: str | None) -> dict[str, float]:
    """The terms of all phases by name; where phases have the same name, that of the phase that a person follows.

    It is the one whose loss chooses the best weights, else the one that reconstructs, else the last, of a GAN the
    generator.

    Example:
        >>> merged({"elbo": {"loss": 90.0, "distortion": 80.0}, "critic": {"loss": 1.4}}, None)
        {'loss': 90.0, 'distortion': 80.0}
        >>> merged({"critic": {"loss": 1.4}, "generator": {"loss": 0.7}}, None)
        {'loss': 0.7}
    """
    followed = objective or next((name for name, terms in phases.items() if "distortion" in terms), None)
    ordered = sorted(phases, key=lambda name: name == followed)
    return {term: value for name in ordered for term, value in phases[name].items()}


class Silent:
    """Shows messages only, on standard error."""

    def start(self, step: int, total: int, steps_per_epoch: int, stage: str = "", seconds: float | None = None) -> None:
        """Nothing."""

    def advance(self, step: int, examples: int) -> None:
        """Nothing."""

    def show(self, split: str, terms: Mapping[str, float]) -> None:
        """Nothing."""

    def drawn(self, path: Path) -> None:
        """Nothing."""

    def say(self, text: str) -> None:
        """Prints the line."""
        print(text, file=sys.stderr)

    def stop(self) -> None:
        """Nothing."""


class Mute(Silent):
    """Shows nothing at all."""

    def say(self, text: str) -> None:
        """Nothing."""


class Left:
    """The time left of a stage, by its speed so far; at most until it has to end.

    Args:
        step: where it begins.
        total: its last step.
        seconds: until it has to end, if it has to.
        clock: tells the time.

    Example:
        >>> now = [0.0]
        >>> whole, timed = (Left(0, 100, seconds, lambda: now[0]) for seconds in (None, 120))
        >>> now[0] = 20.0
        >>> whole.text(10), timed.text(10), timed.text(100)
        ('3:00', '1:40', '0:00')
    """

    def __init__(self, step: int, total: int, seconds: float | None, clock: Callable[[], float]) -> None:
        self.clock, self.first, self.total, self.begun = clock, step, total, clock()
        self.end = None if seconds is None else self.begun + seconds

    def text(self, step: int) -> str:
        """As hours, minutes and seconds; empty before the first step, unless it has to end."""
        now, found = self.clock(), []
        if step > self.first or step >= self.total:
            found.append((now - self.begun) / max(step - self.first, 1) * max(self.total - step, 0))
        if self.end is not None:
            found.append(max(self.end - now, 0.0))
        return _clock_time(min(found)) if found else "-:--"


class Bar:
    """A bar with the epoch, examples a second, the time left and the terms (rich).

    If the terminal is too narrow for every term, only the loss is shown; the log and the report have the rest.
    """

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, ProgressColumn, TextColumn
        from rich.table import Column
        from rich.text import Text

        class Remaining(ProgressColumn):
            """The time left."""

            def render(column, task: Task) -> Text:  # noqa: N805 (self is the bar)
                return Text(self.left.text(int(task.completed)), style="progress.remaining")

        whole = Column(no_wrap=True)
        self.bar = Progress(
            TextColumn("{task.description}{task.fields[epoch]}", table_column=whole),
            BarColumn(bar_width=16),
            TextColumn("{task.fields[rate]}", table_column=whole),
            TextColumn("ETA", table_column=whole),
            Remaining(table_column=whole),
            TextColumn("{task.fields[terms]}", table_column=whole),
            console=Console(stderr=True),
            refresh_per_second=5,
        )
        self.terms: dict[str, str] = {}
        self.examples, self.begun, self.stage, self.shown = 0, 0.0, "", False
        self.left = Left(0, 0, None, time.perf_counter)
        self.task: TaskID | None = None

    def start(self, step: int, total: int, steps_per_epoch: int, stage: str = "", seconds: float | None = None) -> None:
        """Shows a bar of the stage; of the same stage again, which has become longer, no second one."""
        self.left = Left(step, total, seconds, time.perf_counter)
        self.steps_per_epoch, self.epochs = steps_per_epoch, -(-total // steps_per_epoch)
        self.begun, self.examples, self.terms = time.perf_counter(), 0, {}
        if self.task is not None and stage == self.stage:
            self.bar.update(self.task, total=total or None, completed=step, epoch=self._epoch(step))
            return
        self.stage, named = stage, f"{stage}: " if stage else ""
        self.task = self.bar.add_task(
            named, total=total or None, completed=step, epoch=self._epoch(step), rate="", terms=""
        )
        self.bar.start()

    def advance(self, step: int, examples: int) -> None:
        """Moves the bar."""
        self.examples += examples
        assert self.task is not None
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
        assert self.task is not None
        self.bar.update(self.task, epoch=self._epoch(step), rate=f"{rate:,.0f}/s", terms=shown)

    def drawn(self, path: Path) -> None:
        """Says once where the sheets are."""
        if not self.shown:
            self.say(f"sheets of pictures: {path.parent}")
        self.shown = True

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

    def start(self, step: int, total: int, steps_per_epoch: int, stage: str = "", seconds: float | None = None) -> None:
        """A stage begins."""
        self.stage, self.left = f"{stage}: " if stage else "", Left(step, total, seconds, time.perf_counter)
        self.step, self.total, self.per_epoch = step, total, steps_per_epoch
        self.begun, self.examples, self.width = time.perf_counter(), 0, 0
        self.terms: dict[str, str] = {}

    def advance(self, step: int, examples: int) -> None:
        """Counts."""
        self.step, self.examples = step, self.examples + examples

    def show(self, split: str, terms: Mapping[str, float]) -> None:
        """Writes the line again."""
        self.terms[split] = " ".join([split, *(f"{k} {v:.4g}" for k, v in terms.items() if k != "lr")])
        seconds = max(time.perf_counter() - self.begun, 1e-9)
        epoch = min(self.step // self.per_epoch + 1, -(-self.total // self.per_epoch))
        text = (
            f"{self.stage}epoch {epoch}/{-(-self.total // self.per_epoch)}  {self.examples / seconds:,.0f}/s  "
            f"ETA {self.left.text(self.step)}  " + "  ".join(self.terms.values())
        )
        print("\r" + text.ljust(self.width), end="", flush=True)
        self.width = len(text)

    def say(self, text: str) -> None:
        """Prints the text on a line of its own."""
        print("\n" + text)

    def stop(self) -> None:
        """Leaves the line as it is."""
        print()


class Lines(Silent):
    """Plain lines on standard error, for pipes and log files: one every 30 seconds, and one at each twentieth.

    A short run prints little: before a twentieth has its line, ten seconds must have passed since the last one.

    Args:
        clock: tells the time.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.clock, self.sheet = clock, ""
        self.printed = clock()

    def start(self, step: int, total: int, steps_per_epoch: int, stage: str = "", seconds: float | None = None) -> None:
        """A stage begins."""
        self.stage, self.left = f"{stage}: " if stage else "", Left(step, total, seconds, self.clock)
        self.total, self.per_epoch = total, steps_per_epoch
        self.terms: dict[str, str] = {}

    def advance(self, step: int, examples: int) -> None:
        """Prints a line if it is time."""
        waited = self.clock() - self.printed
        twentieth = step * 20 // max(self.total, 1) > (step - 1) * 20 // max(self.total, 1)
        if waited >= _SECONDS or (twentieth and waited >= _TWENTIETH):
            self.printed = self.clock()
            print(self.line(step), file=sys.stderr, flush=True)

    def show(self, split: str, terms: Mapping[str, float]) -> None:
        """Keeps the loss or the objective for the next line."""
        first = next((t for t in ("objective", "loss") if t in terms), next(iter(terms), ""))
        if first:
            self.terms[split] = f"{split} {first} {terms[first]:.4g}"

    def drawn(self, path: Path) -> None:
        """Keeps the path for the next line."""
        self.sheet = str(path)

    def line(self, step: int) -> str:
        """Epoch, step, share, losses, time left and the newest sheet."""
        epochs = -(-self.total // self.per_epoch)
        epoch = min((step - 1) // self.per_epoch + 1, epochs)
        parts = [
            f"{self.stage}epoch {epoch}/{epochs}",
            f"step {step:,}/{self.total:,}",
            f"{step / self.total:.0%}",
            *self.terms.values(),
            f"{self.left.text(step)} left",
            *([self.sheet] if self.sheet else []),
        ]
        return "  ".join(parts)


def _clock_time(seconds: float) -> str:
    """A duration as hours, minutes and seconds.

    Example:
        >>> _clock_time(75), _clock_time(4000)
        ('1:15', '1:06:40')
    """
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def default_progress() -> Progress:
    """A line in a notebook, a bar in a terminal, lines now and then in a pipe."""
    if "ipykernel" in sys.modules:
        return Line()
    return Bar() if sys.stderr.isatty() else Lines()

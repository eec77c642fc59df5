"""Formatted output of tables and figures: rich tables in a terminal, aligned plain text otherwise."""

from __future__ import annotations

import shutil
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

from sandglass.runs.result import HEADERS, Results

if TYPE_CHECKING:
    from sandglass.core import Spec


_EVERY = 30.0  # seconds between lines of progress in a pipe
_OFTEN = 0.2  # in a terminal
_WIDE = 140  # columns of a terminal that has room for notes beside the figures
_LONG = 40  # characters of a note that is said once for several figures


def table(
    headers: Sequence[str], rows: Sequence[Sequence[str]], right: Sequence[int] = (), wrap: Sequence[int] = ()
) -> None:
    """Prints a table.

    Args:
        headers: column headers.
        rows: the cells.
        right: right-aligned columns.
        wrap: columns that may wrap in a narrow terminal.
    """
    if sys.stdout.isatty():
        from rich.console import Console
        from rich.table import Table
        from rich.text import Text

        console = Console(highlight=False)
        shown = fitting(headers, rows, wrap, console.width)
        drawn = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="bold cyan")
        for i, header in enumerate(headers[:shown]):
            drawn.add_column(header, justify="right" if i in right else "left", no_wrap=i not in wrap)
        for row in rows:
            drawn.add_row(*(Text(cell) for cell in row[:shown]))
        console.print(drawn)
        return
    widths = [max(len(line[i]) for line in (headers, *rows)) for i in range(len(headers))]
    for line in (headers, *rows):
        cells = [c.rjust(w) if i in right else c.ljust(w) for i, (c, w) in enumerate(zip(line, widths, strict=True))]
        print("  ".join(cells).rstrip())


def fitting(headers: Sequence[str], rows: Sequence[Sequence[str]], wrap: Sequence[int], width: int) -> int:
    """The number of table columns that fit into a terminal; columns that wrap need little space."""
    left = width
    for i in range(len(headers)):
        left -= 10 if i in wrap else max(len(line[i]) for line in (headers, *rows))
        if left < 0:
            return max(i, 1)
        left -= 2
    return len(headers)


def wrong(metrics: Mapping[str, Mapping[str, Any]], spec: Spec | None) -> None:
    """Prints what is wrong with a model by its figures; nothing for a good one."""
    from sandglass.metrics.verdicts import sentences

    found = sentences(metrics, spec)
    if found:
        print("\nwhat is wrong\n")
        for sentence in found:
            print(f"  {sentence}")


def metrics_table(metrics: Mapping[str, Mapping[str, Any]]) -> None:
    """Prints the metrics of ``evaluate``."""
    if not metrics:
        print("No metric applies to this model and these examples.")
        return
    rows, below = gathered(Results({"metrics": metrics}).rows())
    if sys.stdout.isatty() and shutil.get_terminal_size().columns < _WIDE:
        below = [f"{row[0]}: {row[-1]}" for row in rows if row[-1]] + below
        rows = [[*row[:-1], ""] for row in rows]
    shown = len(HEADERS) - (not any(row[-1] for row in rows))
    table(HEADERS[:shown], [row[:shown] for row in rows], right=(1, 3), wrap=(4, 5))
    for note in below:
        print(f"\n{note}")


def gathered(rows: Sequence[Sequence[str]]) -> tuple[list[list[str]], list[str]]:
    """The rows of figures without the long notes that several of them have, and these notes with the names of the rows.

    Example:
        >>> long = "own features, 32 of a classifier with 94% accuracy"
        >>> gathered([["fid", "3", "9", "", long], ["spread", "1", "9", "", f"1 is equal; {long}"]])[0]
        [['fid', '3', '9', '', ''], ['spread', '1', '9', '', '1 is equal']]
    """
    owners: dict[str, list[str]] = {}
    for name, *_, note in rows:
        for part in note.split("; "):
            owners.setdefault(part, []).append(name)
    common = {part: names for part, names in owners.items() if len(names) > 1 and len(part) > _LONG}
    left = [[*row[:-1], "; ".join(part for part in row[-1].split("; ") if part not in common)] for row in rows]
    return left, [f"{', '.join(names)}: {part}" for part, names in common.items()]


def say(text: str) -> None:
    """Prints a message to standard error."""
    print(text, file=sys.stderr, flush=True)


def counted(n: int | None, what: str) -> str:
    """A number of things.

    Example:
        >>> counted(1, "thread"), counted(2000, "update")
        ('1 thread', '2,000 updates')
    """
    return f"{n or 0:,} {what}{'s' * (n != 1)}"


def duration(seconds: float) -> str:
    """A duration in seconds, minutes or hours.

    Example:
        >>> duration(0.5), duration(75), duration(4000)
        ('0.5 s', '1 min 15 s', '1 h 6 min')
    """
    if seconds < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    return f"{minutes // 60} h {minutes % 60} min"


@contextmanager
def telling(*, quiet: bool = False) -> Iterator[Callable[[str], None]]:
    """Shows what is being done, unless quiet: a line that changes in a terminal, a line now and then in a pipe.

    Yields the function that is told.
    """
    begun, now, ended = time.perf_counter(), [""], threading.Event()

    def line() -> str:
        return f"evaluating: {now[0]}, after {duration(time.perf_counter() - begun)}"

    with ExitStack() as stack:
        show: Callable[[str], None] = say
        every = _EVERY
        if not quiet and sys.stderr.isatty():
            show, every = stack.enter_context(_changing()), _OFTEN

        def watch() -> None:
            while not ended.wait(every) and not quiet:
                if now[0]:
                    show(line())

        thread = threading.Thread(target=watch, daemon=True)
        thread.start()
        try:
            yield lambda doing: now.__setitem__(0, doing)
        finally:
            ended.set()
            thread.join()


@contextmanager
def _changing() -> Iterator[Callable[[str], None]]:
    """A line of a terminal that is written anew and vanishes at the end; what else is printed comes above it."""
    from rich.console import Console
    from rich.text import Text

    with Console(stderr=True).status("evaluating") as status:
        yield lambda text: status.update(Text(text, overflow="ellipsis", no_wrap=True))

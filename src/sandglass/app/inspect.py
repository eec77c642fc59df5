"""``sandglass inspect``: inspects data before training."""

from __future__ import annotations

import shutil
import sys
import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING

from sandglass.app.output import say, table
from sandglass.app.parsing import Parser, count, numbers

if TYPE_CHECKING:
    from sandglass.census.census import Census
    from sandglass.runs.finding import Finding

_COLUMNS = 30
_NAME = 12
_WIDEST = 100
_STYLES = {"problem": "bold red", "warning": "bold yellow", "info": "bold cyan"}


def inspect(words: Sequence[str]) -> int:
    """Inspects a data source and prints its contents, problems and advice."""
    parser = Parser(
        "inspect",
        "Inspect data before training: its contents, its problems and what to do about them. Every image is decoded\n"
        "and every cell is read; nothing is changed.",
        [
            "inspect photos/",
            "inspect photos/ -o photos.html",
            "inspect table.csv --labels kind",
            "inspect scans.npy --value-range 0,4095",
            "inspect digits --json",
        ],
    )
    parser.add_argument("data", metavar="DATA", help="a folder, a file, or a name from `sandglass datasets`")
    about = "label column of a table, label array of an .npz, or FILE[:COLUMN] for pictures"
    parser.add_argument("--labels", metavar="COLUMN", help=about)
    about = "pattern of the file names of pictures that holds their class, such as {label}_*.jpg"
    parser.add_argument("--labels-from-names", metavar="PATTERN", help=about)
    parser.add_argument("--channels", metavar="N", type=count, help="number of channels of an array")
    parser.add_argument(
        "--channels-at", metavar="END", help="first or last: which axis of an array has its channels, if unclear"
    )
    parser.add_argument(
        "--value-range", metavar="LOW,HIGH", type=numbers, help="values of black and white in arrays and deep pictures"
    )
    parser.add_argument("--json", action="store_true", help="print JSON and nothing else")
    parser.add_argument("-o", "--out", metavar="PAGE.html", help="also write a page with charts and images")
    args = parser.parse(words)

    from sandglass.census.take import inspect as look

    names = ("labels", "labels_from_names", "channels", "channels_at", "value_range")
    census = look(args.data, **{name: getattr(args, name) for name in names}, progress=True)
    if args.json:
        from sandglass.runs.plain import strict_json

        print(strict_json(census.to_dict(), indent=1))
    else:
        show(census)
    if args.out:
        from sandglass.reports.census import write_census

        say(str(write_census(census, args.out)))
    return 0


def show(census: Census) -> None:
    """Prints a census, no wider than the terminal."""
    from sandglass.census.overview import column_rows, headline, overview

    print(f"{census.name}: {headline(census)}")
    rows = overview(census)
    wide = max((len(topic) for topic, _ in rows), default=0)
    if rows:
        print()
    for topic, text in rows:
        print(_wrapped(text, f"{topic:<{wide}}  "))
    if census.kind == "table":
        print()
        head, cells = column_rows(census.facts, _COLUMNS)
        rest = sum(max(len(line[i]) for line in (head, *cells)) + 2 for i in range(1, len(head)))
        table(head, [[_short(row[0], max(_NAME, _width() - rest)), *row[1:]] for row in cells], right=(2, 3))
        if (more := len(census.facts["columns"]) - _COLUMNS) > 0:
            print(f"and {more:,} more columns, listed by --json")
    print()
    if not census.findings:
        print("No problems found.")
    for finding in census.findings:
        _print_finding(finding)


def _short(name: str, length: int) -> str:
    return name if len(name) <= length else f"{name[: length - 1]}…"


def _print_finding(finding: Finding) -> None:
    mark = f"{finding.level:<7}  "
    text = _wrapped(finding.message, mark)
    if sys.stdout.isatty():
        from rich.console import Console
        from rich.text import Text

        line = Text(text)
        line.stylize(_STYLES[finding.level], 0, len(finding.level))
        Console(highlight=False, soft_wrap=True).print(line)
    else:
        print(text)
    if finding.advice:
        print(_wrapped(finding.advice, " " * len(mark)))


def _wrapped(text: str, mark: str) -> str:
    """Wrapped text after a mark, with hanging indent."""
    inner = " " * len(mark)
    return textwrap.fill(text, _width(), initial_indent=mark, subsequent_indent=inner, break_on_hyphens=False)


def _width() -> int:
    return min(_WIDEST, shutil.get_terminal_size((80, 24)).columns)

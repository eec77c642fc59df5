"""``sandglass compare``: runs side by side, with errors, and which differences are larger than the noise."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from sandglass.app.evaluate import dotted, typed
from sandglass.app.output import say, table
from sandglass.app.parsing import Parser, output, whole

if TYPE_CHECKING:
    from sandglass.report.sides import Block, Comparison


def compare(words: Sequence[str]) -> int:
    """Measures several runs on the same examples and sets them side by side."""
    parser = Parser(
        "compare",
        "Compare runs: all are measured anew on the same examples with the same noise. The best of a column is marked\n"
        "with * only where it is better than every other by more than the noise.",
        [
            "compare runs/vae-digits-1 runs/vae-digits-2 -o compare.html",
            "compare runs/* --group --metrics elbo,mse",
            "compare runs/a runs/b --log_prob.k 500 --metrics log_prob --json",
        ],
    )
    parser.add_argument("runs", nargs="+", metavar="RUN", help="run folders (or latest)")
    parser.add_argument("--split", help="test (default, where every run has it), validation or train")
    parser.add_argument(
        "--metrics",
        type=whole,
        default=[],
        metavar="A,B",
        help="which, by the name of the metric or of a figure; all that apply, but for the slow ones, when not given",
    )
    parser.add_argument("--METRIC.OPTION", metavar="VALUE", help="an option of a metric, the same for every run")
    parser.add_argument("--group", action="store_true", help="runs that differ in their seed alone are one row")
    parser.add_argument("--device", default="auto", help="auto (default), cpu, cuda, cuda:N or mps")
    parser.add_argument("--seed", type=int, default=0, help="of the noise (default: 0)")
    parser.add_argument("--json", action="store_true", help="print JSON and nothing else")
    output(parser, "write a page that shows all of it, an .html file")
    words, given = dotted(words)
    args = parser.parse(words)

    from sandglass.app.trained import find_run
    from sandglass.comparison import compare as compared
    from sandglass.engine.options import settle_device
    from sandglass.plain import strict_json

    options: dict[str, Any] = {metric: typed(metric, values) for metric, values in given.items()}
    metrics = args.metrics + [name for name in options if args.metrics and name not in args.metrics]
    found = compared(
        [find_run(run) for run in args.runs], metrics=metrics, split=args.split, group=args.group, seed=args.seed,
        device=settle_device(args.device), out=args.out, **options,
    )  # fmt: skip
    if args.json:
        print(strict_json(found.to_dict(), indent=1))
        return 0
    show(found)
    if args.out:
        print(f"\npage    {args.out}")
    return 0


def show(found: Comparison) -> None:
    """Prints the tables."""
    for warning in found.warnings:
        say(f"note: {warning}")
    for place, block in enumerate(found.blocks):
        print("\n" * bool(place) + f"{block.data}, {block.n:,} {block.split} examples\n")
        figures(block)
    if found.differences:
        print("\nwhat differs in the configuration\n")
        rows = [[name, *values] for name, values in found.differences]
        table(["setting", *(side.name for side in found.sides)], rows, wrap=range(1, len(found.sides) + 1))


def figures(block: Block) -> None:
    """One row a run, one column a figure; under it how far each is from the best."""
    from sandglass.report.compare import behind, cell, title

    def plain(text: str) -> str:
        return text.replace("\N{MINUS SIGN}", "-")

    names = list(block.groups)
    for columns in lines(block):
        headers = ["run", *(title(c) for c in columns)]
        rows = [[n, *(plain(cell(c, n)) + " *" * (c.best == n) for c in columns)] for n in names]
        table(headers, rows, right=range(1, len(headers)))
        print()
    ranked = [c for c in block.columns if c.first is not None and len(c.cells) > 1]
    if not ranked:
        print("No figure ranks these runs.")
        return
    paired = all(c.difference(n, c.first or n).paired for c in ranked for n in c.cells if n != c.first)
    print(f"difference from the best of each figure{', paired by example' if paired else ''}\n")
    table(["run", *map(title, ranked)], [[n, *(plain(behind(c, n)) for c in ranked)] for n in names],
          right=range(1, len(ranked) + 1))  # fmt: skip


def lines(block: Block) -> list[list[Any]]:
    """The columns, in as many tables as the terminal needs; in one when there is no terminal."""
    from sandglass.report.compare import cell, title

    if not sys.stdout.isatty():
        return [block.columns]
    room = shutil.get_terminal_size().columns
    first = max(len(name) for name in block.groups)
    made: list[list[Any]] = [[]]
    left = room - first
    for column in block.columns:
        wide = 4 + max(len(title(column)), *(len(cell(column, name)) for name in block.groups))
        if wide > left and made[-1]:
            made.append([])
            left = room - first
        made[-1].append(column)
        left -= wide
    return made

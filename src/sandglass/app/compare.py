"""``sandglass compare``: runs side by side, with errors, and which differences are larger than the noise."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from sandglass.app.evaluate import metrics_from, parsed
from sandglass.app.output import say, table
from sandglass.app.parsing import Parser, output

if TYPE_CHECKING:
    from sandglass.comparing.sides import Block, Comparison


def compare(words: Sequence[str]) -> int:
    """Measures several runs on the same examples and sets them side by side."""
    parser = Parser(
        "compare",
        "Compare runs: all are measured anew on the same examples with the same noise. The best by a figure is marked\n"
        "with * only where it is better than every other by more than the noise.",
        [
            "compare runs/vae-digits-1 runs/vae-digits-2 -o compare.html",
            "compare runs/* --group --metrics elbo,mse",
            "compare runs/a runs/b --metrics elbo --log_prob.k 500 --json",
        ],
    )
    parser.add_argument("runs", nargs="+", metavar="RUN", help="run folders (or latest)")
    parser.add_argument("--split", help="test (default, where every run has it), validation or train")
    metrics_from(parser)
    parser.add_argument("--group", action="store_true", help="runs that differ in their seed alone stand together")
    parser.add_argument("--device", default="auto", help="auto (default), cpu, cuda, cuda:N or mps")
    parser.add_argument("--seed", type=int, default=0, help="of the noise (default: 0)")
    parser.add_argument("--json", action="store_true", help="print JSON and nothing else")
    output(parser, "write a page that shows all of it, an .html file")
    args, options = parsed(parser, words)

    from sandglass.comparing.compare import compare as compared
    from sandglass.engine.options import settle_device
    from sandglass.runs.plain import strict_json
    from sandglass.tasks.trained import find_run

    found = compared(
        [find_run(run) for run in args.runs], metrics=args.metrics, split=args.split, group=args.group, seed=args.seed,
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
        print("what differs in the configuration\n")
        rows = [[name, *values] for name, values in found.differences]
        table(["setting", *(side.name for side in found.sides)], rows, wrap=range(1, len(found.sides) + 1))


def figures(block: Block) -> None:
    """One row a figure, one column a run; under it how far each is from the best."""
    from sandglass.comparing.page import behind, cell, heading

    def plain(text: str) -> str:
        return text.replace("\N{MINUS SIGN}", "-")

    names = list(block.groups)
    ranked = [c for c in block.rankings if c.first is not None and len(c.results) > 1]
    _print(names, [(heading(c), {n: plain(cell(c, n)) + " *" * (c.best == n) for n in names}) for c in block.rankings])
    if any(c.best for c in block.rankings):
        print("* better than every other by more than the noise\n")
    if not ranked:
        print("No figure ranks these runs.")
        return
    paired = all(c.difference(n, c.first or n).paired for c in ranked for n in c.results if n != c.first)
    print(f"difference from the best of each figure{', paired by example' if paired else ''}\n")
    _print(names, [(heading(c), {n: plain(behind(c, n)) for n in names}) for c in ranked])


def _print(names: Sequence[str], rows: Sequence[tuple[str, Mapping[str, str]]]) -> None:
    """A table of figures by runs; in a terminal as many as its width asks for."""
    room = shutil.get_terminal_size().columns if sys.stdout.isatty() else sys.maxsize
    room -= max((len(title) for title, _ in rows), default=0)
    wide = [2 + max(len(name), *(len(cells[name]) for _, cells in rows)) if rows else 0 for name in names]
    start = 0
    while start < len(names):
        end, left = start + 1, room - wide[start]
        while end < len(names) and wide[end] <= left:
            left -= wide[end]
            end += 1
        some = names[start:end]
        table(
            ["figure", *some],
            [[title, *(cells[n] for n in some)] for title, cells in rows],
            right=range(1, len(some) + 1),
        )
        print()
        start = end

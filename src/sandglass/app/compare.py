"""``sandglass compare``: compares runs, with standard errors and significance."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from sandglass.app.evaluate import metrics_from, parsed
from sandglass.app.output import say, table, telling
from sandglass.app.parsing import Parser, output

if TYPE_CHECKING:
    from sandglass.comparing.sides import Block, Comparison
    from sandglass.metrics.compared import Ranking


def compare(words: Sequence[str]) -> int:
    """Evaluates several runs on the same examples and compares them."""
    parser = Parser(
        "compare",
        "Compare runs: all are evaluated on the same examples with the same noise. The best run of a figure is marked\n"
        "with * only where it is significantly better than every other.",
        [
            "compare runs/vae-digits-1 runs/vae-digits-2 -o compare.html",
            "compare runs/* --group --metrics elbo,mse",
            "compare runs/a runs/b --metrics elbo --log_prob.k 500 --json",
        ],
    )
    parser.add_argument("runs", nargs="+", metavar="RUN", help="run folders (or latest)")
    parser.add_argument(
        "--data", metavar="SRC", help="the new place of the runs' data, or other data, preprocessed like it"
    )
    parser.add_argument("--split", help="test (default, if every run has it), validation, train or all")
    metrics_from(parser)
    parser.add_argument("--group", action="store_true", help="group runs that differ only in the seed")
    parser.add_argument("--device", default="auto", help="auto (default), cpu, cuda, cuda:N or mps")
    parser.add_argument("--seed", type=int, default=0, help="random seed of the noise (default: 0)")
    parser.add_argument("--json", action="store_true", help="print JSON and nothing else")
    output(parser, "also write an .html page")
    args, options = parsed(parser, words)

    from sandglass.comparing.compare import compare as compared
    from sandglass.engine.device import settle_device
    from sandglass.runs.plain import strict_json
    from sandglass.runs.run import find_run

    with telling(quiet=args.json) as tell:
        found = compared(
            [find_run(run) for run in args.runs], metrics=args.metrics, data=args.data, split=args.split,
            group=args.group, seed=args.seed, device=settle_device(args.device), out=args.out, progress=tell, **options,
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
        print("\n" * bool(place) + f"{block.data}, {block.about}\n")
        figures(block)
    if found.differences:
        print("differences in configuration\n")
        rows = [[name, *values] for name, values in found.differences]
        table(["setting", *(side.name for side in found.sides)], rows, wrap=range(1, len(found.sides) + 1))


def figures(block: Block) -> None:
    """Prints one row per figure and one column per run, then the differences from the best run."""
    from sandglass.comparing.page import behind, by_name, cell, heading, leading

    def plain(text: str) -> str:
        return text.replace("\N{MINUS SIGN}", "-")

    def titled(ranking: Ranking) -> tuple[str, str]:
        return heading(ranking, by_name), ranking.better or ""

    names = list(block.groups)
    ranked = [c for c in block.rankings if c.first is not None and len(c.results) > 1]
    _print(names, [(titled(c), {n: plain(cell(c, n)) + " *" * (c.best == n) for n in names}) for c in block.rankings])
    if any(c.best for c in block.rankings):
        print("* significantly better than every other\n")
    for side in block.sides:
        for sentence in side.wrong:
            print(f"{side.name}: {sentence}")
    if not ranked:
        alone = len(block.sides) == 1
        print("Only this run has these examples." if alone else "There is no figure to rank these runs by.")
        return
    best = leading(block, by_name)
    print("\n" * any(side.wrong for side in block.sides) + f"{best}\n" * bool(best))
    paired = all(c.difference(n, c.first or n).paired for c in ranked for n in c.results if n != c.first)
    print(f"difference from the best of each figure{', paired by example' if paired else ''}\n")
    _print(names, [(titled(c), {n: plain(behind(c, n)) for n in names}) for c in ranked])


def _print(names: Sequence[str], rows: Sequence[tuple[tuple[str, str], Mapping[str, str]]]) -> None:
    """Prints a table of figures by runs, split into several tables to fit a terminal's width.

    Args:
        names: of the runs.
        rows: the name of each figure and which value is better, and the cells by run.
    """
    room = shutil.get_terminal_size().columns if sys.stdout.isatty() else sys.maxsize
    room -= max((len(title) for (title, _), _ in rows), default=0) + 8
    wide = [2 + max(len(name), *(len(cells[name]) for _, cells in rows)) if rows else 0 for name in names]
    start = 0
    while start < len(names):
        end, left = start + 1, room - wide[start]
        while end < len(names) and wide[end] <= left:
            left -= wide[end]
            end += 1
        some = names[start:end]
        table(
            ["figure", "better", *some],
            [[*title, *(cells[n] for n in some)] for title, cells in rows],
            right=range(2, len(some) + 2),
        )
        print()
        start = end

"""Sandglass beside other libraries on this machine: ``python -m benchmarks.speed``, or ``make bench`` with its peers.

An epoch of each contender follows the other, A B C A B C, while the others sleep; the first round warms up and is
dropped. Results go to ``build/bench/results.json``, with every epoch's seconds.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from benchmarks.speed import commands, growth, likelihood, machine, page, profiling, training
from benchmarks.speed.contenders import Setting
from benchmarks.speed.session import ROOT, AbsentError
from benchmarks.speed.tables import tables
from benchmarks.speed.workloads import WORKLOADS, Workload, small, with_pythae
from sandglass import registry

OTHERS = ("likelihood", "start-up", "lab", "profile", "growth")
PROFILED = ("dense", "conv")


def main(words: Sequence[str] | None = None) -> int:
    """Measures, prints tables and saves results."""
    known = {w.name: w for w in (*WORKLOADS, *with_pythae(registry.names("model")))}
    options = parse(words, [*known, *OTHERS])
    if options.page is not None:
        page.write(json.loads(options.page.read_text(encoding="utf-8")))
        return 0
    device = "cuda" if options.gpu else "cpu"
    if options.gpu and not torch.cuda.is_available():
        print("There is no GPU that PyTorch can use.", file=sys.stderr)
        return 1
    setting = Setting(options.out, device, options.threads)
    options.out.mkdir(parents=True, exist_ok=True)
    path = options.out / "results.json"
    results: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if options.keep and path.exists() else {}
    results |= {"machine": machine.about(device), "device": device, "threads": options.threads}
    chosen = options.only or (["dense", "start-up"] if options.quick else [*known, *OTHERS[:-1]])
    chosen = [*chosen, *(["growth"] if options.growth and "growth" not in chosen else [])]
    try:
        for name in chosen:
            measure(name, known, setting, options, results)
            save(results, path)
    except (AbsentError, training.DifferentNetsError) as error:
        print(f"{name}: {error}", file=sys.stderr)
        return 1
    print("\n\n".join(table.text() for table in tables(results)))
    print(f"\n{path} has every time.")
    return 0


def parse(words: Sequence[str] | None, names: list[str]) -> argparse.Namespace:
    """The options."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.speed", description=__doc__)
    parser.add_argument("--only", nargs="+", choices=names, metavar="NAME", help=f"of {', '.join(names)}")
    parser.add_argument("--rounds", type=int, default=5, help="that count; one more warms up")
    parser.add_argument("--examples", type=int, help="of an epoch, at most, where time is short")
    parser.add_argument("--quick", action="store_true", help="a smoke run on a few examples, without peers")
    parser.add_argument("--growth", action="store_true", help="also how time and memory grow with the data")
    parser.add_argument("--gpu", action="store_true", help="train on the GPU")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="of the processor")
    parser.add_argument("--keep", action="store_true", help="keep the other parts of results in the folder")
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "bench", help="folder of results and logs")
    parser.add_argument(
        "--page", type=Path, nargs="?", const=page.RESULTS, metavar="RESULTS",
        help="measure nothing: write docs/speed.md from these results, by default those in the repository",
    )  # fmt: skip
    options = parser.parse_args(words)
    options.out = options.out.resolve()
    if min(options.rounds, options.threads, options.examples or 1) < 1:
        parser.error("--rounds, --threads and --examples must be at least 1.")
    if options.quick:
        options.rounds = min(options.rounds, 2)
    return options


def measure(
    name: str, known: dict[str, Workload], setting: Setting, options: argparse.Namespace, results: dict[str, Any]
) -> None:
    """One part of the results."""
    print(f"{name} ...", file=sys.stderr, flush=True)
    quick, rounds = options.quick, options.rounds
    if name in known:
        workload = sized(known[name], options)
        images = min(64 if quick else 5000, workload.examples)
        results.setdefault("training", {})[name] = training.measure(workload, setting, rounds, images, quick)
    elif name == "likelihood":
        images, k, blocks = (4, 10, 2) if quick else (1500, 1000, 3)
        results[name] = likelihood.measure(setting, images, k, blocks, peers=not quick)
    elif name == "start-up":
        results.setdefault("commands", {})["start_up"] = commands.start_up(rounds, peers=not quick)
    elif name == "lab":
        results.setdefault("commands", {})["lab"] = commands.lab(setting, min(rounds, 3))
    elif name == "profile":
        steps = 5 if quick else 20
        results[name] = {n: profiling.measure(sized(known[n], options), setting, steps) for n in PROFILED}
    else:
        series = [growth.smallest(each) for each in growth.SERIES] if quick else growth.SERIES
        results["growth"] = growth.measure(setting, series)


def sized(workload: Workload, options: argparse.Namespace) -> Workload:
    """A workload with as many examples as the options say."""
    workload = small(workload) if options.quick else workload
    return dataclasses.replace(workload, examples=min(workload.examples, options.examples or sys.maxsize))


def save(results: dict[str, Any], path: Path) -> None:
    """Writes the results after every part, so that none is lost; a list of numbers is one line."""
    text = json.dumps(results, indent=1)
    path.write_text(re.sub(r"\[[^\[\]{}\"]*\]", lambda m: " ".join(m[0].split()), text) + "\n", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())

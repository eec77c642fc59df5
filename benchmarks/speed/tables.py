"""The results as tables: of text on the terminal, of Markdown on the page."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.speed.contenders import CONTENDERS
from benchmarks.speed.figures import Spread, paired, ratios
from benchmarks.speed.training import REFERENCE

USES = {
    "generate": "pictures generated a second",
    "encode": "pictures encoded a second",
    "score": "pictures scored a second, as an anomaly",
    "save": "milliseconds of a checkpoint",
}


@dataclass(frozen=True)
class Table:
    """A table with a title and a line below it.

    Example:
        >>> table = Table("Times", ("what", "s"), (("ours", "1.5"), ("the others", "12")), "In seconds.")
        >>> print(table.text())
        Times
        what          s
        ours        1.5
        the others   12
        In seconds.
        >>> print(table.markdown())
        ### Times
        <BLANKLINE>
        | what | s |
        |---|---|
        | ours | 1.5 |
        | the others | 12 |
        <BLANKLINE>
        In seconds.
    """

    title: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    note: str = ""

    def text(self) -> str:
        rows = [self.head, *self.rows]
        widths = [max(len(row[i]) for row in rows) for i in range(len(self.head))]
        lines = [
            "  ".join([row[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(row[1:], widths[1:], strict=True))])
            for row in rows
        ]
        return "\n".join([self.title, *(line.rstrip() for line in lines), *([self.note] if self.note else [])])

    def markdown(self) -> str:
        rows = [self.head, ["---"] * len(self.head), *self.rows]
        lines = ["| " + " | ".join(row) + " |" for row in rows]
        lines[1] = lines[1].replace(" ", "")
        return "\n".join(
            [f"### {self.title[0].upper()}{self.title[1:]}", "", *lines, *(["", self.note] if self.note else [])]
        )


def tables(results: Mapping[str, Any]) -> list[Table]:
    """All tables that the results have."""
    found = []
    for name, each in results.get("training", {}).items():
        found.append(training(each))
        if each["uses"]:
            found.append(uses(name, each))
    if "likelihood" in results:
        found.append(likelihood(results["likelihood"]))
    found += [commands(name, each) for name, each in results.get("commands", {}).items()]
    found += [profile(each) for each in results.get("profile", {}).values()]
    return found + [growth(each) for each in results.get("growth", [])]


def title_of(name: str) -> str:
    """What a contender is called in tables."""
    return CONTENDERS[name].title if name in CONTENDERS else name


def versions(about: Mapping[str, Any]) -> str:
    """The versions of a contender."""
    return ", ".join(f"{name} {version}" for name, version in about["versions"].items())


def absent(each: Mapping[str, Any]) -> str:
    """Who is absent, in sentences."""
    return " ".join(f"{title_of(name)} is absent: {why}." for name, why in each["absent"].items())


def training(each: Mapping[str, Any]) -> Table:
    """Time of an epoch, rate, ratio, memory and parameters."""
    own = each["contenders"]
    relative, worked = (
        ratios({name: about[clock] for name, about in own.items()}, REFERENCE) for clock in ("seconds", "processor")
    )
    has_bound = any("bound" in about for about in own.values())
    rows = []
    for name, about in own.items():
        median = statistics.median(about["seconds"])
        row = [title_of(name), f"{each['examples'] / median:,.0f}", str(relative[name]), f"{worked[name].median:.2f}"]
        row += [f"{about['memory'] / 2**20:,.0f}", about["precision"], f"{about['parameters']:,}"]
        rows.append([*row, f"{about['bound']:.1f}"] if has_bound else row)
    head = ["", "examples/s", "time, Sandglass = 1", "processor time", "memory, MiB", "precision", "parameters"]
    rounds = len(own[REFERENCE]["seconds"])
    note = (
        f"{each['examples']:,} examples ({each['data']}) in batches of {each['batch']}, median of {rounds} "
        f"{'epoch' if rounds == 1 else 'epochs in turns'}; times are relative to Sandglass in the same round, with "
        "quartiles."
    )
    return Table(each["title"], [*head, "test bound, nats"] if has_bound else head, rows,
                 f"{note} {absent(each)}".strip())  # fmt: skip


def uses(name: str, each: Mapping[str, Any]) -> Table:
    """What is done with the model after training."""
    rows = []
    for use, seconds in each["uses"].items():
        relative = ratios(seconds, REFERENCE)
        for contender, taken in seconds.items():
            median = statistics.median(taken)
            figure = f"{1000 * median:.1f}" if use == "save" else f"{each['images'] / median:,.0f}"
            rows.append([USES[use], title_of(contender), figure, str(relative[contender])])
    return Table(f"The {name} model in use", ["what", "", "figure", "time, Sandglass = 1"], rows)


def likelihood(each: Mapping[str, Any]) -> Table:
    """Nats, their paired differences, seconds and ratios by block."""
    own = each["contenders"]
    relative = ratios({name: about["seconds"] for name, about in own.items()}, REFERENCE)
    rows = []
    for name, about in own.items():
        difference, error = paired(about["values"], own[REFERENCE]["values"])
        rows.append([
            title_of(name), f"{statistics.mean(about['values']):.3f}", f"{difference:+.4f} +- {error:.4f}",
            f"{sum(about['seconds']):.1f}", str(relative[name]),
        ])  # fmt: skip
    title = f"log p(x) of {each['images']:,} test pictures, {each['k']:,} draws each, the same weights"
    head = ["", "nats", "minus Sandglass", "s", "time, Sandglass = 1"]
    notes = [f"{title_of(name)}: {about['note']}." for name, about in own.items() if about.get("note")]
    return Table(title, head, rows, " ".join(filter(None, [*notes, absent(each)])))


def commands(name: str, each: Mapping[str, Any]) -> Table:
    """Seconds of whole commands."""
    title = "Start-up" if name == "start_up" else f"A lab exercise, whole: {each['epochs']} epochs of mnist-512-2"
    rows = [[title_of(item), str(Spread.of(seconds))] for item, seconds in each["seconds"].items()]
    return Table(title, ["", "s"], rows, absent(each))


def profile(each: Mapping[str, Any], most: int = 12) -> Table:
    """Milliseconds of a step by operation, the longest first."""
    ours, theirs = (each["contenders"][name] for name in ("sandglass", "torch"))
    operations = dict.fromkeys([*ours["operations"], *theirs["operations"]])
    both = {op: [own["operations"].get(op, [0.0, 0])[0] for own in (ours, theirs)] for op in operations}
    first = sorted(both, key=lambda op: -max(both[op]))[:most]
    rows = [["the whole step, without the profiler", f"{ours['whole']:.3f}", f"{theirs['whole']:.3f}"]]
    rows += [[f"`{op}`", *(f"{value:.3f}" for value in both[op])] for op in first]
    rest = [sum(values[i] for op, values in both.items() if op not in first) for i in range(2)]
    rows.append(["the other operations", *(f"{value:.3f}" for value in rest)])
    return Table(f"A step of the {each['title']}", ["ms of own time", title_of("sandglass"), title_of("torch")], rows)


def growth(each: Mapping[str, Any]) -> Table:
    """Seconds and memory by size."""
    rows = []
    for size, about in each["sizes"].items():
        if "skipped" in about:
            rows.append([f"{int(size):,}", f"left out: {about['skipped']}", ""])
        else:
            rate = 1000 * about["seconds"] / about["examples"]
            rows.append([f"{int(size):,}", f"{rate:.3f}", f"{about['memory'] / 2**20:,.0f}"])
    return Table(f"Growth: {each['title']}", [each["unit"], "s per 1,000 examples", "memory, MiB"], rows)

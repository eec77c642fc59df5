"""The data of a comparison: groups of comparable runs, and their differences."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from html import escape
from typing import Any

from sandglass import registry
from sandglass.data.dataset import Split
from sandglass.errors import ConfigError
from sandglass.metrics.compared import Group, Ranking, headline, rankings
from sandglass.metrics.verdicts import sentences
from sandglass.reports import facts
from sandglass.reports.section import Material
from sandglass.runs import settings
from sandglass.runs.plain import strict_json
from sandglass.runs.result import Result, figure
from sandglass.runs.run import Run

_IGNORED = ("training.seed", "training.threads", "training.device")  # may differ between seeds of one configuration


@dataclass(frozen=True)
class Side:
    """A run in a comparison.

    Args:
        name: name of the run.
        material: the run, its model and its data.
        results: results by figure.
        kind: kind of its likelihood, empty without one.
        examples: SHA-256 of the examples it was evaluated on; only runs with the same are compared.
        step: training step of the evaluated weights.
    """

    name: str
    material: Material
    results: Mapping[str, Result]
    kind: str
    examples: str
    step: int

    @cached_property
    def wrong(self) -> list[str]:
        """What is wrong with it by its figures, in sentences."""
        return sentences({name: r.to_dict() for name, r in self.results.items()}, self.material.model.spec)

    @property
    def run(self) -> Run:
        """The run folder."""
        return self.material.run


@dataclass(frozen=True)
class Block:
    """Runs evaluated on the same examples.

    Args:
        sides: the runs.
        data: name of the dataset.
        split: the evaluated split.
        grouped: whether runs that differ only in their seed are grouped.
    """

    sides: Sequence[Side]
    data: str
    split: str
    grouped: bool = False

    @property
    def examples(self) -> Split:
        """The examples that all of them were evaluated on."""
        data = self.sides[0].material.data
        assert data is not None  # it was evaluated on this data
        return data.splits[self.split]

    @property
    def n(self) -> int:
        """The number of examples."""
        return len(self.examples)

    @property
    def about(self) -> str:
        """Number and split of the examples."""
        return f"{self.n:,} examples" if self.split == "all" else f"{self.n:,} {self.split} examples"

    @property
    def place(self) -> str:
        """Where its examples are from, to follow a noun."""
        return "" if self.split == "all" else f" of the {self.split} split"

    @cached_property
    def groups(self) -> dict[str, list[Side]]:
        """The runs by group name: a group for each run, or for each configuration."""
        found: dict[str, list[Side]] = {}
        for side in self.sides:
            found.setdefault(setting(side.run) if self.grouped else side.name, []).append(side)
        return {named(sides): sides for sides in found.values()}

    @cached_property
    def measured(self) -> list[Group]:
        """The figures of each group."""
        made = []
        for name, sides in self.groups.items():
            figures = dict.fromkeys(figure for side in sides for figure in side.results)
            results = {f: [s.results[f] for s in sides if f in s.results] for f in figures}
            made.append(Group(name, results, sides[0].kind))
        return made

    @cached_property
    def rankings(self) -> list[Ranking]:
        """The rankings, one for each comparable kind of figure."""
        return rankings(self.measured)


@dataclass(frozen=True)
class Comparison:
    """A comparison of runs evaluated with the same noise.

    Args:
        blocks: groups of runs that can be compared.
        split: the evaluated split.
        seed: random seed.
        warnings: warnings about what limits the comparison.
    """

    blocks: Sequence[Block]
    split: str
    seed: int
    warnings: Sequence[str] = ()

    def __repr__(self) -> str:
        parts = (f"{', '.join(block.groups)} on {block.about} of {block.data}" for block in self.blocks)
        return f"Comparison({'; '.join(parts)})"

    def _repr_html_(self) -> str:
        """What a notebook shows: a table of figures for each group of comparable runs."""
        return "".join(map(_table, self.blocks))

    @property
    def sides(self) -> list[Side]:
        """All runs."""
        return [side for block in self.blocks for side in block.sides]

    @cached_property
    def differences(self) -> list[tuple[str, list[str]]]:
        """The settings that differ between runs: dotted name and the value in each run.

        Settings that only some models have are left out if they are equal and at their default in these.
        """
        every = [_settings(side.run) for side in self.sides]
        usual = [_usual(side) for side in self.sides]
        names = dict.fromkeys(name for one in every for name in one)
        odd = {name for one, own in zip(every, usual, strict=True) for name in one if one[name] != own.get(name)}
        found = []
        for name in names:
            given = [one[name] for one in every if name in one]
            if len(set(given)) > 1 or (len(given) < len(every) and name in odd):
                found.append((name, [one.get(name, "") for one in every]))
        return found

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        names = [side.name for side in self.sides]
        return {
            "split": self.split,
            "seed": self.seed,
            "warnings": list(self.warnings),
            "comparable": [_block(block) for block in self.blocks],
            "differences": {name: dict(zip(names, values, strict=True)) for name, values in self.differences},
        }


def _table(block: Block) -> str:
    """The figures of comparable runs; of a group, those of its runs."""
    names = list(block.groups)
    lines = [["figure", "better", *names]]
    for ranking in block.rankings:
        every = [ranking.results.get(name, ()) for name in names]
        cells = [", ".join(figure(r.value, r.stderr) for r in found) for found in every]
        marked = [f"{cell} *" if ranking.best == name else cell for name, cell in zip(names, cells, strict=True)]
        lines.append([ranking.figure, ranking.better or "", *marked])
    rows = "".join(f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in line)}</tr>" for line in lines)
    return f"<p>{escape(block.data)}, {escape(block.about)}</p><table>{rows}</table>"


def setting(run: Run) -> str:
    """The configuration and data of a run without its seed, as a string that is equal for runs of the same group."""
    flat = settings.fixed(run.config) | {"epochs": run.config["training"].get("epochs")}
    return strict_json({k: v for k, v in flat.items() if k not in _IGNORED})


def named(sides: Sequence[Side]) -> str:
    """The name of a group."""
    return sides[0].name if len(sides) == 1 else f"{sides[0].name} and {len(sides) - 1} more"


def names_of(runs: Sequence[Run]) -> list[str]:
    """Short unique names of runs: the folder's name, or as much of the path as needed.

    Raises:
        ValueError: a run is given twice.
    """
    paths = [run.path.absolute().parts for run in runs]
    for length in range(1, max(map(len, paths)) + 1):
        found = ["/".join(parts[-length:]) for parts in paths]
        if len(set(found)) == len(found):
            return found
    twice = next(run.path for k, run in enumerate(runs) if paths[k] in paths[:k])
    raise ValueError(str(twice))


def _settings(run: Run) -> dict[str, str]:
    """The settings of a run as a flat mapping."""
    config = run.config
    data = config["data"].get("source") or {"name": config["data"]["name"]}
    rows = facts.flat({"model": registry.present("model", config["model"]["name"])} | config["model"]["options"], "")
    rows += facts.flat(config["training"], "training.") + facts.flat(data, "data.")
    return {row[0]: row[1] for row in rows}


def _usual(side: Side) -> dict[str, str]:
    """The default options of a run's model; empty for a model that is not registered."""
    try:
        model = registry.outline(side.run.config["model"]["name"], side.material.model.spec)
    except ConfigError:
        return {}
    return dict(facts.flat(model.config["options"], "")) if model is not None else {}


def _block(block: Block) -> dict[str, Any]:
    best = headline(block.rankings)
    return {
        "data": block.data,
        "split": block.split,
        "runs": {name: [_run(side) for side in sides] for name, sides in block.groups.items()},
        "best": {"runs": list(best.best), "by": list(best.figures), "left_out": dict(best.unusable)} if best else None,
        "figures": [_ranking(ranking) for ranking in block.rankings],
    }


def _run(side: Side) -> dict[str, Any]:
    return {
        "run": str(side.run.path),
        "model": registry.present("model", side.run.config["model"]["name"]),
        "likelihood": side.kind,
        "step": side.step,
        "seed": side.run.config["training"].get("seed"),
        "parameters": facts.parameters(side.material),
        "figures": {name: result.to_dict() for name, result in side.results.items()},
        "wrong": side.wrong,
    }


def _ranking(ranking: Ranking) -> dict[str, Any]:
    first = ranking.first
    behind = {name: ranking.difference(name, first) for name in ranking.results if first is not None and name != first}
    return {
        "figure": ranking.figure,
        "kind": ranking.kind,
        "unit": ranking.unit,
        "better": ranking.better,
        "first": first,
        "best": ranking.best,
        "behind": {
            name: {"difference": _finite(d.value), "stderr": _finite(d.stderr), "paired": d.paired}
            for name, d in behind.items()
        },
    }


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None

"""What a report is made of: its material, gathered once, and its sections."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from sandglass import registry, rng, running
from sandglass.core import Batch, Model
from sandglass.data.dataset import Dataset, Split
from sandglass.data.transform import Transform
from sandglass.registry import register
from sandglass.reports.chart import Chart
from sandglass.reports.mosaic import Mosaic
from sandglass.runs.run import Run

EXAMPLES = 10
"""Fixed examples that are rebuilt and walked between."""

FULL = 1020
"""Width of a page's full column, in CSS pixels."""

_CODES = 5000


@dataclass(frozen=True)
class Strip:
    """A mosaic with a line above it; ``ends``, the widths of its columns, marks the first and last as originals."""

    mosaic: Mosaic
    label: str = ""
    ends: str = ""


@dataclass(frozen=True)
class Framed:
    """A mosaic between two labelled axes; ticks are (place in percent, text)."""

    mosaic: Mosaic
    across: str
    up: str
    xticks: Sequence[tuple[float, str]]
    yticks: Sequence[tuple[float, str]]


@dataclass(frozen=True)
class Table:
    """Rows of text; ``numbers`` are the columns aligned as such, ``marked`` the (row, column) that stand out."""

    rows: Sequence[Sequence[str]]
    head: Sequence[str] = ()
    numbers: Sequence[int] = ()
    title: str = ""
    folded: bool = False
    marked: Collection[tuple[int, int]] = ()


@dataclass(frozen=True)
class Section:
    """One part of the page.

    Args:
        key: its anchor.
        title: its heading.
        how: how to read it, in plain words.
        half: whether it may stand beside another.
        legend: (name, colour) of what several charts share.
        strips, framed, charts, tables: what it shows, in this order.
        note: what comes after.
    """

    key: str
    title: str
    how: str = ""
    half: bool = False
    legend: Sequence[tuple[str, str]] = ()
    strips: Sequence[Strip] = ()
    framed: Framed | None = None
    charts: Sequence[Chart] = ()
    tables: Sequence[Table] = ()
    note: str = ""

    def mosaics(self) -> list[Mosaic]:
        """Every mosaic in it."""
        return [s.mosaic for s in self.strips] + ([self.framed.mosaic] if self.framed else [])


@dataclass(frozen=True)
class Material:
    """All that the sections are drawn from.

    Args:
        run: the run folder.
        model: its weights.
        data: what it was trained on, or other data prepared the same way; None if it is not at hand.
        reports: what ``evaluate`` measured, one a split.
    """

    run: Run
    model: Model
    data: Dataset | None
    reports: Sequence[Mapping[str, Any]] = dataclasses.field(default=())

    @property
    def seed(self) -> int:
        """Of the run; the report's own draws have keys of their own under it."""
        return int(self.run.config["training"]["seed"])

    @cached_property
    def transform(self) -> Transform:
        """Between raw data and examples."""
        return Transform.from_dict(self.run.config["transform"])

    @cached_property
    def records(self) -> list[dict[str, Any]]:
        """The log."""
        return self.run.metrics()

    @cached_property
    def events(self) -> list[dict[str, Any]]:
        """Starts and stops."""
        return self.run.events()

    @property
    def classes(self) -> Sequence[str]:
        """Class names."""
        return self.data.classes if self.data else tuple(self.run.config.get("classes", ()))

    @cached_property
    def split_name(self) -> str:
        """The split that is looked at: the measured one, else the most held-out there is."""
        names = list(self.data.splits) if self.data else []
        wanted = [r["split"] for r in self.reports] + ["test", "validation", "train"]
        return next((n for n in wanted if n in names), names[0] if names else "")

    @cached_property
    def split(self) -> Split | None:
        """At most 5,000 examples of it, in an order that is the same for every run."""
        if self.data is None:
            return None
        whole = self.data.splits[self.split_name]
        return whole.take(rng.permutation(len(whole), "report", "examples")[:_CODES]) if len(whole) else None

    @cached_property
    def examples(self) -> Batch | None:
        """The fixed examples, ``(10, *shape)``: the classes in turn where there are any."""
        if self.split is None:
            return None
        n, y = len(self.split), self.split.y
        index = torch.arange(n)
        if y is not None:
            # Sorted by how many of its class came before, then by class: 0, 1, 2, ... and round again.
            y = y.cpu()
            turn = torch.zeros(n, dtype=torch.int64)
            for k in range(int(y.max()) + 1):
                mine = (y == k).nonzero().flatten()
                turn[mine] = torch.arange(len(mine))
            index = (turn * (int(y.max()) + 1) + y).argsort(stable=True)
        return self.split.batch(index[:EXAMPLES].to(self.split.x.device))

    @cached_property
    def codes(self) -> Tensor | None:
        """``(N, D)`` codes of :attr:`split` in float64, None where the model has none of real numbers."""
        if self.split is None or "encode" not in self.model.provides or not registry.can(self.model, "codes"):
            return None
        codes = running.encode(self.model, self.split).double()
        return codes if bool(torch.isfinite(codes).all()) else None

    @cached_property
    def points(self) -> Tensor | None:
        """``(N, E)`` codes of :attr:`split` as points whose distances mean something; None where there are none."""
        if self.split is None or not {"encode", "embed"} <= set(self.model.provides):
            return self.codes
        model = self.model
        points = running.over(model, self.split, lambda batch: model.embed(model.encode(batch))).flatten(1).double()
        return points if bool(torch.isfinite(points).all()) else None

    def conditions(self, n: int, what: str) -> Batch | None:
        """What ``n`` draws of a conditional model are given: the labels and companions of examples; else None."""
        if self.split is None or not len(self.split):
            return None
        return running.conditions(self.model, self.split, n, self.seed, "report", what)

    @property
    def drawable(self) -> bool:
        """Whether there is all that draws of the model are given."""
        if not running.conditioned_on(self.model):
            return True
        beside = {need.partition(":")[2] for need in self.model.needs if need.startswith("beside:")}
        return self.split is not None and beside <= self.split.beside.keys()

    def placed(self, batch: Batch) -> Batch:
        """A batch on the model's device and in its precision."""
        return running.placed(self.model, batch)


Draw = Callable[[Material], Section | None]


def section(name: str, place: int) -> Callable[[Draw], Draw]:
    """Registers a function as a section of the report.

    Args:
        name: of the section, and its anchor.
        place: sections stand in the order of their places; those of Sandglass are 10 apart.
    """

    def decorate(draw: Draw) -> Draw:
        draw.place = place  # type: ignore[attr-defined]
        return register(name, kind="section")(draw)

    return decorate

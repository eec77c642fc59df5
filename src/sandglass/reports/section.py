"""The contents of a report: its material and its sections."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from sandglass import registry, rng, running
from sandglass.core import Batch, Model
from sandglass.data.dataset import Dataset, Split
from sandglass.data.pixels import what_is_shown
from sandglass.data.transform import Transform
from sandglass.registry import register
from sandglass.reports.chart import Chart
from sandglass.reports.mosaic import Mosaic
from sandglass.runs.run import Run

EXAMPLES = 10
"""Number of fixed examples for reconstructions and interpolations."""

FULL = 1020
"""Width of a page's full column, in CSS pixels."""

_CODES = 5000


@dataclass(frozen=True)
class Strip:
    """A mosaic with a label above it; ``ends``, CSS column widths, marks the first and last columns as originals."""

    mosaic: Mosaic
    label: str = ""
    ends: str = ""


@dataclass(frozen=True)
class Framed:
    """A mosaic with two labelled axes; ticks are (position in percent, text)."""

    mosaic: Mosaic
    across: str
    up: str
    xticks: Sequence[tuple[float, str]]
    yticks: Sequence[tuple[float, str]]


@dataclass(frozen=True)
class Table:
    """Rows of text; ``numbers`` are right-aligned columns, ``marked`` are highlighted cells (row, column)."""

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
        key: anchor.
        title: heading.
        how: explanation of how to read it.
        half: whether it has half width.
        legend: (name, colour) pairs shared by several charts.
        strips, framed, charts, tables: contents, in this order.
        note: text at the end.
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

    def showing(self, transform: Transform) -> Section:
        """The section, saying what its pictures show where they cannot show all of an array."""
        shown = what_is_shown(transform)
        return replace(self, how=f"{self.how} Pictures show {shown}.") if shown and self.mosaics() else self

    def mosaics(self) -> list[Mosaic]:
        """All mosaics of the section."""
        return [s.mosaic for s in self.strips] + ([self.framed.mosaic] if self.framed else [])


@dataclass(frozen=True)
class Material:
    """The input of all sections.

    Args:
        run: the run folder.
        model: its model.
        data: the data it was trained on, or other data preprocessed like it; None if not available.
        reports: results of ``evaluate``, one per split.
    """

    run: Run
    model: Model
    data: Dataset | None
    reports: Sequence[Mapping[str, Any]] = dataclasses.field(default=())

    @property
    def seed(self) -> int:
        """The seed of the run; the report's random draws use separate keys derived from it."""
        return int(self.run.config["training"]["seed"])

    @cached_property
    def transform(self) -> Transform:
        """Transform between raw data and examples."""
        return Transform.from_dict(self.run.config["transform"])

    @cached_property
    def records(self) -> list[dict[str, Any]]:
        """The logged metrics."""
        return self.run.metrics()

    @cached_property
    def events(self) -> list[dict[str, Any]]:
        """Start, stop and other events of the run."""
        return self.run.events()

    @property
    def classes(self) -> Sequence[str]:
        """Class names."""
        return self.data.classes if self.data else tuple(self.run.config.get("classes", ()))

    @cached_property
    def split_name(self) -> str:
        """The split to show: the evaluated one, else test, validation or train."""
        names = list(self.data.splits) if self.data else []
        wanted = [r["split"] for r in self.reports] + ["test", "validation", "train"]
        return next((n for n in wanted if n in names), names[0] if names else "")

    @cached_property
    def split(self) -> Split | None:
        """At most 5,000 examples of the split, in the same order for every run."""
        if self.data is None:
            return None
        whole = self.data.splits[self.split_name]
        return whole.take(rng.permutation(len(whole), "report", "examples")[:_CODES]) if len(whole) else None

    @cached_property
    def examples(self) -> Batch | None:
        """The fixed examples, ``(10, *shape)``, cycling through the classes if there are any."""
        if self.split is None:
            return None
        n, y = len(self.split), self.split.y
        index = torch.arange(n)
        if y is not None:
            # Sorted by the rank within the class, then by class: -1 (no label), 0, 1, 2, ... and again.
            y = y.cpu()
            turn = torch.zeros(n, dtype=torch.int64)
            for k in range(-1, int(y.max()) + 1):
                mine = (y == k).nonzero().flatten()
                turn[mine] = torch.arange(len(mine))
            index = (turn * (int(y.max()) + 2) + y).argsort(stable=True)
        return self.split.batch(index[:EXAMPLES].to(self.split.x.device))

    @cached_property
    def codes(self) -> Tensor | None:
        """``(N, D)`` codes of :attr:`split` in float64, None without real-valued codes; labels are not looked at."""
        if self.split is None or "encode" not in self.model.provides or not registry.can(self.model, "codes"):
            return None
        model = self.model
        found = running.over(model, self.split, lambda batch: model.encode(running.unlabelled(model, batch)))
        codes = found.double()
        return codes if bool(torch.isfinite(codes).all()) else None

    @cached_property
    def points(self) -> Tensor | None:
        """``(N, E)`` codes of :attr:`split` as points with meaningful distances; None where there are none."""
        if self.split is None or not {"encode", "embed"} <= set(self.model.provides):
            return self.codes
        model = self.model

        def embedded(batch: Batch) -> Tensor:
            return model.embed(model.encode(running.unlabelled(model, batch)))

        points = running.over(model, self.split, embedded).flatten(1).double()
        return points if bool(torch.isfinite(points).all()) else None

    def conditions(self, n: int, what: str) -> Batch | None:
        """Conditions for ``n`` samples of a conditional model, taken from examples; None for other models."""
        if self.split is None or not len(self.split):
            return None
        return running.conditions(self.model, self.split, n, self.seed, "report", what)

    @property
    def drawable(self) -> bool:
        """Whether the conditions that sampling needs are available."""
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
        name: name of the section, and its anchor.
        place: sections are ordered by place; built-in ones are mostly 5 or 10 apart.
    """

    def decorate(draw: Draw) -> Draw:
        draw.place = place  # type: ignore[attr-defined]
        return register(name, kind="section")(draw)

    return decorate

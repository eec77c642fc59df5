"""What a report is made of: its material, gathered once, and its sections."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from sandglass import rng
from sandglass.core import Batch, Model
from sandglass.data.dataset import Dataset, Split
from sandglass.data.transform import Transform
from sandglass.reports import latent
from sandglass.reports.chart import Chart
from sandglass.reports.mosaic import Mosaic
from sandglass.runs.run import Run

EXAMPLES = 10
"""Fixed examples that are rebuilt and walked between."""

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
        """``(N, latent_dim)`` codes of :attr:`split`, None where the model does not encode."""
        if self.split is None or "encode" not in self.model.provides:
            return None
        codes = latent.encode(self.model, self.split, _CODES)
        return codes if codes.dim() == 2 and bool(torch.isfinite(codes).all()) else None

    def ready(self, x: Tensor) -> Tensor:
        """Examples on the model's device and in its precision."""
        return x.to(self.model.device, next(self.model.parameters()).dtype)

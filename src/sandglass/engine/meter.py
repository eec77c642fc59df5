"""Means of the logged terms, and a record of non-finite updates, kept on the device and read at log points.

A step only writes a row and tests on the device whether it is finite; means are taken when the rows are read.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class Bad:
    """The first non-finite update: its step, phase and term."""

    step: int
    phase: str
    term: str


@dataclass
class Reading:
    """The terms of one phase since the last reading.

    Args:
        means: by term, over the good updates and weighted by examples.
        n: examples in good updates.
        skipped: number of updates that were not finite.
        bad: the first of them, or None.
    """

    means: dict[str, float]
    n: int
    skipped: int
    bad: Bad | None


@dataclass
class Rows:
    """The updates of one phase since the last reading: for each a row of values, its step and number of examples."""

    names: list[str]
    values: Tensor
    steps: list[int] = field(default_factory=list)
    counts: list[int] = field(default_factory=list)


class Meter:
    """Rows of logged values, by phase.

    Args:
        capacity: maximum number of updates between two readings.
        device: of the terms.
    """

    def __init__(self, capacity: int, device: torch.device) -> None:
        self.capacity, self.device = capacity, device
        self.rows: dict[str, Rows] = {}
        self.streaks: dict[str, int] = {}

    def add(self, phase: str, step: int, names: Sequence[str], values: Sequence[Tensor], n: int) -> Tensor:
        """Records one update.

        Args:
            phase: its name.
            step: its number.
            names: of the values; the same at every call.
            values: 0-d means over ``n`` examples.
            n: examples.

        Returns:
            A 0-d bool: whether all values are finite.
        """
        rows = self.rows.get(phase)
        if rows is None:
            empty = torch.zeros(self.capacity, len(names), dtype=values[0].dtype, device=self.device)
            rows = self.rows[phase] = Rows(list(names), empty)
        row = rows.values[len(rows.steps)]
        torch.stack(list(values), out=row)
        rows.steps.append(step)
        rows.counts.append(n)
        return torch.isfinite(row).all()

    def read(self) -> dict[str, Reading]:
        """What happened since the last reading, by phase, and clears the rows. Synchronises with the device."""
        readings = {}
        for phase, rows in self.rows.items():
            if rows.steps:
                values = rows.values[: len(rows.steps)].cpu().double()
                readings[phase] = self._summary(phase, rows, values)
                rows.steps, rows.counts = [], []
        return readings

    def _summary(self, phase: str, rows: Rows, values: Tensor) -> Reading:
        finite = torch.isfinite(values)
        good = finite.all(1)
        weights = torch.tensor(rows.counts, dtype=torch.float64) * good
        n = int(weights.sum())
        totals = (torch.where(good[:, None], values, 0.0) * weights[:, None]).sum(0) / max(n, 1)
        bad = None
        if not bool(good.all()):
            first = int(good.to(torch.int8).argmin())
            bad = Bad(rows.steps[first], phase, rows.names[int(finite[first].to(torch.int8).argmin())])
        last = good.nonzero()[-1].item() if n else -1
        before = 0 if n else self.streaks.get(phase, 0)
        self.streaks[phase] = before + len(rows.steps) - 1 - int(last)
        means = dict(zip(rows.names, totals.tolist(), strict=True)) if n else {}
        return Reading(means, n, int((~good).sum()), bad)

    def longest_streak(self) -> int:
        """The number of consecutive non-finite updates up to the last reading."""
        return max(self.streaks.values(), default=0)

    def tensors(self) -> dict[str, Tensor]:
        """The unread rows, for a checkpoint; non-finite values as 0 with a mask, since no file holds them."""
        tensors = {}
        for phase, rows in self.rows.items():
            values = rows.values[: len(rows.steps)]
            tensors[f"{phase}/values"] = values.nan_to_num(0.0, 0.0, 0.0)
            tensors[f"{phase}/finite"] = torch.isfinite(values)
        return tensors

    def state(self) -> dict[str, Any]:
        """Everything else, as plain values for a checkpoint."""
        rows = {k: {"names": r.names, "steps": r.steps, "counts": r.counts} for k, r in self.rows.items()}
        return {"rows": rows, "streaks": self.streaks}

    def load(self, tensors: Mapping[str, Tensor], state: Mapping[str, Any]) -> None:
        """The inverse of :meth:`tensors` and :meth:`state`."""
        self.streaks = dict(state["streaks"])
        for phase, plain in state["rows"].items():
            kept, finite = tensors[f"{phase}/values"], tensors[f"{phase}/finite"]
            values = torch.zeros(self.capacity, len(plain["names"]), dtype=kept.dtype, device=self.device)
            values[: len(kept)] = torch.where(finite, kept, torch.nan)
            self.rows[phase] = Rows(list(plain["names"]), values, list(plain["steps"]), list(plain["counts"]))

"""Running means of what the phases report, and a record of what was not finite: all on the device, read rarely."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

_NEVER = 2**62
_TERMS = 64  # a place in the record is step * _TERMS + term


@dataclass(frozen=True)
class Bad:
    """The first update that was not finite: where, and in which term."""

    step: int
    phase: str
    term: str


class Meter:
    """Sums of the terms of each phase since the last reading.

    An update that is not finite adds nothing to the sums; it is counted, and the first one is kept.

    Args:
        phases: their names.
        device: where the terms are.
    """

    def __init__(self, phases: Sequence[str], device: torch.device) -> None:
        self.phases, self.device = list(phases), device
        self.names: dict[str, list[str]] = {}
        self.sums: dict[str, Tensor] = {}
        self.first = {p: torch.full((), _NEVER, dtype=torch.int64, device=device) for p in self.phases}
        self.streak = {p: torch.zeros((), dtype=torch.int64, device=device) for p in self.phases}

    def add(self, phase: str, step: int, names: Sequence[str], values: Tensor, n: int) -> Tensor:
        """Takes in one update.

        Args:
            phase: whose.
            step: which.
            names: of the values; the same ones every time.
            values: ``(len(names),)`` means over ``n`` examples.
            n: examples.

        Returns:
            A 0-d bool: whether all values are finite.
        """
        if phase not in self.sums:
            self.names[phase] = list(names)
            # One more than the values for the examples counted, and one for the updates skipped.
            self.sums[phase] = torch.zeros(len(names) + 2, dtype=torch.float64, device=self.device)
        finite = torch.isfinite(values)
        good = finite.all()
        row = torch.cat([values.double() * n, values.new_full((1,), n).double()])
        sums = self.sums[phase]
        sums[:-1] += torch.where(good, row, 0.0)
        sums[-1] += ~good
        place = finite.to(torch.int8).argmin() + step * _TERMS
        self.first[phase] = torch.where(good, self.first[phase], torch.minimum(self.first[phase], place))
        self.streak[phase] = torch.where(good, 0, self.streak[phase] + 1)
        return good

    def read(self) -> tuple[dict[str, dict[str, float]], dict[str, int], dict[str, int], list[Bad]]:
        """Means by phase and term, examples and skipped updates by phase, and the first bad ones; starts anew.

        This is where the host waits for the device.
        """
        means, counts, skipped, bad = {}, {}, {}, []
        for phase, sums in self.sums.items():
            *totals, n, skips = sums.tolist()
            counts[phase], skipped[phase] = int(n), int(skips)
            means[phase] = {k: t / n for k, t in zip(self.names[phase], totals, strict=True)} if n else {}
            place = int(self.first[phase])
            if place < _NEVER:
                bad.append(Bad(place // _TERMS, phase, self.names[phase][place % _TERMS]))
            sums.zero_()
            self.first[phase] = torch.full_like(self.first[phase], _NEVER)
        return means, counts, skipped, bad

    def longest_streak(self) -> int:
        """How many updates in a row, up to now, were not finite."""
        return max(int(s) for s in self.streak.values())

    def tensors(self) -> dict[str, Tensor]:
        """Its state, for a checkpoint."""
        sums = {f"sums/{k}": v for k, v in self.sums.items()}
        firsts = {f"first/{k}": v for k, v in self.first.items()}
        return sums | firsts | {f"streak/{k}": v for k, v in self.streak.items()}

    def load(self, tensors: Mapping[str, Tensor], names: Mapping[str, Any]) -> None:
        """The inverse of :meth:`tensors`, with the names."""
        self.names = {k: list(v) for k, v in names.items()}
        for key, value in tensors.items():
            kind, phase = key.split("/", 1)
            getattr(self, kind)[phase] = value.to(self.device, copy=True)

"""The time that a run was given, as its configuration has it: when each stage has to end, and what is left."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self


def minutes(seconds: float, further: str = "") -> str:
    """A time in minutes, in words.

    Example:
        >>> minutes(60), minutes(90), minutes(120, "further ")
        ('1 minute', '1.5 minutes', '2 further minutes')
    """
    return f"{seconds / 60:g} {further}minute{'s' * (seconds != 60)}"


@dataclass(frozen=True)
class Budget:
    """The time of a run.

    Args:
        seconds: in total.
        spent: on planning, before the run began.
        ends: by trained stage, when it has to end, in seconds from the beginning.
        closing: by trained stage, seconds of a validation as measured before.
        before: seconds that the run had been trained for when it was given this time.
    """

    seconds: float
    spent: float
    ends: Mapping[str, float]
    closing: Mapping[str, float]
    before: float = 0.0

    @classmethod
    def of(cls, plan: Mapping[str, Any] | None) -> Self | None:
        """The budget of a plan in a configuration; None without a plan.

        Example:
            >>> plan = {"minutes": 2, "planning": 1.5, "shares": {"codes": 0.5, "prior": 0.5}, "seconds": {}}
            >>> Budget.of(plan).ends
            {'codes': 60.0, 'prior': 120.0}
        """
        if not plan:
            return None
        seconds, share, ends = 60.0 * plan["minutes"], 0.0, {}
        for name, own in plan["shares"].items():
            share += own
            ends[name] = round(share * seconds, 6)
        closing = {name: cost.get("epoch_end", 0.0) for name, cost in plan["seconds"].items()}
        return cls(seconds, plan["planning"], ends, closing, plan.get("before", 0.0))

    def used(self, trained: float) -> float:
        """Seconds of it that are used when the run was trained for some; planning counts."""
        return trained - self.before + self.spent

    @property
    def text(self) -> str:
        """How long, in words."""
        return minutes(self.seconds, "further " * bool(self.before))

    def length(self, stage: str) -> float:
        """Seconds of a stage."""
        return self.ends[stage] - max((end for end in self.ends.values() if end < self.ends[stage]), default=0.0)

"""Medians, quartiles, and ratios paired by round."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Spread:
    """A median with its quartiles.

    Example:
        >>> print(Spread.of([4.0, 1.0, 2.0, 3.0, 5.0]))
        3.00 (2.00 to 4.00)
    """

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """The quartiles by linear interpolation; of a single value, that value."""
        if len(values) == 1:
            return cls(values[0], values[0], values[0])
        low, median, high = statistics.quantiles(values, n=4, method="inclusive")
        return cls(median, low, high)

    def __str__(self) -> str:
        return f"{self.median:.2f} ({self.low:.2f} to {self.high:.2f})"


def ratios(rounds: Mapping[str, Sequence[float]], reference: str) -> dict[str, Spread]:
    """The seconds of every contender over those of the reference, round by round.

    What slows the machine for a while slows both of a pair, so their ratio scatters less than their times.

    Args:
        rounds: seconds of each round, by contender.
        reference: the contender that is 1.

    Example:
        >>> print(ratios({"ours": [1.0, 2.0, 1.0], "theirs": [1.5, 3.0, 2.0]}, "ours")["theirs"])
        1.50 (1.50 to 1.75)
    """
    own = rounds[reference]
    return {name: Spread.of([a / b for a, b in zip(each, own, strict=True)]) for name, each in rounds.items()}


def paired(values: Sequence[float], others: Sequence[float]) -> tuple[float, float]:
    """The mean difference of paired figures and its standard error.

    Example:
        >>> paired([1.0, 2.0, 3.0], [1.0, 1.0, 1.0])
        (1.0, 0.5773502691896258)
    """
    differences = [a - b for a, b in zip(values, others, strict=True)]
    return statistics.mean(differences), statistics.stdev(differences) / math.sqrt(len(differences))

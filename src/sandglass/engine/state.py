"""The state of the training loop, in plain values."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass
class State:
    """The loop's own state, stored in ``state.json``; the stepper's is in tensors.

    ``step`` counts within the stage; ``offset`` is the number of steps of all earlier stages, a fit counting as one.
    """

    stage: str = "train"
    offset: int = 0
    fitted: bool = False
    step: int = 0
    validated: int = 0
    best: float = math.inf
    best_step: int | None = None
    stale: int = 0
    plateau: float = 1.0
    plateau_stale: int = 0
    seconds: float = 0.0
    stopped_early: bool = False
    start: int | None = None

    @property
    def total(self) -> int:
        """Steps done in all stages; checkpoints and records are numbered by it."""
        return self.offset + self.step


def is_stale(stale: int, patience: int) -> bool:
    """Whether a stage ends after so many epochs without improvement.

    Args:
        stale: the epochs without improvement.
        patience: how many end it; 0 for never.

    Example:
        >>> is_stale(3, 3), is_stale(3, 0)
        (True, False)
    """
    return 0 < patience <= stale

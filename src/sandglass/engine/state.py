"""Where a run stands, in plain values."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass
class State:
    """What the loop remembers beside the stepper: plain values, stored in ``state.json``.

    Steps are counted within the stage; ``offset`` is how many all stages before had, a fit being one.
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
        """Steps done in all stages: what checkpoints and records are numbered by."""
        return self.offset + self.step

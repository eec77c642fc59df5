"""Step decay."""

from __future__ import annotations

import torch
from torch import Tensor

from sandglass.registry import register
from sandglass.schedules._checks import check
from sandglass.schedules.schedule import Schedule


@register("step", kind="schedule")
class Step(Schedule):
    """Multiplies by a factor at regular intervals; for a learning rate.

    Args:
        every: epochs between multiplications.
        factor: the multiplier.

    Example:
        >>> [round(Step(every=2, factor=0.1)(t), 4) for t in (0, 1.9, 2, 4)]
        [1.0, 1.0, 0.1, 0.01]
    """

    def __init__(self, *, every: float = 10.0, factor: float = 0.1) -> None:
        self.every = check("every", every, above=True)
        self.factor = check("factor", factor, above=True, most=1)

    def at(self, t: Tensor) -> Tensor:
        """``factor ** floor(t / every)``."""
        return torch.pow(self.factor, (t / self.every).floor())

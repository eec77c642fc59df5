"""The constant schedule."""

from __future__ import annotations

import torch
from torch import Tensor

from sandglass.registry import register
from sandglass.schedules.schedule import Schedule


@register("constant", kind="schedule")
class Constant(Schedule):
    """Always 1.

    Example:
        >>> Constant()(7.5)
        1.0
    """

    final = 1.0

    def at(self, t: Tensor) -> Tensor:
        """1."""
        return torch.ones_like(t)

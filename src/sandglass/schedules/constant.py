"""No schedule."""

from __future__ import annotations

import torch
from torch import Tensor

from sandglass.core import Schedule
from sandglass.registry import register


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

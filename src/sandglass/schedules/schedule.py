"""What every schedule offers."""

from __future__ import annotations

import abc
from typing import overload

import torch
from torch import Tensor


class Schedule(abc.ABC):
    """A factor that follows time: a pure function of it, so a run that goes on meets the values it would have met.

    Attributes:
        final: the factor at the end of time; None where it never comes to rest, which suits a learning rate alone.
    """

    final: float | None = None

    @overload
    def __call__(self, t: Tensor) -> Tensor: ...
    @overload
    def __call__(self, t: float) -> float: ...
    def __call__(self, t: Tensor | float) -> Tensor | float:
        """The factor after ``t`` epochs: a 0-d tensor for such a tensor, a number (by float64) for a number."""
        return self.at(t) if isinstance(t, Tensor) else float(self.at(torch.tensor(t, dtype=torch.float64)))

    @abc.abstractmethod
    def at(self, t: Tensor) -> Tensor:
        """The factor after ``t`` epochs, element by element, of the type and device of ``t``; ``final`` at infinity."""

"""Base class of schedules."""

from __future__ import annotations

import abc
from typing import overload

import torch
from torch import Tensor


class Schedule(abc.ABC):
    """A factor as a pure function of time, so that a resumed run continues with the same values.

    Attributes:
        final: the factor as time goes to infinity; None without a limit, which is only allowed for a learning rate.
        by_updates: whether its time is in updates, in place of epochs.
    """

    final: float | None = None
    by_updates: bool = False

    @overload
    def __call__(self, t: Tensor) -> Tensor: ...
    @overload
    def __call__(self, t: float) -> float: ...
    def __call__(self, t: Tensor | float) -> Tensor | float:
        """The factor after ``t`` epochs: a tensor for a tensor, a float (computed in float64) for a number."""
        if isinstance(t, Tensor):
            return self.at(t)
        return float(self.at(torch.tensor(t, dtype=torch.float64, device="cpu")))  # a model may be built on meta

    @abc.abstractmethod
    def at(self, t: Tensor) -> Tensor:
        """The factor after ``t`` epochs, elementwise, with the dtype and device of ``t``; ``final`` at infinity."""

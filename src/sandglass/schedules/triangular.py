"""Cyclical learning rates: triangular waves between 1 and a peak.

Smith 2017, "Cyclical Learning Rates for Training Neural Networks" (arXiv 1506.01186). With ``every`` the paper's step
size (half a cycle), ``cycle = floor(1 + t / (2 every))`` and ``x = |t / every - 2 cycle + 1|``, the factor is
``1 + (peak - 1) * max(0, 1 - x) * height``; the three schedules differ in the height.
"""

from __future__ import annotations

import abc

import torch
from torch import Tensor

from sandglass.registry import register
from sandglass.schedules._checks import check
from sandglass.schedules.schedule import Schedule


class Waves(Schedule):
    """Triangular waves between 1 and ``peak``, scaled by a height; without a final value.

    Args:
        every: epochs in half a cycle.
        peak: the factor at the peak of the first cycle: the largest learning rate over the smallest.
    """

    def __init__(self, *, every: float = 2.0, peak: float = 4.0) -> None:
        self.every = check("every", every, above=True)
        self.peak = check("peak", peak, 1, above=True)

    @abc.abstractmethod
    def height(self, t: Tensor, cycle: Tensor) -> Tensor:
        """Relative height after ``t`` epochs, in cycle 1, 2, ...; initially 1."""

    def at(self, t: Tensor) -> Tensor:
        """``1 + (peak - 1) * max(0, 1 - x) * height``."""
        half = t / self.every
        cycle = torch.floor(1 + half / 2)
        x = (half - 2 * cycle + 1).abs()
        return 1 + (self.peak - 1) * (1 - x).clamp(min=0) * self.height(t, cycle)


@register("triangular", kind="schedule")
class Triangular(Waves):
    """Triangular waves of constant height; for a learning rate.

    Smith 2017, "Cyclical Learning Rates for Training Neural Networks" (arXiv 1506.01186).

    Args:
        every: epochs in half a cycle.
        peak: the factor at the peak of a cycle: the largest learning rate over the smallest.

    Example:
        >>> [Triangular(every=2, peak=3)(t) for t in (0, 1, 2, 3, 4, 6)]
        [1.0, 2.0, 3.0, 2.0, 1.0, 3.0]
    """

    def height(self, t: Tensor, cycle: Tensor) -> Tensor:
        """1."""
        return torch.ones_like(t)


@register("triangular2", kind="schedule")
class Triangular2(Waves):
    """Triangular waves whose height halves every cycle; for a learning rate.

    Smith 2017, "Cyclical Learning Rates for Training Neural Networks" (arXiv 1506.01186).

    Args:
        every: epochs in half a cycle.
        peak: the factor at the peak of the first cycle: the largest learning rate over the smallest.

    Example:
        >>> [Triangular2(every=2, peak=3)(t) for t in (0, 2, 4, 6, 10)]
        [1.0, 3.0, 1.0, 2.0, 1.5]
    """

    def height(self, t: Tensor, cycle: Tensor) -> Tensor:
        """``1 / 2 ** (cycle - 1)``."""
        return torch.pow(0.5, cycle - 1)


@register("exp_range", kind="schedule")
class ExpRange(Waves):
    """Triangular waves whose height decays exponentially; for a learning rate.

    Smith 2017, "Cyclical Learning Rates for Training Neural Networks" (arXiv 1506.01186); the paper's ``gamma`` is per
    update, ``factor`` is per half cycle.

    Args:
        every: epochs in half a cycle.
        peak: the factor at a peak without decay: the largest learning rate over the smallest.
        factor: decay of the height per half cycle.

    Example:
        >>> [ExpRange(every=2, peak=3, factor=0.5)(t) for t in (0, 2, 4, 6)]
        [1.0, 2.0, 1.0, 1.25]
    """

    def __init__(self, *, every: float = 2.0, peak: float = 4.0, factor: float = 0.9) -> None:
        super().__init__(every=every, peak=peak)
        self.factor = check("factor", factor, above=True, most=1)

    def height(self, t: Tensor, cycle: Tensor) -> Tensor:
        """``factor ** (t / every)``."""
        return torch.pow(self.factor, t / self.every)

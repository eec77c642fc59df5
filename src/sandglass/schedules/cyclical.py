"""A warm-up, again and again."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from sandglass.errors import ConfigError
from sandglass.registry import register
from sandglass.schedules._checks import check
from sandglass.schedules.ramps import SHAPES
from sandglass.schedules.schedule import Schedule


@register("cyclical", kind="schedule")
class Cyclical(Schedule):
    """Rises from 0 to 1 several times, resting at 1 after each rise and from the last one on.

    Within a cycle, at the share ``u`` of it, the factor is ``ramp(u / ratio)`` up to ``u = ratio`` and 1 after. Fu et
    al. 2019, "Cyclical Annealing Schedule: A Simple Approach to Mitigating KL Vanishing" (arXiv 1903.10145).

    Args:
        epochs: how long all cycles take together.
        cycles: how many there are.
        ratio: share of a cycle that the rise takes.
        ramp: the way of the rise: linear, sigmoid or cosine.

    Example:
        >>> [Cyclical(epochs=8, cycles=2)(t) for t in (0, 1, 2, 3, 4, 5, 8, 9)]
        [0.0, 0.5, 1.0, 1.0, 0.0, 0.5, 1.0, 1.0]
    """

    final = 1.0

    def __init__(
        self,
        *,
        epochs: float = 20.0,
        cycles: int = 4,
        ratio: float = 0.5,
        ramp: Literal["linear", "sigmoid", "cosine"] = "linear",
    ) -> None:
        self.epochs = check("epochs", epochs, above=True)
        self.cycles = check("cycles", cycles, 1)
        self.ratio = check("ratio", ratio, above=True, most=1)
        if ramp not in SHAPES:
            raise ConfigError(f"The schedule option ramp must be one of {', '.join(SHAPES)}, not {ramp}.")
        self.ramp = ramp

    def at(self, t: Tensor) -> Tensor:
        """The rise of the cycle that ``t`` is in."""
        cycle = t * (self.cycles / self.epochs)
        rise = SHAPES[self.ramp](((cycle - cycle.floor()) / self.ratio).clamp(max=1))
        return torch.where(t < self.epochs, rise, 1.0)  # at the end of time a cycle's share is not a number

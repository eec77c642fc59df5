"""Cyclical warm-up."""

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
    """Increases from 0 to 1 in several cycles, stays at 1 for the rest of each, and at 1 after the last.

    At the fraction ``u`` of a cycle the factor is ``ramp(u / ratio)`` up to ``u = ratio`` and 1 after that. Fu et al.
    2019, "Cyclical Annealing Schedule: A Simple Approach to Mitigating KL Vanishing" (arXiv 1903.10145).

    Args:
        epochs: total duration of all cycles.
        cycles: number of cycles.
        ratio: fraction of a cycle during which the factor increases.
        ramp: shape of the increase: linear, sigmoid or cosine.

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
        """The factor in the cycle of ``t``."""
        cycle = t * (self.cycles / self.epochs)
        rise = SHAPES[self.ramp](((cycle - cycle.floor()) / self.ratio).clamp(max=1))
        return torch.where(t < self.epochs, rise, 1.0)  # the fraction of a cycle is NaN at infinity

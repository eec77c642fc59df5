"""A loss weight with a schedule."""

from __future__ import annotations

import abc
import math
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from sandglass.core import Clock
from sandglass.errors import ConfigError
from sandglass.registry import names, resolve
from sandglass.schedules.constant import Constant
from sandglass.schedules.schedule import Schedule


class Weights(abc.ABC):
    """Several weights of one objective, such as those of a penalty."""

    @property
    @abc.abstractmethod
    def weights(self) -> tuple[Weight, ...]:
        """The weights that can follow a schedule."""


class Weight:
    """A value times a schedule.

    Args:
        name: the option that sets the value; the schedule's option is named ``NAME_schedule``.
        value: the weight where the schedule is 1; finite and at least 0.
        schedule: a schedule with a final value, at which the best model weights are selected.

    Raises:
        ConfigError: the value is out of range, or the schedule has no final value.

    Example:
        >>> import torch
        >>> beta = Weight("beta", 4.0, {"name": "linear", "epochs": 10})
        >>> beta(Clock(epoch=torch.tensor(2.5))), beta(Clock.final())
        (tensor(1.), tensor(4.))
    """

    def __init__(self, name: str, value: float, schedule: Schedule | str | Mapping[str, Any]) -> None:
        if not 0 <= value < math.inf:
            raise ConfigError(f"The option {name} must be a finite number of at least 0, not {value}.")
        self.name, self.value = name, value
        self.schedule: Schedule = resolve("schedule", schedule)
        if self.schedule.final is None:
            able = [n for n in names("schedule") if resolve("schedule", n).final is not None]
            raise ConfigError(
                f"The option {name}_schedule needs a schedule with a final value, one of: {', '.join(able)}."
            )

    def __call__(self, clock: Clock) -> Tensor | float:
        """The current value: a ``()`` tensor, or a number where it is constant."""
        return self.value * self._factor(clock) if self.moves else self.final

    @property
    def final(self) -> float:
        """The value at the end of the schedule."""
        assert self.schedule.final is not None  # checked in __init__
        return self.value * self.schedule.final

    def unreached(self, epochs: int) -> str:
        """A warning where training ends before a schedule in epochs does; empty otherwise.

        Example:
            >>> print(Weight("beta", 1.0, {"name": "linear", "epochs": 10}).unreached(5))
            beta reaches only 0.5 by the end of epoch 5, but the run is evaluated with 1; train for longer...
            >>> Weight("beta", 1.0, {"name": "linear", "epochs": 10}).unreached(10)
            ''
        """
        reached = self.value * self.schedule(epochs)
        if not self.moves or self.schedule.by_updates or math.isclose(reached, self.final, rel_tol=1e-6, abs_tol=1e-9):
            return ""
        return (
            f"{self.name} reaches only {reached:.3g} by the end of epoch {epochs}, but the run is evaluated with "
            f"{self.final:g}; train for longer, or shorten {self.name}_schedule."
        )

    @property
    def moves(self) -> bool:
        """Whether it changes over time."""
        return self.value > 0 and not isinstance(self.schedule, Constant)

    def scalar(self, clock: Clock, name: str = "") -> dict[str, Tensor]:
        """Its current value ``()`` under its name or another, for logging; empty where it is constant."""
        return {name or self.name: self.value * self._factor(clock)} if self.moves else {}

    def _factor(self, clock: Clock) -> Tensor:
        return self.schedule(clock.update if self.schedule.by_updates else clock.epoch)

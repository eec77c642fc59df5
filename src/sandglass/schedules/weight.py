"""A number in a loss that may change over time."""

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
    """A value times a schedule, read off the clock.

    Args:
        name: the option that sets the value; the schedule's option is named ``NAME_schedule``.
        value: what it comes to where the schedule is 1; finite and at least 0.
        schedule: a choice of a schedule that comes to rest, for the best weights are chosen at its final value.

    Raises:
        ConfigError: another value, or a schedule that never comes to rest.

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
                f"The option {name}_schedule needs a schedule that comes to rest, one of: {', '.join(able)}."
            )

    def __call__(self, clock: Clock) -> Tensor | float:
        """``()``, its value at this time; a number where it does not move."""
        return self.value * self.schedule(clock.epoch) if self.moves else self.final

    @property
    def final(self) -> float:
        """Its value at the end of time."""
        assert self.schedule.final is not None  # or it would have been refused
        return self.value * self.schedule.final

    def unreached(self, epochs: int) -> str:
        """What to say where so many epochs end before the schedule does; nothing where it comes to rest in time.

        Example:
            >>> print(Weight("beta", 1.0, {"name": "linear", "epochs": 10}).unreached(5))
            beta has come to 0.5 when epoch 5 ends, but the run is judged as if it were 1; train for longer...
            >>> Weight("beta", 1.0, {"name": "linear", "epochs": 10}).unreached(10)
            ''
        """
        reached = self.value * self.schedule(epochs)
        if not self.moves or math.isclose(reached, self.final, rel_tol=1e-6, abs_tol=1e-9):
            return ""
        return (
            f"{self.name} has come to {reached:.3g} when epoch {epochs} ends, but the run is judged as if it "
            f"were {self.final:g}; train for longer, or shorten {self.name}_schedule."
        )

    @property
    def moves(self) -> bool:
        """Whether it depends on the clock."""
        return self.value > 0 and not isinstance(self.schedule, Constant)

    def scalar(self, clock: Clock, name: str = "") -> dict[str, Tensor]:
        """``()``, its value at this time under its name or another; nothing where it does not move."""
        return {name or self.name: self.value * self.schedule(clock.epoch)} if self.moves else {}

"""Learning rate over time: pure functions of the step, except plateau, which depends on the validation objective."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import torch

from sandglass.engine.options import Settled
from sandglass.registry import resolve, schema
from sandglass.schedules.ramps import Linear
from sandglass.schedules.schedule import Schedule


def make_factor(options: Settled, steps_per_epoch: int) -> Callable[[int], float]:
    """The factor of the learning rate by step; that of plateau is part of the loop's state.

    A warm-up of n steps rises linearly from 1 / (n + 1); the schedule begins after it.

    Args:
        options: settled ones.
        steps_per_epoch: updates in an epoch.

    Example:
        >>> factor = make_factor(Settled(epochs=2, schedule="cosine"), steps_per_epoch=10)
        >>> [round(factor(step), 3) for step in (0, 10, 19)]
        [1.0, 0.5, 0.006]
    """
    schedule, warm = _after_warmup(options), options.lr_warmup

    @lru_cache(maxsize=1)
    def of_epoch(epoch: int) -> list[float]:
        """The factors of all steps of an epoch at once, so that a step needs no tensor operations for it."""
        first = epoch * steps_per_epoch
        t = torch.arange(first, first + steps_per_epoch, dtype=torch.float64, device="cpu") / steps_per_epoch
        factors = schedule.at((t - warm).clamp(min=0))
        if warm:
            warmup = Linear(epochs=warm, start=1 / (warm * steps_per_epoch + 1))
            factors = torch.where(t < warm, warmup.at(t), factors)
        return [float(f) for f in factors.tolist()]

    return lambda step: of_epoch(step // steps_per_epoch)[step % steps_per_epoch]


def _after_warmup(options: Settled) -> Schedule:
    """The registered schedule of that name with the run's options; cosine falls until the end of the run."""
    if options.schedule == "plateau":
        return _made("constant", {})
    if options.schedule == "cosine":
        return _made("cosine", {"start": 1.0, "end": 0.0, "epochs": max(options.epochs - options.lr_warmup, 1.0)})
    given = {"every": options.schedule_every, "factor": options.schedule_factor, "peak": options.schedule_peak}
    known = {option.name for option in schema("schedule", options.schedule)}
    return _made(options.schedule, {name: value for name, value in given.items() if name in known})


def _made(name: str, given: dict[str, Any]) -> Schedule:
    schedule: Schedule = resolve("schedule", {"name": name, **given})
    return schedule

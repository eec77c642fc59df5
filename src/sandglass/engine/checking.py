"""Checks of the values of training options."""

from __future__ import annotations

from numbers import Integral, Real
from typing import Any

from sandglass.errors import ConfigError

_WHOLE = (
    *("epochs", "max_steps", "batch_size", "accumulate", "early_stopping", "seed", "threads", "log_every"),
    *("save_every", "save_steps", "keep", "sheets"),
)
_NUMBERS = (
    *("minutes", "lr", "weight_decay", "momentum", "lr_warmup", "schedule_every", "schedule_factor", "schedule_peak"),
    *("clip", "ema", "save_seconds"),
)


def check_number(name: str, value: Any) -> None:
    """Checks that a training option that is a number is one, or None.

    Raises:
        ConfigError: it is not.

    Example:
        >>> check_number("epochs", 3), check_number("lr", 0.1), check_number("optimizer", "adam")
        (None, None, None)
        >>> check_number("epochs", 2.5)
        Traceback (most recent call last):
        sandglass.errors.ConfigError: The training option epochs must be a whole number, not 2.5.
    """
    for names, kind, wanted in ((_WHOLE, Integral, "a whole number"), (_NUMBERS, Real, "a number")):
        good = value is None or (isinstance(value, kind) and not isinstance(value, bool))
        check(name, name not in names or good, f"{value!r:.80}", wanted)


def check(name: str, good: bool, value: object, wanted: str) -> None:
    """Refuses a value of a training option.

    Raises:
        ConfigError: it is not good.
    """
    if not good:
        raise ConfigError(f"The training option {name} must be {wanted}, not {value}.")

"""Checks of the values of training options."""

from __future__ import annotations

from numbers import Integral, Real
from typing import Any

from sandglass.errors import ConfigError


def plain_number(name: str, value: Any, kind: str) -> Any:
    """A training option as a plain number, where it has to be one.

    Args:
        name: of the option.
        value: given; whole numbers may be written as 2.0.
        kind: its annotation; other kinds than ``int`` and ``float``, and None, are returned as they are.

    Raises:
        ConfigError: it is not a number, or not a whole one where it has to be.

    Example:
        >>> plain_number("epochs", 3.0, "int | None"), plain_number("lr", 0.1, "float")
        (3, 0.1)
        >>> plain_number("epochs", 2.5, "int")
        Traceback (most recent call last):
        sandglass.errors.ConfigError: The training option epochs must be a whole number, not 2.5.
    """
    kind = kind.removesuffix(" | None")
    if value is None or kind not in ("int", "float"):
        return value
    number = isinstance(value, Real) and not isinstance(value, bool)
    whole = number and (isinstance(value, Integral) or float(value).is_integer())
    shown = f"{value!r:.80}"
    if kind == "int":
        check(name, whole, shown, "a whole number")
        return int(value)
    check(name, number, shown, "a number")
    return value if type(value) in (int, float) else float(value)


def check(name: str, good: bool, value: object, wanted: str) -> None:
    """Refuses a value of a training option.

    Raises:
        ConfigError: it is not good.
    """
    if not good:
        raise ConfigError(f"The training option {name} must be {wanted}, not {value}.")

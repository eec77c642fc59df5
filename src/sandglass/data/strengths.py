"""Parses augmentations and corruptions by name and strength, such as ``flip,rotate=20``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

from sandglass.errors import ConfigError
from sandglass.registry import nearest

Strengths = str | Sequence[str] | Mapping[str, float]
"""Names with strengths: ``"flip,rotate=20"``, ``["flip", "rotate=20"]`` or ``{"flip": 0.5, "rotate": 20}``."""

SEVERITIES = 5
"""The highest severity; the lowest is 1."""


@dataclass(frozen=True)
class Scale:
    """The range of a strength; 0 always means no change.

    Args:
        usual: default strength.
        largest: largest strength.
        about: description of the strength, with its unit.
        severities: strengths of the severities ``@1`` to ``@5``; empty if there are none.
    """

    usual: float
    largest: float
    about: str
    severities: tuple[float, ...] = ()


def read(what: str, scales: Mapping[str, Scale], given: Strengths) -> dict[str, float]:
    """Parses and checks names and strengths, in the order given.

    Args:
        what: kind of change for messages, such as ``"augmentation"``.
        scales: the known names with their ranges.
        given: names with the default strength (``flip``), a strength (``rotate=20``) or a severity (``blur@3``).

    Raises:
        ConfigError: an unknown or repeated name, or an invalid strength.

    Example:
        >>> scales = {"blur": Scale(1.0, 32.0, "pixels", (0.5, 1.0, 1.5, 2.0, 3.0)), "flip": Scale(0.5, 1.0, "chance")}
        >>> read("change", scales, "flip, blur=2"), read("change", scales, ["blur@5"])
        ({'flip': 0.5, 'blur': 2.0}, {'blur': 3.0})
    """
    if isinstance(given, Mapping):
        pairs: list[tuple[str, object]] = list(given.items())
    else:
        words = given.split(",") if isinstance(given, str) else list(given)
        pairs = [_pair(what, word) for word in words if not isinstance(word, str) or word.strip()]
    found: dict[str, float] = {}
    for name, strength in pairs:
        if name not in scales:
            hint = nearest(str(name), list(scales))
            raise ConfigError(f"There is no {what} '{name}'.{hint} Known: {', '.join(scales)}.")
        if name in found:
            raise ConfigError(f"The {what} '{name}' is given twice; give it once.")
        found[name] = _number(what, name, scales[name], strength)
    return found


def write(strengths: Mapping[str, float]) -> list[str]:
    """Strengths as strings that :func:`read` parses, the inverse of it.

    Example:
        >>> write({"flip": 0.5, "rotate": 20.0})
        ['flip=0.5', 'rotate=20']
    """
    return [f"{name}={repr(float(value)).removesuffix('.0')}" for name, value in strengths.items()]


def _pair(what: str, word: object) -> tuple[str, object]:
    """Splits ``rotate=20`` into name and strength; None if there is no strength."""
    if not isinstance(word, str):
        raise ConfigError(f"Name each {what} by a text such as 'name' or 'name=0.2', not {word!r}.")
    name, equals, value = word.partition("=")
    if not equals and "@" in word:
        name, _, step = word.partition("@")
        value, equals = f"@{step.strip()}", "@"
    return name.strip(), value.strip() if equals else None


def _number(what: str, name: str, scale: Scale, given: object) -> float:
    """The strength from a number, a string, a severity ``@N``, or None for the default."""
    if given is None:
        return scale.usual
    if isinstance(given, str) and given.startswith("@"):
        steps = {f"@{i}": value for i, value in enumerate(scale.severities, 1)}
        if given not in steps:
            has = f"has the severities @1 to @{SEVERITIES}" if steps else "has no severities, only a strength"
            raise ConfigError(f"{what} '{name}' {has}, not '{given}'.")
        return steps[given]
    value = given
    if isinstance(value, str):
        with suppress(ValueError):
            value = float(value)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= scale.largest:
        raise ConfigError(f"{what} '{name}' must lie in 0 to {scale.largest:g} ({scale.about}), not {given!r}.")
    return float(value)

"""Changes by name and strength, as a person writes them: ``flip,rotate=20``, a list of such words, or a mapping."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

from sandglass.errors import ConfigError
from sandglass.registry import nearest

Strengths = str | Sequence[str] | Mapping[str, float]
"""How changes are asked for: ``"flip,rotate=20"``, ``["flip", "rotate=20"]`` or ``{"flip": 0.5, "rotate": 20}``."""

SEVERITIES = 5
"""The most severe step of a scale; the mildest is 1."""


@dataclass(frozen=True)
class Scale:
    """How strong a change can be; 0 always stands for no change.

    Args:
        usual: the strength where none is named.
        largest: the largest strength that makes sense.
        about: what the strength is, with its unit.
        severities: strengths of the steps ``@1`` to ``@5``; empty where there are no steps.
    """

    usual: float
    largest: float
    about: str
    severities: tuple[float, ...] = ()


def read(what: str, scales: Mapping[str, Scale], given: Strengths) -> dict[str, float]:
    """Names and strengths, checked, in the order given.

    Args:
        what: what messages call one of them, such as ``"augmentation"``.
        scales: what there is.
        given: names with their usual strength (``flip``), a strength (``rotate=20``) or a severity (``blur@3``).

    Raises:
        ConfigError: an unknown name, one that comes twice, or a strength that makes no sense.

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
            raise ConfigError(f"The {what} '{name}' is named twice; name it once.")
        found[name] = _number(what, name, scales[name], strength)
    return found


def write(strengths: Mapping[str, float]) -> list[str]:
    """The words that :func:`read` makes the same strengths of, each with its number.

    Example:
        >>> write({"flip": 0.5, "rotate": 20.0})
        ['flip=0.5', 'rotate=20']
    """
    return [f"{name}={repr(float(value)).removesuffix('.0')}" for name, value in strengths.items()]


def _pair(what: str, word: object) -> tuple[str, object]:
    """``rotate=20`` as its name and strength; without one, None stands for the usual."""
    if not isinstance(word, str):
        raise ConfigError(f"Name each {what} by a text such as 'name' or 'name=0.2', not {word!r}.")
    name, equals, value = word.partition("=")
    if not equals and "@" in word:
        name, _, step = word.partition("@")
        value, equals = f"@{step.strip()}", "@"
    return name.strip(), value.strip() if equals else None


def _number(what: str, name: str, scale: Scale, given: object) -> float:
    """A strength out of a number, a text of one, ``@step``, or None for the usual."""
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

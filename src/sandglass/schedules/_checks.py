"""Validation of schedule options."""

from __future__ import annotations

import math

from sandglass.errors import ConfigError


def check(name: str, value: float, least: float = 0.0, *, most: float = math.inf, above: bool = False) -> float:
    """The value, if it is finite, at least ``least`` (with ``above``, greater than it) and at most ``most``.

    Raises:
        ConfigError: the value is out of range.
    """
    if math.isfinite(value) and (value > least if above else value >= least) and value <= most:
        return value
    wanted = f"{'above' if above else 'at least'} {least:g}" + (f" and at most {most:g}" if most < math.inf else "")
    raise ConfigError(f"The schedule option {name} must be a finite number {wanted}, not {value}.")

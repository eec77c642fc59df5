"""What every schedule asks of its numbers."""

from __future__ import annotations

import math

from sandglass.errors import ConfigError


def check(name: str, value: float, least: float = 0.0, *, most: float = math.inf, above: bool = False) -> float:
    """The value, if it is finite and lies from ``least`` (or, with ``above``, beyond it) to ``most``.

    Raises:
        ConfigError: it does not.
    """
    if math.isfinite(value) and (value > least if above else value >= least) and value <= most:
        return value
    wanted = f"{'above' if above else 'at least'} {least:g}" + (f" and at most {most:g}" if most < math.inf else "")
    raise ConfigError(f"The schedule option {name} must be a finite number {wanted}, not {value}.")

"""Validation of dataset options."""

from __future__ import annotations

from typing import Any

from sandglass.errors import ConfigError


def whole(dataset: str, option: str, value: Any, least: int) -> int:
    """Checks that an option is a whole number of at least ``least``, and returns it.

    Raises:
        ConfigError: it is not.

    Example:
        >>> whole("shapes", "side", 32, 8)
        32
    """
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ConfigError(f"{dataset}: {option} must be a whole number of at least {least}, not {value!r}.")
    return value

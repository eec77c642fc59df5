"""Validation of a run's ``config.yaml``, and the settings that must not change on resume."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from types import NoneType
from typing import Any

from sandglass.errors import ConfigError
from sandglass.runs.plain import strict_json

_SECTIONS: dict[str, type | tuple[type, ...]] = {  # each section before its entries
    "model": dict, "model.name": str, "model.options": dict, "training": dict, "spec": dict, "transform": dict,
    "data": dict, "data.name": str, "data.source": (dict, NoneType), "data.fingerprint": str, "data.examples": dict,
    "data.notes": list, "classes": list, "environment": dict,
}  # fmt: skip
"""The types of the sections of ``config.yaml``; code that reads a run may rely on them."""


def check(config: Mapping[str, Any], path: Path) -> None:
    """Checks the types of the sections of a configuration.

    Raises:
        ConfigError: a section is of the wrong type; the message names the file and the section.
    """
    for name, kinds in _SECTIONS.items():
        *way, last = name.split(".")
        place = config.get(way[0], {}) if way else config
        if last in place and not isinstance(place[last], kinds):
            raise ConfigError(f"{path} is damaged: '{name}' has the wrong type.")


def fixed(config: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that must not change on resume, flat: options by dotted name, long sections as their SHA-256.

    The length of training is not included, because it may be increased, nor the sheets, which change nothing.

    Example:
        >>> fixed({"model": {"name": "vae"}, "training": {"epochs": 3, "lr": 0.1}})
        {'model.name': 'vae', 'training.lr': 0.1}
    """
    values: dict[str, Any] = {}
    for section in ("model", "training"):
        values |= flat(config.get(section) or {}, section)
    values |= {f"data.{k}": (config.get("data") or {}).get(k) for k in ("fingerprint",) if "data" in config}
    for section in ("spec", "transform", "classes"):
        if section in config:
            values[section] = hashlib.sha256(strict_json(config[section]).encode()).hexdigest()
    return {name: value for name, value in values.items() if not may_change(name)}


def may_change(name: str) -> bool:
    """Whether an option, by its dotted name, may change on resume.

    Example:
        >>> may_change("training.stage.prior.epochs"), may_change("training.lr")
        (True, False)
    """
    return name.startswith("training.") and name.endswith((".epochs", ".max_steps", ".early_stopping", ".sheets"))


def flat(values: Any, prefix: str) -> dict[str, Any]:
    """Nested values by dotted name.

    Example:
        >>> flat({"a": 1, "b": {"c": (2, 3)}}, "x")
        {'x.a': 1, 'x.b.c': [2, 3]}
    """
    if not isinstance(values, Mapping):
        return {prefix: list(values) if isinstance(values, tuple) else values}
    return {name: v for key, value in values.items() for name, v in flat(value, f"{prefix}.{key}").items()}

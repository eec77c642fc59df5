"""Recipes: YAML files with the sections of a ``config.yaml``, a summary, and the figures to draw at the end."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path
from typing import Any

from sandglass.errors import ConfigError


def names() -> list[str]:
    """The names of all recipes, sorted.

    Example:
        >>> "digits" in names()
        True
    """
    return sorted(f.name.removesuffix(".yaml") for f in files(__package__).iterdir() if f.name.endswith(".yaml"))


def read(name: str) -> dict[str, Any]:
    """Reads a recipe with ``summary``, ``model``, ``data``, ``training`` and ``show``.

    Raises:
        ConfigError: there is no such recipe; the message suggests similar names.
    """
    from sandglass.registry import nearest
    from sandglass.runs.plain import read_yaml

    if name not in names():
        raise ConfigError(f"There is no recipe '{name}'.{nearest(name, names())} Known: {', '.join(names())}.")
    return read_yaml(Path(str(files(__package__) / f"{name}.yaml")))

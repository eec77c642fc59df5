"""What a saved model needs that is no part of Sandglass: files or packages that register it, and custom objects."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sandglass import registry
from sandglass.errors import ConfigError


def check_needed(config: Mapping[str, Any], parts: Mapping[str, Any], source: Path | str) -> None:
    """Checks that the model of a configuration can be built: its file was imported, its custom objects are given.

    Nothing is imported here: a configuration only names what a person may import.

    Args:
        config: of a run or model folder.
        parts: the custom objects that are given.
        source: its name in messages.

    Raises:
        ConfigError: something is not; the message says what to give.
    """
    imports = config.get("imports")
    if isinstance(imports, list) and imports and not registry.registered(config["model"]):
        names = " and ".join(str(name)[:99] for name in imports)
        files = " ".join(f"--import {str(name)[:99]}" for name in imports if str(name).endswith(".py"))
        model = config["model"]["name"]
        give = f"give {files}, or import it first in Python" if files else f"install it for the model '{model}'"
        raise ConfigError(f"{source} needs {names}; {give}.")
    for key, value in config["model"]["options"].items():
        if isinstance(value, Mapping) and "custom" in value and key not in parts:
            raise ConfigError(
                f"{source} was trained with a custom {key} ({value['custom']}); pass {key}=... to load it in Python."
            )

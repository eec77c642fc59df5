"""What a saved model needs that is no part of Sandglass: files or packages that register it, and custom objects."""

from __future__ import annotations

import re
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
        # A configuration may be anyone's: what is no plain name is not printed into a command.
        known = [str(name)[:99] for name in imports if re.fullmatch(r"[\w.][\w.-]*", str(name)[:99])]
        model = str(config["model"]["name"])
        own = f"the model '{model}'" if re.fullmatch(r"[\w.-]+", model) else "its model"
        others = [name for name in known if name != "__main__"]
        if not others:
            where = ", which was defined in a notebook or script" if known else ""
            raise ConfigError(f"{source} needs {own}{where}; register it first in Python.")
        files = " ".join(f"--import {name}" for name in others if name.endswith(".py"))
        give = f"give {files}, or import it first in Python" if files else f"install it for {own}"
        raise ConfigError(f"{source} needs {' and '.join(others)}; {give}.")
    for key, value in config["model"]["options"].items():
        if isinstance(value, Mapping) and "custom" in value and key not in parts:
            raise ConfigError(
                f"{source} was trained with a custom {key} ({value['custom']}); pass {key}=... to load it in Python."
            )

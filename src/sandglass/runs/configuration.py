"""The configuration of a run on disk: ``config.yaml``, and its long lists in JSON files beside it.

A table may have thousands of columns, and YAML is slow to read and large. A list of more than :data:`LONG` bytes is
written to ``config-<digest>.json``; in its place the YAML has the name of that file and its SHA-256. Nothing is written
that could not be read again.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from sandglass.errors import ConfigError
from sandglass.runs import settings
from sandglass.runs.plain import LARGEST, parse_json, read_bytes, read_yaml, strict_json, to_yaml

FILE = "config.yaml"
LONG = 2**16
"""Bytes of JSON of a list that stays in the YAML."""

_KEYS = {"json_file", "sha256"}
_NAME = re.compile(r"config-[0-9a-f]{12}\.json")


def files_of(config: Mapping[str, Any]) -> dict[str, bytes]:
    """The files of a configuration by name, ``config.yaml`` last.

    Raises:
        ConfigError: they, or the model and checkpoints of the run, would be too large to be read again.

    Example:
        >>> list(files_of({"classes": ["a", "b"]}))
        ['config.yaml']
        >>> len(files_of({"classes": [f"class {n}" for n in range(9000)]}))
        2
    """
    files: dict[str, bytes] = {}

    def shortened(values: Any) -> Any:
        if isinstance(values, Mapping):
            return {key: shortened(value) for key, value in values.items()}
        if not isinstance(values, list | tuple):
            return values
        data = strict_json(values).encode()
        if len(data) <= LONG:
            return list(values)
        digest = hashlib.sha256(data).hexdigest()
        name = f"config-{digest[:12]}.json"
        files[name] = data
        return {"json_file": name, "sha256": digest}

    short = to_yaml(shortened(config))
    described = {key: config.get(key) for key in ("model", "spec", "transform", "classes")}
    for size in (
        sum(map(len, files.values())),
        len(strict_json(described, indent=1)),  # config.json of the model
        len(strict_json(settings.fixed(config), indent=1)),  # in every checkpoint
    ):
        if size > LARGEST - LONG:
            raise ConfigError(
                f"The description of this run takes {size / 2**20:.1f} MiB, most of it columns, categories or classes; "
                f"{LARGEST // 2**20} MiB can be read again. Leave out columns with --drop, or categories."
            )
    return {**files, FILE: short}


def read_config(path: Path, sections: Iterable[str] | None = None) -> dict[str, Any]:
    """The configuration of a file, with the lists that are beside it.

    Args:
        path: the file.
        sections: those whose lists are read; all by default.

    Raises:
        ConfigError: it cannot be parsed, or a list is missing or was changed.
        NotFoundError: it does not exist.
    """
    values = read_yaml(path)
    wanted = values.keys() if sections is None else set(sections)
    lists = _Lists(path.parent)
    return {key: lists.filled(value) if key in wanted else value for key, value in values.items()}


class _Lists:
    """The lists beside a configuration, each read once."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.known, self.bytes = folder, dict[str, list[Any]](), 0

    def filled(self, values: Any) -> Any:
        """Plain values with the lists in their places."""
        if isinstance(values, Mapping):
            if values.keys() == _KEYS:
                return self.read(str(values["json_file"]), str(values["sha256"]))
            return {key: self.filled(value) for key, value in values.items()}
        return [self.filled(value) for value in values] if isinstance(values, list) else values

    def read(self, name: str, digest: str) -> list[Any]:
        """The list of a file.

        Raises:
            ConfigError: the file is missing, is no list, was changed, or all of them together are too large.
        """
        path = self.folder / name
        if not _NAME.fullmatch(name):
            raise ConfigError(f"{self.folder / FILE} is damaged: '{name}' is not a file of a list.")
        if name not in self.known:
            try:
                data = read_bytes(path, LARGEST - self.bytes)
                values = parse_json(data)
            except FileNotFoundError as error:
                raise ConfigError(f"{path} is missing; {FILE} beside it names it.") from error
            except (OSError, ValueError) as error:
                raise ConfigError(f"{path} cannot be read: {error}") from error
            self.bytes += len(data)
            if hashlib.sha256(data).hexdigest() != digest or not isinstance(values, list):
                raise ConfigError(f"{path} is damaged: its SHA-256 is not the one in {FILE}.")
            self.known[name] = values
        return self.known[name]

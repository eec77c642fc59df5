"""Reads and writes plain values: strict JSON, JSON lines, and YAML without aliases or tags.

Files may be untrusted, so size, nesting depth and duplicate keys are checked before values are created.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from sandglass.errors import CheckpointError, ConfigError, NotFoundError

LARGEST = 8 * 2**20
"""Largest JSON file in bytes; values take up to twenty times the size of their text in memory."""

_LARGEST_YAML = 4 * 2**20
_LONGEST = 2**16  # largest number of characters of a YAML value
_MOST = 200_000  # largest number of values in a YAML file; each takes about a kilobyte while it is parsed


def read_yaml(path: str | Path) -> dict[str, Any]:
    """Reads a YAML file of plain values; aliases, tags and duplicate keys are errors.

    Raises:
        ConfigError: it cannot be parsed.
        NotFoundError: it does not exist.
    """
    try:
        values = _parse_yaml(read_bytes(Path(path), _LARGEST_YAML))
    except FileNotFoundError as error:
        raise NotFoundError(f"There is no file {path}.") from error
    except RecursionError as error:
        raise ConfigError(f"{path} cannot be read as YAML: it is nested too deeply.") from error
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise ConfigError(f"{path} cannot be read as YAML: {_brief(error)}") from error
    if not isinstance(values, dict):
        raise ConfigError(f"{path} must hold a mapping of options.")
    return values


def _parse_yaml(data: bytes) -> Any:
    """The values of a YAML document; ValueError or YAMLError where it is none, or too large."""
    loader = _Plain(data.decode())
    try:
        return loader.get_single_data()
    finally:
        loader.dispose()


def to_yaml(config: Mapping[str, Any]) -> bytes:
    """YAML in ASCII with escapes, because a path may contain undecodable bytes.

    Raises:
        ConfigError: :func:`read_yaml` would refuse it.
    """
    data = yaml.safe_dump(dict(config), sort_keys=False).encode("ascii")
    try:
        if len(data) > _LARGEST_YAML:
            raise ValueError(f"it has more than {_LARGEST_YAML // 2**20} MiB.")
        _parse_yaml(data)
    except (RecursionError, ValueError) as error:
        raise ConfigError(f"These options are too long to be read again from YAML: {_brief(error)}") from error
    return data


def parse_json(data: bytes) -> Any:
    """Parses strict JSON: UTF-8, no NaN or infinity, no duplicate names in an object.

    Raises:
        ValueError: it is not strict JSON; the message says where.

    Example:
        >>> parse_json(b'{"a": [1, null]}')
        {'a': [1, None]}
    """
    try:
        return json.loads(data.decode(), object_pairs_hook=_unique, parse_constant=_no_constant)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error


def read_json(path: Path, most: int = LARGEST) -> dict[str, Any]:
    """Reads a file with a JSON object.

    Args:
        path: the file.
        most: largest size in bytes.

    Raises:
        NotFoundError: it does not exist.
        CheckpointError: it is damaged, or too large.
    """
    try:
        values = parse_json(read_bytes(path, most))
    except FileNotFoundError as error:
        raise NotFoundError(f"There is no file {path}.") from error
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path} is damaged: {_brief(error)}") from error
    if not isinstance(values, dict):
        raise CheckpointError(f"{path} is damaged: it is not a JSON object.")
    return values


def read_jsonl(path: Path) -> list[dict[str, Any]]:
    """All complete lines of a file of JSON records.

    Raises:
        CheckpointError: a line is not a record; the message has its number.
    """
    if not path.is_file():
        return []
    return _records(path, path.read_bytes(), "line ")


def _records(path: Path, data: bytes, place: str) -> list[dict[str, Any]]:
    records = []
    for number, line in enumerate(data[: data.rfind(b"\n") + 1].splitlines(), 1):
        try:
            record = parse_json(line)
        except ValueError as error:
            raise CheckpointError(f"{path}, {place}{number}, is damaged: {_brief(error)}") from error
        if not isinstance(record, dict):
            raise CheckpointError(f"{path}, {place}{number}, is damaged: it is not a JSON object.")
        records.append(record)
    return records


def last_jsonl(path: Path, most: int = 2**16) -> list[dict[str, Any]]:
    """The last lines of a file of JSON records, of which at most ``most`` bytes are read.

    Raises:
        CheckpointError: a line is not a record.
    """
    if not path.is_file():
        return []
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - most))
        data = file.read(most)
    whole = data if len(data) < most else data[data.find(b"\n") + 1 :]
    return _records(path, whole, "of the last lines, line ")


def strict_json(value: Any, indent: int | None = None) -> str:
    """JSON in which NaN and infinities are replaced by null."""
    return json.dumps(_finite(value), indent=indent, allow_nan=False)


def read_bytes(path: Path, most: int) -> bytes:
    """The content of a regular file of at most ``most`` bytes; reading a pipe or device might never end.

    Raises:
        OSError: it cannot be read, or is not a regular file.
        ValueError: it is larger.
    """
    if path.exists() and not path.is_file():
        raise OSError("it is not a regular file.")
    with path.open("rb") as file:
        data = file.read(most + 1)
    if len(data) > most:
        raise ValueError(f"it has more than {most // 2**20} MiB.")
    return data


class _Plain(yaml.SafeLoader):
    """PyYAML's safe loader, restricted to plain values."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.count = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        """Checks a value before it is composed."""
        event: Any = self.peek_event()
        where = f"line {event.start_mark.line + 1}"
        self.count += 1
        if isinstance(event, yaml.AliasEvent):
            raise ValueError(f"{where}: YAML aliases (*{event.anchor}) are not accepted; write the value out.")
        if getattr(event, "tag", None) not in (None, "!"):
            raise ValueError(f"{where}: YAML tags ({event.tag}) are not accepted.")
        if isinstance(event, yaml.ScalarEvent) and len(event.value) > _LONGEST:
            raise ValueError(f"{where}: one value has {len(event.value):,} characters.")
        if self.count > _MOST:
            raise ValueError(f"it has more than {_MOST:,} values.")
        return super().compose_node(parent, index)

    def flatten_mapping(self, node: yaml.MappingNode) -> None:
        """Does not merge ``<<`` keys."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> Any:
        """Rejects mappings with duplicate keys, whose meaning depends on the parser."""
        seen = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                if key.value in seen:
                    raise ValueError(f"line {key.start_mark.line + 1}: duplicate key '{key.value}'.")
                seen.add(key.value)
        return super().construct_mapping(node, deep)


# Dates are read as strings.
_Plain.add_constructor("tag:yaml.org,2002:timestamp", _Plain.construct_yaml_str)  # type: ignore[type-var]


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for name, value in pairs:
        if name in values:
            raise ValueError(f"duplicate name '{name}'")
        values[name] = value
    return values


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


def _brief(error: BaseException) -> str:
    """An error message in one line of limited length."""
    text = " ".join((getattr(error, "strerror", None) or str(error)).split())
    text = text if len(text) < 300 else f"{text[:300]} ..."
    return text if text.endswith(".") else f"{text}."


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if value - value == 0 else None
    if isinstance(value, Mapping):
        return {str(k): _finite(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(v) for v in value]
    return value

"""Plain values as text: strict JSON, lines of it, and YAML without aliases or tags.

What is read may come from anybody, so size, depth and repeated keys are checked before anything is made of it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from sandglass.errors import CheckpointError, ConfigError, NotFoundError

LARGEST = 8 * 2**20
"""Bytes of a JSON file; a value takes up to twenty times its text in memory."""

_LARGEST_YAML = 4 * 2**20
_LONGEST = 2**16  # characters of one value in YAML
_MOST = 200_000  # values in one YAML file, each about a kilobyte while it is read


def read_yaml(path: str | Path) -> dict[str, Any]:
    """A YAML file of plain values; aliases, tags and repeated keys are refused.

    Raises:
        ConfigError: it cannot be read as such.
        NotFoundError: it is not there.
    """
    try:
        data = read_bytes(Path(path), _LARGEST_YAML)
        loader = _Plain(data.decode())
        try:
            values = loader.get_single_data()
        finally:
            loader.dispose()
    except FileNotFoundError as error:
        raise NotFoundError(f"There is no file {path}.") from error
    except RecursionError as error:
        raise ConfigError(f"{path} cannot be read as YAML: it is nested too deeply.") from error
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise ConfigError(f"{path} cannot be read as YAML: {_brief(error)}") from error
    if not isinstance(values, dict):
        raise ConfigError(f"{path} must hold a mapping of options.")
    return values


def to_yaml(config: Mapping[str, Any]) -> bytes:
    """In ASCII, with escapes: a path need not be text in any encoding."""
    return yaml.safe_dump(dict(config), sort_keys=False).encode("ascii")


def parse_json(data: bytes) -> Any:
    """Strict JSON: UTF-8, no NaN or infinity, no name twice in one object.

    Raises:
        ValueError: it is not that; the message says where.

    Example:
        >>> parse_json(b'{"a": [1, null]}')
        {'a': [1, None]}
    """
    try:
        return json.loads(data.decode(), object_pairs_hook=_unique, parse_constant=_no_constant)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error


def read_json(path: Path, most: int = LARGEST) -> dict[str, Any]:
    """A file that holds one JSON object.

    Args:
        path: the file.
        most: bytes it may have.

    Raises:
        NotFoundError: it is not there.
        CheckpointError: it is damaged, or larger than such a file can be.
    """
    try:
        values = parse_json(read_bytes(path, most))
    except FileNotFoundError as error:
        raise NotFoundError(f"There is no file {path}.") from error
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path} is damaged: {_brief(error)}") from error
    if not isinstance(values, dict):
        raise CheckpointError(f"{path} is damaged: it holds no object.")
    return values


def read_jsonl(path: Path) -> list[dict[str, Any]]:
    """Every whole line of a file of JSON records.

    Raises:
        CheckpointError: a line that is no record; the message gives its number.
    """
    if not path.is_file():
        return []
    data = path.read_bytes()
    records = []
    for number, line in enumerate(data[: data.rfind(b"\n") + 1].splitlines(), 1):
        try:
            record = parse_json(line)
        except ValueError as error:
            raise CheckpointError(f"{path}, line {number}, is damaged: {_brief(error)}") from error
        if not isinstance(record, dict):
            raise CheckpointError(f"{path}, line {number}, is damaged: it holds no object.")
        records.append(record)
    return records


def strict_json(value: Any, indent: int | None = None) -> str:
    """JSON without NaN or infinities, which become null."""
    return json.dumps(_finite(value), indent=indent, allow_nan=False)


def read_bytes(path: Path, most: int) -> bytes:
    """A regular file of at most ``most`` bytes; a pipe or device would never end.

    Raises:
        OSError: it cannot be read, or is none.
        ValueError: it is larger.
    """
    if path.exists() and not path.is_file():
        raise OSError("it is no regular file.")
    with path.open("rb") as file:
        data = file.read(most + 1)
    if len(data) > most:
        raise ValueError(f"it has more than {most // 2**20} MiB.")
    return data


class _Plain(yaml.SafeLoader):
    """PyYAML's safe loader without what plain values have no need of."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.count = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        """One value, refused before it is made."""
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
        """Merge keys (<<) stay what they are, a value that nothing can be made of."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> Any:
        """A mapping, refused where a key comes twice: which of the two holds depends on the reader."""
        seen = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                if key.value in seen:
                    raise ValueError(f"line {key.start_mark.line + 1}: the key '{key.value}' comes twice.")
                seen.add(key.value)
        return super().construct_mapping(node, deep)


# A date stays the text it is.
_Plain.add_constructor("tag:yaml.org,2002:timestamp", _Plain.construct_yaml_str)  # type: ignore[type-var]


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for name, value in pairs:
        if name in values:
            raise ValueError(f"the name '{name}' comes twice")
        values[name] = value
    return values


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is no JSON")


def _brief(error: BaseException) -> str:
    """An error in one line that does not repeat a whole file."""
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

"""Plain values as text: strict JSON, lines of it, and YAML without aliases or tags."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from sandglass.errors import ConfigError, NotFoundError


def read_yaml(path: str | Path) -> dict[str, Any]:
    """A YAML file of plain values; aliases and tags are refused.

    Raises:
        ConfigError: it cannot be read as such.
        NotFoundError: it is not there.
    """
    try:
        text = Path(path).read_text()
        if any(isinstance(event, yaml.AliasEvent) for event in yaml.parse(text, Loader=yaml.SafeLoader)):
            raise ConfigError(f"{path}: YAML aliases (*name) are not accepted; write the value out.")
        values = yaml.safe_load(text)
    except FileNotFoundError as error:
        raise NotFoundError(f"There is no file {path}.") from error
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"{path} cannot be read as YAML: {' '.join(str(error).split())}") from error
    if not isinstance(values, dict):
        raise ConfigError(f"{path} must hold a mapping of options.")
    return values


def to_yaml(config: Mapping[str, Any]) -> bytes:
    """In ASCII, with escapes: a path need not be text in any encoding."""
    return yaml.safe_dump(dict(config), sort_keys=False).encode("ascii")


def read_jsonl(path: Path) -> list[dict[str, Any]]:
    """Every whole line of a file of JSON records."""
    if not path.is_file():
        return []
    text = path.read_text()
    return [json.loads(line) for line in text[: text.rfind("\n") + 1].splitlines()]


def strict_json(value: Any, indent: int | None = None) -> str:
    """JSON without NaN or infinities, which become null."""
    return json.dumps(_finite(value), indent=indent, allow_nan=False)


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if value - value == 0 else None
    if isinstance(value, Mapping):
        return {str(k): _finite(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(v) for v in value]
    return value

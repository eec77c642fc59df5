"""Pictures that datasets and tables hold, as objects or as the content of files."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from sandglass.data.sources import images
from sandglass.data.sources.held import is_picture
from sandglass.data.sources.layouts import Item
from sandglass.errors import DataError, named_type


def listed(
    values: Iterable[Any], labels: Iterable[Any], split: str, place: Path, name: Callable[[int], str], where: str = ""
) -> list[Item]:
    """Items of pictures, paths, or the content of files, which is written below a folder.

    Args:
        values: Pillow pictures, paths, bytes, or mappings with ``bytes``.
        labels: the class of each.
        split: its name.
        place: an empty folder.
        name: the name of an item without a path, by its number.
        where: what follows the name in messages.

    Raises:
        DataError: a value is none of these, or has no content.
    """
    found = []
    for i, (x, label) in enumerate(zip(values, labels, strict=True)):
        own = images.shown(x) if isinstance(x, str | Path) else name(i)
        if isinstance(x, Mapping | bytes):
            x = _written(
                place / f"{split}-{i}", x["bytes"] if isinstance(x, Mapping) and "bytes" in x else x, own + where
            )
        elif not (is_picture(x) or isinstance(x, str | Path)):
            raise DataError(f"Item {i} of '{split}' has {named_type(x)} where others have a picture.")
        found.append(Item(x, own, label))
    return found


def are_pictures(values: Iterable[Any]) -> bool:
    """Whether the contents of files, as bytes or mappings with ``bytes`` and ``path``, are of pictures.

    Without content a path with the extension of a picture counts, so that the message says what is missing.
    """
    return any(images.is_content(data) or (path and images.is_picture(path)) for data, path in map(_parts, values))


def file_name(value: Any) -> str:
    """The file name that the content of a file has, or what it is."""
    path = _parts(value)[1]
    return images.shown(os.path.basename(path)) if path else "bytes"


def _parts(value: Any) -> tuple[bytes, str]:
    """Content and path of a file; empty where there is none."""
    data, path = (value.get("bytes"), value.get("path")) if isinstance(value, Mapping) else (value, "")
    return data if isinstance(data, bytes) else b"", path if isinstance(path, str) else ""


def _written(path: Path, content: Any, name: str) -> Path:
    """Writes the content of a picture file and returns its path.

    Raises:
        DataError: it holds no content.
    """
    if not isinstance(content, bytes):
        raise DataError(f"{name} holds a path, not a picture; save the dataset with its pictures embedded.")
    endings = {b"\x89PN": ".png", b"\xff\xd8\xff": ".jpg"}
    path = path.with_suffix(endings.get(content[:3], ""))
    path.write_bytes(content)
    return path

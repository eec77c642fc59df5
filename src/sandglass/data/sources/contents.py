"""Pictures that datasets and tables hold: as objects, of which few are in memory, or as the content of files."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from threading import Lock
from typing import Any

from sandglass.data.sources import images
from sandglass.data.sources.decoding import Later
from sandglass.data.sources.layouts import Item
from sandglass.errors import DataError, named_type

_HELD = 2**28  # bytes of decoded pictures to keep in memory; others are fetched from the dataset again


def is_picture(x: Any) -> bool:
    """Whether an object is a Pillow picture, or stands for one."""
    return isinstance(x, Later) or (hasattr(x, "convert") and hasattr(x, "getexif"))


class Held:
    """The items of a dataset, with few of their pictures decoded at a time.

    A picture that its dataset opened without decoding it, or that would be one too many in memory, becomes
    :class:`~sandglass.data.sources.decoding.Later`.

    Args:
        dataset: the dataset; its code is run by one thread at a time.
    """

    def __init__(self, dataset: Any) -> None:
        self.dataset, self.left, self.lock = dataset, _HELD, Lock()

    def item(self, i: int) -> Any:
        """Item ``i``."""
        found = self.dataset[i]
        if isinstance(found, Mapping):
            own = {key: self._light(x, i, key) for key, x in found.items() if is_picture(x)}
            return {**found, **own} if own else found
        if isinstance(found, tuple | list):
            return type(found)([self._light(x, i, k) for k, x in enumerate(found)]) if self._plain(found) else found
        return bytes(found) if isinstance(found, bytearray | memoryview) else self._light(found, i)

    def _plain(self, found: Any) -> bool:
        return type(found) in (tuple, list) and any(map(is_picture, found))

    def _light(self, x: Any, i: int, *key: Any) -> Any:
        """The picture itself, or how to fetch it."""
        if not is_picture(x):
            return x

        def again() -> Any:
            with self.lock:
                found = self.dataset[i]
            return found[key[0]] if key else found

        if getattr(x, "fp", None) is not None and getattr(x, "tile", None):  # opened, not decoded
            path = os.fspath(getattr(x, "filename", "") or "")
            whole = isinstance(path, str) and x.tell() == 0
            return Later(lambda: path if whole and os.path.isfile(path) else again())
        self.left -= x.width * x.height * len(x.getbands())
        return x if self.left >= 0 else Later(again)


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

"""The items of datasets that have pictures, of which few are in memory at a time."""

from __future__ import annotations

import io
import os
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any

import numpy as np
from torch import Tensor

from sandglass.data.sources.decoding import Later, fetched
from sandglass.errors import DataError

_HELD = 2**28  # bytes of pictures to keep in memory of each dataset; others are read or asked for again
_SETTLED = 2.0  # seconds after which a change of a file changes its time, too, on any file system

_ORIENTATION = 0x0112
_DEPTH = (258, 281)  # tags of a TIFF: bits and largest value

_State = tuple[int, int, int, int, int]


def is_picture(x: Any) -> bool:
    """Whether an object is a Pillow picture, or stands for one."""
    return isinstance(x, Later) or (hasattr(x, "convert") and hasattr(x, "getexif"))


class Held:
    """The items of a dataset, with few of their pictures decoded at a time.

    The dataset is asked once for each item. Of a picture that it opened without decoding, the content of the file is
    kept; of others, such as a later frame or a canvas that is used again, a copy is. What would be too much in memory
    becomes a :class:`~sandglass.data.sources.decoding.Later` that reads the file again, if that has not changed, or
    else asks the dataset again.

    Args:
        dataset: the dataset; its code is run in the calling thread.
    """

    def __init__(self, dataset: Any) -> None:
        self.dataset, self.left = dataset, _HELD
        self._class: Callable[[Any], Any] | None = None
        self._classes: Sequence[Any] = ()

    def expect(self, classes: Sequence[Any], of: Callable[[Any], Any]) -> None:
        """Says which classes are used: an item that comes with another one when it is asked again is refused.

        Args:
            classes: the class of each item.
            of: returns the class of an item.
        """
        self._classes, self._class = classes, of

    def item(self, i: int) -> Any:
        """Item ``i``."""
        found = self.dataset[i]
        if isinstance(found, Mapping):
            return {key: self._light(x, i, key) for key, x in found.items()}
        if isinstance(found, tuple | list):
            parts = [self._light(x, i, k) for k, x in enumerate(found)]
            return parts if isinstance(found, list) else tuple(parts)
        return bytes(found) if isinstance(found, bytearray | memoryview) else self._light(found, i)

    def _light(self, x: Any, i: int, *key: Any) -> Any:
        """A picture, or how to get it; a copy of numbers that the dataset may write again, of others the same."""
        if not is_picture(x) or isinstance(x, Later):
            return x if type(self.dataset) is list else _own(x)
        file = _file(x)
        size = x.width * x.height * _depth(x.mode) if file is None else _size(file)
        if size <= self.left:
            self.left -= size
            return _copied(x) if file is None else Later(_reopen(type(x), _content(file)))
        again = self._again(i, *key)
        return Later(again if file is None else _from_file(x, file, again))

    def _again(self, i: int, *key: Any) -> Callable[[], Any]:
        """Asks the dataset again for a picture."""

        def again() -> Any:
            found = self.dataset[i]
            if self._class is not None and not _same(self._class(found), self._classes[i]):
                raise DataError(
                    "the dataset gives another class when it is asked again; its pictures take more than "
                    "256 MiB together, so give one whose items stay the same"
                )
            x = found[key[0]] if key else found
            if not is_picture(x) or isinstance(x, Later):
                return x
            file = _file(x)
            return fetched(_copied(x)) if file is None else _reopen(type(x), _content(file))()

        return again


def _own(x: Any) -> Any:
    """A copy of an array or tensor, unless it is a part of another one, which holds all items."""
    if isinstance(x, np.ndarray) and x.base is None:
        return x.copy()
    return x.detach().clone() if isinstance(x, Tensor) and not x._is_view() else x


def _same(a: Any, b: Any) -> bool:
    """Whether two classes are equal, or both are not a number."""
    return bool(a == b or (a != a and b != b))


def _file(x: Any) -> Any:
    """The file of a picture that was opened and not decoded; None if its content is not what is shown.

    A picture may be at another frame than the first, or is to be decoded as a draft. Of a WebP, Pillow has read the
    file, and closes it once the picture is decoded.
    """
    file = getattr(x, "fp", None)
    with suppress(Exception):  # a damaged or closed picture; decoding it reports the reason
        whole = getattr(x, "tile", None) and not getattr(x, "decoderconfig", ()) and x.tell() == 0
        # JPEG 2000 can be decoded smaller (reduce) or coarser (layers), and these are not in the file.
        part = x.format == "JPEG2000" and (isinstance(x.reduce, int) or x.layers)
        own = type(x).__module__.startswith("PIL.")
        if file is not None and whole and own and not part and file.seekable() and not file.closed:
            return file
    return None


def _copied(x: Any) -> Any:
    """A decoded copy of a picture, as a dataset may change the one that it gave; if it is damaged, what says so."""
    try:
        return _copy(x)
    except Exception as error:  # a damaged body may raise anything in a decoder
        reason = DataError(f"damaged ({' '.join(str(error).split()) or type(error).__name__})")

    def damaged() -> Any:
        raise reason

    return Later(damaged)


def _copy(x: Any) -> Any:
    """A copy with all that :func:`sandglass.data.sources.images.normal` reads of a picture."""
    tile, tags = list(getattr(x, "tile", ())), dict(getattr(x, "tag_v2", {}))
    x.load()
    kept = x.copy()
    kept.format, kept.tile = x.format, tile  # tiles have the depth of colours
    kept.is_animated = x.tell() == 0 and getattr(x, "is_animated", False)
    if (
        getattr(x, "_exif", None) is not None
    ):  # it was read, and may have been changed; decoding a TIFF turns it upright
        with suppress(Exception):  # damaged; what was read counts
            kept.getexif()
        kept.getexif()[_ORIENTATION] = x.getexif().get(_ORIENTATION, 1)
    if tags:
        kept.tag_v2 = {tag: tags.get(tag) for tag in _DEPTH}
    return kept


def _depth(mode: str) -> int:
    """The bytes for a pixel in memory."""
    return 1 if mode in ("1", "L", "P") else 2 if mode.startswith("I;16") else 4


def _size(file: Any) -> int:
    place = file.tell()
    size = int(file.seek(0, os.SEEK_END))
    file.seek(place)
    return size


def _content(file: Any) -> bytes:
    """All of a file, whose position stays as it is."""
    place = file.tell()
    file.seek(0)
    data = bytes(file.read())
    file.seek(place)
    return data


def _reopen(kind: Callable[[Any], Any], data: bytes) -> Callable[[], Any]:
    """Opens a picture from the content of its file, by its decoder."""
    return lambda: kind(io.BytesIO(data))


def _from_file(x: Any, file: Any, again: Callable[[], Any]) -> Callable[[], Any]:
    """Reads a picture from its path if the file there is still the same, else asks for it again."""
    kind, path, state = type(x), getattr(x, "filename", ""), None
    with suppress(Exception):  # not a file on disk
        state = _state(file.fileno())

    def fetch() -> Any:
        if state is not None and path:
            with suppress(OSError), open(path, "rb") as found:
                data = found.read() if _state(found.fileno()) == state else b""
                if data and _state(found.fileno()) == state:
                    return kind(io.BytesIO(data))
        return again()

    return fetch


def _state(descriptor: int) -> _State | None:
    """What changes when a file is replaced or written; None if it was written just now, and may change unseen."""
    found = os.fstat(descriptor)
    # Unpacking sets the time of the content (mtime); none can set that of the entry (ctime), the creation on Windows.
    if time.time() - max(found.st_mtime, found.st_ctime) < _SETTLED:
        return None
    return found.st_dev, found.st_ino, found.st_mtime_ns, found.st_ctime_ns, found.st_size

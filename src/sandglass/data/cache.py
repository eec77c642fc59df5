"""Pictures decoded once and kept as bytes in a file, for sources that are large or read again and again.

A folder and what was asked of it (size, fit, channels) have one place below the cache folder, so that a folder that
changes does not leave old copies behind. What is there is used again if every picture's name, size and times are as
they were when it was made, and if it is whole: it is written beside its place with a manifest and renamed last, and the
bytes are compared with their checksums when they are opened. Two processes that want the same one make it once.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from filelock import FileLock, Timeout

from sandglass.data.rows import Store
from sandglass.data.sources.decoding import Decoded
from sandglass.errors import CheckpointError, SaveError
from sandglass.runs import storage

LARGE = 64 * 2**20
"""Bytes of decoded pictures from which a folder is kept in the cache where nothing else is said."""

CAP = 64 * 2**30
"""Bytes of all that is kept; beyond, what was not used for longest goes when something new comes."""

_VERSION = 1  # of the decoding and of the files; what another version made is made anew
_BLOCK = 4 * 2**20
_CHECKED = 2 * 2**30  # bytes of a file whose checksums are compared when it is opened
_PIXELS, _DIGESTS, _ABOUT, _KNOWN = "pixels.bin", "digests.bin", "about.json", "fingerprints.json"
_REMEMBERED = 32


@dataclass(frozen=True)
class Kept:
    """Decoded pictures in the cache.

    Args:
        store: their pixels.
        about: plain values that were kept with them.
    """

    store: Store
    about: Mapping[str, Any]


def home() -> Path:
    """Where decoded pictures are kept."""
    return storage.cache_folder("pictures")


def place(folder: Path, asked: Mapping[str, Any]) -> Path:
    """Where the pictures of a folder are kept, read as ``asked`` (plain values)."""
    text = json.dumps([os.fsencode(folder.resolve()).hex(), dict(asked)], sort_keys=True)
    return home() / hashlib.sha256(text.encode()).hexdigest()[:32]


def stamp(folder: Path, files: Sequence[str], asked: Mapping[str, Any]) -> str:
    """SHA-256 over what must stay as it was: each file's name, size and times, and how they are decoded.

    A file's change time is among them, for a program can set the time of modification back.
    """
    from PIL import __version__ as pillow

    found = [json.dumps([_VERSION, pillow, dict(asked)], sort_keys=True)]
    start = len(os.path.join(folder, ""))
    for file in files:
        try:
            status = os.stat(file)
            found.append(f"{file[start:]}\0{status.st_size} {status.st_mtime_ns} {status.st_ctime_ns}")
        except OSError:
            found.append(file[start:])
    return hashlib.sha256(os.fsencode("\0\n".join(found))).hexdigest()


def is_taken(where: Path) -> bool:
    """Whether something is kept at a place, old or new."""
    return (where / "rows").is_dir()


def find(where: Path, wanted: str, *, check: bool = True) -> Kept | None:
    """What is kept at a place, if it has this stamp and is whole; its pixels are believed without ``check``."""
    folder = where / "rows"
    try:
        manifest = storage.read_manifest(folder)
        if manifest.get("stamp") != wanted:
            return None
        for name, entry in manifest["files"].items():
            if (folder / name).stat().st_size != entry["size"]:
                return None
        small = {name: (folder / name).read_bytes() for name in (_DIGESTS, _ABOUT)}
        for name, content in small.items():
            if hashlib.sha256(content).hexdigest() != manifest["files"][name]["sha256"]:
                return None
        values = json.loads(small[_ABOUT])
        if check and not _sound(folder / _PIXELS, values["blocks"]):
            return None
        os.utime(folder)  # it was used now
    except (CheckpointError, OSError, KeyError, ValueError):
        return None
    digests = np.frombuffer(small[_DIGESTS], np.uint8).reshape(-1, 16)
    memory = _Memory(where, str(manifest["seal"]))
    dtype = torch.float32 if values["dtype"] == "float32" else torch.uint8
    return Kept(Store(folder / _PIXELS, values["shape"], dtype, digests, memory), values["about"])


def build(
    where: Path,
    wanted: str,
    shape: Sequence[int],
    dtype: np.dtype[Any],
    parts: Iterable[Decoded],
    about: Callable[[], Mapping[str, Any]],
) -> Kept:
    """Writes decoded pictures to a place; call it inside :func:`held`.

    Args:
        where: the place.
        wanted: its stamp.
        shape: ``(C, H, W)``.
        dtype: uint8 or float32.
        parts: the pictures, passed through once.
        about: plain values to keep with them, asked for at the end.

    Raises:
        SaveError: it could not be written.
    """
    digests: list[bytes] = []
    blocks = _Checksums()

    def write_pixels(path: Path) -> None:
        with path.open("wb") as file:
            for part in parts:
                file.write(part.data)
                blocks.update(memoryview(part.data))
                digests.append(part.digests)

    def write_digests(path: Path) -> None:
        path.write_bytes(b"".join(digests))

    def write_about(path: Path) -> None:
        values = {"shape": list(shape), "dtype": str(dtype), "blocks": blocks.done(), "about": dict(about())}
        path.write_text(json.dumps(values))

    files: dict[str, storage.Content] = {
        _PIXELS: write_pixels,
        _DIGESTS: write_digests,
        _ABOUT: write_about,
    }
    try:
        storage.write_folder(where / "rows", files, {"stamp": wanted})
    except BaseException:
        storage.sweep(where)
        raise
    found = find(where, wanted, check=False)  # its manifest was made by reading it back
    if found is None:
        raise SaveError(f"{where} could not be read back after it was written; try again, or give cache=False.")
    return found


@contextmanager
def held(where: Path, size: int) -> Iterator[None]:
    """Holds a place for this process, waiting for another one that does, and makes room for ``size`` bytes.

    Raises:
        SaveError: nothing can be written there, or there is no room.
    """
    try:
        where.mkdir(parents=True, exist_ok=True)
        lock = FileLock(where / "lock")
        lock.acquire()
    except (OSError, NotImplementedError) as error:
        raise SaveError(f"The cache folder {where} cannot be written: {error}.") from error
    try:
        storage.sweep(where)
        _make_room(where, size)
        yield
    finally:
        lock.release()


def clear() -> int:
    """Deletes all decoded pictures, unpacked archives and learnt features; returns how many bytes they were."""
    folders = (home(), storage.cache_folder("archives"), storage.cache_folder("features"))
    size = sum(_size(folder) for folder in folders if folder.is_dir())
    for folder in folders:
        shutil.rmtree(folder, ignore_errors=True)
    return size


def _make_room(where: Path, size: int) -> None:
    others = sorted((p for p in _places() if p != where), key=_used)
    total, free = sum(map(_size, others)), shutil.disk_usage(where).free
    if free + total < size:
        raise SaveError(
            f"The decoded pictures take {size / 2**20:,.0f} MiB; {where} has {free / 2**20:,.0f} MiB free. "
            "Set SANDGLASS_CACHE to a larger disk, or choose a smaller size."
        )
    # What another process has mapped stays there for it: its name goes, its bytes stay until that process ends.
    while others and (total + size > CAP or shutil.disk_usage(where).free < size):
        oldest = others.pop(0)
        total -= _size(oldest)
        with suppress(Timeout, OSError), FileLock(oldest / "lock", timeout=0):  # not from under one that is being made
            shutil.rmtree(oldest / "rows", ignore_errors=True)


def _places() -> list[Path]:
    return [p for p in home().iterdir() if p.is_dir()] if home().is_dir() else []


def _used(where: Path) -> float:
    try:
        return (where / "rows").stat().st_mtime
    except OSError:
        return where.stat().st_mtime


def _size(where: Path) -> int:
    size = 0
    for file in where.rglob("*"):
        with suppress(OSError):  # another process may be at it
            size += file.stat().st_size if file.is_file() else 0
    return size


class _Checksums:
    """CRC-32 of every block of a file while it is written."""

    def __init__(self) -> None:
        self.found: list[int] = []
        self.open, self.filled = 0, 0

    def update(self, data: memoryview) -> None:
        while len(data):
            piece = data[: _BLOCK - self.filled]
            self.open, self.filled = zlib.crc32(piece, self.open), self.filled + len(piece)
            data = data[len(piece) :]
            if self.filled == _BLOCK:
                self.done()

    def done(self) -> list[int]:
        if self.filled:
            self.found.append(self.open)
            self.open, self.filled = 0, 0
        return self.found


def _sound(path: Path, blocks: Sequence[int]) -> bool:
    """Whether the blocks have their checksums: all of them, or of a very large file as many, evenly spread."""
    step = max(1, -(-len(blocks) * _BLOCK // _CHECKED))
    with path.open("rb") as file:
        for number in range(0, len(blocks), step):
            file.seek(number * _BLOCK)
            if zlib.crc32(file.read(_BLOCK)) != blocks[number]:
                return False
    return True


@dataclass(frozen=True)
class _Memory:
    """Texts that were made of a place's pixels, in a file beside them; of no worth once these are made anew."""

    where: Path
    seal: str

    def __call__(self, key: str, make: Callable[[], str]) -> str:
        known = self._read()
        if key not in known:
            some = list(known.items())[: _REMEMBERED - 1]
            known = dict([*some, (key, make())])
            with suppress(SaveError):  # then it is made again next time
                storage.write_file(self.where / _KNOWN, storage.seal({"of": self.seal, "known": known}))
        return known[key]

    def _read(self) -> dict[str, str]:
        try:
            data = (self.where / _KNOWN).read_bytes()
            values = json.loads(data)
            body = {k: v for k, v in values.items() if k != "seal"}
            return dict(values["known"]) if storage.seal(body) == data and values["of"] == self.seal else {}
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return {}

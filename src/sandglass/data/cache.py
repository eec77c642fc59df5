"""A cache of decoded pictures in files, for sources that are large or read repeatedly.

Each combination of source folder and options (size, fit, channels) has one entry below the cache folder, so a changed
folder leaves no old copies behind. An entry is reused if every picture's name, size and times are unchanged and the
entry is complete: it is written to a temporary folder with a manifest and renamed last, and its checksums are compared
when it is opened. A lock keeps two processes from building the same entry twice.
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
"""Size of the decoded pictures in bytes from which a folder is cached by default."""

CAP = 64 * 2**30
"""Largest size of the cache in bytes; beyond it, the least recently used entries are deleted when one is added."""

_VERSION = 1  # of the decoding and of the file format; entries of other versions are rebuilt
_BLOCK = 4 * 2**20
_CHECKED = 2 * 2**30  # bytes of a file that are checked when it is opened
_PIXELS, _DIGESTS, _ABOUT, _KNOWN = "pixels.bin", "digests.bin", "about.json", "fingerprints.json"
_REMEMBERED = 32


@dataclass(frozen=True)
class Kept:
    """A cache entry.

    Args:
        store: the decoded pixels.
        about: plain values stored with them.
    """

    store: Store
    about: Mapping[str, Any]


def home() -> Path:
    """The folder of the cache of decoded pictures."""
    return storage.cache_folder("pictures")


def place(folder: Path, asked: Mapping[str, Any]) -> Path:
    """The cache entry for a folder read with the options ``asked`` (plain values)."""
    text = json.dumps([os.fsencode(folder.resolve()).hex(), dict(asked)], sort_keys=True)
    return home() / hashlib.sha256(text.encode()).hexdigest()[:32]


def stamp(folder: Path, files: Sequence[str], asked: Mapping[str, Any]) -> str:
    """SHA-256 of everything that invalidates an entry: each file's name, size and times, and the decoding options.

    Includes the change time, because a program can reset the modification time.
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
    """Whether a cache entry exists, up to date or not."""
    return (where / "rows").is_dir()


def find(where: Path, wanted: str, *, check: bool = True) -> Kept | None:
    """A cache entry, or None unless its stamp matches and it is complete; ``check=False`` skips the checksums."""
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
        os.utime(folder)  # marks it as recently used
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
    """Writes decoded pictures into a cache entry; call it inside :func:`held`.

    Args:
        where: the cache entry.
        wanted: its stamp.
        shape: ``(C, H, W)``.
        dtype: uint8 or float32.
        parts: the decoded pictures, iterated over once.
        about: returns the plain values to store with them; called after the last part.

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
    found = find(where, wanted, check=False)  # writing the manifest has already read it back
    if found is None:
        raise SaveError(f"{where} could not be read back after it was written; try again, or give cache=False.")
    return found


@contextmanager
def held(where: Path, size: int) -> Iterator[None]:
    """Locks a cache entry, waiting for other processes, and makes room for ``size`` bytes.

    Raises:
        SaveError: the cache cannot be written, or the disk is full.
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
    """Deletes all decoded pictures, unpacked archives and cached features; returns the number of bytes freed."""
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
    # A process that has mapped a deleted file keeps it: only the name is removed until that process ends.
    while others and (total + size > CAP or shutil.disk_usage(where).free < size):
        oldest = others.pop(0)
        total -= _size(oldest)
        with suppress(Timeout, OSError), FileLock(oldest / "lock", timeout=0):  # not one that is being written
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
        with suppress(OSError):  # another process may be deleting it
            size += file.stat().st_size if file.is_file() else 0
    return size


class _Checksums:
    """CRC-32 of each block of a file, computed while it is written."""

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
    """Whether the checksums match: of all blocks, or of an evenly spaced sample if the file is very large."""
    step = max(1, -(-len(blocks) * _BLOCK // _CHECKED))
    with path.open("rb") as file:
        for number in range(0, len(blocks), step):
            file.seek(number * _BLOCK)
            if zlib.crc32(file.read(_BLOCK)) != blocks[number]:
                return False
    return True


@dataclass(frozen=True)
class _Memory:
    """Cached strings derived from the pixels of an entry, such as fingerprints; invalid once it is rebuilt."""

    where: Path
    seal: str

    def __call__(self, key: str, make: Callable[[], str]) -> str:
        known = self._read()
        if key not in known:
            some = list(known.items())[: _REMEMBERED - 1]
            known = dict([*some, (key, make())])
            with suppress(SaveError):  # then it is computed again next time
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

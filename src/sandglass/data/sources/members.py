"""Iterates over the entries of a zip or tar file; nothing is written."""

from __future__ import annotations

import bz2
import gzip
import lzma
import stat
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sandglass.data.sources.images import shown
from sandglass.errors import DataError

CHUNK = 2**20
_PACKERS: dict[bytes, Callable[[Any], Any]] = {b"\x1f\x8b": gzip.open, b"BZh": bz2.open, b"\xfd7zXZ\0": lzma.open}


@dataclass(frozen=True)
class Member:
    """One entry of an archive.

    Args:
        name: name in the archive.
        kind: ``"file"``, or another kind as a plural noun.
        size: declared uncompressed size in bytes.
        read: yields its content in chunks; may only be called before the next member is read.
    """

    name: str
    kind: str
    size: int
    read: Callable[[], Iterator[bytes]]


def members(path: Path) -> Iterator[Member]:
    """The entries of an archive in order, without folders; the format is determined by its first bytes.

    Raises:
        DataError: overlapping entries; other damage raises the decoder's own errors.
    """
    with path.open("rb") as file:
        head = file.read(8)
        file.seek(0)
        if head.startswith((b"PK\3\4", b"PK\5\6")) or path.suffix.lower() == ".zip":
            yield from _zip_members(path)
        else:
            unpacker = next((f for magic, f in _PACKERS.items() if head.startswith(magic)), None)
            yield from _tar_members(_Forward(unpacker(file) if unpacker else file))


def _zip_members(path: Path) -> Iterator[Member]:
    """The entries of a zip file.

    Raises:
        DataError: two of them overlap, as in a decompression bomb.
    """
    with zipfile.ZipFile(path) as archive:
        end = 0
        for entry in sorted(archive.infolist(), key=lambda e: e.header_offset):
            if entry.header_offset < end:
                raise DataError(f"{shown(path.name)} has overlapping entries, like a decompression bomb.")
            end = entry.header_offset + 30 + entry.compress_size  # 30 bytes: a header without its name
        for entry in archive.infolist():
            mode = entry.external_attr >> 16 if entry.create_system == 3 else 0
            if entry.is_dir() or stat.S_ISDIR(mode):
                continue
            kind = "file"
            if stat.S_ISLNK(mode):
                kind = "links"
            elif stat.S_IFMT(mode) not in (0, stat.S_IFREG):
                kind = "pipes and devices"
            elif entry.flag_bits & 1:
                kind = "encrypted files"

            def read(entry: zipfile.ZipInfo = entry) -> Iterator[bytes]:
                with archive.open(entry) as content:
                    while piece := content.read(CHUNK):
                        yield piece

            # The original name: entry.filename has other path separators replaced by slashes.
            yield Member(entry.orig_filename, kind, entry.file_size, read)


def _tar_members(file: _Forward) -> Iterator[Member]:
    """The entries of a tar file."""
    with tarfile.open(fileobj=file, mode="r:") as archive:  # type: ignore[call-overload]
        while (entry := archive.next()) is not None:
            archive.members.clear()  # tarfile would keep them all in memory
            if entry.size < 0:
                raise tarfile.ReadError("a negative size")
            kind = "pipes and devices"
            if entry.isdir():
                continue
            if entry.issym() or entry.islnk():
                kind = "links"
            elif entry.isreg():
                kind = "sparse files" if entry.issparse() else "file"

            def read(entry: tarfile.TarInfo = entry) -> Iterator[bytes]:
                file.seek(entry.offset_data)
                left = entry.size
                while left and (piece := file.read(min(CHUNK, left))):
                    left -= len(piece)
                    yield piece

            yield Member(entry.name, kind, entry.size, read)
    file.finish()


class _Forward:
    """A forward-only stream for :mod:`tarfile` that limits the size of a single read.

    So a negative offset cannot cause an endless loop, and a huge header cannot exhaust memory.

    Args:
        file: the file to read from.
    """

    def __init__(self, file: Any) -> None:
        self.file, self.at, self.last = file, 0, b""

    def tell(self) -> int:
        """Bytes read so far."""
        return self.at

    def read(self, size: int = -1) -> bytes:
        """The next bytes.

        Raises:
            tarfile.ReadError: ``size`` is negative or above :data:`CHUNK`.
        """
        if not 0 <= size <= CHUNK:
            raise tarfile.ReadError("a header of more than a mebibyte")
        self.last = self.file.read(size)
        self.at += len(self.last)
        return self.last

    def seek(self, position: int) -> int:
        """Skips forward to a position, or to the end.

        Raises:
            tarfile.ReadError: the position has been passed.
        """
        if position < self.at:
            raise tarfile.ReadError("an offset that points backwards")
        while self.at < position and self.read(min(CHUNK, position - self.at)):
            pass
        return self.at

    def finish(self) -> None:
        """Checks that the archive was read to its end.

        Raises:
            tarfile.ReadError: it stopped at an invalid header, which :mod:`tarfile` treats as the end.
        """
        if self.last.strip(b"\0"):
            raise tarfile.ReadError("an invalid header")
        for _ in range(16):  # gzip, bzip2 and xz verify their checksums at the end
            if not self.read(CHUNK):
                return

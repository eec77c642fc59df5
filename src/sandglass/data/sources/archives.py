"""Unpacks archives of pictures into the cache, writing only regular files.

Paths, owners and types declared in an archive are not trusted. A regular file with the extension of a picture, or of a
table that may hold labels, and a safe relative name is written below a new folder; other members are skipped and
counted. So nothing can be written outside the folder, and nothing overwritten.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock

from sandglass.data.sources import images
from sandglass.data.sources.label_table import ENDINGS
from sandglass.data.sources.layouts import ignored
from sandglass.data.sources.members import CHUNK, Member, members
from sandglass.errors import DataError, SaveError
from sandglass.runs import storage

SUFFIXES = (".zip", ".tar", ".tgz", ".tbz", ".tbz2", ".txz", ".tar.gz", ".tar.bz2", ".tar.xz")

HARMLESS = 16 * 2**20
"""An archive that unpacks to at most this many bytes is accepted whatever its compression ratio."""

RATIO = 200
"""Largest compression ratio of a larger archive, ..."""

LARGE, LARGE_RATIO = 2**30, 20
"""... and the limit from which a lower ratio applies, near the best that pictures can be compressed."""

_BLOCK = 4096  # the least disk space of a file, so that millions of empty files count
_INDEX, _PICTURES = "index.json", "pictures"
_DATA = (*ENDINGS, ".npy", ".npz")
_SHOWN = 64 * 2**20  # bytes from which a progress bar is shown
_FORMAT = 2


def is_archive(path: Path) -> bool:
    """Whether a file name has the extension of an archive.

    Example:
        >>> is_archive(Path("photos.tar.gz")), is_archive(Path("photos.gz"))
        (True, False)
    """
    return path.name.lower().endswith(SUFFIXES)


def stem(path: Path) -> str:
    """A file name without its extension, including those with two parts such as ``.tar.gz``.

    Example:
        >>> stem(Path("photos.tar.gz")), stem(Path("photos.v2.png"))
        ('photos', 'photos.v2')
    """
    ending = max((e for e in SUFFIXES if path.name.lower().endswith(e)), key=len, default=path.suffix)
    return path.name[: len(path.name) - len(ending)]


def unpack(path: Path) -> tuple[Path, tuple[str, ...]]:
    """Unpacks an archive's pictures and tables into the cache; returns the folder, and notes on what was left out.

    The folder is written atomically. It is reused unless the archive has changed or the folder was damaged.

    Args:
        path: a zip file, or a tar file, uncompressed or compressed with gzip, bzip2 or xz.

    Raises:
        DataError: an archive that is missing, damaged or encrypted, that has too high a compression ratio, or that
            holds no picture.
        SaveError: the cache cannot be written.
    """
    cache = storage.cache_folder("archives")
    place = cache / f"{path.name[:40]}-{hashlib.sha256(os.fsencode(path.resolve())).hexdigest()[:16]}"
    try:
        mark = fingerprint(path)
    except OSError as error:
        raise DataError(f"{images.shown(path.name)} cannot be read: {error.strerror}.") from error
    try:
        cache.mkdir(parents=True, exist_ok=True)
        with FileLock(cache / f".{place.name}.lock"):
            kept = _kept(place, mark)
            return place / _PICTURES, _unpack(path, place, mark) if kept is None else kept
    except OSError as error:
        raise SaveError(f"{images.shown(path.name)} cannot be unpacked into {images.shown(cache)}: {error}.") from error


def fingerprint(path: Path) -> str:
    """SHA-256 over an archive's path, size, modification time, and first and last bytes, to detect changes."""
    about = path.stat()
    with path.open("rb") as file:
        head = file.read(CHUNK)
        file.seek(max(0, about.st_size - CHUNK))
        tail = file.read(CHUNK)
    digest = hashlib.sha256(f"{_FORMAT} {about.st_size} {about.st_mtime_ns} ".encode())
    for part in (os.fsencode(path.resolve()), head, tail):
        digest.update(hashlib.sha256(part).digest())
    return digest.hexdigest()


def _kept(place: Path, mark: str) -> tuple[str, ...] | None:
    """The notes of an archive that is already unpacked, None if it has to be unpacked."""
    try:
        index = json.loads((place / _INDEX).read_bytes())
        if index["fingerprint"] == mark and all(
            (place / _PICTURES / n).stat().st_size == size for n, size in index["files"]
        ):
            return tuple(index["notes"])
    except (OSError, ValueError, KeyError, TypeError):
        pass
    return None


def _unpack(path: Path, place: Path, mark: str) -> tuple[str, ...]:
    """Unpacks into a temporary folder, which is renamed last; the caller holds the lock."""
    total = _judge(path)
    free = shutil.disk_usage(place.parent).free
    if total > free:
        raise DataError(
            f"{images.shown(path.name)} unpacks to {_gib(total)}, and {images.shown(place.parent)} has {_gib(free)} "
            "left; make room, or set SANDGLASS_CACHE to a folder on a larger disk."
        )
    temporary = place.parent / f".{place.name}.tmp"
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        (temporary / _PICTURES).mkdir(parents=True)
        with _damage_named(path):
            files, left = _write(path, temporary / _PICTURES, total)
        tables = sum(name.lower().endswith(ENDINGS) for name, _ in files)
        counted = _count(len(files) - tables, "picture") + (f" and {_count(tables, 'table')}" if tables else "")
        notes = (f"{images.shown(path.name)} was unpacked: {counted}{_left_out(left)}",)
        index = {"fingerprint": mark, "notes": notes, "files": files}
        (temporary / _INDEX).write_text(json.dumps(index))
        shutil.rmtree(place, ignore_errors=True)
        os.rename(temporary, place)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    return notes


def _judge(path: Path) -> int:
    """The declared unpacked size of an archive's members in bytes, from their headers; nothing is written.

    Raises:
        DataError: it is so large that the archive must be a decompression bomb, or the archive has no picture.
    """
    name, packed = images.shown(path.name), path.stat().st_size
    room, pictures = 0, 0
    data: list[str] = []
    left: Counter[str] = Counter()
    with _damage_named(path):
        for member in members(path):
            target = _target(member)
            if isinstance(target, str):
                left[target] += 1
            else:
                pictures += images.is_picture(target[-1])
            if member.name.lower().endswith(_DATA):
                data.append(images.shown(member.name))
            if member.kind != "file":
                continue
            room += max(member.size, _BLOCK)
            allowed = max(HARMLESS, min(RATIO * packed, max(LARGE, LARGE_RATIO * packed)))
            if room > allowed:
                raise DataError(
                    f"{name} has {packed / 2**20:.1f} MiB and would unpack to more than {_gib(allowed)}, like a "
                    "decompression bomb; if you trust it, unpack it yourself and give the folder."
                )
    if pictures:
        return room
    if data:
        raise DataError(f"{name} holds no picture but {data[0]}; unpack it and give that file.")
    raise DataError(f"{name} holds no picture that can be taken out{_left_out(left)}; check what is in it.")


def _write(path: Path, folder: Path, total: int) -> tuple[list[tuple[str, int]], Counter[str]]:
    """Writes pictures and tables below a new folder; returns their names and sizes, and counts of skipped members."""
    files: list[tuple[str, int]] = []
    left: Counter[str] = Counter()
    with _bar(f"Unpacking {images.shown(path.name)}", total) as advance:
        for member in members(path):
            target = _target(member)
            if isinstance(target, str):
                left[target] += 1
                continue
            file = folder.joinpath(*target)
            try:
                file.parent.mkdir(parents=True, exist_ok=True)
                opened = file.open("xb")
            except (FileExistsError, NotADirectoryError):
                left["duplicate names"] += 1
                continue
            with opened:
                written = 0
                for piece in member.read():
                    written += len(piece)
                    if written > member.size:  # only the declared size was checked
                        break
                    opened.write(piece)
            if written != member.size:
                raise DataError(f"{images.shown(path.name)} is damaged: {images.shown(member.name)} has another size.")
            files.append(("/".join(target), written))
            advance(max(written, _BLOCK))
    return files, left


def _target(member: Member) -> tuple[str, ...] | str:
    """The parts of the path to write a member to, or the reason why it is skipped, as a plural noun."""
    if member.kind != "file":
        return member.kind
    name = member.name
    parts = tuple(p for p in name.split("/") if p not in ("", "."))
    if name.startswith("/") or re.match(r"[A-Za-z]:", name):
        return "absolute names"
    if ".." in parts:
        return "names with '..'"
    if "\\" in name or "\0" in name:
        return "names with backslashes or zeros"
    if any(map(ignored, parts)):
        return "hidden or system files"
    if not parts or not (images.is_picture(parts[-1]) or parts[-1].lower().endswith(ENDINGS)):
        return "files without a picture's extension"
    encoded = [len(os.fsencode(p)) for p in parts]
    if max(encoded) > 255 or sum(encoded) + len(parts) > 1024:
        return "names that are too long"
    return parts


@contextmanager
def _damage_named(path: Path) -> Iterator[None]:
    """Converts errors in an archive to a one-line error; disk errors stay an OSError.

    Raises:
        DataError: a damaged archive, or an unsupported compression method.
    """
    try:
        yield
    except DataError:
        raise
    except Exception as error:  # a damaged archive may raise anything in a decoder
        if isinstance(error, OSError) and error.errno is not None:
            raise
        reason = " ".join(str(error).split()) or type(error).__name__
        raise DataError(
            f"{images.shown(path.name)} cannot be unpacked ({reason}); download it again, or unpack it and give the "
            "folder."
        ) from error


@contextmanager
def _bar(title: str, total: int) -> Iterator[Callable[[int], None]]:
    """A progress bar for large archives on a terminal; yields a function that takes the number of bytes written."""
    if total < _SHOWN or not sys.stderr.isatty():
        yield lambda _: None
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(title, total=total)
        yield lambda done: progress.advance(task, done)


def _count(n: int, what: str) -> str:
    return f"{n} {what}{'' if n == 1 else 's'}"


def _left_out(left: Counter[str]) -> str:
    return "".join(f", {what} left out ({n})" for what, n in sorted(left.items()))


def _gib(size: int) -> str:
    return f"{size / 2**30:.2g} GiB" if size >= 2**29 else f"{size / 2**20:.0f} MiB"

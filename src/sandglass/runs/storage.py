"""Atomic writing of files and folders, with checksums to detect damage.

A file is written to a temporary file, flushed to disk and renamed. A folder is written to a temporary folder with a
manifest (size and SHA-256 of every file, and of the manifest itself) written last, then renamed. Temporary files left
by a crash start with a dot, are never read, and are removed when the folder is next opened for writing.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from sandglass import __version__
from sandglass.errors import CheckpointError, DataError, NotFoundError, SaveError
from sandglass.runs.plain import parse_json, read_bytes

MANIFEST = "MANIFEST.json"
FORMAT = 2
NEEDS = "0.2"
"""The first version that reads :data:`FORMAT`; stored in the manifest for the error message of older versions."""

_LARGEST = 2**20  # largest manifest in bytes
_LEFTOVER = re.compile(r"^\.(?P<name>.+)\.(?P<kind>tmp|old)-\d+$")

Content = bytes | Callable[[Path], None]
"""The content of a file: bytes, or a function that writes it to a path."""
_NAME = 80  # characters of a name that messages show


def place_of(path: str | os.PathLike[str]) -> Path:
    """The path that a person named, with ``~`` for the home folder; there need not be anything.

    Raises:
        NotFoundError: no file can have that name, as it is too long.
        DataError: it cannot be looked at, as without permission.
    """
    place = Path(path)
    with suppress(RuntimeError):  # no such user: a name that begins with ~
        place = place.expanduser()
    try:
        place.exists()
    except OSError as error:
        name = ascii(os.fspath(path)[:_NAME])
        if error.errno == errno.ENAMETOOLONG:
            raise NotFoundError(f"There is no file or folder that begins with {name}: the name is too long.") from error
        raise DataError(f"{name} cannot be read: {error.strerror}.") from error
    return place


def is_there(path: str | os.PathLike[str]) -> bool:
    """Whether there is a file or folder of a name, which may be one that no file can have."""
    try:
        return Path(path).exists()
    except OSError:
        return False


def write_file(path: Path, data: bytes) -> None:
    """Writes ``data`` to ``path`` atomically; on failure, an existing file is unchanged.

    Raises:
        SaveError: it could not be written.
    """
    temporary = path.parent / f".{path.name}.tmp-{os.getpid()}"
    with saving(path):
        try:
            _write(temporary, data)
            os.replace(temporary, path)
            _sync(path.parent)
        except OSError:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)
            raise


def make_folder(path: Path) -> None:
    """Creates a folder and its parents, unless it exists.

    Raises:
        SaveError: the folder could not be created.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SaveError(f"The folder {path} could not be created: {error.strerror}.") from error


def cache_folder(name: str) -> Path:
    """A folder for a kind of cached data, in ``$SANDGLASS_CACHE`` or the user's cache folder."""
    own = os.environ.get("SANDGLASS_CACHE")
    if not own:
        import platformdirs

        own = platformdirs.user_cache_dir("sandglass")
    return Path(own, name)


def write_folder(path: Path, files: Mapping[str, Content], about: Mapping[str, Any]) -> None:
    """Writes a folder with these files and a manifest to ``path`` atomically, replacing an existing folder.

    Args:
        path: the folder.
        files: contents by file name.
        about: plain values for the manifest (versions, step, ...).

    Raises:
        SaveError: it could not be written; an existing folder is unchanged.
    """
    temporary, old = (path.parent / f".{path.name}.{kind}-{os.getpid()}" for kind in ("tmp", "old"))
    with saving(path):
        try:
            shutil.rmtree(temporary, ignore_errors=True)
            temporary.mkdir()
            entries = {}
            for name, content in files.items():
                _write(temporary / name, content)
                entries[name] = {"size": (temporary / name).stat().st_size, "sha256": _digest(temporary / name)}
            _write(temporary / MANIFEST, seal({"format": FORMAT, "needs": NEEDS, **about, "files": entries}))
            _sync(temporary)
            if path.exists():
                os.rename(path, old)
            os.rename(temporary, path)
            _sync(path.parent)
        except OSError:
            shutil.rmtree(temporary, ignore_errors=True)
            if old.exists() and not path.exists():
                os.rename(old, path)
            raise
    shutil.rmtree(old, ignore_errors=True)


def append(path: Path, text: str) -> None:
    """Appends complete lines to a file; on failure, a partial write is truncated.

    Raises:
        SaveError: it could not be written.
    """
    with saving(path), path.open("ab") as file:
        size = file.tell()
        try:
            file.write(text.encode())
            file.flush()
        except OSError:
            with suppress(OSError):
                os.truncate(path, size)
            raise


@contextmanager
def saving(path: Path) -> Iterator[None]:
    """Converts errors in writing ``path`` to a one-line error that includes the free disk space.

    Raises:
        SaveError: for any :class:`OSError` inside.
    """
    try:
        yield
    except SaveError:
        raise
    except OSError as error:
        free = free_bytes(path)
        room = "" if free is None else f" ({free / 2**20:,.0f} MiB free)"
        raise SaveError(f"{path} could not be written: {error.strerror or error}{room}.") from error


def free_bytes(path: Path) -> int | None:
    """Free disk space for ``path`` in bytes, None if the system does not report it."""
    place = next((p for p in (path, *path.absolute().parents) if p.is_dir()), Path("."))
    try:
        return shutil.disk_usage(place).free
    except OSError:
        return None


def folder_bytes(path: Path) -> int:
    """Total size of the files in a folder in bytes."""
    return sum(f.stat().st_size for f in path.iterdir() if f.is_file())


def verify_folder(path: Path) -> dict[str, Any]:
    """Reads the manifest and checks every file against it.

    Returns:
        The manifest.

    Raises:
        CheckpointError: a file is missing, added, cut or changed; the message names it.
    """
    manifest = read_manifest(path)
    for name, entry in manifest["files"].items():
        file = path / name
        if not file.is_file():
            raise CheckpointError(f"{file} is missing; the manifest lists it.")
        if file.stat().st_size != entry["size"]:
            raise CheckpointError(f"{file} has {file.stat().st_size} bytes; the manifest says {entry['size']}.")
        if _digest(file) != entry["sha256"]:
            raise CheckpointError(f"{file} is damaged: its SHA-256 is not the one in the manifest.")
    extra = {f.name for f in path.iterdir()} - set(manifest["files"]) - {MANIFEST}
    if extra:
        raise CheckpointError(f"{path / min(extra)} is not in the manifest.")
    return manifest


def read_manifest(path: Path) -> dict[str, Any]:
    """Reads the manifest of a folder and verifies its checksum.

    Raises:
        CheckpointError: there is none, it is damaged, or it was written by a newer Sandglass.
    """
    file = path / MANIFEST
    if not file.is_file():
        raise CheckpointError(f"{path} has no {MANIFEST}: it is incomplete or was not written by Sandglass.")
    try:
        data = read_bytes(file, _LARGEST)
        values = parse_json(data)
        good = seal({k: v for k, v in values.items() if k != "seal"}) == data
    except (OSError, ValueError, AttributeError, TypeError) as error:
        raise CheckpointError(f"{file} is damaged: {error}") from error
    if not good:
        raise CheckpointError(f"{file} is damaged: its contents do not match its own checksum.")
    _check_manifest(file, values)
    return dict(values)


def _check_manifest(file: Path, values: Mapping[str, Any]) -> None:
    """Checks the content of a manifest, which a valid checksum does not guarantee."""
    version = values.get("format")
    if isinstance(version, int) and version < FORMAT:
        raise CheckpointError(
            f"{file.parent} was written by Sandglass 0.1, whose weights have other names: read it with "
            "that version, or train again with its settings: sandglass train --config CONFIG.yaml."
        )
    if isinstance(version, int) and version > FORMAT:
        needs = str(values.get("needs") or "a newer version")[:20]
        raise CheckpointError(
            f"{file.parent} was written by a newer Sandglass (format {version}): it needs >= {needs}, "
            f"this is {__version__}. Upgrade to read it."
        )
    entries = values.get("files")
    if not isinstance(version, int) or not isinstance(entries, dict):
        raise CheckpointError(f"{file} is damaged: it lacks its format or its list of files.")
    for name, entry in entries.items():
        plain = name not in ("", ".", "..") and not set(name) & set("/\\:\0")
        if not (plain and isinstance(entry, dict) and set(entry) == {"size", "sha256"}):
            raise CheckpointError(f"{file} is damaged: the entry '{name}' is invalid.")


def seal(values: Mapping[str, Any]) -> bytes:
    """Canonical JSON of ``values`` that includes its own checksum."""
    body = json.dumps(values, indent=1, sort_keys=True)
    sealed = {**values, "seal": hashlib.sha256(body.encode()).hexdigest()}
    return (json.dumps(sealed, indent=1, sort_keys=True) + "\n").encode()


def sweep(parent: Path) -> None:
    """Removes temporary files left by crashes; restores a folder that was renamed but not yet replaced."""
    for leftover in parent.iterdir() if parent.is_dir() else ():
        match = _LEFTOVER.match(leftover.name)
        if match is None:
            continue
        if match["kind"] == "old" and not (parent / match["name"]).exists():
            os.rename(leftover, parent / match["name"])
        elif leftover.is_dir():
            shutil.rmtree(leftover, ignore_errors=True)
        else:
            leftover.unlink(missing_ok=True)


def _write(path: Path, content: Content) -> None:
    if callable(content):
        content(path)
    else:
        path.write_bytes(content)
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def _sync(folder: Path) -> None:
    """Flushes the entries of a folder to disk, on systems where folders can be opened."""
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError:
        return
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()

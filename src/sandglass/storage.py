"""Files and folders that are either there whole or not at all, and that say when they were damaged.

A file is written beside its place, flushed to the disk and renamed. A folder is written beside its place with a
manifest (size and SHA-256 of every file, and of the manifest itself) written last, then renamed. What a crash leaves
behind starts with a dot, is never read, and is swept away when the place is next opened for writing.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from sandglass.errors import CheckpointError, SaveError

MANIFEST = "MANIFEST.json"
FORMAT = 1
_LEFTOVER = re.compile(r"^\.(?P<name>.+)\.(?P<kind>tmp|old)-\d+$")

Content = bytes | Callable[[Path], None]
"""What goes into a file: bytes, or a function that writes the file at a path."""


def write_file(path: Path, data: bytes) -> None:
    """Puts ``data`` at ``path``, or leaves what was there.

    Raises:
        SaveError: it could not be written.
    """
    temporary = path.parent / f".{path.name}.tmp-{os.getpid()}"
    try:
        _write(temporary, data)
        os.replace(temporary, path)
        _sync(path.parent)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise _save_error(path, error) from error


def write_folder(path: Path, files: Mapping[str, Content], about: Mapping[str, Any]) -> None:
    """Puts a folder with these files and a manifest at ``path``, replacing a folder of that name as a whole.

    Args:
        path: the folder.
        files: file names to contents.
        about: plain values for the manifest (versions, step, ...).

    Raises:
        SaveError: it could not be written; what was there is still there.
    """
    temporary, old = (path.parent / f".{path.name}.{kind}-{os.getpid()}" for kind in ("tmp", "old"))
    try:
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir()
        entries = {}
        for name, content in files.items():
            _write(temporary / name, content)
            entries[name] = {"size": (temporary / name).stat().st_size, "sha256": _digest(temporary / name)}
        _write(temporary / MANIFEST, seal({"format": FORMAT, **about, "files": entries}))
        _sync(temporary)
        if path.exists():
            os.rename(path, old)
        os.rename(temporary, path)
        _sync(path.parent)
    except OSError as error:
        shutil.rmtree(temporary, ignore_errors=True)
        if old.exists() and not path.exists():
            os.rename(old, path)
        raise _save_error(path, error) from error
    shutil.rmtree(old, ignore_errors=True)


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
    """The manifest of a folder, its own seal checked.

    Raises:
        CheckpointError: there is none, it is damaged, or a newer Sandglass wrote it.
    """
    file = path / MANIFEST
    try:
        data = file.read_bytes()
    except OSError as error:
        raise CheckpointError(f"{path} has no {MANIFEST}: it is incomplete or was not written by Sandglass.") from error
    try:
        values: dict[str, Any] = json.loads(data)
        good = seal({k: v for k, v in values.items() if k != "seal"}) == data
    except (ValueError, AttributeError, TypeError) as error:
        raise CheckpointError(f"{file} is damaged: {error}.") from error
    if not good:
        raise CheckpointError(f"{file} is damaged: its contents do not match its own checksum.")
    if values["format"] > FORMAT:
        raise CheckpointError(
            f"{path} was written by a newer Sandglass (format {values['format']}); upgrade to read it."
        )
    return values


def seal(values: Mapping[str, Any]) -> bytes:
    """Canonical JSON of ``values`` with a checksum of itself."""
    body = json.dumps(values, indent=1, sort_keys=True)
    sealed = {**values, "seal": hashlib.sha256(body.encode()).hexdigest()}
    return (json.dumps(sealed, indent=1, sort_keys=True) + "\n").encode()


def sweep(parent: Path) -> None:
    """Clears what crashes left in a folder; a folder that was moved aside and never replaced goes back to its place."""
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
    """Flushes a folder's own entries; on systems where folders cannot be opened there is nothing to flush."""
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


def _save_error(path: Path, error: OSError) -> SaveError:
    try:
        free = f" ({shutil.disk_usage(path.parent).free / 2**20:,.0f} MiB free)"
    except OSError:
        free = ""
    return SaveError(f"{path} could not be written: {error.strerror or error}{free}.")

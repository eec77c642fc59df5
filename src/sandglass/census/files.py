"""The entries of a folder of pictures that are skipped, with the reasons."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from sandglass.data.sources import images
from sandglass.data.sources.layouts import IGNORED


def ignored(folder: Path) -> Iterator[tuple[str, str]]:
    """All skipped entries below a folder as (name, reason), sorted by the bytes of the names.

    Hidden folders and symbolic links to folders are not entered, so that there are no loops.

    Example:
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp())
        >>> (folder / "loop").symlink_to(folder)
        >>> list(ignored(folder))
        [('loop', 'a link to a folder above it, a loop')]
    """
    yield from sorted(_below(folder, folder), key=lambda found: os.fsencode(found[0]))


def _below(folder: Path, root: Path) -> Iterator[tuple[str, str]]:
    try:
        with os.scandir(folder) as entries:
            found = list(entries)
    except OSError as error:
        yield images.shown(folder.relative_to(root)), f"a folder that cannot be opened ({error.strerror})"
        return
    for entry in found:
        path = folder / entry.name
        reason = _reason(entry, path)
        if reason:
            yield images.shown(path.relative_to(root)), reason
        elif entry.is_dir(follow_symlinks=False):
            yield from _below(path, root)


def _reason(entry: os.DirEntry[str], path: Path) -> str:
    """The reason why an entry is skipped; empty for a picture and for a folder to enter."""
    if entry.name.lower() in IGNORED or entry.name.startswith("._"):
        return "a file of the operating system"
    if entry.name.startswith("."):
        return "hidden"
    if entry.is_symlink():
        target = Path(os.path.realpath(path))
        if target.is_dir():
            above = target == path.parent.resolve() or target in path.parent.resolve().parents
            return "a link to a folder above it, a loop" if above else "a link to a folder"
        if not target.exists():
            return "a link to nothing"
    if entry.is_dir(follow_symlinks=False):
        return ""
    if not images.is_picture(path):
        return "not a picture by its extension"
    return "" if entry.is_file() else "not a regular file"

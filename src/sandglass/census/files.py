"""What lies in a folder of pictures and is not read, and why."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from sandglass.data.sources import images
from sandglass.data.sources.layouts import IGNORED


def ignored(folder: Path) -> Iterator[tuple[str, str]]:
    """Everything below a folder that is passed over, as (name, reason), in the order of the names' bytes.

    A hidden folder, or one that is a link, is one entry: what is in it is not looked at, so a link that leads back to
    a folder above it ends here.

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
    """Why an entry is not read; empty for a picture and for a folder that is entered."""
    if entry.name.lower() in IGNORED or entry.name.startswith("._"):
        return "a system's own file"
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
        return "no picture by its name"
    return "" if entry.is_file() else "no regular file"

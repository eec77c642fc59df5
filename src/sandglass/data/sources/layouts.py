"""Lists the pictures of a folder with their splits and classes."""

from __future__ import annotations

import functools
import os
import re
import unicodedata
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sandglass.data.sources import images
from sandglass.errors import DataError

_SPLITS = {
    "train": "train", "training": "train", "val": "validation", "valid": "validation", "validation": "validation",
    "test": "test", "testing": "test",
}  # fmt: skip
_DOMAIN = re.compile(rf"({'|'.join(_SPLITS)})[_-]?([ab])", re.IGNORECASE)
IGNORED = ("__macosx", "thumbs.db", "desktop.ini")
"""Lower-case names of files that operating systems add to folders."""

_FEW = 5


@dataclass(frozen=True)
class Item:
    """One picture of a source.

    Args:
        content: its file (a path), or a Pillow picture.
        name: its name in messages.
        label: its class, or None.
        key: path relative to the folder of its split, for matching companions.
    """

    content: Any
    name: str
    label: str | int | None = None
    key: str = ""


def list_splits(folder: Path, *, labels: bool, domain: str = "") -> tuple[dict[str, list[Item]], tuple[str, ...]]:
    """The pictures of a folder by split, and notes on its layout and on skipped files.

    A folder is flat, or has class folders, or either of these below ``train``, ``validation`` and ``test``. If it
    contains only a single folder, that one is used. The folders of a split are classes if there are at least two over
    all splits and no pictures next to them.

    Args:
        folder: the folder.
        labels: whether folders are classes.
        domain: in a folder of two domains, see :func:`domains`, the one to read: ``"a"`` or ``"b"``; without classes.

    Returns:
        ``train``, which may be empty, and the other splits that have pictures.

    Raises:
        DataError: the folder cannot be read, or contains several datasets.
    """
    try:
        base = _unwrapped(folder)
        roots = domains(folder)[domain] if domain else _roots(base)
    except OSError as error:
        raise DataError(f"{images.shown(folder)} cannot be read: {error.strerror}.") from error
    passed: Counter[str] = Counter()
    files = {split: [(root, file) for root in found for file in walk(root, passed)] for split, found in roots.items()}
    files = {split: found for split, found in files.items() if found or split == "train"}
    tops = {split: [_top(root, file) for root, file in found] for split, found in files.items()}
    classed = _classed(tops) if labels and not domain else ()
    start = len(os.path.join(folder, ""))
    items = {
        split: [
            Item(file, images.shown(file[start:]), top if split in classed else None, _below(root, file))
            for (root, file), top in zip(found, tops[split], strict=True)
        ]
        for split, found in files.items()
    }
    return items, (*(() if domain else _remarks(base, tops, classed)), *_passed_over(passed))


def domains(folder: Path) -> dict[str, dict[str, list[Path]]]:
    """The folders of two unpaired domains: ``trainA`` and ``trainB``, ``testA`` and ``testB``, as for CycleGAN.

    Returns:
        The folders of each split for ``"a"`` and ``"b"``; empty if the folder has no such layout.
    """
    found: dict[str, dict[str, list[Path]]] = {"a": {}, "b": {}}
    for path in _folders(_unwrapped(folder)):
        if match := _DOMAIN.fullmatch(path.name):
            found[match[2].lower()].setdefault(_SPLITS[match[1].lower()], []).append(path)
    return found if all("train" in splits for splits in found.values()) else {}


def walk(folder: Path, passed: Counter[str]) -> list[str]:
    """Regular files below a folder with the extension of a picture, sorted by the bytes of their names.

    Symbolic links to folders are not followed, so no picture is read twice and there are no loops.

    Args:
        folder: the folder.
        passed: updated with the number of skipped entries by kind.
    """
    found, folders = [], [os.fspath(folder)]
    while folders:
        try:
            with os.scandir(folders.pop()) as entries:
                for entry in entries:
                    if ignored(entry.name):
                        passed["hidden or system files"] += 1
                    elif entry.is_dir(follow_symlinks=False):
                        folders.append(entry.path)
                    elif entry.is_symlink() and not leads_to_file(entry):
                        passed["links to folders or to nothing"] += 1
                    elif not entry.is_file():
                        passed["pipes, sockets or devices"] += 1
                    elif images.is_picture(entry.name):
                        found.append(entry.path)
                    else:
                        passed["files without a picture's extension"] += 1
        except OSError:  # no permission, or the folder has just been removed
            passed["folders that cannot be read"] += 1
    return sorted(found, key=os.fsencode)


def leads_to_file(entry: os.DirEntry[str]) -> bool:
    """Whether an entry is a regular file or a link to one; False for a link to itself, which raises an OSError."""
    try:
        return entry.is_file()
    except OSError:
        return False


def ignored(name: str) -> bool:
    """Whether a file or folder of this name is hidden or was added by an operating system.

    Example:
        >>> ignored("._photo.png"), ignored("Thumbs.db"), ignored("photo.png")
        (True, True, False)
    """
    return name.startswith(".") or name.lower() in IGNORED


def _unwrapped(folder: Path) -> Path:
    """The innermost of nested folders that contain only a single folder, as in many unpacked archives."""
    while True:
        with os.scandir(folder) as entries:
            seen = [e for e in entries if not ignored(e.name)]
        inner = [e for e in seen if e.is_dir(follow_symlinks=False)]
        if len(inner) != 1 or any(images.is_picture(e.name) and leads_to_file(e) for e in seen):
            return folder
        folder = folder / inner[0].name


def _roots(base: Path) -> dict[str, list[Path]]:
    """The folders of each split.

    Raises:
        DataError: there are several datasets.
    """
    roots: dict[str, list[Path]] = {}
    children = _folders(base)
    for path in children:
        if split := _SPLITS.get(path.name.lower()):
            roots.setdefault(split, []).append(path)
    if "train" in roots:
        return roots
    sets = [path for path in children if (path / "train" / "good").is_dir()]
    if len(sets) > 1:
        names = ", ".join(images.shown(path.name) for path in sets[:_FEW])
        raise DataError(
            f"{images.shown(base)} holds {len(sets)} datasets with a train folder each ({names}"
            f"{', ...' if len(sets) > _FEW else ''}); give one of them, such as {images.shown(sets[0])}."
        )
    return {"train": [base]}


def _classed(tops: dict[str, list[str | None]]) -> tuple[str, ...]:
    """The splits whose folders are classes."""
    splits = [split for split, found in tops.items() if None not in found]
    train = set(tops["train"])
    if None not in train and len(train) > 1:  # a single folder that is not a class of train only wraps the split
        splits = [s for s in splits if len(set(tops[s])) > 1 or set(tops[s]) <= train]
    names = {top for split in splits for top in tops[split]}
    return tuple(splits) if "train" in splits and len(names) > 1 else ()


def _remarks(base: Path, tops: dict[str, list[str | None]], classed: tuple[str, ...]) -> Iterator[str]:
    """Notes on the layout."""
    train = set(tops["train"])
    others = {s: sorted({str(t) for t in tops[s]} - {str(t) for t in train}) for s in classed}
    if train == {"good"} and (others.get("test") or (base / "ground_truth").is_dir()):
        masks = len(walk(base / "ground_truth", Counter())) if (base / "ground_truth").is_dir() else 0
        yield (
            f"the layout of MVTec: train has only good pictures, test also {_listed(others.get('test', []))}"
            + (f"; ground_truth ({masks} masks) is not read" if masks else "")
        )
    else:
        for split, names in others.items():
            if names:
                yield f"{split} has {'classes' if len(names) > 1 else 'a class'} not in train: {_listed(names)}"
    if classed:
        for split in tops:
            if split not in classed:
                yield f"the {split} pictures are not in class folders: they have no labels"


def _passed_over(passed: Counter[str]) -> Iterator[str]:
    if passed:
        yield f"skipped: {', '.join(f'{what} ({n})' for what, n in sorted(passed.items()))}"


def _listed(names: list[str]) -> str:
    return ", ".join(names[:_FEW]) + (f" and {len(names) - _FEW} more" if len(names) > _FEW else "")


def _top(root: Path, file: str) -> str | None:
    """The class name of the folder directly below ``root`` that contains a file; None for a file in ``root``."""
    inner = _below(root, file)
    return _class(inner.split(os.sep, 1)[0]) if os.sep in inner else None


def _below(root: Path, file: str) -> str:
    """The path of a file relative to a folder; with pathlib this would take as long as decoding a small picture."""
    return file[len(os.path.join(root, "")) :]


@functools.lru_cache(maxsize=4096)
def _class(name: str) -> str:
    """A folder's name as a class name: in Unicode NFC, so that it does not depend on the operating system."""
    return unicodedata.normalize("NFC", images.shown(name))


def _folders(folder: Path) -> list[Path]:
    with os.scandir(folder) as entries:
        return sorted(folder / e.name for e in entries if e.is_dir(follow_symlinks=False) and not ignored(e.name))

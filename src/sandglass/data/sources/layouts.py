"""Which pictures a folder holds, and which split and class each of them belongs to."""

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
"""Names, in small letters, of what systems leave in folders."""

_FEW = 5


@dataclass(frozen=True)
class Item:
    """One picture of a source.

    Args:
        content: its file (a path), or a Pillow picture.
        name: what messages call it.
        label: its class, or None.
        key: where it lies below the folder of its split, by which its companions are found.
    """

    content: Any
    name: str
    label: str | int | None = None
    key: str = ""


def list_splits(folder: Path, *, labels: bool, domain: str = "") -> tuple[dict[str, list[Item]], tuple[str, ...]]:
    """The pictures of a folder by split, and notes on its layout and on what was passed over.

    A folder is flat, or has a folder a class, or either below ``train``, ``validation`` and ``test``. One that holds
    nothing but one other folder is taken for that one. A split's folders are its classes where the splits have two or
    more between them and no picture lies beside them.

    Args:
        folder: where.
        labels: whether folders name classes.
        domain: of a folder of two domains, see :func:`domains`, the one to read: ``"a"`` or ``"b"``; without classes.

    Returns:
        ``train``, which may be empty, and the other splits that have pictures.

    Raises:
        DataError: it may not be read, or holds several data sets.
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
        For ``"a"`` and ``"b"`` the folders of each split; nothing where it has no such layout.
    """
    found: dict[str, dict[str, list[Path]]] = {"a": {}, "b": {}}
    for path in _folders(_unwrapped(folder)):
        if match := _DOMAIN.fullmatch(path.name):
            found[match[2].lower()].setdefault(_SPLITS[match[1].lower()], []).append(path)
    return found if all("train" in splits for splits in found.values()) else {}


def walk(folder: Path, passed: Counter[str]) -> list[str]:
    """Regular files below a folder whose names end like a picture's, in the order of their names' bytes.

    Folders that are links are not entered, so no picture is met twice and no loop is run through.

    Args:
        folder: where.
        passed: counts what is left out, by kind.
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
                        passed["files that are no pictures by their names"] += 1
        except OSError:  # of a folder that may not be entered, or has just been removed
            passed["folders that cannot be read"] += 1
    return sorted(found, key=os.fsencode)


def leads_to_file(entry: os.DirEntry[str]) -> bool:
    """Whether it is a regular file or a link to one; a link to itself is not, though the system calls it an error."""
    try:
        return entry.is_file()
    except OSError:
        return False


def ignored(name: str) -> bool:
    """Whether a file or folder of this name is none of a person's own making.

    Example:
        >>> ignored("._photo.png"), ignored("Thumbs.db"), ignored("photo.png")
        (True, True, False)
    """
    return name.startswith(".") or name.lower() in IGNORED


def _unwrapped(folder: Path) -> Path:
    """The innermost of folders that hold nothing but one another, as an unpacked archive often is."""
    while True:
        with os.scandir(folder) as entries:
            seen = [e for e in entries if not ignored(e.name)]
        inner = [e for e in seen if e.is_dir(follow_symlinks=False)]
        if len(inner) != 1 or any(images.is_picture(e.name) and leads_to_file(e) for e in seen):
            return folder
        folder = folder / inner[0].name


def _roots(base: Path) -> dict[str, list[Path]]:
    """For each split the folders that hold it.

    Raises:
        DataError: several data sets beside each other.
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
            f"{images.shown(base)} holds {len(sets)} data sets with a train folder each ({names}"
            f"{', ...' if len(sets) > _FEW else ''}); give one of them, such as {images.shown(sets[0])}."
        )
    return {"train": [base]}


def _classed(tops: dict[str, list[str | None]]) -> tuple[str, ...]:
    """The splits whose folders are classes."""
    splits = [split for split, found in tops.items() if None not in found]
    train = set(tops["train"])
    if None not in train and len(train) > 1:  # one folder of another name than train's classes only wraps the split
        splits = [s for s in splits if len(set(tops[s])) > 1 or set(tops[s]) <= train]
    names = {top for split in splits for top in tops[split]}
    return tuple(splits) if "train" in splits and len(names) > 1 else ()


def _remarks(base: Path, tops: dict[str, list[str | None]], classed: tuple[str, ...]) -> Iterator[str]:
    """What a reader should know of the layout."""
    train = set(tops["train"])
    others = {s: sorted({str(t) for t in tops[s]} - {str(t) for t in train}) for s in classed}
    if train == {"good"} and (others.get("test") or (base / "ground_truth").is_dir()):
        masks = len(walk(base / "ground_truth", Counter())) if (base / "ground_truth").is_dir() else 0
        yield (
            f"the layout of MVTec: train holds good pictures only, test also {_listed(others.get('test', []))}"
            + (f"; ground_truth ({masks} masks) is not read" if masks else "")
        )
    else:
        for split, names in others.items():
            if names:
                yield f"{split} has {'classes' if len(names) > 1 else 'a class'} that train lacks: {_listed(names)}"
    if classed:
        for split in tops:
            if split not in classed:
                yield f"the {split} pictures lie in no class folders: they have no labels"


def _passed_over(passed: Counter[str]) -> Iterator[str]:
    if passed:
        yield f"passed over: {', '.join(f'{what} ({n})' for what, n in sorted(passed.items()))}"


def _listed(names: list[str]) -> str:
    return ", ".join(names[:_FEW]) + (f" and {len(names) - _FEW} more" if len(names) > _FEW else "")


def _top(root: Path, file: str) -> str | None:
    """The folder right below ``root`` that a file is in, as a class is called; None for a file beside them."""
    inner = _below(root, file)
    return _class(inner.split(os.sep, 1)[0]) if os.sep in inner else None


def _below(root: Path, file: str) -> str:
    """The path of a file below a folder; pathlib takes as long for this as a small picture takes to decode."""
    return file[len(os.path.join(root, "")) :]


@functools.lru_cache(maxsize=4096)
def _class(name: str) -> str:
    """A folder's name as a class: composed, so that it is one whether a Mac or another system wrote it."""
    return unicodedata.normalize("NFC", images.shown(name))


def _folders(folder: Path) -> list[Path]:
    with os.scandir(folder) as entries:
        return sorted(folder / e.name for e in entries if e.is_dir(follow_symlinks=False) and not ignored(e.name))

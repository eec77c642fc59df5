"""Classes of pictures from a table beside them, or from their file names."""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from sandglass.data.sources.images import shown
from sandglass.data.sources.label_table import LINES, LabelTable
from sandglass.data.sources.layouts import Item, ignored, list_splits
from sandglass.data.sources.raw import NAMED, check_count
from sandglass.errors import ConfigError, DataError, NotFoundError

_TEXTS = (".csv", ".tsv", *LINES)
_PLACE = "{label}"
_MOST = 4  # wildcards in a pattern; no name needs more

Splits = dict[str, list[Item]]


@dataclass(frozen=True)
class Labelled:
    """Pictures with their classes.

    Args:
        items: the pictures of each split that have a class.
        notes: remarks.
        bad: name and reason of each picture without a class, which is left out.
        where: the value of ``labels`` to read them again; a file in the folder is given by its path in it.
    """

    items: Splits
    notes: tuple[str, ...] = ()
    bad: tuple[tuple[str, str], ...] = ()
    where: str = ""


@dataclass(frozen=True)
class NamePattern:
    """A pattern of file names, taken apart.

    Args:
        fixed: the parts that match a fixed number of characters, one more than there are wildcards.
        wild: the wildcards between them, ``*`` or ``{label}``.
    """

    fixed: tuple[re.Pattern[str], ...]
    wild: tuple[str, ...]

    def label(self, name: str) -> str | None:
        """The label in a name, as short as possible, or None if the name does not match.

        A single regular expression would try all places of all wildcards: for n characters and k wildcards, n^k steps.
        Here each place is tried once for each part, and the time grows with k n^2 at most.
        """
        lost: set[tuple[int, int]] = set()
        span = self._span(name, 0, 0, lost)
        return None if span is None else name[slice(*span)]

    def _span(self, name: str, part: int, start: int, lost: set[tuple[int, int]]) -> tuple[int, ...] | None:
        """Matches the parts from ``part`` on with the name from ``start`` on.

        Returns:
            The place of the label, empty if it is before ``start``. None without a match, which is noted in ``lost``.
        """
        found = self.fixed[part].match(name, start)
        if found and part == len(self.wild) and found.end() == len(name):
            return ()
        if found and part < len(self.wild):
            first, label = found.end(), self.wild[part] == _PLACE
            last = name.find("/", first) if "/" in name[first:] else len(name)
            for end in range(first + 1, last + 1) if label else range(last, first - 1, -1):
                if (part + 1, end) not in lost:
                    span = self._span(name, part + 1, end, lost)
                    if span is not None:
                        return (first, end) if label else span
        lost.add((part, start))
        return None


def check_pattern(pattern: Any) -> NamePattern:
    """A pattern of file names; ``*`` and ``?`` stand for any characters but ``/``.

    Raises:
        ConfigError: it does not have ``{label}`` once, or has too many wildcards.

    Example:
        >>> check_pattern("{label}_*.jpg").label("cat_001.jpg")
        'cat'
    """
    text = str(pattern)
    if text.count(_PLACE) != 1 or text.count("{") != 1:
        raise ConfigError(
            f"labels_from_names must have {_PLACE} once, such as '{_PLACE}_*.jpg' for cat_001.jpg, not '{pattern}'."
        )
    text = re.sub(r"\*+", "*", text)
    if text.count("*") > _MOST:
        raise ConfigError(f"labels_from_names can have {_MOST} * at most, not {text.count('*')}.")
    parts = re.split(r"(\{label\}|\*)", text)
    fixed = ("[^/]".join(map(re.escape, part.split("?"))) for part in parts[::2])
    return NamePattern(tuple(re.compile(part, re.IGNORECASE) for part in fixed), tuple(parts[1::2]))


def listed(
    folder: Path, labels: Any = None, labels_from_names: str | None = None, domain: str = ""
) -> tuple[Labelled, tuple[str, ...]]:
    """The pictures of a folder with their classes, and notes on its layout; see :func:`read_folder`.

    Raises:
        ConfigError: labels of another type, or given twice.
    """
    if labels_from_names is not None and labels is not None:
        raise ConfigError("labels and labels_from_names both give classes; leave one of the two out.")
    if not isinstance(labels, str | bool | None):
        raise ConfigError(
            "A folder's labels are its class folders, a FILE:COLUMN of file names and classes, or False for none; not "
            "an array."
        )
    own = labels in (None, True) and labels_from_names is None
    items, notes = list_splits(folder, labels=own, domain=domain)
    if not items["train"]:
        return Labelled(items), notes
    if own and (tables := beside(folder, items)):
        notes += (
            f"not read: {', '.join(tables)}; if it has a row for each picture with its file name and class, "
            f"labels='{tables[0]}:COLUMN' (--labels {tables[0]}:COLUMN) reads that column",
        )
    return label(items, labels if isinstance(labels, str) else None, labels_from_names, folder), notes


def label(items: Splits, labels: str | None, pattern: str | None, folder: Path) -> Labelled:
    """Classes by the options ``labels`` and ``labels_from_names`` of :func:`sandglass.load_data`; at most one is given.

    Raises:
        NotFoundError, ConfigError, DataError: as :func:`from_file` and :func:`from_names`.
    """
    if pattern is not None:
        return from_names(items, pattern)
    return Labelled(items) if labels is None else from_file(items, labels, folder)


def from_names(items: Splits, pattern: str) -> Labelled:
    """Classes from file names; a pattern with ``/`` is matched with the path below the folder of the split.

    Args:
        items: pictures of each split.
        pattern: see :func:`check_pattern`.

    Raises:
        ConfigError: an invalid pattern.
        DataError: no name matches it, or the labels are no classes.
    """
    checked = check_pattern(pattern)

    def named(split: str, item: Item) -> Any:
        name = item.key.replace(os.sep, "/")
        found = checked.label(name if "/" in pattern else name.rsplit("/", 1)[-1])
        return None if found is None else unicodedata.normalize("NFC", shown(found))

    found = _given(items, named, f"name that matches '{pattern}'")
    every = [item.label for kept in found.items.values() for item in kept]
    check_count(len(set(every)), len(every), NAMED)
    return found


def from_file(items: Splits, labels: str, folder: Path) -> Labelled:
    """Classes from a column of a table with a row for each picture.

    The file is looked for in the folder, in the folder of each split, in those between, and from the working folder.

    Args:
        items: pictures of each split.
        labels: ``FILE`` or ``FILE:COLUMN``.
        folder: the folder of the pictures.

    Raises:
        NotFoundError: there is no such file.
        DataError: it has no such column, names no picture, or gives a picture two classes.
    """
    files, column, where = _find(items, labels, folder)
    read = [LabelTable.read(path, column, [i for split in splits for i in items[split]]) for path, splits in files]
    found = {id(item): value for table in read for item, value in table.classes()}
    name, column = read[0].name, read[0].column
    labelled = _given(items, lambda split, item: found.get(id(item)), f"class in {name}")
    notes = [f"classes are column '{column}' of {name}", *(note for table in read for note in table.notes)]
    return replace(labelled, notes=(*notes, *labelled.notes), where=f"{where}:{column}")


def _find(items: Splits, labels: str, folder: Path) -> tuple[list[tuple[Path, list[str]]], str | None, str]:
    """The files that ``labels`` names, each with the splits it is for; the column; and how to find the files again."""
    cuts = [i for i in range(len(labels) - 1, 0, -1) if labels[i] == ":"]  # both names may have colons of their own
    for name, column in ((labels, None), *((labels[:i], labels[i + 1 :]) for i in cuts)):
        with suppress(ValueError):  # a null character
            name = os.path.expanduser(name)
        roots = {split: _root(found) for split, found in items.items()}
        for place in _above(folder, roots.values()):
            if _is_file(path := place / name):
                return [(path, list(items))], column, _again(path, folder)
        own = [(Path(root, name), [split]) for split, root in roots.items() if root and _is_file(Path(root, name))]
        if own:
            return own, column, name
        if _is_file(Path(name)):
            return [(Path(name), list(items))], column, _again(Path(name), folder)
    file = shown(labels[: cuts[0]] if cuts else labels)
    raise NotFoundError(
        f"There is no file '{file}' with labels in {shown(folder)} or here; give labels as FILE or "
        "FILE:COLUMN, file names with classes as labels_from_names, or class folders."
    )


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):  # a name that is too long, or that no file can have
        return False


def _again(path: Path, folder: Path) -> str:
    """A path that is found again: of a file in the folder, which may move with it, its path in there."""
    path, folder = path.resolve(), folder.resolve()
    return str(path.relative_to(folder) if path.is_relative_to(folder) else path)


def beside(folder: Path, items: Splits) -> list[str]:
    """Names of tables among the pictures, such as ``metadata.csv``, that may hold their classes."""
    found: dict[str, None] = {}
    roots = [root for root in map(_root, items.values()) if root]
    for place in dict.fromkeys((*_above(folder, roots), *map(Path, roots))):
        with suppress(OSError), os.scandir(place) as entries:
            found |= dict.fromkeys(sorted(e.name for e in entries if e.name.lower().endswith(_TEXTS) and e.is_file()))
    return [shown(name) for name in found if not ignored(name)]


def _above(folder: Path, roots: Iterable[str]) -> list[Path]:
    """The folder, and the folders in it that hold all splits, outermost first."""
    places = [{p for p in Path(root).parents if p.is_relative_to(folder)} for root in roots if root]
    return sorted({folder}.union(set.intersection(*places) if places else ()))


def _root(items: Sequence[Item]) -> str:
    """The folder of a split, from the first of its pictures; empty without one."""
    if not items or not items[0].key:
        return ""
    return os.fspath(items[0].content)[: -len(items[0].key)]


def _given(items: Splits, label: Any, what: str) -> Labelled:
    """The pictures for which ``label`` finds a class.

    Raises:
        DataError: it finds none in the training set.
    """
    found: Splits = {}
    lacking: list[Item] = []
    for split, every in items.items():
        classes = [(item, label(split, item)) for item in every]
        found[split] = [replace(item, label=value) for item, value in classes if value is not None]
        lacking += [item for item, value in classes if value is None]
    total = sum(map(len, items.values()))
    example = lacking[0].name if lacking else ""
    if not found["train"]:
        raise DataError(f"No picture has a {what}; {example} has none, for example.")
    bad = tuple((item.name, f"it has no {what}") for item in lacking)
    some = {split: kept for split, kept in found.items() if kept}
    if not lacking:
        return Labelled(some)
    has, are = ("has", "is") if len(lacking) == 1 else ("have", "are")
    note = f"{len(lacking)} of the {total} pictures {has} no {what} and {are} left out, such as {example}"
    return Labelled(some, (note,), bad)

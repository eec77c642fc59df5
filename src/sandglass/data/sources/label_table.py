"""Tables of file names and classes, matched with pictures."""

from __future__ import annotations

import json
import os
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from sandglass.data import cells
from sandglass.data.distinct import INSTEAD
from sandglass.data.sources import tables
from sandglass.data.sources.images import is_picture, shown
from sandglass.data.sources.layouts import Item
from sandglass.data.sources.raw import SPLITS
from sandglass.errors import DataError
from sandglass.registry import nearest
from sandglass.runs import frames

LABELS = ("label", "labels", "class", "target", "y", "category")
"""Names that a column or key of classes usually has; the first that there is, is used."""

LINES = (".jsonl", ".ndjson")
ENDINGS = (*tables.ENDINGS, *LINES)
_NAMES = ("file_name", "filename", "file", "path", "image", "name", "id")


@dataclass
class LabelTable:
    """A table of file names and classes, matched with pictures."""

    name: str
    column: str
    rows: list[tuple[str, Any]]
    names: _Names
    way: _Way
    notes: list[str] = field(default_factory=list)

    @classmethod
    def read(cls, path: Path, column: str | None, items: list[Item]) -> LabelTable:
        """Reads a file and finds its columns."""
        names = _Names(items, path.parent)
        frame = _with_header(_frame(path), names)
        name = shown(path.name)
        texts = {str(c): _texts(frame[c]) for c in frame.columns}
        key = _key_of(texts, names)
        if key is None:
            first = next(iter(items)).name
            raise DataError(f"{name} has no column with the file names of the pictures, such as {first}. "
                            f"It has: {cells.listed(texts)}.")  # fmt: skip
        column = _column_of(name, column, [c for c in texts if c != key])
        classes = _classes(frame[column], f"column '{column}' of {name}")
        way = names.way(texts[key])
        found = dict.fromkeys(start for text in texts[key] if (start := names.start(text, way)))
        more = f" and {len(found) - 1} other beginning{'s' * (len(found) > 2)}" if len(found) > 1 else ""
        notes = [f"paths in {name} are read without '{next(iter(found))}'{more}"] if found else []
        return cls(name, column, list(zip(texts[key], classes, strict=True)), names, way, notes)

    def classes(self) -> Iterator[tuple[Item, Any]]:
        """Each picture with its class.

        Raises:
            DataError: a picture has two classes, or a name is that of several pictures.
        """
        twice = 0
        given: dict[int, tuple[Item, Any]] = {}
        extra: list[str] = []
        example = ""
        for text, value in self.rows:
            found = self.names.find(text, self.way)
            if len(found) > 1:
                raise DataError(
                    f"{self.name} has '{text}', which is the name of {len(found)} pictures, {found[0].name} and "
                    f"{found[1].name}; write their paths in the folder."
                )
            if not found:
                extra.append(text)
                continue
            (item,) = found
            if id(item) in given and given[id(item)][1] != value:
                raise DataError(
                    f"{self.name} gives {item.name} two classes, '{given[id(item)][1]}' and '{value}'; keep one row."
                )
            if id(item) in given:
                twice, example = twice + 1, example or text
            given[id(item)] = item, value
        if extra:
            rows = "row names" if len(extra) == 1 else "rows name"
            self.notes.append(f"{len(extra)} {rows} no picture in {self.name}, such as {extra[0]}")
        if twice:
            self.notes.append(f"{twice} row{'s' * (twice > 1)} of {self.name} repeat a picture, such as {example}")
        yield from given.values()


@dataclass(frozen=True)
class _Way:
    """What a column of names has that decides how far they may be matched.

    Args:
        repeated: file names that several of them have, in different folders.
        splits: names of splits among their folders.
    """

    repeated: frozenset[str] = frozenset()
    splits: frozenset[str] = frozenset()


class _Names:
    """Pictures by every name that a table may have for them, each with or without extension.

    These are the path in the folder of the pictures, in that of their split and in that of the table, and file name.

    Args:
        items: the pictures.
        place: the folder of the table.
    """

    def __init__(self, items: Sequence[Item], place: Path) -> None:
        self.place, above = place, os.path.join(place.resolve(), "")

        def below(item: Item) -> str:
            path = os.fspath(item.content)
            return path[len(above) :] if path.startswith(above) else ""

        self.paths = _by_name(items, lambda item: [item.name, item.key, below(item)])
        self.whole = _by_name(items, lambda item: [item.name])
        self.short = _by_name(items, lambda item: [item.name.rsplit("/", 1)[-1], item.key.rsplit("/", 1)[-1]])
        first = next(iter(items))
        root = os.fspath(first.content).removesuffix(first.name).rstrip("/")
        self.split = SPLITS.get(os.path.basename(root).lower())  # that the pictures are of, by their folder

    def way(self, texts: Sequence[str]) -> _Way:
        """What a column of names has that decides how far they may be matched."""
        found = [name.split("/") for name in set(map(_norm, texts)) if "/" in name]
        count = Counter(parts[-1] for parts in found)
        folders = {folder.lower() for parts in found for folder in parts[:-1]}
        return _Way(
            frozenset(name for name, times in count.items() if times > 1),
            frozenset(SPLITS[folder] for folder in folders if folder in SPLITS),
        )

    def find(self, text: str, way: _Way) -> list[Item]:
        """The pictures of a name, by the most specific kind of name that has any."""
        name = _norm(text)
        known = self.paths if "/" in name else (*self.paths, *self.short)
        return next((one[name] for one in known if name in one), []) or self.moved(name, way)[0]

    def start(self, text: str, way: _Way) -> str:
        """What a path begins with that is left out; empty if it is read as it is."""
        name = _norm(text)
        as_it_is = "/" not in name or any(name in one for one in self.paths)
        return "" if as_it_is else self.moved(name, way)[1]

    def moved(self, name: str, way: _Way) -> tuple[list[Item], str]:
        """The pictures whose paths in their folder end a path of another place, and what the path begins with.

        A path of another split, or of another file that is there, is not that of a picture; nor is one of which only
        the file name is that of a picture, if the names have it in several folders.
        """
        parts = name.split("/")
        for level in range(1, len(parts)):
            rest = "/".join(parts[level:])
            items = next((one[rest] for one in self.whole if rest in one), [])
            if not items:
                continue
            splits = {SPLITS[part.lower()] for part in parts[:level] if part.lower() in SPLITS}
            strange = splits - {self.split} if self.split else splits if len(way.splits) > 1 else set()
            if strange or ("/" not in rest and rest in way.repeated) or self.is_another(name, items):
                break
            return items, f"{'/'.join(parts[:level])}/"
        return [], ""

    def is_another(self, name: str, items: Sequence[Item]) -> bool:
        """Whether a path, from the folder of the table on, is that of another file than those of pictures."""
        try:
            return any(not os.path.samefile(self.place / name, item.content) for item in items)
        except OSError:  # there is none
            return False


_ByName = tuple[dict[str, list[Item]], dict[str, list[Item]]]


def _by_name(items: Sequence[Item], names: Callable[[Item], Iterable[str]]) -> _ByName:
    """Pictures by their names, with and without extension."""
    found: tuple[dict[str, dict[int, Item]], ...] = ({}, {})
    for item in items:
        for name in filter(None, map(_norm, names(item))):
            for known, own in zip(found, (name, os.path.splitext(name)[0]), strict=True):
                known.setdefault(own, {})[id(item)] = item
    whole, stems = ({name: list(same.values()) for name, same in known.items()} for known in found)
    return whole, stems


def _norm(name: str) -> str:
    return unicodedata.normalize("NFC", name.strip().replace("\\", "/").removeprefix("./"))


def _frame(path: Path) -> Any:
    """A table of file names and classes as a DataFrame.

    Raises:
        DataError: it cannot be read.
    """
    if path.suffix.lower() in tables.ENDINGS:
        return tables.read_file(path)[0]
    name = shown(path.name)
    if path.suffix.lower() not in LINES:
        raise DataError(f"{name} cannot be read for labels; give a file that ends in {', '.join(ENDINGS)}.")
    try:
        rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{name} is not a file of JSON lines: {' '.join(str(error).split())}.") from error
    if not rows or not all(isinstance(row, Mapping) for row in rows):
        raise DataError(f'{name} must have a JSON object in each line, such as {{"file_name": "1.png", "label": 0}}.')
    return frames.pandas().DataFrame(rows)


def _with_header(frame: Any, names: _Names) -> Any:
    """A table whose first line was read as its header though it names a picture, with names of columns instead."""
    heads = [str(c) for c in frame.columns if is_picture(str(c))]
    if not any(names.find(head, names.way([head, *_texts(frame[head])])) for head in heads):
        return frame
    pandas = frames.pandas()
    first = pandas.DataFrame([list(frame.columns)], columns=frame.columns).astype(object)
    whole = pandas.concat([first, frame.astype(object)], ignore_index=True)
    return whole.set_axis([f"c{i + 1}" for i in range(len(whole.columns))], axis=1)


def _texts(column: Any) -> list[str]:
    return ["" if _missing(value) else str(value) for value in cells.plain(column).tolist()]


def _missing(value: Any) -> bool:
    """Whether a cell, which may be a list or an array, is missing."""
    return value is None or (isinstance(value, float) and value != value)


def _classes(column: Any, name: str) -> list[Any]:
    """Classes as integers or strings, None for an empty cell.

    Raises:
        DataError: a cell is a list, or a number that is not whole.
    """
    found: list[Any] = []
    for value in cells.plain(column).tolist():
        if _missing(value):
            found.append(None)
        elif isinstance(value, list | tuple | Mapping | np.ndarray):
            raise DataError(f"The {name} has a list or a mapping in a cell; name a column with one class per picture.")
        elif isinstance(value, bool) or not isinstance(value, int | float):
            found.append(str(value))
        elif not float(value).is_integer():
            raise DataError(f"The labels in {name} are not whole numbers, such as {value:.6g}; {INSTEAD}.")
        else:
            found.append(int(value))
    return found


def _key_of(texts: Mapping[str, list[str]], names: _Names) -> str | None:
    """The column with the names of the most pictures."""
    ways = {column: names.way(values) for column, values in texts.items()}
    counts = {column: sum(bool(names.find(v, ways[column])) for v in values) for column, values in texts.items()}
    best = max(counts, key=lambda c: (counts[c], c.lower() in _NAMES), default=None)
    return best if best is not None and counts[best] else None


def _column_of(name: str, column: str | None, others: list[str]) -> str:
    """The column of classes."""
    if column is not None:
        if column not in others:
            raise DataError(f"{name} has no column '{column}' for labels.{nearest(column, others)} "
                            f"It has: {cells.listed(others)}.")  # fmt: skip
        return column
    usual = sorted((c for c in others if c.lower() in LABELS), key=lambda c: LABELS.index(c.lower()))
    if usual or len(others) == 1:
        return [*usual, *others][0]
    raise DataError(f"{name} has several columns; name that of the classes, labels='{name}:COLUMN' "
                    f"(--labels {name}:COLUMN). It has: {cells.listed(others)}.")  # fmt: skip

"""Tables of file names and classes, matched with pictures."""

from __future__ import annotations

import json
import os
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from sandglass.data import cells
from sandglass.data.distinct import INSTEAD
from sandglass.data.sources import tables
from sandglass.data.sources.images import is_picture, shown
from sandglass.data.sources.layouts import Item
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
    notes: list[str] = field(default_factory=list)

    @classmethod
    def read(cls, path: Path, column: str | None, items: list[Item]) -> LabelTable:
        """Reads a file and finds its columns."""
        names = _Names(items)
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
        return cls(name, column, list(zip(texts[key], classes, strict=True)), names)

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
            found = self.names.find(text)
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


class _Names:
    """Pictures by every name that a table may have for them: the path, the file name, and both without extension."""

    def __init__(self, items: Sequence[Item]) -> None:
        self.known: list[dict[str, list[Item]]] = []
        for short in (False, True):
            for stem in (False, True):
                known: dict[str, dict[int, Item]] = {}
                for item in items:
                    for name in (_norm(item.name), _norm(item.key)):
                        name = name.rsplit("/", 1)[-1] if short else name
                        known.setdefault(os.path.splitext(name)[0] if stem else name, {})[id(item)] = item
                self.known.append({name: list(found.values()) for name, found in known.items()})

    def find(self, text: str) -> list[Item]:
        """The pictures of a name, by the most specific kind of name that has any.

        A path may begin with folders above that of the pictures, as one of another computer does.
        """
        name = _norm(text)
        while True:
            found = next((known[name] for known in self.known if name in known), [])
            if found or "/" not in name:
                return found
            name = name.split("/", 1)[1]


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
    if not any(is_picture(str(c)) and names.find(str(c)) for c in frame.columns):
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
    counts = {column: sum(bool(v) and bool(names.find(v)) for v in values) for column, values in texts.items()}
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

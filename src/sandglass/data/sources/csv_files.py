"""Reads tables from CSV files: their separator, header, and columns of codes."""

from __future__ import annotations

import csv
import re
from collections.abc import Mapping
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import Any

from sandglass.data import cells
from sandglass.data.fitting import PADDED, is_number
from sandglass.data.sources.images import shown
from sandglass.errors import DataError
from sandglass.runs import frames

MADE = "types of columns"
"""An attribute of a DataFrame: the types that reading chose, which need not come back."""

_SEPARATORS = {";": "semicolons", "\t": "tabs", "|": "vertical bars"}
_LINES = 100  # lines that show what separates cells
_PADDED = re.compile(rb'(?:^|[,;\t"])\s*[+-]?0\d')  # a cell that matches PADDED


def read_csv(path: Path) -> tuple[Any, tuple[str, ...]]:
    """Reads a ``.csv`` or ``.tsv`` file as :func:`sandglass.data.sources.tables.read_file` does.

    Raises:
        DataError: it is not a table.
    """
    name, pandas = shown(path.name), frames.pandas()
    options: dict[str, Any] = {"sep": "\t" if path.suffix.lower() == ".tsv" else ",", "encoding": "utf-8-sig"}
    notes: tuple[str, ...] = ()
    try:
        first = pandas.read_csv(path, header=None, nrows=1, dtype=str, keep_default_na=False, **options)
        other = _other_separator(path, first.iloc[0, 0]) if first.shape[1] == 1 else None
        if other is not None:
            options["sep"], notes = other, (f"{name} is separated by {_SEPARATORS[other]}",)
            first = pandas.read_csv(path, header=None, nrows=1, dtype=str, keep_default_na=False, **options)
        header = [str(v) for v in first.iloc[0]]
        filled = [v for v in header if v.strip() not in cells.MISSING]
        bare = any("." in v and is_number(v) for v in filled) or (bool(filled) and all(map(is_number, filled)))
        names = [f"c{i + 1}" for i in range(len(header))] if bare else header
        twice = next((n for n in names if n and names.count(n) > 1), None)
        if twice is not None:
            raise DataError(f"{name} has {names.count(twice)} columns named '{twice}'; give each its own name.")
        options |= {"header": None, "names": names} if bare else {}
        frame = pandas.read_csv(
            path, na_values=sorted(cells.MISSING), low_memory=False, dtype_backend="numpy_nullable", **options
        )
        codes = _codes(path, frame, options)
        frame = frame.assign(**codes) if codes else frame
    except DataError:
        raise
    except UnicodeDecodeError as error:
        raise DataError(f"{name} is not a table in UTF-8 ({error.reason}); save it as UTF-8.") from error
    except (ValueError, OSError) as error:
        raise DataError(f"{name} is not a table: {' '.join(str(error).split())}.") from error
    if not isinstance(frame.index, pandas.RangeIndex):
        raise DataError(f"{name} is not a table: it has lines with more cells than the first line.")
    if bare:
        notes += (f"{name} has no header, as its first line has numbers: columns are named c1 to c{len(header)}",)
    frame.attrs[MADE] = ("Int64", "Float64", "boolean", "string")
    return frame, notes


def _other_separator(path: Path, header: str) -> str | None:
    """What separates the cells of a file with a single cell in its first line, read by commas; None if nothing does.

    What separates may also be part of a name, such as ``P(A|B)``; then next to no line below has it.
    """
    for separator in (one for one in _SEPARATORS if one in header):
        counts = []
        with path.open(encoding="utf-8-sig", newline="") as file, suppress(csv.Error):
            for row in islice(filter(None, csv.reader(file, delimiter=separator)), _LINES):
                counts.append(len(row))
        several = [count > 1 for count in counts]
        if several and several[0] and 10 * sum(several[1:]) >= len(several[1:]):
            return separator
    return None


def _codes(path: Path, frame: Any, options: Mapping[str, Any]) -> dict[str, Any]:
    """Columns that were read as whole numbers but have leading zeros, such as 007, as strings."""
    whole = [name for name in frame.columns if frame[name].dtype.kind in "iu"]
    with path.open("rb") as file:
        padded = any(_PADDED.search(line) for line in file)  # a quick test, as most files have none
    if not whole or not padded:
        return {}
    texts = frames.pandas().read_csv(path, usecols=whole, dtype=str, na_values=sorted(cells.MISSING), **options)
    return {name: texts[name] for name in whole if texts[name].str.match(PADDED, na=False).any()}

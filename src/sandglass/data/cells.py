"""One column of a table: its cells as numbers, which of them are observed, and the way back to cells.

A column is a mapping of plain values, as :class:`~sandglass.data.transform.TableTransform` stores it: ``name``,
``kind``, ``dtype`` (what the way back restores) and the keys that :data:`KEYS` lists for its kind.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from datetime import UTC, date, datetime
from functools import lru_cache
from typing import Any

import numpy as np

from sandglass.errors import DataError, MissingPackageError

Array = np.ndarray[Any, Any]
Column = Mapping[str, Any]

KEYS = {
    "numeric": {"mean", "scale"},
    "categorical": {"categories"},
    "ordinal": {"categories", "mean", "scale"},
    "date": {"mean", "scale"},
    "sequence": {"shape", "mean", "scale"},
}
"""What each kind of column stores. An ordinal's mean and scale are of its ranks, a date's of seconds since 1970."""

DTYPES = frozenset(["bool", "int64", "float64", "str", "date", "datetime", "utc"])
"""What a column may be given back as."""

MISSING = frozenset(
    ["", "?", "NA", "N/A", "n/a", "NaN", "nan", "-NaN", "-nan", "null", "NULL", "None", "<NA>", "NaT", "#N/A", "#NA"]
)
"""Texts that stand for a missing value, in files and in tables handed over."""

_ISO = re.compile(r"\d{4}-\d\d-\d\d([T ]\d\d:\d\d(:\d\d(\.\d{1,6})?)?(Z|[+-]\d\d:?\d\d)?)?")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_FIRST, _LAST = -62135596800.0, 253402300799.0  # the years 1 to 9999, in seconds since 1970
_DAY = 86400.0
_LONGEST = 2**24
_LARGEST = 1e100  # beyond, a variance overflows
_BOOLEAN = {"true": "True", "1": "True", "1.0": "True", "yes": "True", "y": "True", "t": "True",
            "false": "False", "0": "False", "0.0": "False", "no": "False", "n": "False", "f": "False"}  # fmt: skip


def pandas() -> Any:
    """The module pandas.

    Raises:
        MissingPackageError: it is not installed.
    """
    try:
        import pandas
    except ImportError as error:
        raise MissingPackageError("Tables need pandas: `pip install sandglass-ml[tables]`.") from error
    return pandas


def plain(column: Any) -> Array:
    """A column of a DataFrame, or ``(N,)`` values, in a NumPy type: numbers, times, booleans or objects.

    A missing cell is NaN, NaT or, among objects, None.

    Example:
        >>> plain(np.array(["a", "?", None], dtype=object)).tolist()
        ['a', None, None]
    """
    if hasattr(column, "to_numpy") and not isinstance(column.dtype, np.dtype):
        kind = column.dtype.kind
        if kind in "iufb" and not column.isna().any():
            return column.to_numpy({"i": np.int64, "u": np.uint64, "f": np.float64, "b": np.bool_}[kind])
        if kind in "iuf":
            return column.to_numpy(np.float64, na_value=np.nan)
        array = column.to_numpy("datetime64[us]") if kind == "M" else column.to_numpy(object, na_value=None)
    else:
        array = np.asarray(column)
    if array.dtype.kind not in "OUS":
        return array
    array = array.astype(str) if array.dtype.kind == "S" else array
    clean = np.empty(len(array), object)
    for i, value in enumerate(array.tolist()):
        clean[i] = None if _missing(value) else value
    return clean


def observed(values: Array) -> Array:
    """``(N,)`` booleans: which of the cells, as :func:`plain` gives them, hold a value."""
    if values.dtype.kind == "O":
        return np.array([v is not None for v in values], dtype=bool)
    if values.dtype.kind == "M":
        return ~np.isnat(values)
    return ~np.isnan(values) if values.dtype.kind == "f" else np.ones(len(values), dtype=bool)


def numbers(name: str, values: Array) -> Array:
    """Cells as float64, NaN where missing.

    Raises:
        DataError: texts, or infinite numbers.
    """
    seen = observed(values)
    found = np.full(len(values), np.nan)
    try:
        if values.dtype.kind == "M":
            raise TypeError("it holds times")
        found[seen] = values[seen].astype(np.float64)
    except (TypeError, ValueError) as error:
        raise DataError(f"column '{name}' must hold numbers: {error}.") from error
    _bounded(name, found)
    return found


def seconds(name: str, values: Array) -> Array:
    """Cells that are dates, times or ISO 8601 texts as seconds since 1970, NaN where missing.

    A time without a zone is taken as it stands, one with a zone is brought to UTC.

    Raises:
        DataError: something else.

    Example:
        >>> seconds("day", np.array(["1970-01-02", None], dtype=object)).tolist()
        [86400.0, nan]
    """
    found = np.full(len(values), np.nan)
    seen = observed(values)
    if values.dtype.kind == "M":
        found[seen] = values[seen].astype("datetime64[us]").astype(np.int64) / 1e6
        return found
    for i in np.flatnonzero(seen):
        moment = _moment(values[i])
        if moment is None:
            raise DataError(
                f"column '{name}' has '{values[i]}' in row {i}, which is no date such as 2020-12-31 or "
                "2020-12-31T23:59:59."
            )
        found[i] = moment
    return found


def is_date(value: Any) -> bool:
    """Whether a cell is a date or time, or an ISO 8601 text of one."""
    return _moment(value) is not None


def zoned(value: Any) -> bool:
    """Whether a cell is a time, or a text of one, that names its zone."""
    if isinstance(value, str):
        return bool(re.search(r"(Z|[+-]\d\d:?\d\d)$", value.strip()[10:]))
    return isinstance(value, datetime) and value.tzinfo is not None


def sequence(name: str, values: Array) -> list[Array | None]:
    """Cells that are lists or arrays as float64 arrays, None where missing; NaN inside one is a missing value.

    Raises:
        DataError: something else in a cell, or infinite numbers.
    """
    found: list[Array | None] = []
    for i, value in enumerate(values):
        if value is None:
            found.append(None)
            continue
        try:
            rows = value if isinstance(value, np.ndarray) and value.dtype.kind != "O" else np.array(list(value))
            array = np.stack(list(rows)).astype(np.float64) if rows.dtype.kind == "O" else rows.astype(np.float64)
        except (TypeError, ValueError) as error:
            raise DataError(f"column '{name}' has something else than a list of numbers in row {i}.") from error
        if array.ndim not in (1, 2):
            raise DataError(f"column '{name}' has an array of shape {array.shape} in row {i}; give (T,) or (T, D).")
        _bounded(name, array)
        found.append(array)
    return found


def text(value: Any, dtype: str) -> str:
    """The category that a cell stands for.

    Example:
        >>> text(3.0, "int64"), text("yes", "bool")
        ('3', 'True')
    """
    if dtype == "int64" and isinstance(value, float | np.floating) and float(value).is_integer():
        return str(int(value))
    if dtype == "bool":
        return _BOOLEAN.get(str(value).strip().lower(), str(value))
    return str(value)


def plausible(column: Column) -> bool:
    """Whether a stored column is such as fitting makes, whatever a file says.

    Example:
        >>> plausible({"name": "a", "kind": "numeric", "mean": 0.0, "scale": 0.0, "dtype": "float64"})
        False
    """
    kind = column.get("kind", "")
    if KEYS.get(kind) is None or set(column) != KEYS[kind] | {"name", "kind", "dtype"}:
        return False
    good = isinstance(column["name"], str) and column["dtype"] in DTYPES
    if "categories" in column:
        texts = column["categories"]
        good &= isinstance(texts, list | tuple) and len(texts) > 0 and all(isinstance(t, str) for t in texts)
    if "shape" in column:
        shape = column["shape"]
        good &= isinstance(shape, list | tuple) and len(shape) in (1, 2)
        good &= all(isinstance(n, int) and 0 < n <= _LONGEST for n in shape)
    if "mean" in column:
        values = column["mean"], column["scale"]
        good &= all(isinstance(n, int | float) and math.isfinite(n) for n in values) and column["scale"] > 0
    return bool(good)


def width(column: Column) -> int:
    """How many numbers of an encoded row the column fills."""
    if column["kind"] == "sequence":
        return math.prod(column["shape"])
    return len(column["categories"]) if column["kind"] == "categorical" else 1


def encode(column: Column, values: Array) -> tuple[Array, Array]:
    """Cells ``(N,)`` as float64 ``(N, width)``, 0 where missing, and booleans of that shape: which are observed.

    Raises:
        DataError: a cell that this column cannot hold; the message names the column.

    Example:
        >>> encode({"name": "a", "kind": "numeric", "mean": 2.0, "scale": 4.0}, np.array([6.0, np.nan]))[0].tolist()
        [[1.0], [0.0]]
    """
    name, kind = column["name"], column["kind"]
    values = plain(values)
    if kind == "sequence":
        found = _padded(column, sequence(name, values))
    elif kind == "date":
        found = seconds(name, values)[:, None]
    elif kind == "numeric":
        found = numbers(name, values)[:, None]
    else:
        code = _codes(column, values)
        if kind == "categorical":
            seen = np.repeat(code[:, None] >= 0, width(column), axis=1)
            hot = np.zeros(seen.shape)
            hot[np.arange(len(code)), code] = 1
            return np.where(seen, hot, 0.0), seen
        found = np.where(code >= 0, code, np.nan)[:, None].astype(np.float64)
    seen = ~np.isnan(found)
    return np.where(seen, (found - column["mean"]) / column["scale"], 0.0), seen


def decode(column: Column, part: Array, seen: Array | None = None) -> Any:
    """``(N, width)`` back to cells ``(N,)`` in the column's own type.

    Args:
        column: which.
        part: encoded cells.
        seen: ``(N, width)``, False where the cell is to be missing; None for nowhere.

    Returns:
        A NumPy array; for whole numbers or booleans with gaps, and times in UTC, a pandas array that can hold those.
    """
    kind, dtype = column["kind"], column["dtype"]
    if kind == "sequence":
        return _unpadded(column, part, seen)
    if kind == "categorical":
        back = _picked(column, part.argmax(axis=1))
    else:
        found = part[:, 0] * column["scale"] + column["mean"]
        if kind == "ordinal":
            back = _picked(column, found.round().clip(0, len(column["categories"]) - 1).astype(np.int64))
        elif kind == "date":
            found = found.clip(_FIRST, _LAST)
            found = np.round(found / _DAY) * _DAY if dtype == "date" else found.round()
            back = found.astype(np.int64).astype("datetime64[s]")
        elif dtype == "bool":
            back = found > 0.5
        else:
            back = (found.round() if dtype == "int64" else found).astype(dtype)
    back = back if seen is None or seen[:, 0].all() else _gapped(back, seen[:, 0])
    return pandas().DatetimeIndex(back).tz_localize("UTC") if dtype == "utc" else back


def listed(names: Any) -> str:
    """Names in quotes, the first eight of them."""
    names = [f"'{n}'" for n in names]
    return ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")


def _missing(value: Any) -> bool:
    if value is None:
        return True
    if isinstance(value, str):
        return value.strip() in MISSING
    if hasattr(value, "__len__"):
        return False
    try:
        return bool(value != value)
    except TypeError:  # pandas' NA will not say
        return True


def _bounded(name: str, found: Array) -> None:
    bad = np.abs(found) > _LARGEST
    if bad.any():
        count = int(bad.sum())
        what = "infinite" if np.isinf(found[bad]).all() else f"over {_LARGEST:g} large"
        those = f"{count} values that are" if count > 1 else "1 value that is"
        raise DataError(
            f"column '{name}' has {those} {what}, the first in row "
            f"{int(np.argwhere(bad)[0][0])}; remove or replace {'them' if count > 1 else 'it'}."
        )


def _moment(value: Any) -> float | None:
    """Seconds since 1970 of a date, a time or an ISO 8601 text; None for anything else."""
    if isinstance(value, str):
        return _moment_of_text(value.strip())
    if isinstance(value, np.datetime64):
        return float(value.astype("datetime64[us]").astype(np.int64)) / 1e6
    if not isinstance(value, date):
        return None
    if not isinstance(value, datetime):
        value = datetime(value.year, value.month, value.day)
    return ((value if value.tzinfo else value.replace(tzinfo=UTC)) - _EPOCH).total_seconds()


@lru_cache(maxsize=2**16)
def _moment_of_text(text: str) -> float | None:
    if not _ISO.fullmatch(text):
        return None
    try:
        return _moment(datetime.fromisoformat(text))
    except ValueError:
        return None


def _codes(column: Column, values: Array) -> Array:
    """The number of every cell's category, -1 where missing."""
    number = {category: i for i, category in enumerate(column["categories"])}
    code = np.full(len(values), -1, dtype=np.int64)
    cell = values.tolist()
    for i in np.flatnonzero(observed(values)):
        place = number.get(text(cell[i], column["dtype"]))
        if place is None:
            known = listed(column["categories"])
            raise DataError(f"column '{column['name']}' has '{cell[i]}' in row {i}, which is none of {known}.")
        code[i] = place
    return code


def _picked(column: Column, code: Array) -> Array:
    dtype, categories = column["dtype"], column["categories"]
    values = np.array([t == "True" for t in categories] if dtype == "bool" else list(categories), dtype=object)
    picked: Array = values[code]
    return picked.astype(dtype) if dtype in ("bool", "int64", "float64") else picked


def _padded(column: Column, found: list[Array | None]) -> Array:
    """Sequences as ``(N, width)``, NaN behind their ends."""
    shape = tuple(column["shape"])
    x = np.full((len(found), *shape), np.nan)
    for i, one in enumerate(found):
        if one is None:
            continue
        if one.shape[1:] != shape[1:] or len(one) > shape[0]:
            raise DataError(
                f"column '{column['name']}' has an array of shape {one.shape} in row {i}; the model reads at most "
                f"{'x'.join(map(str, shape))}."
            )
        x[i, : len(one)] = one
    return x.reshape(len(found), -1)


def _unpadded(column: Column, part: Array, seen: Array | None) -> Array:
    shape = tuple(column["shape"])
    x = (part * column["scale"] + column["mean"]).reshape(len(part), *shape)
    back = np.empty(len(part), object)
    mask = None if seen is None else seen.reshape(len(part), *shape)
    for i, one in enumerate(x):
        if mask is None:
            back[i] = one
            continue
        steps = np.flatnonzero(mask[i].reshape(shape[0], -1).any(axis=1))
        end = int(steps[-1]) + 1 if len(steps) else 0
        back[i] = np.where(mask[i], one, np.nan)[:end] if end else None
    return back


def _gapped(values: Array, seen: Array) -> Any:
    """The cells with gaps where they were not observed."""
    kind = values.dtype.kind
    if kind in "ib":
        arrays = pandas().arrays
        return (arrays.IntegerArray if kind == "i" else arrays.BooleanArray)(values, ~seen)
    gap = {"f": np.nan, "M": np.datetime64("NaT")}.get(kind)
    return np.where(seen, values, np.array(gap, dtype=values.dtype if kind in "fM" else object))

"""The code of a column: cells as the numbers that a model sees, which of them are observed, and the way back.

A column is a mapping of plain values, as :class:`~sandglass.data.transform.TableTransform` stores it: ``name``,
``kind``, ``dtype`` (what the way back restores) and the keys that :data:`KEYS` lists for its kind. Where its numbers
have few places behind the point it has ``decimals``, how many, and where none is below 0 it is ``unsigned``; the way
back keeps to both.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from sandglass.data.cells import LOG_BOUND, MOST, READ, Array, listed, observed, pandas, plain, sequence, text
from sandglass.errors import DataError

Column = Mapping[str, Any]

KEYS = {
    "numeric": {"mean", "scale"},
    "positive": {"mean", "scale"},
    "count": {"mean", "scale"},
    "categorical": {"categories"},
    "ordinal": {"categories", "mean", "scale"},
    "date": {"mean", "scale"},
    "sequence": {"shape", "mean", "scale"},
}
"""What each kind of column stores. An ordinal's mean and scale are of its ranks, a date's of seconds since 1970, those
of positive numbers of their logarithms. A count's are a whole number and a power of two, so that no digit is lost."""

DTYPES = frozenset(["bool", "int64", "float64", "str", "date", "datetime", "utc"])
"""What a column may be given back as."""

DECIMALS = 6
"""Places behind the point that a column may keep to; float32 has no more of any use."""

_FIRST, _LAST = -62135596800.0, 253402300799.0  # the years 1 to 9999, in seconds since 1970
_DAY = 86400.0
_LONGEST = 2**24
_WHOLE = 2.0**62  # the last power of two that int64 holds


def plausible(column: Column) -> bool:
    """Whether a stored column is such as fitting makes, whatever a file says.

    Example:
        >>> plausible({"name": "a", "kind": "numeric", "mean": 0.0, "scale": 0.0, "dtype": "float64"})
        False
    """
    kind = column.get("kind", "")
    optional = {"decimals", "unsigned"} & set(column)
    if KEYS.get(kind) is None or set(column) != KEYS[kind] | {"name", "kind", "dtype"} | optional:
        return False
    good = isinstance(column["name"], str) and column["dtype"] in DTYPES
    if "unsigned" in column:
        good &= kind == "numeric" and column["unsigned"] is True
    if "decimals" in column:
        good &= kind in ("numeric", "positive") and column["dtype"] == "float64"
        good &= type(column["decimals"]) is int and 0 <= column["decimals"] <= DECIMALS
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
        if kind == "count":
            good &= float(values[0]).is_integer() and 0 <= values[0] <= MOST and math.frexp(values[1])[0] == 0.5
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
    elif kind in READ:
        found = READ[kind](name, values)[:, None]
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


def quantities(column: Column, part: Array) -> Array:
    """Encoded numbers of any shape in the column's own unit: of dates seconds since 1970, of ordinals ranks.

    What no cell can hold becomes the nearest that one can: counts are whole and not below 0, ranks exist, and of a
    column without negative numbers none is negative.

    Example:
        >>> quantities({"kind": "count", "mean": 2.0, "scale": 0.5}, np.array([1.1, -9.0])).tolist()
        [3.0, 0.0]
    """
    found: Array = part * column["scale"] + column["mean"]
    if column["kind"] == "positive":
        return np.exp(found.clip(-LOG_BOUND, LOG_BOUND))
    if column["kind"] == "count":
        return found.round().clip(0, _WHOLE)
    if column["kind"] == "ordinal":
        return found.round().clip(0, len(column["categories"]) - 1)
    return found.clip(0) if column.get("unsigned") else found


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
        found = quantities(column, part[:, 0])
        if kind == "ordinal":
            back = _picked(column, found.astype(np.int64))
        elif kind == "date":
            found = found.clip(_FIRST, _LAST)
            found = np.round(found / _DAY) * _DAY if dtype == "date" else found.round()
            back = found.astype(np.int64).astype("datetime64[s]")
        elif dtype == "bool":
            back = found > 0.5
        elif dtype == "int64":
            back = found.round().clip(1 if kind == "positive" else -_WHOLE, _WHOLE).astype(np.int64)
        elif "decimals" in column:
            least = 10.0 ** -column["decimals"] if kind == "positive" else -math.inf
            back = found.round(column["decimals"]).clip(least)
        else:
            back = found.astype(dtype)
    back = back if seen is None or seen[:, 0].all() else _gapped(back, seen[:, 0])
    return pandas().DatetimeIndex(back).tz_localize("UTC") if dtype == "utc" else back


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
    x = quantities(column, part).reshape(len(part), *shape)
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

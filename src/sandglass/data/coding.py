"""Encoding and decoding of table columns: cells to numbers and an observation mask, and back.

A column is a mapping of plain values, as :class:`~sandglass.data.transform.TableTransform` stores it: ``name``,
``kind``, ``dtype`` (restored by decoding) and the keys that :data:`KEYS` lists for its kind. Optional keys are
``decimals``, the number of decimal places, and ``unsigned``, True if no number is negative, both of which decoded
values respect; and ``pandas``, the type of the column in its DataFrame, with ``known`` and ``ordered`` for a category.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from sandglass.data import dtypes
from sandglass.data.cells import LOG_BOUND, MOST, READ, Array, listed, observed, plain, sequence, text
from sandglass.errors import DataError
from sandglass.runs.frames import pandas

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
"""The keys of each kind of column. Mean and scale refer to ranks (ordinal), seconds since 1970 (date) or logarithms
(positive). For a count they are a whole number and a power of two, so that encoding is exact."""

DTYPES = frozenset(["bool", "int64", "float64", "str", "date", "datetime", "utc"])
"""Types that a decoded column may have."""

DECIMALS = 6
"""Largest number of decimal places of a column; float32 has no more useful ones."""

_FIRST, _LAST = -62135596800.0, 253402300799.0  # the years 1 to 9999, in seconds since 1970
_DAY = 86400.0
_LONGEST = 2**24
_WHOLE = 2.0**62  # the largest power of two in int64


def plausible(column: Column) -> bool:
    """Whether a stored column is valid, that is, could result from fitting; the file may be untrusted.

    Example:
        >>> plausible({"name": "a", "kind": "numeric", "mean": 0.0, "scale": 0.0, "dtype": "float64"})
        False
    """
    kind = column.get("kind", "")
    optional = {"decimals", "unsigned", "pandas", "known", "ordered"} & set(column)
    if KEYS.get(kind) is None or set(column) != KEYS[kind] | {"name", "kind", "dtype"} | optional:
        return False
    good = isinstance(column["name"], str) and column["dtype"] in DTYPES
    if "pandas" in column:
        good &= dtypes.fits(column, column["pandas"])
    if {"known", "ordered"} & optional:
        good &= column.get("pandas") == "category" and type(column.get("ordered", True)) is bool
    if "unsigned" in column:
        good &= kind == "numeric" and column["unsigned"] is True
    if "decimals" in column:
        good &= kind in ("numeric", "positive") and column["dtype"] == "float64"
        good &= type(column["decimals"]) is int and 0 <= column["decimals"] <= DECIMALS
    if "categories" in column:
        texts = column["categories"]
        good &= isinstance(texts, list | tuple) and len(texts) > 0 and all(isinstance(t, str) for t in texts)
    if "known" in column:
        good = good and dtypes.are_known(column, column["known"])
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
    """The number of encoded features of a column."""
    if column["kind"] == "sequence":
        return math.prod(column["shape"])
    return len(column["categories"]) if column["kind"] == "categorical" else 1


def encode(column: Column, values: Array) -> tuple[Array, Array]:
    """Encodes cells ``(N,)`` as float64 ``(N, width)``, 0 where missing, with a mask of that shape, True if observed.

    Raises:
        DataError: a cell that is invalid for this column; the message names the column.

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
    """Encoded numbers of any shape in the unit of the column: seconds since 1970 for dates, ranks for ordinals.

    Values are rounded and clipped to the valid range: counts are whole numbers from 0, ranks are existing ones, and
    unsigned columns have no negative numbers.

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
    """Decodes ``(N, width)`` to cells ``(N,)`` of the original type.

    Args:
        column: the column.
        part: encoded cells.
        seen: ``(N, width)`` mask, False where a cell is missing; None if no cell is.

    Returns:
        A NumPy array, or a pandas array for whole numbers or booleans with missing values and for datetimes in UTC.
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
    """The index of each cell's category, -1 where missing."""
    number = {category: i for i, category in enumerate(column["categories"])}
    code = np.full(len(values), -1, dtype=np.int64)
    cell = values.tolist()
    for i in np.flatnonzero(observed(values)):
        place = number.get(text(cell[i], column["dtype"]))
        if place is None:
            known = listed(column["categories"])
            raise DataError(f"column '{column['name']}' has '{cell[i]}' in row {i}, which is not one of {known}.")
        code[i] = place
    return code


def _picked(column: Column, code: Array) -> Array:
    dtype, categories = column["dtype"], column["categories"]
    values = np.array([t == "True" for t in categories] if dtype == "bool" else list(categories), dtype=object)
    picked: Array = values[code]
    return picked.astype(dtype) if dtype in ("bool", "int64", "float64") else picked


def _padded(column: Column, found: list[Array | None]) -> Array:
    """Sequences as ``(N, width)``, padded with NaN."""
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
    """The cells, with missing values where ``seen`` is False."""
    kind = values.dtype.kind
    if kind in "ib":
        arrays = pandas().arrays
        return (arrays.IntegerArray if kind == "i" else arrays.BooleanArray)(values, ~seen)
    gap = {"f": np.nan, "M": np.datetime64("NaT")}.get(kind)
    return np.where(seen, values, np.array(gap, dtype=values.dtype if kind in "fM" else object))

"""The pandas types of a table's columns, which decoded columns get back."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from sandglass.data.cells import Array, text
from sandglass.runs.frames import pandas

_INTEGERS = re.compile(r"u?int(8|16|32|64)", re.IGNORECASE)
_FLOATS = re.compile(r"float(32|64)", re.IGNORECASE)
_TIMES = re.compile(r"datetime64\[(s|ms|us|ns)(?:, ([\w/+:-]+))?\]")
_USUAL = ("int64", "float64")  # what decoding gives anyway


def remembered(column: Mapping[str, Any], dtype: Any) -> dict[str, Any]:
    """A fitted column with the pandas type of its cells, if decoding is to restore it.

    Of a category also ``known``, its categories in the order of the type if that is another than the column's, and
    ``ordered`` if that does not follow from the kind of the column. Categories that no row has are not stored: pandas
    keeps those of rows that were filtered out, which a shared model must not tell.

    Args:
        column: as :func:`sandglass.data.fitting.fit_column` returns it.
        dtype: the type of the cells in the table.

    Example:
        >>> remembered({"kind": "numeric", "dtype": "int64"}, "Int64")["pandas"]
        'Int64'
    """
    name = str(dtype)
    if name in _USUAL or not fits(column, name):
        return dict(column)
    found = {**column, "pandas": name}
    if name == "category" and hasattr(dtype, "categories"):
        values = {text(value, column["dtype"]): value for value in dtype.categories.tolist()}
        texts = [key for key in values if key in column["categories"]]
        if texts != list(column["categories"]) and are_known(column, texts):
            same = _cells(column, texts).tolist() == [values[key] for key in texts]
            found |= {"known": texts} if same else {}
        found |= {"ordered": dtype.ordered} if dtype.ordered != (column["kind"] == "ordinal") else {}
    return found


def are_known(column: Mapping[str, Any], texts: Any) -> bool:
    """Whether a list can be the order of a column's categories in pandas; it may come from an untrusted file."""
    if column.get("pandas", "category") != "category" or not isinstance(texts, list | tuple):
        return False
    if not all(isinstance(value, str) for value in texts) or len(set(texts)) != len(texts):
        return False
    try:
        _cells(column, texts)
    except (ValueError, OverflowError):
        return False
    return set(column["categories"]) == set(texts)


def fits(column: Mapping[str, Any], name: Any) -> bool:
    """Whether a column can have a pandas type; the name may come from an untrusted file."""
    if not isinstance(name, str):
        return False
    kind, dtype = column.get("kind"), column.get("dtype")
    listed = kind in ("categorical", "ordinal")
    return bool(
        (_INTEGERS.fullmatch(name) and dtype == "int64")
        or (_FLOATS.fullmatch(name) and dtype == "float64" and not listed)
        or (name == "boolean" and dtype == "bool")
        or (name == "category" and listed)
        or (name == "string" and listed and dtype == "str")
        or (_TIMES.fullmatch(name) and kind == "date" and ("," in name) == (dtype == "utc"))
    )


def restored(column: Mapping[str, Any], values: Any) -> Any:
    """Decoded cells ``(N,)`` in the pandas type of their column.

    Whole numbers are clipped to the range of the type. A type that cannot hold missing values, or times out of its
    range, is not restored.
    """
    name = column.get("pandas")
    if name is None:
        return values
    if name == "category":
        return _category(column, values)
    if found := _TIMES.fullmatch(name):
        return _times(values, *found.groups())
    series = pandas().Series(values)
    if _INTEGERS.fullmatch(name):
        if name.islower() and series.isna().any():  # NumPy's integers have no missing values
            return values
        limits = np.iinfo(name.lower())
        series = series.clip(max(limits.min, -(2**62)), min(limits.max, 2**62))
    return series.astype(name)


def _category(column: Mapping[str, Any], values: Any) -> Any:
    known = _cells(column, column.get("known", column["categories"]))
    return pandas().Categorical(values, categories=known, ordered=column.get("ordered", column["kind"] == "ordinal"))


def _cells(column: Mapping[str, Any], categories: Any) -> Array:
    """The values of categories, which are stored as strings."""
    texts = np.array(categories, dtype=object)
    values: Array = texts == "True" if column["dtype"] == "bool" else texts
    return values.astype(column["dtype"]) if column["dtype"] in ("int64", "float64") else values


def _times(values: Any, unit: str, zone: str | None) -> Any:
    times = pandas().DatetimeIndex(values)
    try:
        times = times.as_unit(unit)
        return times.tz_convert(zone) if zone else times
    except (ValueError, KeyError, OverflowError):  # out of range, or a zone that this machine does not know
        return values

"""The cells of a table's column: which are missing, and their values as numbers."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, date, datetime
from functools import lru_cache
from typing import Any

import numpy as np

from sandglass.errors import DataError

Array = np.ndarray[Any, Any]

MISSING = frozenset(
    ["", "?", "NA", "N/A", "n/a", "NaN", "nan", "-NaN", "-nan", "null", "NULL", "None", "<NA>", "NaT", "#N/A", "#NA"]
)
"""Strings that are read as missing values, in files and in DataFrames."""

LOG_BOUND = 85.0
"""Largest absolute logarithm of a positive number, within the range of float32."""

MOST = 2**24
"""Largest count; float32 represents every integer up to it exactly."""

_ISO = re.compile(r"\d{4}-\d\d-\d\d([T ]\d\d:\d\d(:\d\d(\.\d{1,6})?)?(Z|[+-]\d\d:?\d\d)?)?")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_LARGEST = 1e100  # beyond this, a variance overflows
_BOOLEAN = {"true": "True", "1": "True", "1.0": "True", "yes": "True", "y": "True", "t": "True",
            "false": "False", "0": "False", "0.0": "False", "no": "False", "n": "False", "f": "False"}  # fmt: skip


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
        array = column.to_numpy("datetime64[us]") if kind == "M" else _objects(column)
    else:
        array = np.asarray(column)
    if array.dtype.kind not in "OUS":
        return array
    array = array.astype(str) if array.dtype.kind == "S" else array
    clean = np.empty(len(array), object)
    for i, value in enumerate(array.tolist()):
        clean[i] = None if _missing(value) else value
    return clean


def _objects(column: Any) -> Array:
    """The cells as Python values; those of a category as its type has them, which pandas changes if there are gaps."""
    if column.dtype.name != "category":
        found: Array = column.to_numpy(object, na_value=None)
        return found
    known = [*column.dtype.categories.tolist(), None]  # a gap has the code -1
    found = np.empty(len(column), object)
    for i, code in enumerate(getattr(column, "cat", column).codes):
        found[i] = known[code]
    return found


def observed(values: Array) -> Array:
    """``(N,)`` booleans, True where a cell returned by :func:`plain` is not missing."""
    if values.dtype.kind == "O":
        return np.array([v is not None for v in values], dtype=bool)
    if values.dtype.kind == "M":
        return ~np.isnat(values)
    return ~np.isnan(values) if values.dtype.kind == "f" else np.ones(len(values), dtype=bool)


def numbers(name: str, values: Array) -> Array:
    """Numeric cells as float64, NaN where missing.

    Raises:
        DataError: strings, or infinite numbers.
    """
    seen = observed(values)
    found = np.full(len(values), np.nan)
    try:
        if values.dtype.kind == "M":
            raise TypeError("it holds datetimes")
        found[seen] = values[seen].astype(np.float64)
    except (TypeError, ValueError) as error:
        raise DataError(f"column '{name}' must hold numbers: {error}.") from error
    _bounded(name, found)
    return found


def logarithms(name: str, values: Array) -> Array:
    """Natural logarithms of cells with positive numbers, NaN where missing.

    Raises:
        DataError: a cell that is not a positive number.

    Example:
        >>> logarithms("income", np.array([1.0, np.nan])).tolist()
        [0.0, nan]
    """
    found = numbers(name, values)
    _all(name, found, found > 0, "a positive column holds numbers above 0; declare it numeric or count")
    found = np.log(found)
    _all(name, np.exp(found), np.abs(found) <= LOG_BOUND, "a positive column holds numbers from 1e-36 to 1e36")
    return found


def counts(name: str, values: Array) -> Array:
    """Cells with counts as float64, NaN where missing.

    Raises:
        DataError: a cell that is not a whole number from 0 to :data:`MOST`.
    """
    found = numbers(name, values)
    _all(name, found, (found >= 0) & (found == np.round(found)), "a count is a whole number from 0")
    _all(name, found, found <= MOST, f"counts go up to {MOST:,}; declare it numeric or positive")
    return found


def seconds(name: str, values: Array) -> Array:
    """Cells with dates, datetimes or ISO 8601 strings as seconds since 1970, NaN where missing.

    A datetime without a time zone is used unchanged, one with a time zone is converted to UTC.

    Raises:
        DataError: a cell that is none of these.

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
                f"column '{name}' has '{values[i]}' in row {i}, which is not a date such as 2020-12-31 or "
                "2020-12-31T23:59:59."
            )
        found[i] = moment
    return found


def is_date(value: Any) -> bool:
    """Whether a cell is a date, a datetime or an ISO 8601 string."""
    return _moment(value) is not None


def zoned(value: Any) -> bool:
    """Whether a cell is a datetime, or a string of one, with a time zone."""
    if isinstance(value, str):
        return bool(re.search(r"(Z|[+-]\d\d:?\d\d)$", value.strip()[10:]))
    return isinstance(value, datetime) and value.tzinfo is not None


def sequence(name: str, values: Array) -> list[Array | None]:
    """Cells with lists or arrays as float64 arrays, None where missing; NaN inside an array is a missing value.

    Raises:
        DataError: a cell that is not a list of numbers, or infinite numbers.
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
            raise DataError(f"column '{name}' has no list of numbers in row {i}.") from error
        if array.ndim not in (1, 2):
            raise DataError(f"column '{name}' has an array of shape {array.shape} in row {i}; give (T,) or (T, D).")
        _bounded(name, array)
        found.append(array)
    return found


def text(value: Any, dtype: str) -> str:
    """The category of a cell.

    Example:
        >>> text(3.0, "int64"), text("yes", "bool")
        ('3', 'True')
    """
    if dtype == "int64" and isinstance(value, float | np.floating) and float(value).is_integer():
        return str(int(value))
    if dtype == "bool":
        return _BOOLEAN.get(str(value).strip().lower(), str(value))
    return str(value)


def listed(names: Any) -> str:
    """The first eight names, in quotes."""
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
    except TypeError:  # pandas.NA has no truth value
        return True


def _bounded(name: str, found: Array) -> None:
    bad = np.abs(found) > _LARGEST
    if bad.any():
        count = int(bad.sum())
        what = "infinite" if np.isinf(found[bad]).all() else f"larger than {_LARGEST:g}"
        those = f"{count} values that are" if count > 1 else "1 value that is"
        raise DataError(
            f"column '{name}' has {those} {what}, the first in row "
            f"{int(np.argwhere(bad)[0][0])}; remove or replace {'them' if count > 1 else 'it'}."
        )


def _all(name: str, found: Array, good: Array, rule: str) -> None:
    """Raises an error naming the first number that is not ``good``, and the rule."""
    bad = np.flatnonzero(~good & ~np.isnan(found))
    if len(bad):
        raise DataError(f"column '{name}' has {found[bad[0]]:g} in row {bad[0]}; {rule}.")


def _moment(value: Any) -> float | None:
    """Seconds since 1970 of a date, a datetime or an ISO 8601 string; None for anything else."""
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


READ: dict[str, Callable[[str, Array], Array]] = {
    "numeric": numbers,
    "positive": logarithms,
    "count": counts,
    "date": seconds,
}
"""For each kind of column, the function that converts cells to the numbers to standardise."""

"""Infers the kind of a table's column, unless it is declared, and fits its encoding."""

from __future__ import annotations

import inspect
import math
import re
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any

import numpy as np

from sandglass.data import cells
from sandglass.data.cells import Array
from sandglass.data.coding import DECIMALS
from sandglass.data.distinct import mostly_different
from sandglass.data.sources import contents
from sandglass.errors import ConfigError, DataError
from sandglass.registry import nearest

KINDS = ("numeric", "positive", "count", "categorical", "ordinal", "boolean", "date")
"""Kinds that a column can be declared as; sequences are recognised by their cells."""

NUMBERS = ("numeric", "positive", "count")
"""The numeric kinds among :data:`KINDS`."""

Types = dict[str, str | list[str]]
"""Declared columns with their kind, or their categories in order, which makes them ordinal."""

FEW = 20
"""A numeric column with at most this many different whole numbers might be categorical."""

_MANY = 1000
_NUMBER = (int, float, np.number, Decimal)


def read_types(types: Any) -> Types:
    """Parses declared kinds, from a mapping or from strings such as ``"age=numeric,size=S<M<L"``.

    Args:
        types: for each column one of :data:`KINDS`, or a list of its values in order; or strings ``column=kind``, with
            ``<`` between values in order.

    Raises:
        ConfigError: an unknown kind, or a string that cannot be parsed.

    Example:
        >>> read_types("age=numeric,size=S<M<L")
        {'age': 'numeric', 'size': ['S', 'M', 'L']}
    """
    if types is None:
        return {}
    if isinstance(types, str):
        types = [part for part in types.split(",") if part.strip()]
    if not isinstance(types, Mapping):
        pairs = [str(part).rpartition("=") for part in types]
        if not all(column.strip() for column, _, _ in pairs):
            raise ConfigError(f"types must be COLUMN=KIND, such as age=numeric,kind=categorical, not {types!r}.")
        types = {column.strip(): kind.strip() for column, _, kind in pairs}
    found: Types = {}
    for column, kind in types.items():
        if isinstance(kind, str) and "<" in kind:
            kind = kind.split("<")
        if isinstance(kind, list | tuple) and len(kind) > 1:
            found[str(column)] = [str(value).strip() for value in kind]
        elif kind in KINDS:
            found[str(column)] = kind
        else:
            hint = nearest(str(kind), list(KINDS))
            raise ConfigError(f"'{column}' cannot be '{kind}'.{hint} Kinds of column: {', '.join(KINDS)}.")
    return found


def fit_column(name: str, series: Sequence[Any], train: Any, declared: str | list[str] | None) -> dict[str, Any]:
    """Fits the encoding of a column, as :class:`~sandglass.data.transform.TableTransform` stores it.

    Args:
        name: column name.
        series: its cells in each split, which determine its kind, categories and longest sequence.
        train: its cells in the training set, which determine mean and scale.
        declared: see :data:`Types`; None to infer the kind from the cells.

    Raises:
        DataError: only missing values, too many different strings, or cells that contradict the declared kind.

    Example:
        >>> ages = np.array([20.0, np.nan, 40.0])
        >>> fit_column("age", [ages], ages, None)
        {'name': 'age', 'kind': 'numeric', 'mean': 30.0, 'scale': 10.0, 'dtype': 'int64', 'unsigned': True}
    """
    parts = [cells.plain(s) for s in series]
    if declared in (None, *NUMBERS) and all(p.dtype.kind in "iuf" for p in parts):
        joined = np.concatenate(parts)
        seen = cells.observed(joined)
        if seen.any():
            dtype = number_type(joined[seen], not seen.all())
            return _fit_number(name, declared, joined[seen], cells.plain(train), dtype)
    # As lists: concatenating arrays of numbers and strings would convert all to strings.
    found = [v for p in parts for v, seen in zip(_items(p), cells.observed(p), strict=True) if seen]
    if not found:
        raise DataError(f"column '{name}' has no value in any row; {leave_out(name)}.")
    gaps = len(found) < sum(map(len, parts))
    kind, order = (declared, None) if isinstance(declared, str) else ("ordinal", declared)
    if declared is None:
        kind, order = _guess(name, series, found, gaps)
    values = cells.plain(train)
    if kind == "date":
        every = cells.seconds(name, _objects(found))
        zoned = any(getattr(getattr(s, "dtype", None), "tz", None) for s in series) or any(map(cells.zoned, found))
        dtype = "utc" if zoned else "datetime" if (every % 86400).any() else "date"
        return {"name": name, "kind": "date", **_spread(cells.seconds(name, values)), "dtype": dtype}
    if kind in NUMBERS:
        return _fit_number(name, declared, _objects(found), values, _type(name, found, gaps))
    if kind == "sequence":
        return _fit_sequence(name, found, values)
    categories, dtype = _categories(name, found, gaps, kind, order, sum(map(len, parts)))
    column = {"name": name, "kind": "categorical", "categories": categories, "dtype": dtype}
    if kind != "ordinal":
        return column
    known = {c: float(i) for i, c in enumerate(categories)}
    ranks = [known.get(cells.text(v, dtype), np.nan) for v in _items(values) if v is not None and v == v]
    return {**column, "kind": "ordinal", **_spread(np.array(ranks))}


def _fit_number(name: str, declared: Any, found: Array, train: Array, dtype: str) -> dict[str, Any]:
    """Fits a numeric column from its values in all splits (``found``) and its cells in the training set."""
    values = cells.numbers(name, found)
    kind = declared or ("count" if dtype == "int64" and _counted(values) else "numeric")
    spread = _spread(cells.READ[kind](name, train))
    if kind == "count":
        spread = {"mean": float(round(spread["mean"])), "scale": 2.0 ** round(math.log2(spread["scale"]))}
    column: dict[str, Any] = {"name": name, "kind": kind, **spread, "dtype": dtype}
    if dtype == "float64" and kind != "count" and (places := _decimals(values)) is not None:
        column["decimals"] = places
    if kind == "numeric" and dtype != "bool" and values.min() >= 0:
        column["unsigned"] = True
    return column


def _decimals(found: Array) -> int | None:
    """Number of decimal places of all numbers, up to rounding errors; None if it exceeds :data:`DECIMALS`."""
    return next((n for n in range(DECIMALS + 1) if np.isclose(found.round(n), found, rtol=1e-12, atol=0).all()), None)


def _counted(found: Array) -> bool:
    """Whether whole numbers are clearly counts: starting at 0, repeated, and mostly small.

    Years, ages and postcodes do not reach 0, row numbers do not repeat, codes are not mostly small, and a few
    different values may be ratings.
    """
    distinct = len(np.unique(found))
    small = 3 * float(np.median(found)) < float(found.max()) <= cells.MOST
    return bool(found.min() == 0 and FEW < distinct <= len(found) / 2 and small)


def leave_out(name: str) -> str:
    """Advice on leaving out a column."""
    return f"leave it out: drop=['{name}'] (--drop '{name}')"


def number_type(found: Array, gaps: bool) -> str:
    """The type of a decoded column of these numbers, ``"int64"`` or ``"float64"``.

    With missing values, floats that are all whole count as integers, because pandas stores such integers as floats.
    """
    if found.dtype.kind in "iu":
        return "int64"
    whole = gaps and bool((found == np.round(found)).all()) and float(np.abs(found).max()) < 2**53
    return "int64" if whole else "float64"


def _type(name: str, found: list[Any], gaps: bool) -> str:
    """As :func:`number_type`, for cells of any type that represent numbers."""
    if all(isinstance(v, bool | np.bool_) for v in found):
        return "bool"
    if all(isinstance(v, int | np.integer) or (isinstance(v, str) and v.strip().lstrip("+-").isdigit()) for v in found):
        return "int64"
    return number_type(cells.numbers(name, _objects(found)), gaps and not any(isinstance(v, str) for v in found))


def _guess(name: str, series: Sequence[Any], found: list[Any], gaps: bool) -> tuple[str, list[Any] | None]:
    """The inferred kind of an undeclared column, and the order of its values if pandas has one, without unused ones."""
    dtype = getattr(series[0], "dtype", None)
    if dtype is not None and dtype.name == "category":
        used = set(found)
        ordered = [v for v in dtype.categories.tolist() if v in used] if dtype.ordered else None
        return ("ordinal", ordered) if ordered else ("categorical", None)
    kind = getattr(dtype, "kind", "O")
    if kind in "mc" or str(dtype).startswith("period"):
        raise DataError(f"column '{name}' holds {dtype} values; turn it into numbers or {leave_out(name)}.")
    odd = next((v for v in found if isinstance(v, Mapping)), None)
    if odd is not None:
        file = f"files that are no pictures, such as {contents.file_name(odd)}" if "bytes" in odd else ""
        ways = leave_out(name) if file else _by_text(name)
        raise DataError(f"column '{name}' holds {file or 'mappings'}; make columns of their values, or {ways}.")
    if (odd := next((v for v in found if _is_no_category(v)), None)) is not None:
        ways = leave_out(name) if _has_no_text(odd) else _by_text(name)
        raise DataError(
            f"column '{name}' holds values of type {type(odd).__name__}; make numbers, texts or lists of them, or "
            f"{ways}."
        )
    if all(isinstance(v, np.ndarray | list | tuple) for v in found):
        return "sequence", None
    if all(isinstance(v, bool | np.bool_) for v in found):
        return "categorical", None
    if all(isinstance(v, _NUMBER) for v in found):
        return "numeric", None
    if all(map(cells.is_date, found)):
        return "date", None
    if gaps and all(isinstance(v, str) and is_number(v) and not PADDED.match(v) for v in found):
        return "numeric", None  # numbers read as strings because a "?" is among them
    return "categorical", None


def _by_text(name: str) -> str:
    """Advice on values that have a text but are no categories by themselves, as the end of a sentence."""
    declared = f"types={{'{name}': 'categorical'}} (--types '{name}=categorical')"
    return f"take their texts as categories: {declared}, or {leave_out(name)}"


def _has_no_text(value: Any) -> bool:
    """Whether a cell has no text of its own, but only its place in memory."""
    kind: Any = type(value)
    return inspect.isroutine(value) or (kind.__str__ is object.__str__ and kind.__repr__ is object.__repr__)


def _is_no_category(value: Any) -> bool:
    """Whether a cell is a collection, a function, a class or an object without a text of its own."""
    if isinstance(value, str | int | float):
        return False
    return (
        _has_no_text(value)
        or isinstance(value, set | frozenset | type)
        or hasattr(value, "columns")
        or (hasattr(value, "detach") and hasattr(value, "shape"))
    )


def _categories(
    name: str, found: list[Any], gaps: bool, kind: str, order: list[Any] | None, rows: int
) -> tuple[list[str], str]:
    """The categories of a column in order, and the type of the decoded column."""
    if kind == "boolean" or all(isinstance(v, bool | np.bool_) for v in found):
        odd = [v for v in found if cells.text(v, "bool") not in ("True", "False")]
        if odd:
            raise DataError(
                f"column '{name}' is declared boolean, but has '{odd[0]}'; give true and false, or 0 and 1."
            )
        return (["False", "True"] if kind == "boolean" else sorted({str(v) for v in found})), "bool"
    dtype = "str"
    if all(isinstance(v, _NUMBER) for v in found):
        dtype = _type(name, found, gaps)
    texts = {cells.text(v, dtype) for v in found}
    if order is not None:
        order = [cells.text(v, dtype) for v in order]
        unknown = sorted(texts - set(order))
        if unknown:
            raise DataError(f"column '{name}' has '{unknown[0]}', which is not one of {cells.listed(order)}.")
        return order, dtype
    if len(texts) > _MANY or mostly_different(len(texts), rows):
        what = "texts" if dtype == "str" else "values"
        raise DataError(
            f"column '{name}' has {len(texts)} different {what} in {rows} rows, too many for a categorical column; "
            f"{leave_out(name)}."
        )
    if kind == "ordinal" and dtype == "str":
        raise DataError(
            f"column '{name}' holds texts, so the order of its values must be given: types={{'{name}': "
            f"{sorted(texts)[:3]}}} (--types '{name}={'<'.join(sorted(texts)[:3])}')."
        )
    return sorted(texts, key=float if dtype != "str" else None), dtype


def _fit_sequence(name: str, found: list[Any], train: Array) -> dict[str, Any]:
    """Fits a column of arrays ``(T,)`` or ``(T, D)``, padded to the longest, with a single mean and scale."""
    every = [a for a in cells.sequence(name, _objects(found)) if a is not None]
    inner = {a.shape[1:] for a in every}
    if len(inner) > 1:
        raise DataError(f"column '{name}' has arrays of different shapes, such as {every[0].shape}; only T may differ.")
    shape = [max(map(len, every)), *inner.pop()]
    if not np.prod(shape):
        raise DataError(f"column '{name}' has only empty lists; {leave_out(name)}.")
    own = [a.ravel() for a in cells.sequence(name, train) if a is not None]
    spread = _spread(np.concatenate(own) if own else np.array([]))
    return {"name": name, "kind": "sequence", "shape": shape, **spread, "dtype": "float64"}


def _spread(values: Array) -> dict[str, float]:
    """Mean and standard deviation of the observed values; 0 and 1 if there are none, scale 1 for a constant."""
    seen = values[~np.isnan(values)]
    if not len(seen):
        return {"mean": 0.0, "scale": 1.0}
    mean, scale = float(seen.mean()), float(seen.std())
    # Rounding errors give a constant column a standard deviation of about its size times machine epsilon.
    return {"mean": mean, "scale": scale if scale > 1e-12 * max(1.0, abs(mean)) else 1.0}


def _items(values: Array) -> list[Any]:
    """Cells as Python values; datetimes stay NumPy values, which can be NaT."""
    return list(values) if values.dtype.kind in "MO" else values.tolist()


def _objects(found: Sequence[Any]) -> Array:
    array = np.empty(len(found), object)
    for i, value in enumerate(found):
        array[i] = value
    return array


PADDED = re.compile(r"\s*[+-]?0\d")
"""Matches the start of a code with a leading zero, such as 007, which could be mistaken for a number."""


def is_number(word: object) -> bool:
    """Whether a string can be parsed as a number."""
    try:
        float(word)  # type: ignore[arg-type]
    except ValueError:
        return False
    return True

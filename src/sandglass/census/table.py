"""The census of a table: columns, missing values, duplicates and correlations."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from sandglass.census.advice import balance
from sandglass.census.census import NAMED, listed, sentence, some
from sandglass.data.cells import is_date, plain, seconds
from sandglass.data.fitting import PADDED, leave_out
from sandglass.data.sources.images import shown
from sandglass.runs.finding import Finding

Column = npt.NDArray[Any]

_CATEGORIES = 20
_BINS = 20
_ROWS = 50_000
_WIDE = 400
_STRONG = 0.95
_QUANTILES = (0.01, 0.25, 0.5, 0.75, 0.99)
_FEW_ROWS = 200
_LARGEST = 1e150  # its square does not overflow


def headers(frame: Any) -> list[str]:
    """The column names, with a number after repeated ones.

    Example:
        >>> import pandas
        >>> headers(pandas.DataFrame([[1, 2, 3]], columns=["a", "b", "a"]))
        ['a', 'b', 'a (2)']
    """
    seen: Counter[str] = Counter()
    names = []
    for name in map(str, frame.columns):
        seen[name] += 1
        names.append(name if seen[name] == 1 else f"{name} ({seen[name]})")
    return names


def table_facts(columns: Mapping[str, Column]) -> dict[str, Any]:
    """The facts of a table.

    Args:
        columns: columns by name, each ``(N,)`` numbers, strings, dates or mixed objects.

    Example:
        >>> facts = table_facts({"a": np.array([1.0, np.nan, 3.0]), "b": np.array(["x", "y", "x"])})
        >>> facts["missing"]["cells"], [c["kind"] for c in facts["columns"]]
        (1, ['numeric', 'categorical'])
    """
    columns = {name: plain(values) for name, values in columns.items()}
    rows = len(next(iter(columns.values()), ()))
    found = [_column(name, values) for name, values in columns.items()]
    holes = [_missing(values) for values in columns.values()]
    gaps = int(sum(int(h.sum()) for h in holes))
    return {
        "examples": rows,
        "splits": {"train": {"examples": rows, "classes": {}}},
        "kinds": dict(Counter(c["kind"] for c in found)),
        "columns": found,
        "missing": {
            "cells": gaps,
            "share": gaps / max(1, rows * len(found)),
            "rows": int(np.any(holes, axis=0).sum()) if holes and rows else 0,
            "columns": sum(c["missing"] > 0 for c in found),
        },
        "duplicates": _duplicates(columns, rows),
        "correlations": _correlations(columns, found),
    }


def label_facts(frame: Any, labels: str) -> dict[str, Any]:
    """The class counts of a label column, as ``splits``.

    Raises:
        DataError: no such column.
    """
    from sandglass.data.sources.tables import take_labels

    _, y = take_labels(frame, labels)
    counts = Counter(str(v) for v in y.tolist() if v is not None and v == v)
    return {"splits": {"train": {"examples": len(y), "classes": dict(sorted(counts.items()))}}}


def _column(name: str, values: Column) -> dict[str, Any]:
    """The facts about a column: kind, missing values, and statistics."""
    hole = _missing(values)
    known = values[~hole]
    about: dict[str, Any] = {"name": name, "missing": int(hole.sum()), "distinct": 0, "strays": {}}
    if values.dtype.kind in "iuf":
        return about | {"kind": "numeric"} | _numeric(known.astype(np.float64))
    if values.dtype.kind in "mM":
        return about | {"kind": "date"} | _dates(name, known)
    if len(known) and values.dtype.kind == "O" and all(map(is_date, known.tolist())):
        return about | {"kind": "date"} | _dates(name, known)
    texts = [str(v) for v in known.tolist()]
    counts = Counter(texts)
    numbers = {text: _number(text) for text in counts}
    strays = {t: n for t, n in counts.items() if numbers[t] is None}
    words = values.dtype.kind == "b" or any(map(PADDED.match, counts))  # codes such as 007
    if counts and not words and sum(strays.values()) <= 0.2 * len(texts) and len(strays) <= 10:
        kept = np.array([v for t in texts if (v := numbers[t]) is not None])
        return about | {"kind": "numeric", "strays": strays} | _numeric(kept)
    many = len(counts) > 50 and len(counts) > len(texts) / 2
    common = sorted(counts.items(), key=lambda kv: (-kv[1], kv[0]))[:_CATEGORIES]
    return about | {
        "kind": "text" if many or len(counts) > 1000 else "categorical",
        "distinct": len(counts),
        "categories": [{"value": shown(v[:80]), "count": n} for v, n in common],
    }


def _dates(name: str, known: Column) -> dict[str, Any]:
    """The first and last date."""
    moments = seconds(name, known)
    if not len(moments):
        return {}
    first, last = (str(np.datetime64(int(s), "s").astype("datetime64[D]")) for s in (moments.min(), moments.max()))
    return {"distinct": len(np.unique(moments)), "first": first, "last": last}


def _numeric(known: npt.NDArray[np.float64]) -> dict[str, Any]:
    """Range, quantiles, outliers and a histogram of the finite numbers, and the number of others."""
    finite = known[np.abs(known) <= _LARGEST]
    about: dict[str, Any] = {"infinite": len(known) - len(finite), "distinct": len(np.unique(finite))}
    if not len(finite):
        return about
    low, *_, high = quantiles = np.quantile(finite, _QUANTILES)
    quarter, three = quantiles[1], quantiles[3]
    fence = 3 * (three - quarter)
    outside = (finite < quarter - fence) | (finite > three + fence) if fence > 0 else np.zeros(len(finite), bool)
    counts, edges = _histogram(finite, float(low), float(high))
    return about | {
        "minimum": float(finite.min()),
        "maximum": float(finite.max()),
        "mean": float(finite.mean()),
        "std": float(finite.std()),
        "quantiles": {f"{q:g}": float(v) for q, v in zip(_QUANTILES, quantiles, strict=True)},
        "outliers": int(outside.sum()),
        "whole": bool((finite == np.round(finite)).all()),
        "histogram": {"edges": [float(e) for e in edges], "counts": [int(c) for c in counts]},
    }


def _histogram(finite: npt.NDArray[np.float64], low: float, high: float) -> tuple[Any, Any]:
    """A histogram between the 1st and 99th percentile, with values outside in the outer bins; empty for a constant."""
    if not low < high:
        low, high = float(finite.min()), float(finite.max())
    if low == high:
        return [], []
    return np.histogram(np.clip(finite, low, high), np.linspace(low, high, _BINS + 1))


def _missing(values: Column) -> npt.NDArray[np.bool_]:
    if values.dtype.kind == "f":
        return np.isnan(values)
    if values.dtype.kind in "mM":
        return np.isnat(values)
    if values.dtype.kind in "biuUS":
        return np.zeros(len(values), bool)
    return np.array([_gap(v) for v in values.tolist()], bool)


def _gap(value: Any) -> bool:
    try:
        return value is None or bool(value != value)
    except TypeError:  # pandas.NA has no truth value
        return True
    except (ValueError, RuntimeError):  # an array, a tensor or a table
        return False


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def _duplicates(columns: Mapping[str, Column], rows: int) -> dict[str, int]:
    """The number of rows equal to an earlier one."""
    if not columns or not rows:
        return {"rows": 0}
    codes = np.stack([_codes(values) for values in columns.values()], axis=1)
    return {"rows": rows - len(np.unique(codes, axis=0))}


def _codes(values: Column) -> npt.NDArray[np.int64]:
    """``(N,)`` integer codes, equal for equal values; all missing values have the same code."""
    hole = _missing(values)
    if values.dtype.kind == "O":
        first: dict[str, int] = {}
        codes = np.array([first.setdefault(str(v), len(first)) for v in values.tolist()], np.int64)
    else:
        filled = values.copy()
        if hole.any():
            filled[hole] = filled[~hole][0] if (~hole).any() else np.zeros(1, values.dtype)[0]
        codes = np.unique(filled, return_inverse=True)[1].astype(np.int64).reshape(-1)
    codes[hole] = -1
    return codes


def _correlations(columns: Mapping[str, Column], found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Strongly correlated pairs of numeric columns, strongest first; over rows without missing values in both."""
    usable = [c["name"] for c in found if c["kind"] == "numeric" and not c["strays"] and c.get("std", 0) > 0][:_WIDE]
    if len(usable) < 2:
        return []
    step = max(1, len(next(iter(columns.values()))) // _ROWS)
    x = np.stack([columns[name][::step].astype(np.float64) for name in usable], axis=1)
    x[~(np.abs(x) <= _LARGEST)] = np.nan
    known = ~np.isnan(x)
    with np.errstate(all="ignore"):
        z = np.where(known, (x - np.nanmean(x, 0)) / np.nanstd(x, 0), 0.0)
        r = (z.T @ z) / np.maximum(1.0, known.T.astype(np.float64) @ known)
    pairs = np.argwhere(np.triu(np.abs(r) >= _STRONG, 1))
    made = [{"a": usable[a], "b": usable[b], "r": round(float(np.clip(r[a, b], -1, 1)), 4)} for a, b in pairs]
    return sorted(made, key=lambda c: -abs(c["r"]))[:NAMED]


def table_findings(facts: Mapping[str, Any]) -> Iterator[Finding]:
    """Findings about a table."""
    rows, columns = facts["examples"], facts["columns"]
    if not rows or not columns:
        yield Finding("empty", "problem", f"The table has {some(rows, 'row')} and {some(len(columns), 'column')}.")
        return
    for column in columns:
        yield from _column_findings(column, rows)
    yield from _outliers(columns, rows)
    if n := facts["duplicates"]["rows"]:
        yield Finding(
            "duplicates",
            "warning" if n > rows / 20 else "info",
            f"{some(n, 'row')} {'are duplicates of earlier ones' if n > 1 else 'is a duplicate of an earlier one'} "
            f"({n / rows:.1%}).",
            "Remove them unless they are intended: duplicates may be split between train and test.",
        )
    for pair in facts["correlations"][:5]:
        yield Finding(
            "correlation",
            "info",
            f"Columns '{pair['a']}' and '{pair['b']}' are strongly correlated ({pair['r']:.3f}).",
            "One of them may be redundant.",
        )
    if rows < _FEW_ROWS:
        yield Finding(
            "few",
            "warning",
            f"There {'is' if rows == 1 else 'are'} only {some(rows, 'row')}.",
            "A model overfits so few; add more.",
        )
    yield from balance(facts["splits"], "row")


def _column_findings(column: Mapping[str, Any], rows: int) -> Iterator[Finding]:
    name, kind, gaps = f"Column '{column['name']}'", column["kind"], column["missing"]
    if gaps:
        share = f"{gaps / rows:.0%}" if gaps / rows >= 0.01 else "under 1%"
        yield Finding(
            "missing",
            "warning",
            f"{name} has {share} missing values ({gaps:,} of {some(rows, 'row')}).",
            sentence(leave_out(column["name"]))
            if gaps == rows
            else "A VAE or autoencoder trains on observed values; for a GAN impute them or leave the column out.",
        )
    if column.get("infinite"):
        yield Finding(
            "infinite",
            "problem",
            f"{name} has {some(column['infinite'], 'value')} that {'are' if column['infinite'] > 1 else 'is'} infinite "
            f"or larger than {_LARGEST:g}.",
            "Replace or remove them, as computations with them overflow.",
        )
    if column["strays"]:
        yield Finding(
            "strays",
            "warning",
            f"{name} holds numbers, but also {listed([repr(v) for v in column['strays']], 3)} "
            f"({some(sum(column['strays'].values()), 'cell')}).",
            "Leave such cells empty if the value is missing; otherwise correct them.",
        )
    if kind == "text":
        yield Finding(
            "text",
            "problem",
            f"{name} has {column['distinct']:,} different texts, too many for categories.",
            f"Group its values, or {leave_out(column['name'])}.",
        )
    elif column["distinct"] == 1 and not gaps:
        yield Finding("constant", "info", f"{name} is constant.", "It can be left out.")
    elif kind == "numeric" and column.get("whole") and column["distinct"] == rows > 20 and _counts_up(column):
        yield Finding(
            "identifier",
            "warning",
            f"{name} looks like row numbers.",
            f"Row numbers carry no information; {leave_out(column['name'])}.",
        )


def _counts_up(column: Mapping[str, Any]) -> bool:
    return bool(column["maximum"] - column["minimum"] + 1 == column["distinct"])


def _outliers(columns: Sequence[Mapping[str, Any]], rows: int) -> Iterator[Finding]:
    """A finding about columns with outliers, with the range of the most extreme."""
    found = [c for c in columns if 0 < c.get("outliers", 0) <= rows / 100]
    if not found:
        return
    worst = max(found, key=lambda c: (c["maximum"] - c["minimum"]) / (c["quantiles"]["0.75"] - c["quantiles"]["0.25"]))
    names = listed([f"'{c['name']}'" for c in found])
    yield Finding(
        "outliers",
        "info",
        f"{some(len(found), 'column has', 'columns have')} outliers: {names}. Values of '{worst['name']}' range from "
        f"{worst['minimum']:g} to {worst['maximum']:g}, the middle half from "
        f"{worst['quantiles']['0.25']:g} to {worst['quantiles']['0.75']:g}.",
        "Check that they are not errors.",
    )

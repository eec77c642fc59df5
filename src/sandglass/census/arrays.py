"""The census of arrays: rows of numbers, and arrays of several dimensions."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np

from sandglass.census.advice import balance
from sandglass.census.census import Census, ordered, sentence, some
from sandglass.census.table import table_facts, table_findings
from sandglass.data.dataset import Dataset
from sandglass.data.splits import duplicates
from sandglass.runs.finding import Finding

_COLUMNS = 1000


def array_census(data: Dataset, title: str) -> Census:
    """The census of rows, as a table with columns ``x0``, ``x1``, ... in original units, or of other arrays.

    Example:
        >>> from sandglass.data.load import load_data
        >>> rows = np.random.default_rng(0).normal(size=(300, 4)).astype(np.float32)
        >>> array_census(load_data(rows), "rows").facts["kinds"]
        {'numeric': 4}
    """
    splits = {}
    for name, part in data.splits.items():
        classes = Counter() if part.y is None else Counter(part.y[part.y >= 0].tolist())
        named = {data.classes[k] if data.classes else str(k): n for k, n in sorted(classes.items())}
        splits[name] = {"examples": len(part), "classes": named}
    notes = [Finding("read", "info", sentence(note)) for note in data.notes]
    raw = [data.transform.inverse(part.batch(slice(0, len(part))).x) for part in data.splits.values()]
    if data.transform.kind == "table":
        columns = _columns(raw)
        facts = table_facts(columns) | {"splits": splits, "examples": sum(map(len, data.splits.values()))}
        return Census(title, "table", facts, ordered([*table_findings(facts), *notes]))
    facts = _whole(raw) | {"splits": splits, "shape": list(data.spec.shape)}
    copies = duplicates(*(part.x for part in data.splits.values()))
    facts["copies"] = facts["examples"] - len({int(n) for part in copies for n in part})
    findings = [*balance(splits, "example"), *notes]
    if facts["copies"]:
        n = facts["copies"]
        message = f"{some(n, 'example')} {'are duplicates' if n > 1 else 'is a duplicate'}."
        findings.append(Finding("copies", "info", message, "Copies count double in training."))
    return Census(title, "arrays", facts, ordered(findings))


def _columns(raw: list[Any]) -> dict[str, np.ndarray[Any, Any]]:
    """Columns over all splits."""
    if hasattr(raw[0], "columns"):
        return {str(c): np.concatenate([part[c].to_numpy() for part in raw]) for c in list(raw[0].columns)[:_COLUMNS]}
    return columns_of(np.concatenate([np.asarray(part) for part in raw]))


def columns_of(rows: np.ndarray[Any, Any]) -> dict[str, np.ndarray[Any, Any]]:
    """The columns of ``(N, D)`` with generated names, at most a thousand."""
    return {f"x{k}": rows[:, k] for k in range(min(_COLUMNS, rows.shape[1]))}


def _whole(raw: list[Any]) -> dict[str, Any]:
    x = np.concatenate([np.asarray(part, np.float64) for part in raw])
    flat = x.reshape(len(x), -1)
    quantiles = np.quantile(flat, (0.01, 0.25, 0.5, 0.75, 0.99))
    return {
        "examples": len(x),
        "values": {
            "minimum": float(x.min()),
            "maximum": float(x.max()),
            "mean": float(x.mean()),
            "std": float(x.std()),
            "quantiles": {f"{q:g}": float(v) for q, v in zip((0.01, 0.25, 0.5, 0.75, 0.99), quantiles, strict=True)},
            "constant_places": int((flat.min(0) == flat.max(0)).sum()),
        },
    }

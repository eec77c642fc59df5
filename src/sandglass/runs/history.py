"""The logged values of a run as means over epochs."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from sandglass.runs.frames import pandas

_LAST = ("lr",)  # terms of an update, of which the last one of an epoch counts
_SUMS = ("skipped",)  # terms that are counted

Key = tuple[str, str, str]
"""Split, phase and term."""


@dataclass(frozen=True)
class Curve:
    """One term on one split, with a value per epoch."""

    epochs: tuple[float, ...]
    values: tuple[float, ...]


def curves(records: Iterable[Mapping[str, Any]]) -> dict[Key, Curve]:
    """Curves by (split, phase, term): means over the examples of an epoch.

    A record is a mean over the examples since the one before it, and the last record of an epoch ends with it. So the
    mean of an epoch's records, weighted by examples, is the mean over the epoch. Skipped updates are added up.

    Example:
        >>> r = {"epoch": 0.5, "split": "train", "phase": "elbo", "term": "loss", "value": 4.0, "n": 1}
        >>> curves([r, {**r, "epoch": 1.0, "value": 1.0, "n": 2}])["train", "elbo", "loss"]
        Curve(epochs=(1.0,), values=(2.0,))
    """
    found: dict[Key, dict[float, list[tuple[float, float]]]] = {}
    for r in records:
        if r.get("value") is not None:
            by_epoch = found.setdefault((r["split"], r["phase"], r["term"]), {})
            by_epoch.setdefault(float(math.ceil(r["epoch"] - 1e-6)), []).append((r["value"], max(1, r.get("n") or 1)))
    return {
        key: Curve(tuple(sorted(epochs)), tuple(_together(key[2], epochs[e]) for e in sorted(epochs)))
        for key, epochs in found.items()
    }


def _together(term: str, values: list[tuple[float, float]]) -> float:
    """The value of an epoch from (value, number of examples) of its records."""
    if term in _SUMS:
        return sum(value for value, _ in values)
    if term in _LAST:
        return values[-1][0]
    return sum(value * n for value, n in values) / sum(n for _, n in values)


def stage_of(record: Mapping[str, Any]) -> str:
    """The stage of a record; "train" for runs from before there were stages."""
    return str(record.get("stage", "train"))


def frame(records: Iterable[Mapping[str, Any]]) -> Any:
    """A DataFrame with a row for every epoch of every stage; see :meth:`sandglass.Run.history`.

    Raises:
        MissingPackageError: pandas is not installed.
    """
    stages: dict[str, list[Mapping[str, Any]]] = {}
    for record in records:
        stages.setdefault(stage_of(record), []).append(record)
    table = []
    for stage, own in stages.items():
        found = curves(own)
        several = len({phase for _, phase, _ in found if phase != stage}) > 1
        rows: dict[float, dict[str, Any]] = {}
        for (split, phase, term), curve in found.items():
            column = "_".join([split, *([phase] if several else []), term])
            for epoch, value in zip(curve.epochs, curve.values, strict=True):
                rows.setdefault(epoch, {"stage": stage, "epoch": int(epoch)})[column] = value
        table += [rows[epoch] for epoch in sorted(rows)]
    return pandas().DataFrame(
        table, columns=list(dict.fromkeys(["stage", "epoch", *(c for row in table for c in row)]))
    )

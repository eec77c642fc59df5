"""Columns of examples that are not images."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import Tensor

from sandglass.data import coding
from sandglass.data.transform import TableTransform
from sandglass.reports.section import Material

SHOWN = 24
"""Maximum number of columns."""

_YEAR = 365.2425 * 86400  # seconds


@dataclass(frozen=True)
class Series:
    """One column of a table: numbers in the original unit, dates as years, or category indices from 0.

    Missing values are NaN.
    """

    name: str
    values: npt.NDArray[np.float64]
    categories: tuple[str, ...] = ()


def series(x: Tensor, m: Material, mask: Tensor | None = None) -> list[Series]:
    """The columns of examples ``(N, *shape)``, the first 24 of them."""
    transform = m.transform
    if not isinstance(transform, TableTransform):
        flat = np.asarray(transform.inverse(x.cpu()), np.float64).reshape(len(x), -1)
        return [Series(f"x{k + 1}", flat[:, k]) for k in range(min(SHOWN, flat.shape[1]))]
    rows = x.cpu().double().numpy()
    missing = np.zeros(rows.shape, bool) if mask is None else ~mask.cpu().numpy()
    made: list[Series] = []
    start = 0
    for column in transform.columns:
        end = start + coding.width(column)
        made += _of_column(column, rows[:, start:end], missing[:, start:end])
        start = end
    return made[:SHOWN]


def _of_column(column: Mapping[str, Any], part: npt.NDArray[Any], missing: npt.NDArray[Any]) -> list[Series]:
    name, kind, categories = column["name"], column["kind"], tuple(column.get("categories", ()))
    if kind == "categorical":
        # From the one-hot code, since two categories may have the same text.
        return [Series(name, np.where(missing[:, 0], np.nan, part.argmax(1)), categories)]
    found = np.where(missing, np.nan, coding.quantities(column, part))
    if kind == "ordinal":
        return [Series(name, found[:, 0], categories)]
    if kind == "date":
        return [Series(f"{name} (year)", 1970 + found[:, 0] / _YEAR)]
    if kind == "sequence":
        return [Series(f"{name}[{i}]", found[:, i]) for i in range(found.shape[1])]
    return [Series(name, found[:, 0].round() if column["dtype"] in ("int64", "bool") else found[:, 0])]

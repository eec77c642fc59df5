"""Data that is no picture: samples against data column by column, and how well each column is rebuilt."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import Tensor

from sandglass.data import coding
from sandglass.data.transform import TableTransform
from sandglass.reports.chart import Chart
from sandglass.reports.latent import observing
from sandglass.reports.plots import category_chart, error_chart, histogram_chart, short
from sandglass.reports.section import Material, Section

_SHOWN = 24
_YEAR = 365.2425 * 86400  # seconds
_DRAWN = 2000
"""Draws from the model, however few examples there are: the smooth side of the comparison."""


@dataclass(frozen=True)
class Series:
    """One column of a table: its numbers in their own unit, dates as years, or its categories as numbers from 0.

    What was not observed is NaN.
    """

    name: str
    values: npt.NDArray[np.float64]
    categories: tuple[str, ...] = ()


def series(x: Tensor, m: Material, mask: Tensor | None = None) -> list[Series]:
    """The columns of examples ``(N, *shape)``, the first 24 of them."""
    transform = m.transform
    if not isinstance(transform, TableTransform):
        flat = np.asarray(transform.inverse(x.cpu()), np.float64).reshape(len(x), -1)
        return [Series(f"x{k + 1}", flat[:, k]) for k in range(min(_SHOWN, flat.shape[1]))]
    rows = x.cpu().double().numpy()
    gaps = np.zeros(rows.shape, bool) if mask is None else ~mask.cpu().numpy()
    made: list[Series] = []
    start = 0
    for column in transform.columns:
        end = start + coding.width(column)
        made += _of_column(column, rows[:, start:end], gaps[:, start:end])
        start = end
    return made[:_SHOWN]


def _of_column(column: Mapping[str, Any], part: npt.NDArray[Any], gap: npt.NDArray[Any]) -> list[Series]:
    name, kind, categories = column["name"], column["kind"], tuple(column.get("categories", ()))
    if kind == "categorical":
        # From the code, not from the text it stands for: two categories may read alike.
        return [Series(name, np.where(gap[:, 0], np.nan, part.argmax(1)), categories)]
    found = np.where(gap, np.nan, coding.quantities(column, part))
    if kind == "ordinal":
        return [Series(name, found[:, 0], categories)]
    if kind == "date":
        return [Series(f"{name} (year)", 1970 + found[:, 0] / _YEAR)]
    if kind == "sequence":
        return [Series(f"{name}[{i}]", found[:, i]) for i in range(found.shape[1])]
    return [Series(name, found[:, 0].round() if column["dtype"] in ("int64", "bool") else found[:, 0])]


def histograms(m: Material) -> Section | None:
    """Every column of the data against as many draws from the model."""
    if m.split is None:
        return None
    with observing(m.model, m.seed, "report", "samples"):
        # Draws of x, not means given the latent: these would be too narrow by the noise.
        drawn = m.model.sample(_DRAWN, noise=True).cpu()
    real = m.split.batch(slice(0, len(m.split))).x
    pairs = list(zip(series(real, m, m.split.mask), series(drawn, m), strict=True))
    charts = [_compare(k, *pair) for k, pair in enumerate(pairs) if not np.isnan(pair[0].values).all()]
    total = sum(c.width if c.kind == "sequence" else 1 for c in m.transform.spec().columns) or m.model.spec.size
    how = (
        f"Every column by itself: {len(real):,} examples of the {m.split_name} split (filled) and {len(drawn):,} "
        "draws from "
        "the model (line). They should cover each other; a missing hump is a group the model does not make. How "
        "columns "
        "hang together is not seen here."
    )
    note = f"The first {_SHOWN} of {total} columns." if total > _SHOWN else ""
    return Section("columns", "Samples and data, column by column", how, charts=charts, note=note)


def _compare(k: int, data: Series, sample: Series) -> Chart:
    seen, drawn = (s.values[~np.isnan(s.values)] for s in (data, sample))
    if not data.categories:
        return histogram_chart(f"column-{k + 1}", data.name, seen, drawn)
    shares = [np.bincount(v.astype(int), minlength=len(data.categories)) / max(len(v), 1) for v in (seen, drawn)]
    top = np.sort(np.argsort(-shares[0], kind="stable")[:12])
    labels = [data.categories[i] for i in top]
    return category_chart(f"column-{k + 1}", data.name, labels, shares[0][top], shares[1][top])


def errors(m: Material) -> Section | None:
    """How far each column is from its reconstruction."""
    if m.split is None or "reconstruct" not in m.model.provides:
        return None
    real = m.split.batch(slice(0, len(m.split))).x
    with observing(m.model, m.seed, "report", "reconstruct"):
        rebuilt = m.model.reconstruct(m.ready(real)).cpu()
    numeric: list[tuple[str, float]] = []
    chosen: list[tuple[str, float]] = []
    for a, b in zip(series(real, m, m.split.mask), series(rebuilt, m), strict=True):
        seen = ~np.isnan(a.values)
        before, after = a.values[seen], b.values[seen]
        if not len(before):
            continue
        if a.categories:
            chosen.append((a.name, float((before != after).mean())))
        elif (spread := float(before.std())) > 0:
            numeric.append((a.name, float(np.sqrt(np.square(before - after).mean()) / spread)))
    charts = _error_charts(numeric, chosen)
    how = (
        "How well each column survives the way through the code. Numbers: root mean squared error in standard "
        "deviations "
        "of the column, where 1 is no better than always answering the mean. Categories: the share rebuilt wrongly."
    )
    return Section("errors", "Reconstruction error by column", how, charts=charts) if charts else None


def _error_charts(numeric: Sequence[tuple[str, float]], chosen: Sequence[tuple[str, float]]) -> list[Chart]:
    charts = []
    if numeric:
        labels, values = zip(*numeric, strict=True)
        charts.append(error_chart("errors-numeric", "Columns of numbers", labels, np.array(values),
                                  "RMSE / standard deviation", 1.0, "always the mean"))  # fmt: skip
    if chosen:
        labels, values = zip(*chosen, strict=True)
        charts.append(error_chart("errors-categorical", "Columns of categories", [short(v, 22) for v in labels],
                                  np.array(values), "share rebuilt wrongly", 1.0, "all wrong"))  # fmt: skip
    return charts


def column_sections(m: Material) -> list[Section]:
    """All of them that the model can give."""
    return [s for s in (histograms(m), errors(m)) if s is not None]

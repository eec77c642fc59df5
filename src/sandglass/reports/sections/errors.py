"""Reconstruction error per column."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from sandglass import running
from sandglass.reports.chart import Chart
from sandglass.reports.columns import series
from sandglass.reports.plots import error_chart
from sandglass.reports.section import Material, Section, section
from sandglass.tasks.sheet import short


@section("errors", place=22)
def errors(m: Material) -> Section | None:
    """Reconstruction error of every column of a table."""
    if m.model.spec.is_image or m.split is None or "reconstruct" not in m.model.provides:
        return None
    real = m.split.batch(slice(0, len(m.split))).x
    rebuilt = running.over(m.model, m.split, m.model.reconstruct, key=(m.seed, "report", "reconstruct"))
    numeric: list[tuple[str, float]] = []
    chosen: list[tuple[str, float]] = []
    for a, b in zip(series(real, m, m.split.mask), series(rebuilt, m), strict=True):
        observed = ~np.isnan(a.values)
        before, after = a.values[observed], b.values[observed]
        if not len(before):
            continue
        if a.categories:
            chosen.append((a.name, float((before != after).mean())))
        elif (spread := float(before.std())) > 0:
            numeric.append((a.name, float(np.sqrt(np.square(before - after).mean()) / spread)))
    charts = _error_charts(numeric, chosen)
    how = (
        "How well each column is reconstructed from the code. Numeric columns: root mean squared error in standard "
        "deviations of the column, where 1 is no better than always predicting the mean. Categorical columns: the "
        "share reconstructed incorrectly."
    )
    return Section("errors", "Reconstruction error by column", how, charts=charts) if charts else None


def _error_charts(numeric: Sequence[tuple[str, float]], chosen: Sequence[tuple[str, float]]) -> list[Chart]:
    charts = []
    if numeric:
        labels, values = zip(*numeric, strict=True)
        charts.append(error_chart("errors-numeric", "Numeric columns", labels, np.array(values),
                                  "RMSE / standard deviation", 1.0, "predicting the mean"))  # fmt: skip
    if chosen:
        labels, values = zip(*chosen, strict=True)
        charts.append(error_chart("errors-categorical", "Categorical columns", [short(v, 22) for v in labels],
                                  np.array(values), "share incorrect", 1.0, "all incorrect"))  # fmt: skip
    return charts

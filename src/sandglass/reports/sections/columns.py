"""Samples against data, column by column."""

from __future__ import annotations

import numpy as np

from sandglass import running
from sandglass.reports.chart import Chart
from sandglass.reports.columns import SHOWN, Series, series
from sandglass.reports.plots import category_chart, histogram_chart
from sandglass.reports.section import Material, Section, section

_DRAWN = 2000
"""Samples from the model, independent of the number of examples."""


@section("columns", place=20)
def columns(m: Material) -> Section | None:
    """Distribution of every column in the data and in samples from the model."""
    if m.model.spec.is_image or m.split is None or not m.drawable:
        return None
    given = m.conditions(_DRAWN, "columns")
    # Samples with observation noise; means given the latent would vary too little.
    drawn = running.sample(m.model, _DRAWN, key=(m.seed, "report", "samples"), given=given, noise=True)
    real = m.split.batch(slice(0, len(m.split))).x
    pairs = list(zip(series(real, m, m.split.mask), series(drawn, m), strict=True))
    charts = [_compare(k, *pair) for k, pair in enumerate(pairs) if not np.isnan(pair[0].values).all()]
    total = sum(c.width if c.kind == "sequence" else 1 for c in m.transform.spec().columns) or m.model.spec.size
    how = (
        f"Every column separately: {len(real):,} examples of the {m.split_name} split (filled) and {len(drawn):,} "
        "samples from the model (line). They should overlap; a missing mode is a group the model does not generate. "
        "Dependence between columns is not shown."
    )
    note = f"The first {SHOWN} of {total} columns." if total > SHOWN else ""
    return Section("columns", "Samples and data, column by column", how, charts=charts, note=note)


def _compare(k: int, data: Series, sample: Series) -> Chart:
    observed, drawn = (s.values[~np.isnan(s.values)] for s in (data, sample))
    if not data.categories:
        return histogram_chart(f"column-{k + 1}", data.name, observed, drawn)
    shares = [np.bincount(v.astype(int), minlength=len(data.categories)) / max(len(v), 1) for v in (observed, drawn)]
    top = np.sort(np.argsort(-shares[0], kind="stable")[:12])
    labels = [data.categories[i] for i in top]
    return category_chart(f"column-{k + 1}", data.name, labels, shares[0][top], shares[1][top])

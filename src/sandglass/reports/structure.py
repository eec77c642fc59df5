"""The latent space: where the classes lie in it, which of its dimensions carry anything, and what of."""

from __future__ import annotations

import torch

from sandglass.metrics.latent import ACTIVE
from sandglass.metrics.mig import BINS, known_shares
from sandglass.reports import latent
from sandglass.reports.plots import bar_chart, colour_of_classes, heat_chart, scatter_chart
from sandglass.reports.section import Material, Section

_SHOWN = 1500
_ROWS = 16  # latent dimensions in the table of factors
_NATS = 0.01
"""KL below which a dimension says next to nothing, an orientation beside the variance that defines active units."""


def map_section(m: Material) -> Section | None:
    """The codes in two dimensions, by class."""
    if m.codes is None or m.split is None or m.codes.shape[1] < 2:
        return None
    codes = m.codes[:_SHOWN]
    y = None if m.split.y is None else m.split.y[: len(codes)].cpu()
    legend = colour_of_classes(y, m.classes)
    if codes.shape[1] == 2:
        names = ("latent dimension 1", "latent dimension 2")
        charts = [scatter_chart("codes", "Codes as they are", codes, y, legend, names)]
        what = "Every point is the code of one example; the latent has two dimensions, so this is all of it."
    else:
        found = latent.principal(codes)
        first, second = (f"direction {k + 1}, {share:.0%} of variance" for k, share in enumerate(found.share.tolist()))
        charts = [
            scatter_chart("codes-pca", "Principal directions (PCA)", found.project(codes), y, legend, (first, second))
        ]
        what = (
            "Every point is the code of one example. PCA is a plain projection: distances in it are real, but only two "
            "directions are seen."
        )
        embedded = latent.embed(codes, m.seed)
        if embedded is not None:
            names = ("t-SNE 1, no unit", "t-SNE 2, no unit")
            charts.append(
                scatter_chart("codes-tsne", "Neighbourhoods (t-SNE)", embedded, y, legend, names, ticks=False)
            )
            what += (
                " t-SNE keeps neighbours together: clumps mean something, their sizes and the gaps between them do not."
            )
    if y is not None:
        what += " Unless the model is conditional it never saw the labels: classes that part are structure it found."
    how = f"{what} {len(codes):,} examples of the {m.split_name} split."
    shared = [(name, shade) for _, name, shade in legend] if y is not None else []
    return Section("codes", "Codes", how, half=len(charts) == 1, legend=shared, charts=charts)


def rate_section(m: Material) -> Section | None:
    """KL and variance of every latent dimension."""
    if m.codes is None or m.split is None:
        return None
    rates = latent.rates(m.model, m.split)
    if rates is None:
        return None
    variance = m.codes.var(0, unbiased=False)
    active = (variance > ACTIVE).numpy()
    order = rates.argsort(descending=True)
    labels = [str(k + 1) for k in order.tolist()]
    shown = active[order.numpy()]
    unit = "KL, nats per example"
    charts = [
        bar_chart("rate-per-dimension", "KL per latent dimension", rates[order].numpy(), shown, labels, _NATS, unit,
                  f"{_NATS} nats: next to nothing"),
        bar_chart("variance-per-dimension", "Variance of the codes", variance[order].clamp(min=1e-8).numpy(), shown,
                  labels, ACTIVE, "variance (log scale)", f"{ACTIVE}: active above", log=True),
    ]  # fmt: skip
    dim, count = len(rates), int(active.sum())
    how = (
        f"{count} of {dim} latent dimension{'s' if dim > 1 else ''} {'are' if count != 1 else 'is'} active (blue): "
        "the code "
        f"there varies with the example, by a variance above {ACTIVE}. The KL says how many nats of an example each "
        "one "
        "carries; a dimension at zero repeats the prior and is not used."
    )
    note = f"Together {float(rates.sum()):.2f} nats, mean over {len(m.split):,} examples of the {m.split_name} split."
    legend = [("active", "train")] + ([] if active.all() else [("not active", "c9")])
    return Section(
        "dimensions", "Use of the latent dimensions", how, half=dim == 2, legend=legend, charts=charts, note=note
    )


def factor_section(m: Material) -> Section | None:
    """What every latent dimension knows of every factor, where the making of the examples is known."""
    if m.codes is None or m.data is None or m.split is None or m.split.factors is None or not m.data.factors:
        return None
    shares, names = known_shares(m.codes, m.split.factors[: len(m.codes)], m.data.factors)
    if not names:
        return None
    first = (-shares.max(1)).argsort(kind="stable")[:_ROWS]
    rows = [str(k + 1) for k in first.tolist()]
    chart = heat_chart("factors", "Known of each factor", shares[first], rows, names, "latent dimension")
    how = (
        "How much of each factor that an example was made from each latent dimension tells on its own: mutual "
        "information as a share of the factor's entropy. In a disentangled code every column has one strong cell, and "
        "no row has two. A dimension that is hardly used can still hold a trace."
    )
    more = f"The {_ROWS} dimensions of {len(shares)} that know a factor best. " if len(shares) > _ROWS else ""
    note = f"{more}Codes in {BINS} bins; {len(m.codes):,} examples of the {m.split_name} split."
    return Section("factors", "Factors and latent dimensions", how, half=True, charts=[chart], note=note)


def structure_sections(m: Material) -> list[Section]:
    """All of them that the model can give."""
    with torch.no_grad():
        return [s for s in (map_section(m), rate_section(m), factor_section(m)) if s is not None]

"""Information of the latent dimensions about the known generative factors."""

from __future__ import annotations

from sandglass.metrics.mig import BINS, information_shares
from sandglass.reports.plots import heat_chart
from sandglass.reports.section import Material, Section, section

_ROWS = 16  # latent dimensions in the table


@section("factors", place=80)
def factors(m: Material) -> Section | None:
    """Mutual information of every latent dimension and every known generative factor."""
    if m.codes is None or m.data is None or m.split is None or m.split.factors is None or not m.data.factors:
        return None
    shares, names = information_shares(m.codes, m.split.factors[: len(m.codes)], m.data.factors)
    if not names:
        return None
    first = (-shares.max(1)).argsort(kind="stable")[:_ROWS]
    rows = [str(k + 1) for k in first.tolist()]
    chart = heat_chart("factors", "Information about each factor", shares[first], rows, names, "latent dimension")
    how = (
        "Information of each latent dimension about each known generative factor: mutual information as a share of the "
        "factor's entropy. In a disentangled code every column has one strong cell, and no row has two. A dimension "
        "that is hardly used can still carry some information."
    )
    more = f"The {_ROWS} most informative of {len(shares)} dimensions. " if len(shares) > _ROWS else ""
    note = f"{more}Codes in {BINS} bins; {len(m.codes):,} examples of the {m.split_name} split."
    return Section("factors", "Factors and latent dimensions", how, half=True, charts=[chart], note=note)

"""Use of the latent dimensions."""

from __future__ import annotations

import torch
from torch import Tensor

from sandglass import running
from sandglass.core import Batch
from sandglass.metrics.latent import ACTIVE
from sandglass.reports.plots import bar_chart
from sandglass.reports.section import Material, Section, section

_NATS = 0.01
"""KL below which a dimension is practically unused, a guide besides the variance that defines active units."""


@section("dimensions", place=70)
def dimensions(m: Material) -> Section | None:
    """KL and variance of every latent dimension."""
    if m.codes is None or m.split is None:
        return None
    rates = rates_of(m)
    if rates is None:
        return None
    variance = m.codes.var(0, unbiased=False)
    active = (variance > ACTIVE).numpy()
    order = rates.argsort(descending=True)
    names = [f"{k.name} " if len(m.model.latents) > 1 else "" for k in m.model.latents for _ in range(k.size)]
    labels = [f"{names[k]}{k + 1}" for k in order.tolist()]
    shown = active[order.numpy()]
    unit = "KL, nats per example"
    charts = [
        bar_chart("rate-per-dimension", "KL per latent dimension", rates[order].numpy(), shown, labels, _NATS, unit,
                  f"{_NATS} nats: practically unused"),
        bar_chart("variance-per-dimension", "Variance of the codes", variance[order].clamp(min=1e-8).numpy(), shown,
                  labels, ACTIVE, "variance (log scale)", f"{ACTIVE}: active above", log=True),
    ]  # fmt: skip
    dim, count = len(rates), int(active.sum())
    how = (
        f"{count} of {dim} latent dimension{'s' if dim > 1 else ''} {'are' if count != 1 else 'is'} active (blue): the "
        f"variance of their codes over the examples is above {ACTIVE}. The KL is the information each carries, in nats "
        "per example; a dimension with a KL of zero equals the prior and is not used."
    )
    note = f"Total {float(rates.sum()):.2f} nats, mean over {len(m.split):,} examples of the {m.split_name} split."
    legend = [("active", "train")] + ([] if active.all() else [("inactive", "c9")])
    return Section(
        "dimensions", "Use of the latent dimensions", how, half=dim == 2, legend=legend, charts=charts, note=note
    )


def rates_of(m: Material) -> Tensor | None:
    """``(D,)`` mean KL per dimension of the code, in nats; None where a rate is not a sum over dimensions."""
    if m.split is None or "bound" not in m.model.provides:
        return None
    names = [latent.name for latent in m.model.latents]

    def each(batch: Batch) -> Tensor:
        found = m.model.bound(batch).per_dimension
        whole = all(name in found for name in names)
        parts = [found[name].flatten(1) for name in names] if whole else []
        return torch.cat(parts, 1) if parts else torch.empty(len(batch), 0, device=batch.x.device)

    rates = running.over(m.model, m.split, each, key=(0, "report", "rates")).double().mean(0)
    return rates if len(rates) == m.model.code_size and len(rates) else None

"""Rate of each latent of a hierarchical or multi-part code."""

from __future__ import annotations

import torch
from torch import Tensor

from sandglass import running
from sandglass.core import Batch
from sandglass.reports.plots import amount_chart
from sandglass.reports.section import Material, Section, section


@section("levels", place=75)
def levels(m: Material) -> Section | None:
    """The rate of every latent, for a model with several."""
    if m.split is None or "bound" not in m.model.provides or len(m.model.latents) < 2:
        return None

    def rates(batch: Batch) -> Tensor:
        found = m.model.bound(batch).rates
        return torch.stack([rate.expand(len(batch)) for rate in found.values()], 1)

    with running.observing(m.model, 0, "report", "levels"):
        names = list(m.model.bound(m.placed(m.split.batch(slice(0, 1)))).rates)
    mean = running.over(m.model, m.split, rates, key=(0, "report", "levels")).double().mean(0)
    chart = amount_chart(
        "levels", "KL of each latent", list(zip(names, mean.tolist(), strict=True)), "nats per example"
    )
    how = (
        "Information that each latent carries beyond its prior, in nats per example. A latent near zero is not used: "
        "its information is carried by another latent, or not at all."
    )
    note = f"Total {float(mean.sum()):.2f} nats, mean over {len(m.split):,} examples of the {m.split_name} split."
    return Section("levels", "Use of the latents", how, half=True, charts=[chart], note=note)

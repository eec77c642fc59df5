"""What the metric of rh-vae is for: samples from where the examples are."""

from __future__ import annotations

from typing import Any

import torch

from helpers import fit, fresh, rows
from sandglass import rng


def test_samples_by_the_metric_are_nearer_to_few_examples_than_those_of_the_prior() -> None:
    """60 points on two arcs; the median distance of a sample to the true arcs, by the metric and by the prior."""
    with rng.forked("cpu", 1):
        angle = torch.rand(60) * 2.5
        side = torch.where(torch.arange(60) % 2 == 0, 1.0, -1.0)
        x = 2 * torch.stack([angle.cos() * side + 1.5 * side, angle.sin() * side], 1)
    likelihood = {"name": "gaussian", "learn": "none", "scale": 0.1}
    net = {"name": "mlp", "widths": [32], "activation": "silu"}
    model: Any = fresh("rh-vae", rows(x), latent_dim=2, net=net, likelihood=likelihood, temperature=0.3, leapfrog=1)
    fit(model, rows(x), epochs=150, batch_size=30, lr=5e-3, schedule="cosine")
    far = {}
    dense = torch.linspace(0, 2.5, 300)
    arcs = torch.cat([2 * s * torch.stack([dense.cos() + 1.5, dense.sin()], 1) for s in (1.0, -1.0)])
    for draws in ("metric", "prior"):
        model.eval().draws = draws
        with rng.forked("cpu", 2):
            far[draws] = float(torch.cdist(model.sample(500), arcs).min(1).values.mean())
    assert int(model.metric.count) == 60
    assert far["metric"] < 0.7 * far["prior"], far

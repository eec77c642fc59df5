"""Presets of the VAE with other priors and samplers: each one's effect beside the VAE."""

from __future__ import annotations

import functools
from typing import Any

import pytest
import torch

from helpers import fit, fresh, rows
from sandglass import rng
from sandglass.core import Batch
from sandglass.distributions.discrepancy import mmd

SMALL: dict[str, dict[str, Any]] = {
    "vamp-vae": {"prior": {"name": "vamp", "pseudo_inputs": 40}},
    "exemplar-vae": {"prior": {"name": "exemplar", "exemplars": 40}},
    "gaussian-mixture-vae": {},
    "two-stage-vae": {"sampler": {"name": "two-stage", "widths": (32,)}},
}
"""Smaller than by default."""


def clusters(n: int, seed: int) -> torch.Tensor:
    """Four clusters in the corners of a square, seen through a fixed linear map, with noise."""
    with rng.forked("cpu", seed):
        corner = 3 * (2 * torch.randint(2, (n, 2)).float() - 1)
        return (corner + 0.3 * torch.randn(n, 2)) @ torch.linspace(-1, 1, 12).reshape(2, 6) + 0.1 * torch.randn(n, 6)


@functools.cache
def trained(name: str, seed: int) -> Any:
    """After some 500 updates."""
    x = clusters(600, 0)
    likelihood = {"name": "gaussian", "scale": 0.3}
    net = {"name": "mlp", "widths": [32]}
    model = fresh(name, rows(x), seed, latent_dim=2, net=net, likelihood=likelihood, **SMALL.get(name, {}))
    fit(model, rows(x), epochs=40, batch_size=50, lr=3e-3)
    return model.eval()


def log_p(name: str, seed: int) -> float:
    """log p(x) of other examples by 100 draws, in nats."""
    model = trained(name, seed)
    with rng.forked("cpu", 0), torch.no_grad():
        return float(model.log_prob(clusters(400, 1), k=100).mean())


@pytest.mark.parametrize("name", ["vamp-vae", "exemplar-vae", "gaussian-mixture-vae"])
def test_a_learnt_prior_fits_clusters_better(name: str) -> None:
    """log p(x) of other examples, over two seeds: the standard normal fills the gaps between the clusters."""
    gains = [log_p(name, seed) - log_p("vae", seed) for seed in (0, 1)]
    assert min(gains) > 0.1, gains


def test_a_second_stage_draws_codes_like_those_of_the_examples() -> None:
    """Squared maximum mean discrepancy of 2,000 drawn codes and the codes of as many other examples."""
    found = {}
    for name in ("vae", "two-stage-vae"):
        model = trained(name, 0)
        with rng.forked("cpu", 1), torch.no_grad():
            codes = model.infer(Batch(clusters(2000, 2)))
            found[name] = float(mmd(model.draw(2000), codes, "rbf", 2 * codes.var(0).sum()))
    assert found["two-stage-vae"] < 0.7 * found["vae"], found

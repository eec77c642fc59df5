"""Models that regularise the aggregate posterior: each preset's effect beside its parent, at about its distortion."""

from __future__ import annotations

import functools
import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.distributions import Independent, Normal

import sandglass
from helpers import fit, fresh, rows
from sandglass import rng
from sandglass.core import Batch, Model
from sandglass.metrics.mig import information_shares
from sandglass.models._aggregate import discrepancy, off_whiteness, rate_parts

PRIOR = Independent(Normal(torch.zeros(6), torch.ones(6)), 1)
SOURCES = {"net": "linear", "latent_dim": 2, "likelihood": {"name": "gaussian", "learn": "none", "scale": 0.2}}


@functools.cache
def sources(seed: int) -> tuple[Tensor, Tensor]:
    """Two independent uniform factors, and rows that mix them: along two axes at 60 degrees to each other, with noise.

    The principal axes halve the angles, so a linear VAE, whose codes follow them, mixes the factors.
    """
    with rng.forked("cpu", seed):
        factors = (2 * torch.rand(2000, 2) - 1) * math.sqrt(3)
        plane = torch.linalg.qr(torch.randn(6, 2))[0].T
        across, up = math.cos(math.pi / 6), math.sin(math.pi / 6)
        axes = torch.tensor([[across, up], [across, -up]]) @ plane
        return factors, factors @ axes + 0.2 * torch.randn(2000, 6)


@functools.cache
def unmixed(name: str) -> dict[str, float]:
    """Means over three seeds."""
    found = [unmixed_once(name, seed) for seed in range(3)]
    return {figure: sum(each[figure] for each in found) / 3 for figure in found[0]}


def unmixed_once(name: str, seed: int) -> dict[str, float]:
    """Bound, distortion and total correlation in nats, and the mutual information gap, after 1,600 updates."""
    factors, x = sources(seed)
    options = {"critic_width": 64, "critic_depth": 2} if name == "factor-vae" else {}
    model: Any = fresh(name, rows(x), seed, **SOURCES, **options)
    fit(model, rows(x), epochs=80, batch_size=100, schedule="cosine", lr=2e-2)
    with torch.no_grad(), rng.forked("cpu", 3):
        q = model.eval().posterior(x)
        parts = rate_parts(q, model.prior(), q.sample(), torch.tensor(len(x)), "stratified")
        bound = model.bound(x)
    shares, _ = information_shares(q.mean, (factors * 5 / math.sqrt(12) + 2.5).floor(), ("first", "second"))
    ordered = np.sort(shares, 0)
    gap = float((ordered[-1] - ordered[-2]).mean())
    nats = {"bound": bound.elbo, "distortion": bound.distortion, "total_correlation": parts.total_correlation}
    return {**{name: float(value.mean()) for name, value in nats.items()}, "mig": gap}


@pytest.mark.slow
@pytest.mark.parametrize("name", ["beta-tc-vae", "factor-vae"])
def test_independent_factors_are_told_apart(name: str) -> None:
    """Less total correlation than the VAE's and a far larger gap, at the VAE's distortion or below, for a price.

    The limits are of the means over three seeds; the settings were chosen on these examples. Gaps of 0.68 where the
    VAE's are 0.11 to 0.28, total correlations of 0.03 to 0.05 (beta-tc-vae) and below 0.01 (factor-vae) where the VAE's
    are 0.08 nats. The bound is lower by 1.0 and 0.1 nats.
    """
    own, plain = unmixed(name), unmixed("vae")
    assert own["total_correlation"] < 0.75 * plain["total_correlation"], (own, plain)
    assert own["mig"] > plain["mig"] + 0.3, (own, plain)
    assert own["distortion"] < plain["distortion"] + 0.1, (own, plain)
    assert own["bound"] > plain["bound"] - {"beta-tc-vae": 1.5, "factor-vae": 0.3}[name], (own, plain)


@functools.cache
def digits(name: str) -> dict[str, float]:
    """What 40 epochs on scikit-learn's digits come to with six latents, on the training images."""
    data = sandglass.load_data("digits")
    model: Model = fresh(name, data, latent_dim=6, net={"name": "mlp", "widths": [256, 128], "activation": "silu"})
    fit(model, data, epochs=40, batch_size=64, schedule="cosine")
    with torch.no_grad(), rng.forked("cpu", 3):
        return measured(model.eval(), data.train.batch(slice(0, None)))


def measured(model: Any, batch: Batch) -> dict[str, float]:
    """Distortion in nats and squared error of an image, and how far the codes are from the prior."""
    error = (model.reconstruct(batch) - batch.x).square().flatten(1).sum(1).mean()
    found = {"error": error}
    if "posterior" in model.provides:
        q = model.posterior(batch)
        codes = [q.sample() for _ in range(10)]
        parts = rate_parts(q, model.prior(), codes[0], torch.tensor(len(batch)), "stratified")
        found["off_diagonal"], _ = off_whiteness(q, "codes")
        found |= {"distortion": model.bound(batch).distortion.mean(), "information": parts.information.mean()}
    else:
        codes = [model.encode(batch)] * 10
        found["distortion"] = model.score(batch).mean()
    found["mmd"] = torch.stack([discrepancy(z, PRIOR, "imq") for z in codes]).mean()
    return {name: float(value) for name, value in found.items()}


@pytest.mark.slow
def test_covariances_vanish() -> None:
    """Of different dimensions, at about the VAE's distortion: 1.6 % more with this seed."""
    own, plain = digits("dip-vae"), digits("vae")
    assert own["off_diagonal"] < 0.1 * plain["off_diagonal"], (own, plain)
    assert own["distortion"] < 1.05 * plain["distortion"], (own, plain)


@pytest.mark.slow
def test_codes_tell_more_of_x_and_are_nearer_to_the_prior() -> None:
    """Half a nat more of mutual information, a lower distortion, and still less of a discrepancy than the VAE's."""
    own, plain = digits("info-vae"), digits("vae")
    assert own["information"] > plain["information"] + 0.5, (own, plain)
    assert own["distortion"] < plain["distortion"], (own, plain)
    assert own["mmd"] < 0.75 * plain["mmd"], (own, plain)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["wae", "aae"])
def test_codes_of_points_follow_the_prior(name: str) -> None:
    """A tenth of the autoencoder's discrepancy, at about its error; the VAE's squared error is 1.5 times as large."""
    own, plain = digits(name), digits("ae")
    assert own["mmd"] < 0.1 * plain["mmd"], (own, plain)
    assert own["error"] < 1.4 * plain["error"], (own, plain)
    assert own["distortion"] < 1.15 * plain["distortion"], (own, plain)

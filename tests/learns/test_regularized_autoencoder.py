"""Regularised autoencoders: what each regulariser of the decoder does beside a penalty on the codes alone."""

from __future__ import annotations

import functools
from typing import Any

import pytest
import torch

import sandglass
from helpers import fit, fresh
from sandglass import rng


@functools.cache
def digits(name: str, seed: int = 0, **options: Any) -> dict[str, float]:
    """What 30 epochs on scikit-learn's digits come to with eight latents, on unseen digits.

    The squared norm of a code, the squared Jacobian of the decoder, the distortion in nats, and how much a
    reconstruction moves in squared error with its code moved by a tenth of the codes' deviation in every direction.
    """
    data = sandglass.load_data("digits")
    net = {"name": "mlp", "widths": [256, 128], "activation": "silu"}
    model: Any = fresh(name, data, seed, latent_dim=8, net=net, likelihood="bernoulli", **options)
    fit(model, data, epochs=30, batch_size=64, schedule="cosine", lr=2e-3, seed=seed)
    test = data.splits["test"].batch(slice(0, None))
    z = model.eval().encode(test).detach()
    with rng.forked("cpu", 1), torch.no_grad():
        moved = z + 0.1 * z.std(0) * torch.randn_like(z)
        change = (model.decode(moved) - model.decode(z)).square().flatten(1).sum(1)
    found = {"norm": z.square().sum(1), "change": change}
    found["distortion"] = -model.observation(z, None).log_prob(test.x)
    if name != "vae":
        with rng.forked("cpu", 1), torch.no_grad():
            found["slope"] = torch.stack([model.slope(z) for _ in range(20)])
    return {key: float(value.detach().mean()) for key, value in found.items()}


def test_a_penalty_on_codes_alone_is_avoided_by_a_steeper_decoder() -> None:
    """Ten times the penalty: codes of about a tenth of the squared norm, and a squared slope of seven times as much."""
    own, plain = digits("rae-gp", regulariser="none", beta=1.0), digits("rae-gp", regulariser="none")
    assert own["norm"] < 0.25 * plain["norm"], (own, plain)
    assert own["slope"] > 3 * plain["slope"], (own, plain)


@pytest.mark.parametrize(
    ("name", "slope", "distortion"), [("rae-gp", 0.3, 1.1), ("rae-l2", 0.6, 1.1), ("rae-sn", 0.1, 1.6)]
)
def test_a_regularised_decoder_is_less_steep(name: str, slope: float, distortion: float) -> None:
    """Beside the same penalty on the codes alone: 0.15 (rae-gp), 0.43 (rae-l2) and below 0.01 of the slope (rae-sn).

    The first two cost 1 and 5 % more distortion, the last one 45 %.
    """
    plain = digits("rae-gp", regulariser="none")
    own = digits(name)
    assert own["slope"] < slope * plain["slope"], (own, plain)
    assert own["distortion"] < distortion * plain["distortion"], (own, plain)


def test_a_code_without_noise_reconstructs_better() -> None:
    """Distortions at the codes in nats, beside the VAE of as many latents and beside a smooth decoder."""
    own, vae, smooth = digits("deterministic-vae"), digits("vae"), digits("rae-gp")
    assert own["distortion"] < vae["distortion"] - 0.5 and own["distortion"] < smooth["distortion"], (own, vae, smooth)

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
    found = {"norm": z.square().sum(1), "distortion": model.score(test), "change": change}
    if name.startswith("rae"):
        with rng.forked("cpu", 1), torch.no_grad():
            found["slope"] = torch.stack([model.slope(z) for _ in range(20)])
    return {key: float(value.detach().mean()) for key, value in found.items()}


def test_a_penalty_on_codes_alone_is_avoided_by_a_steeper_decoder() -> None:
    """Codes shrink to a hundredth of the squared norm, and the squared slope rises by as much or more."""
    own, plain = digits("rae-gp", regulariser="none", beta=1.0), digits("rae-gp", regulariser="none", beta=0.0)
    assert own["norm"] < 0.05 * plain["norm"], (own, plain)
    assert own["slope"] > 20 * plain["slope"], (own, plain)


@pytest.mark.parametrize("name", ["rae-gp", "rae-l2", "rae-sn"])
def test_a_regularised_decoder_is_less_steep(name: str) -> None:
    """A quarter of the slope that the same penalty on the codes leaves, and at most a tenth more distortion."""
    plain = digits("rae-gp", regulariser="none", beta=0.1)
    own = digits(name)
    assert own["slope"] < 0.25 * plain["slope"], (own, plain)
    assert own["distortion"] < 1.1 * plain["distortion"], (own, plain)

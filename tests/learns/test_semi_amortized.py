"""The semi-amortised VAE beside the VAE: what a weak encoder gains from refined posteriors."""

from __future__ import annotations

import functools
from typing import Any

import torch
from torch import Tensor

import sandglass
from helpers import fit, fresh
from sandglass import rng
from sandglass.core import Spec
from sandglass.data.dataset import Dataset, Split
from sandglass.data.transform import ArrayTransform
from sandglass.models.semi_amortized_vae import SemiAmortizedVAE

WEAK = {"name": "mlp", "widths": [4], "decoder_widths": (128,), "activation": "silu"}
"""An encoder through four numbers, and a decoder that is not as weak."""


@functools.cache
def digits() -> tuple[Dataset, Tensor]:
    """Digits in black and white, to train on and unseen."""
    data = sandglass.load_data("digits")
    ink = {name: (split.batch(slice(0, None)).x > 0.5).float() for name, split in data.splits.items()}
    spec = Spec((1, 8, 8), "binary")
    train = Dataset("ink", spec, ArrayTransform(spec.shape), {"train": Split(ink["train"])}, fingerprint="ink")
    return train, ink["test"]


@functools.cache
def trained(name: str) -> Any:
    """A model after 20 epochs, with eight latents."""
    model: Any = fresh(name, digits()[0], latent_dim=8, net=WEAK)
    fit(model, digits()[0], epochs=20, batch_size=64, lr=3e-3, schedule="cosine")
    return model.eval()


@functools.cache
def bound(name: str, steps: int | None = None) -> float:
    """Of unseen digits, in nats, the mean of ten draws."""
    model = trained(name)
    if steps is not None:
        model = SemiAmortizedVAE.of(model, steps=steps) if name == "vae" else model
    x = digits()[1]
    with torch.no_grad(), rng.forked("cpu", 3):
        return float(torch.stack([model.bound(x).elbo.mean() for _ in range(10)]).mean())


def test_a_weak_encoder_gains_nats() -> None:
    """Where it was trained so, and a little of a finished VAE, whose decoder made do with such codes."""
    plain, refined, own = bound("vae"), bound("vae", 20), bound("semi-amortized-vae")
    assert refined > plain + 0.03, (plain, refined)
    assert own > plain + 1, (plain, own)

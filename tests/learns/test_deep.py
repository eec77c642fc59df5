"""The very deep VAE on pictures of independent tiles: detail in every place, which one vector has to carry whole."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from helpers import fit, fresh
from sandglass.core import Spec
from sandglass.data.dataset import Dataset, Split
from sandglass.data.transform import ArrayTransform


def tiles(n: int, seed: int) -> Tensor:
    """``(n, 1, 12, 12)`` pictures of nine tiles, each one of eight patterns; their entropy is 18.71 nats."""
    patterns = (torch.rand(8, 4, 4, generator=torch.Generator().manual_seed(7)) > 0.5).float()
    kinds = torch.randint(8, (n, 3, 3), generator=torch.Generator().manual_seed(seed))
    return patterns[kinds].permute(0, 1, 3, 2, 4).reshape(n, 1, 12, 12)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_a_vd_vae_learns_local_detail_sooner_than_a_vae_of_as_many_weights(seed: int) -> None:
    """After 320 updates. Three seeds had bounds of -38.6, -40.5 and -46.0 nats; the VAE -64.4 to -54.5."""
    x, held_out, spec = tiles(2000, 1), tiles(1000, 2), Spec((1, 12, 12), "binary")
    data = Dataset("tiles", spec, ArrayTransform(spec.shape), {"train": Split(x)}, fingerprint="tiles")
    one = {"latent_dim": 32, "net": {"name": "resnet", "width": 8, "max_width": 32}}
    found, sizes = {}, {}
    for name, options in (("vd-vae", {"blocks": 1, "width": 16}), ("vae", one)):
        model = fresh(name, data, seed, **options)
        fit(model, data, epochs=8, batch_size=50, lr=3e-3, seed=seed, schedule="cosine")
        with torch.no_grad():
            found[name] = float(model.eval().bound(held_out).elbo.mean())  # type: ignore[operator]
        sizes[name] = sum(p.numel() for p in model.parameters())
    assert sizes["vd-vae"] < sizes["vae"]
    assert found["vae"] + 8 < found["vd-vae"] < -9 * math.log(8)

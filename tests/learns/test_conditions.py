"""A conditional VAE draws what its condition says: a class, a vector, or the part of a picture that is known."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from helpers import fit, fresh
from sandglass import rng
from sandglass.core import Batch, Spec
from sandglass.data.dataset import Dataset, Split
from sandglass.data.transform import ArrayTransform


def halves(n: int, seed: int) -> tuple[Tensor, Tensor]:
    """``(n, 1, 8, 8)`` pictures of one of four patterns above and one of four below that goes with it, and which."""
    with rng.forked("cpu", 7):
        above, below = (torch.rand(2, 4, 4, 8) > 0.5).float()
    with rng.forked("cpu", seed):
        kind = torch.randint(4, (n,))
        flip = (torch.rand(n, 1, 8, 8) < 0.02).float()
    x = torch.cat([above[kind], below[kind]], 1)[:, None]
    return (x - flip).abs(), kind


@pytest.mark.parametrize("condition", ["labels", "vector", "part"])
def test_a_cvae_takes_a_class_a_vector_and_a_part_of_a_picture(condition: str) -> None:
    """Of unseen conditions, 95 % of the drawn lower halves are of the pattern that goes with them (chance: 1 / 4)."""
    spec = Spec((1, 8, 8), "binary", classes=4)
    spec = replace(spec, given={"vector": Spec((2,)), "part": Spec((1, 8, 8), "binary")})

    def split(n: int, seed: int) -> Split:
        x, kind = halves(n, seed)
        angle = kind * torch.pi / 2
        part = x.clone()
        part[:, :, 4:] = 0  # what is hidden
        with rng.forked("cpu", seed, "vector"):
            vector = torch.stack([angle.cos(), angle.sin()], 1) + 0.1 * torch.randn(n, 2)
        return Split(x, kind, given={"vector": vector, "part": part})

    data = Dataset("halves", spec, ArrayTransform(spec.shape), {"train": split(1000, 1)}, fingerprint="halves")
    net = {"name": "mlp", "widths": [64], "activation": "silu"}
    model = fresh("cvae", data, condition=condition, latent_dim=4, net=net, beta=4.0, beta_schedule="constant")
    fit(model, data, epochs=20, batch_size=50, lr=5e-3, schedule="cosine")
    test, patterns = split(400, 2), halves(4000, 3)
    wanted = torch.stack([patterns[0][patterns[1] == k].mean(0).round() for k in range(4)])
    given = Batch(y=test.y) if condition == "labels" else Batch(given={condition: test.given[condition]})
    with rng.forked("cpu", 4):
        drawn = model.eval().sample(400, given)
    apart = torch.cdist(drawn[:, :, 4:].flatten(1), wanted[:, :, 4:].flatten(1))
    assert float((apart.argmin(1) == test.y).float().mean()) > 0.95

"""Flow matching, ``flow-matching`` and ``latent-flow``, on data with a known answer."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.distributions import Categorical, Independent, MixtureSameFamily, Normal

import sandglass
from helpers import fit, fresh, rows
from sandglass import rng
from sandglass.core import Batch, Model, Spec
from sandglass.data.dataset import Dataset, Split
from sandglass.data.transform import ArrayTransform

NET = {"name": "mlp", "widths": [128, 128, 128], "activation": "silu"}
HOW: dict[str, Any] = {"batch_size": 200, "schedule": "cosine"}


def drawn(model: Model, n: int, given: Batch | None = None) -> Tensor:
    with rng.forked("cpu", 2):
        return model.eval().sample(n, given)


def test_a_mixture_is_modelled_to_its_entropy() -> None:
    """Two separate blobs in 2-D: the log-likelihood is within 0.1 nats of the true one (a Gaussian: 0.7)."""
    means = torch.tensor([[2.0, 1.0], [-2.0, -1.0]])
    blobs = Independent(Normal(means, torch.tensor([[0.5, 0.8], [0.8, 0.4]])), 1)
    truth = MixtureSameFamily(Categorical(torch.ones(2)), blobs)
    with rng.forked("cpu", 1):
        x, held_out = truth.sample((4000,)), truth.sample((500,))
    model = fresh("flow-matching", rows(x), net=NET)
    fit(model, rows(x), epochs=60, **HOW)
    reached = float(model.eval().log_prob(held_out).detach().mean())
    expected = float(truth.log_prob(held_out).mean())
    assert expected - 0.1 < reached < expected + 0.05


def test_all_modes_of_a_ring_are_found_and_little_between_them() -> None:
    """Of 2,000 samples 95 in 100 lie within eight standard deviations of a mode, and each mode has its share.

    That is a tenth of the way to the next mode.
    """
    data = sandglass.load_data("ring")
    x = data.train.x
    model = fresh("flow-matching", data, net=NET)
    fit(model, data, epochs=40, **HOW)
    assert data.train.y is not None
    y = data.train.y
    centres = torch.stack([x[y == k].mean(0) for k in y.unique()])
    width = float(torch.stack([x[y == k].std(0) for k in y.unique()]).mean())
    far, nearest = torch.cdist(drawn(model, 2000), centres).min(1)
    share = nearest.bincount(minlength=len(centres)) / 2000
    assert float((far < 8 * width).float().mean()) > 0.95
    assert (share - 1 / len(centres)).abs().max() < 0.05


def test_samples_are_of_their_label_and_guidance_makes_them_more_so() -> None:
    """Three blobs that overlap: given a label, mean and spread are those of its blob; guidance leaves the overlap."""
    centres = torch.tensor([[1.0, 0.0], [-0.5, 1.0], [-0.5, -1.0]])
    with rng.forked("cpu", 1):
        y = torch.randint(3, (4000,))
        x = centres[y] + 0.6 * torch.randn(4000, 2)
    data = Dataset("blobs", Spec((2,), classes=3), ArrayTransform((2,)), {"train": Split(x, y)}, fingerprint="blobs")
    model = fresh("flow-matching", data, condition="labels", net=NET)
    fit(model, data, epochs=40, **HOW)
    wanted = torch.arange(3).repeat_interleave(1000)

    def right(samples: Tensor) -> float:
        return float((torch.cdist(samples, centres).argmin(1) == wanted).float().mean())

    plain = drawn(model, 3000, Batch(y=wanted))
    groups = plain.unflatten(0, (3, 1000))
    assert (groups.mean(1) - centres).abs().max() < 0.12
    assert (groups.std(1) - 0.6).abs().max() < 0.1
    assert abs(right(plain) - right(x_like(centres, wanted))) < 0.05
    model.flow.guidance = 3.0
    assert right(drawn(model, 3000, Batch(y=wanted))) > right(plain) + 0.05


def x_like(centres: Tensor, y: Tensor) -> Tensor:
    """Examples of these labels."""
    with rng.forked("cpu", 3):
        return centres[y] + 0.6 * torch.randn(len(y), 2)


@pytest.mark.slow
def test_a_latent_flow_learns_which_tiles_follow_each_other() -> None:
    """Pictures of two tiles, each one of four patterns, the second like the first with probability 0.7.

    Of 2,000 samples 75 in 100 are two patterns, and tiles are repeated as often as they should be, within four
    standard errors and 0.05; tiles that know nothing of each other would be repeated in a quarter of the cases.
    """
    with rng.forked("cpu", 1):
        patterns = (torch.rand(4, 4, 4) > 0.5).float()
        first = torch.randint(4, (3000,))
        other = (first + torch.randint(1, 4, (3000,))) % 4
        second = torch.where(torch.rand(3000) < 0.7, first, other)
    x = torch.cat([patterns[first], patterns[second]], 2)[:, None]
    spec = Spec((1, 4, 8), "binary")
    data = Dataset("tiles", spec, ArrayTransform(spec.shape), {"train": Split(x)}, fingerprint="tiles")
    net = {"name": "conv", "width": 16, "stages": 2}
    model = fresh("latent-flow", data, codes=2, code_dim=4, net=net, flow_width=32, flow_depth=1, times="uniform")
    later = {"flow": {"epochs": 80, "batch_size": 200}}
    fit(model, data, epochs=10, batch_size=50, lr=3e-3, schedule="cosine", stage=later)
    found = drawn(model, 2000).view(2000, 4, 2, 4).transpose(1, 2).reshape(2000, 2, 1, 16)
    far = (found - patterns.view(4, 16)).abs().amax(-1)
    whole, kind = (far.amin(-1) < 0.5).all(1), far.argmin(-1)
    assert model.latents[0].shape == (1, 2, 4)
    assert float(whole.float().mean()) > 0.75
    assert abs(float((kind[:, 1] == kind[:, 0]).float().mean()) - 0.7) < 4 * math.sqrt(0.21 / 2000) + 0.05

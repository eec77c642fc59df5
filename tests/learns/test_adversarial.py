"""Variational models with a critic: what it buys beside the VAE with the same networks."""

from __future__ import annotations

import functools
import math
from typing import Any

import pytest
import torch
from torch import Tensor

import sandglass
from helpers import fit, fresh
from sandglass.core import Batch, Spec
from sandglass.data.dataset import Dataset, Split
from sandglass.data.transform import ArrayTransform
from sandglass.metrics.measure import context_of, measure

FOUR = torch.eye(4)


@functools.cache
def four_points(name: str) -> dict[str, float]:
    """What 1,200 updates on four points come to with two latents, the toy example of the paper of ``avb``.

    The best log p(x) is -log 4 = -1.386 nats, with posteriors that are the four parts of the prior. It is integrated
    over a grid, so that neither a critic nor a bound is asked.
    """
    x = FOUR.repeat(250, 1)
    data = Dataset("four", Spec((4,), "binary"), ArrayTransform((4,)), {"train": Split(x)}, fingerprint="four")
    options: dict[str, Any] = {"width": 32} if name == "avb" else {}
    net = {"name": "mlp", "widths": [64], "activation": "silu"}
    options |= {"latent_dim": 2, "net": net, "likelihood": "bernoulli", "beta_schedule": "constant"}
    model: Any = fresh(name, data, **options)
    fit(model, data, epochs=240, batch_size=200, lr=5e-3, schedule="cosine")
    with torch.no_grad():
        bound = model.estimate(Batch(x)) if name == "avb" else model.bound(x)
        found = {"log_p": evidence(model.eval()), "distortion": bound.distortion, "rate": bound.rate}
    return {key: float(value.mean()) for key, value in found.items()}


def evidence(model: Any) -> Tensor:
    """``(4,)`` log p(x) of the four points, by the sum over a grid of latents from -4.5 to 4.5."""
    line = torch.linspace(-4.5, 4.5, 181)
    z = torch.cartesian_prod(line, line)
    weight = model.prior().log_prob(z) + 2 * math.log(float(line[1] - line[0]))
    return torch.stack([(model.p(z).log_prob(x.expand(len(z), 4)) + weight).logsumexp(0) for x in FOUR])


@pytest.mark.slow
def test_an_implicit_posterior_beats_the_gaussian_one() -> None:
    own, plain = four_points("avb"), four_points("vae")
    assert own["log_p"] > plain["log_p"] + 0.05, (own, plain)
    assert own["log_p"] > -math.log(4) - 0.15, (own, plain)


@pytest.mark.slow
def test_samples_are_nearer_to_digits_than_those_of_the_vae() -> None:
    """``vae-gan``: half the distance on learnt features (10 where the VAE's is 20), and no less coverage."""
    data = sandglass.load_data("digits")
    net, found = {"name": "mlp", "widths": [256, 128]}, {}
    for name in ("vae", "vae-gan"):
        critic = {"critic": {**net, "activation": "leaky-relu"}} if name == "vae-gan" else {}
        model: Any = fresh(name, data, latent_dim=8, net={**net, "activation": "silu"}, **critic)
        fit(model, data, epochs=25, batch_size=64)
        results = measure(model.eval(), data.splits["test"], names=["fid", "coverage"], **context_of(data))
        found[name] = {r.name: r.value for r in results}
    assert found["vae-gan"]["fid"] < 0.75 * found["vae"]["fid"], found
    assert found["vae-gan"]["coverage"] > found["vae"]["coverage"] - 0.05, found

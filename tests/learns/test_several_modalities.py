"""What each way of inferring from several modalities is for, on corners of two cubes that share two of three signs."""

from __future__ import annotations

import functools
import math
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.distributions import Independent

from helpers import fit, fresh
from sandglass import rng
from sandglass.core import Batch, Spec
from sandglass.data.dataset import Dataset, Split
from sandglass.data.transform import ArrayTransform
from sandglass.models._experts import product_of_experts
from sandglass.models._fusion import Draws
from sandglass.models.joint_vae import JointVAE

PARENT: dict[str, Any] = {"terms": "joint", "private": (0,)}
"""A product of experts trained on the bound of both modalities alone."""


def cubes(n: int, seed: int) -> tuple[Batch, Tensor]:
    """Corners with noise in each of two cubes: their own sign, and two that they share, ``(n, 2)``, differently put."""
    with rng.forked("cpu", seed):
        signs, own = (2.0 * torch.randint(2, (n, 2)) - 1 for _ in range(2))
        first = torch.cat([signs, own[:, :1]], 1)
        second = torch.cat([own[:, 1:], signs.prod(1, keepdim=True), signs[:, :1]], 1)
        x, tag = (1 + 2 * corner + 0.5 * torch.randn(n, 3) for corner in (first, second))
    return Batch(x, given={"tag": tag}), signs


@functools.cache
def trained(name: str, draws: int | None = None, seed: int = 0) -> JointVAE:
    batch, _ = cubes(2000, 1)
    spec = Spec((3,), given={"tag": Spec((3,))})
    split = Split(batch.x, given=dict(batch.given))
    data = Dataset("cubes", spec, ArrayTransform((3,)), {"train": split}, fingerprint="cubes")
    own = PARENT if name == "joint-vae" else {} if draws is None else {"draws": draws}
    net = {"name": "mlp", "widths": [64], "activation": "silu"}
    model = fresh(name, data, seed=seed, latent_dim=4, net=net, **own)
    fit(model, data, epochs=40, batch_size=100, lr=0.02, schedule="cosine", seed=seed)
    assert isinstance(model, JointVAE)
    return model.eval()


def alone(name: str) -> Batch:
    batch, _ = cubes(1000, 2)
    return Batch(batch.x) if name == "x" else Batch(given=batch.given)


@torch.no_grad()
def bound(model: JointVAE, batch: Batch) -> float:
    with rng.forked("cpu", 3):
        return float(model.bound(batch).elbo.mean())


def from_one(model: JointVAE) -> float:
    """The bounds on log p of each modality from itself, added up."""
    return bound(model, alone("x")) + bound(model, alone("tag"))


@torch.no_grad()
def coherent(model: JointVAE) -> float:
    """The share of examples both of whose signs are right when one modality is drawn from the other, the worse way."""
    _, signs = cubes(1000, 2)
    with rng.forked("cpu", 3):
        tag = model.modality("tag").p(model.infer(alone("x"))).mean
        x = model.modality("x").p(model.infer(alone("tag"))).mean
    tag, x = tag - 1, x - 1
    found = torch.stack([tag[:, 2], tag[:, 1] * tag[:, 2]], 1), x[:, :2]
    return min(float((f.sign() == signs).all(1).float().mean()) for f in found)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["mvae", "mmvae", "mopoe-vae", "jmvae"])
def test_one_modality_tells_more_than_in_a_product_that_was_trained_on_both_alone(name: str) -> None:
    """By more than a nat for both together, and what one says of the other is right in eight of ten (chance: 1 / 4)."""
    model, parent = trained(name), trained("joint-vae")
    assert from_one(model) > from_one(parent) + 1
    assert coherent(model) > 0.8


@pytest.mark.slow
def test_a_product_is_sharper_than_a_mixture_and_a_mixture_of_products_lies_between() -> None:
    """The bound of both modalities, of models trained with one draw: a mixture cannot keep what is only in one."""
    whole, _ = cubes(1000, 2)
    product, between, mixture = (bound(trained(*of), whole) for of in (("mvae",), ("mopoe-vae",), ("mmvae", 1)))
    assert product > between + 1 and between > mixture + 0.1


@pytest.mark.slow
def test_an_importance_weighted_mixture_has_the_better_likelihood() -> None:
    whole, _ = cubes(1000, 2)
    models = [trained("mmvae", draws) for draws in (None, 1)]
    with torch.no_grad(), rng.forked("cpu", 3):
        several, one = (float(model.log_prob(whole, 100).mean()) for model in models)
    assert several > one + 1


@pytest.mark.slow
def test_an_encoder_of_one_modality_is_better_than_that_of_all_with_zeros_for_the_others() -> None:
    model, total = trained("jmvae"), 0.0
    assert model.fusion.whole is not None
    for name in ("x", "tag"):
        views, _ = model._views(alone(name))
        with torch.no_grad(), rng.forked("cpu", 3):
            q = Independent(product_of_experts([model.fusion.whole([view.value for view in views])]), 1)
            total += float(Draws.of(q, model.modalities, views, 1).bound(q, model.pz(), model.latents).elbo.mean())
    assert math.isfinite(total) and from_one(model) > total + 1

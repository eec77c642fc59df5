"""Critics of codes: permuted dimensions, the density ratio that a critic learns, and who is trained by which loss."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from helpers import fresh, rows
from sandglass import rng
from sandglass.core import Batch, Clock
from sandglass.models._adversary import Adversary, code_critic
from sandglass.models.factor_vae import permuted


def batch(n: int = 12) -> Batch:
    return Batch(torch.randn(n, 6, generator=torch.Generator().manual_seed(3)))


def model(name: str, **options: Any) -> Any:
    return fresh(name, rows(batch().x), latent_dim=3, net="mlp", **options)


def test_permuted_dimensions_keep_their_values_and_lose_their_order() -> None:
    z = torch.randn(1000, 3, generator=torch.Generator().manual_seed(0)) @ torch.tensor(
        [[1.0, 0.9, 0.9], [0.0, 0.4, 0.0], [0.0, 0.0, 0.4]]
    )
    with rng.forked("cpu", 1):
        made = permuted(z)
    assert torch.equal(made.sort(0).values, z.sort(0).values)
    assert float((torch.corrcoef(z.T) - torch.eye(3)).abs().max()) > 0.8
    # |r| < 4.9 / sqrt(1000) for three pairs: refused once in 300,000 seeds
    assert float((torch.corrcoef(made.T) - torch.eye(3)).abs().max()) < 4.9 / 1000**0.5
    assert not torch.equal(made[:, 0], z[:, 0])


def test_every_permutation_is_as_likely() -> None:
    """Of three rows, 6,000 times: chi-square with 5 degrees below 25.7, refused once in 10,000 seeds."""
    with rng.forked("cpu", 2):
        found = torch.stack([permuted(torch.arange(3.0)[:, None])[:, 0] for _ in range(6000)])
    counts = (found @ torch.tensor([9.0, 3.0, 1.0])).unique(return_counts=True)[1].double()
    assert len(counts) == 6
    assert float(((counts - 1000) ** 2 / 1000).sum()) < 25.7


def test_the_optimum_of_the_critic_is_the_log_density_ratio() -> None:
    """Of N(0.5, 1) against N(-0.5, 1) it is the code itself; the gradient of the expected loss is 0 there alone."""
    adversary, grid = Adversary("non-saturating"), torch.linspace(-8, 8, 2001, dtype=torch.float64)

    def density(mean: float) -> Tensor:
        return (-0.5 * (grid - mean) ** 2).exp() / math.sqrt(2 * math.pi)

    def slope(score: Tensor) -> Tensor:
        score = score.clone().requires_grad_()
        zero = torch.zeros_like(score)
        real, fake = adversary.critic(score, zero), adversary.critic(zero, score)  # each and a constant
        ((density(0.5) * real + density(-0.5) * fake).sum()).backward()  # type: ignore[no-untyped-call]
        assert score.grad is not None
        return score.grad

    assert float(slope(grid).abs().max()) < 1e-15
    assert float(slope(grid + 0.1).abs().max()) > 1e-3


def test_a_trained_critic_estimates_the_total_correlation() -> None:
    """Two normals with correlation 0.8: log q(z) - log q(z_1) - log q(z_2) is known at every z, its mean 0.51 nats.

    After 500 updates on fresh draws the mean of the scores is within 0.08 of it, and their correlation with it is 0.9.
    """
    r = 0.8

    def draw(n: int) -> Tensor:
        e = torch.randn(n, 2)
        return torch.stack([e[:, 0], r * e[:, 0] + math.sqrt(1 - r**2) * e[:, 1]], 1)

    with rng.forked("cpu", 3):
        critic, adversary = code_critic(2, 32, 2), Adversary("non-saturating")
        optimizer = torch.optim.Adam(critic.parameters(), 5e-3, (0.5, 0.9))
        for _ in range(500):
            z = draw(256)
            loss = adversary.critic(critic(z).squeeze(-1), critic(permuted(z)).squeeze(-1)).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        z = draw(20_000)
    with torch.no_grad():
        found = critic(z).squeeze(-1)
    quadratic = (r**2 * (z**2).sum(1) - 2 * r * z[:, 0] * z[:, 1]) / (1 - r**2)
    exact = -0.5 * math.log(1 - r**2) - 0.5 * quadratic
    assert abs(float(found.mean()) + 0.5 * math.log(1 - r**2)) < 0.08
    assert float(torch.corrcoef(torch.stack([found, exact]))[0, 1]) > 0.9


def test_without_a_weight_the_vae_is_the_vae_to_the_last_bit() -> None:
    plain = fresh("vae", rows(batch().x), latent_dim=3, net="mlp")
    own = model("factor-vae", gamma=0.0)
    losses = []
    for found in (plain, own):
        with rng.forked("cpu", 4):
            losses.append(found.elbo(batch(), Clock()).loss.detach())  # type: ignore[operator]
    assert torch.equal(*losses)


def test_the_critic_s_score_is_added_with_its_weight() -> None:
    own = model("factor-vae", gamma=7.0)
    with rng.forked("cpu", 4):
        terms = own.elbo(batch(), Clock.final())
    expected = terms.parts["distortion"] + terms.parts["rate"] + 7 * terms.parts["total_correlation"]
    assert float(terms.loss.detach()) == pytest.approx(float(expected.mean()), rel=1e-6)


@pytest.mark.parametrize(("name", "encoder"), [("factor-vae", "q"), ("aae", "encoder")])
def test_the_critic_s_loss_does_not_reach_the_encoder(name: str, encoder: str) -> None:
    own = model(name)
    own.criticise(batch(), Clock()).loss.backward()
    assert all(p.grad is None for p in getattr(own, encoder).parameters())
    assert all(p.grad is not None for p in own.critic.parameters())


class First(torch.nn.Module):
    """A critic whose score is the first number of a code."""

    def forward(self, z: Tensor) -> Tensor:
        return z[:, :1]


def test_the_critic_of_the_factor_vae_takes_codes_for_real_and_permuted_ones_for_fake() -> None:
    own = model("factor-vae")
    own.critic = First()
    with rng.forked("cpu", 4):
        terms = own.criticise(batch(), Clock())
    with rng.forked("cpu", 4):
        z = own.infer(batch())[:, 0].detach()
    joint, product = terms.parts["joint"], terms.parts["product"]
    assert torch.equal(joint, z) and not torch.equal(product, z) and torch.equal(product.sort()[0], z.sort()[0])
    assert torch.allclose(terms.parts["critic"], (1 + (-joint).exp()).log() + (1 + product.exp()).log())


def test_the_critic_of_the_aae_takes_the_prior_for_real_and_the_encoder_misleads_it() -> None:
    own = model("aae")
    own.critic = First()
    with rng.forked("cpu", 4):
        terms = own.criticise(batch(), Clock())
    with rng.forked("cpu", 4):
        drawn = own.draw(12)[:, 0]
    z = own.encode(batch())[:, 0].detach()
    assert torch.equal(terms.parts["real"], drawn) and torch.equal(terms.parts["fake"], z)
    assert torch.allclose(terms.parts["critic"], (1 + (-drawn).exp()).log() + (1 + z.exp()).log())
    assert torch.allclose(own.reconstruction(batch(), Clock()).parts["misled"], (1 + (-z).exp()).log())


def test_the_objective_of_the_wae_is_the_distortion_and_the_weighted_discrepancy() -> None:
    for options in ({"weight": 7.0}, {"weight": 7.0, "divergence": "adversarial"}):
        own = model("wae", **options)
        with rng.forked("cpu", 4):
            terms = own.reconstruction(batch(), Clock())
        divergence = terms.scalars.get("mmd", terms.parts.get("misled", torch.zeros(1)).mean())
        assert float(terms.loss.detach()) == pytest.approx(
            float(terms.parts["distortion"].mean() + 7 * divergence), rel=1e-6
        )
        assert torch.equal(terms.parts["distortion"], own.score(batch()).detach())


def test_what_has_no_evidence_bound_says_so() -> None:
    for name in ("wae", "aae"):
        assert not {"bound", "log_prob", "posterior"} & set(model(name).provides)
        assert "prior" in model(name).provides

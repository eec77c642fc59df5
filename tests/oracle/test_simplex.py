"""Codes on the simplex: stick-breaking processes and logistic normals."""

from __future__ import annotations

import math

import pytest
import torch
from torch.distributions import Beta, Dirichlet, Independent, Kumaraswamy, MultivariateNormal, Normal, kl_divergence

from helpers import fresh, rows
from sandglass import rng
from sandglass.core import Batch, Clock
from sandglass.distributions.logistic_normal import LogisticNormal, SymmetricLogisticNormal
from sandglass.distributions.stick_breaking import BetaSticks, StickBreaking, mean_log_rest
from sandglass.errors import ConfigError
from sandglass.registry import resolve

FAMILIES = ("stick-breaking", "logistic-normal")


def test_the_density_of_shares_is_that_of_fractions() -> None:
    """By torch's Kumaraswamy distribution, and the Jacobian by automatic differentiation."""
    a, b = torch.rand(4).double() * 3 + 0.3, torch.rand(4).double() * 3 + 0.3
    v = torch.rand(4).double()

    def shares(v: torch.Tensor) -> torch.Tensor:
        left = torch.cat([torch.ones(1).double(), (1 - v).cumprod(0)])
        return torch.cat([v, torch.ones(1).double()]) * left

    slope = torch.autograd.functional.jacobian(shares, v)[:4]
    wanted = Kumaraswamy(a, b).log_prob(v).sum() - torch.linalg.slogdet(slope)[1]
    assert torch.allclose(StickBreaking(a, b).log_prob(shares(v)), wanted)


def test_sticks_with_the_right_fractions_are_a_uniform_distribution() -> None:
    """Of K shares, with fractions Beta(1, K - k); then all means are the same."""
    p = BetaSticks(torch.tensor([4.0, 3.0, 2.0, 1.0]).double())
    z = Dirichlet(torch.ones(5).double()).sample((20,))
    assert torch.allclose(p.log_prob(z), torch.full((20,), math.lgamma(5)).double())
    assert torch.allclose(p.mean, torch.full((5,), 0.2).double())


@pytest.mark.parametrize("a", [0.1, 1.0, 4.0, 50.0])
@pytest.mark.parametrize("b", [0.5, 1.0, 3.0, 40.0])
def test_the_mean_logarithm_of_what_is_left_is_the_sum_of_the_series(a: float, b: float) -> None:
    """The terms after 200,000, by their asymptotic form."""
    m = torch.arange(1, 200_001).double()
    c = torch.tensor(b + 1).double()
    terms = (torch.lgamma(m / a) + torch.lgamma(c) - torch.lgamma(m / a + c)).exp() / a
    tail = math.gamma(b) * ((200_000.5 / a + b / 2) ** -b)
    found = mean_log_rest(torch.tensor([a]).double(), torch.tensor([b]).double())
    assert float(found) == pytest.approx(-float(terms.sum()) - tail, rel=2e-6, abs=1e-7)
    assert float(mean_log_rest(torch.tensor([a]), torch.tensor([b]))) == pytest.approx(float(found), rel=1e-5, abs=2e-6)


def test_the_divergence_of_sticks_is_that_of_beta_distributions_where_they_are() -> None:
    """With a = 1 on both sides; and by Kumaraswamy fractions against torch's with the prior Beta(1, 1)."""
    b, to = torch.tensor([0.5, 2.0, 7.0]).double(), torch.tensor([3.0, 0.7, 1.0]).double()
    one = torch.ones(3).double()
    wanted = kl_divergence(Beta(one, b), Beta(one, to)).sum()
    assert torch.allclose(kl_divergence(StickBreaking(one, b), BetaSticks(to)), wanted)
    assert float(kl_divergence(BetaSticks(to), BetaSticks(to))) == pytest.approx(0, abs=1e-12)


def test_means_of_sticks_are_those_of_their_draws() -> None:
    q = StickBreaking(torch.tensor([0.4, 2.0, 5.0]).double(), torch.tensor([3.0, 0.6, 2.0]).double())
    with rng.forked("cpu", 0):
        z = q.rsample(torch.Size([100_000]))
    assert torch.all((z.mean(0) - q.mean).abs() < 5 * z.std(0) / 100_000**0.5)


def test_log_ratios_are_normal() -> None:
    mean, scale = torch.randn(3, 4).double(), torch.rand(3, 4).double() + 0.2
    q = LogisticNormal(mean, scale)
    ratios = torch.randn(3, 4).double()
    z = torch.softmax(torch.nn.functional.pad(ratios, (0, 1)), -1)

    def shares(ratios: torch.Tensor) -> torch.Tensor:
        return torch.softmax(torch.nn.functional.pad(ratios, (0, 1)), -1)[:4]

    slope = torch.stack([torch.autograd.functional.jacobian(shares, r) for r in ratios])
    normal = Independent(Normal(mean, scale), 1).log_prob(ratios)
    assert torch.allclose(q.log_prob(z), normal - torch.linalg.slogdet(slope)[1])


@pytest.mark.parametrize("alpha", [0.3, 1.0, 8.0])
def test_the_divergence_to_the_symmetric_prior_is_that_of_normals(alpha: float) -> None:
    """With the covariance written out; and the prior's curvature at equal shares is a Dirichlet's."""
    k = 5
    mean, scale = torch.randn(3, k - 1).double(), torch.rand(3, k - 1).double() + 0.2
    p = SymmetricLogisticNormal(torch.full((k,), alpha).double())
    covariance = (torch.eye(k - 1) + 1).double() / alpha
    normal = MultivariateNormal(torch.zeros(k - 1).double(), covariance)
    wanted = kl_divergence(MultivariateNormal(mean, torch.diag_embed(scale.square())), normal)
    assert torch.allclose(kl_divergence(LogisticNormal(mean, scale), p), wanted)
    assert torch.allclose(p.log_prob_of_ratios(mean), normal.log_prob(mean))

    def dirichlet(ratios: torch.Tensor) -> torch.Tensor:
        logs = torch.log_softmax(torch.nn.functional.pad(ratios, (0, 1)), -1)
        return alpha * logs.sum()

    curvature = torch.autograd.functional.hessian(dirichlet, torch.zeros(k - 1).double())
    assert torch.allclose(-curvature, torch.linalg.inv(covariance))


def test_draws_of_the_symmetric_prior_have_its_covariance() -> None:
    p = resolve("prior", {"name": "logistic-normal", "concentration": 2.0}, 3).double()()
    with rng.forked("cpu", 0):
        logs = p.sample((100_000,)).log()
    ratios = logs[:, :2] - logs[:, 2:]
    assert torch.allclose(ratios.T.cov(), torch.tensor([[1.0, 0.5], [0.5, 1.0]]).double(), atol=0.02)
    assert torch.all(ratios.mean(0).abs() < 0.02)


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("dim", [2, 3, 64])
def test_single_precision_is_finite_at_every_parameter(name: str, dim: int) -> None:
    family = resolve("posterior", name, dim)
    p = resolve("prior", {"name": name, "concentration": 0.7}, dim)()
    for size in (0.0, 1.0, 100.0, 1e8):
        for sign in (-1.0, 0.0, 1.0):
            with rng.forked("cpu", 2):
                noise = size * torch.randn(100, family.width)
                h = (sign * noise.abs() if sign else noise).requires_grad_()
                q = family(h)
                z = q.rsample()
            rates, log_q, log_p = kl_divergence(q, p), q.log_prob(z), p.log_prob(z)
            (rates.sum() + log_q.sum() + (z * torch.arange(dim)).sum()).backward()
            assert all(bool(t.isfinite().all()) for t in (z, rates, log_q, log_p, q.mean, h.grad))
            for shares in (z, q.mean, p.sample((100,))):
                assert torch.allclose(shares.sum(-1), torch.ones(100), atol=1e-5) and bool((shares >= 0).all())


@pytest.mark.parametrize("name", FAMILIES)
def test_a_model_has_codes_that_sum_to_one(name: str) -> None:
    x = torch.randn(40, 6)
    model = fresh("vae", rows(x), latent_dim=4, posterior=name, prior=name)
    for z in (model.encode(x), model.infer(Batch(x)), model.draw(40)):
        assert torch.allclose(z.sum(1), torch.ones(40), atol=1e-5)
    with torch.autocast("cpu", torch.bfloat16):
        terms = model.elbo(Batch(x), Clock.final())
    terms.loss.backward()
    assert all(p.grad is not None and bool(p.grad.isfinite().all()) for p in model.parameters())
    crossed = fresh("vae", rows(x), latent_dim=4, posterior=name, prior="dirichlet")  # by a draw
    assert bool(crossed.bound(Batch(x)).rate.isfinite().all())


@pytest.mark.parametrize("name", FAMILIES)
def test_what_has_no_meaning_is_refused(name: str) -> None:
    data = rows(torch.randn(20, 6))
    with pytest.raises(ConfigError, match="latent_dim >= 2"):
        fresh("vae", data, posterior=name, prior=name, latent_dim=1)
    with pytest.raises(ConfigError, match="finite number above 0"):
        fresh("vae", data, posterior=name, prior={"name": name, "concentration": 0.0})

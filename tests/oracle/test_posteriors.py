"""Families of posteriors against closed forms, Monte Carlo and finite differences."""

from __future__ import annotations

import math

import pytest
import torch
from torch.distributions import Dirichlet, LowRankMultivariateNormal, kl_divergence

from helpers import fresh, rows
from sandglass import rng
from sandglass.core import Batch, Clock
from sandglass.distributions.evidence import importance_weighted
from sandglass.distributions.flow_posterior import FlowPosterior
from sandglass.distributions.rate import rate, rate_per_dimension
from sandglass.distributions.sphere import log_area
from sandglass.distributions.wrapped_normal import WrappedNormalPosterior
from sandglass.errors import ConfigError
from sandglass.registry import entry, names, resolve
from sandglass.tasks.interpolate import circle

DIM = 3
PRIORS = {
    "dirichlet": "dirichlet",
    "logistic-normal": "logistic-normal",
    "stick-breaking": {"name": "stick-breaking", "concentration": 2.0},
    "von-mises-fisher": "uniform-sphere",
    "power-spherical": "uniform-sphere",
}
"""The priors that go with posteriors; of others, ``standard``."""
SMALL = {name: {"context": 4, "widths": (8,)} for name in ("iaf", "spline")}


def pair(name: str, n: int = 4):
    """A posterior of float64 with gradients at its parameters, these, and a prior that goes with it."""
    with rng.forked("cpu", 0):
        family = resolve("posterior", {"name": name, **SMALL.get(name, {})}, DIM).double()
    h = torch.randn(n, family.width, dtype=torch.float64, generator=torch.Generator().manual_seed(1)).requires_grad_()
    prior = resolve("prior", PRIORS.get(name, "standard"), DIM).double()
    return family, h, prior()


@pytest.mark.parametrize("name", names("posterior"))
def test_the_rate_is_the_mean_of_the_log_ratio(name: str) -> None:
    """Of 40,000 draws, to five standard errors: once in a million seeds."""
    family, h, p = pair(name)
    q = family(h)
    with rng.forked("cpu", 0), torch.no_grad():
        z = q.sample((40_000,))
        ratios = q.log_prob(z) - p.log_prob(z)
        found = rate(q, p, z[0], rate_per_dimension(q, p))
        if torch.allclose(found, ratios[0], atol=1e-6):
            pytest.skip("estimated from a draw")
    assert torch.all((ratios.mean(0) - found).abs() < 5 * ratios.std(0) / 200)


@pytest.mark.parametrize("name", names("posterior"))
def test_mean_and_density_are_those_of_the_draws(name: str) -> None:
    """``E_q[r / q] = 1``, with the density r of another member of the family."""
    family, h, _ = pair(name, 1)
    with rng.forked("cpu", 0), torch.no_grad():
        q, r = family(h), family(h + 0.1 * torch.randn_like(h))
        z = q.sample((40_000,))
        ratio = (r.log_prob(z) - q.log_prob(z)).exp()
        assert torch.all((ratio.mean(0) - 1).abs() < 5 * ratio.std(0) / 200)
        if family.support == "real" and not isinstance(
            family, FlowPosterior | WrappedNormalPosterior
        ):  # theirs is another
            assert torch.all((z.mean(0) - q.mean).abs() < 5 * z.std(0) / 200)


UNIFORM = {"simplex": math.lgamma(DIM), "sphere": -log_area(DIM)}
"""By where codes lie, the log density of the uniform distribution."""


@pytest.mark.parametrize("name", names("prior"))
def test_the_density_of_a_prior_is_that_of_its_draws(name: str) -> None:
    """``E_p[u / p] = 1``, with the uniform density u."""
    if getattr(entry("prior", name).make, "support", "real") not in UNIFORM:
        pytest.skip("there is no uniform distribution")
    prior = resolve("prior", name, DIM).double()
    with rng.forked("cpu", 0), torch.no_grad():
        ratio = (UNIFORM[getattr(prior, "support", "real")] - prior().log_prob(prior().sample((40_000,)))).exp()
    assert abs(ratio.mean() - 1) <= 5 * ratio.std() / 200 + 1e-9


@pytest.mark.parametrize("name", names("posterior"))
def test_gradients_through_draws_are_those_of_expectations(name: str) -> None:
    """Of E[sum c_i z_i^2], against the score function on the same 30,000 draws, to five standard errors of both."""
    family, h, _ = pair(name, 1)
    weights = torch.arange(1.0, DIM + 1).double()
    h = h.detach()
    with rng.forked("cpu", 3):
        many = h.expand(30_000, -1).clone().requires_grad_()
        z = family(many).rsample()
        path = torch.autograd.grad((weights * z.square()).sum(), many)[0]
        many = h.expand(30_000, -1).clone().requires_grad_()
        value = (weights * z.detach().square()).sum(1)
        log_q = family(many).log_prob(z.detach())
        score = torch.autograd.grad(((value - value.mean()) * log_q).sum(), many)[0]
    spread = (path.var(0) / len(path) + score.var(0) / len(score)).sqrt()
    assert torch.all((path.mean(0) - score.mean(0)).abs() < 5 * spread)


def test_gaussians_with_a_covariance_contain_the_diagonal_one() -> None:
    """With a factor of 0 the rates are those of the diagonal one, exactly but for rounding."""
    mean, log_variance = torch.randn(5, DIM).double(), torch.randn(5, DIM).double()
    standard = resolve("prior", "standard", DIM).double()()
    diagonal = resolve("posterior", "gaussian", DIM)(torch.cat([mean, log_variance], 1))
    wanted = rate(diagonal, standard, diagonal.mean)
    for name in ("full-gaussian", "low-rank-gaussian"):
        family = resolve("posterior", name, DIM)
        h = torch.cat([mean, log_variance, torch.zeros(5, family.width - 2 * DIM).double()], 1)
        assert torch.allclose(rate(family(h), standard, mean), wanted, atol=1e-12)


def test_the_rate_of_a_dirichlet_is_that_of_the_closed_form() -> None:
    q, p = (
        Dirichlet(torch.rand(6, 4).double() * 5 + 0.1),
        resolve("prior", {"name": "dirichlet", "concentration": 0.5}, 4),
    )
    z = q.sample()
    assert torch.equal(rate(q, p.double()(), z), kl_divergence(q, Dirichlet(torch.full((4,), 0.5).double())))


@pytest.mark.parametrize("name", names("posterior"))
def test_the_bound_is_under_log_p_and_rises_with_draws(name: str) -> None:
    """Of a model with any posterior, by the mean over examples and repetitions."""
    x = torch.randn(50, 6, generator=torch.Generator().manual_seed(0))
    model = fresh("vae", rows(x), latent_dim=DIM, posterior=name, prior=PRIORS.get(name, "standard"))
    model = model.double().eval()
    batch = Batch(x.double())
    with rng.forked("cpu", 0), torch.no_grad():
        q, p = model.posterior(batch), model.prior()
        bounds = [
            torch.stack([importance_weighted(q, p, model.p, batch.x, k, size=6).mean() for _ in range(400 // k)])
            for k in (1, 5, 100)
        ]
        one = torch.stack([model.bound(batch).elbo.mean() for _ in range(400)])
    error = float(bounds[2].std()) / len(bounds[2]) ** 0.5
    assert one.mean() < bounds[1].mean() < bounds[2].mean() + 3 * error
    assert abs(float(one.mean() - bounds[0].mean())) < 5 * float((one.var() + bounds[0].var()).sqrt()) / 20


def test_posteriors_and_priors_that_do_not_go_together_are_refused() -> None:
    data = rows(torch.randn(20, 6))
    with pytest.raises(
        ConfigError,
        match=r"lie on the simplex, and those of the prior are real numbers\. Priors that go with it: .*stick-breaking",
    ):
        fresh("vae", data, posterior="dirichlet")
    with pytest.raises(ConfigError, match="latent_dim >= 3"):
        fresh("vae", data, posterior="dirichlet", prior="dirichlet", latent_dim=2)
    with pytest.raises(ConfigError, match="not simplex ones: the sampler is the prior"):
        fresh("vae", data, posterior="dirichlet", prior="dirichlet", sampler="gaussian")
    with pytest.raises(ConfigError, match="posterior gaussian only"):
        fresh("beta-tc-vae", data, posterior="full-gaussian")
    with pytest.raises(ConfigError, match="Permuted codes"):
        fresh("factor-vae", data, posterior="dirichlet", prior="dirichlet")
    with pytest.raises(ConfigError, match="rank of at least 1"):
        fresh("vae", data, posterior={"name": "low-rank-gaussian", "rank": 0})
    with pytest.raises(ConfigError, match="finite number above 0"):
        fresh("vae", data, posterior="dirichlet", prior={"name": "dirichlet", "concentration": 0.0})


def test_codes_on_the_simplex_sum_to_one() -> None:
    x = torch.randn(40, 6)
    model = fresh("vae", rows(x), latent_dim=4, posterior="dirichlet", prior="dirichlet")
    code = model.encode(x)
    assert model.latents[0].support == "simplex"
    assert torch.allclose(code.sum(1), torch.ones(40)) and bool((code > 0).all())
    assert torch.allclose(model.draw(9).sum(1), torch.ones(9))
    middle = model.between(code[:3], code[3:6], torch.tensor([0.5])[None, :, None])
    assert torch.allclose(middle.sum(-1), torch.ones(3, 1))
    terms = model.elbo(Batch(x), Clock.final())
    terms.loss.backward()
    assert all(p.grad is not None and bool(p.grad.isfinite().all()) for p in model.parameters())


@pytest.mark.parametrize("name", names("posterior"))
def test_densities_of_all_codes_under_all_posteriors(name: str) -> None:
    """``(n, 1, dim)`` codes under ``(B, dim)`` posteriors, as of an aggregate: row by row the same."""
    family, h, _ = pair(name, 5)
    with torch.no_grad():
        q = family(h)
        z = q.sample()
        every = q.log_prob(z[:, None])
        alone = torch.stack([family(h[i : i + 1].expand(5, -1)).log_prob(z) for i in range(5)], 1)
    assert torch.allclose(every, alone, atol=1e-8)


@pytest.mark.parametrize("name", ["full-gaussian", "low-rank-gaussian"])
def test_covariances_stay_in_single_precision_and_survive_what_is_not_finite(name: str) -> None:
    """The engine masks an update that is not finite; an error would end the run."""
    family = resolve("posterior", name, DIM)
    h = torch.randn(4, family.width)
    z = torch.randn(4, DIM)
    with torch.autocast("cpu", torch.bfloat16):
        half = family(h).log_prob(z)
    assert torch.equal(half, family(h).log_prob(z))
    h[2] = float("nan")
    found = family(h).log_prob(z)
    assert found.isnan().tolist() == [False, False, True, False]


def test_a_low_rank_gaussian_is_that_of_torch() -> None:
    family = resolve("posterior", "low-rank-gaussian", 5).double()
    h, z = torch.randn(4, family.width).double(), torch.randn(7, 4, 5).double()
    q = family(h)
    wanted = LowRankMultivariateNormal(q.loc, q.factor, q.diagonal)
    assert torch.allclose(q.log_prob(z), wanted.log_prob(z)) and torch.allclose(q.variance, wanted.variance)


def test_priors_go_with_the_codes_and_losses_of_every_model() -> None:
    data = rows(torch.randn(20, 6))
    for model in ("avb", "wae", "aae", "gan"):
        with pytest.raises(ConfigError, match="A prior of posteriors needs a model with a posterior"):
            fresh(model, data, prior="vamp")
    for model in ("avb", "wae"):
        with pytest.raises(ConfigError, match="those of the prior lie on the simplex"):
            fresh(model, data, prior="dirichlet", latent_dim=4)
    for model, prior in (("gan", "maf"), ("wae", "mixture"), ("aae", "maf")):
        with pytest.raises(ConfigError, match="no loss trains the prior"):
            fresh(model, data, prior=prior)


def test_interpolation_between_draws_of_any_prior() -> None:
    data = rows(torch.randn(20, 6))
    for prior in ("maf", "mixture"):
        model = fresh("vae", data, latent_dim=3, prior=prior)
        assert circle(model, 4, 5).shape == (4, 5, 3)

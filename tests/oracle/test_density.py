"""Densities of codes against distributions that are known."""

from __future__ import annotations

import pytest
import torch
from torch.distributions import Categorical, MixtureSameFamily, MultivariateNormal

from helpers import fit, fresh, rows
from sandglass import rng
from sandglass.errors import DivergedError
from sandglass.models._density import GaussianDensity, GaussianMixture

MEANS = torch.tensor([[4.0, 0.0], [-4.0, 1.0], [0.0, -5.0]]).double()
ROOTS = torch.tensor([[[1.0, 0.0], [0.8, 0.3]], [[0.5, 0.0], [0.0, 1.5]], [[0.7, 0.0], [-0.5, 0.4]]]).double()
TRUTH = MixtureSameFamily(
    Categorical(torch.tensor([0.5, 0.3, 0.2]).double()), MultivariateNormal(MEANS, scale_tril=ROOTS)
)


def drawn(n: int, seed: int = 0) -> torch.Tensor:
    with rng.forked("cpu", seed, "codes"):
        return TRUTH.sample((n,))


def test_one_gaussian_has_the_moments_and_the_log_density_of_the_codes() -> None:
    z = drawn(500)
    density = GaussianDensity(2).double()
    found = density.fit(z)
    covariance = torch.cov(z.T, correction=0)
    assert torch.allclose(density.mean, z.mean(0))
    assert torch.allclose(density.root @ density.root.T, covariance)
    assert found["log_density"] == pytest.approx(float(MultivariateNormal(z.mean(0), covariance).log_prob(z).mean()))


def test_shares_weigh_the_codes() -> None:
    """Codes that count twice are as codes that are there twice."""
    z, shares = drawn(50), torch.arange(50).double() % 3
    one, other = GaussianDensity(2).double(), GaussianDensity(2).double()
    one.follow(z, shares)
    other.fit(z.repeat_interleave(shares.long(), 0))
    assert torch.allclose(one.mean, other.mean)
    assert torch.allclose(one.root @ one.root.T, other.root @ other.root.T)


def test_a_mixture_is_found() -> None:
    """By 20,000 codes: five standard errors of a weight are .018, of a mean .06, so once in a million seeds."""
    density = GaussianMixture(2, 3).double()
    z = drawn(20_000)
    found = density.fit(z)
    order = density.weight.argsort(descending=True)
    assert torch.allclose(density.weight[order], TRUTH.mixture_distribution.probs, atol=0.018)
    for place, i in enumerate(order.tolist()):
        assert torch.allclose(density.components[i].mean, MEANS[place], atol=0.06)
        root = density.components[i].root
        assert torch.allclose(root @ root.T, ROOTS[place] @ ROOTS[place].T, atol=0.12)
    truth = float(TRUTH.log_prob(z).mean())
    assert truth < found["log_density"] < truth + 0.005, "the maximum is above the truth, by parameters / 2 n"


def test_draws_of_a_mixture_are_of_its_components() -> None:
    """Mean and covariance of 50,000 draws against the closed form, at five standard errors."""
    density = GaussianMixture(2, 3).double()
    density.fit(drawn(5_000))
    with rng.forked("cpu", 1):
        z = density.sample(50_000)
    means = torch.stack([c.mean for c in density.components])
    spread = torch.stack([c.root @ c.root.T for c in density.components])
    mean = density.weight @ means
    second = (density.weight[:, None, None] * (spread + means[:, :, None] * means[:, None])).sum(0)
    covariance = second - mean[:, None] * mean
    assert torch.all((z.mean(0) - mean).abs() < 5 * (covariance.diagonal() / 50_000).sqrt())
    assert torch.allclose(torch.cov(z.T), covariance, atol=0.3)
    assert float(TRUTH.log_prob(z).mean()) > float(TRUTH.log_prob(drawn(5_000, 2)).mean()) - 0.1


def test_a_few_codes_have_fewer_components() -> None:
    density = GaussianMixture(4, 10)
    density.fit(torch.randn(20, 4))
    assert int((density.weight > 0).sum()) == 2
    density.fit(torch.randn(3, 4))
    assert density.weight.tolist() == [1.0] + [0.0] * 9
    assert density.sample(5).isfinite().all()


def test_before_the_fit_draws_are_standard_normal() -> None:
    with rng.forked("cpu", 1):
        z = GaussianMixture(3, 4).sample(20_000)
    assert z.mean(0).abs().max() < 5 / 20_000**0.5
    assert (torch.cov(z.T) - torch.eye(3)).abs().max() < 5 * (2 / 20_000) ** 0.5


def test_codes_that_do_not_vary_do_no_harm() -> None:
    density = GaussianMixture(2, 3)
    assert density.fit(torch.ones(100, 2))["log_density"] > 0
    assert torch.allclose(density.sample(4), torch.ones(4, 2), atol=1e-3)


def test_an_autoencoder_of_clusters_is_sampled_better_with_more_components() -> None:
    """Held-out log density under the truth: a single Gaussian puts most of its draws between the clusters."""
    x = drawn(2_000).float()
    reached = {}
    for components in (1, 5):
        net = {"name": "mlp", "widths": [64]}
        model = fresh("ae", rows(x), latent_dim=2, net=net, components=components)
        fit(model, rows(x), epochs=30, batch_size=100)
        with rng.forked("cpu", 3):
            samples = model.eval().sample(2_000)
        reached[components] = float(TRUTH.log_prob(samples.double()).clamp(min=-50).mean())
    assert reached[5] > reached[1] + 1


@pytest.mark.parametrize("density", [GaussianDensity(2), GaussianMixture(2, 3)])
def test_codes_that_are_not_finite_are_named(density: GaussianDensity | GaussianMixture) -> None:
    z = torch.randn(50, 2)
    z[3, 1], z[7] = float("nan"), float("inf")
    with pytest.raises(DivergedError, match="2 of 50 codes are not finite"):
        density.fit(z)


def test_no_component_is_flat() -> None:
    """Where few codes are left to a component, its draws are no combinations of these alone."""
    z = torch.cat([torch.randn(20, 6), 50 + torch.randn(2, 6), torch.randn(14, 6)])
    density = GaussianMixture(6, 3)
    assert density.fit(z)["components"] >= 2
    for i in range(int((density.weight > 0).sum())):
        assert torch.linalg.matrix_rank(density.components[i].root.double(), rtol=1e-9) == 6

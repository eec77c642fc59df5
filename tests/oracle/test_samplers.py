"""Samplers of codes against distributions that are known."""

from __future__ import annotations

import pytest
import torch
from torch.distributions import Categorical, MixtureSameFamily, MultivariateNormal

from helpers import fit, fresh, rows
from sandglass import rng
from sandglass.distributions.normalizing_flow import NormalizingFlow
from sandglass.errors import DivergedError
from sandglass.registry import names, resolve
from sandglass.samplers.gaussian import Gaussian, GaussianMixture
from sandglass.samplers.kernel_density import KernelDensity
from sandglass.samplers.sampler import Sampler, codes_of
from sandglass.samplers.sphere import Sphere

MEANS = torch.tensor([[4.0, 0.0], [-4.0, 1.0], [0.0, -5.0]]).double()
ROOTS = torch.tensor([[[1.0, 0.0], [0.8, 0.3]], [[0.5, 0.0], [0.0, 1.5]], [[0.7, 0.0], [-0.5, 0.4]]]).double()
TRUTH = MixtureSameFamily(
    Categorical(torch.tensor([0.5, 0.3, 0.2]).double()), MultivariateNormal(MEANS, scale_tril=ROOTS)
)


def drawn(n: int, seed: int = 0) -> torch.Tensor:
    with rng.forked("cpu", seed, "codes"):
        return TRUTH.sample((n,))


def codes(z: torch.Tensor) -> torch.Tensor:
    return codes_of([z])


def test_one_gaussian_has_the_moments_and_the_log_density_of_the_codes() -> None:
    z = drawn(500)
    density = Gaussian(2).double()
    found = density.fit(codes(z))
    covariance = torch.cov(z.T, correction=0)
    assert torch.allclose(density.mean, z.mean(0))
    assert torch.allclose(density.root @ density.root.T, covariance)
    assert found["log_density"] == pytest.approx(float(MultivariateNormal(z.mean(0), covariance).log_prob(z).mean()))


def test_shares_weigh_the_codes() -> None:
    """Codes that count twice are as codes that are there twice."""
    z, shares = drawn(50), torch.arange(50).double() % 3
    one, other = Gaussian(2).double(), Gaussian(2).double()
    one.follow(z, shares)
    other.fit(codes(z.repeat_interleave(shares.long(), 0)))
    assert torch.allclose(one.mean, other.mean)
    assert torch.allclose(one.root @ one.root.T, other.root @ other.root.T)


def test_a_mixture_is_found() -> None:
    """By 20,000 codes: five standard errors of a weight are .018, of a mean .06, so once in a million seeds."""
    density = GaussianMixture(2, components=3).double()
    z = drawn(20_000)
    found = density.fit(codes(z))
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
    density = GaussianMixture(2, components=3).double()
    density.fit(codes(drawn(5_000)))
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
    density = GaussianMixture(4, components=10)
    density.fit(codes(torch.randn(20, 4)))
    assert int((density.weight > 0).sum()) == 2
    density.fit(codes(torch.randn(3, 4)))
    assert density.weight.tolist() == [1.0] + [0.0] * 9
    assert density.sample(5).isfinite().all()


def test_before_the_fit_draws_are_standard_normal() -> None:
    with rng.forked("cpu", 1):
        z = GaussianMixture(3, components=4).sample(20_000)
    assert z.mean(0).abs().max() < 5 / 20_000**0.5
    assert (torch.cov(z.T) - torch.eye(3)).abs().max() < 5 * (2 / 20_000) ** 0.5


def test_codes_that_do_not_vary_do_no_harm() -> None:
    density = GaussianMixture(2, components=3)
    assert density.fit(codes(torch.ones(100, 2)))["log_density"] > 0
    assert torch.allclose(density.sample(4), torch.ones(4, 2), atol=1e-3)


@pytest.mark.parametrize("model", ["ae", "vae"])
def test_a_model_of_clusters_is_sampled_better_with_a_sampler(model: str) -> None:
    """Held-out log density under the truth: a single Gaussian puts many of its draws between the clusters."""
    x = drawn(2_000).float()
    reached = {}
    for sampler in ("gaussian" if model == "ae" else "prior", "gaussian-mixture"):
        net = {"name": "mlp", "widths": [64]}
        made = fresh(model, rows(x), latent_dim=2, net=net, sampler=sampler)
        fit(made, rows(x), epochs=15, batch_size=100)
        with rng.forked("cpu", 3):
            samples = made.eval().sample(2_000)
        reached[sampler] = float(TRUTH.log_prob(samples.double()).clamp(min=-50).mean())
    first, second = reached.values()
    assert second > first + (1 if model == "ae" else 0.1)


def test_codes_that_are_not_finite_are_counted() -> None:
    z = torch.randn(50, 2)
    z[3, 1], z[7] = float("nan"), float("inf")
    with pytest.raises(DivergedError, match="2 of 50 codes are not finite"):
        codes(z)


def test_no_component_is_flat() -> None:
    """Where few codes are left to a component, its draws are no combinations of these alone."""
    z = torch.cat([torch.randn(20, 6), 50 + torch.randn(2, 6), torch.randn(14, 6)])
    density = GaussianMixture(6, components=3)
    assert density.fit(codes(z))["components"] >= 2
    for i in range(int((density.weight > 0).sum())):
        assert torch.linalg.matrix_rank(density.components[i].root.double(), rtol=1e-9) == 6


SAMPLERS = [name for name in names("sampler") if name != "prior"]


@pytest.mark.parametrize("name", SAMPLERS)
def test_every_sampler_has_the_moments_of_normal_codes(name: str) -> None:
    """Mean and covariance of 20,000 draws: those of the codes to .15, after few updates where it is trained."""
    z = torch.tensor([1.0, -2.0]) + torch.randn(4_000, 2, generator=torch.Generator().manual_seed(0)) @ torch.tensor(
        [[1.0, 0.5], [0.0, 0.5]]
    )
    sampler: Sampler = trained(
        resolve("sampler", {"name": name, **SMALL.get(name, {})}, 2), z, 400 if name == "two-stage" else 150
    )
    with rng.forked("cpu", 1), torch.no_grad():
        drawn = sampler.sample(20_000)
    assert torch.allclose(drawn.mean(0), z.mean(0), atol=0.1)
    if name == "sphere":  # it has no directions that are longer than others
        assert torch.allclose((drawn - sampler.mean).norm(dim=1), sampler.radius)
    else:
        assert torch.allclose(torch.cov(drawn.T), torch.cov(z.T), atol=0.3 if name == "two-stage" else 0.15)


SMALL = {"two-stage": {"widths": (32,)}}


def trained(sampler: Sampler, z: torch.Tensor, steps: int = 150) -> Sampler:
    """Fitted to codes, and trained on batches of them where it has a loss."""
    with rng.forked("cpu", 0):
        sampler.fit(codes(z))
        if hasattr(sampler, "loss"):
            optimizer = torch.optim.Adam(sampler.parameters(), 3e-3)
            for step in range(steps):
                optimizer.param_groups[0]["lr"] = 3e-3 * (1 - step / steps)
                optimizer.zero_grad()
                sampler.loss(z[torch.randint(len(z), (128,))]).mean().backward()
                optimizer.step()
    return sampler


@pytest.mark.parametrize("family", ["maf", "iaf", "spline"])
def test_a_flow_is_a_density_and_its_draws_follow_it(family: str) -> None:
    """It integrates to 1 over the plane, and the mean of 1 / p over its draws within a square is the area of it."""
    with rng.forked("cpu", 2):
        p = NormalizingFlow(2, family=family, transforms=2, widths=(16,)).double()()
        axis = torch.linspace(-9, 9, 181).double()
        grid = torch.cartesian_prod(axis, axis)
        with torch.no_grad():
            mass = p.log_prob(grid).exp().sum() * (axis[1] - axis[0]) ** 2
            z = p.sample((40_000,))
            inside = (z.abs() < 1).all(1)
            weight = torch.where(inside, (-p.log_prob(z)).exp(), 0.0)
    assert float(mass) == pytest.approx(1, abs=2e-3)
    assert float(weight.mean()) == pytest.approx(4, abs=5 * float(weight.std()) / 200)


def test_a_flow_stays_in_single_precision() -> None:
    p = NormalizingFlow(3, widths=(16,))
    z = torch.randn(5, 3)
    with torch.autocast("cpu", torch.bfloat16):
        half = p().log_prob(z)
    assert torch.equal(half, p().log_prob(z))


def test_the_bandwidth_is_that_of_the_highest_density_of_other_codes() -> None:
    """Against the choice by hand, of codes in two clusters, whose own covariance would be far too wide."""
    z = torch.cat([torch.randn(600, 1) * 0.1 - 5, torch.randn(600, 1) * 0.1 + 5]).double()
    sampler = KernelDensity(1, codes=500).double()
    found = sampler.fit(codes(z))
    assert found["bandwidth"] < 0.05
    kept = sampler.kept[:500]
    others = z[(z != kept.T).all(1)]
    by_width = {
        h: torch.distributions.Normal(kept.T, h * float(z.std(correction=0))).log_prob(others).logsumexp(1).mean()
        for h in (found["bandwidth"] / 2**0.5, found["bandwidth"], found["bandwidth"] * 2**0.5)
    }
    assert max(by_width, key=lambda h: float(by_width[h])) == found["bandwidth"]
    assert found["log_density"] == pytest.approx(
        float(by_width[found["bandwidth"]]) - float(torch.tensor(500.0).log()), abs=1e-3
    )


def test_kernels_of_few_codes_are_chosen_without_the_code_itself() -> None:
    """With each code in its own estimate, the narrowest bandwidth would win."""
    z = torch.randn(200, 2).double()
    found = KernelDensity(2, codes=5000).double().fit(codes(z))
    assert 0.1 < found["bandwidth"] < 1
    assert found["codes"] == 200


def test_a_sphere_has_uniform_directions() -> None:
    """The mean of the squares of each coordinate is radius^2 / dim; five standard errors of 20,000 draws."""
    sampler = Sphere(4)
    sampler.fit(codes(torch.randn(100, 4)))
    with rng.forked("cpu", 3):
        u = (sampler.sample(20_000) - sampler.mean) / sampler.radius
    assert torch.allclose(u.square().mean(0), torch.full((4,), 0.25), atol=5 * (0.25 / 20_000 / 4) ** 0.5)


def test_the_sampler_takes_no_part_in_the_objective() -> None:
    """Encoder and decoder have the same bits with any sampler, and its stage does not move them."""
    x = drawn(200).float()
    kept = {}
    for sampler in ("prior", "maf", "gaussian"):
        model = fresh("vae", rows(x), latent_dim=2, net={"name": "mlp", "widths": [16]}, sampler=sampler)
        before = {name: value.clone() for name, value in model.state_dict().items()}
        fit(model, rows(x), epochs=2, batch_size=50)
        kept[sampler] = {name: value for name, value in model.state_dict().items() if not name.startswith("density.")}
        assert any(not torch.equal(before[name], value) for name, value in kept[sampler].items())
    for sampler in ("maf", "gaussian"):
        assert all(torch.equal(kept["prior"][name], value) for name, value in kept[sampler].items())

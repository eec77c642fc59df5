"""Every likelihood normalises, has the gradient it claims, the mean it claims, and draws from itself."""

from __future__ import annotations

import math

import pytest
import scipy.integrate
import scipy.stats
import torch
from torch import Tensor

from sandglass import registry
from sandglass.core import Spec
from sandglass.data.dataset import Split
from sandglass.errors import ConfigError
from sandglass.metrics.measure import measure

LEVELS = ["categorical", "beta-binomial", "logistic-mixture"]
COUNTS = ["poisson", "negative-binomial"]
LINE = ["gaussian", "laplace", "huber", "mse", "mae"]
UNIT = ["continuous-bernoulli"]
Z = 5.0
"""Monte Carlo tests fail by chance less than once in a million."""


def element(name: str, levels: int, seed: int) -> tuple[torch.distributions.Distribution, int]:
    """One element under a likelihood with random parameters, float64, and how many numbers it took."""
    spec = Spec((1,), "real" if name in LINE else "unit", levels)
    likelihood = registry.resolve("likelihood", name, spec).double()
    generator = torch.Generator().manual_seed(seed)
    h = 1.5 * torch.randn(1, likelihood.channels(spec), generator=generator, dtype=torch.float64)
    return likelihood(h), likelihood.channels(spec)


def test_every_likelihood_is_in_a_list_here() -> None:
    known = {*LEVELS, *COUNTS, *LINE, *UNIT, "bernoulli", "bce", "cce"}
    elsewhere = {
        "mixed": "test_mixed.py",
        "multinomial": "test_multinomial.py",
        "optimal-gaussian": "test_optimal_scale.py",
        "ms-ssim": "test_dissimilarity.py",
    }
    assert {*known, *elsewhere} == set(registry.names("likelihood"))


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("levels", [2, 17, 256])
@pytest.mark.parametrize("name", LEVELS)
def test_probabilities_of_levels_sum_to_one(name: str, levels: int, seed: int) -> None:
    p, _ = element(name, levels, seed)
    values = torch.arange(levels, dtype=torch.float64)[:, None] / (levels - 1)
    assert float(p.log_prob(values).exp().sum()) == pytest.approx(1, abs=1e-10)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("name", COUNTS)
def test_probabilities_of_counts_sum_to_one(name: str, seed: int) -> None:
    p, _ = element(name, 17, seed)
    values = torch.arange(200_000, dtype=torch.float64)[:, None] / 16
    assert float(p.log_prob(values).exp().sum()) == pytest.approx(1, abs=1e-8)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("name", [*LINE, *UNIT])
def test_densities_integrate_to_one(name: str, seed: int) -> None:
    p, _ = element(name, 256, seed)

    def density(x: float) -> float:
        return float(p.log_prob(torch.tensor([[x]], dtype=torch.float64)).detach().exp())

    centre = float(p.mean.detach())
    if name in UNIT:
        total = scipy.integrate.quad(density, 0, 1)[0]
    else:
        total = scipy.integrate.quad(density, -math.inf, centre)[0] + scipy.integrate.quad(density, centre, math.inf)[0]
    assert total == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("name", [*LEVELS, *COUNTS, *LINE, *UNIT])
def test_the_mean_is_the_mean_of_the_draws(name: str) -> None:
    p, _ = element(name, 17, 3)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        draws = p.sample((200_000,)).flatten()
    slack = 0.5 / 16 if name == "logistic-mixture" else 0  # its mean is exact to half a level only
    error = abs(float(draws.mean() - p.mean.detach()))
    assert error < Z * float(draws.std()) / len(draws) ** 0.5 + slack


@pytest.mark.parametrize("name", [*LEVELS, *COUNTS])
def test_draws_of_levels_follow_the_probabilities(name: str) -> None:
    p, _ = element(name, 9, 1)
    values = torch.arange(9, dtype=torch.float64)[:, None] / 8
    with torch.random.fork_rng():
        torch.manual_seed(0)
        draws = p.sample((100_000,)).flatten()
    for value, probability in zip(values.flatten(), p.log_prob(values).detach().exp(), strict=True):
        share, q = float((draws == value).double().mean()), float(probability)
        assert abs(share - q) < Z * math.sqrt(max(q * (1 - q), 1e-9) / len(draws)) + 1e-9


@pytest.mark.parametrize("name", [*LINE, *UNIT])
def test_draws_of_densities_follow_them(name: str) -> None:
    p, _ = element(name, 256, 1)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        draws = p.sample((20_000,)).flatten().sort().values
    grid = torch.linspace(float(draws[0]) - 1, float(draws[-1]) + 1, 200_001, dtype=torch.float64)
    if name in UNIT:
        grid = torch.linspace(0, 1, 200_001, dtype=torch.float64)
    density = p.log_prob(grid[:, None]).detach().exp()
    cumulative = torch.cumulative_trapezoid(density, grid)
    at = cumulative[torch.searchsorted(grid[1:], draws).clamp(max=len(cumulative) - 1)]
    assert scipy.stats.kstest(at.numpy(), "uniform").pvalue > 1e-6


@pytest.mark.parametrize("name", [*LEVELS, *COUNTS, *LINE, *UNIT, "bernoulli", "bce", "cce"])
def test_gradients_of_every_likelihood(name: str) -> None:
    support = "real" if name in LINE else "binary" if name in ("bernoulli", "bce") else "unit"
    spec = Spec((2, 3, 2), support, 9)
    likelihood = registry.resolve("likelihood", name, spec).double()
    generator = torch.Generator().manual_seed(0)
    h = torch.randn(2, likelihood.channels(spec), 3, 2, generator=generator, dtype=torch.float64, requires_grad=True)
    x = (torch.rand(2, *spec.shape, generator=generator, dtype=torch.float64) * 8).round() / 8
    assert torch.autograd.gradcheck(lambda h: likelihood(h).log_prob(x), (h,))


@pytest.mark.parametrize("name", [*LEVELS, *UNIT, *COUNTS])
@pytest.mark.parametrize("size", [30.0, 300.0, -300.0])
def test_absurd_outputs_stay_finite(name: str, size: float) -> None:
    spec = Spec((4,), "unit", 256)
    likelihood = registry.resolve("likelihood", name, spec)
    h = torch.full((1, likelihood.channels(spec)), size, requires_grad=True)
    figure = likelihood(h).log_prob(torch.tensor([[0.0, 0.5, 1.0, 17 / 255]]))
    figure.sum().backward()
    assert torch.isfinite(figure).all() and h.grad is not None and torch.isfinite(h.grad).all()
    assert torch.isfinite(likelihood(h).mean).all()


@pytest.mark.parametrize("name", [*LEVELS, *COUNTS, *UNIT])
def test_what_needs_levels_refuses_real_numbers(name: str) -> None:
    with pytest.raises(ConfigError, match="gaussian"):
        registry.resolve("likelihood", name, Spec((3,), "real"))


def log_prob(name: str, h: list[float], x: Tensor, levels: int = 256) -> Tensor:
    spec = Spec((1,), "real" if name in LINE else "unit", levels)
    likelihood = registry.resolve("likelihood", name, spec).double()
    return likelihood(torch.tensor([h], dtype=torch.float64)).log_prob(x[:, None].double()).detach()


def test_against_scipy() -> None:
    x = torch.tensor([0.0, 0.25, 0.5, 1.0]).double()
    k = (x * 4).numpy()
    pairs = [
        (log_prob("laplace", [0.3], x), scipy.stats.laplace.logpdf(x, 0.3, 1)),
        (log_prob("poisson", [0.4], x, 5), scipy.stats.poisson.logpmf(k, 2 * math.exp(0.4))),
        (
            log_prob("beta-binomial", [0.2, -0.7], x, 5),
            scipy.stats.betabinom.logpmf(k, 4, math.exp(0.2), math.exp(-0.7)),
        ),
        (
            log_prob("negative-binomial", [0.4, 0.9], x, 5),
            scipy.stats.nbinom.logpmf(k, math.exp(0.9), math.exp(0.9) / (math.exp(0.9) + 2 * math.exp(0.4))),
        ),
    ]
    for ours, theirs in pairs:
        assert ours.numpy() == pytest.approx(theirs, abs=1e-10)


@pytest.mark.parametrize(("name", "loss"), [("mse", "mse_loss"), ("mae", "l1_loss"), ("huber", "huber_loss")])
def test_the_named_losses_are_those_losses(name: str, loss: str) -> None:
    x = torch.linspace(-4, 4, 33).double()
    ours = -log_prob(name, [0.3], x)
    theirs = getattr(torch.nn.functional, loss)(torch.full_like(x, 0.3), x, reduction="none")
    difference = ours - theirs
    assert float(difference.std()) < 1e-7, "up to a constant, and to float32 in which the scale is kept"


def test_the_named_cross_entropies_are_those_losses() -> None:
    generator = torch.Generator().manual_seed(0)
    h, x = torch.randn(50, 3, generator=generator).double(), torch.rand(50, 3, generator=generator).double()
    for name in ("bce", "bernoulli"):
        ours = -registry.resolve("likelihood", name, Spec((3,), "unit"))(h).log_prob(x)
        theirs = torch.nn.functional.binary_cross_entropy_with_logits(h, x, reduction="none").sum(1)
        assert torch.allclose(ours, theirs, rtol=0, atol=1e-12)
    h = torch.randn(50, 3 * 9, generator=generator).double()
    k = torch.randint(0, 9, (50, 3), generator=generator)
    for name in ("cce", "categorical"):
        ours = -registry.resolve("likelihood", name, Spec((3,), "unit", 9)).double()(h).log_prob(k / 8)
        theirs = torch.nn.functional.cross_entropy(h.view(50, 3, 9).transpose(1, 2), k, reduction="none").sum(1)
        assert torch.allclose(ours, theirs, rtol=0, atol=1e-12)


def test_huber_between_its_two_limits() -> None:
    x = torch.linspace(-3, 3, 13).double()
    spec = Spec((1,))
    wide = registry.resolve("likelihood", {"name": "huber", "delta": 40.0}, spec).double()
    zero = torch.zeros(1, 1, dtype=torch.float64)
    assert wide(zero).log_prob(x[:, None]).numpy() == pytest.approx(scipy.stats.norm.logpdf(x), abs=1e-12)
    narrow = registry.resolve("likelihood", {"name": "huber", "delta": 1e-4, "scale": 1e-4}, spec).double()
    assert narrow(zero).log_prob(x[:, None]).numpy() == pytest.approx(scipy.stats.laplace.logpdf(x), abs=1e-3)
    p = registry.resolve("likelihood", {"name": "huber", "delta": 0.7}, spec).double()(zero)
    grid = torch.linspace(-60, 60, 400_001).double()
    second = torch.trapezoid(p.log_prob(grid[:, None]).exp() * grid.square(), grid)
    assert float(p.variance) == pytest.approx(float(second), rel=1e-6)


def test_continuous_bernoulli_is_exact_through_one_half() -> None:
    eta = torch.tensor([-1e-3, -1e-9, 0.0, 1e-9, 1e-3, 0.0999, 0.1001, 5.0, 80.0]).double()
    spec = Spec((len(eta),), "unit")
    p = registry.resolve("likelihood", "continuous-bernoulli", spec).double()(eta[None]).base_dist
    for i, e in enumerate(eta.tolist()):
        exact = scipy.integrate.quad(lambda x, e=e: math.exp(e * (x - 1)), 0, 1, epsabs=1e-14)[0]  # the mode at 1
        assert float(p.log_prob(torch.ones(1, len(eta)).double())[0, i]) == pytest.approx(-math.log(exact), abs=1e-10)
        mean = scipy.integrate.quad(lambda x, e=e: x * math.exp(e * (x - 1)), 0, 1, epsabs=1e-14)[0] / exact
        assert float(p.mean[0, i]) == pytest.approx(mean, abs=1e-9)


def test_bits_a_dimension_are_nats_of_a_probability_in_another_unit() -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randint(0, 9, (40, 1, 4, 5), generator=generator, dtype=torch.uint8)
    for likelihood, known in (("categorical", True), ("gaussian", False), ("bernoulli", False)):
        spec = Spec((1, 4, 5), "unit", 9)
        model = registry.build("vae", spec, latent_dim=2, net="mlp", likelihood=likelihood)
        figures = {r.name: r.value for r in measure(model, Split(x, levels=9), names=["bound"])}
        assert ("bits_per_dim" in figures) is known
        if known:
            assert figures["bits_per_dim"] == pytest.approx(-figures["elbo"] / 20 / math.log(2), rel=1e-12)

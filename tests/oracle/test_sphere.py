"""Codes on spheres: normalisers, draws, gradients and ways between codes."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import special
from torch import Tensor
from torch.distributions import kl_divergence
from torch.nn.functional import normalize

from helpers import fresh, rows
from sandglass import rng
from sandglass.core import Batch, Clock
from sandglass.distributions.power_spherical import PowerSpherical
from sandglass.distributions.sphere import Rotational, log_area
from sandglass.distributions.von_mises_fisher import Rule, VonMisesFisher
from sandglass.errors import ConfigError
from sandglass.registry import resolve

FAMILIES = ("von-mises-fisher", "power-spherical")
CONCENTRATIONS = (1e-3, 0.3, 2.0, 30.0, 1e3, 1e5)


def of(name: str, dim: int, concentration: Tensor, direction: Tensor | None = None) -> Rotational:
    """A distribution of float64 about the first axis, or another direction."""
    direction = torch.eye(dim, dtype=torch.float64)[0] if direction is None else direction
    direction = direction.expand(*concentration.shape, dim)
    if name == "power-spherical":
        return PowerSpherical(direction, concentration)
    return VonMisesFisher(direction, concentration, Rule.of(dim))


@pytest.mark.parametrize("dim", [2, 3, 4, 7, 16, 64, 128])
def test_normaliser_and_mean_are_ratios_of_bessel_functions(dim: int) -> None:
    k = np.array([0.3, 1.0, 5.0, 30.0, 300.0, 1e4, 1e6]) * max(1.0, dim / 8)  # scipy's underflow below
    q = of("von-mises-fisher", dim, torch.from_numpy(k))
    v = dim / 2 - 1
    wanted = dim / 2 * math.log(2 * math.pi) + np.log(special.ive(v, k)) - v * np.log(k)
    assert np.allclose(q.log_normalizer, wanted, rtol=0, atol=1e-9)
    assert np.allclose(1 - q.mean_versed, special.ive(v + 1, k) / special.ive(v, k), rtol=0, atol=1e-9)


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("dim", [2, 3, 8])
def test_densities_integrate_to_one_and_their_mean_logarithm_is_the_divergence(name: str, dim: int) -> None:
    q = of(name, dim, torch.tensor([0.7, 6.0]).double())
    p = resolve("prior", "uniform-sphere", dim).double()()
    angles = torch.linspace(0, math.pi, 20_001).double()
    z = torch.stack([angles.cos(), angles.sin(), *[torch.zeros_like(angles)] * (dim - 2)], -1)[:, None]
    log_q, rings = q.log_prob(z), angles.sin()[:, None] ** (dim - 2) * math.exp(log_area(dim - 1))
    mass = rings * log_q.exp()
    assert torch.allclose(torch.trapezoid(mass, angles, dim=0), torch.ones(2).double(), atol=1e-7)
    mean = torch.trapezoid(mass * (log_q - p.log_prob(z)), angles, dim=0)
    assert torch.allclose(kl_divergence(q, p), mean, atol=1e-6)


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("dim", [2, 3, 10, 64])
def test_draws_have_the_mean_cosine_and_square_of_the_density(name: str, dim: int) -> None:
    """Of 50,000 draws at every concentration, to five standard errors, as moments by the beta distribution say."""
    k = torch.tensor(CONCENTRATIONS).double()
    q = of(name, dim, k)
    if isinstance(q, VonMisesFisher):
        mean, square = bessel_moments(dim, k.numpy())
    else:
        a, m = k + (dim - 1) / 2, (dim - 1) / 2
        half = m / (a + m)  # of y / 2
        mean = 2 * half
        square = 4 * half * (m + 1) / (a + m + 1)
    with rng.forked("cpu", 0):
        y = q.versed(torch.Size([50_000, len(k)]))
    assert torch.all((y.mean(0) - mean).abs() < 5 * y.std(0) / 50_000**0.5)
    assert torch.all((y.square().mean(0) - square).abs() < 5 * y.square().std(0) / 50_000**0.5)


def by_angle(dim: int, k: float, low: float, high: float, of=np.ones_like) -> float:
    """The integral, over angles, of a function of ``1 - cos(angle)`` times ``exp(-k (1 - cos(angle)))`` and rings."""
    nodes, weights = np.polynomial.legendre.leggauss(400)
    high = min(high, low + 12 * math.sqrt(dim / (k + dim)))  # beyond it there is nothing
    y = 2 * np.sin((low + (high - low) * (nodes + 1) / 2) / 2) ** 2
    rings = (y * (2 - y) / min(1, dim / k)) ** ((dim - 2) / 2)
    return float((high - low) / 2 * (weights * rings * np.exp(-k * y) * of(y)).sum())


def bessel_moments(dim: int, k: np.ndarray) -> tuple[Tensor, Tensor]:
    """The means of ``1 - cos(angle)`` and of its square under von Mises-Fisher distributions, by integration."""
    totals = [by_angle(dim, each, 0, math.pi) for each in k]
    moments = [[by_angle(dim, each, 0, math.pi, lambda y, n=n: y**n) for each in k] for n in (1, 2)]
    mean, square = torch.tensor(moments).double() / torch.tensor(totals).double()
    return mean, square


@pytest.mark.parametrize("dim", [2, 3, 5, 16, 64])
def test_the_gradient_of_a_draw_is_that_of_its_quantile(dim: int) -> None:
    """Of von Mises-Fisher draws: by finite differences of the cumulative distribution, at every draw."""
    k = torch.tensor([0.01, 1.0, 20.0, 500.0]).double().requires_grad_()
    q = of("von-mises-fisher", dim, k)
    with rng.forked("cpu", 1):
        drawn = q.versed(torch.Size([4]))
    (slope,) = torch.autograd.grad(drawn.sum(), k)

    def parts(at: float, angle: float) -> tuple[float, float]:
        return by_angle(dim, at, 0, angle), by_angle(dim, at, angle, math.pi)

    for y, at, found in zip(drawn.tolist(), k.tolist(), slope.tolist(), strict=True):
        angle, h = math.acos(1 - y), 1e-4 * at
        shares = []
        for each in (at + h, at - h):
            below, above = parts(each, angle)
            shares.append(below / (below + above))
        rings = (y * (2 - y) / min(1, dim / at)) ** ((dim - 2) / 2)
        density = rings * math.exp(-at * y) / sum(parts(at, angle))
        change = -(shares[0] - shares[1]) / (2 * h) / density  # of the angle
        assert found == pytest.approx(change * math.sin(angle), rel=1e-4)


@pytest.mark.parametrize("dim", [2, 3, 10, 64, 512])
def test_two_proposals_in_three_are_accepted(dim: int) -> None:
    k = torch.logspace(-3, 6, 50).double()
    q = of("von-mises-fisher", dim, k)
    b = q.envelope
    most = -2 * k * b / (1 + b) - (dim - 1) * ((1 + b) / 2).log()
    rate = (q.log_ratios.logsumexp(-1) - most).exp()
    assert bool((rate > 0.65).all()) and bool((rate <= 1 + 1e-12).all())


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("dim", [2, 3, 64])
def test_single_precision_is_finite_at_every_parameter(name: str, dim: int) -> None:
    family, p = resolve("posterior", name, dim), resolve("prior", "uniform-sphere", dim)()
    for size in (0.0, 1e-3, 10.0, 1e4, 1e8):
        for sign in (-1.0, 1.0):
            with rng.forked("cpu", 2):
                h = size * torch.randn(100, dim + 1)
                h[:, dim] = sign * size
                h.requires_grad_()
                q = family(h)
                z = q.rsample()
            rates = kl_divergence(q, p)
            (rates.sum() + q.log_prob(z).sum() + (z * torch.arange(dim)).sum()).backward()
            assert all(bool(t.isfinite().all()) for t in (z, rates, q.log_prob(z), h.grad))
            assert torch.allclose(z.norm(dim=-1), torch.ones(100), atol=1e-5) and bool((rates > -1e-4).all())


@pytest.mark.parametrize("name", FAMILIES)
def test_gradients_are_bounded_at_the_poles(name: str) -> None:
    """Where a reflection to the first axis itself would have none."""
    for first in (1.0, -1.0, 1e-9, -1e-9, 0.6, -0.6, -1 + 1e-9):
        direction = torch.tensor([first, math.sqrt(1 - first**2), 0.0]).double()
        direction = direction.expand(5000, 3).clone().requires_grad_()
        with rng.forked("cpu", 4):
            z = of(name, 3, torch.full((5000,), 3.0).double(), direction).rsample()
        (slope,) = torch.autograd.grad(z[:, 2].sum(), direction)
        assert float(slope.abs().max()) < 10 and torch.allclose(z.norm(dim=1), torch.ones(5000).double())
        assert torch.all((z.mean(0) - direction[0] * (z @ direction[0]).mean()).abs() < 0.05)


def test_the_way_between_codes_is_the_great_circle() -> None:
    family = resolve("posterior", "power-spherical", 3)
    a, b = normalize(torch.randn(6, 3), dim=-1), normalize(torch.randn(6, 3), dim=-1)
    t = torch.linspace(0, 1, 9)[None, :, None]
    way = family.between(a, b, t)
    assert torch.allclose(way[:, 0], a, atol=1e-6) and torch.allclose(way[:, -1], b, atol=1e-6)
    assert torch.allclose(way.norm(dim=-1), torch.ones(6, 9))
    steps = (way[:, 1:] * way[:, :-1]).sum(-1).acos()
    angle = (a * b).sum(-1).acos()
    assert torch.allclose(steps, (angle / 8)[:, None].expand(-1, 8), atol=2e-3)
    for end in (a, -a):
        assert torch.allclose(family.between(a, end, t).norm(dim=-1), torch.ones(6, 9), atol=1e-5)


@pytest.mark.parametrize("name", FAMILIES)
def test_a_model_has_codes_on_the_sphere(name: str) -> None:
    x = torch.randn(40, 6)
    model = fresh("vae", rows(x), latent_dim=3, posterior=name, prior="uniform-sphere")
    code = model.encode(x)
    assert model.latents[0].support == "sphere"
    for z in (code, model.infer(Batch(x)), model.draw(40)):
        assert torch.allclose(z.norm(dim=1), torch.ones(40), atol=1e-5)
    with torch.autocast("cpu", torch.bfloat16):
        terms = model.elbo(Batch(x), Clock.final())
    terms.loss.backward()
    assert all(p.grad is not None and bool(p.grad.isfinite().all()) for p in model.parameters())


def test_what_does_not_go_together_is_refused() -> None:
    data = rows(torch.randn(20, 6))
    with pytest.raises(ConfigError, match="lie on the sphere, and those of the prior are real numbers"):
        fresh("vae", data, posterior="von-mises-fisher")
    with pytest.raises(ConfigError, match="latent_dim >= 2"):
        fresh("vae", data, posterior="von-mises-fisher", prior="uniform-sphere", latent_dim=1)
    with pytest.raises(ConfigError, match="rate for each latent dimension"):
        fresh("vae", data, posterior="power-spherical", prior="uniform-sphere", free_bits=0.1)

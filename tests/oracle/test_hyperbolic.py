"""Codes in a hyperbolic space: its geometry, densities, and single precision far from the origin."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.distributions import Normal
from torch.nn.functional import normalize

from helpers import fresh, rows
from sandglass import rng
from sandglass.core import Batch, Clock
from sandglass.distributions.wrapped_normal import WrappedNormal, added, code_of, point_of, towards
from sandglass.errors import ConfigError
from sandglass.registry import resolve


def points(n: int, dim: int, seed: int = 0, far: float = 4.0) -> Tensor:
    """Points of the ball within a distance."""
    g = torch.Generator().manual_seed(seed)
    v = normalize(torch.randn(n, dim, generator=g, dtype=torch.float64), dim=-1)
    return point_of(v * far * torch.rand(n, 1, generator=g, dtype=torch.float64))


def distance(a: Tensor, b: Tensor) -> Tensor:
    """By the formula with an inverse hyperbolic cosine."""
    return torch.acosh(1 + 2 * (a - b).square().sum(-1) / ((1 - a.square().sum(-1)) * (1 - b.square().sum(-1))))


def test_adding_keeps_distances_and_the_way_back_undoes_it() -> None:
    a, b, c = (points(20, 3, seed) for seed in range(3))
    assert torch.allclose(distance(added(c, a), added(c, b)), distance(a, b))
    assert torch.allclose(added(-c, added(c, a)), a)
    v, far = towards(a, b)
    assert torch.allclose(far[:, 0], distance(a, b)) and torch.allclose(v.norm(dim=-1), far[:, 0])
    assert torch.allclose(added(a, point_of(v)), b)

    assert torch.allclose(point_of(code_of(a)), a)


@pytest.mark.parametrize("curvature", [0.3, 1.0, 4.0])
def test_densities_integrate_to_one_over_the_plane(curvature: float) -> None:
    q = WrappedNormal(torch.tensor([0.9, -0.6]).double(), torch.tensor([0.5, 0.3]).double(), curvature)
    side = torch.linspace(-5, 5, 2001, dtype=torch.float64)
    total = q.log_prob(torch.cartesian_prod(side, side)).exp().sum() * float(side[1] - side[0]) ** 2
    assert float(total) == pytest.approx(1, abs=1e-4)


def test_lengths_of_draws_are_those_of_normals() -> None:
    """Distances from the point do not depend on where it is."""
    q = WrappedNormal(torch.tensor([1.0, -0.5, 0.4]).double(), torch.full((3,), 0.8).double(), 2.0)
    with rng.forked("cpu", 0):
        z = q.rsample(torch.Size([50_000]))
    squares = distance(point_of(2**0.5 * z), point_of(2**0.5 * q.loc)).square() / 2
    assert abs(float(squares.mean()) - 3 * 0.64) < 5 * float(squares.std()) / 50_000**0.5


def test_at_the_origin_it_is_the_normal_distribution() -> None:
    scale, z = torch.rand(3).double() + 0.3, torch.randn(20, 3).double()
    q = WrappedNormal(torch.zeros(3).double(), scale, 1.7)
    assert torch.allclose(q.log_prob(z), Normal(0.0, scale).log_prob(z).sum(-1), atol=1e-6)


def test_without_curvature_it_is_the_gaussian_posterior() -> None:
    h, z = torch.randn(5, 6).double(), torch.randn(5, 3).double()
    flat = resolve("posterior", "gaussian", 3)(h)
    curved = resolve("posterior", {"name": "wrapped-normal", "curvature": 1e-8}, 3)(h)
    assert torch.allclose(curved.log_prob(z), flat.log_prob(z), atol=1e-4)
    with rng.forked("cpu", 0):
        wanted = flat.rsample()
    with rng.forked("cpu", 0):
        assert torch.allclose(curved.rsample(), wanted, atol=1e-4)


def test_the_way_between_codes_is_the_geodesic() -> None:
    a, b = torch.randn(6, 2).double(), torch.randn(6, 2).double()
    t = torch.linspace(0, 1, 9).double()[None, :, None]
    way = resolve("posterior", {"name": "wrapped-normal", "curvature": 4.0}, 2).between(a, b, t)
    assert torch.allclose(way[:, 0], a) and torch.allclose(way[:, -1], b)
    way, a, b = point_of(2 * way), point_of(2 * a), point_of(2 * b)
    assert torch.allclose(distance(way[:, 1:], way[:, :-1]), (distance(a, b) / 8)[:, None].expand(-1, 8))


@pytest.mark.parametrize("dim", [1, 2, 10, 64])
def test_single_precision_is_finite_at_every_parameter_and_rates_are_no_roundings(dim: int) -> None:
    """Rounded draws of narrow posteriors near the boundary would have rates below 0, which training would seek."""
    family = resolve("posterior", "wrapped-normal", dim)
    p = resolve("prior", "standard", dim)()
    for size in (0.0, 1.0, 10.0, 1e4, 1e8):
        for sign in (-1.0, 1.0):
            with rng.forked("cpu", 2):
                h = size * torch.randn(500, 2 * dim)
                h[:, dim:] = sign * h[:, dim:].abs()
                h.requires_grad_()
                q = family(h)
                z = q.rsample()
            rates = q.log_prob(z) - p.log_prob(z)
            (rates.sum() + (z * torch.arange(dim)).sum()).backward()
            assert all(bool(t.isfinite().all()) for t in (z, rates, h.grad))
            assert bool(rates.mean() > -5 * rates.std() / 500**0.5 - 1e-3)


@pytest.mark.parametrize("far", [1.0, 4.0, 8.0])
def test_single_precision_has_the_rates_of_double_precision(far: float) -> None:
    """Of the narrowest posteriors that the encoder can give, at several distances from the origin."""
    h = torch.tensor([[far, 0.0, -30.0, -30.0]]).expand(2000, -1)
    q, p = resolve("posterior", "wrapped-normal", 2)(h), resolve("prior", "standard", 2)
    with rng.forked("cpu", 1):
        z = q.rsample()
    exact = WrappedNormal(q.loc.double(), q.scale.double(), 1.0)
    with rng.forked("cpu", 1):
        rates = exact.log_prob(drawn := exact.rsample()) - p.double()().log_prob(drawn)
    found = q.log_prob(z) - p.float()().log_prob(z)
    assert abs(float(found.mean() - rates.mean())) < 0.1 and float(q.scale.max()) < 0.1


def test_a_model_with_it_trains_in_half_precision() -> None:
    x = torch.randn(40, 6)
    model = fresh("vae", rows(x), latent_dim=3, posterior="wrapped-normal")
    with torch.autocast("cpu", torch.bfloat16):
        terms = model.elbo(Batch(x), Clock.final())
    terms.loss.backward()
    assert all(p.grad is not None and bool(p.grad.isfinite().all()) for p in model.parameters())
    assert model.interpolate(x[:2], x[2:4], 5).shape == (2, 5, 6)


def test_what_has_no_meaning_is_refused() -> None:
    for curvature, words in ((0.0, "finite number above 0"), (math.inf, "finite number above 0"), (30.0, "at most 16")):
        with pytest.raises(ConfigError, match=words):
            posterior = {"name": "wrapped-normal", "curvature": curvature}
            fresh("vae", rows(torch.randn(20, 6)), latent_dim=4, posterior=posterior)

"""Refined posteriors: the exact one of a linear-Gaussian model, slopes, identities, and what is refused."""

from __future__ import annotations

import copy
import itertools
import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from helpers import fresh, pictures, rows
from sandglass import registry
from sandglass.core import Batch, Clock, Spec
from sandglass.errors import ConfigError
from sandglass.models.semi_amortized_vae import SemiAmortizedVAE, parameters

NET = {"name": "mlp", "widths": [16]}
LINEAR = {"net": "linear", "latent_dim": 3, "likelihood": {"name": "gaussian", "learn": "none", "scale": 0.5}}
S2 = 0.25


def linear(**options: Any) -> tuple[Any, Tensor]:
    """A linear-Gaussian model whose decoder has orthogonal columns, so that its posterior has a diagonal covariance."""
    g = torch.Generator().manual_seed(0)
    x = torch.randn(64, 6, generator=g, dtype=torch.float64)
    model: Any = fresh("semi-amortized-vae", rows(x.float()), **{**LINEAR, **options}).double().eval()
    with torch.no_grad():
        layer = next(m for m in model.p.modules() if isinstance(m, torch.nn.Linear))
        basis = torch.linalg.qr(torch.randn(6, 3, generator=g, dtype=torch.float64))[0]
        layer.weight.copy_(basis * torch.tensor([1.5, 0.7, 0.1], dtype=torch.float64))
    return model, x


def exact(model: Any, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Means and variances of p(z|x), and log p(x)."""
    layer = next(m for m in model.p.modules() if isinstance(m, torch.nn.Linear))
    w, b = layer.weight.detach(), layer.bias.detach()
    precision = torch.eye(3).double() + w.T @ w / S2
    mean = (x - b) @ w / S2 @ torch.linalg.inv(precision)
    marginal = torch.distributions.MultivariateNormal(b, w @ w.T + S2 * torch.eye(6).double())
    return mean, torch.linalg.inv(precision).diagonal(), marginal.log_prob(x)


def bound(q: Any, model: Any, x: Tensor) -> Tensor:
    """The evidence bound of a posterior in closed form."""
    layer = next(m for m in model.p.modules() if isinstance(m, torch.nn.Linear))
    w, b = layer.weight.detach(), layer.bias.detach()
    error = (x - q.mean @ w.T - b).square().sum(1) + (q.variance @ w.square().T).sum(1)
    distortion = 0.5 * error / S2 + 0.5 * 6 * math.log(2 * math.pi * S2)
    return -(distortion + torch.distributions.kl_divergence(q, model.prior()))


def test_refinement_reaches_the_exact_posterior_and_closes_the_gap() -> None:
    """A diagonal Gaussian is the family of the posterior here, so that nothing is left of the gap."""
    model, x = linear(steps=200, step_size=0.5)
    mean, variance, log_p = exact(model, x)
    q = model.posterior(x)
    assert not q.mean.requires_grad
    gap = log_p - bound(q, model, x)
    with torch.no_grad():
        before = log_p - bound(super(SemiAmortizedVAE, model).posterior(Batch(x)), model, x)
    assert float(before.mean()) > 1 and (before > 0).all()
    assert (gap >= -1e-9).all() and float(gap.max()) < 1e-6
    assert torch.allclose(q.mean, mean, atol=1e-4)
    assert torch.allclose(q.variance, variance.expand_as(mean), rtol=1e-4)


def test_a_bound_is_not_worse_on_average_after_any_number_of_steps() -> None:
    """From the defaults: no step is too long."""
    model, x = linear()
    gaps = []
    for steps in range(9):
        model.steps = steps
        gaps.append(float((exact(model, x)[2] - bound(model.posterior(x), model, x)).mean().detach()))
    assert all(after < before for before, after in itertools.pairwise(gaps)), gaps
    assert gaps[5] < 0.3 * gaps[0], gaps


def test_steps_are_the_natural_gradient_of_the_closed_form() -> None:
    """Opposite points with random signs are exact where all is quadratic in each dimension."""
    model, x = linear()
    start = super(SemiAmortizedVAE, model).posterior(Batch(x[:2]))
    _, slopes, cost = model.refined(start, Batch(x[:2]), 1.0)
    mean, log_scale = (t.detach().requires_grad_() for t in parameters(start))
    normal = torch.distributions.Normal(mean, log_scale.exp())
    truth = -bound(torch.distributions.Independent(normal, 1), model, x[:2])
    by_hand = torch.autograd.grad(truth.sum(), (mean, log_scale))
    assert torch.allclose(cost, truth.detach(), rtol=1e-6)  # a scale is set in float32
    assert all(torch.allclose(found, wanted, rtol=1e-5) for found, wanted in zip(slopes, by_hand, strict=True))
    model.steps, model.step_size = 1, 1e-3
    moved, (by_mean, by_scale), _ = model.refined(start, Batch(x[:2]), 1.0)
    assert torch.allclose(start.mean - moved.mean, 1e-3 * start.variance * by_mean, rtol=1e-6)
    away = start.base_dist.scale.log() - moved.base_dist.scale.log()
    assert torch.allclose(away, 0.5e-3 * by_scale, rtol=1e-6)


def test_with_no_steps_it_is_the_vae_to_the_last_bit() -> None:
    x = torch.randn(12, 6, generator=torch.Generator().manual_seed(0))
    results = []
    for name, options in (("vae", {}), ("semi-amortized-vae", {"steps": 0})):
        model: Any = fresh(name, rows(x), latent_dim=2, net=NET, **options)
        torch.manual_seed(0)
        terms = model.elbo(Batch(x), Clock())
        terms.loss.backward()
        found = [terms.loss.detach(), *terms.parts.values(), *(p.grad for p in model.parameters())]
        results.append(found)
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))


@pytest.mark.parametrize("likelihood", ["gaussian", "bernoulli"])
def test_through_the_steps_gradients_are_those_of_the_whole(likelihood: str) -> None:
    """Of encoder and decoder, by finite differences of the loss with the same draws, in a random direction."""
    x = torch.rand(5, 1, 4, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    spec = Spec((1, 4, 4), "unit")
    options = {"latent_dim": 2, "net": {**NET, "activation": "tanh"}, "likelihood": likelihood}
    model: Any = registry.build("semi-amortized-vae", spec, steps=3, through=True, **options).double()

    def loss() -> Tensor:
        torch.manual_seed(1)
        found: Tensor = model.elbo(Batch(x), Clock.final()).loss
        return found

    names, params = zip(*model.named_parameters(), strict=True)
    slopes = torch.autograd.grad(loss(), params)
    for part in ("q.", "p."):
        g = torch.Generator().manual_seed(2)
        mine = [name.startswith(part) for name in names]
        directions = [torch.randn(p.shape, generator=g).double() * m for p, m in zip(params, mine, strict=True)]
        expected = sum(float((s * d).sum()) for s, d in zip(slopes, directions, strict=True))
        ends = []
        for step in (1e-5, -1e-5):
            with torch.no_grad():
                for p, d in zip(params, directions, strict=True):
                    p += step * d
            ends.append(float(loss().detach()))
            with torch.no_grad():
                for p, d in zip(params, directions, strict=True):
                    p -= step * d
        assert expected == pytest.approx((ends[0] - ends[1]) / 2e-5, rel=1e-4)


@pytest.mark.parametrize("net", [{"name": "vit", "width": 8, "heads": 2, "depth": 1}, {"name": "resnet", "width": 4}])
def test_every_net_has_second_derivatives(net: dict[str, Any]) -> None:
    spec = Spec((1, 8, 8), "unit")
    model: Any = registry.build("semi-amortized-vae", spec, steps=2, through=True, latent_dim=2, net=net)
    model.elbo(Batch(torch.rand(3, 1, 8, 8)), Clock.final()).loss.backward()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters())


def test_stopped_the_encoder_climbs_its_own_bound() -> None:
    """Its gradient is that of the cost at its output, with the draws of the first step."""
    x = torch.randn(7, 6, generator=torch.Generator().manual_seed(0))
    model: Any = fresh("semi-amortized-vae", rows(x), latent_dim=2, net=NET, pairs=3, through=False)
    torch.manual_seed(1)
    model.elbo(Batch(x), Clock.final()).loss.backward()
    encoder = [p.grad.clone() for p in model.q.parameters()]
    torch.manual_seed(1)
    start = super(SemiAmortizedVAE, model).posterior(Batch(x))
    cost = model.cost(start, model.noise(start.mean, 0), Batch(x), 1.0)
    expected = torch.autograd.grad(cost.mean(), list(model.q.parameters()))
    assert all(torch.allclose(a, b, rtol=1e-4, atol=1e-6) for a, b in zip(encoder, expected, strict=True))


def test_a_finished_vae_is_refined() -> None:
    data = pictures(20)
    vae: Any = fresh("vae", data, latent_dim=2, net=NET).eval()
    model = SemiAmortizedVAE.of(vae, steps=4)
    x = data.train.batch(slice(0, 8)).x
    assert all(torch.equal(v, vae.state_dict()[k]) for k, v in model.state_dict().items())
    with torch.no_grad():
        assert not torch.equal(model.encode(x), vae.encode(x))
        assert torch.equal(model.encode(x), model.encode(x)) and not model.encode(x).requires_grad
        assert torch.equal(SemiAmortizedVAE.of(vae, steps=0).encode(x), vae.encode(x))
    before = copy.deepcopy(vae.state_dict())
    model.encode(x)
    assert all(torch.equal(v, before[k]) for k, v in vae.state_dict().items())
    with pytest.raises(ConfigError, match="can be refined, not this Autoencoder"):
        SemiAmortizedVAE.of(fresh("ae", data, latent_dim=2, net=NET))


def test_missing_values_are_left_out() -> None:
    x = torch.randn(5, 6)
    mask = torch.rand(5, 6, generator=torch.Generator().manual_seed(1)) > 0.3
    model: Any = fresh("semi-amortized-vae", rows(x), latent_dim=2, net=NET).eval()
    one, other = (model.encode(Batch(torch.where(mask, x, junk), mask=mask)) for junk in (0.0, 1e30))
    assert torch.equal(one, other)
    seen = replace(Batch(x), mask=torch.ones_like(mask))
    assert torch.allclose(model.encode(seen), model.encode(x), atol=1e-6)


@pytest.mark.parametrize(
    ("option", "value"), [("steps", -1), ("step_size", 0.0), ("step_size", math.inf), ("pairs", 0)]
)
def test_what_cannot_be_is_refused(option: str, value: float) -> None:
    with pytest.raises(ConfigError, match=f"{option} must be"):
        registry.build("semi-amortized-vae", Spec((6,)), **{option: value})

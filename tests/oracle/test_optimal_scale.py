"""The scale at which a batch is most likely: closed forms, its gradient, what follows it, and missing values."""

from __future__ import annotations

import copy
import math
from typing import Any

import pytest
import torch
from torch import Tensor

from helpers import fresh, rows
from sandglass import registry
from sandglass.core import Batch, Clock, Column, Spec
from sandglass.distributions.location_scale import DECAY
from sandglass.distributions.observed import log_prob
from sandglass.errors import ConfigError
from sandglass.models._modalities import Together

SPEC = Spec((2, 3, 4), "unit")
FAMILIES = ["gaussian", "laplace"]


def likelihood(family: str = "gaussian", learn: str = "optimal", **options: Any) -> Any:
    return registry.resolve("likelihood", {"name": family, "learn": learn, **options}, SPEC).double()


def drawn(n: int = 5, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Outputs of a decoder and values."""
    g = torch.Generator().manual_seed(seed)
    h, x = (torch.randn(n, *SPEC.shape, generator=g, dtype=torch.float64) for _ in range(2))
    return h.requires_grad_(), x


def best(family: str, h: Tensor, x: Tensor) -> float:
    error = (h - x).detach()
    return float(error.square().mean().sqrt() if family == "gaussian" else error.abs().mean())


@pytest.mark.parametrize("family", FAMILIES)
def test_a_batch_is_as_likely_as_at_any_scale(family: str) -> None:
    """And its log likelihood is the closed form: ``-N (log s + log sqrt(2 pi) + 1/2)``, or ``-N (log 2s + 1)``."""
    h, x = drawn()
    s, n = best(family, h, x), x.numel()
    found = float(likelihood(family)(h).log_prob(x).sum().detach())
    form = math.log(s) + 0.5 * math.log(2 * math.pi) + 0.5 if family == "gaussian" else math.log(2 * s) + 1
    assert found == pytest.approx(-n * form, rel=1e-12)
    for factor in (0.5, 0.9, 0.99, 1.01, 1.1, 2.0):
        other = likelihood(family, "none", scale=factor * s)(h).log_prob(x).sum()
        assert float(other.detach()) < found
    same = likelihood(family, "none", scale=s)(h).log_prob(x)
    assert torch.allclose(likelihood(family)(h).log_prob(x), same, rtol=1e-6)  # a scale is set in float32


@pytest.mark.parametrize("family", FAMILIES)
def test_the_gradient_is_that_of_a_fixed_scale(family: str) -> None:
    """At an optimum the derivative by the scale is 0, so how it depends on the decoder does not count."""
    h, x = drawn()
    (own,) = torch.autograd.grad(likelihood(family)(h).log_prob(x).sum(), h)
    fixed = likelihood(family, "none")
    fixed.log_scale.fill_(math.log(best(family, h, x)))
    (other,) = torch.autograd.grad(fixed(h).log_prob(x).sum(), h)
    assert torch.allclose(own, other, rtol=1e-10, atol=1e-12)
    p = likelihood(family)
    assert torch.autograd.gradcheck(lambda h: p(h).log_prob(x), (h,))


@pytest.mark.parametrize("family", FAMILIES)
def test_what_is_reported_has_the_average_of_the_batches(family: str) -> None:
    """Of variances, or mean absolute errors; eval mode has it in log_prob and moves nothing."""
    p, power = likelihood(family), {"gaussian": 2, "laplace": 1}[family]
    average = None
    for seed in range(4):
        h, x = drawn(seed=seed)
        new = best(family, h, x) ** power
        average = new if average is None else DECAY * average + (1 - DECAY) * new
        p(h).log_prob(x)
    assert average is not None and int(p.batches) == 4
    assert float(p.log_scale.exp()) == pytest.approx(average ** (1 / power), rel=1e-12)
    before = {k: v.clone() for k, v in p.state_dict().items()}
    h, x = drawn(seed=9)
    fixed = likelihood(family, "none")
    fixed.log_scale.copy_(p.log_scale)
    assert torch.equal(p.eval()(h).log_prob(x), fixed(h).log_prob(x))
    assert all(torch.equal(v, before[k]) for k, v in p.state_dict().items())
    for mode in (True, False):  # samples are at the average in both
        torch.manual_seed(0)
        draws = p.train(mode)(h).sample((2000,)) - h.detach()
        assert float(draws.abs().pow(power).mean()) == pytest.approx(average, rel=0.05)


def test_missing_values_do_not_count() -> None:
    h, x = drawn()
    mask = torch.rand(x.shape, generator=torch.Generator().manual_seed(1)) > 0.4
    junk = torch.where(mask, x, 1e30)
    p = likelihood()
    found = log_prob(p(h), junk, mask)
    s = float((h - x).detach()[mask].square().mean().sqrt())
    fixed = likelihood(learn="none")
    fixed.log_scale.fill_(math.log(s))
    assert torch.allclose(found, log_prob(fixed(h), x, mask), rtol=1e-12)
    assert float(p.log_scale.exp()) == pytest.approx(s, rel=1e-12)
    (slope,) = torch.autograd.grad(found.sum(), h)
    assert torch.isfinite(slope).all() and (slope[~mask] == 0).all()


def test_of_nothing_the_scale_stays() -> None:
    h, x = drawn()
    p = likelihood()
    p(h).log_prob(x)
    before = float(p.log_scale)
    found = log_prob(p(h), x, torch.zeros_like(x, dtype=torch.bool))
    assert (found == 0).all() and float(p.log_scale) == pytest.approx(before, abs=1e-12)


def test_modalities_know_what_is_missing_of_each() -> None:
    h, x = drawn()
    mask = torch.rand(x.shape, generator=torch.Generator().manual_seed(1)) > 0.4
    p, other = likelihood(), registry.resolve("likelihood", "bernoulli", Spec((1,), "binary"))
    parts = [p(h), other(torch.zeros(5, 1).double())]
    both = torch.distributions.Independent(Together(parts), 1)
    value = torch.cat([torch.where(mask, x, 0.0).flatten(1), torch.ones(5, 1)], 1)
    observed = torch.cat([mask.flatten(1), torch.ones(5, 1, dtype=torch.bool)], 1)
    expected = log_prob(likelihood()(h), x, mask) - math.log(2)
    assert torch.allclose(log_prob(both, value, observed), expected, rtol=1e-12)


def test_perfect_predictions_stay_finite() -> None:
    h, _ = drawn()
    for family in FAMILIES:
        p = likelihood(family)
        found = p(h).log_prob(h.detach()).sum()
        (slope,) = torch.autograd.grad(found, h)
        assert torch.isfinite(found) and torch.isfinite(slope).all()
        assert float(p.log_scale) == pytest.approx(-10)


def test_a_density_without_a_closed_form_refuses() -> None:
    with pytest.raises(ConfigError, match="learn of Huber must be one of none, shared, pixel, not 'optimal'"):
        registry.resolve("likelihood", {"name": "huber", "learn": "optimal"}, SPEC)


def test_the_model_is_the_vae_at_the_scale_of_its_batch() -> None:
    """Its loss and gradients are those of a VAE whose scale is fixed at the error of the same draws."""
    x = torch.randn(30, 4, generator=torch.Generator().manual_seed(0))
    net = {"name": "mlp", "widths": [8]}
    own = fresh("sigma-vae", rows(x), latent_dim=2, net=net)
    plain = fresh("vae", rows(x), latent_dim=2, net=net, likelihood={"name": "gaussian", "learn": "none"})
    losses, slopes = [], []
    for model in (own, plain):
        torch.manual_seed(0)
        loss = model.elbo(Batch(x), Clock.final()).loss
        loss.backward()
        losses.append(float(loss.detach()))
        slopes.append(torch.cat([p.grad.flatten() for p in model.parameters()]))
        plain.p.likelihood.log_scale.copy_(own.p.likelihood.log_scale)
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)
    assert torch.allclose(*slopes, rtol=1e-3, atol=1e-5)


def test_columns_of_a_table_have_one_scale() -> None:
    spec = Spec((3,), columns=tuple(Column(name) for name in "abc"))
    p = registry.resolve("likelihood", "optimal-gaussian", spec)
    assert copy.deepcopy(p)(torch.zeros(4, 3)).log_prob(torch.ones(4, 3)).shape == (4,)
    assert dict(p.state_dict()).keys() == {"log_scale", "batches"}

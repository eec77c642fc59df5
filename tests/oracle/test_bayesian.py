"""The decoder's weights with a posterior: its KL, draws and predictive density against closed forms and Monte Carlo."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import nn
from torch.distributions import Independent, Normal, kl_divergence

from helpers import fresh, rows
from sandglass import rng
from sandglass.core import Batch, Clock
from sandglass.errors import ConfigError
from sandglass.models.bayesian_vae import WeightPosterior

NET = {"name": "mlp", "widths": [8]}


def model(**options: Any) -> Any:
    with rng.forked("cpu", 1):
        x = torch.randn(20, 4)
    return fresh("bayesian-vae", rows(x), latent_dim=2, net=NET, **options).double(), x.double()


def test_the_kl_is_that_of_normals_at_the_best_prior_scale() -> None:
    """Equal to PyTorch's at s^2 = mean(mean^2 + scale^2), and below it at others; 0 for equal normals of mean 0."""
    line = nn.Linear(3, 2).double()
    weights = WeightPosterior(line, 0.1)
    weights.log_scales[0].data += torch.randn(2, 3).double()

    def kl(change: float) -> torch.Tensor:
        found = []
        for mean, log_scale in zip(line.parameters(), weights.log_scales, strict=True):
            best = (mean.square() + (2 * log_scale).exp()).mean().sqrt()
            q, p = Normal(mean, log_scale.exp()), Normal(torch.zeros_like(mean), change * best)
            found.append(kl_divergence(q, p).sum())
        return torch.stack(found).sum()

    assert torch.allclose(weights.kl(), kl(1.0), rtol=1e-12)
    assert weights.kl() < min(kl(0.9), kl(1.1))
    for p in line.parameters():
        p.data.zero_()
    weights.log_scales[0].data.fill_(-1)
    assert weights.kl().abs() < 1e-12


def test_draws_have_the_means_and_scales() -> None:
    """Within 5 standard errors of 4,000 draws."""
    line = nn.Linear(2, 2).double()
    weights = WeightPosterior(line, 0.3)
    with torch.no_grad(), rng.forked("cpu", 0):
        drawn = torch.stack([weights.sample()["weight"] for _ in range(4000)])
    assert torch.all((drawn.mean(0) - line.weight).abs() < 5 * 0.3 / 4000**0.5)
    assert torch.all((drawn.std(0) - 0.3).abs() < 5 * 0.3 / 8000**0.5)


def test_without_spread_of_the_weights_the_bounds_are_the_vae_s_and_the_kl_is_shared_by_all_examples() -> None:
    wide, x = model()
    for log_scale in wide.weights.log_scales:
        log_scale.data.fill_(-60)
    plain = fresh("vae", rows(x.float()), latent_dim=2, net=NET).double()
    plain.load_state_dict({k: v for k, v in wide.state_dict().items() if k in plain.state_dict()})
    for found in (lambda m: m.log_prob(x, 1), lambda m: m.score(Batch(x))):
        both = []
        for m in (wide, plain):
            with rng.forked("cpu", 3), torch.no_grad():
                noise = torch.randn(1, 20, 2).double()
                m.posterior = lambda batch, m=m, noise=noise: _Fixed(type(m).posterior(m, batch), noise)
                both.append(found(m))
        assert torch.allclose(*both, atol=1e-9)
    wide, x = model()
    wide.count(lambda: [Batch(x[:7]), Batch(x[7:])], None)
    terms = wide.elbo(Batch(x), Clock.final())
    assert torch.allclose(terms.parts["weights"], (wide.weights.kl() / 20).expand(20))
    assert torch.allclose(terms.loss, sum(part.mean() for part in terms.parts.values()))


class _Fixed(Independent):
    """A normal whose draws use this noise."""

    def __init__(self, q: Any, noise: torch.Tensor) -> None:
        super().__init__(q.base_dist, 1, validate_args=False)
        self.noise = noise

    def rsample(self, sample_shape: Any = ()) -> torch.Tensor:
        z = self.base_dist.loc + self.base_dist.scale * self.noise
        return z if len(sample_shape) else z[0]


def test_the_bound_on_the_predictive_density_rises_with_draws_of_codes_and_weights() -> None:
    """Up to the logarithm of the mean over weights and codes, both drawn from their own distributions, in nats."""
    wide, x = model(weight_scale=0.3)
    with torch.no_grad(), rng.forked("cpu", 5):
        bound = torch.stack([wide.bound(Batch(x)).elbo for _ in range(200)]).mean()
        some = torch.stack([wide.log_prob(x, 10) for _ in range(40)]).mean()
        wide.weight_draws = 2000
        many = float(wide.log_prob(x, 20_000).mean())
        each = []  # of 2,000 draws of the weights, with codes from the prior
        for _ in range(2000):
            p = wide.decoder()(torch.randn(100, 2).double())
            each.append(p.base_dist.log_prob(x[:, None]).sum(-1).logsumexp(1) - math.log(100))
        truth = float((torch.stack(each).logsumexp(0) - math.log(2000)).mean())
    assert bound < some < many
    assert many == pytest.approx(truth, abs=0.05)


def test_the_gradient_of_the_objective_is_that_of_differences() -> None:
    """By every mean and scale, at fixed noise; the step is 1e-6 in double precision."""
    wide, x = model(beta_schedule="constant")
    wide.count(lambda: [Batch(x)], None)

    def loss() -> torch.Tensor:
        with rng.forked("cpu", 7):
            return wide.elbo(Batch(x), Clock.final()).loss

    parameters = [*wide.p.parameters(), *wide.weights.parameters()]
    slopes = torch.autograd.grad(loss(), parameters)
    for p, slope in zip(parameters, slopes, strict=True):
        place = slope.abs().argmax()
        with torch.no_grad():
            sides = []
            for step in (1e-6, -1e-6):
                p.view(-1)[place] += step
                sides.append(loss())
                p.view(-1)[place] -= step
        assert (sides[0] - sides[1]) / 2e-6 == pytest.approx(float(slope.flatten()[place]), rel=1e-4, abs=1e-7)


def test_options_that_mean_nothing_are_refused() -> None:
    for options in ({"weight_scale": 0.0}, {"weight_scale": float("inf")}, {"weight_draws": 0}):
        with pytest.raises(ConfigError, match=next(iter(options))):
            fresh("bayesian-vae", rows(torch.randn(20, 4)), **options)

"""Categorical latents against sums over all codes, and relaxed draws against the categories they stand for."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch import Tensor, nn

from sandglass import registry, rng
from sandglass.core import Batch, Clock, Model, Spec
from sandglass.errors import ConfigError
from sandglass.models.categorical_vae import CategoricalVAE
from sandglass.schedules.schedule import Schedule

DRAWS = 20_000


class Dip(Schedule):
    """1 but for 0 after an epoch."""

    final = 1.0

    def at(self, t: Tensor) -> Tensor:
        return (t != 1).float()


def tiny(**options: object) -> Model:
    """Three latents of four categories over binary rows, with weights that make codes differ."""
    with rng.forked("cpu", 0, "weights"):
        small = {"latent_dim": 3, "categories": 4, "net": "linear", "likelihood": "bernoulli"}
        model = registry.build("categorical-vae", Spec((5,), "binary"), **small, **options).double().eval()
        for p in model.parameters():
            nn.init.normal_(p, std=0.6)
    return model


X = torch.tensor([[0.0, 1, 1, 0, 1], [1, 0, 0, 0, 1]]).double()
CODES = torch.tensor(list(itertools.product(range(4), repeat=3)))


@torch.no_grad()
def joint(model: Model) -> tuple[Tensor, Tensor]:
    """``(2, 64)`` log p(x, z) and log q(z|x) of every code."""
    log_x = torch.stack([model.observation(CODES, None).log_prob(row.expand(64, -1)) for row in X])
    log_q = model.logits(Batch(X)).log_softmax(-1)
    return log_x - 3 * math.log(4), sum(log_q[:, n, CODES[:, n]] for n in range(3))


def test_bounds_are_those_of_the_sum_over_all_codes() -> None:
    """``log p(x) = ELBO + KL(q || p(z|x))`` exactly; the drawn bound has that mean within 4 standard errors.

    With importance weights it lies between the two, and at 20,000 draws within 5 standard errors of log p(x), by the
    variance of the weights in closed form.
    """
    model = tiny()
    log_pxz, log_q = joint(model)
    evidence, q = log_pxz.logsumexp(1), log_q.exp()
    elbo = (q * (log_pxz - log_q)).sum(1)
    gap = (q * (log_q - (log_pxz - evidence[:, None]))).sum(1)
    assert torch.allclose(q.sum(1), torch.ones(2).double()) and torch.allclose(elbo + gap, evidence, atol=1e-12)
    assert float(gap.min()) > 0.1, "the posterior is exact: this shows little"
    rates = (q * (log_q + 3 * math.log(4))).sum(1)
    with torch.no_grad(), rng.forked("cpu", 1):
        many = model.bound(Batch(X.repeat(DRAWS, 1)))
        drawn = many.elbo.view(DRAWS, 2)
        error = drawn.std(0) / math.sqrt(DRAWS)
        some, all_of_it = model.log_prob(Batch(X.repeat(500, 1)), 10).view(500, 2).mean(0), model.log_prob(X, DRAWS)
    assert torch.allclose(many.rate.view(DRAWS, 2)[0], rates, atol=1e-12)
    assert ((drawn.mean(0) - elbo).abs() < 4 * error).all()
    assert ((some > elbo) & (some < evidence)).all()
    spread = ((2 * log_pxz - log_q).logsumexp(1) - 2 * evidence).expm1().sqrt()  # of a weight over p(x)
    assert float(spread.max()) < 20 and ((all_of_it - evidence).abs() < 5 * spread / math.sqrt(DRAWS)).all()


def test_relaxed_draws_are_near_the_categories_they_stand_for() -> None:
    """The largest entry is category i with probability q_i, whatever the temperature (within 4 standard errors)."""
    model = tiny(temperature=0.5, temperature_schedule={"name": "linear", "start": 2.0, "epochs": 10})
    logits = model.logits(Batch(X))[:1].detach()
    p = logits.softmax(-1)[0]
    heights = []
    for clock in (Clock(epoch=torch.tensor(0.0)), Clock.final()):
        with rng.forked("cpu", 2):
            z = model.relaxed(logits.expand(DRAWS, -1, -1), clock)
        assert torch.allclose(z.sum(-1), torch.ones(DRAWS, 3).double())
        share = model.units(z.argmax(-1)).double().mean(0)
        assert ((share - p).abs() < 4 * (p * (1 - p) / DRAWS).sqrt() + 1e-9).all()
        heights.append(float(z.amax(-1).mean()))
    assert heights[1] > heights[0] + 0.1, "a lower temperature comes nearer to categories"


def test_straight_through_reads_categories_and_has_the_gradient_of_the_relaxed_draw() -> None:
    found = []
    for hard in (False, True):
        model = tiny(straight_through=hard)
        logits = model.logits(Batch(X)).detach().requires_grad_()
        with rng.forked("cpu", 3):
            z = model.relaxed(logits, Clock())
        (z * torch.arange(4.0).double()).sum().backward()
        found.append((z.detach(), logits.grad))
    assert torch.allclose(found[1][0], model.units(found[0][0].argmax(-1)).double(), atol=1e-12)
    assert torch.allclose(found[0][1], found[1][1], atol=1e-12) and float(found[0][1].abs().max()) > 0.01


def test_the_temperature_that_is_logged_is_that_of_the_draws() -> None:
    model = CategoricalVAE(Spec((5,)), temperature_schedule=Dip())
    logged = model.elbo(Batch(torch.zeros(2, 5)), Clock(epoch=torch.tensor(1.0))).scalars["temperature"]
    assert float(logged) == pytest.approx(0.01)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"temperature": 0.0}, "0.01 or more"),
        ({"temperature": 0.005}, "0.01 or more"),
        ({"temperature_schedule": "linear"}, "0.01 or more"),
        ({"temperature_schedule": {"name": "linear", "start": 1, "end": 0.01}}, "0.01 or more"),
        ({"categories": 1}, "2 categories"),
    ],
)
def test_options_that_make_no_sense_are_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        registry.build("categorical-vae", Spec((5,)), **options)

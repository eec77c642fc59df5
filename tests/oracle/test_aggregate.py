"""Mutual information and the aggregate posterior against closed forms and quadrature."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torch.distributions import Beta, Independent, Laplace, MultivariateNormal, Normal, kl_divergence

from sandglass import registry
from sandglass.core import Model, Spec
from sandglass.data.dataset import Split
from sandglass.errors import ConfigError
from sandglass.metrics import aggregate
from sandglass.metrics.aggregate import aggregate_log_prob, pairwise_log_prob
from sandglass.metrics.measure import measure
from sandglass.runs.result import Result

LINEAR = torch.tensor([[0.8, 0.3, 0.0], [-0.2, 0.6, 0.5]]).double()
SCALE = torch.tensor([0.7, 0.9]).double()


def linear(a: Tensor = LINEAR, scale: Tensor = SCALE, mean: float = 0.0) -> Model:
    """A VAE in float64 whose q(z|x) is normal around ``a x + mean``."""
    model = registry.build("vae", Spec((a.shape[1],)), net="linear", latent_dim=len(a)).double()
    with torch.no_grad():
        layer = model.q.trunk.module[1]
        layer.weight.copy_(torch.cat([a, torch.zeros_like(a)]))
        layer.bias.copy_(torch.cat([torch.full((len(a),), mean).double(), 2 * scale.log()]))
    return model


def figures(model: Model, x: Tensor, **options: int) -> dict[str, Result]:
    return {r.name: r for r in measure(model, Split(x), names=["aggregate"], aggregate=options)}


def test_of_normal_data_both_are_the_closed_form() -> None:
    """x ~ N(0, S): q(z) = N(m, A S A' + D). Each |z| < 5: a false alarm in 10^6; half a draw's bias would be z = 20."""
    root = torch.tensor([[1.0, 0.0, 0.0], [0.5, 1.0, 0.0], [0.0, -0.4, 0.8]]).double()
    x = torch.randn(6000, 3, generator=torch.Generator().manual_seed(0)).double() @ root.T
    spread = LINEAR @ root @ root.T @ LINEAR.T + SCALE.square().diag()
    q = MultivariateNormal(torch.full((2,), 0.4).double(), spread)
    p = MultivariateNormal(torch.zeros(2).double(), torch.eye(2).double())
    information = 0.5 * (torch.logdet(spread) - SCALE.square().log().sum())
    found = figures(linear(mean=0.4), x)
    for name, exact in (("mutual_information", information), ("marginal_kl", kl_divergence(q, p))):
        assert abs(found[name].value - float(exact)) < 5 * float(found[name].stderr or 0), name
        assert 0.001 < float(found[name].stderr or 0) < 0.03 and found[name].unit == "nats"
    assert float(information) > 0.5 and float(kl_divergence(q, p)) > 0.05


def test_of_a_few_points_both_are_the_integrals() -> None:
    """Two codes, each of many examples: q(z) is a mixture of two normals, integrated on a grid."""
    x = torch.tensor([[-1.0], [1.0], [1.0], [1.0]]).double().repeat(2000, 1)
    model = linear(torch.tensor([[1.5]]).double(), torch.tensor([0.6]).double())
    z = torch.linspace(-12, 12, 20_001).double()
    parts = [Normal(m, 0.6).log_prob(z) for m in (-1.5, 1.5)]
    density = 0.25 * parts[0].exp() + 0.75 * parts[1].exp()
    entropy = 0.5 * math.log(2 * math.pi * math.e * 0.36)
    information = float(-torch.trapezoid(density * density.log(), z)) - entropy
    marginal = float(torch.trapezoid(density * (density.log() - Normal(0, 1).log_prob(z)), z))
    found = figures(model, x)
    assert abs(found["mutual_information"].value - information) < 5 * float(found["mutual_information"].stderr or 0)
    assert abs(found["marginal_kl"].value - marginal) < 5 * float(found["marginal_kl"].stderr or 0)
    assert 0.4 < information < math.log(2) and float(found["mutual_information"].stderr or 1) < 0.01


@torch.no_grad()
def test_together_they_are_the_rate() -> None:
    x = torch.randn(3000, 3, generator=torch.Generator().manual_seed(1)).double()
    model = linear(mean=0.5)
    found = figures(model, x)
    rates = model.bound(x).rate
    together = found["mutual_information"].value + found["marginal_kl"].value
    draws = aggregate.draw(model, evaluation(x))
    error = float((draws.posterior - draws.prior).std()) / 3000**0.5
    assert abs(together - float(rates.mean())) < 5 * error < 0.2


def evaluation(x: Tensor) -> aggregate.Evaluation:
    return aggregate.Evaluation(split=Split(x), spec=Spec(tuple(x.shape[1:])))


@torch.no_grad()
def test_the_two_are_their_definition() -> None:
    """Of the very draws: the mean of log q(z|x) - log q(z) and of log q(z) - log p(z), q(z) summed by hand."""
    x = torch.randn(700, 3, generator=torch.Generator().manual_seed(1)).double()  # two batches
    model, own = linear(mean=0.5), evaluation(x)
    shuffled = replace(own, split=aggregate.at_random(own, 700))
    draws, q = aggregate.draw(model, shuffled), model.posterior(x)
    mixture = torch.stack([q.log_prob(z).logsumexp(0) for z in draws.z]) - math.log(700)
    assert torch.allclose(aggregate_log_prob(model, shuffled.split, draws.z), mixture, rtol=1e-12)
    found = figures(model, x)
    assert found["mutual_information"].value == pytest.approx(float((draws.posterior - mixture).mean()), rel=1e-9)
    assert found["marginal_kl"].value == pytest.approx(float((mixture - draws.prior).mean()), rel=1e-9)


@pytest.mark.parametrize("pairs", [1, 7, 2**18])
def test_pieces_change_nothing(pairs: int, monkeypatch: pytest.MonkeyPatch) -> None:
    x = torch.randn(40, 3, generator=torch.Generator().manual_seed(1)).double()
    expected = figures(linear(), x)
    monkeypatch.setattr(aggregate, "_PAIRS", pairs)
    for name, result in figures(linear(), x).items():
        assert result.value == pytest.approx(expected[name].value, rel=1e-12)


def test_pairs_are_those_of_the_distribution() -> None:
    generator = torch.Generator().manual_seed(0)
    mean, z = (torch.randn(n, 4, generator=generator).double() + 1000 for n in (9, 5))
    scale = torch.logspace(-4, 2, 36).view(9, 4).double()
    normal = Independent(Normal(mean, scale), 1)
    assert torch.allclose(pairwise_log_prob(normal, z), normal.log_prob(z[:, None]), rtol=1e-9)
    for other in (Independent(Laplace(mean, scale), 1), MultivariateNormal(mean, torch.diag_embed(scale))):
        assert torch.equal(pairwise_log_prob(other, z), other.log_prob(z[:, None]))
    beta = Independent(Beta(torch.rand(9, 2) + 1, torch.rand(9, 2) + 1), 1)
    found = pairwise_log_prob(beta, torch.rand(5, 2).double())
    assert found.shape == (5, 9) and found.dtype == torch.float64


def test_a_collapsed_code_says_nothing_and_a_sharp_one_all_that_n_allows() -> None:
    x = torch.randn(200, 3, generator=torch.Generator().manual_seed(0)).double()
    dead = figures(linear(0 * LINEAR, torch.ones(2).double()), x)
    assert dead["mutual_information"].value == pytest.approx(0, abs=1e-9)
    assert dead["marginal_kl"].value == pytest.approx(0, abs=1e-9)
    sharp = figures(linear(LINEAR, torch.full((2,), 1e-6).double()), x)
    assert sharp["mutual_information"].value == pytest.approx(math.log(200), abs=1e-7)  # rounding, by processor
    assert "close to" in sharp["mutual_information"].note and "overestimated" in sharp["marginal_kl"].note
    assert "close to" not in dead["mutual_information"].note and not dead["marginal_kl"].note


def test_of_many_examples_some_are_taken() -> None:
    x = torch.randn(300, 3, generator=torch.Generator().manual_seed(0)).double()
    assert [r.n for r in figures(linear(), x, examples=50).values()] == [50, 50]
    assert "log N = 3.91" in figures(linear(), x, examples=50)["mutual_information"].note
    assert figures(linear(), x[:1])["mutual_information"].value == pytest.approx(0, abs=1e-12)
    with pytest.raises(ConfigError, match="at least 2"):
        figures(linear(), x, examples=1)

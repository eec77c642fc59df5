"""The bound against closed forms: a linear-Gaussian model has an exact posterior and an exact likelihood."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.distributions import Independent, MultivariateNormal, Normal, kl_divergence

from helpers import fit, fresh, rows
from sandglass import registry
from sandglass.core import Batch, Clock, Spec
from sandglass.data.dataset import Split
from sandglass.distributions.rate import rate
from sandglass.metrics.measure import measure
from sandglass.models.vae import VAE


def linear_gaussian(seed: int = 0) -> tuple[VAE, Tensor]:
    """A linear VAE in float64 (3 numbers, 2 latents, unit scale) and 8 examples."""
    torch.manual_seed(seed)
    options = {"net": "linear", "likelihood": {"name": "gaussian", "learn": "none"}, "latent_dim": 2}
    model = registry.build("vae", Spec((3,)), **options).double()
    return model, torch.randn(8, 3).double()


def exact(model: VAE, x: Tensor) -> Tensor:
    """log p(x) of a linear-Gaussian model in closed form."""
    layer = model.p.trunk.module[0]
    w, b = layer.weight.detach(), layer.bias.detach()
    scale = model.p.likelihood.log_scale.detach().exp()
    return MultivariateNormal(b, w @ w.T + scale**2 * torch.eye(len(b)).to(w)).log_prob(x)


def test_with_the_exact_posterior_one_draw_is_the_evidence() -> None:
    model, x = linear_gaussian()
    decoder, encoder = model.p.trunk.module[0], model.q.trunk.module[1]
    w = torch.tensor([2.0, 0.5]).double()
    with torch.no_grad():
        decoder.weight.copy_(torch.tensor([[2.0, 0.0], [0.0, 0.5], [0.0, 0.0]]))
        decoder.bias.zero_()
        encoder.weight.zero_()
        encoder.weight[0, 0], encoder.weight[1, 1] = w / (1 + w**2)
        encoder.bias.copy_(torch.cat([torch.zeros(2).double(), -torch.log1p(w**2)]))
        for k in (1, 1, 1, 7):
            assert torch.allclose(model.log_prob(x, k), exact(model, x), atol=1e-10, rtol=0)


def test_bounds_rise_with_k_and_stay_under_the_evidence() -> None:
    model, x = linear_gaussian()
    with torch.no_grad():
        draws = {k: torch.stack([model.log_prob(x, k) for _ in range(500)]) for k in (1, 8, 64)}
    for values in draws.values():
        standard_error = values.std(0) / math.sqrt(500)
        assert (values.mean(0) < exact(model, x) + 5 * standard_error).all()
    means = [float(values.mean()) for values in draws.values()]
    assert means[0] < means[1] < means[2] < float(exact(model, x).mean()) + 1e-3


def test_the_closed_form_rate_agrees_with_draws() -> None:
    # 20 pairs, each |z| < 5: a chance of about 1e-5 to fail with nothing wrong; a wrong sign gives z over 100.
    generator = torch.Generator().manual_seed(0)
    for _ in range(20):
        mean, log_scale = torch.randn(2, 4, generator=generator, dtype=torch.float64)
        q = Independent(Normal(mean[None], (0.5 * log_scale).exp()[None]), 1)
        p = Independent(Normal(torch.zeros(4).double(), torch.ones(4).double()), 1)
        torch.manual_seed(0)
        z = q.sample((50_000,))
        draws = (q.log_prob(z) - p.log_prob(z)).squeeze(1)
        score = (draws.mean() - rate(q, p, z[0])[0]) / (draws.std() / math.sqrt(len(draws)))
        assert abs(float(score)) < 5
        by_hand = 0.5 * (mean**2 + log_scale.exp() - 1 - log_scale).sum()
        assert float(rate(q, p, z[0])) == pytest.approx(float(by_hand), abs=1e-12)


def test_without_a_closed_form_the_rate_is_drawn() -> None:
    mixture = torch.distributions.MixtureSameFamily(
        torch.distributions.Categorical(torch.ones(1)), Independent(Normal(torch.zeros(1, 2), torch.ones(1, 2)), 1)
    )
    q = Independent(Normal(torch.ones(3, 2), torch.ones(3, 2)), 1)
    z = q.sample()
    assert torch.allclose(rate(q, mixture, z), q.log_prob(z) - mixture.log_prob(z))


@pytest.mark.parametrize("name", ["vae", "beta-vae"])
def test_the_objective_trained_is_the_bound_reported(name: str) -> None:
    torch.manual_seed(0)
    model = registry.build(name, Spec((6,)), net="mlp", latent_dim=3)
    x = torch.randn(16, 6)
    torch.manual_seed(3)
    terms = model.elbo(Batch(x), Clock.final())
    torch.manual_seed(3)
    bound = model.bound(x)
    assert torch.equal(terms.loss, (bound.distortion + model.penalty.beta.value * bound.rate).mean())
    # ... and what evaluation reports is minus the sum of the same two parts.
    results = {r.name: r.value for r in measure(model, Split(x), names=["bound"])}
    assert results["elbo"] == pytest.approx(-(results["rate"] + results["distortion"]), abs=1e-9)


def test_several_latents_and_distortions_have_their_means_in_the_notes() -> None:
    spec = Spec((6,), classes=3)
    x, y = torch.randn(40, 6), torch.arange(40) % 3
    for name, of in (("ladder-vae", "rate"), ("joint-vae", "distortion")):
        model = registry.build(name, spec, net={"name": "mlp", "widths": [8]})
        results = {r.name: r for r in measure(model, Split(x, y), names=["bound"])}
        parts = [part.rsplit(" ", 1) for part in results[of].note.split(", ")]
        assert [part[0] for part in parts] == (["z1", "z2"] if of == "rate" else ["x", "labels"])
        assert sum(float(part[1]) for part in parts) == pytest.approx(results[of].value, rel=1e-3)
        assert results["elbo"].value == pytest.approx(-(results["rate"].value + results["distortion"].value), abs=1e-9)
    plain = measure(registry.build("vae", spec), Split(x, y), names=["rate", "distortion"])
    assert [r.note for r in plain] == ["", ""]


def test_one_draw_of_log_prob_is_the_bound_in_expectation() -> None:
    model, x = linear_gaussian()
    with torch.no_grad():
        one = torch.stack([model.log_prob(x, 1).mean() for _ in range(4000)])
        bound = torch.stack([model.bound(x).elbo.mean() for _ in range(4000)])
    score = (one.mean() - bound.mean()) / torch.sqrt((one.var() + bound.var()) / 4000)
    assert abs(float(score)) < 5


@pytest.mark.parametrize("seed", [0, 1, *(pytest.param(seed, marks=pytest.mark.slow) for seed in (2, 3, 4))])
def test_a_trained_linear_vae_reaches_probabilistic_pca(seed: int) -> None:
    """Lucas et al. 2019, "Don't Blame the ELBO!" (arXiv 1911.02469): the linear VAE's optimum is pPCA's."""
    from sklearn.decomposition import PCA

    generator = torch.Generator().manual_seed(seed)
    axes = torch.linalg.qr(torch.randn(10, 3, generator=generator))[0].T
    signal = torch.randn(400, 3, generator=generator) @ (axes * torch.tensor([[3.0], [2.0], [1.4]]))
    x = signal + 0.5 * torch.randn(400, 10, generator=generator)
    x = x - x.mean(0)
    model = fresh("vae", rows(x), seed, net="linear", latent_dim=3)
    fit(model, rows(x), epochs=1200, batch_size=200, lr=0.05, schedule="cosine", seed=seed)
    model = model.double()
    best = PCA(3).fit(x.numpy()).score(x.numpy())
    assert best - 0.02 < linear_bound(model, x.double()) <= float(exact(model, x.double()).mean()) <= best + 1e-6


def linear_bound(model: VAE, x: Tensor) -> float:
    """The bound of a linear VAE with its expectation in closed form, in nats an example."""
    q, layer = model.posterior(x).base_dist, model.p.trunk.module[0]
    variance = model.p.likelihood.log_scale.exp() ** 2
    squares = (x - q.mean @ layer.weight.T - layer.bias).square().sum(1)
    squares = squares + (q.variance * layer.weight.square().sum(0)).sum(1)
    distortion = squares / (2 * variance) + x.shape[1] / 2 * torch.log(2 * torch.pi * variance)
    return float(-(distortion + model.bound(x).rate).mean().detach())


def test_the_linear_autoencoder_leaves_the_discarded_eigenvalues() -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(300, 8, generator=generator) @ torch.randn(8, 8, generator=generator)
    x = (x - x.mean(0)) / x.std()
    model = registry.build(
        "ae", Spec((8,)), net="linear", latent_dim=3, likelihood={"name": "gaussian", "learn": "none"}
    )
    fit(model, rows(x), epochs=1500, batch_size=300, lr=0.02, schedule="cosine")
    with torch.no_grad():
        error = float((model.reconstruct(x) - x).square().sum(1).mean())
    discarded = float(np.linalg.eigvalsh(np.cov(x.numpy().T, bias=True))[:-3].sum())
    assert discarded <= error + 1e-4
    assert error == pytest.approx(discarded, rel=1e-3)


def test_kl_of_a_torch_pair_is_used_where_there_is_one() -> None:
    q = Independent(Normal(torch.ones(3, 2), torch.ones(3, 2) * 0.5), 1)
    p = Independent(Normal(torch.zeros(2), torch.ones(2)), 1)
    assert torch.equal(rate(q, p, q.sample()), kl_divergence(q, p))

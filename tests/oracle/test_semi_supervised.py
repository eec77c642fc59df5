"""M2 and M1+M2 against models whose density is a mixture of Gaussians, classes summed over in closed form."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torch.distributions import Categorical, Independent, MultivariateNormal, Normal, kl_divergence

from helpers import fresh, rows
from sandglass import rng
from sandglass.core import Batch, Clock, Spec
from sandglass.data.dataset import Split
from sandglass.distributions.by_class import ByClass
from sandglass.metrics.measure import measure
from sandglass.models.m1_m2 import M1M2
from sandglass.models.m2 import M2

D, K, SCALE = 3, 4, 0.7
GAUSSIAN = {"name": "gaussian", "learn": "none", "scale": SCALE}


def linear() -> tuple[M2, Tensor, Tensor]:
    """One latent and linear maps, the posterior of z set to the exact one; means and covariance of x by class."""
    with rng.forked("cpu", 1):
        spec = Spec((D,), classes=K)
        model = M2(spec, latent_dim=1, net="linear", likelihood=GAUSSIAN, alpha=2.0).double()
        for p in model.parameters():
            p.data = 0.5 * torch.randn_like(p)
    b = exact(model, SCALE**2)
    a = maps(model)[0].weight.data[:, :1]
    return model, b, a @ a.T + SCALE**2 * torch.eye(D, dtype=torch.float64)


def maps(model: M2) -> list[torch.nn.Linear]:
    """Its decoder and its encoder, which are linear."""
    return [next(m for m in net.modules() if isinstance(m, torch.nn.Linear)) for net in (model.vae.p, model.vae.q)]


def exact(model: M2, noise: float) -> Tensor:
    """Sets q(z|x, y) of one latent to the posterior, given the variance of x about its mean; the means by class."""
    decoder, encoder = maps(model)
    a, b = decoder.weight.data[:, :1], decoder.weight.data[:, 1:].T + decoder.bias.data  # z first, then the class
    variance, dim = 1 / (1 + float(a.square().sum()) / noise), len(a)
    encoder.weight.data.zero_()
    encoder.weight.data[0, :dim] = variance * a[:, 0] / noise
    encoder.weight.data[0, dim:] = -variance * (b @ a)[:, 0] / noise
    encoder.bias.data = torch.tensor([0.0, math.log(variance)]).to(encoder.bias)
    return b


def batch(n: int = 6) -> Batch:
    """Random rows, every other one with a label."""
    with rng.forked("cpu", 2):
        x = 1.5 * torch.randn(n, D, dtype=torch.float64)
    y = torch.arange(n) % K
    return Batch(x, torch.where(y % 2 == 0, y, -1))


def test_classes_are_summed_over_exactly() -> None:
    """log p(x), and log p(x, y) with a label, from a single draw: with the exact posterior no draw has an error."""
    model, means, covariance = linear()
    data = batch()
    assert data.y is not None
    joint = MultivariateNormal(means, covariance).log_prob(data.x[:, None]) - math.log(K)
    exact = torch.where(data.y >= 0, joint.gather(1, data.y.clamp(min=0)[:, None])[:, 0], joint.logsumexp(1))
    assert torch.allclose(model.log_prob(data), exact, atol=1e-9)
    assert torch.allclose(model.log_prob(replace(data, y=None), 3), joint.logsumexp(1), atol=1e-9)


def test_the_bound_is_short_of_the_density_by_the_divergence_of_the_classes() -> None:
    """Unlabelled, by KL(q(y|x) || p(y|x)); labelled, not at all. Within five standard errors of 20,000 draws."""
    model, means, covariance = linear()
    data, n = batch(), 20_000
    assert data.y is not None
    many = data.map(lambda t: t.repeat_interleave(n, 0))
    with rng.forked("cpu", 3), torch.no_grad():
        found = model.bound(many).elbo.view(-1, n)
    joint = MultivariateNormal(means, covariance).log_prob(data.x[:, None]) - math.log(K)
    truth, own = Categorical(logits=joint), Categorical(logits=model.classify(data).log())
    unlabelled = joint.logsumexp(1) - kl_divergence(own, truth)
    exact = torch.where(data.y >= 0, joint.gather(1, data.y.clamp(min=0)[:, None])[:, 0], unlabelled)
    assert bool((unlabelled < joint.logsumexp(1)).all())
    assert bool(((found.mean(1) - exact).abs() < 5 * found.std(1) / math.sqrt(n)).all())


def test_the_objective_is_the_bound_and_the_classification_of_what_is_labelled() -> None:
    model, _, _ = linear()
    data = batch()
    assert data.y is not None
    with rng.forked("cpu", 4):
        loss = model.elbo(data, Clock.final()).loss
    with rng.forked("cpu", 4):
        elbo = model.bound(data).elbo
    known = data.y >= 0
    entropy = -model.classify(data)[known, data.y[known]].log()
    assert torch.allclose(loss, -elbo.mean() + 2.0 * entropy.sum() / len(known))


def test_gradients_are_those_of_finite_differences() -> None:
    """Of the classifier, the encoder and the decoder, with the same draws, in float64."""
    model, _, _ = linear()
    data = batch()

    def loss() -> Tensor:
        with rng.forked("cpu", 5):
            return model.elbo(data, Clock.final()).loss

    loss().backward()
    for p in model.parameters():
        if p.grad is None:
            continue
        flat, h = p.data.view(-1), 1e-6
        for i in (0, p.numel() - 1):
            kept = float(flat[i])
            sides = []
            for value in (kept + h, kept - h):
                flat[i] = value
                sides.append(loss().item())
            flat[i] = kept
            assert float(p.grad.view(-1)[i]) == pytest.approx((sides[0] - sides[1]) / (2 * h), abs=1e-6)


def test_with_every_label_it_is_a_conditional_vae() -> None:
    """Its bound is that of the VAE under the labels, and log p(y); the classifier has no part in it."""
    model, _, _ = linear()
    y = torch.tensor([2, 0, 1, 3, 3, 1])
    data = replace(batch(), y=y)
    with rng.forked("cpu", 6):
        found = model.bound(data)
    with rng.forked("cpu", 6):
        every = model.vae.bound(Batch(data.x.repeat(K, 1), torch.arange(K).repeat_interleave(6)))
    assert torch.allclose(found.elbo, every.elbo.view(K, 6)[y, torch.arange(6)] - math.log(K))
    found.elbo.sum().backward()
    assert all(p.grad is None or not p.grad.any() for p in model.qy.parameters())


def test_a_code_has_a_class_and_what_depends_on_it() -> None:
    """Draws have the mean stated, within five standard errors; densities are those of a class and of z under it."""
    log_p = torch.tensor([[0.5, 0.2, 0.3], [0.0, 1.0, 0.0]]).log()
    with rng.forked("cpu", 7):
        centres = torch.randn(6, 2)
        q = ByClass(log_p, Independent(Normal(centres, 0.3), 1))
        drawn = q.rsample((40_000,))
    assert bool(((drawn.mean(0) - q.mean).abs() <= 5 * drawn.std(0) / 200 + 1e-6).all())
    y = drawn[..., 2:].argmax(-1)
    own = Independent(Normal(centres.view(3, 2, 2)[y, torch.arange(2)], 0.3), 1).log_prob(drawn[..., :2])
    assert torch.allclose(q.log_prob(drawn), own + log_p[torch.arange(2), y], atol=1e-5)


def test_stacked_it_is_the_mixture_that_its_parts_make() -> None:
    """M1+M2 of linear maps: one draw is below log p(x) of the mixture of Gaussians, many draws are at it."""
    with rng.forked("cpu", 8):
        model = M1M2(Spec((D,), classes=K), latent_dim=1, second_dim=1, widths=(), net="linear", likelihood=GAUSSIAN)
        for p in model.parameters():
            p.data = 0.4 * torch.randn_like(p)
        for p in model.m1.q.parameters():
            p.data.zero_()  # q(z1|x) is as wide as the prior, so that no draw has a great weight
    first = next(m for m in model.m1.p.modules() if isinstance(m, torch.nn.Linear))
    with torch.no_grad():
        noise = model.m2.vae.p(torch.zeros(1, 1), torch.zeros(1, K)).variance.item()
        centres = exact(model.m2, noise)
        variance = float(maps(model.m2)[0].weight[0, 0]) ** 2 + noise
        covariance = variance * first.weight @ first.weight.T + SCALE**2 * torch.eye(D)
        mixture = MultivariateNormal(centres @ first.weight.T + first.bias, covariance)
        data = Batch(batch().x.float(), batch().y)
        joint = mixture.log_prob(data.x[:, None]) - math.log(K)
        exact_log_p = torch.where(data.y >= 0, joint.gather(1, data.y.clamp(min=0)[:, None])[:, 0], joint.logsumexp(1))  # type: ignore[operator, union-attr]
        n = 2000
        several = data.map(lambda t: t.repeat_interleave(n, 0))
        with rng.forked("cpu", 9):
            many = model.log_prob(several, 5).view(-1, n).logsumexp(1) - math.log(n)
            one = model.bound(several).elbo.view(-1, n)
    assert torch.allclose(many, exact_log_p, atol=0.05)
    assert bool((one.mean(1) < exact_log_p + 5 * one.std(1) / math.sqrt(n)).all())


@pytest.mark.parametrize("name", ["m2", "m1-m2"])
def test_an_absent_label_is_an_unknown_one(name: str) -> None:
    data = batch()
    gone = replace(data, y=torch.arange(6) % K, absent={"labels": torch.arange(6) % 2 > 0})
    model = fresh(name, replace(rows(data.x), spec=Spec((D,), classes=K)), latent_dim=1, net="mlp").double()
    absent = torch.ones(6, dtype=torch.bool)
    asked = Batch(y=torch.arange(6) % K, absent={"labels": absent})

    def found(of: Batch, given: Batch | None) -> list[Tensor]:
        with rng.forked("cpu", 9), torch.no_grad():
            y = model.complete(of).y
            assert y is not None and "labels" not in model.complete(of).absent
            return [model.bound(of).elbo, model.log_prob(of, 2), model.encode(of), y, model.draw(6, given)]

    assert all(map(torch.equal, found(gone, asked), found(data, None)))


@pytest.mark.parametrize("name", ["m2", "m1-m2"])
def test_completions_have_the_class_that_they_were_drawn_under(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    data = Batch(torch.zeros(50, D).double(), mask=torch.zeros(50, D, dtype=torch.bool))
    model = fresh(name, replace(rows(data.x), spec=Spec((D,), classes=K)), latent_dim=1, net="mlp").double()
    seen: list[Tensor] = []
    observation = model.observation
    monkeypatch.setattr(model, "observation", lambda code, c: (seen.append(code), observation(code, c))[1])
    with torch.no_grad():
        full = model.complete(data, 2)
    assert len(seen) == 1 and full.y is not None and torch.equal(full.y, seen[0][:, -K:].argmax(-1))


def test_what_makes_no_sense_is_refused() -> None:
    from sandglass.errors import ConfigError

    x = rows(torch.zeros(4, 2))
    for name in ("m2", "m1-m2"):
        with pytest.raises(ConfigError, match="needs data with classes"):
            fresh(name, x)
        with pytest.raises(ConfigError, match="alpha must be finite"):
            fresh(name, replace(x, spec=Spec((2,), classes=2)), alpha=-1.0)
    model = fresh("m1-m2", replace(x, spec=Spec((2,), classes=2)), latent_dim=1, net="mlp")
    with pytest.raises(ConfigError, match="k >= 1"):
        model.log_prob(Batch(torch.zeros(4, 2)), 0)


def test_densities_of_codes_are_broadcast_as_those_of_other_distributions() -> None:
    model, data = linear()[0], batch()
    with torch.no_grad():
        q, one = model.posterior(data), model.posterior(data.map(lambda t: t[:1]))
        z = q.sample((5,))
        pairs = z.flatten(0, 1)[:, None]
        found = q.log_prob(pairs)
        expected = q.log_prob(pairs.expand(-1, len(data), -1))
        assert found.shape == (30, 6) and torch.equal(found, expected)
        assert torch.equal(found.unflatten(0, (5, 6)).diagonal(dim1=1, dim2=2), q.log_prob(z))
        assert torch.equal(q.log_prob(z[0, 0]), q.log_prob(z[0, :1])) and q.log_prob(z[0, 0]).shape == (6,)
        torch.testing.assert_close(one.log_prob(z), q.log_prob(z.flatten(0, 1)[:, None])[:, 0].unflatten(0, (5, 6)))
    of_data = measure(model, Split(data.x, data.y), names=["aggregate"])
    assert of_data and all(math.isfinite(r.value) for r in of_data)


def test_figures_of_the_density_are_of_the_examples_alone() -> None:
    """Whether labels are known does not change them; a joint model describes its labels, and its note says so."""
    labelled = Split(batch().x.float(), torch.arange(6) % K)
    few = replace(labelled, y=torch.full((6,), -1))
    data = replace(rows(labelled.x), spec=Spec((D,), classes=K))
    for name in ("m2", "m1-m2", "joint-vae"):
        model = fresh(name, data, latent_dim=1, net="mlp")
        known, unknown = (measure(model, split, names=["bound", "log_prob"]) for split in (labelled, few))
        assert [r.name for r in known][:3] == ["elbo", "rate", "distortion"]
        same = [a.value == b.value for a, b in zip(known, unknown, strict=True)]
        told = ["known labels" in r.note for r in known if r.name in ("elbo", "log_prob")]
        assert (all(same) and not any(told)) if name != "joint-vae" else (all(told) and not any(same[:1]))
        assert not any("known labels" in r.note for r in unknown)

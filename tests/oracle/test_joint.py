"""The joint VAE against closed forms: products of Gaussians, a linear model's exact posterior, absent modalities."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.distributions import MultivariateNormal, Normal, kl_divergence

from sandglass import registry, rng
from sandglass.core import Batch, Clock, Spec
from sandglass.engine.options import Training
from sandglass.engine.step import Stepper
from sandglass.errors import CapabilityError, ConfigError
from sandglass.models._experts import Expert, product_of_experts
from sandglass.models.joint_vae import JointVAE
from sandglass.runs.model_folder import load_model, write_model_folder
from sandglass.runs.specification import to_plain

S, PX, PT, DX, DT = 2, 1, 1, 5, 4
SIGMA = {"x": 0.7, "tag": 0.4}
TERMS = ("joint", "subsets", "cross")


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_a_product_of_experts_is_the_normalised_product_of_their_densities() -> None:
    mean, scale = random(2, 1), 0.5 + random(2, 1, seed=1).abs()
    experts = [Expert(s.pow(-2)[None], (m / s.square())[None]) for m, s in zip(mean, scale, strict=True)]
    grid = torch.linspace(-12, 12, 20_001, dtype=torch.float64)
    for chosen in ([0], [1], [0, 1]):
        density = Normal(0.0, 1.0).log_prob(grid) + sum(Normal(mean[i], scale[i]).log_prob(grid) for i in chosen)
        density = density.exp() / torch.trapezoid(density.exp(), grid)
        found = product_of_experts([experts[i].where(torch.tensor([i in chosen])) for i in (0, 1)])
        assert torch.allclose(found.log_prob(grid).exp().flatten(), density, atol=1e-8)


def linear_of(network: nn.Module) -> nn.Linear:
    """The only layer with weights."""
    (found,) = (layer for layer in network.modules() if isinstance(layer, nn.Linear))
    return found


def linear() -> tuple[JointVAE, dict[str, Tensor], dict[str, Tensor]]:
    """Two linear-Gaussian views whose loadings are orthogonal, with the exact posterior as encoders."""
    spec = Spec((DX,), given={"tag": Spec((DT,))})
    options: dict[str, Any] = {"latent_dim": S, "private": (PX, PT), "weights": (1, 1), "net": "linear"}
    exact = {"name": "gaussian", "learn": "none", "scale": SIGMA["x"]}
    model = registry.build("joint-vae", spec, likelihood=exact, **options).double()
    assert isinstance(model, JointVAE)
    loadings, offsets = {}, {}
    for seed, m in enumerate(model.modalities):
        width, size = m.spec.size, sum(m.sizes)
        w = torch.linalg.qr(random(width, width, seed=seed)).Q[:, :size] * torch.linspace(0.6, 1.4, size).double()
        b, sigma = random(width, seed=seed + 5), SIGMA[m.name]
        loadings[m.name], offsets[m.name] = w, b
        precision = w.square().sum(0) / sigma**2
        decoder, encoder = linear_of(m.p.trunk), linear_of(m.q)
        with torch.no_grad():
            decoder.weight.copy_(w)
            decoder.bias.copy_(b)
            m.p.likelihood.log_scale.fill_(math.log(sigma))
            mean = w.T / sigma**2 / (1 + precision)[:, None]
            encoder.weight.copy_(torch.cat([mean, torch.zeros_like(mean)]))
            encoder.bias.copy_(torch.cat([-mean @ b, precision.log()]))
    return model, loadings, offsets


def data(n: int = 7) -> Batch:
    return Batch(random(n, DX, seed=20), given={"tag": random(n, DT, seed=21)})


PRESENT = [("x", "tag"), ("x",), ("tag",), ()]


def having(batch: Batch, names: tuple[str, ...]) -> Batch:
    gone = {name: torch.full((len(batch),), name not in names) for name in ("x", "tag")}
    return replace(batch, absent=gone)


def joint_gaussian(loadings: dict[str, Tensor], names: tuple[str, ...]) -> tuple[Tensor, Tensor]:
    """``(n, D)`` loading of the code on what is present, and the variances of its noise."""
    places = {"x": [0, 1, S], "tag": [0, 1, S + PX]}
    rows = []
    for name in names:
        w = torch.zeros(len(loadings[name]), S + PX + PT, dtype=torch.float64)
        w[:, places[name]] = loadings[name]
        rows.append(w)
    noise = [torch.full((len(loadings[name]),), SIGMA[name] ** 2, dtype=torch.float64) for name in names]
    return torch.cat(rows), torch.cat(noise)


@pytest.mark.parametrize("names", PRESENT, ids=lambda n: "+".join(n) or "nothing")
def test_the_posterior_of_a_linear_model_is_exact_whatever_is_present(names: tuple[str, ...]) -> None:
    model, loadings, offsets = linear()
    batch = having(data(), names)
    q = model.posterior(batch)
    if not names:
        assert torch.equal(q.mean, torch.zeros(7, 4, dtype=torch.float64)) and (q.variance == 1).all()
        assert torch.equal(model.log_prob(batch, 3), torch.zeros(7, dtype=torch.float64))
        return
    values = {"x": batch.x, "tag": batch.given["tag"]}
    seen = torch.cat([values[name] - offsets[name] for name in names], 1)
    w, noise = joint_gaussian(loadings, names)
    precision = torch.eye(4, dtype=torch.float64) + w.T @ (w / noise[:, None])
    assert torch.allclose(precision, precision.diag().diag(), atol=1e-12)
    assert torch.allclose(q.variance, precision.diag().reciprocal().expand(7, 4))
    assert torch.allclose(q.mean, seen / noise @ w @ precision.inverse())
    # With the exact posterior every importance weight is the evidence itself, so one draw is enough.
    evidence = MultivariateNormal(torch.zeros(len(w), dtype=torch.float64), w @ w.T + noise.diag()).log_prob(seen)
    assert torch.allclose(model.log_prob(batch, 1), evidence)
    with torch.no_grad(), rng.forked("cpu", 1):
        elbo = torch.stack([model.bound(batch).elbo for _ in range(2000)])
    assert ((elbo.mean(0) - evidence).abs() < 5 * elbo.std(0) / math.sqrt(2000)).all()


def test_what_is_absent_has_distortion_and_rate_0() -> None:
    model, _, _ = linear()
    for names in PRESENT:
        bound = model.bound(having(data(), names))
        for name in ("x", "tag"):
            here = bool(name in names)
            assert bool((bound.distortions[name] != 0).all()) == here and bool((bound.rates[name] != 0).all()) == here
        assert bool((bound.rates["shared"] != 0).all()) == bool(names)


@pytest.mark.parametrize("terms", TERMS)
def test_the_objective_is_the_mean_of_bounds_written_out(terms: str) -> None:
    """With the same draws: every bound by torch's own Gaussians, from products of the experts that it may use."""
    model, _, _ = linear()
    model.terms = terms
    batch = replace(data(), absent={"tag": torch.arange(7) < 3})
    values = {"x": batch.x, "tag": batch.given["tag"]}
    here = {"x": torch.ones(7, dtype=torch.bool), "tag": ~batch.absent["tag"]}
    places = {"x": [0, 1, S], "tag": [0, 1, S + PX]}

    def bound(told: dict[str, Tensor], scored: dict[str, Tensor], own: dict[str, Tensor]) -> Tensor:
        precision, shift = torch.ones(7, 4).double(), torch.zeros(7, 4).double()
        for m in model.modalities:
            mean, log_precision = m.q(values[m.name]).chunk(2, -1)
            extra = log_precision.exp()
            weight = torch.stack([told[m.name]] * S + [own[m.name]], 1).double()
            precision[:, places[m.name]] += weight * extra
            shift[:, places[m.name]] += weight * mean * (1 + extra)
        q = Normal(shift / precision, precision.rsqrt())
        code = q.rsample()
        found = kl_divergence(q, Normal(torch.zeros(4).double(), 1.0)).sum(1)
        for m in model.modalities:
            mean = linear_of(m.p.trunk)(code[:, places[m.name]])
            found = found - here[m.name] * scored[m.name] * Normal(mean, SIGMA[m.name]).log_prob(values[m.name]).sum(1)
        return found

    with torch.no_grad(), rng.forked("cpu", 4):
        terms_found = model.elbo(batch, Clock())
    with torch.no_grad(), rng.forked("cpu", 4):
        loss, count = bound(here, here, here), torch.ones(7).double()
        none = {k: torch.zeros_like(v) for k, v in here.items()}
        for name in () if terms == "joint" else ("x", "tag"):
            alone = none | {name: here[name]}
            extra = bound(alone, alone, alone) if terms == "subsets" else bound(alone, here, here)
            used = here["x"] & here["tag"]
            loss, count = loss + used * extra, count + used
    assert torch.allclose(terms_found.loss, (loss / count).mean())


def test_by_default_a_distortion_weighs_by_the_variables_of_its_modality_and_a_label_is_one() -> None:
    model, batch = make(), mixed_batch()
    assert model.weights == {"x": 1.0, "labels": 30.0, "tag": 7.5, "edges": 1.0}
    with torch.no_grad(), rng.forked("cpu", 5):
        bound = model.bound(batch)
    expected = sum(model.weights[name] * d for name, d in bound.distortions.items()) + bound.rate
    assert torch.allclose(model._objective(bound, Clock()), expected)


def several() -> Spec:
    return Spec((1, 6, 5), "unit", classes=3, given={"tag": Spec((4,)), "edges": Spec((1, 6, 5), "binary")})


def mixed_batch(n: int = 8) -> Batch:
    given = {"tag": random(n, 4, seed=3).float(), "edges": (random(n, 1, 6, 5, seed=4) > 0).float()}
    absent = {"tag": torch.arange(n) % 2 == 0, "x": torch.arange(n) % 4 == 3, "edges": torch.arange(n) == 1}
    y = torch.where(torch.arange(n) % 3 == 0, -1, torch.arange(n) % 3)
    return Batch(random(n, 1, 6, 5, seed=5).float().sigmoid(), y, given=given, absent=absent)


def make(spec: Spec | None = None, **options: Any) -> JointVAE:
    options = {"latent_dim": 2, "net": {"name": "conv", "width": 4, "hidden": 8}, **options}
    options.setdefault("modalities", ("labels", "tag", "edges"))
    with rng.forked("cpu", 0, "weights"):
        model = registry.build("joint-vae", spec or several(), **options)
    assert isinstance(model, JointVAE)
    return model


FORMS: dict[str, dict[str, Any]] = {
    **{terms: {"terms": terms} for terms in TERMS},
    **{name: registry.entry("model", name).preset for name in ("mvae", "mmvae", "mopoe-vae", "jmvae")},
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("junk", [math.nan, math.inf, 1e30, -7.0])
def test_junk_in_an_absent_modality_changes_no_bit_of_loss_or_gradient(form: str, junk: float) -> None:
    model, batch = make(**FORMS[form]), mixed_batch()

    def spoilt(t: Tensor, name: str) -> Tensor:
        return torch.where(batch.absent[name].view(-1, *[1] * (t.dim() - 1)), junk, t)

    dirty = replace(batch, x=spoilt(batch.x, "x"), given={k: spoilt(t, k) for k, t in batch.given.items()})
    found = []
    for each in (batch, dirty):
        model.zero_grad()
        with rng.forked("cpu", 3):
            terms_of = model.elbo(each, Clock())
        terms_of.loss.backward()
        grads = [p.grad.clone() for p in model.parameters() if p.grad is not None]
        found.append([terms_of.loss.detach(), *terms_of.parts.values(), *grads])
    assert all(torch.isfinite(t).all() for t in found[0])
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))


def test_a_companion_that_is_not_there_is_one_that_every_example_lacks() -> None:
    model, batch = make(), mixed_batch()
    for name in ("tag", "edges"):
        lacking = replace(batch, absent={**batch.absent, name: torch.ones(8, dtype=torch.bool)})
        less = replace(batch, given={k: t for k, t in batch.given.items() if k != name})
        assert torch.equal(model.encode(lacking), model.encode(less))
    assert torch.equal(model.encode(replace(batch, y=None)), model.encode(replace(batch, y=torch.full((8,), -1))))
    no_x = replace(batch, absent={**batch.absent, "x": torch.ones(8, dtype=torch.bool)})
    assert torch.equal(model.encode(no_x), model.encode(replace(batch, x=None)))
    assert torch.equal(model.encode(no_x), model.encode(replace(batch, mask=torch.zeros_like(batch.x).bool())))


def test_marginal_consistency_the_joint_summed_over_classes_is_that_without_them() -> None:
    """Both by many importance-weighted draws, from different proposals: log sum_y p(x, y) = log p(x)."""
    model = make(Spec((4,), classes=3), modalities=("labels",), private=(1, 0), net="linear").double()
    with torch.no_grad():
        for p in model.parameters():
            p.copy_(random(*p.shape, seed=p.numel()) * 0.5)
        for m in model.modalities:  # proposals little narrower than the prior, lest a few draws decide
            means, log_precisions = linear_of(m.q).bias.chunk(2)
            linear_of(m.q).weight.mul_(0.2)
            means.zero_()
            log_precisions.fill_(-3.0)
    x, k = random(5, 4, seed=9), 20_000
    with torch.no_grad(), rng.forked("cpu", 2):
        joint = torch.stack([model.log_prob(Batch(x, torch.full((5,), y)), k) for y in range(3)])
        alone = model.log_prob(Batch(x), k)
        only_y = torch.stack([model.log_prob(Batch(y=torch.tensor([y])), k) for y in range(3)])
    assert torch.allclose(joint.logsumexp(0), alone, atol=0.02)
    assert torch.allclose(only_y.logsumexp(0), torch.zeros(1).double(), atol=0.02)


def test_a_completion_keeps_what_was_there_and_fills_in_the_rest() -> None:
    model, batch = make().eval(), mixed_batch()
    mask = random(8, 1, 6, 5, seed=8) > 0
    for draws, times in ((0, 1), (2, 2)):
        full = model.complete(replace(batch, mask=mask), draws)
        many = batch.map(lambda t, n=times: t.repeat(n, *[1] * (t.dim() - 1)))  # type: ignore[misc]
        assert full.mask is None and not full.absent and full.y is not None and many.y is not None
        assert torch.equal(full.y[many.y >= 0], many.y[many.y >= 0]) and full.y.min() >= 0 and full.y.max() < 3
        for name, t in full.given.items():
            gone = many.absent[name]
            assert torch.equal(t[~gone], many.given[name][~gone]) and not torch.equal(t[gone], many.given[name][gone])
        seen = mask.repeat(times, 1, 1, 1) & ~many.absent["x"].view(-1, 1, 1, 1)
        assert torch.equal(full.x[seen], many.x[seen]) and (full.x[~seen] != many.x[~seen]).all()
    only_tag = Batch(given={"tag": batch.given["tag"]})
    assert model.complete(only_tag).x.shape == (8, 1, 6, 5) and model.translate(only_tag, "edges").shape == (8, 1, 6, 5)


def test_classes_are_read_off_without_looking_at_the_label() -> None:
    model, batch = make().eval(), mixed_batch()
    found = model.classify(batch)
    assert torch.equal(found, model.classify(replace(batch, y=None)))
    assert torch.allclose(found.sum(1), torch.ones(8))
    assert torch.equal(model.complete(replace(batch, y=None)).y, found.argmax(1))
    tagged = make(modalities=("tag",))
    assert "classify" not in tagged.provides
    with pytest.raises(CapabilityError, match="labels"):
        tagged.classify(batch)


def test_pictures_and_vectors_as_companions_step_save_and_load(tmp_path: Path) -> None:
    model, batch = make(private=(2, 0, 1, 2), terms="cross"), mixed_batch()
    assert [latent.name for latent in model.latents] == ["shared", "x", "tag", "edges"]
    Stepper(model, model.stages()[0], Training(device="cpu"))(batch, Clock(), 1.0)
    assert all(torch.isfinite(p).all() for p in model.parameters())
    config = {"model": model.config, "spec": to_plain(model.spec), "transform": {}, "classes": [], "step": 1}
    write_model_folder(tmp_path / "model", config, model.state_dict(), "card")
    loaded = load_model(tmp_path / "model")
    assert torch.equal(model.eval().encode(batch), loaded.encode(batch))
    for given in (None, Batch(given={"edges": batch.given["edges"]}), replace(batch, x=None)):
        assert loaded.sample(8, given).shape == (8, 1, 6, 5)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"modalities": ("sound",)}, "no companion 'sound'"),
        ({"modalities": ("tag", "tag")}, "each named once"),
        ({"modalities": "tag"}, "list of names"),
        ({"private": (1, 2)}, "private"),
        ({"private": (1, 2, -1, 0)}, "private"),
        ({"weights": (1.0, -1.0, 1.0, 1.0)}, "weights"),
        ({"weights": (0.0, 0.0, 0.0, 0.0)}, "weights"),
        ({"terms": "both"}, "joint, subsets, cross"),
    ],
)
def test_options_that_make_no_sense_are_refused(options: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        make(**options)


def test_data_of_one_modality_and_a_wrong_number_of_conditions_are_refused() -> None:
    with pytest.raises(ConfigError, match="second modality"):
        make(Spec((4,)), modalities=())
    with pytest.raises(ConfigError, match="3 examples were asked for"):
        make().sample(3, Batch(y=torch.zeros(2, dtype=torch.int64)))
    with pytest.raises(ConfigError, match="no modality 'sound'"):
        make().translate(mixed_batch(), "sound")

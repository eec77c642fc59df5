"""Posteriors of several modalities against a linear model, whose posterior given any of them is known."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import combinations
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.distributions import Independent, MultivariateNormal, Normal, kl_divergence

from sandglass import registry, rng
from sandglass.core import Batch, Clock, Spec
from sandglass.distributions.gaussian_mixture import GaussianMixture
from sandglass.errors import ConfigError
from sandglass.models._experts import MOST, Subsets
from sandglass.models.joint_vae import JointVAE

D, B = 2, 8
WIDTHS = {"x": 5, "tag": 4, "note": 3}
SIGMA = {"x": 0.7, "tag": 0.6, "note": 0.9}
PRESETS = ("mvae", "mmvae", "mopoe-vae", "jmvae")
SUBSETS = [chosen for size in (1, 2, 3) for chosen in combinations(WIDTHS, size)]


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.empty(shape, dtype=torch.float64).normal_(generator=torch.Generator().manual_seed(seed))


def linear_of(network: nn.Module) -> nn.Linear:
    """The only layer with weights."""
    (found,) = (layer for layer in network.modules() if isinstance(layer, nn.Linear))
    return found


def loading(name: str) -> Tensor:
    """``(width, D)`` with orthogonal columns, so that every posterior has independent dimensions."""
    width = WIDTHS[name]
    return torch.linalg.qr(random(width, width, seed=width)).Q[:, :D] * torch.tensor([0.5, 1.3]).double()


def exact(preset: str, names: tuple[str, ...] = tuple(WIDTHS), **options: Any) -> JointVAE:
    """x = W z + noise for each modality, and its exact posterior as its expert."""
    spec = Spec((WIDTHS["x"],), given={name: Spec((WIDTHS[name],)) for name in names if name != "x"})
    with rng.forked("cpu", 0):
        own: dict[str, Any] = {"latent_dim": D, "weights": (1,), "net": "linear", **options}
        model = registry.build(preset, spec, modalities=names[1:], **own).double()
    assert isinstance(model, JointVAE)
    for m in model.modalities:
        w, sigma = loading(m.name), SIGMA[m.name]
        precision = w.square().sum(0) / sigma**2
        decoder, encoder = linear_of(m.p.trunk), linear_of(m.q)
        with torch.no_grad():
            decoder.weight.copy_(w)
            decoder.bias.zero_()
            m.p.likelihood.log_scale.fill_(math.log(sigma))
            mean = w.T / sigma**2 / (1 + precision)[:, None]
            encoder.weight.copy_(torch.cat([mean, torch.zeros_like(mean)]))
            encoder.bias.copy_(torch.cat([torch.zeros(D).double(), precision.log()]))
    return model


def data() -> Batch:
    x, *rest = (random(B, width, seed=20 + width) for width in WIDTHS.values())
    return Batch(x, given=dict(zip(list(WIDTHS)[1:], rest, strict=True)))


def having(batch: Batch, names: tuple[str, ...]) -> Batch:
    return replace(batch, absent={name: torch.full((B,), name not in names) for name in WIDTHS})


def values(batch: Batch) -> dict[str, Tensor]:
    return {"x": batch.x, **batch.given}


def posterior(names: tuple[str, ...], batch: Batch) -> Normal:
    """The exact one given some modalities, by Bayes' rule."""
    precision, shift = torch.ones(D).double(), torch.zeros(B, D).double()
    for name in names:
        w = loading(name) / SIGMA[name] ** 2
        precision, shift = precision + (loading(name) * w).sum(0), shift + values(batch)[name] @ w
    return Normal(shift / precision, precision.rsqrt().expand(B, D))


def evidence(names: tuple[str, ...], batch: Batch) -> Tensor:
    """``(B,)`` log p of some modalities."""
    w = torch.cat([loading(name) for name in names])
    noise = torch.cat([torch.full((WIDTHS[name],), SIGMA[name] ** 2).double() for name in names])
    found = torch.cat([values(batch)[name] for name in names], 1)
    return MultivariateNormal(torch.zeros(len(w)).double(), w @ w.T + noise.diag()).log_prob(found)


@pytest.mark.parametrize("names", SUBSETS, ids="+".join)
@pytest.mark.parametrize("preset", PRESETS)
def test_posteriors_are_those_enumerated_by_hand_whatever_is_present(preset: str, names: tuple[str, ...]) -> None:
    """A product is exact, a mixture has the exact posterior of each of its sets with the same weight."""
    batch, z = data(), random(50, B, D, seed=3)
    sets = {"mmvae": [(name,) for name in names]}.get(preset, [names])
    if preset == "mopoe-vae":
        sets = [chosen for chosen in SUBSETS if set(chosen) <= set(names)]
    if preset == "jmvae" and len(names) == 3:
        return  # its own encoder; see below
    densities = torch.stack([posterior(chosen, batch).log_prob(z).sum(-1) for chosen in sets])
    expected = densities.logsumexp(0) - math.log(len(sets))
    q = exact(preset).posterior(having(batch, names))
    assert torch.allclose(q.log_prob(z), expected, atol=1e-5, rtol=1e-6)
    assert torch.allclose(q.mean, torch.stack([posterior(s, batch).mean for s in sets]).mean(0), atol=1e-5)


def often(batch: Batch, times: int) -> Batch:
    """All of the examples that many times, for as many independent draws."""
    return batch.map(lambda t: t.repeat(times, *[1] * (t.dim() - 1)))


@pytest.mark.parametrize("names", [("x", "tag", "note"), ("x", "note"), ("tag",)], ids="+".join)
@pytest.mark.parametrize("preset", PRESETS)
def test_bounds_are_below_the_evidence_and_rise_to_it_with_draws(preset: str, names: tuple[str, ...]) -> None:
    """On average over 1,000 repetitions, to five standard errors; where the posterior is exact there is no gap."""
    model, batch, n = exact(preset), having(data(), names), 1000
    truth = evidence(names, data())
    with torch.no_grad(), rng.forked("cpu", 1):
        elbo, tight = (
            f(often(batch, n)).unflatten(0, (n, B))
            for f in (lambda b: model.bound(b).elbo, lambda b: model.log_prob(b, 5))
        )
        tightest = model.log_prob(batch, 50_000)
    errors = [5 * v.std(0) / math.sqrt(n) + 1e-5 for v in (elbo, tight)]
    gaps = [truth - v.mean(0) for v in (elbo, tight)]
    assert torch.allclose(tightest, truth, atol=0.05)
    if (preset == "mvae") or (len(names) == 1) or (preset == "jmvae" and len(names) == 2):
        assert all((gap.abs() < error).all() for gap, error in zip(gaps, errors, strict=True))
    else:
        assert all((gap > -error).all() for gap, error in zip(gaps, errors, strict=True))
        assert gaps[0].mean() > gaps[1].mean() > errors[1].mean() / math.sqrt(B)


@pytest.mark.parametrize("preset", ["mmvae", "mopoe-vae"])
def test_a_stratified_bound_is_that_of_draws_from_the_mixture(preset: str) -> None:
    """Its expectation, by 5,000 draws of either kind, to five standard errors; private latents included."""
    spec, n = Spec((5,), given={"tag": Spec((4,)), "note": Spec((3,))}), 5000
    with rng.forked("cpu", 4):
        model = registry.build(preset, spec, latent_dim=D, private=(1,), net="linear").double()
    assert isinstance(model, JointVAE)
    batch = having(data(), ("x", "tag"))
    with torch.no_grad(), rng.forked("cpu", 2):
        q = model.posterior(batch)
        z = q.sample(torch.Size([n]))
        log_p = -sum(m.distortion(z, view) for m, view in zip(model.modalities, model._views(batch)[0], strict=True))
        plain = log_p + model.prior().log_prob(z) - q.log_prob(z)
        found = model.bound(often(batch, n))
    elbo = found.elbo.unflatten(0, (n, B))
    error = ((plain.var(0) + elbo.var(0)) / n).sqrt()
    assert ((plain.mean(0) - elbo.mean(0)).abs() < 5 * error).all() and error.max() < 0.1
    assert (found.rates["note"] == 0).all() and (found.rates["x"] > 0).all()


def test_a_mixture_integrates_to_one_and_its_draws_have_its_moments_and_gradient() -> None:
    """By 100,000 draws, to five standard errors; a component without weight gives no draw and gets no gradient."""
    loc = torch.tensor([[[-2.0, 0.0], [50.0, 50.0], [1.0, 1.0]]]).double().requires_grad_()
    scale = torch.tensor([[[0.5, 1.0], [1.0, 1.0], [1.0, 0.3]]]).double()
    q = GaussianMixture(loc, scale, torch.tensor([[0.25, 0.0, 0.75]]).double())
    n = 100_000
    wide = Independent(Normal(torch.zeros(1, 2).double(), 4.0), 1)
    with rng.forked("cpu", 0):
        z, far = q.rsample((n,)), wide.sample((n,))
    ratio = (q.log_prob(far) - wide.log_prob(far)).exp()
    assert abs(ratio.mean() - 1) < 5 * ratio.std() / math.sqrt(n)
    for power, moment in ((1, q.mean), (2, q.variance + q.mean.square())):
        each = z.detach() ** power
        assert ((each.mean(0) - moment).abs() < 5 * each.std(0) / math.sqrt(n)).all()
    assert z.max() < 20
    (slope,) = torch.autograd.grad(z.square().sum(-1).mean(), loc)
    assert torch.allclose(slope, 2 * q.weight[..., None] * loc, atol=0.05) and (slope[:, 1] == 0).all()
    with torch.no_grad():
        bigger = GaussianMixture(loc + 1e-6 * torch.tensor([1.0, 0.0]), scale, q.weight).log_prob(far[:5])
    slope = torch.stack([torch.autograd.grad(v, loc, retain_graph=True)[0] for v in q.log_prob(far[:5])[:, 0]])
    assert torch.allclose(slope[..., 0].sum((1, 2)), ((bigger - q.log_prob(far[:5])) / 1e-6)[:, 0], atol=1e-4)
    assert (slope[:, :, 1] == 0).all()


def fixed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every draw of a normal is the same: losses of different shapes can be compared."""
    monkeypatch.setattr("torch.randn", lambda *shape, **kind: torch.full(shape, 0.3, **kind))
    monkeypatch.setattr(
        "torch.distributions.normal._standard_normal",
        lambda shape, dtype, device: torch.full(shape, 0.3, dtype=dtype, device=device),
    )


@pytest.mark.parametrize("preset", PRESETS)
def test_a_modality_that_is_absent_is_one_that_the_model_has_not(preset: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Loss, bound and bounds of others; no gradient reaches its networks, or an encoder of all modalities."""
    fixed(monkeypatch)
    names = ("x", "tag")
    own = {"random_subsets": 0} if preset == "mvae" else {}
    more, fewer = exact(preset, **own), exact("mvae" if preset == "jmvae" else preset, names, random_subsets=0)
    fewer.terms = more.terms
    batch = having(data(), names)
    found = more.elbo(batch, Clock())
    found.loss.backward()
    expected = fewer.elbo(batch, Clock())
    assert torch.allclose(found.loss, expected.loss, atol=1e-5)
    for part in ("distortion", "rate", "distortion_x", "rate_shared"):
        assert torch.allclose(found.parts[part], expected.parts[part], atol=1e-5)
    assert (found.parts["distortion_note"] == 0).all()
    silent = [more.modality("note"), *([more.fusion.whole] if preset == "jmvae" else [])]
    for module in silent:
        assert all(p.grad is None or (p.grad == 0).all() for p in module.parameters())
    assert all((p.grad != 0).any() for m in more.modalities[:2] for p in m.parameters())


def test_the_objective_of_mmvae_is_its_importance_weighted_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    """The mean over modalities that are present of ``log (1/K) sum_k p(x, z) / q(z|x)``, z from each of them."""
    model, batch = exact("mmvae", draws=4), having(data(), ("x", "note"))
    noise = random(4, 3, B, D, seed=9)
    monkeypatch.setattr("torch.randn", lambda *shape, **kind: noise)
    bounds = []
    singles = {name: posterior((name,), batch) for name in ("x", "note")}
    for place, name in ((0, "x"), (2, "note")):
        z = singles[name].mean + singles[name].stddev * noise[:, place]
        log_q = torch.stack([q.log_prob(z).sum(-1) for q in singles.values()]).logsumexp(0) - math.log(2)
        log_w = Normal(0.0, 1.0).log_prob(z).sum(-1) - log_q
        for other in ("x", "note"):
            log_w += Normal(z @ loading(other).T, SIGMA[other]).log_prob(values(batch)[other]).sum(-1)
        bounds.append(log_w.logsumexp(0) - math.log(4))
    assert torch.allclose(model.elbo(batch, Clock()).loss, -torch.stack(bounds).mean(), atol=1e-5)


def test_the_objective_of_mvae_is_of_all_of_each_and_of_random_subsets(monkeypatch: pytest.MonkeyPatch) -> None:
    """The mean of the bounds on log p of each set, from that set alone, is five of them where three are present."""
    fixed(monkeypatch)
    model, batch = exact("mvae"), data()
    batch = replace(batch, absent={"note": torch.arange(B) < 3})
    chosen = torch.tensor([[True], [False], [True]]).expand(3, B) & (torch.arange(B) >= 3)
    monkeypatch.setattr(model.subsets, "forward", lambda present: chosen)
    found = model.elbo(batch, Clock())
    alone = exact("mvae", terms="joint", random_subsets=0)

    def bound(*names: str) -> Tensor:
        return alone.bound(having(batch, names)).elbo

    two, three = bound("x", "tag"), bound("x", "tag", "note")
    each = torch.where(torch.arange(B) < 3, two, three) + bound("x") + bound("tag")
    each = torch.where(torch.arange(B) < 3, each / 3, (each + bound("note") + bound("x", "note")) / 5)
    assert torch.allclose(found.loss, -each.mean())
    assert (found.parts["from_subset_1"][:3] == 0).all()


def test_two_modalities_have_no_subset_of_several_but_not_all() -> None:
    """So no bound of one is decoded; the objective is that without it."""
    pair = exact("mvae", ("tag",))
    parts = pair.elbo(data(), Clock()).parts
    assert pair.random_subsets == 1 and not any("subset" in name for name in parts) and "from_tag" in parts


def test_random_subsets_are_each_as_likely_and_never_of_one_or_of_all() -> None:
    """Of four, or of three of them, by 20,000 draws, to five standard errors."""
    n = 20_000
    for gone, sizes in ((None, (2, 3)), (1, (2,))):
        there = [m for m in range(4) if m != gone]
        present = torch.tensor([[m in there] for m in range(4)]).expand(4, n)
        with rng.forked("cpu", 3):
            drawn = Subsets(4)(present)
        count = {s: sum(1 << m for m in s) for size in sizes for s in combinations(there, size)}
        found = (drawn * torch.tensor([[1], [2], [4], [8]])).sum(0)
        shares = {s: float((found == number).float().mean()) for s, number in count.items()}
        assert math.isclose(sum(shares.values()), 1, abs_tol=1e-6)
        error = math.sqrt(1 / len(count) / n)
        assert all(abs(share - 1 / len(count)) < 5 * error for share in shares.values()), shares
    assert not Subsets(2)(torch.ones(2, 5, dtype=torch.bool)).any()


def test_the_pull_of_jmvae_is_its_divergences_and_incomplete_examples_have_the_product(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fixed(monkeypatch)
    model, batch = exact("jmvae", alpha=0.5), data()
    some = torch.arange(B) < 3
    batch = replace(batch, absent={"tag": some})
    q = model.posterior(batch)
    assert isinstance(q, Independent)
    assert torch.allclose(q.mean[:3], posterior(("x", "note"), batch).mean[:3])
    assert model.fusion.whole is not None
    said = model.fusion.whole([values(batch)[name] for name in WIDTHS])
    whole = Normal(said.shift / (1 + said.precision), (1 + said.precision).rsqrt())
    assert torch.allclose(q.mean[3:], whole.mean[3:]) and torch.allclose(q.stddev[3:], whole.stddev[3:])
    pull = sum(kl_divergence(whole, posterior((name,), batch)).sum(-1) for name in WIDTHS)
    pull = torch.where(some, 0, pull)
    found = model.elbo(batch, Clock())
    assert torch.allclose(found.parts["pull"], pull)
    assert torch.allclose(found.loss, (0.5 * pull - model.bound(batch).elbo).mean())


@pytest.mark.parametrize(
    ("preset", "options", "said"),
    [
        ("joint-vae", {"posterior": "sum"}, "product, mixture"),
        ("mmvae", {"random_subsets": 1, "terms": "cross"}, "no mixture"),
        ("joint-vae", {"random_subsets": 1, "terms": "joint"}, "terms=subsets"),
        ("mopoe-vae", {"free_bits": 0.1}, "free_bits"),
        ("mmvae", {"capacity": 3.0}, "capacity"),
        ("mmvae", {"draws": 0}, "draws must be at least 1"),
        ("jmvae", {"alpha": -1.0}, "alpha"),
        ("mopoe-vae", {"alpha": 1.0}, "posterior=joint"),
    ],
)
def test_options_that_do_not_go_together_are_refused(preset: str, options: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        exact(preset, **options)


def test_products_of_too_many_modalities_are_refused() -> None:
    spec = Spec((2,), given={f"m{k}": Spec((2,)) for k in range(MOST)})
    with pytest.raises(ConfigError, match=f"at most {MOST}"):
        registry.build("mopoe-vae", spec)
    assert len(registry.build("mmvae", spec).fusion.sets) == MOST + 1

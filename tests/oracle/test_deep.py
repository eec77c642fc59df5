"""The very deep VAE against closed forms and draws, in float64 with weights well away from where they begin."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.distributions import MultivariateNormal, Normal

from sandglass import registry
from sandglass.core import Batch, Spec
from sandglass.distributions.chain import joined
from sandglass.errors import ConfigError
from sandglass.models._deep import flat
from sandglass.models._ladder import moments
from sandglass.models.vd_vae import VDVAE

UNIT = {"name": "gaussian", "learn": "none"}
PICTURE = Spec((1, 5, 3))


def make(spec: Spec = PICTURE, seed: int = 0, by: float = 0.15, **options: Any) -> VDVAE:
    """Two channels of latents and one block a size, unless otherwise asked; every bias and weight is moved."""
    torch.manual_seed(seed)
    chosen = {"blocks": 1, "z_channels": 2, "width": 6, "likelihood": UNIT, **options}
    model: VDVAE = registry.build("vd-vae", spec, **chosen)  # type: ignore[assignment]
    with torch.no_grad():
        for p in model.parameters():
            p.add_(torch.randn_like(p) * by)
    return model.double().eval()


def data(n: int = 4, spec: Spec = PICTURE) -> Tensor:
    return torch.randn(n, *spec.shape, generator=torch.Generator().manual_seed(1)).double()


@torch.no_grad()
@pytest.mark.parametrize("spec", [PICTURE, Spec((4,))], ids=str)
def test_codes_and_latents_are_inverse_and_a_block_moves_those_below_alone(spec: Spec) -> None:
    model = make(spec, blocks=2)
    code = torch.randn(7, model.code_size).double()
    levels = model.levels(code)
    again, logs = model.p.to_code(list(levels.values()))
    assert torch.allclose(again, code, atol=1e-9, rtol=0)
    # a density of codes is that of the latents times the scales divided by: the Jacobian, by automatic differentiation
    one = code[:1]

    def latents(c: Tensor) -> Tensor:
        return torch.cat([z.flatten(1) for z in model.p.to_levels(c)], 1)

    jacobian = torch.func.jacrev(latents)(one)[0, :, 0]  # type: ignore[no-untyped-call]
    assert torch.allclose(torch.linalg.slogdet(jacobian).logabsdet, logs[0], atol=1e-8)
    at = sum(latent.size for latent in model.latents[:1])
    code[:, at] += 1
    moved = [not torch.equal(a, b) for a, b in zip(levels.values(), model.levels(code).values(), strict=True)]
    assert moved == [False] + [True] * (len(model.latents) - 1)


@torch.no_grad()
def test_rates_are_those_of_draws_of_the_latents_and_the_bound_that_of_log_prob() -> None:
    """In the latents' own coordinates, log q - log p: 2 blocks, 4 examples, |z| < 5; and the bounds, likewise."""
    model, n = make(), 1500
    many = Batch(data().repeat(n, 1, 1, 1))
    bound = model.bound(many)
    chain, walk = model.q(many.x, None, model.p)
    parts, steps = chain.draw()
    walk.observe(parts)
    for i, (name, z) in enumerate(model.levels(joined(parts)).items()):
        loc, scale = prior_of(model, joined(parts), i)
        location, factor = moments(steps[i])
        q, p = Normal(loc + scale * location, scale * factor), Normal(loc, scale)
        drawn = (q.log_prob(z.flatten(1)) - p.log_prob(z.flatten(1))).sum(1).view(n, 4)
        own = bound.rates[name].view(n, 4)
        error = ((drawn.var(0) + own.var(0)) / n).sqrt()
        assert float(((drawn.mean(0) - own.mean(0)) / error).abs().max()) < 5
        assert float(own.min()) > 0 and bound.per_dimension[name].shape == (4 * n, model.latents[i].size)
    one, elbo = model.log_prob(many, 1).view(n, 4), bound.elbo.view(n, 4)
    assert float(((one.mean(0) - elbo.mean(0)) / ((one.var(0) + elbo.var(0)) / n).sqrt()).abs().max()) < 5


def prior_of(model: VDVAE, code: Tensor, i: int) -> tuple[Tensor, Tensor]:
    """Means and scales of the prior of a block, from where it puts the codes 0 and 1."""
    found = []
    for value in (0.0, 1.0):
        parts = list(code.split(model.p.plan.parts, 1))
        parts[i] = torch.full_like(parts[i], value)
        found.append(list(model.levels(torch.cat(parts, 1)).values())[i].flatten(1))
    return found[0], found[1] - found[0]


@torch.no_grad()
def test_importance_weights_reach_the_evidence_of_a_linear_model() -> None:
    """Without residual branches x is a sum of maps of Gaussians: log p(x) is known, and bounds of q = p reach it."""
    spec = Spec((3,))
    model = make(spec, blocks=2, z_channels=1)
    wide = torch.eye(3).double()
    for taking, prior, head in zip(model.p.takings, model.p.priors, model.q.heads, strict=True):
        for layer in (taking.residual.layers[-1], prior.layers[-1], head.layers[-1]):  # type: ignore[union-attr, index]
            nn.init.zeros_(layer.weight)  # type: ignore[arg-type]
            nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
        prior.layers[-1].bias[:2] = torch.tensor([0.3, -0.4])  # type: ignore[union-attr, index]
    out = model.p.last[1]
    mean = out.bias + out.weight @ model.p.begin[0][0, :, 0, 0]  # type: ignore[operator]
    for taking in model.p.takings:
        column = out.weight @ taking.project.weight[:, 0, 0, 0]  # type: ignore[operator, union-attr, index]
        mean = mean + out.weight @ taking.project.bias + 0.3 * column  # type: ignore[operator, union-attr]
        wide = wide + math.exp(-0.8) * torch.outer(column, column)
    x = data(5, spec)
    exact = MultivariateNormal(mean, wide).log_prob(x)
    draws = {k: torch.stack([model.log_prob(Batch(x), k) for _ in range(100)]).mean() for k in (1, 8, 64)}
    errors = [float(exact.mean() - v) for v in draws.values()]
    assert errors[0] > errors[1] > errors[2] > -1e-2 and errors[0] > 0.02
    assert torch.allclose(model.log_prob(Batch(x), 20_000), exact, atol=0.03)


@torch.no_grad()
def test_the_posterior_is_one_density_however_it_is_asked() -> None:
    """Several draws at once, one at a time, and values given once for all examples."""
    model = make(blocks=2)
    q = model.posterior(Batch(data()))
    code = q.rsample((3,))
    assert torch.allclose(q.log_prob(code), torch.stack([q.log_prob(each) for each in code]), atol=1e-9)
    assert q.log_prob(code[:, :1]).shape == (3, 4)
    assert torch.allclose(q.log_prob(code[:, :1])[:, 0], q.log_prob(code)[:, 0], atol=1e-9)
    by_hand, (parts, steps) = 0.0, q.follow(lambda i, d: code[0].split(q.sizes, 1)[i])  # type: ignore[attr-defined]
    for i, step in steps.items():
        by_hand = by_hand + step.log_prob(parts[i])
    assert torch.allclose(q.log_prob(code[0]), by_hand, atol=1e-9)


@torch.no_grad()
@pytest.mark.parametrize("shape", [(3, 37, 53), (1, 28, 28), (1, 1, 90), (2, 4, 4)])
def test_any_size_of_picture(shape: tuple[int, ...]) -> None:
    spec = Spec(shape, "unit")
    model: Any = registry.build("vd-vae", spec, blocks=1, z_channels=1, width=4, likelihood="gaussian")
    x = torch.rand(2, *shape)
    assert model.reconstruct(x).shape == x.shape and model.encode(x).shape == (2, model.code_size)
    assert max(max(latent.shape[:2]) for latent in model.latents) <= 16
    whole = registry.build("vd-vae", spec, blocks=1, z_channels=1, width=4, likelihood="gaussian", patch=1)
    assert whole.latents[-1].shape == (*shape[1:], 1)
    # the parts of a code are the maps in the order of its latents
    z = model.levels(code := torch.randn(2, model.code_size))
    assert all(z[k].shape == part.shape for k, part in model.split_code(code).items())
    assert torch.equal(flat(model.p.maps(code)[-1]), code[:, -model.latents[-1].size :])


@torch.no_grad()
def test_conditions_reach_encoder_blocks_and_decoder() -> None:
    spec = Spec(PICTURE.shape, classes=3, given={"other": Spec((2, 4, 4)), "tag": Spec((2,))})
    given = {"other": torch.randn(4, 2, 4, 4).double(), "tag": torch.randn(4, 2).double()}
    for name in ("labels", "other", "tag"):
        model = make(spec, condition=name)
        one = Batch(data(), torch.tensor([0, 1, 2, 0]), given=given)
        two = Batch(one.x, torch.tensor([1, 2, 0, 1]), given={k: v + 1 for k, v in given.items()})
        code = torch.randn(4, model.code_size).double()
        for a, b in zip(model.levels(code, one).values(), model.levels(code, two).values(), strict=True):
            assert not torch.allclose(a, b)
        assert not torch.allclose(model.encode(one), model.encode(two))
        single = torch.cat([model.encode(one.map(lambda t, i=i: t[i : i + 1])) for i in range(4)])  # type: ignore[misc]
        assert torch.allclose(model.encode(one), single, atol=1e-9)
        assert torch.isfinite(model.log_prob(one, 3)).all()


@torch.no_grad()
@pytest.mark.parametrize("shape", [(2, 3, 2), (1, 12, 9), (1, 5, 3)], ids=str)
def test_the_encoder_sees_a_picture_of_any_size(shape: tuple[int, ...]) -> None:
    """At the size of x; it reads that companion and not x."""
    model = make(Spec(PICTURE.shape, given={"other": Spec(shape)}), sees="other")
    other = torch.randn(4, *shape).double()
    code = model.encode(Batch(data(), given={"other": other}))
    assert code.shape == (4, model.code_size)
    assert torch.equal(code, model.encode(Batch(data() + 1, given={"other": other})))
    assert not torch.allclose(code, model.encode(Batch(data(), given={"other": other + 1})))
    resized = F.interpolate(other, PICTURE.shape[1:], mode="bilinear", antialias=True)
    assert torch.allclose(code, model.encode(Batch(data(), given={"other": resized})), atol=1e-12)


@torch.no_grad()
@pytest.mark.parametrize("shape", [(4, 7), (2, 3, 2, 2)], ids=str)
def test_examples_of_several_axes_are_rows(shape: tuple[int, ...]) -> None:
    spec = Spec(shape, classes=2)
    for condition in ("", "labels"):
        model, x = make(spec, condition=condition), data(3, spec)
        batch = Batch(x, torch.tensor([0, 1, 0]))
        assert model.reconstruct(batch).shape == x.shape and torch.isfinite(model.bound(batch).elbo).all()


@pytest.mark.parametrize(
    ("spec", "options", "message"),
    [
        (Spec((1, 5, 3), given={"tag": Spec((2,))}), {"sees": "tag"}, "can see a picture"),
        (Spec((4,), given={"tag": Spec((1, 5, 3))}), {"sees": "tag"}, "can see no picture"),
        (Spec((4,)), {"patch": 2}, "patch of 2"),
    ],
)
def test_what_cannot_be_seen_is_refused(spec: Spec, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make(spec, **options)


@torch.no_grad()
def test_in_bf16_rates_and_bound_are_single_and_close() -> None:
    model = make(Spec((1, 12, 12), "unit"), by=0.02, blocks=3, width=16, likelihood="bernoulli").float()
    batch, found = Batch(torch.rand(64, 1, 12, 12)), []
    for cast in (False, True):
        torch.manual_seed(1)
        with torch.autocast("cpu", torch.bfloat16, enabled=cast):
            bound = model.bound(batch)
        assert all(t.dtype == torch.float32 for t in (bound.elbo, *bound.rates.values()))
        found.append(bound)
    assert float((found[0].elbo - found[1].elbo).abs().mean()) < 0.02 * float(found[0].elbo.abs().mean())
    assert float((found[0].rate - found[1].rate).abs().mean()) < 0.05 * float(found[0].rate.mean())


@pytest.mark.parametrize("bad", [{"blocks": 0}, {"z_channels": 0}, {"width": 0}, {"patch": 3}])
def test_bad_sizes_are_refused(bad: dict[str, int]) -> None:
    with pytest.raises(ConfigError, match=next(iter(bad))):
        make(**bad)

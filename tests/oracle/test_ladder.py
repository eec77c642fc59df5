"""The ladder VAE against closed forms: the VAE at one level, a linear-Gaussian ladder, draws in place of its rates."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.distributions import MultivariateNormal, Normal

from helpers import fit, fresh, rows
from sandglass import registry
from sandglass.core import Batch, Bound, Clock, Spec
from sandglass.distributions.chain import Chain
from sandglass.errors import ConfigError
from sandglass.models._ladder import Refinement, moments, normal, product, residual
from sandglass.models.ladder_vae import LadderVAE

UNIT = {"name": "gaussian", "learn": "none"}
NET = {"name": "mlp", "widths": [8], "activation": "silu"}


def make(dims: Sequence[int] = (4, 3, 2), spec: Spec | None = None, seed: int = 0, **options: Any) -> LadderVAE:
    """A ladder of random weights in float64, its priors and posteriors well away from the standard normal."""
    torch.manual_seed(seed)
    options = {"net": NET, "likelihood": UNIT, "width": 16, **options}
    model: LadderVAE = registry.build("ladder-vae", spec or Spec((6,)), latent_dims=dims, **options)  # type: ignore[assignment]
    with torch.no_grad():
        for p in model.parameters():
            p.mul_(1.5)
        for level in model.p.levels:  # these start at 0
            head = level.gaussian.trunk.module.head  # type: ignore[union-attr]
            nn.init.normal_(head.weight, std=0.2)  # type: ignore[union-attr, arg-type]
            nn.init.normal_(head.bias, std=0.2)  # type: ignore[union-attr, arg-type]
    return model.double().eval()


def data(n: int = 5, d: int = 6) -> Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(1)).double()


@pytest.mark.parametrize("inference", ["residual", "product", "bottom-up"])
def test_one_level_has_the_objective_of_the_vae(inference: str) -> None:
    """The same weights, the same draws: a VAE whose encoder has the features as a hidden layer, to the last bit."""
    ladder = make((3,), inference=inference, width=5)
    vae = registry.build(
        "vae", Spec((6,)), latent_dim=3, likelihood=UNIT, net={**NET, "widths": [8, 5], "decoder_widths": [8]}
    )
    kept = [*ladder.q.parameters(), *ladder.p.x.parameters()]
    vae = vae.double()
    for own, other in zip([*vae.q.parameters(), *vae.p.parameters()], kept, strict=True):
        own.data.copy_(other)
    batch = Batch(data())
    found = []
    for model in (ladder, vae):
        torch.manual_seed(3)
        terms = model.elbo(batch, Clock.final())  # type: ignore[operator]
        found.append([terms.loss, *terms.parts.values(), model.log_prob(batch, 5), model.encode(batch)])
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))


def linear_ladder() -> tuple[LadderVAE, Tensor, MultivariateNormal]:
    """``z2 ~ N(0, 1)``, ``z1 = A z2 + a + t e``, ``x = W z1 + b + e``, A diagonal and W's columns orthogonal.

    Then the posterior factorises as the ladder does, and its weights are set to it: ``p(x|z1)`` is a Gaussian in z1 of
    precision w^2 and mean ``(x - b) / w``; z2 is a regression on x.
    """
    model = make((2, 2), Spec((3,)), net="linear", skips=False, width=3, inference="product")
    w, a, t = (torch.tensor(v).double() for v in ([2.0, 0.5], [1.5, -0.7], [0.6, 1.3]))
    shift, b = torch.tensor([0.4, -1.0]).double(), torch.tensor([0.2, 0.1, -0.3]).double()
    big = torch.tensor([[2.0, 0.0], [0.0, 0.5], [0.0, 0.0]]).double()
    model.p.levels[0].gaussian.trunk = linear(
        torch.cat([a.diag(), torch.zeros(2, 2).double()]), [*shift, *(2 * t.log())]
    )  # type: ignore[union-attr]
    model.p.x.trunk.module = linear(big, b.tolist())  # type: ignore[assignment]
    model.q.encoder.module = nn.Identity()
    model.q.up = nn.ModuleList([nn.Identity()])
    # z1: natural parameters of N((x - b) / w, 1 / w^2) in the unit of t
    location = torch.cat([(w * t)[:, None] * torch.eye(2, 3).double(), torch.zeros(2, 3).double()])
    model.q.heads = nn.ModuleList([linear(location, [*(-(w * t) * b[:2]), *(2 * (w * t).log())])])
    # z2: x_k = w (a z2 + shift + t e) + b + e
    noise = (w * t).square() + 1
    gain = w * a / ((w * a).square() + noise)
    variance = noise / ((w * a).square() + noise)
    up = torch.cat([gain[:, None] * torch.eye(2, 3).double(), torch.zeros(2, 3).double()])
    model.q.top.trunk = linear(up, [*(-gain * (b[:2] + w * shift)), *variance.log()])  # type: ignore[union-attr]
    covariance = big @ (a.square() + t.square()).diag() @ big.T + torch.eye(3).double()
    return model, 2 * data(8, 3), MultivariateNormal(big @ shift + b, covariance)


def linear(weight: Tensor, bias: Sequence[Any]) -> nn.Linear:
    layer = nn.Linear(weight.shape[1], weight.shape[0]).double()
    with torch.no_grad():
        layer.weight.copy_(weight)
        layer.bias.copy_(torch.tensor([float(v) for v in bias], dtype=torch.float64))
    return layer


@torch.no_grad()
def test_a_linear_ladder_at_its_exact_posterior_gives_the_evidence_with_every_draw() -> None:
    model, x, truth = linear_ladder()
    for k in (1, 1, 7):
        assert torch.allclose(model.log_prob(Batch(x), k), truth.log_prob(x), atol=1e-9, rtol=0)
    bounds = torch.stack([model.bound(Batch(x)).elbo for _ in range(4000)])
    z = (bounds.mean(0) - truth.log_prob(x)) / (bounds.std(0) / math.sqrt(len(bounds)))
    assert float(z.abs().max()) < 5  # 8 of them: 5e-6 to fail with nothing wrong


@torch.no_grad()
def test_bounds_of_a_wrong_posterior_rise_with_k_to_the_exact_marginal() -> None:
    model, x, truth = linear_ladder()
    model.q.heads[0].bias[2:] -= 0.3  # type: ignore[index]
    model.q.top.trunk.bias += 0.3  # type: ignore[union-attr, operator]
    exact = truth.log_prob(x)
    draws = {k: torch.stack([model.log_prob(Batch(x), k) for _ in range(150)]) for k in (1, 8, 64)}
    errors = [float(exact.mean() - draws[k].mean()) for k in draws]
    assert errors[0] > errors[1] > errors[2] > -1e-3 and errors[0] > 0.05
    for values in draws.values():
        assert (values.mean(0) < exact + 5 * values.std(0) / math.sqrt(150)).all()
    assert torch.allclose(model.log_prob(Batch(x), 20_000), exact, atol=0.03)


@torch.no_grad()
@pytest.mark.parametrize("skips", [True, False])
@pytest.mark.parametrize("inference", ["residual", "product", "bottom-up"])
def test_rates_by_level_agree_with_draws(inference: str, skips: bool) -> None:
    """Every level's rate is the mean of ``log q - log p``; 3 levels of 5 examples, each |z| < 5: 1e-5 to fail."""
    model, n = make(inference=inference, skips=skips), 20_000
    many = Batch(data().repeat(n, 1))
    rates = {k: v.view(n, 5) for k, v in model.bound(many).rates.items()}
    z, steps = model.q(many.x, None, model.p).draw()
    for i, latent in enumerate(model.latents):
        drawn = (steps[i].log_prob(z[i]) - model.p.prior(i, z).log_prob(z[i])).view(n, 5)
        own = rates[latent.name]
        error = ((drawn.var(0) + own.var(0)) / n).sqrt()
        assert float(((drawn.mean(0) - own.mean(0)) / error).abs().max()) < 5
        assert inference == "bottom-up" or float(own.min()) > 0


@torch.no_grad()
def test_per_dimension_rates_sum_to_those_of_the_levels() -> None:
    bound: Bound = make().bound(Batch(data()))
    assert list(bound.rates) == list(bound.per_dimension) == ["z1", "z2", "z3"]
    for name, rate in bound.rates.items():
        assert torch.allclose(bound.per_dimension[name].sum(1), rate, atol=1e-12, rtol=0)
    assert [v.shape[1] for v in bound.per_dimension.values()] == [4, 3, 2]
    assert list(make(inference="bottom-up").bound(Batch(data())).per_dimension) == ["z3"]


@torch.no_grad()
@pytest.mark.parametrize("skips", [True, False])
@pytest.mark.parametrize("inference", ["residual", "product", "bottom-up"])
def test_a_draw_of_log_prob_is_the_bound_in_expectation(inference: str, skips: bool) -> None:
    """Two ways to the same number: coordinates of the levels and KLs there; coordinates of the code and densities."""
    model, many = make(inference=inference, skips=skips), Batch(data().repeat(8000, 1))
    one, bound = model.log_prob(many, 1).view(8000, 5), model.bound(many).elbo.view(8000, 5)
    z = (one.mean(0) - bound.mean(0)) / ((one.var(0) + bound.var(0)) / 8000).sqrt()
    assert float(z.abs().max()) < 5


@torch.no_grad()
@pytest.mark.parametrize("inference", ["residual", "product", "bottom-up"])
def test_the_density_of_codes_integrates_to_one(inference: str) -> None:
    """Levels of one number each, so that q(code|x) can be summed over a grid."""
    model = make((1, 1), inference=inference)
    q = model.posterior(Batch(data(3)))
    line = torch.linspace(-14, 14, 561).double()
    grid = torch.cartesian_prod(line, line)[:, None]
    total = q.log_prob(grid).exp().sum(0) * (line[1] - line[0]) ** 2
    assert torch.allclose(total, torch.ones(3).double(), atol=1e-4)


@torch.no_grad()
def test_levels_and_codes_are_inverse_and_prior_codes_are_standard() -> None:
    model = make()
    code = torch.randn(7, 9).double()
    z = model.p.to_levels(code)
    assert torch.allclose(model.p.to_code(z)[0], code, atol=1e-10, rtol=0)
    loc, scale = moments(model.p.prior(0, z))
    assert torch.allclose(model.levels(code)["z1"], loc + scale * code[:, :4])
    assert torch.equal(model.levels(code)["z3"], code[:, 7:])
    # at 0 in its part a level is at the mean of its prior given those above; what is above does not move with it
    code[:, :4] = 0
    again = model.levels(code)
    assert torch.equal(again["z1"], loc) and torch.equal(again["z2"], z[1])


@torch.no_grad()
@pytest.mark.parametrize("inference", ["residual", "bottom-up"])
def test_eight_levels(inference: str) -> None:
    """Codes and levels are inverse, and a draw of log_prob is the bound in expectation: 5 of |z| < 5, 3e-6 to fail."""
    model, n = make((2, 3, 2, 1, 2, 1, 2, 1), inference=inference), 4000
    code = torch.randn(7, 14).double()
    assert torch.allclose(model.p.to_code(model.p.to_levels(code))[0], code, atol=1e-9, rtol=0)
    many = Batch(data().repeat(n, 1))
    bound, one = model.bound(many), model.log_prob(many, 1).view(n, 5)
    assert list(bound.rates) == [f"z{i}" for i in range(1, 9)]
    elbo = bound.elbo.view(n, 5)
    z = (one.mean(0) - elbo.mean(0)) / ((one.var(0) + elbo.var(0)) / n).sqrt()
    assert float(z.abs().max()) < 5


def test_the_product_of_two_gaussians_is_their_density_up_to_a_constant() -> None:
    loc, scale = torch.tensor([0.7, -2.0]).double(), torch.tensor([0.5, 3.0]).double()
    seen = Refinement(torch.tensor([1.2, -4.0]).double(), torch.tensor([2.5, 0.3]).double())
    q = product(seen, normal(loc, scale)).base_dist  # type: ignore[attr-defined]
    other = Normal(scale * seen.location / seen.precision, scale / seen.precision.sqrt())
    z = torch.linspace(-3, 3, 7).double()[:, None]
    apart = q.log_prob(z) - Normal(loc, scale).log_prob(z) - other.log_prob(z)
    assert torch.allclose(apart, apart[:1].expand_as(apart), atol=1e-10)


@torch.no_grad()
@pytest.mark.parametrize("inference", ["residual", "product"])
def test_a_level_that_learns_nothing_is_its_prior_and_inactive(inference: str) -> None:
    """Where the pass up says nothing of the lowest level, its rate and its codes are 0; those above stay active."""
    model = make(inference=inference)
    model.q.heads[0].linear.weight.zero_()  # type: ignore[union-attr]
    nothing = -40.0 if inference == "product" else 0.0  # a log precision, and the log of a factor
    model.q.heads[0].linear.bias.copy_(torch.tensor([0.0] * 4 + [nothing] * 4))  # type: ignore[union-attr]
    batch = Batch(data(50))
    assert float(model.bound(batch).rates["z1"].abs().max()) < 1e-7
    variance = model.encode(batch).var(0)
    assert float(variance[:4].max()) < 1e-12 and float(variance[4:].min()) > 1e-3
    # ... though z1 itself moves with what is above it, so that its own variance would count it as active
    assert float(model.levels(model.encode(batch))["z1"].var(0).max()) > 1e-3


def test_free_bits_and_warm_up_are_those_of_the_rate_penalty() -> None:
    x, bits = Batch(data()), 0.5
    free, plain = make(free_bits=bits), make(beta=3.0, beta_schedule={"name": "linear", "epochs": 10})
    for model, clock in ((free, Clock()), (plain, Clock(epoch=torch.tensor(2.5).double()))):
        torch.manual_seed(2)
        bound = model.bound(x)
        torch.manual_seed(2)
        loss = model.elbo(x, clock).loss
        each = torch.cat(list(bound.per_dimension.values()), 1).mean(0).detach()
        penalty = each.clamp(min=bits).sum() if model is free else 0.75 * bound.rate.mean()
        assert torch.allclose(loss, bound.distortion.mean() + penalty, atol=1e-12)
    assert float(each.min()) < bits < float(each.max())
    with pytest.raises(ConfigError, match="bottom-up"):
        make(free_bits=bits, inference="bottom-up")


@pytest.mark.parametrize("bad", [(), (3, 0)])
def test_bad_levels_are_refused(bad: tuple[int, ...]) -> None:
    with pytest.raises(ConfigError, match="latent_dims"):
        registry.build("ladder-vae", Spec((6,)), latent_dims=bad)
    for option in ({"width": 0}, {"inference": "sideways"}):
        with pytest.raises(ConfigError, match=next(iter(option))):
            registry.build("ladder-vae", Spec((6,)), **option)  # type: ignore[arg-type]


@torch.no_grad()
@pytest.mark.parametrize("inference", ["residual", "product", "bottom-up"])
@pytest.mark.parametrize("given", ["labels", "hint"])
def test_a_condition_reaches_encoder_levels_and_decoder(given: str, inference: str) -> None:
    model = make((3, 2), Spec((6,), classes=3, given={"hint": Spec((2,))}), condition=given, inference=inference)
    hint = torch.randn(4, 2).double()
    one = Batch(data(4), torch.tensor([0, 1, 2, 0]), given={"hint": hint})
    other = Batch(one.x, torch.tensor([1, 2, 0, 1]), given={"hint": hint + 1})
    code = torch.randn(4, 5).double()
    a, b = model.levels(code, one), model.levels(code, other)
    assert not torch.allclose(a["z1"], b["z1"]) and torch.equal(a["z2"], b["z2"])
    assert not torch.allclose(model.decode(code, one), model.decode(code, other))
    assert not torch.allclose(model.encode(one), model.encode(other))
    whole = model.log_prob(one, 50_000)
    single = torch.cat([model.log_prob(one.map(lambda t, i=i: t[i : i + 1]), 50_000) for i in range(4)])  # type: ignore[misc]
    assert torch.allclose(whole, single, atol=0.1)
    assert model.posterior(one).log_prob(torch.zeros(7, 1, 5).double()).shape == (7, 4)


@torch.no_grad()
def test_a_chain_is_the_product_of_its_conditionals_in_either_order() -> None:
    for order in ((0, 1), (1, 0)):

        def step(i: int, parts: dict[int, Tensor], order: tuple[int, int] = order) -> Any:
            first = i == order[0]
            centre = torch.ones(3, 2).double() if first else 2 * parts[order[0]]
            return normal(centre, torch.full_like(centre, 0.5 if first else 1.0))

        chain = Chain((2, 2), order, step, torch.Size([3]))
        z = chain.rsample((4,))
        first, second = (z.split(2, -1)[k] for k in order)
        by_hand = Normal(1.0, 0.5).log_prob(first).sum(-1) + Normal(2 * first, 1.0).log_prob(second).sum(-1)
        assert z.shape == (4, 3, 4) and torch.allclose(chain.log_prob(z), by_hand, atol=1e-12)
        assert chain.mean[0].tolist() == ([1, 1, 2, 2] if order == (0, 1) else [2, 2, 1, 1])


@pytest.mark.parametrize("merge", ["residual", "product"])
def test_a_prior_that_follows_the_posterior_leaves_the_refinement_its_size(merge: str) -> None:
    """In the unit of the prior's scale a level's rate and its gradient are the same at any scale of the level."""
    found = []
    for scale in (1.0, 1e-3):
        location = torch.tensor([0.3, -0.2]).double().requires_grad_()
        second, p = torch.tensor([0.4, 0.1]).double(), normal(torch.zeros(2).double(), torch.full((2,), scale).double())
        q = residual(location, second, p) if merge == "residual" else product(Refinement(location, second), p)
        rate = torch.distributions.kl_divergence(q, p)
        found.append(torch.cat([rate.detach()[None], *torch.autograd.grad(rate, location)]))
    assert torch.allclose(*found, rtol=1e-9)


def test_a_residual_posterior_has_the_rate_of_its_change_against_the_standard_normal() -> None:
    change, p = data(2, 3), normal(*data(2, 3).exp().unbind())
    q = residual(change[0], change[1].exp(), p)
    standard = torch.distributions.kl_divergence(
        Normal(change[0], change[1].exp()), Normal(torch.zeros(3).double(), torch.ones(3).double())
    )
    assert torch.allclose(torch.distributions.kl_divergence(q, p), standard.sum(), rtol=1e-12)


@torch.no_grad()
def test_the_priors_start_as_the_standard_normal() -> None:
    model = fresh("ladder-vae", rows(data().float()), latent_dims=(4, 3, 2), net="mlp")
    code = torch.randn(6, 9)
    assert torch.equal(torch.cat([model.levels(code)[k] for k in ("z1", "z2", "z3")], 1), code)  # type: ignore[operator]


def test_training_uses_the_units_that_the_data_has_and_no_others() -> None:
    """Data of rank 2 and a linear ladder of 3 + 2 units: two of them come to carry it."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(1000, 2, generator=generator) @ torch.randn(2, 6, generator=generator) * 2
    x = x + 0.1 * torch.randn(1000, 6, generator=generator)
    model = fresh("ladder-vae", rows(x), latent_dims=(3, 2), net="linear", width=32)
    fit(model, rows(x), epochs=60, batch_size=100, lr=5e-3, schedule="cosine")
    with torch.no_grad():
        variance = model.eval().encode(x).var(0)
    assert sorted((variance > 0.5).tolist()) == sorted((variance > 0.05).tolist()) == [False] * 3 + [True] * 2

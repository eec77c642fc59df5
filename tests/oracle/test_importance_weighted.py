"""Objectives of several draws: their identities, gradients by finite differences, and a linear model in closed form."""

from __future__ import annotations

import copy
import math
from typing import Any

import pytest
import torch
from scipy.stats import t as student
from torch import Tensor
from torch.distributions import Independent, MultivariateNormal, Normal

from sandglass import registry, rng
from sandglass.core import Batch, Clock, Spec
from sandglass.distributions.conditional import Network
from sandglass.errors import ConfigError
from sandglass.models.importance_weighted_vae import ImportanceWeightedVAE

NET = {"name": "mlp", "widths": [8], "activation": "silu"}
UNIT = {"name": "gaussian", "learn": "none", "scale": 1.0}
FINAL = Clock(epoch=torch.tensor(math.inf).double(), update=torch.tensor(math.inf).double())


def make(**options: Any) -> ImportanceWeightedVAE:
    """A model of random weights in float64."""
    torch.manual_seed(0)
    options = {"latent_dim": 2, "net": NET, "likelihood": UNIT, **options}
    model: ImportanceWeightedVAE = registry.build("iwae", Spec((4,), classes=3), **options)  # type: ignore[assignment]
    with torch.no_grad():
        for p in model.parameters():
            p.mul_(1.5)
    return model.double().eval()


def data(n: int = 5) -> Batch:
    x = 2 * torch.randn(n, 4, generator=torch.Generator().manual_seed(1)).double()
    return Batch(x, torch.arange(n) % 3)


def loss(model: ImportanceWeightedVAE, batch: Batch, seed: int = 3, clock: Clock = FINAL) -> Tensor:
    with rng.forked("cpu", seed):
        return model.elbo(batch, clock).loss


def gradients(model: ImportanceWeightedVAE, batch: Batch, seed: int = 3, clock: Clock = FINAL) -> dict[str, Tensor]:
    """By the first letter of their names, ``q`` and ``p``, the gradients of encoder and decoder."""
    model.zero_grad(set_to_none=True)
    loss(model, batch, seed, clock).backward()
    return {part: flat(p.grad for p in getattr(model, part).parameters()) for part in "qp"}


def flat(tensors: Any) -> Tensor:
    return torch.cat([t.flatten() for t in tensors])


def differences(model: ImportanceWeightedVAE, part: str, of: Any, step: float = 1e-6) -> Tensor:
    """Central differences of ``of(model)`` by every parameter of a part."""
    found = []
    with torch.no_grad():
        for p in getattr(model, part).parameters():
            for i in range(p.numel()):
                values = []
                for sign in (1, -1):
                    p.view(-1)[i] += sign * step
                    values.append(float(of(model)))
                    p.view(-1)[i] -= sign * step
                found.append((values[0] - values[1]) / (2 * step))
    return torch.tensor(found, dtype=torch.float64)


def like(model: ImportanceWeightedVAE, **options: Any) -> ImportanceWeightedVAE:
    """A copy with other options of the objective."""
    other = copy.deepcopy(model)
    for name, value in options.items():
        setattr(other, name, value)
    return other


# the objectives


@torch.no_grad()
@pytest.mark.parametrize("gaps", [False, True])
@pytest.mark.parametrize("condition", ["", "labels"])
def test_log_prob_is_the_objective_on_the_same_draws(gaps: bool, condition: str) -> None:
    model, batch = make(draws=7, condition=condition, masked=gaps), data()
    if gaps:
        batch = Batch(batch.x, batch.y, mask=torch.rand(5, 4, generator=torch.Generator().manual_seed(2)) > 0.4)
    with rng.forked("cpu", 3):
        terms = model.elbo(batch, FINAL)
    with rng.forked("cpu", 3):
        found = model.log_prob(batch, 7)
    assert torch.allclose(terms.parts["bound"], found, rtol=0, atol=1e-12)
    assert torch.allclose(terms.loss, -found.mean(), rtol=0, atol=1e-12)


@torch.no_grad()
def test_one_draw_is_the_evidence_bound_of_that_draw_and_its_parts() -> None:
    model, batch = make(draws=1), data()
    with rng.forked("cpu", 3):
        parts = model.elbo(batch, FINAL).parts
    with rng.forked("cpu", 3):
        q = model.posterior(batch)
        z = q.rsample(torch.Size([1]))[0]
        drawn = model.p(z).log_prob(batch.x) + model.prior().log_prob(z) - q.log_prob(z)
    assert torch.allclose(parts["bound"], drawn, atol=1e-12)
    assert torch.allclose(parts["bound"], -(parts["distortion"] + parts["rate"]), atol=1e-12)


SAME = [
    ({"draws": 1, "bounds": 1}, {"draws": 1, "bounds": 1, "estimator": "total", "elbo_weight": 1.0}),
    ({"draws": 6, "bounds": 1}, {"draws": 6, "bounds": 1, "partially": True}),  # M = 1: PIWAE is IWAE
    ({"draws": 6, "elbo_weight": 1.0}, {"draws": 1, "bounds": 6}),  # beta = 1: CIWAE is the evidence bound
    ({"draws": 6, "elbo_weight": 1.0}, {"draws": 3, "bounds": 2, "elbo_weight": 1.0, "partially": True}),
    ({"draws": 1, "bounds": 6, "estimator": "stl"}, {"draws": 1, "bounds": 6, "estimator": "dreg"}),
    ({"draws": 6, "elbo_weight": 1.0, "estimator": "stl"}, {"draws": 6, "elbo_weight": 1.0, "estimator": "dreg"}),
]


@pytest.mark.parametrize(("one", "other"), SAME)
def test_reductions_are_exact_with_their_gradients(one: dict[str, Any], other: dict[str, Any]) -> None:
    model, batch = make(), data()
    first, second = like(model, **one), like(model, **other)
    assert torch.allclose(loss(first, batch), loss(second, batch), rtol=0, atol=1e-12)
    a, b = gradients(first, batch), gradients(second, batch)
    for part in "qp":
        assert torch.allclose(a[part], b[part], rtol=0, atol=1e-11)


@torch.no_grad()
def test_the_bounds_of_the_same_draws_are_ordered() -> None:
    """By Jensen's inequality, for every example: the evidence bound, M bounds of K draws, one bound of M K."""
    model, batch = make(), data(50)
    found = []
    for options in ({"draws": 1, "bounds": 12}, {"draws": 3, "bounds": 4}, {"draws": 12, "bounds": 1}):
        with rng.forked("cpu", 3):
            found.append(like(model, **options).elbo(batch, FINAL).parts["bound"])
    assert (found[0] < found[1]).all() and (found[1] < found[2]).all()
    with rng.forked("cpu", 3):
        mixed = like(model, draws=12, elbo_weight=0.3).elbo(batch, FINAL).parts["bound"]
    assert torch.allclose(mixed, 0.3 * found[0] + 0.7 * found[2], atol=1e-12)
    with rng.forked("cpu", 3):
        partial = like(model, draws=3, bounds=4, partially=True).elbo(batch, FINAL).parts
    assert torch.allclose(partial["bound"], found[2], atol=1e-12)
    assert torch.allclose(partial["encoder_bound"], found[1], atol=1e-12)


# gradients


@pytest.mark.parametrize(
    "options",
    [
        {"draws": 6},
        {"draws": 3, "bounds": 2},
        {"draws": 6, "elbo_weight": 0.3},
        {"draws": 3, "bounds": 2, "partially": True},
        {"draws": 3, "bounds": 2, "partially": True, "elbo_weight": 0.3},
    ],
    ids=str,
)
@pytest.mark.parametrize("beta", [1.0, 0.25])
def test_gradients_are_finite_differences_of_each_networks_own_bound(options: dict[str, Any], beta: float) -> None:
    model, batch = make(beta_schedule={"name": "linear", "epochs": 4}, **options), data()
    clock = Clock(epoch=torch.tensor(4 * beta).double())
    found = gradients(model, batch, clock=clock)
    for part in "qp":
        whole = part == "p" and options.get("partially", False)
        own = like(model, partially=False, bounds=1 if whole else model.bounds)
        own.draws = model.draws * model.bounds // own.bounds
        for name in "qp":
            setattr(own, name, getattr(model, name))
        expected = differences(model, part, lambda _, own=own: loss(own, batch, clock=clock))
        assert torch.allclose(found[part], expected, rtol=1e-5, atol=1e-7), part


@pytest.mark.parametrize("estimator", ["stl", "dreg"])
@pytest.mark.parametrize("bounds", [1, 2])
def test_path_gradients_are_those_of_their_definition(estimator: str, bounds: int) -> None:
    """Draw by draw, with the parameters of q fixed in its density, and the decoder's gradient that of the bound."""
    model, batch = make(draws=6 // bounds, bounds=bounds, estimator=estimator), data()
    found = gradients(model, batch)
    plain = gradients(like(model, estimator="total"), batch)
    assert torch.allclose(found["p"], plain["p"], atol=1e-11) and not torch.allclose(found["q"], plain["q"])
    with rng.forked("cpu", 3):
        q = model.posterior(batch)
        z = q.rsample(torch.Size([6]))
    base = q.base_dist  # type: ignore[attr-defined]
    fixed = Independent(Normal(base.loc.detach(), base.scale.detach()), 1)
    each = [model.p(z[k]).log_prob(batch.x) + model.prior().log_prob(z[k]) - fixed.log_prob(z[k]) for k in range(6)]
    log_w = torch.stack(each)
    w = log_w.detach().unflatten(0, (bounds, -1)).softmax(1)
    w = (w if estimator == "stl" else w**2).flatten(0, 1) / bounds
    expected = torch.autograd.grad(-(w * log_w).sum(0).mean(), list(model.q.parameters()))
    assert torch.allclose(found["q"], flat(expected), atol=1e-11)


@pytest.mark.parametrize("options", [{}, {"bounds": 2, "draws": 3}, {"elbo_weight": 0.3}, {"beta": 0.4}], ids=str)
def test_the_doubly_reparameterized_gradient_is_that_of_the_bound_in_expectation(options: dict[str, Any]) -> None:
    """Means of 100 gradients of 500 examples are told apart at most once in 10,000 seeds; those of ``stl`` are, by far.

    With beta below 1, too, where the weight of the path is ``(1 - beta) w + beta w^2``.
    """
    model, batch = make(**{"draws": 6, **options}), Batch(data(1).x.repeat(500, 1))
    samples = {
        estimator: torch.stack(
            [gradients(like(model, estimator=estimator), batch, 1000 * k + i)["q"] for i in range(100)]
        )
        for k, estimator in enumerate(("total", "dreg", "stl"))
    }
    limit = float(student.isf(1e-4 / (2 * samples["total"].shape[1]), 99))
    assert apart(samples["total"], samples["dreg"]) < limit
    assert apart(samples["total"], samples["stl"]) > 1.5 * limit
    assert float(samples["dreg"].var(0).sum()) < 0.7 * float(samples["total"].var(0).sum())


def apart(a: Tensor, b: Tensor) -> float:
    """The largest difference of two means, in standard errors."""
    error = ((a.var(0) + b.var(0)) / len(a)).sqrt()
    return float(((a.mean(0) - b.mean(0)).abs() / error.clamp(min=1e-12)).max())


# a linear model, of which all is known


def linear(w: Tensor, b: Tensor) -> torch.nn.Linear:
    layer = torch.nn.Linear(w.shape[1], w.shape[0]).double()
    with torch.no_grad():
        layer.weight.copy_(w)
        layer.bias.copy_(b)
    return layer


def exact(**options: Any) -> tuple[ImportanceWeightedVAE, MultivariateNormal]:
    """``x = W z + b + e`` with orthogonal columns of W, the encoder at the posterior, and the distribution of x."""
    model = make(beta_schedule="constant", **options)
    w = torch.tensor([[2.0, 0.0], [0.0, 0.7], [1.0, 0.0], [0.0, -0.7]]).double()
    b = torch.tensor([0.2, 0.1, -0.3, 1.0]).double()
    variance = 1 / (1 + w.square().sum(0))
    gain = variance[:, None] * w.T
    model.p.trunk = Network(linear(w, b))  # type: ignore[assignment]
    up, level = torch.cat([gain, torch.zeros(2, 4).double()]), torch.cat([-gain @ b, variance.log()])
    model.q.trunk = Network(linear(up, level))
    return model, MultivariateNormal(b, w @ w.T + torch.eye(4).double())


@pytest.mark.parametrize(
    "options", [{}, {"bounds": 3}, {"bounds": 3, "partially": True}, {"elbo_weight": 0.5}], ids=str
)
@pytest.mark.parametrize("estimator", ["total", "stl", "dreg"])
def test_at_the_exact_posterior_every_draw_is_the_evidence(options: dict[str, Any], estimator: str) -> None:
    """The bound has no variance, and path gradients of the encoder are 0."""
    model, truth = exact(draws=4, estimator=estimator, **options)
    batch = data(8)
    terms = model.elbo(batch, FINAL)
    assert torch.allclose(terms.parts["bound"], truth.log_prob(batch.x), atol=1e-10)
    found = gradients(model, batch)
    assert (float(found["q"].abs().max()) < 1e-10) == (estimator != "total")


@torch.no_grad()
def test_bounds_rise_with_k_and_stay_under_the_evidence() -> None:
    """12 comparisons of means over 4,000 draws of 8 examples; with nothing wrong, one fails in 10,000 seeds at most."""
    model, truth = exact()
    model.q.trunk.module.bias += torch.tensor([0.3, -0.5, 0.8, -0.6]).double()  # type: ignore[operator, union-attr]
    batch, n = data(8), 500
    evidence, many = truth.log_prob(batch.x).mean(), Batch(batch.x.repeat(n, 1))
    found = {}
    for i, k in enumerate((1, 2, 4, 8, 16, 32, 64)):
        with rng.forked("cpu", 50 + i):
            found[k] = model.log_prob(many, k).view(n, 8).mean(1)  # of the same examples: only the draws differ
    limit = float(student.isf(1e-4 / 13, n - 1))
    error = {k: v.std() / math.sqrt(n) for k, v in found.items()}
    for k, v in found.items():
        assert v.mean() < evidence + limit * error[k]
        if k > 1:
            before = found[k // 2]
            assert v.mean() > before.mean() - limit * (error[k].square() + error[k // 2].square()).sqrt()
    assert evidence - found[1].mean() > 0.5 and evidence - found[64].mean() < 0.1  # the bounds do differ


@torch.no_grad()
@pytest.mark.parametrize("draws", [0, 20_000])
def test_what_is_filled_in_is_the_conditional_of_the_rest(draws: int) -> None:
    """A Gaussian given some of its values, in closed form, from draws of a posterior that is wrong."""
    model, truth = exact(imputations=200_000)
    model.q.trunk.module.bias += torch.tensor([0.8, -0.8, 0.8, 0.5]).double()  # type: ignore[operator, union-attr]
    x = data(1).x
    mask = torch.tensor([[True, False, True, False]])
    wild = x.masked_fill(~mask, 1e30)
    with rng.forked("cpu", 4):
        filled = model.complete(Batch(wild, mask=mask), draws).x
    seen, gone = mask[0], ~mask[0]
    s, m = truth.covariance_matrix, truth.mean
    gain = s[gone][:, seen] @ s[seen][:, seen].inverse()
    mean, covariance = m[gone] + gain @ (x[0, seen] - m[seen]), s[gone][:, gone] - gain @ s[seen][:, gone]
    assert torch.equal(filled[:, seen], x[:, seen].expand(max(draws, 1), -1))
    assert torch.allclose(filled[:, gone].mean(0), mean, atol=0.04)
    if draws:
        assert torch.allclose(filled[:, gone].T.cov(), covariance, atol=0.06)
    with rng.forked("cpu", 4):
        by_the_posterior = super(ImportanceWeightedVAE, model).complete(Batch(wild, mask=mask), draws).x
    assert not torch.allclose(by_the_posterior[:, gone].mean(0), mean, atol=0.12)


# options


@pytest.mark.parametrize(
    "bad", [{"draws": 0}, {"bounds": 0}, {"imputations": 0}, {"elbo_weight": 1.5}, {"estimator": "reinforce"}], ids=str
)
def test_bad_options_are_refused_by_name(bad: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=next(iter(bad))):
        registry.build("iwae", Spec((4,)), **bad)


@torch.no_grad()
def test_pieces_of_a_completion_do_not_change_it(monkeypatch: pytest.MonkeyPatch) -> None:
    model, batch = make(imputations=37, condition="labels"), data(6)
    batch = Batch(batch.x, batch.y, mask=batch.x > 0)
    found = []
    for limit in (2**20, 50):
        monkeypatch.setattr("sandglass.distributions.evidence._IN_CACHE", limit)
        with rng.forked("cpu", 4):
            found.append(torch.cat([model.complete(batch).x, model.complete(batch, 3).x]))
    assert torch.allclose(*found, atol=1e-12)

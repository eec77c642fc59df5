"""Annealed importance sampling against exact likelihoods, and its steps against the density they must leave alone."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.distributions import (
    Bernoulli,
    Beta,
    Categorical,
    Distribution,
    Independent,
    MixtureSameFamily,
    MultivariateNormal,
    Normal,
    Poisson,
)

from sandglass import registry
from sandglass.core import Batch, Spec
from sandglass.data.dataset import Split
from sandglass.errors import CapabilityError, ConfigError
from sandglass.metrics import ais
from sandglass.metrics.ais import AnnealedImportance, Path, anneal, hamiltonian, temperatures
from sandglass.metrics.measure import measure
from sandglass.models.vae import VAE

WEIGHT = torch.tensor([[1.5, 0.0], [-0.5, 0.8], [0.3, 0.6]]).double()
NOISE = 0.6


def linear_gaussian() -> tuple[VAE, Tensor]:
    """x = W z + 0.6 e, in float64, and 5 examples."""
    likelihood = {"name": "gaussian", "learn": "none", "scale": NOISE}
    torch.manual_seed(0)
    model: VAE = registry.build("vae", Spec((3,)), net="linear", latent_dim=2, likelihood=likelihood).double()  # type: ignore[assignment]
    with torch.no_grad():
        model.p.trunk.module[0].weight.copy_(WEIGHT)
        model.p.trunk.module[0].bias.zero_()
    return model.eval(), torch.randn(5, 3).double()


def exact(x: Tensor, seen: list[int] | None = None) -> Tensor:
    """log p(x), or of some of its entries."""
    w = WEIGHT if seen is None else WEIGHT[seen]
    covariance = w @ w.T + NOISE**2 * torch.eye(len(w)).double()
    return MultivariateNormal(torch.zeros(len(w)).double(), covariance).log_prob(x if seen is None else x[:, seen])


def posterior(x: Tensor) -> MultivariateNormal:
    """p(z|x) in closed form."""
    precision = torch.eye(2).double() + WEIGHT.T @ WEIGHT / NOISE**2
    return MultivariateNormal(x @ WEIGHT @ torch.linalg.inv(precision) / NOISE**2, precision_matrix=precision)


def scores(weights: Tensor, log_p: Tensor) -> Tensor:
    """How many standard errors the mean of the weights is from p(x), for every example."""
    ratio = (weights - log_p).exp()
    return (ratio.mean(0) - 1) / (ratio.std(0) / len(ratio) ** 0.5)


def test_the_mean_of_the_weights_is_the_likelihood() -> None:
    """Each |z| < 5 of 10: a chance of about 10^-5, seeds fixed. A step that moved the density shows."""
    model, x = linear_gaussian()
    path = Path.of(model, Batch(x))
    for schedule in ("sigmoid", "linear"):
        measure = AnnealedImportance(steps=12, leapfrog=4, chains=4000, schedule=schedule)  # type: ignore[arg-type]
        weights, accepted = measure.weights(path)
        assert weights.dtype == torch.float64 and weights.shape == (4000, 5)
        assert scores(weights, exact(x)).abs().max() < 5
        assert float((weights - exact(x)).exp().std(0).max()) < 4  # so that 4,000 chains would see a bias of a third
        assert (accepted > 0.3).all()


def test_under_a_condition_it_is_the_likelihood_given_that() -> None:
    """A linear decoder moved by the class: log p(x|c) in closed form; under another class it is far off."""
    torch.manual_seed(0)
    likelihood = {"name": "gaussian", "learn": "none", "scale": NOISE}
    options = {"net": "linear", "latent_dim": 2, "likelihood": likelihood, "condition": "labels"}
    model: VAE = registry.build("vae", Spec((3,), classes=2), **options).double().eval()  # type: ignore[assignment]
    x, y = torch.randn(4, 3).double(), torch.tensor([0, 1, 1, 0])
    with torch.no_grad():
        for p in model.p.trunk.parameters():
            p.mul_(3)
        points = torch.cat([torch.zeros(1, 2), torch.eye(2)]).double()
        means = torch.stack([model.p(points, c.double().expand(3, 2)).mean for c in torch.eye(2)])
    at_zero, w = means[:, 0], (means[:, 1:] - means[:, :1]).transpose(1, 2)
    covariance = w @ w.transpose(1, 2) + NOISE**2 * torch.eye(3).double()
    truth = MultivariateNormal(at_zero[y], covariance[y]).log_prob(x)
    measure = AnnealedImportance(steps=12, leapfrog=4, chains=4000)
    weights, _ = measure.weights(Path.of(model, Batch(x, y)))
    assert scores(weights, truth).abs().max() < 5
    other, _ = measure.weights(Path.of(model, Batch(x, 1 - y)))
    assert scores(other, truth).abs().max() > 20


def test_it_is_a_lower_bound_from_the_prior_and_an_upper_one_from_the_posterior() -> None:
    """One chain each: the mean of 2,000 logs. Jensen's gap is many standard errors, and narrows with steps."""
    model, x = linear_gaussian()
    path, gaps = Path.of(model, Batch(x)), []
    torch.manual_seed(3)
    for steps in (5, 40):
        line = temperatures(steps)
        sizes = anneal(path, path.start(500), line, 4).sizes
        below = anneal(path, path.start(2000), line, 4, sizes).weights - exact(x)
        start = posterior(x).sample(torch.Size([2000]))
        above = -anneal(path, start, line[::-1], 4, sizes[::-1]).weights - exact(x)
        for gap in (-below, above):
            assert (gap.mean(0) / (gap.std(0) / 2000**0.5) > 5).all()
        gaps.append(torch.stack([-below.mean(), above.mean()]))
        assert scores(-above + 0 * below, torch.zeros(5)).abs().max() < 5  # downwards the mean is 1 / p(x)
    assert (gaps[1] < 0.35 * gaps[0]).all(), gaps


class Folded(torch.nn.Module):
    """A decoder that folds the line: p(z|x) has two humps."""

    def forward(self, z: Tensor) -> Distribution:
        logits = torch.cat([2 * z.square() - 2, 1 - z.square(), 0.5 * z], -1)
        return Independent(Bernoulli(logits=logits), 1)


def test_a_folded_decoder_is_integrated() -> None:
    x = torch.tensor([[1.0, 0, 1], [0, 1, 0], [1, 1, 1]]).double()
    grid = torch.linspace(-10, 10, 20_001).double()
    prior = Independent(Normal(torch.zeros(1).double(), 1.0), 1)
    joint = (
        torch.stack([Folded()(grid[:, None]).log_prob(row) for row in x], 1) + prior.log_prob(grid[:, None])[:, None]
    )
    torch.manual_seed(0)
    weights, _ = AnnealedImportance(steps=10, leapfrog=4, chains=4000).weights(Path(prior, Folded(), x))
    assert scores(weights, torch.trapezoid(joint.exp(), grid, dim=0).log()).abs().max() < 5


def test_a_prior_with_bounds_is_walked_without_them() -> None:
    """z ~ Beta(2, 3), x ~ N(4 z, 1/2): by quadrature on (0, 1)."""
    prior = Independent(Beta(torch.tensor([2.0]).double(), torch.tensor([3.0]).double()), 1)

    def likelihood(z: Tensor) -> Distribution:
        return Independent(Normal(4 * z, 0.5), 1)

    x, grid = torch.tensor([[0.2], [3.0]]).double(), torch.linspace(0, 1, 40_001).double()[1:-1]
    joint = prior.log_prob(grid[:, None])[:, None] + torch.stack(
        [likelihood(grid[:, None]).log_prob(row) for row in x], 1
    )
    torch.manual_seed(0)
    weights, _ = AnnealedImportance(steps=15, leapfrog=4, chains=4000).weights(Path(prior, likelihood, x))
    assert scores(weights, torch.trapezoid(joint.exp(), grid, dim=0).log()).abs().max() < 5


@pytest.mark.parametrize("b", [0.3, 1.0])
def test_a_step_leaves_its_density_as_it_is(b: float) -> None:
    """20,000 exact draws, ten steps: means and products within |z| < 5, 30 of them (2 in 10^5)."""
    model, x = linear_gaussian()
    precision = torch.eye(2).double() + b * WEIGHT.T @ WEIGHT / NOISE**2
    p = MultivariateNormal(b * x[:1] @ WEIGHT @ torch.linalg.inv(precision) / NOISE**2, precision_matrix=precision)
    torch.manual_seed(0)
    path, start = Path.of(model, Batch(x[:1])), p.sample(torch.Size([20_000]))
    for size in (0.1, 0.4, 0.6):
        u = start
        for _ in range(10):
            u, likelihood, chance = hamiltonian(path, u, b, torch.tensor([size]).double(), 3)
        assert torch.allclose(likelihood, path.parts(u)[1]) and 0.02 < float(chance) <= 1
        assert float((u - start).abs().mean()) > 0.1
        root = torch.linalg.cholesky(precision)
        white = (u[:, 0] - p.mean) @ root
        for values in (white[:, 0], white[:, 1], *(white.square() - 1).unbind(1), white.prod(1)):
            assert abs(float(values.mean() / (values.std() / 20_000**0.5))) < 5, size


def test_steps_keep_their_energy_in_the_limit() -> None:
    model, x = linear_gaussian()
    path = Path.of(model, Batch(x))
    chances = []
    for size, leapfrog in ((0.24, 3), (0.12, 6), (0.06, 12)):  # of one length
        torch.manual_seed(0)
        sizes = torch.full((5,), size).double()
        _, _, chance = hamiltonian(path, posterior(x).sample(torch.Size([2000])), 1.0, sizes, leapfrog)
        chances.append(1 - float(chance.mean()))
    assert (
        3 < chances[0] / chances[1] < 9 and 3 < chances[1] / chances[2] < 9
    )  # the leapfrog's error is of second order


def test_step_sizes_find_the_acceptance_that_is_aimed_at() -> None:
    model, x = linear_gaussian()
    path = Path.of(model, Batch(x))
    torch.manual_seed(0)
    run = anneal(path, path.start(300), temperatures(100), 5)
    again = anneal(path, path.start(300), temperatures(100), 5, run.sizes)
    assert len(run.sizes) == 99 and all(torch.equal(a, b) for a, b in zip(run.sizes, again.sizes, strict=True))
    assert ((run.accepted - 0.65).abs() < 0.1).all() and ((again.accepted - 0.65).abs() < 0.1).all()


def test_step_sizes_are_other_chains(monkeypatch: pytest.MonkeyPatch) -> None:
    """What adapts to its own chain is no longer a chain that leaves its density alone."""
    model, x = linear_gaussian()
    calls: list[tuple[int, object]] = []
    runs: list[ais.Annealed] = []

    def spied(path: Path, u: Tensor, line: list[float], leapfrog: int, sizes: object = None) -> ais.Annealed:
        calls.append((len(u), sizes))
        runs.append(anneal(path, u, line, leapfrog, sizes))  # type: ignore[arg-type]
        return runs[-1]

    monkeypatch.setattr(ais, "anneal", spied)
    weights, accepted = AnnealedImportance(steps=5, chains=8).weights(Path.of(model, Batch(x)))
    assert calls == [(2, None), (8, runs[0].sizes)]
    assert weights is runs[1].weights and accepted is runs[1].accepted


def test_what_is_not_finite_is_refused() -> None:
    prior = Independent(Normal(torch.zeros(1).double(), 1.0), 1)

    def broken(z: Tensor) -> Distribution:
        return Independent(Normal(torch.where(z > 1, torch.nan, z), 1.0, validate_args=False), 1, validate_args=False)

    path = Path(prior, broken, torch.zeros(1, 1).double())
    u = torch.zeros(500, 1, 1).double()
    for _ in range(20):
        u, likelihood, _ = hamiltonian(path, u, 1.0, torch.tensor([0.5]).double(), 3)
    assert (u <= 1).all() and torch.isfinite(likelihood).all() and u.std() > 0.2


def test_it_is_the_likelihood_of_what_is_seen() -> None:
    model, x = linear_gaussian()
    mask = torch.tensor([True, False, True]).expand(5, 3)
    path = Path.of(model, Batch(x.masked_fill(~mask, 1e30), mask=mask))
    weights, _ = AnnealedImportance(steps=12, leapfrog=4, chains=4000).weights(path)
    assert scores(weights, exact(x, [0, 2])).abs().max() < 5


def test_the_measure_says_what_it_did(monkeypatch: pytest.MonkeyPatch) -> None:
    """The noise of the chains is about 0.05 nats on the mean."""
    model, x = linear_gaussian()
    options = {"steps": 40, "leapfrog": 3, "chains": 100}
    (whole,) = measure(model, Split(x), names=["ais"], ais=options)
    assert whole.value == pytest.approx(float(exact(x).mean()), abs=0.25) and whole.n == 5
    assert whole.stderr == pytest.approx(float(exact(x).std()) / 5**0.5, rel=0.2)
    assert "5 examples, 40 temperatures, 100 chains" in whole.note and "density" in whole.note
    sizes: list[int] = []
    monkeypatch.setattr(ais, "decoded_at_once", lambda size, device: sizes.append(size) or 2)  # two examples at a time
    (pieces,) = measure(model, Split(x), names=["ais"], ais=options)
    assert pieces.value == pytest.approx(float(exact(x).mean()), abs=0.25) and pieces.value != whole.value
    assert sizes == [300] and measure(model, Split(x), names=["ais"], ais={**options, "images": 4})[0].n == 4


def test_temperatures_rise_from_0_to_1() -> None:
    for steps in (1, 2, 7, 500):
        for schedule in ("sigmoid", "linear"):
            line = temperatures(steps, schedule)
            assert len(line) == steps + 1 and line[0] == 0 and line[-1] == 1 and line == sorted(set(line))
    (result,) = measure(*one(), names=["ais"], ais={"steps": 1, "images": 2})
    assert math.isfinite(result.value)


def one() -> tuple[VAE, Split]:
    model, x = linear_gaussian()
    return model, Split(x)


def test_what_cannot_be_annealed_is_refused_in_a_line() -> None:
    for options in ({"steps": 0}, {"chains": 0}, {"images": 0}, {"leapfrog": 0}, {"schedule": "cosine"}):
        with pytest.raises(ConfigError, match=r"ais"):
            measure(*one(), names=["ais"], ais=options)
    gan = registry.build("gan", Spec((3,)), latent_dim=2, net="mlp")
    with pytest.raises(CapabilityError, match="log_prob"):
        measure(gan, Split(torch.randn(5, 3)), names=["ais"])
    model, split = one()
    model.pz.forward = lambda: Independent(Poisson(torch.ones(2)), 1)
    with pytest.raises(CapabilityError, match="real numbers"):
        measure(model, split, names=["ais"])


def test_a_mixture_can_be_the_prior() -> None:
    model, x = linear_gaussian()
    parts = Independent(Normal(torch.tensor([[-2.0, 0.0], [2.0, 0.0]]).double(), 1.0), 1)
    prior = MixtureSameFamily(Categorical(torch.ones(2).double()), parts)
    covariance = WEIGHT @ WEIGHT.T + NOISE**2 * torch.eye(3).double()
    each = [MultivariateNormal(WEIGHT @ m, covariance).log_prob(x) for m in parts.mean]
    weights, _ = AnnealedImportance(steps=12, leapfrog=4, chains=4000).weights(Path(prior, model.p, x))
    assert scores(weights, torch.stack(each).logsumexp(0) - math.log(2)).abs().max() < 5

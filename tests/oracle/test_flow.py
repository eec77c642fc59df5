"""Flows against normal data, for which the best velocity, the path of every point and the density are known."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch import Tensor, nn
from torch.distributions import MultivariateNormal

from helpers import fresh, rows
from sandglass import rng
from sandglass.core import Batch, Spec
from sandglass.errors import ConfigError
from sandglass.models._flow import Flow, divergence, draw_times, integrate, on_path
from sandglass.models.flow_matching import FlowMatching, arc
from sandglass.nets.mlp import MLP
from sandglass.nets.resnet import ResNet

MEAN = torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64)
ROOT = torch.tensor([[0.5, 0.0, 0.0], [0.3, 1.2, 0.0], [-0.1, 0.4, 0.8]], dtype=torch.float64)
COVARIANCE = ROOT @ ROOT.T
LENGTHS, AXES = torch.linalg.eigh(COVARIANCE)


class Best(nn.Module):
    """The best velocity for normal data, ``m + (t S - (1 - t)) ((1 - t)^2 + t^2 S)^-1 (x - t m)``, and a change."""

    def __init__(self, change: Tensor | None = None) -> None:
        super().__init__()
        self.change = torch.zeros(3, dtype=torch.float64) if change is None else change

    def forward(self, x: Tensor, t: Tensor, c: Tensor | None = None) -> Tensor:
        t = t[:, None]
        along = (x - t * MEAN) @ AXES
        return (
            self.change + MEAN + (along * (t * LENGTHS - (1 - t)) / ((1 - t).square() + t.square() * LENGTHS)) @ AXES.T
        )


def exact(**options: object) -> Flow:
    """A flow with the best velocity."""
    flow = Flow(MLP(widths=()), (3,), **options).double()  # type: ignore[arg-type]
    flow.velocity = Best()  # type: ignore[assignment]
    return flow


def noise(n: int) -> Tensor:
    return torch.randn(n, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def carried(z: Tensor) -> Tensor:
    """Where the flow of the best velocity carries noise: along every axis the standard deviation grows from 1."""
    return MEAN + (z @ AXES * LENGTHS.sqrt()) @ AXES.T


def test_a_path_is_straight_and_its_velocity_its_derivative() -> None:
    e, x = noise(5), noise(10)[5:]
    t = torch.rand(5, dtype=torch.float64).requires_grad_()
    point, velocity = on_path(e, x, t)
    slope = torch.stack([torch.autograd.grad(point[:, i].sum(), t, retain_graph=True)[0] for i in range(3)], 1)
    assert torch.equal(velocity, x - e) and torch.allclose(slope, velocity)
    assert torch.equal(on_path(e, x, torch.zeros(5))[0], e) and torch.equal(on_path(e, x, torch.ones(5))[0], x)


@pytest.mark.parametrize(("solver", "order"), [("midpoint", 2), ("heun", 2), ("euler", 1)])
def test_a_solver_has_its_order(solver: str, order: int) -> None:
    """Twice the steps divide the error by two to the order of the solver, or more."""
    z = noise(50)
    errors = [float((exact(steps=n, solver=solver).forwards(z) - carried(z)).abs().max()) for n in (16, 32, 64)]
    assert errors[0] < (0.02 if order == 2 else 0.3)
    for coarse, fine in itertools.pairwise(errors):
        assert coarse / fine > 0.85 * 2**order


def test_samples_of_the_best_velocity_have_the_moments_of_the_data() -> None:
    """Within four standard errors of 20,000 samples, and the error of 16 steps."""
    samples = exact().forwards(noise(20_000))
    error = COVARIANCE.diagonal().sqrt() / math.sqrt(20_000)
    assert ((samples.mean(0) - MEAN).abs() < 4 * error + 0.003).all()
    spread = (COVARIANCE.diagonal()[:, None] * COVARIANCE.diagonal() + COVARIANCE.square()).sqrt() / math.sqrt(20_000)
    assert ((samples.T.cov() - COVARIANCE).abs() < 4 * spread + 0.01).all()


def test_backwards_undoes_forwards() -> None:
    z = noise(50)
    flow = exact(steps=64)
    assert (flow.backwards(flow.forwards(z)) - z).abs().max() < 1e-3
    assert (flow.backwards(carried(z)) - z).abs().max() < 1e-3


def test_the_best_velocity_minimises_the_loss() -> None:
    """A change of the velocity by d raises the mean squared error by ``|d|^2``, at any time, if it was the best."""
    n = 200_000
    with rng.forked("cpu", 3):
        x = MultivariateNormal(MEAN, COVARIANCE).sample((n,))
    flow = exact()

    def error(change: Tensor, seed: int = 0) -> Tensor:
        flow.velocity = Best(change)  # type: ignore[assignment]
        with rng.forked("cpu", seed):
            return flow.loss(x)

    least = error(torch.zeros(3, dtype=torch.float64))
    for change in torch.eye(3, dtype=torch.float64) * 0.5:
        more = error(change) - least
        assert abs(float(more.mean()) - 0.25) < 4 * float(more.std()) / math.sqrt(n)


def test_without_its_network_a_velocity_is_the_best_for_normal_data_of_variance_1() -> None:
    """And what is left to the network, ``((1 - t) x - t e) / sqrt(d)``, has variance 1 at every time."""
    velocity = Flow(MLP(widths=()), (3,)).double().velocity
    velocity.network = lambda x, t, c: torch.zeros_like(x)  # type: ignore[method-assign]
    with rng.forked("cpu", 8):
        x, e = torch.randn(2, 100_000, 3, dtype=torch.float64)
    for time in (0.0, 0.3, 0.5, 0.9, 1.0):
        t, d = torch.full((len(x),), time, dtype=torch.float64), (1 - time) ** 2 + time**2
        point, slope = on_path(e, x, t)
        assert torch.allclose(velocity(point, t), (2 * time - 1) / d * point)
        left = (slope - velocity(point, t)) * math.sqrt(d)
        assert torch.allclose(left, ((1 - time) * x - time * e) / math.sqrt(d))
        assert left.std() == pytest.approx(1, abs=0.01)


def test_the_density_is_that_of_the_data() -> None:
    truth = MultivariateNormal(MEAN, COVARIANCE)
    with rng.forked("cpu", 4):
        x = truth.sample((40,))
        flow = exact(steps=32)
        expected = truth.log_prob(x)
        assert (flow.log_prob(x) - expected).abs().max() < 5e-3
        guesses = torch.stack([flow.log_prob(x[:1], probes=1) for _ in range(20)])
        many = flow.log_prob(x, probes=200)
    assert float(guesses.std()) > 0.01  # a single direction is a guess
    assert (many - expected).abs().max() < 0.2 and abs(float((many - expected).mean())) < 0.03


def test_the_scale_enters_the_density_and_both_directions() -> None:
    """Data in other units: densities change by the logarithm of the unit, noise not at all."""
    flow, other = exact(), exact()
    other.mean += 5
    other.scale *= torch.tensor([2.0, 0.5, 3.0])
    x = carried(noise(6))
    moved = x * other.scale + other.mean
    assert torch.allclose(other.forwards(noise(6)), flow.forwards(noise(6)) * other.scale + other.mean)
    assert torch.allclose(other.backwards(moved), flow.backwards(x))
    assert torch.allclose(other.log_prob(moved), flow.log_prob(x) - math.log(3.0))


def test_the_density_of_a_trained_model_is_one_of_its_samples() -> None:
    """Densities integrate to 1: on a grid in 1-D, of an untrained network that is not linear."""
    model = fresh("flow-matching", rows(torch.zeros(2, 1)), steps=32).double().eval()
    grid = torch.linspace(-8, 8, 161, dtype=torch.float64)[:, None]
    assert model.provides[-2:] == ("log_prob", "score")
    mass = float(torch.trapezoid(model.log_prob(grid).exp().detach(), grid[:, 0]))
    assert mass == pytest.approx(1, abs=2e-3)
    assert torch.equal(model.score(grid), -model.log_prob(grid))


def test_no_density_where_values_repeat() -> None:
    model = FlowMatching(Spec((1, 8, 8), "unit"))
    assert "log_prob" not in model.provides and "score" not in model.provides


def test_mean_and_scale_are_those_of_the_examples() -> None:
    with rng.forked("cpu", 5):
        x = torch.randn(100, 2, 3, 5) * torch.tensor([2.0, 0.1]).view(2, 1, 1) + torch.tensor([1e4, 0.0]).view(2, 1, 1)
    flow = Flow(ResNet(width=4), (2, 3, 5))
    flow.fit([x[:70], x[70:]])
    flat = x.transpose(0, 1).flatten(1).double()
    assert torch.allclose(flow.mean.flatten().double(), flat.mean(1))
    assert torch.allclose(flow.scale.flatten().double(), flat.std(1, unbiased=False), rtol=1e-4)
    constant = Flow(MLP(), (2,))
    constant.fit([torch.tensor([[1.0, 7.0], [3.0, 7.0]])])
    assert constant.scale.tolist() == [1.0, 1.0] and constant.mean.tolist() == [2.0, 7.0]
    with pytest.raises(ConfigError, match="no examples"):
        constant.fit([])


@pytest.mark.parametrize("how", ["logit-normal", "uniform"])
def test_times_have_their_distribution(how: str) -> None:
    """One in each n-th of it: the empirical distribution function is within 1/n of the true one."""
    t = draw_times(1000, torch.zeros(1, dtype=torch.float64), how).sort().values
    at = torch.special.ndtr(torch.logit(t)) if how == "logit-normal" else t
    assert (at - torch.arange(1000) / 1000).abs().max() < 1.001 / 1000
    assert t.min() >= 0 and t.max() < 1


def test_divergence_is_the_trace_of_the_jacobian() -> None:
    with rng.forked("cpu", 6):
        matrix, x = torch.randn(4, 4), torch.randn(3, 4, requires_grad=True)
        signs = torch.randn(20_000, 3, 4).sign()
    v = (x @ matrix.T).tanh()
    jacobian = torch.stack([torch.autograd.functional.jacobian(lambda r: (matrix @ r).tanh(), row) for row in x])
    trace = jacobian.diagonal(dim1=1, dim2=2).sum(1)
    assert torch.allclose(divergence(v, x), trace, atol=1e-5)
    assert torch.allclose(divergence(v, x, signs[:2000]), trace, atol=0.3)


def test_integration_goes_both_ways() -> None:
    x = torch.tensor([[1.0], [2.0]])
    there = integrate(lambda x, t: x * t[:, None], x, 0.0, 1.0, 200, "midpoint")
    assert torch.allclose(there, x * math.exp(0.5), rtol=1e-4)
    assert torch.allclose(integrate(lambda x, t: x * t[:, None], there, 1.0, 0.0, 200, "midpoint"), x, rtol=1e-4)


@pytest.mark.parametrize("guidance", [0.0, 1.0, 2.5])
def test_guidance_extrapolates_what_a_condition_changes(guidance: float) -> None:
    flow = Flow(MLP(widths=(8,)), (2,), 3, guidance=guidance)
    x, t, c = torch.randn(5, 2), torch.rand(5), torch.eye(3)[[0, 1, 2, 0, 1]]
    told, free = flow.velocity(x, t, c), flow.velocity(x, t, torch.zeros(5, 3))
    assert not torch.allclose(told, free)
    assert torch.allclose(flow.field(c)(x, t), free + guidance * (told - free), atol=1e-6)


def test_a_dropped_condition_is_as_one_that_is_not_there() -> None:
    """Of a companion a further channel says that there is one; an absent one is 0 in all channels."""
    flow = Flow(ResNet(width=4), (1, 8, 8), (2, 8, 8), tagged=True)
    c, there = torch.rand(3, 2, 8, 8), torch.tensor([True, False, True])
    told = flow.told(c, there)
    assert told is not None and told.shape == (3, 3, 8, 8)
    assert (told[1] == 0).all() and torch.equal(told[0, :2], c[0]) and (told[0, 2] == 1).all()
    seen: list[Tensor] = []
    flow.velocity.register_forward_pre_hook(lambda module, args: seen.append(args[2]))
    for _ in range(100):
        flow.loss(torch.rand(10, 1, 8, 8), torch.rand(10, 2, 8, 8))
    share = float((torch.cat(seen)[:, -1, 0, 0] == 0).float().mean())
    assert abs(share - 0.1) < 4 * math.sqrt(0.09 / 1000)


def test_an_absent_companion_is_none() -> None:
    spec = Spec((1, 8, 8), "unit", given={"grey": Spec((1, 8, 8), "unit")})
    model = FlowMatching(spec, condition="grey", net={"name": "resnet", "width": 4}, drop=0.0)
    x, grey, absent = torch.rand(4, 1, 8, 8), torch.rand(4, 1, 8, 8), torch.tensor([False, True, False, True])

    def losses(given: Tensor) -> Tensor:
        with rng.forked("cpu", 1):
            return model.flow_matching(Batch(x, given={"grey": given}, absent={"grey": absent}), None).parts["error"]  # type: ignore[arg-type]

    changed = losses(grey) != losses(1 - grey)
    assert changed.tolist() == [True, False, True, False]


@pytest.mark.parametrize(
    "options",
    [
        {"steps": 0},
        {"solver": "rk45"},
        {"times": "normal"},
        {"drop": 1.0},
        {"guidance": -1.0},
        {"guidance": 2.0},
        {"guidance": 2.0, "cond": 3, "drop": 0.0},
    ],
)
def test_options_without_sense_are_refused(options: dict[str, object]) -> None:
    with pytest.raises(ConfigError):
        Flow(MLP(), (2,), **options)  # type: ignore[arg-type]


def test_an_arc_keeps_its_length_and_its_ends() -> None:
    with rng.forked("cpu", 7):
        a, b = (torch.nn.functional.normalize(torch.randn(4, 10), dim=1) for _ in range(2))
    t = torch.linspace(0, 1, 5)[:, None, None]
    points = arc(a, b, t)
    assert torch.allclose(points.norm(dim=-1), torch.ones(5, 4), atol=1e-5)
    assert torch.allclose(points[0], a, atol=1e-6) and torch.allclose(points[-1], b, atol=1e-6)
    assert torch.allclose(arc(a, a, t), a.expand(5, 4, 10))
    assert torch.isfinite(arc(a, -a, t)).all()


@pytest.mark.parametrize("shape", [(1, 28, 20), (3, 5, 7), (1, 1, 9), (2, 70, 33)])
def test_any_size_and_number_of_channels(shape: tuple[int, ...]) -> None:
    model = FlowMatching(Spec(shape, "unit"), steps=1).eval()
    samples = model.sample(2)
    assert samples.shape == (2, *shape) and samples.min() >= 0 and samples.max() <= 1

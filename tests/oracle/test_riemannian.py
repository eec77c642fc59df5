"""The metric of rh-vae: definiteness, gradients, steps that keep volumes, and a sampler with a known density."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from helpers import fresh, rows
from sandglass import rng
from sandglass.core import Batch, Clock, Spec
from sandglass.errors import ConfigError
from sandglass.models._metric import Metric, drawn, riemannian_leapfrog
from sandglass.registry import build


@pytest.fixture
def metric() -> Metric:
    """Five centroids in three dimensions, with factors that are not symmetric."""
    generator = torch.Generator().manual_seed(0)
    factors = torch.randn(5, 3, 3, dtype=torch.float64, generator=generator).tril()
    centroids = torch.randn(5, 3, dtype=torch.float64, generator=generator)
    return Metric(centroids, factors @ factors.mT, torch.ones(5, dtype=torch.float64), 1.2, 0.05)


def points(n: int, seed: int = 1) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    z, v = (torch.randn(n, 3, dtype=torch.float64, generator=generator) for _ in range(2))
    return z, v


# the metric


def test_it_is_the_formula_and_positive_definite(metric: Metric) -> None:
    z, _ = points(20)
    far = torch.cat([z, 100 * z])
    found = metric.inverse(far)
    expected = 0.05 * torch.eye(3, dtype=torch.float64).repeat(40, 1, 1)
    for k, one in enumerate(far):
        for c, m in zip(metric.centroids, metric.products, strict=True):
            expected[k] += m * math.exp(-float((c - one).square().sum()) / 1.2**2)
    assert torch.allclose(found, expected)
    assert torch.linalg.eigvalsh(found).min() >= 0.05 - 1e-12
    root = metric.root(far)
    assert torch.allclose(root @ root.mT, found)
    assert torch.allclose(metric.log_volume(far), found.logdet() / 2)


def test_its_slope_is_that_of_finite_differences(metric: Metric) -> None:
    """Of the kinetic energy, and with no momentum of minus the log volume: central differences to 1e-7."""
    z, v = points(6)
    for momentum in (v, 0 * v):
        found = metric.kinetic_slope(z, momentum)
        for j, step in enumerate(1e-5 * torch.eye(3, dtype=torch.float64)):
            difference = (metric.kinetic(z + step, momentum) - metric.kinetic(z - step, momentum)) / 2e-5
            assert torch.allclose(found[:, j], difference, atol=1e-7)
    assert torch.autograd.gradcheck(metric.kinetic_slope, (z.requires_grad_(), v.requires_grad_()))


# the steps


def whole_step(metric: Metric, z: Tensor, v: Tensor, size: float, iterations: int) -> tuple[Tensor, Tensor]:
    """With the energy of a standard normal."""
    there, middle = riemannian_leapfrog(metric, z, v, z, size, iterations)
    return there, middle - size / 2 * (there + metric.kinetic_slope(there, middle))


def test_solved_steps_keep_volumes_and_are_undone(metric: Metric) -> None:
    """To 1e-9 with 40 iterations; with the default of 3, the log determinant is within 0.01 at the default size."""
    z, v = points(1, 3)

    def log_determinant(size: float, iterations: int) -> float:
        def moved(both: Tensor) -> Tensor:
            return torch.cat(whole_step(metric, both[None, :3], both[None, 3:], size, iterations), 1)[0]

        jacobian = torch.autograd.functional.jacobian(moved, torch.cat([z, v], 1)[0])
        return abs(float(jacobian.slogdet()[1]))

    assert log_determinant(0.3, 60) < 1e-9
    off = [log_determinant(0.1, iterations) for iterations in (1, 2, 3, 5)]
    assert off[0] > 0.01 > off[2] > off[3], off
    there, speed = whole_step(metric, z, v, 0.3, 60)
    back, returned = whole_step(metric, there, -speed, 0.3, 60)
    assert (there - z).abs().max() > 0.05
    assert torch.allclose(back, z, atol=1e-9) and torch.allclose(returned, -v, atol=1e-9)


# the sampler


def test_the_sampler_has_the_known_density() -> None:
    """Two centroids on a line, from either of them: mass by tenths of the ball against quadrature, 5 standard errors.

    The density is sqrt(w_1(z) m_1 + w_2(z) m_2 + lambda) within the ball.
    """
    centroids = torch.tensor([[-1.5], [1.0]], dtype=torch.float64)
    products = torch.tensor([[[1.0]], [[4.0]]], dtype=torch.float64)
    metric = Metric(centroids, products, torch.ones(2, dtype=torch.float64), 1.0, 0.01)
    radius, middle, n = torch.tensor(2.5, dtype=torch.float64), -0.25, 4000
    with rng.forked("cpu", 1):
        start = centroids[torch.randint(2, (n,))]
        found = drawn(metric, start, radius, 60, 5, 0.5)
    edges = torch.linspace(middle - 2.5, middle + 2.5, 10_001, dtype=torch.float64)
    centres = (edges[1:] + edges[:-1]) / 2
    mass = metric.log_volume(centres[:, None]).exp().view(10, -1).sum(1)
    expected = mass / mass.sum()
    shares = torch.histc(found, 10, middle - 2.5, middle + 2.5) / n
    assert (found - middle).abs().max() <= 2.5
    assert ((shares - expected).abs() < 5 * (expected * (1 - expected) / n).sqrt()).all(), (shares, expected)


# the model


@pytest.fixture
def model() -> tuple[Any, Tensor]:
    with rng.forked("cpu", 1):
        x = 0.7 * torch.randn(60, 4, dtype=torch.float64)
    options = {"net": "linear", "likelihood": {"name": "gaussian", "learn": "none", "scale": 0.5}}
    made: Any = fresh("rh-vae", rows(x), latent_dim=2, centroids=10, fixed_point=30, **options).double().eval()
    for stage in made.stages():
        assert stage.fit is not None
        stage.fit(lambda: [Batch(x[:40]), Batch(x[40:])], None)
    return made, x


def test_centroids_are_codes_of_examples(model: Any) -> None:
    made, x = model
    codes = made.start(Batch(x)).mean
    nearest = torch.cdist(made.metric.centroids, codes).min(1)
    assert int(made.metric.count) == 10 and int(made.examples) == 60
    assert nearest.values.max() < 1e-12 and len(nearest.indices.unique()) == 10
    assert torch.allclose(made.metric.kept, made.metric.products(x)[nearest.indices])


def test_weights_are_unbiased_for_the_exact_likelihood(model: Any) -> None:
    """E[w] = p(x) of a linear model, by steps that are solved: the mean over 60 examples within 5 standard errors."""
    made, x = model
    with torch.no_grad(), rng.forked("cpu", 2):
        shift = made.decode(torch.zeros(1, 2, dtype=torch.float64))[0]
        matrix = (made.decode(torch.eye(2, dtype=torch.float64)) - shift).T
        cov = matrix @ matrix.T + 0.25 * torch.eye(4, dtype=torch.float64)
        exact = torch.distributions.MultivariateNormal(shift, cov).log_prob(x)
        ratios = (made.log_prob(x.repeat(200, 1), 1).view(200, 60) - exact).exp().mean(1)
        bounds = made.bound(x.repeat(200, 1)).elbo.view(200, 60).mean(0)
    assert (ratios.mean() - 1).abs() < 5 * ratios.std() / math.sqrt(200)
    assert bounds.mean() < exact.mean()


def test_a_flat_metric_is_the_hamiltonian_vae() -> None:
    """Before the fit G is I / lambda; with lambda = 1 the steps are those of hamiltonian-vae."""
    x = torch.randn(8, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    options: dict[str, Any] = {"latent_dim": 2, "net": {"name": "mlp", "widths": [8]}, "step_size": 0.1}
    curved: Any = fresh("rh-vae", rows(x), regularization=1.0, **options).double()
    flat: Any = fresh("hamiltonian-vae", rows(x), max_step_size=0.2, **options).double()
    own = {k: v for k, v in curved.state_dict().items() if k.startswith(("q.", "p."))}
    flat.load_state_dict(own, strict=False)
    found = []
    for each in (curved, flat):
        with rng.forked("cpu", 1), torch.no_grad():
            found.append(each.bound(x).elbo)
    assert torch.allclose(*found, atol=1e-9)


def test_samples_come_from_near_the_centroids() -> None:
    """Of codes far from the origin, as samples of the prior do not."""
    made: Any = build("rh-vae", Spec((6,)), latent_dim=3)
    codes = torch.tensor([[8.0, 0.0, 0.0], [8.0, 1.0, 0.0]])
    made.metric.keep(codes, torch.eye(3).expand(2, 3, 3))
    with rng.forked("cpu", 1):
        assert torch.cdist(made.draw(50), codes).min(1).values.max() < 5
        made.draws = "prior"
        assert made.draw(50)[:, 0].max() < 5


def test_the_loss_is_of_the_metric_of_the_batch() -> None:
    """The network of the metric gets a gradient, and the loss does not know kept centroids."""
    made: Any = build("rh-vae", Spec((6,)), latent_dim=2)
    batch = Batch(torch.randn(8, 6, generator=torch.Generator().manual_seed(0)))
    with rng.forked("cpu", 1):
        before = made.elbo(batch, Clock.final()).loss
    (gradient, *_) = torch.autograd.grad(before, list(made.metric.parameters()))
    made.fit_metric(lambda: [batch], None)
    with rng.forked("cpu", 1):
        assert torch.equal(made.elbo(batch, Clock.final()).loss, before)
    assert gradient.abs().max() > 0


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"leapfrog": 0}, "leapfrog"),
        ({"fixed_point": 0}, "fixed_point"),
        ({"transitions": 0}, "transitions"),
        ({"centroids": 0}, "centroids"),
        ({"metric_width": 0}, "metric_width"),
        ({"temperature": 0.0}, "temperature"),
        ({"regularization": math.inf}, "regularization"),
        ({"draws": "flow"}, "metric, prior"),
    ],
)
def test_options_that_make_no_sense_are_refused(options: Any, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        build("rh-vae", Spec((6,)), **options)

"""Hamiltonian flows: a known Jacobian, reversibility, and bounds beside the exact log p(x) of a Gaussian model."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.distributions import MultivariateNormal

from helpers import fresh, rows
from sandglass import rng
from sandglass.core import Batch, Clock, Spec
from sandglass.data.dataset import Split
from sandglass.errors import CapabilityError, ConfigError
from sandglass.metrics.evaluation import UnsuitableError
from sandglass.metrics.measure import measure
from sandglass.models._hamiltonian import MovedPosterior, Steps, leapfrog
from sandglass.registry import build

SCALE = 0.5
MATRIX = torch.tensor([[1.0, 0.8], [0.0, 0.5], [0.5, 0.5], [0.3, 0.2]], dtype=torch.float64)
"""Of a decoder whose two latents explain much of the same."""
LINEAR: dict[str, Any] = {"net": "linear", "likelihood": {"name": "gaussian", "learn": "none", "scale": SCALE}}


def quartic(z: Tensor) -> tuple[Tensor, Tensor]:
    """An energy without symmetries, whose dimensions depend on each other."""
    u = 0.1 * z.pow(4).sum(1) + (z[:, 0] * z[:, 1]).sin() + z[:, 1].sin() * z[:, 2]
    return u, 0 * u


@pytest.fixture
def gaussian() -> tuple[Any, Tensor, MultivariateNormal]:
    """A linear model with an encoder that is not the posterior, its examples, and the exact p(x)."""
    with rng.forked("cpu", 1):
        x = 0.7 * torch.randn(40, 4, dtype=torch.float64)
    model: Any = fresh("hamiltonian-vae", rows(x), seed=2, latent_dim=2, step_size=0.2, **LINEAR).double().eval()
    return model, x, marginal(model)


def marginal(model: Any) -> MultivariateNormal:
    """p(x) of a linear model."""
    with torch.no_grad():
        shift = model.decode(torch.zeros(1, 2, dtype=torch.float64))[0]
        matrix = (model.decode(torch.eye(2, dtype=torch.float64)) - shift).T
    noise = SCALE**2 * torch.eye(4, dtype=torch.float64)
    return MultivariateNormal(shift, matrix @ matrix.T + noise)


# leapfrog steps


@pytest.mark.parametrize("tempering", ["quadratic", "free", "none"])
def test_the_log_determinant_is_that_of_the_jacobian(tempering: Any) -> None:
    steps = Steps(3, 4, 0.3, 0.5, tempering, None if tempering == "none" else 0.3).double()
    with torch.no_grad():
        assert steps.size_logit is not None
        steps.size_logit += torch.tensor([0.5, -1.0, 0.2])
    root, factors = steps.tempered()
    at = torch.randn(6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))

    def moved(both: Tensor) -> Tensor:
        z, v, _ = leapfrog(quartic, both[None, :3], both[None, 3:], steps.size, factors)
        return torch.cat([z, v], 1)[0]

    jacobian = torch.autograd.functional.jacobian(moved, at)
    assert float(jacobian.slogdet()[1].detach()) == pytest.approx(3 * float(root.log().detach()), abs=1e-10)
    assert (float(root.detach()) == 1) == (tempering == "none")


def test_steps_without_tempering_are_undone_by_a_negated_momentum() -> None:
    torch.manual_seed(0)
    z, v = torch.randn(5, 3, dtype=torch.float64), torch.randn(5, 3, dtype=torch.float64)
    size, ones = torch.tensor([0.1, 0.3, 0.2], dtype=torch.float64), torch.ones(6, dtype=torch.float64)
    there, speed, _ = leapfrog(quartic, z, v, size, ones)
    back, returned, _ = leapfrog(quartic, there, -speed, size, ones)
    assert (there - z).abs().max() > 0.3
    assert torch.allclose(back, z, atol=1e-10) and torch.allclose(returned, -v, atol=1e-10)


def test_quadratic_tempering_is_that_of_the_paper() -> None:
    """1 / sqrt(beta_k) = (1 - 1 / sqrt(beta_0)) k^2 / K^2 + 1 / sqrt(beta_0)."""
    root, factors = Steps(1, 4, inverse_temperature=0.25).double().tempered()
    betas = [((1 - 2) * k**2 / 16 + 2) ** -1 for k in range(5)]  # square roots
    expected = [betas[k] / betas[k + 1] for k in range(4)]
    assert float(root.detach()) == pytest.approx(0.5, abs=1e-6)
    assert factors.tolist() == pytest.approx(expected, abs=1e-6)


# the bound


def test_without_steps_it_is_the_vae_to_the_last_bit() -> None:
    spec, options = Spec((1, 8, 8), "unit"), {"latent_dim": 3, "net": {"name": "mlp", "widths": [16]}, "free_bits": 0.1}
    x = torch.rand(20, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    found = []
    for name, own in (("vae", {}), ("hamiltonian-vae", {"leapfrog": 0})):
        with rng.forked("cpu", 0, "weights"):
            model: Any = build(name, spec, **options, **own)
        with rng.forked("cpu", 1):
            loss = model.elbo(Batch(x), Clock.final()).loss
        gradients = torch.autograd.grad(loss, list(model.parameters()))
        with rng.forked("cpu", 1), torch.no_grad():
            found.append([loss, *gradients, model.log_prob(x, 7), model.encode(x), model.infer(Batch(x))])
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))


def test_with_steps_of_no_size_it_is_the_vae_to_rounding() -> None:
    """Where nothing moves and nothing is cooled, the rate is the closed form, without noise of the momenta."""
    x = torch.randn(20, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    model: Any = fresh("hamiltonian-vae", rows(x), latent_dim=2, tempering="none", step_size=1e-12, **LINEAR).double()
    plain: Any = fresh("vae", rows(x), latent_dim=2, **LINEAR).double()
    plain.load_state_dict({k: v for k, v in model.state_dict().items() if not k.startswith("steps")})
    with torch.no_grad():
        bounds = []
        for each in (model, plain):
            with rng.forked("cpu", 3):
                bounds.append(each.bound(x))
    assert torch.allclose(bounds[0].rate, bounds[1].rate, atol=1e-9)
    assert torch.allclose(bounds[0].distortion, bounds[1].distortion, atol=1e-9)


def many(each: Any, x: Tensor, draws: int) -> Tensor:
    """``(draws, N)`` figures of the examples, each with draws of its own."""
    found: Tensor = each(x.repeat(draws, 1)).view(draws, len(x))
    return found


def test_the_bound_is_the_mean_of_the_log_weights(gaussian: Any) -> None:
    """Within 5 standard errors of each of 40 examples (1 in 40,000): the closed form changes the noise alone."""
    model, x, _ = gaussian
    with torch.no_grad(), rng.forked("cpu", 4):
        bounds, weights = many(lambda x: model.bound(x).elbo, x, 2000), many(model.log_prob, x, 2000)
    error = ((bounds.var(0) + weights.var(0)) / len(bounds)).sqrt()
    assert ((bounds.mean(0) - weights.mean(0)) / error).abs().max() < 5
    assert bounds.var(0).mean() < weights.var(0).mean()


def test_weights_are_unbiased_for_the_exact_likelihood(gaussian: Any) -> None:
    """E[w] = p(x), whatever the steps: within 5 standard errors; and the bound of 3,000 draws is near log p(x)."""
    model, x, truth = gaussian
    with torch.no_grad(), rng.forked("cpu", 5):
        ratios = (many(model.log_prob, x, 3000) - truth.log_prob(x)).exp()
        tight = model.log_prob(x, 3000)
        apart = tight - truth.log_prob(x)
    assert (ratios.mean(1).mean() - 1).abs() < 5 * ratios.mean(1).std() / math.sqrt(len(ratios))
    assert apart.abs().max() < 0.3 and apart.mean().abs() < 0.02


def gap(count: int, *, encoder: bool) -> float:
    """``log p(x) - bound`` in nats for a fixed decoder of correlated posteriors; steps are trained, and the encoder."""
    with rng.forked("cpu", 1):
        x = torch.randn(40, 4, dtype=torch.float64)
    options = {"latent_dim": 2, "leapfrog": count, "max_step_size": 1.0, **LINEAR}
    model: Any = fresh("hamiltonian-vae", rows(x), seed=2, **options).double()
    with torch.no_grad():
        for weight in model.p.parameters():
            weight.copy_(MATRIX if weight.dim() == 2 else torch.zeros_like(weight))
    learnt = [*model.steps.parameters(), *(model.q.parameters() if encoder else ())]
    optimiser = torch.optim.Adam(learnt or [torch.zeros(1, requires_grad=True)], lr=0.05)
    for step in range(200 if learnt else 0):
        optimiser.param_groups[0]["lr"] = 0.05 * (1 - step / 200)
        optimiser.zero_grad()
        with rng.forked("cpu", 6, step):
            (-model.bound(x.repeat(4, 1)).elbo.mean()).backward()
        optimiser.step()
    with torch.no_grad(), rng.forked("cpu", 7):
        bounds = many(lambda x: model.eval().bound(x).elbo, x, 1000).mean(0)
    return float((marginal(model).log_prob(x) - bounds).mean().detach())


def test_the_bound_is_below_log_p_and_steps_raise_it() -> None:
    """Of an encoder that knows nothing, whose steps alone are trained: 9.3 nats below, and 3.5 with one or three."""
    gaps = [gap(count, encoder=False) for count in (0, 1, 3)]
    assert 0 < min(gaps[1:]) <= max(gaps[1:]) < 0.5 * gaps[0], gaps


def test_steps_close_some_of_the_gap_of_independent_posteriors() -> None:
    """Without steps the gap is that of the best independent normals, in closed form: 0.39 nats. Two leave 0.34."""
    precision = torch.eye(2, dtype=torch.float64) + MATRIX.T @ MATRIX / SCALE**2
    best = 0.5 * float(precision.diagonal().log().sum() - precision.logdet())
    assert gap(0, encoder=True) == pytest.approx(best, abs=0.02)
    assert 0 < gap(2, encoder=True) < best - 0.03


# what users ask for


def test_codes_are_means_of_the_posterior_where_the_flow_is_linear(gaussian: Any) -> None:
    """encode is the mean of draws within 5 standard errors; draws have the spread of the flow, not of the encoder."""
    model, x, _ = gaussian
    with torch.no_grad(), rng.forked("cpu", 8):
        q = model.posterior(x)
        assert isinstance(q, MovedPosterior)
        draws = q.sample((5000,))
        error = draws.std(0) / math.sqrt(len(draws))
        assert draws.shape == (5000, 40, 2)
        assert ((draws.mean(0) - model.encode(x)) / error).abs().max() < 5
        assert (model.encode(x) - model.start(Batch(x)).mean).abs().max() > 0.1


def test_a_mutual_information_that_needs_a_density_is_refused() -> None:
    model = build("hamiltonian-vae", Spec((6,)), latent_dim=2)
    split = Split(torch.randn(60, 6, generator=torch.Generator().manual_seed(0)))
    with pytest.raises(UnsuitableError, match="density"):
        measure(model, split, names=["aggregate"])
    assert [result.name for result in measure(model, split, names=["mmd"])] == ["mmd"]


def test_its_encoder_has_no_graph() -> None:
    with pytest.raises(CapabilityError, match="gradients of the decoder"), pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.compiler, "is_compiling", lambda: True)
        build("hamiltonian-vae", Spec((6,)), latent_dim=2).encode(torch.zeros(2, 6))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"leapfrog": -1}, "leapfrog >= 0"),
        ({"step_size": 0.5}, "below max_step_size"),
        ({"step_size": 0.0}, "above 0"),
        ({"max_step_size": math.inf}, "finite"),
        ({"tempering": "cubic"}, "quadratic, free, none"),
        ({"inverse_temperature": 1.0}, "above 0 and below 1"),
        ({"inverse_temperature": 0.5, "tempering": "none"}, "leave it out"),
    ],
)
def test_options_that_make_no_sense_are_refused(options: Any, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        build("hamiltonian-vae", Spec((6,)), **options)

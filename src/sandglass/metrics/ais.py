"""Annealed importance sampling of log p(x), which uses only the decoder."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor
from torch.distributions import Distribution, MixtureSameFamily, biject_to
from torch.distributions.constraints import Constraint

from sandglass.core import Batch, Model
from sandglass.distributions.conditional import Conditional
from sandglass.distributions.evidence import decoded_at_once
from sandglass.distributions.observed import log_prob
from sandglass.errors import CapabilityError, ConfigError
from sandglass.metrics.aggregate import at_random
from sandglass.metrics.bound import check_likelihood, kind_of_bound
from sandglass.metrics.evaluation import Better, Evaluation
from sandglass.metrics.measure import mean_result
from sandglass.registry import register
from sandglass.running import over
from sandglass.runs.result import Result

_ACCEPT = 0.65  # optimal acceptance rate of Hamiltonian Monte Carlo (Neal 2011; Beskos et al. 2013)
_FIRST, _GAIN = 0.2, 0.2  # initial step size, and gain of its adaptation on the log scale
_STEEPNESS = 4.0  # of the sigmoid schedule, as in Wu et al. 2017


@register("ais", kind="metric")
class AnnealedImportance:
    """Estimate of log p(x) by annealed importance sampling from the prior to the posterior, without the encoder.

    Neal 2001, "Annealed Importance Sampling" (arXiv physics/9803008); for decoders, with Hamiltonian Monte Carlo, Wu,
    Burda, Salakhutdinov and Grosse 2017, "On the Quantitative Analysis of Decoder-Based Generative Models" (arXiv
    1611.04273). Step sizes are adapted to the acceptance rate in a separate run and then fixed, so that the mean weight
    is an unbiased estimate of p(x) and its logarithm a lower bound in expectation.

    Args:
        images: maximum number of examples, drawn at random.
        chains: chains per example.
        steps: temperatures between the prior and the posterior; published results use 1,000 to 10,000.
        leapfrog: leapfrog steps per Hamiltonian step.
        schedule: of the temperatures, ``sigmoid`` (slow at both ends) or ``linear``.
    """

    needs = ("prior", "decode", "log_prob", "codes")
    figures = ("ais",)
    better: Mapping[str, Better] = {"ais": "higher"}
    by_default = False

    def __init__(
        self,
        *,
        images: int = 100,
        chains: int = 16,
        steps: int = 500,
        leapfrog: int = 10,
        schedule: Literal["sigmoid", "linear"] = "sigmoid",
    ) -> None:
        if min(images, chains, steps, leapfrog) < 1:
            raise ConfigError(
                f"ais needs images, chains, steps and leapfrog of at least 1, not {images}, {chains}, {steps} and "
                f"{leapfrog}."
            )
        self.images, self.chains, self.leapfrog = images, chains, leapfrog
        self.temperatures = temperatures(steps, schedule)

    def __call__(self, model: Model, evaluation: Evaluation) -> Sequence[Result]:
        """log p(x) in nats per example, a lower bound in expectation."""
        check_likelihood(model, "ais")
        if not isinstance(getattr(model, "p", None), Conditional):
            raise CapabilityError(f"ais needs p(x|z), which {type(model).__name__} does not have.")
        split = at_random(evaluation, self.images)
        rows = decoded_at_once(self.chains * model.spec.size, model.device)

        def estimates(batch: Batch) -> Tensor:
            weights, accepted = self.weights(Path.of(model, batch))
            return torch.stack([weights.logsumexp(0) - math.log(self.chains), accepted.to(weights)], 1)

        values, accepted = over(model, split, estimates, key=(evaluation.seed, "measure", "ais"), size=rows).unbind(1)
        note = (
            f"{len(split)} examples, {len(self.temperatures) - 1} temperatures, {self.chains} chains, "
            f"{float(accepted.mean()):.0%} of proposals accepted; {kind_of_bound(model, evaluation.split)}"
        )
        return [mean_result("ais", values, "nats", note.rstrip("; "))]

    def weights(self, path: Path) -> tuple[Tensor, Tensor]:
        """``(chains, B)`` log weights, with step sizes tuned on separate chains, and ``(B,)`` acceptance rates."""
        few = path.start(max(1, self.chains // 4))
        sizes = anneal(path, few, self.temperatures, self.leapfrog).sizes
        run = anneal(path, path.start(self.chains), self.temperatures, self.leapfrog, sizes)
        return run.weights, run.accepted


def temperatures(steps: int, schedule: str = "sigmoid") -> list[float]:
    """``steps + 1`` weights of the log-likelihood, from 0 to 1.

    Raises:
        ConfigError: an unknown schedule.

    Example:
        >>> temperatures(4, "linear"), [round(b, 3) for b in temperatures(4)]
        ([0.0, 0.25, 0.5, 0.75, 1.0], [0.0, 0.105, 0.5, 0.895, 1.0])
    """
    if schedule not in ("sigmoid", "linear"):
        raise ConfigError(f"The schedule of ais is one of sigmoid, linear, not '{schedule}'.")
    even = torch.linspace(0, 1, steps + 1, dtype=torch.float64)
    if schedule == "linear":
        return even.tolist()
    curve = torch.sigmoid(_STEEPNESS * (2 * even - 1))
    return ((curve - curve[0]) / (curve[-1] - curve[0])).tolist()


@dataclass(frozen=True)
class Path:
    """The densities ``p(z|c) p(x|z, c)^b`` for b from 0 to 1, in unconstrained coordinates u.

    Args:
        prior: p(z) over ``(dim,)``, or p(z|c) over ``(B, dim)``, continuous.
        likelihood: maps latents ``(n, dim)``, and conditions where there are any, to p(x|z, c).
        x: ``(B, *shape)``.
        mask: ``(B, *shape)``, True where observed, or None.
        c: ``(B, ...)`` conditions, or None.
    """

    prior: Distribution
    likelihood: Callable[..., Distribution]
    x: Tensor
    mask: Tensor | None = None
    c: Tensor | None = None

    @classmethod
    def of(cls, model: Model, batch: Batch) -> Path:
        """The path of a model for a batch.

        Raises:
            CapabilityError: the prior's support is neither the reals nor a simplex.
        """
        condition = getattr(model, "given", None)
        c = None if condition is None else condition(batch)
        path = cls(model.prior(batch), model.p, batch.x, batch.mask, c)
        try:
            biject_to(path.support)
        except NotImplementedError as error:
            raise CapabilityError("ais needs a prior over real numbers or a simplex.") from error
        return path

    @property
    def support(self) -> Constraint:
        """Support of the prior, or of the components of a mixture prior."""
        prior = self.prior.component_distribution if isinstance(self.prior, MixtureSameFamily) else self.prior
        support: Constraint = prior.support  # type: ignore[assignment]
        return support

    def start(self, chains: int) -> Tensor:
        """``(chains, B, dim)`` draws from the prior."""
        shape = [chains] if self.prior.batch_shape else [chains, len(self.x)]
        u: Tensor = biject_to(self.support).inv(self.prior.sample(torch.Size(shape)))
        return u

    def parts(self, u: Tensor) -> tuple[Tensor, Tensor]:
        """log p(u) and log p(x|z(u)), each ``(chains, B)``."""
        transform = biject_to(self.support)
        z = transform(u)
        prior = self.prior.log_prob(z) + transform.log_abs_det_jacobian(u, z)
        mask = None if self.mask is None else repeated(self.mask, len(u))
        under = () if self.c is None else (repeated(self.c, len(u)),)
        each = log_prob(self.likelihood(z.flatten(0, 1), *under), repeated(self.x, len(u)), mask)
        return prior, each.unflatten(0, u.shape[:2])

    @torch.enable_grad()
    def slope(self, u: Tensor, b: float) -> tuple[Tensor, Tensor, Tensor]:
        """``log p(u) + b log p(x|z)``, log p(x|z), and the gradient of the former."""
        u = u.detach().requires_grad_()
        prior, likelihood = self.parts(u)
        total = prior + b * likelihood
        (gradient,) = torch.autograd.grad(total.sum(), u)
        return total.detach(), likelihood.detach(), gradient


def repeated(x: Tensor, times: int) -> Tensor:
    """``(B, ...)`` to ``(times * B, ...)``, the whole batch repeated."""
    return x.repeat(times, *[1] * (x.dim() - 1))


@dataclass(frozen=True)
class Annealed:
    """Result of one annealing run.

    Args:
        weights: ``(chains, B)`` log importance weights, float64.
        sizes: step sizes ``(B,)`` for each intermediate temperature.
        accepted: ``(B,)`` acceptance rates.
    """

    weights: Tensor
    sizes: list[Tensor]
    accepted: Tensor


@torch.no_grad()
def anneal(
    path: Path, u: Tensor, temperatures: Sequence[float], leapfrog: int, sizes: Sequence[Tensor] | None = None
) -> Annealed:
    """Log weights of chains annealed from the density at the first temperature through all others.

    From the prior to the posterior, the expected weight is p(x), so the log of the mean weight is a lower bound on
    log p(x) in expectation. From posterior draws to the prior, the expected weight is 1 / p(x), and minus that log is
    an upper bound (Grosse, Ghahramani and Adams 2015, "Sandwiching the marginal likelihood using bidirectional Monte
    Carlo", arXiv 1511.02543).

    Args:
        path: the densities.
        u: ``(chains, B, dim)`` draws from the first density.
        temperatures: ascending or descending.
        leapfrog: leapfrog steps per Hamiltonian step.
        sizes: step sizes, one for each temperature but the first and last; by default they adapt to the acceptance
            rate, and the weights are then slightly biased.
    """
    device = u.device.type
    weights = torch.zeros(u.shape[:2], dtype=torch.float32 if device == "mps" else torch.float64, device=u.device)
    size = u.new_full((u.shape[1],), _FIRST)
    used, accepted = [], [u.new_ones(u.shape[1])]
    likelihood = path.parts(u)[1]
    for place, (before, now) in enumerate(pairwise(temperatures)):
        weights += (now - before) * likelihood
        if place + 2 == len(temperatures):
            break  # a transition at the last temperature would not change the weights
        size = size if sizes is None else sizes[place]
        u, likelihood, chance = hamiltonian(path, u, now, size, leapfrog)
        used.append(size)
        accepted.append(chance)
        size = size * torch.exp(_GAIN * (chance - _ACCEPT))
    return Annealed(weights, used, torch.stack(accepted[1:] or accepted).mean(0))


def hamiltonian(path: Path, u: Tensor, b: float, size: Tensor, leapfrog: int) -> tuple[Tensor, Tensor, Tensor]:
    """One Hamiltonian Monte Carlo step that leaves the density at ``b`` invariant.

    Neal 2011, "MCMC using Hamiltonian dynamics" (arXiv 1206.1901). Proposals that are not finite are rejected.

    Args:
        path: the densities.
        u: ``(chains, B, dim)``.
        b: the temperature.
        size: ``(B,)`` leapfrog step sizes.
        leapfrog: number of leapfrog steps.

    Returns:
        The states, their log p(x|z) ``(chains, B)``, and the mean acceptance probability ``(B,)``.
    """
    momentum, step = torch.randn_like(u), size[:, None]
    energy, likelihood, gradient = path.slope(u, b)
    new, force = u, momentum + 0.5 * step * gradient
    for turn in range(leapfrog):
        new = new + step * force
        total, reached, gradient = path.slope(new, b)
        force = force + (step if turn + 1 < leapfrog else 0.5 * step) * gradient
    gain = total - energy + 0.5 * (momentum.square().sum(-1) - force.square().sum(-1))
    chance = gain.nan_to_num(-math.inf, posinf=-math.inf).clamp(max=0).exp()
    take = torch.rand_like(chance) < chance
    return torch.where(take[..., None], new, u), torch.where(take, reached, likelihood), chance.mean(0)

"""Posteriors of VAEs that a Hamiltonian flow moves: its steps, its tempering, and the bound that follows."""

from __future__ import annotations

import abc
import math
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal, get_args

import torch
from torch import Tensor, nn
from torch.distributions import Distribution, Independent, constraints

from sandglass.core import Batch, Bound, Clock, Spec, Terms
from sandglass.distributions.evidence import decoded_at_once
from sandglass.distributions.observed import log_prob
from sandglass.distributions.rate import rate_per_dimension
from sandglass.errors import CapabilityError, ConfigError
from sandglass.models._base_vae import BaseVAE
from sandglass.models.vae import VAE
from sandglass.nets.attention import twice_differentiable
from sandglass.registry import OptionsOf

Energy = Callable[[Tensor], tuple[Tensor, Tensor]]
"""Of codes ``(B, D)``: ``U(z) = -log p(x, z)`` and its part ``-log p(x|z)``, each ``(B,)`` in nats."""

TemperingName = Literal["quadratic", "free", "none"]

_INVERSE_TEMPERATURE = 0.5
_LATENTS = 2**22  # numbers of the draws of z that are kept at once, as in distributions/evidence.py


def slope(energy: Energy, z: Tensor) -> tuple[Tensor, Tensor]:
    """The gradient of U at codes, ``(B, D)``, and ``-log p(x|z)``, ``(B,)``.

    Where gradients are enabled both can be differentiated; elsewhere they keep no graph.

    Raises:
        CapabilityError: in an export, for ONNX has no operator for a gradient.

    Example:
        >>> with torch.no_grad():
        ...     g, _ = slope(lambda z: (z.square().sum(1), z.sum(1)), torch.tensor([[1.0, 2.0]]))
        >>> g
        tensor([[2., 4.]])
    """
    if torch.compiler.is_compiling():
        raise CapabilityError("A Hamiltonian flow follows gradients of the decoder; only the decoder can be exported.")
    outer = torch.is_grad_enabled()
    with torch.enable_grad(), twice_differentiable() if outer else nullcontext():
        at = z if outer and z.requires_grad else z.detach().requires_grad_()
        u, distortion = energy(at)
        (g,) = torch.autograd.grad(u.sum(), at, create_graph=outer)
    return (g, distortion) if outer else (g, distortion.detach())


def leapfrog(
    energy: Energy, z: Tensor, v: Tensor, size: Tensor | float, factors: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Leapfrog steps, each of which ends with a factor of the momentum; they evaluate the gradient of U once each.

    A step is three shears and a scaling: its Jacobian determinant is ``factor ** D`` whatever U is, and it is undone by
    the same step from the negated momentum, for a factor of 1.

    Args:
        energy: U.
        z: codes ``(B, D)``.
        v: momenta ``(B, D)``.
        size: of a step, ``(D,)`` or one for all dimensions.
        factors: of the momentum, ``(K,)``: one for each step.

    Returns:
        Codes and momenta after the last step, and ``-log p(x|z)`` of these codes.
    """
    g, distortion = slope(energy, z)
    for factor in factors.unbind():
        v = v - size / 2 * g
        z = z + size * v
        g, distortion = slope(energy, z)
        v = factor * (v - size / 2 * g)
    return z, v, distortion


class Steps(nn.Module):
    """Learnt sizes of leapfrog steps, one for each dimension, and the tempering of the momentum.

    The momentum begins with variance ``1 / beta_0`` for an inverse temperature ``beta_0`` of at most 1, and is cooled
    in every step, by a factor whose product is ``sqrt(beta_0)``: Caterini, Doucet and Sejdinovic 2018, "Hamiltonian
    Variational Auto-Encoder" (arXiv 1805.11328).

    Args:
        dim: of a code.
        count: K, the number of steps.
        size: of a step, before training.
        largest: size that none reaches.
        tempering: ``quadratic`` learns beta_0, and ``1 / sqrt(beta_k)`` falls as ``k^2``; ``free`` learns the factor of
            every step; ``none`` has no tempering.
        inverse_temperature: beta_0, before training; by default 0.5.

    Raises:
        ConfigError: an invalid value.

    Example:
        >>> steps = Steps(3, 2, inverse_temperature=0.25)
        >>> root, factors = steps.tempered()
        >>> [round(f, 3) for f in torch.stack([root, *factors]).tolist()]
        [0.5, 0.875, 0.571]
    """

    powers: Tensor

    def __init__(
        self,
        dim: int,
        count: int,
        size: float = 0.1,
        largest: float = 0.5,
        tempering: TemperingName = "quadratic",
        inverse_temperature: float | None = None,
    ) -> None:
        super().__init__()
        if count < 0:
            raise ConfigError(f"A Hamiltonian flow needs leapfrog >= 0 steps, not {count}.")
        if not 0 < size < largest < math.inf:
            raise ConfigError(
                f"The step_size must be above 0 and below max_step_size, which is finite, not {size} and {largest}."
            )
        if tempering not in get_args(TemperingName):
            raise ConfigError(f"The tempering is one of {', '.join(get_args(TemperingName))}, not '{tempering}'.")
        if tempering == "none" and inverse_temperature is not None:
            raise ConfigError("With tempering=none there is no inverse_temperature: leave it out.")
        inverse_temperature = _INVERSE_TEMPERATURE if inverse_temperature is None else inverse_temperature
        if not 0 < inverse_temperature < 1:
            raise ConfigError(f"The inverse_temperature must be above 0 and below 1, not {inverse_temperature}.")
        self.count, self.largest, self.tempering = count, largest, tempering
        learnt = (0, 0) if not count else (dim, {"quadratic": 1, "free": count, "none": 0}[tempering])
        root = math.sqrt(inverse_temperature)
        first = root if tempering == "quadratic" else root ** (1 / max(1, count))
        self.size_logit = nn.Parameter(torch.full((learnt[0],), _logit(size / largest))) if learnt[0] else None
        self.cooling_logit = nn.Parameter(torch.full((learnt[1],), _logit(first))) if learnt[1] else None
        self.register_buffer("powers", torch.arange(count + 1).float(), persistent=False)

    @property
    def size(self) -> Tensor:
        """``(D,)`` sizes of a step."""
        assert self.size_logit is not None
        return self.largest * self.size_logit.sigmoid()

    def tempered(self) -> tuple[Tensor, Tensor]:
        """``sqrt(beta_0)``, and the factors of the momentum after each step, ``(K,)``."""
        if self.cooling_logit is None:
            ones = torch.ones_like(self.powers)
            return ones[0], ones[1:]
        cooling = self.cooling_logit.sigmoid()
        if self.tempering == "free":
            return cooling.prod(), cooling
        hottest = 1 / cooling[0]
        heat = (1 - hottest) * (self.powers / self.count).square() + hottest  # 1 / sqrt(beta_k)
        return cooling[0], heat[1:] / heat[:-1]

    def scalars(self) -> dict[str, Tensor]:
        """The mean step size, and beta_0."""
        if not self.count:
            return {}
        found = {"step_size": self.size.mean()}
        if self.cooling_logit is not None:
            found["inverse_temperature"] = self.tempered()[0].square()
        return {name: value.detach() for name, value in found.items()}


def _logit(p: float) -> float:
    return math.log(p / (1 - p))


@dataclass(frozen=True)
class Moved:
    """Where a flow has moved codes.

    Args:
        z: codes ``(B, D)``.
        work: ``(B, D)``, by dimension: ``log r(v_0|z_0) - log r(v_K|z_K)`` of momenta and their density r, in nats,
            less the log determinant of the flow.
        distortion: ``(B,)``, ``-log p(x|z)``.
    """

    z: Tensor
    work: Tensor
    distortion: Tensor


class MovedPosterior(Distribution):
    """The distribution of codes that a flow with random momenta has moved; it has draws, and no known density.

    Its ``mean`` is where the flow moves the mean of the first codes with a momentum of 0. This is the mean where the
    flow is linear, as for a Gaussian joint density, and elsewhere to first order in the spread of codes and momenta.

    Args:
        start: q(z_0|x) over ``(B, D)``.
        flow: from first codes and standard normal noise, both ``(..., B, D)``, to the moved codes.
    """

    arg_constraints: ClassVar[dict[str, constraints.Constraint]] = {}
    support = constraints.real_vector
    has_rsample = True

    def __init__(self, start: Distribution, flow: Callable[[Tensor, Tensor], Tensor]) -> None:
        super().__init__(start.batch_shape, start.event_shape, validate_args=False)
        self.start, self.flow = start, flow

    @property
    def mean(self) -> Tensor:
        """``(B, D)``."""
        return self.flow(self.start.mean, torch.zeros_like(self.start.mean))

    def rsample(self, sample_shape: torch.Size | list[int] | tuple[int, ...] = ()) -> Tensor:
        """``(*sample_shape, B, D)`` draws, with a gradient."""
        z = self.start.rsample(torch.Size(sample_shape))
        return self.flow(z, torch.randn_like(z))


class FlowVAE(BaseVAE):
    """A VAE whose draws from ``N(mean(x), diag(variance(x)))`` are moved by a flow with random momenta.

    Attributes:
        steps: of the flow.
    """

    steps: Steps

    def __init__(self, spec: Spec, **vae: Annotated[Any, OptionsOf(VAE)]) -> None:
        super().__init__(spec, **vae)
        if self.q.family.support != "real":
            raise ConfigError("A Hamiltonian flow moves codes of real numbers: choose another posterior.")

    @abc.abstractmethod
    def flow(self, batch: Batch, z: Tensor, noise: Tensor) -> Moved:
        """Moves codes ``(B, D)``, with momenta from standard normal noise ``(B, D)``."""

    def start(self, batch: Batch) -> Distribution:
        """q(z_0|x, c) over ``(B, D)``: the Gaussian of the encoder; missing values of x are 0."""
        return self.q(self.sees(batch), self.given(batch), batch.mask if self.masked else None)

    def posterior(self, batch: Batch) -> Distribution:
        """q(z_K|x, c) over ``(B, D)``, which has draws and no known density; without steps it is the Gaussian."""
        q = self.start(batch)
        if not self.steps.count:
            return q

        def flow(z: Tensor, noise: Tensor) -> Tensor:
            many = repeated(batch, z.shape[:-2].numel())
            return self.flow(many, z.flatten(0, -2), noise.flatten(0, -2)).z.view(z.shape)

        return MovedPosterior(q, flow)

    def energy(self, batch: Batch) -> Energy:
        """``-log p(x, z|c)`` of the observed values."""
        c, prior = self.given(batch), self.prior(batch)

        def at(z: Tensor) -> tuple[Tensor, Tensor]:
            distortion = -log_prob(self.p(z, c), batch.x, batch.mask)
            return distortion - prior.log_prob(z), distortion

        return at

    def inferred(self, batch: Batch) -> tuple[Distribution, Tensor, Bound]:
        """q(z_0|x, c), a draw of z_K per example, and the bound from that draw."""
        if not self.steps.count:
            return super().inferred(batch)
        q = self.start(batch)
        z = q.rsample()
        moved = self.flow(batch, z, torch.randn_like(z))
        return q, moved.z, self.moved_bound(batch, q, z, moved)

    def moved_bound(self, batch: Batch, q: Distribution, z: Tensor, moved: Moved) -> Bound:
        """The bound from first codes z_0 and where they went.

        The rate is the KL of the first codes in closed form, and what the flow adds, which is 0 where nothing moves. In
        expectation it is ``log q(z_0) - log p(z_K)`` and the work; its noise is only that of the changes.
        """
        p = self.prior(batch)
        each = rate_per_dimension(q, p)
        if each is None or not isinstance(p, Independent):
            cost = q.log_prob(z) - p.log_prob(moved.z) + moved.work.sum(1)
            return Bound({"x": moved.distortion}, {"z": cost})
        each = each + (p.base_dist.log_prob(z) - p.base_dist.log_prob(moved.z)) + moved.work
        return Bound({"x": moved.distortion}, {"z": each.sum(-1)}, {"z": each})

    def log_prob(self, batch: Batch, k: int = 1) -> Tensor:
        """``(B,)`` lower bound on log p(x) in nats from ``k`` importance-weighted draws; it rises to log p(x) with k.

        The draws are of codes and momenta: the weight is that of ``p(x, z_K) r(v_K)`` to the density of where the flow
        has moved ``q(z_0|x) r(v_0)``. Missing values are left out. Memory does not grow with k.
        """
        if not self.steps.count:
            return super().log_prob(batch, k)
        q, prior = self.start(batch), self.prior()
        block = max(1, min(k, _LATENTS // (len(batch) * self.code_size)))
        at_once = max(1, decoded_at_once(self.p.size, batch.x.device) // len(batch))
        found = []
        for start in range(0, k, block):
            draws = q.rsample(torch.Size([min(block, k - start)]))
            noises = torch.randn_like(draws)
            for z, noise in zip(draws.split(at_once), noises.split(at_once), strict=True):
                moved = self.flow(repeated(batch, len(z)), z.flatten(0, 1), noise.flatten(0, 1))
                log_p = prior.log_prob(moved.z) - moved.distortion - moved.work.sum(1)
                found.append((log_p.view(z.shape[:2]) - q.log_prob(z)).logsumexp(0))
        return torch.stack(found).logsumexp(0) - math.log(k)

    def terms(self, clock: Clock, bound: Bound) -> Terms:
        """``distortion + beta * rate`` of the moved codes, or with its capacity or free bits: the batch mean."""
        loss = (bound.distortion + self.penalty(bound, clock)).mean()
        parts = {"distortion": bound.distortion.detach(), "rate": bound.rate.detach()}
        return Terms(loss, parts, self.penalty.scalars(clock) | self.steps.scalars())


def repeated(batch: Batch, times: int) -> Batch:
    """The whole batch, repeated."""
    return batch if times == 1 else batch.map(lambda t: t.repeat(times, *[1] * (t.dim() - 1)))

"""Decomposition of the rate into mutual information and the KL divergence of the aggregate posterior."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.distributions import Distribution, Independent, Normal

from sandglass import rng
from sandglass.core import Batch, Model
from sandglass.data.dataset import Split
from sandglass.data.loading import in_order
from sandglass.errors import ConfigError
from sandglass.metrics.evaluation import Evaluation, UnsuitableError
from sandglass.metrics.measure import mean_result, per_example
from sandglass.registry import register
from sandglass.runs.result import Result

_PAIRS = 2**18  # pairs of a draw and a component at once, chosen to fit into the CPU cache
_CLOSE = 0.8  # above this share of log N, the mutual information is limited by N


@register("aggregate", kind="metric")
class Aggregate:
    """Mutual information of x and z, and KL(q(z) || p(z)) of the aggregate posterior; they sum to the rate.

    Args:
        examples: maximum number of examples, drawn at random; the cost grows with its square.
    """

    needs = ("posterior", "prior", "codes")
    figures = ("mutual_information", "marginal_kl")

    def __init__(self, *, examples: int = 10_000) -> None:
        if examples < 2:
            raise ConfigError(f"aggregate needs at least 2 examples, not {examples}.")
        self.examples = examples

    def __call__(self, model: Model, evaluation: Evaluation) -> Sequence[Result]:
        """Both in nats per example, from one draw of z per example."""
        some = replace(evaluation, split=at_random(evaluation, self.examples))
        draws = draw(model, some)
        mixture = aggregate_log_prob(model, some.split, draws.z)
        ceiling = math.log(len(mixture))
        information = mean_result("mutual_information", draws.posterior - mixture, "nats")
        marginal = mean_result("marginal_kl", mixture - draws.prior, "nats")
        note, other = f"at most log N = {ceiling:.2f}", ""
        if information.value > _CLOSE * ceiling:
            note += ", which it is close to: the true value may be much larger"
            other = f"overestimated where log N = {ceiling:.2f} limits the mutual information"
        return [replace(information, note=note), replace(marginal, note=other)]


@dataclass(frozen=True)
class Draws:
    """One draw from q(z|x) per example.

    Args:
        z: ``(N, dim)``, float64 on the CPU.
        posterior: ``(N,)`` log q(z|x) under the posterior of the same example, in nats.
        prior: ``(N,)`` log p(z).
    """

    z: Tensor
    posterior: Tensor
    prior: Tensor


def at_random(evaluation: Evaluation, n: int) -> Split:
    """At most ``n`` examples in random order, since a split may be sorted."""
    return evaluation.split.take(rng.permutation(len(evaluation.split), evaluation.seed, "measure", "examples")[:n])


def draw(model: Model, evaluation: Evaluation) -> Draws:
    """One draw per example, with random keys per batch."""

    def each(batch: Batch) -> Tensor:
        q = model.posterior(batch)
        z = q.sample()
        try:
            density = q.log_prob(z)
        except NotImplementedError as error:
            raise UnsuitableError("The metric 'aggregate' needs a posterior whose density is known.") from error
        return torch.cat([z, density[:, None], model.prior(batch).log_prob(z)[:, None]], 1)

    values = per_example(model, evaluation, "aggregate", each)
    return Draws(values[:, :-2], values[:, -2], values[:, -1])


def aggregate_log_prob(model: Model, split: Split, z: Tensor) -> Tensor:
    """``(n,)`` log q(z) in nats, where q(z) is the mean of q(z|x) over the examples; computed batch by batch.

    Args:
        model: a model with a posterior.
        split: the examples, N of them.
        z: ``(n, dim)``, float64 on the CPU.
    """
    total = torch.full((len(z),), -math.inf, dtype=torch.float64)
    for make in in_order(split, device=model.device, dtype=model.dtype):
        batch = make()
        q = model.posterior(batch)
        parts = [pairwise_log_prob(q, some) for some in z.split(max(1, _PAIRS // len(batch)))]
        total = torch.logaddexp(total, torch.cat([part.logsumexp(1) for part in parts]))
    return total - math.log(len(split))


def pairwise_log_prob(q: Distribution, z: Tensor) -> Tensor:
    """``(n, B)`` log q_b(z_i) of every draw under every component, float64 on the CPU.

    Independent normals use a matrix product, other distributions one call over all pairs.

    Args:
        q: over ``(B, dim)``.
        z: ``(n, dim)``, float64 on the CPU.

    Example:
        >>> q = Independent(Normal(torch.zeros(3, 2), torch.ones(3, 2)), 1)
        >>> pairwise_log_prob(q, torch.zeros(1, 2).double())
        tensor([[-1.8379, -1.8379, -1.8379]], dtype=torch.float64)
    """
    if not (isinstance(q, Independent) and isinstance(q.base_dist, Normal) and len(q.event_shape) == 1):
        return q.log_prob(z.to(q.mean)[:, None]).double().cpu()
    mean, scale = (t.double().cpu() for t in (q.base_dist.loc, q.base_dist.scale))
    centre = mean.mean(0)  # centring avoids cancellation of large squares
    z, mean, precision = z - centre, mean - centre, scale**-2
    const = -0.5 * (mean.square() * precision).sum(1) - scale.log().sum(1) - 0.5 * mean.shape[1] * math.log(2 * math.pi)
    return torch.addmm(const, torch.cat([z.square(), z], 1), torch.cat([-0.5 * precision, mean * precision], 1).T)

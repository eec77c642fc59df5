"""A mixture of Gaussians for each example, whose weights are given."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor
from torch.distributions import Distribution, Independent, Normal, constraints

from sandglass.distributions.rate import rate_per_dimension

_ONE = torch.Size()


class GaussianMixture(Distribution):
    """``sum_s weight_s N(loc_s, scale_s^2)`` over codes ``(B, D)``, with independent dimensions within a component.

    Draws have the gradient of their component, which is that of the mixture as long as the weights are constants.

    Args:
        loc: ``(B, S, D)``.
        scale: ``(B, S, D)``.
        weight: ``(B, S)``, sums of 1 without a gradient; a component of weight 0 has no part in anything.

    Example:
        >>> loc = torch.tensor([[[-2.0], [2.0], [9.0]]])
        >>> q = GaussianMixture(loc, torch.ones(1, 3, 1), torch.tensor([[0.5, 0.5, 0.0]]))
        >>> q.mean, q.variance, q.log_prob(torch.zeros(1, 1))
        (tensor([[0.]]), tensor([[5.]]), tensor([-2.9189]))
    """

    arg_constraints: ClassVar = {
        "loc": constraints.real,
        "scale": constraints.positive,
        "weight": constraints.nonnegative,
    }
    has_rsample = True
    support = constraints.real_vector

    def __init__(self, loc: Tensor, scale: Tensor, weight: Tensor) -> None:
        self.loc, self.scale, self.weight = loc, scale, weight
        super().__init__(loc.shape[:1], loc.shape[2:], validate_args=False)

    def part(self, places: slice) -> GaussianMixture:
        """The marginal of some dimensions."""
        return GaussianMixture(self.loc[..., places], self.scale[..., places], self.weight)

    def component(self, s: int) -> Independent:
        """One Gaussian ``(B, D)``."""
        return _independent(self.loc[:, s], self.scale[:, s])

    @property
    def mean(self) -> Tensor:
        """``(B, D)``."""
        return (self.weight[..., None] * self.loc).sum(1)

    @property
    def variance(self) -> Tensor:
        """``(B, D)``."""
        apart = self.loc - self.mean[:, None]
        return (self.weight[..., None] * (self.scale.square() + apart.square())).sum(1)

    def log_prob(self, value: Tensor) -> Tensor:
        """``(..., B)`` of ``(..., B, D)``, in nats."""
        weights = self.weight.log()
        each = [self.component(s).log_prob(value) + weights[:, s] for s in range(self.loc.shape[1])]
        return torch.stack(each).logsumexp(0)

    def rsample(self, sample_shape: torch.Size | list[int] | tuple[int, ...] = _ONE) -> Tensor:
        """``(*sample_shape, B, D)``, each of a component drawn by its weight."""
        shape = (*sample_shape, *self.batch_shape)
        below = self.weight.cumsum(-1)
        which = torch.rand(*shape, 1, dtype=below.dtype, device=below.device) >= below / below[:, -1:]
        place = which.sum(-1)[..., None, None].expand(*shape, 1, self.loc.shape[-1])
        loc, scale = (t.expand(*sample_shape, *t.shape).gather(-2, place).squeeze(-2) for t in (self.loc, self.scale))
        return loc + scale * torch.randn_like(loc)

    def of_each(self, draws: int) -> Tensor:
        """``(draws, S, B, D)``, draws of every component, with gradients."""
        loc, scale = self.loc.transpose(0, 1), self.scale.transpose(0, 1)
        return loc + scale * torch.randn(draws, *loc.shape, dtype=loc.dtype, device=loc.device)


def stratified(q: Independent | GaussianMixture, draws: int = 1) -> tuple[Tensor, Tensor]:
    """Codes ``(draws, S, B, D)`` of each of the S components of a Gaussian or a mixture, and their weights ``(S, B)``.

    Example:
        >>> [t.shape for t in stratified(Independent(Normal(torch.zeros(5, 2), 1.0), 1), 3)]
        [torch.Size([3, 1, 5, 2]), torch.Size([1, 5])]
    """
    if isinstance(q, GaussianMixture):
        return q.of_each(draws), q.weight.T
    codes = q.rsample(torch.Size([draws]))[:, None]
    return codes, torch.ones_like(codes[0, ..., 0])


def rates(q: Independent | GaussianMixture, p: Independent, codes: Tensor, shared: int) -> tuple[Tensor | None, Tensor]:
    """Rates in nats: of the first dimensions, which may be a mixture, ``(B,)``, and of others by dimension ``(B, d)``.

    A Gaussian has them in closed form: then the first is None, and the second is of all dimensions. That of a mixture
    is estimated from draws of its components; the other dimensions are the same in all of them.

    Args:
        q: over ``(B, D)``.
        p: a Gaussian over ``(D,)``.
        codes: ``(draws, S, B, D)`` from :func:`stratified`.
        shared: number of the first dimensions.
    """
    if not isinstance(q, GaussianMixture):
        each = rate_per_dimension(q, p)
        assert each is not None  # both are independent normals
        return None, each
    first, rest = slice(0, shared), slice(shared, None)
    prior = [_independent(p.base_dist.loc[part], p.base_dist.scale[part]) for part in (first, rest)]
    z = codes[..., first]
    ratio = q.part(first).log_prob(z) - prior[0].log_prob(z)
    each = rate_per_dimension(q.part(rest).component(0), prior[1])
    assert each is not None
    return (q.weight.T * ratio.mean(0)).sum(0), each


def _independent(loc: Tensor, scale: Tensor) -> Independent:
    return Independent(Normal(loc, scale, validate_args=False), 1, validate_args=False)

"""An autoregressive distribution over a flat code: parts are drawn one after another, each given the previous ones."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor
from torch.distributions import Distribution, TransformedDistribution, constraints
from torch.distributions.transforms import Transform

Parts = dict[int, Tensor]
"""The parts of a code drawn so far, ``(*, B, size)``, by their index."""

Step = Callable[[int, Parts], Distribution]
"""The distribution of one part over ``(*, B, size)``, given the parts drawn before it."""


def joined(parts: Parts) -> Tensor:
    """The flat vector ``(*, B, D)`` of all parts, broadcast against each other.

    Example:
        >>> joined({1: torch.zeros(7, 5, 2), 0: torch.zeros(7, 1, 3)}).shape
        torch.Size([7, 5, 5])
    """
    shape = torch.broadcast_shapes(*(part.shape[:-1] for part in parts.values()))
    return torch.cat([parts[i].expand(*shape, -1) for i in range(len(parts))], -1)


class Chain(Distribution):
    """A product of conditional distributions over the parts of one flat vector.

    Args:
        sizes: of the parts, in vector order.
        order: indices of the parts, in sampling order.
        step: the distribution of a part given those drawn before.
        batch_shape: ``(B,)`` or ``()``.

    Example:
        >>> from torch.distributions import Independent, Normal
        >>> def step(i, parts):  # a standard normal, and then another around it
        ...     centre = torch.zeros(5, 2) if i else parts[1]
        ...     return Independent(Normal(centre, torch.ones_like(centre)), 1)
        >>> chain = Chain((2, 2), (1, 0), step, torch.Size([5]))
        >>> chain.rsample((7,)).shape, chain.log_prob(chain.mean)[0]
        (torch.Size([7, 5, 4]), tensor(-3.6758))
    """

    arg_constraints: dict[str, constraints.Constraint] = {}  # noqa: RUF012  # as torch.distributions declares it
    support = constraints.real_vector
    has_rsample = True

    def __init__(self, sizes: Sequence[int], order: Sequence[int], step: Step, batch_shape: torch.Size) -> None:
        self.sizes, self.order, self.step = tuple(sizes), tuple(order), step
        super().__init__(batch_shape, torch.Size([sum(self.sizes)]), validate_args=False)

    def follow(self, choose: Callable[[int, Distribution], Tensor]) -> tuple[Parts, Mapping[int, Distribution]]:
        """Visits the parts in order; returns the value ``choose`` picks for each, and the distributions."""
        parts: Parts = {}
        steps: dict[int, Distribution] = {}
        for i in self.order:
            steps[i] = self.step(i, parts)
            parts[i] = choose(i, steps[i])
        return parts, steps

    def draw(self, sample_shape: Sequence[int] = ()) -> tuple[Parts, Mapping[int, Distribution]]:
        """Parts ``(*sample_shape, *batch_shape, size)`` and the distributions they are drawn from."""
        shape = torch.Size(sample_shape) + self.batch_shape
        return self.follow(lambda i, d: d.expand(shape).rsample())

    def rsample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        """Draws ``(*sample_shape, *batch_shape, D)``."""
        return joined(self.draw(sample_shape)[0])

    def log_prob(self, value: Tensor) -> Tensor:
        """``(*, B)``, the sum of the conditional log densities of the parts, in nats."""
        own = dict(enumerate(value.split(self.sizes, -1)))
        _, steps = self.follow(lambda i, d: own[i])
        first, *rest = (steps[i].log_prob(own[i]) for i in self.order)
        return sum(rest, first)

    @property
    def mean(self) -> Tensor:
        """``(*batch_shape, D)``, the mean of each part given the means of the previous parts.

        This is the exact mean where every conditional mean is linear in the previous parts, else an approximation.
        """
        return joined(self.follow(lambda i, d: d.mean.expand(*self.batch_shape, self.sizes[i]))[0])


class Transformed(TransformedDistribution):
    """A transformed chain, whose ``mean`` is the transformed mean of the chain.

    Args:
        base: the chain.
        transform: applied to its samples.
    """

    def __init__(self, base: Chain, transform: Transform) -> None:
        super().__init__(base, [transform], validate_args=False)

    @property
    def mean(self) -> Tensor:
        """``(*batch_shape, D)``, see :attr:`Chain.mean`."""
        return self.transforms[0](self.base_dist.mean)

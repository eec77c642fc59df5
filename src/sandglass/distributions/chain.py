"""A distribution over a flat code whose parts are drawn one after another, each given those before."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor
from torch.distributions import Distribution, TransformedDistribution, constraints
from torch.distributions.transforms import Transform

Parts = dict[int, Tensor]
"""Parts of a code, ``(*, B, size)`` by their place in it; those that were drawn so far."""

Step = Callable[[int, Parts], Distribution]
"""The distribution of one part over ``(*, B, size)``, given the parts drawn before it."""


def joined(parts: Parts) -> Tensor:
    """The flat vector ``(*, B, D)`` of all parts, each of them as often as the others.

    Example:
        >>> joined({1: torch.zeros(7, 5, 2), 0: torch.zeros(7, 1, 3)}).shape
        torch.Size([7, 5, 5])
    """
    shape = torch.broadcast_shapes(*(part.shape[:-1] for part in parts.values()))
    return torch.cat([parts[i].expand(*shape, -1) for i in range(len(parts))], -1)


class Chain(Distribution):
    """Parts of one flat vector, each of them drawn given those before: a product of conditional distributions.

    Args:
        sizes: of the parts, in the order in which they lie in the vector.
        order: places of the parts, in the order in which they are drawn.
        step: the distribution of a part given those drawn before.
        batch_shape: of the whole, ``(B,)`` or ``()``.

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
        """Goes through the parts in order, and keeps of each what ``choose`` takes and what it took it from."""
        parts: Parts = {}
        steps: dict[int, Distribution] = {}
        for i in self.order:
            steps[i] = self.step(i, parts)
            parts[i] = choose(i, steps[i])
        return parts, steps

    def draw(self, sample_shape: Sequence[int] = ()) -> tuple[Parts, Mapping[int, Distribution]]:
        """Parts ``(*sample_shape, *batch_shape, size)`` and the distributions that they are draws of."""
        shape = torch.Size(sample_shape) + self.batch_shape
        return self.follow(lambda i, d: d.expand(shape).rsample())

    def rsample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        """Draws ``(*sample_shape, *batch_shape, D)``."""
        return joined(self.draw(sample_shape)[0])

    def log_prob(self, value: Tensor) -> Tensor:
        """``(*, B)``, the sum over the parts of their log densities given those before, in nats."""
        own = dict(enumerate(value.split(self.sizes, -1)))
        _, steps = self.follow(lambda i, d: own[i])
        first, *rest = (steps[i].log_prob(own[i]) for i in self.order)
        return sum(rest, first)

    @property
    def mean(self) -> Tensor:
        """``(*batch_shape, D)`` the mean of each part given the means of those before it.

        It is the mean of the whole where every mean is a linear function of the parts before, and else stands near it.
        """
        return joined(self.follow(lambda i, d: d.mean.expand(*self.batch_shape, self.sizes[i]))[0])


class Transformed(TransformedDistribution):
    """A chain in other coordinates, whose ``mean`` is the chain's in those.

    Args:
        base: the chain.
        transform: from its coordinates to the others.
    """

    def __init__(self, base: Chain, transform: Transform) -> None:
        super().__init__(base, [transform], validate_args=False)

    @property
    def mean(self) -> Tensor:
        """``(*batch_shape, D)``, see :attr:`Chain.mean`."""
        return self.transforms[0](self.base_dist.mean)

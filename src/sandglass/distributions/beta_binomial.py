"""The beta-binomial likelihood over levels."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor
from torch.distributions import Beta, Binomial, Distribution, constraints
from torch.types import _size

from sandglass.distributions.levels import LevelLikelihood
from sandglass.distributions.location_scale import scale_from
from sandglass.registry import register


class BetaBinomialCounts(Distribution):
    """Number of successes in ``total`` trials whose success probability is beta distributed.

    Args:
        total: number of trials.
        a: first concentration.
        b: second concentration.

    Example:
        >>> p = BetaBinomialCounts(4, torch.ones(()), torch.ones(()))  # uniform over 0 to 4
        >>> round(float(p.log_prob(torch.tensor(3.0)).exp()), 6)
        0.2
    """

    arg_constraints: ClassVar = {}
    support = constraints.nonnegative_integer

    def __init__(self, total: int, a: Tensor, b: Tensor) -> None:
        self.total, self.a, self.b = total, a, b
        super().__init__(a.shape, validate_args=False)

    @property
    def mean(self) -> Tensor:
        """``total a / (a + b)``."""
        return self.total * self.a / (self.a + self.b)

    def log_prob(self, value: Tensor) -> Tensor:
        """In nats, element by element."""
        n = self.a.new_tensor(float(self.total))
        choose = torch.lgamma(n + 1) - torch.lgamma(value + 1) - torch.lgamma(n - value + 1)
        return choose + log_beta(value + self.a, n - value + self.b) - log_beta(self.a, self.b)

    def sample(self, sample_shape: _size = ()) -> Tensor:
        """Draws a success probability, then the number of successes."""
        with torch.no_grad():
            probability = Beta(self.a, self.b, validate_args=False).sample(torch.Size(sample_shape))
            return Binomial(self.total, probs=probability, validate_args=False).sample()


def log_beta(a: Tensor, b: Tensor) -> Tensor:
    """The logarithm of the beta function."""
    return torch.lgamma(a) + torch.lgamma(b) - torch.lgamma(a + b)


@register("beta-binomial", kind="likelihood")
class BetaBinomial(LevelLikelihood):
    """Independent beta-binomial distributions over the levels, with two decoder outputs per element.

    Unlike the categorical it models the levels as ordered, with 2 outputs per element instead of 256.

    Args:
        spec: specification of the data.

    Example:
        >>> from sandglass.core import Spec
        >>> p = BetaBinomial(Spec((3,), "unit", levels=5))(torch.zeros(1, 6))
        >>> p.log_prob(torch.zeros(1, 3)).exp()  # both concentrations 1: (1/5)^3
        tensor([0.0080])
    """

    per_element = 2

    def family(self, parameters: Tensor) -> Distribution:
        """``parameters[..., 0]`` and ``[..., 1]`` are the logarithms of the concentrations."""
        a, b = scale_from(parameters).unbind(-1)
        return BetaBinomialCounts(self.top, a, b)

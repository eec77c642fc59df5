"""Likelihoods of counts: Poisson and negative binomial."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor
from torch.distributions import Distribution
from torch.distributions import NegativeBinomial as TorchNegativeBinomial
from torch.distributions import Poisson as TorchPoisson

from sandglass.distributions.levels import LevelLikelihood
from sandglass.distributions.location_scale import scale_from
from sandglass.registry import register


class _Counts(LevelLikelihood):
    """Levels as unbounded counts; the initial mean of images is the middle of their levels."""

    per_element: ClassVar[int]

    def rate(self, log_rate: Tensor) -> Tensor:
        """Expected count."""
        return scale_from(log_rate) * max(1.0, self.top / 2)


@register("poisson", kind="likelihood")
class Poisson(_Counts):
    """Independent Poisson counts, whose variance equals their mean; levels are counts without an upper bound.

    Args:
        spec: specification of the data.

    Example:
        >>> import torch
        >>> from sandglass.core import Spec
        >>> p = Poisson(Spec((1,), "unit", levels=3))(torch.zeros(1, 1))  # rate 1
        >>> round(float(p.log_prob(torch.zeros(1, 1))), 4)
        -1.0
    """

    per_element = 1

    def family(self, parameters: Tensor) -> Distribution:
        """``parameters[..., 0]`` is the logarithm of the rate."""
        return TorchPoisson(self.rate(parameters[..., 0]), validate_args=False)


@register("negative-binomial", kind="likelihood")
class NegativeBinomial(_Counts):
    """Independent negative binomial counts, overdispersed relative to Poisson: variance ``mean + mean^2 / r``.

    Args:
        spec: specification of the data.

    Example:
        >>> import torch
        >>> from sandglass.core import Spec
        >>> p = NegativeBinomial(Spec((1,), "unit", levels=3))(torch.zeros(1, 2))  # mean 1, r = 1: geometric
        >>> round(float(p.log_prob(torch.zeros(1, 1)).exp()), 4)
        0.5
    """

    per_element = 2

    def family(self, parameters: Tensor) -> Distribution:
        """The logarithms of the mean and of ``r``."""
        log_rate, log_r = parameters.unbind(-1)
        r = scale_from(log_r)
        return TorchNegativeBinomial(r, logits=(self.rate(log_rate) / r).log(), validate_args=False)

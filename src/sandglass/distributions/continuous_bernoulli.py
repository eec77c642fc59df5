"""The continuous Bernoulli, which normalises the cross-entropy of grey values to a likelihood."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor
from torch.distributions import Distribution, Independent, constraints
from torch.types import _size

from sandglass.core import Spec
from sandglass.distributions.likelihood import Likelihood
from sandglass.errors import ConfigError
from sandglass.registry import register

_SMALL = 0.1  # below this, series are more accurate than the quotients


def log_sinhc(u: Tensor) -> Tensor:
    """``log(sinh(u) / u)`` and its gradient, accurate to rounding error for every ``u``.

    Example:
        >>> round(float(log_sinhc(torch.tensor(1.0))), 5), float(log_sinhc(torch.tensor(0.0)))
        (0.16144, 0.0)
    """
    a = u.abs()
    near = a < _SMALL
    square = torch.where(near, a, 0.0).square()
    series = square / 6 - square**2 / 180 + square**3 / 2835 - square**4 / 37800
    far = torch.where(near, 1.0, a)
    return torch.where(near, series, far + torch.log1p(-torch.exp(-2 * far)) - torch.log(2 * far))


class ContinuousBernoulliDensity(Distribution):
    """``p(x) = exp(eta x) eta / (exp(eta) - 1)`` on [0, 1], for logits ``eta``.

    PyTorch's version replaces a band around probability 1/2 by a Taylor series; centred at ``x = 1/2`` the formula
    needs no such approximation.

    Args:
        logits: real numbers.
    """

    arg_constraints: ClassVar = {}
    support = constraints.unit_interval
    has_rsample = True

    def __init__(self, logits: Tensor) -> None:
        self.logits = logits
        super().__init__(logits.shape, validate_args=False)

    def log_prob(self, value: Tensor) -> Tensor:
        """In nats, element by element: ``eta (x - 1/2) - log(sinh(eta/2) / (eta/2))``."""
        return self.logits * (value - 0.5) - log_sinhc(0.5 * self.logits)

    @property
    def mean(self) -> Tensor:
        """``1 / (1 - exp(-eta)) - 1 / eta``."""
        near = self.logits.abs() < _SMALL
        small = torch.where(near, self.logits, 0.0)
        far = torch.where(near, 1.0, self.logits)
        series = 0.5 + small / 12 - small**3 / 720 + small**5 / 30240
        return torch.where(near, series, -1 / torch.expm1(-far) - 1 / far)

    def rsample(self, sample_shape: _size = ()) -> Tensor:
        """By inversion, from the side with the higher density, so that large logits do not overflow."""
        shape = self._extended_shape(torch.Size(sample_shape))
        u = torch.rand(shape, dtype=self.logits.dtype, device=self.logits.device)
        a = self.logits.abs().clamp(min=1e-4)
        x = -torch.log1p(u * torch.expm1(-a)) / a  # for the density that decreases from 0
        return torch.where(self.logits > 0, 1 - x, x).clamp(0, 1)

    def sample(self, sample_shape: _size = ()) -> Tensor:
        """As :meth:`rsample`, without a gradient."""
        with torch.no_grad():
            return self.rsample(sample_shape)


@register("continuous-bernoulli", kind="likelihood")
class ContinuousBernoulli(Likelihood):
    """Independent continuous Bernoulli densities on [0, 1]: the binary cross-entropy, normalised.

    Loaiza-Ganem and Cunningham 2019, "The continuous Bernoulli: fixing a pervasive error in variational autoencoders"
    (arXiv 1907.06845). A density: its bound can be positive, and is not comparable with that of the Bernoulli.

    Args:
        spec: specification of the data, whose values must lie in [0, 1].

    Raises:
        ConfigError: the data is real-valued.

    Example:
        >>> p = ContinuousBernoulli(Spec((1, 2, 2), "unit"))(torch.zeros(3, 1, 2, 2))
        >>> p.log_prob(torch.rand(3, 1, 2, 2))  # logits of 0: uniform
        tensor([0., 0., 0.])
    """

    def __init__(self, spec: Spec) -> None:
        super().__init__()
        if spec.support == "real":
            raise ConfigError("continuous-bernoulli needs values in [0, 1]; use gaussian for real-valued data.")
        self.event = len(spec.shape)

    def channels(self, spec: Spec) -> int:
        """One logit per element."""
        return spec.shape[0]

    def forward(self, h: Tensor) -> Distribution:
        """Logits ``(B, *shape)`` to the distribution."""
        return Independent(ContinuousBernoulliDensity(h), self.event, validate_args=False)

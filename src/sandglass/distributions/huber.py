"""The density whose negative logarithm is Huber's loss."""

from __future__ import annotations

import math
from typing import ClassVar, Literal

import torch
from torch import Tensor
from torch.distributions import Distribution, constraints
from torch.distributions.utils import broadcast_all
from torch.types import _size

from sandglass.core import Spec
from sandglass.distributions.location_scale import LocationScale
from sandglass.errors import ConfigError
from sandglass.registry import register


class HuberDensity(Distribution):
    """``p(x) = exp(-H((x - location) / scale)) / (scale Z)``, normal in the centre with exponential tails.

    ``H(r)`` is ``r^2 / 2`` up to ``|r| = delta`` and ``delta (|r| - delta / 2)`` beyond. It is the least favourable
    density of Huber 1964, "Robust Estimation of a Location Parameter" (Annals of Mathematical Statistics 35).

    Args:
        location: its mean and mode.
        scale: of the same shape.
        delta: where the tails begin, in units of the scale.

    Example:
        >>> p = HuberDensity(torch.zeros(()), torch.ones(()), 1e3)  # negligible tails: a standard normal
        >>> round(float(p.log_prob(torch.zeros(()))), 4)
        -0.9189
    """

    arg_constraints: ClassVar = {}
    support = constraints.real
    has_rsample = True

    def __init__(self, location: Tensor, scale: Tensor, delta: float) -> None:
        self.location, self.scale = broadcast_all(location, scale)
        self.delta = delta
        self.centre = math.sqrt(2 * math.pi) * math.erf(delta / math.sqrt(2))  # mass within delta, and beyond
        self.tails = 2 / delta * math.exp(-0.5 * delta**2)
        super().__init__(self.location.shape, validate_args=False)

    @property
    def mean(self) -> Tensor:
        """The location."""
        return self.location

    @property
    def variance(self) -> Tensor:
        """Sum of the normal part within ``delta`` and the exponential part beyond."""
        d = self.delta
        inner = self.centre - 2 * d * math.exp(-0.5 * d * d)
        outer = self.tails * (d * d + 2 + 2 / (d * d))
        return self.scale.square() * ((inner + outer) / (self.centre + self.tails))

    def log_prob(self, value: Tensor) -> Tensor:
        """In nats, element by element."""
        r = ((value - self.location) / self.scale).abs()
        inner = r.clamp(max=self.delta)
        cost = inner * (r - 0.5 * inner)  # both branches in one
        return -cost - self.scale.log() - math.log(self.centre + self.tails)

    def rsample(self, sample_shape: _size = ()) -> Tensor:
        """Samples by inversion of the distribution function."""
        shape = self._extended_shape(torch.Size(sample_shape))
        u = torch.rand(shape, dtype=self.location.dtype, device=self.location.device)
        total = self.centre + self.tails
        mass = (2 * u - 1).abs() * total  # mass around the centre, of both sides together
        inside = mass < self.centre
        middle = torch.erfinv((mass / math.sqrt(2 * math.pi)).clamp(max=1 - 1e-7)) * math.sqrt(2)
        left = ((total - mass) / self.tails).clamp(min=1e-30)
        beyond = self.delta - left.log() / self.delta
        r = torch.where(inside, middle.clamp(max=self.delta), beyond)
        return self.location + self.scale * r * torch.sign(u - 0.5)

    def sample(self, sample_shape: _size = ()) -> Tensor:
        """As :meth:`rsample`, without a gradient."""
        with torch.no_grad():
            return self.rsample(sample_shape)


@register("huber", kind="likelihood", learn="none")
class Huber(LocationScale):
    """Independent Huber densities around the decoder's output: squared error near it, absolute error far from it.

    Args:
        spec: specification of the data.
        scale: in the unit of the data; the initial value if it is learned.
        learn: ``none`` keeps it fixed, ``shared`` learns one for all elements, ``pixel`` one for every element.
        delta: threshold between squared and absolute error, in units of the scale.

    Example:
        >>> p = Huber(Spec((1,)), learn="none")(torch.zeros(1, 1))
        >>> float((p.log_prob(torch.zeros(1, 1)) - p.log_prob(torch.full((1, 1), 3.0))))  # 1 * (3 - 1/2)
        2.5
    """

    def __init__(
        self,
        spec: Spec,
        *,
        scale: float = 1.0,
        learn: Literal["none", "shared", "pixel"] = "shared",
        delta: float = 1.0,
    ) -> None:
        super().__init__(spec, scale=scale, learn=learn)
        if not 0 < delta < 1e6:
            raise ConfigError(f"delta of Huber must be positive, not {delta}.")
        self.delta = delta

    def family(self, location: Tensor, scale: Tensor) -> Distribution:
        """Huber's densities."""
        return HuberDensity(location, scale, self.delta)

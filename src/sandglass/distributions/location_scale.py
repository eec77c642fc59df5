"""Base class of likelihoods with a location and a scale for each element."""

from __future__ import annotations

import abc
import math
from collections.abc import Callable
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.distributions import Distribution, Independent, constraints
from torch.types import _size

from sandglass.core import Spec
from sandglass.distributions.likelihood import Likelihood
from sandglass.errors import ConfigError

LOG_SCALE_BOUND = 10.0
"""Log scales are clamped to plus and minus this, so that exp() and its gradient stay finite."""

DECAY = 0.95
"""Of the moving average of a computed scale: of about the last twenty batches."""


def scale_from(log_scale: Tensor) -> Tensor:
    """``exp`` of a log scale clamped to :data:`LOG_SCALE_BOUND`."""
    return log_scale.clamp(-LOG_SCALE_BOUND, LOG_SCALE_BOUND).exp()


class AtOptimum(Distribution):
    """Elements with one common scale, which ``log_prob`` sets to the most likely one for the values it is given.

    Args:
        family: from a location and a scale to densities of the elements.
        location: of every element.
        usual: the scale of everything but ``log_prob``.
        optimum: from ``value - location``, and a mask of what is observed or None, to the scale, ``()``.
        mask: which elements are observed; None for all.
    """

    arg_constraints: ClassVar = {}
    support = constraints.real

    def __init__(
        self,
        family: Callable[[Tensor, Tensor], Distribution],
        location: Tensor,
        usual: Tensor,
        optimum: Callable[[Tensor, Tensor | None], Tensor],
        mask: Tensor | None = None,
    ) -> None:
        self.family, self.location, self.usual, self.optimum, self.mask = family, location, usual, optimum, mask
        super().__init__(location.shape, validate_args=False)

    def observing(self, mask: Tensor) -> AtOptimum:
        """The same, of which the elements are observed for which the mask is True."""
        return AtOptimum(self.family, self.location, self.usual, self.optimum, mask)

    @property
    def mean(self) -> Tensor:
        """The location."""
        return self.location

    def log_prob(self, value: Tensor) -> Tensor:
        """In nats, element by element; all of them depend on each other by the scale."""
        scale = self.optimum(value - self.location, self.mask)
        return self.family(self.location, scale.expand_as(self.location)).log_prob(value)

    def sample(self, sample_shape: _size = ()) -> Tensor:
        """Draws at the usual scale."""
        drawn: Tensor = self.family(self.location, self.usual).sample(torch.Size(sample_shape))
        return drawn


class LocationScale(Likelihood):
    """A density around the decoder's output, with a scale that is fixed, learned, computed, or output per element.

    The computed scale is the optimal sigma of Rybkin, Daniilidis and Levine 2021, "Simple and Effective VAE Training
    with Calibrated Decoders" (arXiv 2006.13202): in train mode, the scale at which the batch is most likely. In eval
    mode, and for samples, it is the buffer ``log_scale``, the logarithm of a moving average over the batches, as in
    batch normalisation.

    Args:
        spec: specification of the data.
        scale: in the unit of the data ([0, 1] for images); the initial value if it is learned or computed.
        learn: ``none`` keeps it fixed; ``shared`` learns one for all elements by its gradient; ``optimal`` computes
            one for all elements; ``pixel`` has the decoder output one for every element.
        bounded: whether on data in [0, 1] the location is a sigmoid of the decoder's output.
    """

    log_scale: Tensor
    batches: Tensor
    power: ClassVar[int] = 0
    """p, where the scale to the power p is most likely the mean of ``|x - location|^p``; 0 without a closed form."""

    def __init__(
        self,
        spec: Spec,
        *,
        scale: float = 1.0,
        learn: Literal["none", "shared", "optimal", "pixel"] = "shared",
        bounded: bool = False,
    ) -> None:
        super().__init__()
        name = type(self).__name__
        if scale <= 0:
            raise ConfigError(f"The scale of {name} must be positive, not {scale}.")
        known = ("none", "shared", *(["optimal"] if self.power else []), "pixel")
        if learn not in known:
            raise ConfigError(f"The option learn of {name} must be one of {', '.join(known)}, not '{learn}'.")
        self.event, self.learn, self.bounded = len(spec.shape), learn, bounded and spec.support != "real"
        start = torch.tensor(math.log(scale))
        if learn == "shared":
            self.log_scale = nn.Parameter(start)
        else:
            self.register_buffer("log_scale", start)
        if learn == "optimal":
            self.register_buffer("batches", torch.zeros((), dtype=torch.int64))

    @abc.abstractmethod
    def family(self, location: Tensor, scale: Tensor) -> Distribution:
        """Independent densities of the elements."""

    def channels(self, spec: Spec) -> int:
        """One location per element, and a log scale with ``learn="pixel"``."""
        return spec.shape[0] * (2 if self.learn == "pixel" else 1)

    def forward(self, h: Tensor) -> Distribution:
        """``(B, channels, ...)`` to the distribution."""
        if self.learn == "pixel":
            location, spread = h.chunk(2, dim=-self.event)
            scale = scale_from(spread + self.log_scale)
        else:
            location, scale = h, scale_from(self.log_scale).expand_as(h)
        location = location.sigmoid() if self.bounded else location
        if self.learn == "optimal" and self.training:
            return Independent(AtOptimum(self.family, location, scale, self.optimum), self.event, validate_args=False)
        return Independent(self.family(location, scale), self.event, validate_args=False)

    def optimum(self, error: Tensor, mask: Tensor | None = None) -> Tensor:
        """``()``, the scale at which errors are most likely, within the bounds of a scale; the buffer follows it.

        Args:
            error: ``(B, *shape)``, distances from the location.
            mask: of the same shape, True where observed.
        """
        p, powers = self.power, error.abs() if self.power == 1 else error**self.power
        usual = (p * self.log_scale).exp()
        if mask is None:
            mean = powers.mean()
        else:
            count = mask.expand_as(error).sum()
            mean = torch.where(count > 0, powers.masked_fill(~mask, 0).sum() / count.clamp(min=1), usual)
        mean = mean.clamp(math.exp(-p * LOG_SCALE_BOUND), math.exp(p * LOG_SCALE_BOUND))
        with torch.no_grad():
            # Powers are averaged, not scales: their mean is the optimum of the batches together.
            weight = (1 - DECAY) + DECAY * (self.batches == 0).to(usual.dtype)  # the first has all of it
            self.log_scale.copy_(usual.lerp(mean.to(usual.dtype), weight).log() / p)
            self.batches += 1
        return mean ** (1 / p)

"""Base class of likelihoods with a location and a scale for each element."""

from __future__ import annotations

import abc
import math
from typing import Literal

import torch
from torch import Tensor, nn
from torch.distributions import Distribution, Independent

from sandglass.core import Spec
from sandglass.distributions.likelihood import Likelihood
from sandglass.errors import ConfigError

LOG_SCALE_BOUND = 10.0
"""Log scales are clamped to plus and minus this, so that exp() and its gradient stay finite."""


def scale_from(log_scale: Tensor) -> Tensor:
    """``exp`` of a log scale clamped to :data:`LOG_SCALE_BOUND`."""
    return log_scale.clamp(-LOG_SCALE_BOUND, LOG_SCALE_BOUND).exp()


class LocationScale(Likelihood):
    """A density around the decoder's output, with a scale that is fixed, learned, or output per element.

    Args:
        spec: specification of the data.
        scale: in the unit of the data ([0, 1] for images); the initial value if it is learned.
        learn: ``none`` keeps it fixed, ``shared`` learns one for all elements (Rybkin, Daniilidis and Levine 2021,
            "Simple and Effective VAE Training with Calibrated Decoders", arXiv 2006.13202), ``pixel`` has the decoder
            output one for every element.
    """

    def __init__(self, spec: Spec, *, scale: float = 1.0, learn: Literal["none", "shared", "pixel"] = "shared") -> None:
        super().__init__()
        name = type(self).__name__
        if scale <= 0:
            raise ConfigError(f"The scale of {name} must be positive, not {scale}.")
        if learn not in ("none", "shared", "pixel"):
            raise ConfigError(f"The option learn of {name} must be one of none, shared, pixel, not '{learn}'.")
        self.event, self.learn = len(spec.shape), learn
        start = torch.tensor(math.log(scale))
        if learn == "shared":
            self.log_scale = nn.Parameter(start)
        else:
            self.register_buffer("log_scale", start)

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
        return Independent(self.family(location, scale), self.event, validate_args=False)

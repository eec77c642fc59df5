"""The Gaussian likelihood with a fixed, a shared learned or a per-element learned scale."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor, nn
from torch.distributions import Distribution, Independent, Normal

from sandglass.core import Likelihood, Spec
from sandglass.errors import ConfigError
from sandglass.registry import register

LOG_SCALE_BOUND = 10.0
"""Log standard deviations are held within plus and minus this, so that exp() and its gradient stay finite."""


def scale_from(log_scale: Tensor) -> Tensor:
    """``exp`` of a log standard deviation held within :data:`LOG_SCALE_BOUND`."""
    return log_scale.clamp(-LOG_SCALE_BOUND, LOG_SCALE_BOUND).exp()


@register("gaussian", kind="likelihood")
class Gaussian(Likelihood):
    """Each element is normal around the decoder's output; a density, so its bound can be positive.

    Args:
        spec: the data.
        scale: the standard deviation, in the unit of the data ([0, 1] for images); the starting one if it is learned.
        learn: ``none`` keeps it, ``shared`` learns one for all elements (Rybkin, Daniilidis and Levine 2021,
            "Simple and Effective VAE Training with Calibrated Decoders", arXiv 2006.13202), ``pixel`` lets the decoder
            put one out for every element.

    Example:
        >>> p = Gaussian(Spec((2,)), learn="none")(torch.zeros(1, 2))
        >>> round(float(p.log_prob(torch.zeros(1, 2))), 4)  # -ln(2 pi)
        -1.8379
    """

    def __init__(self, spec: Spec, *, scale: float = 1.0, learn: Literal["none", "shared", "pixel"] = "shared") -> None:
        super().__init__()
        if scale <= 0:
            raise ConfigError(f"The Gaussian's scale must be positive, not {scale}.")
        if learn not in ("none", "shared", "pixel"):
            raise ConfigError(f"The Gaussian's scale is learned as one of none, shared, pixel, not '{learn}'.")
        self.event, self.learn = len(spec.shape), learn
        start = torch.tensor(math.log(scale))
        if learn == "shared":
            self.log_scale = nn.Parameter(start)
        else:
            self.register_buffer("log_scale", start)

    @staticmethod
    def natural(spec: Spec) -> bool:
        """Whether ``"auto"`` picks this: for real values."""
        return spec.support == "real"

    def channels(self, spec: Spec) -> int:
        """A mean an element, and with ``learn="pixel"`` a log scale too."""
        return spec.shape[0] * (2 if self.learn == "pixel" else 1)

    def forward(self, h: Tensor) -> Distribution:
        """``(B, channels, ...)`` to the distribution."""
        if self.learn == "pixel":
            mean, spread = h.chunk(2, dim=-self.event)
            scale = scale_from(spread + self.log_scale)
        else:
            mean, scale = h, scale_from(self.log_scale).expand_as(h)
        return Independent(Normal(mean, scale, validate_args=False), self.event, validate_args=False)

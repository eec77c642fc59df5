"""The mixture of discretised logistics over levels."""

from __future__ import annotations

from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.distributions import Distribution, constraints
from torch.types import _size

from sandglass.core import Spec
from sandglass.distributions.levels import LevelLikelihood
from sandglass.errors import ConfigError
from sandglass.registry import register

_SHARPEST = -7.0  # lower bound of the log scales, as in the paper; the upper bound is its negative


class DiscretisedLogistics(Distribution):
    """A mixture of logistics discretised to levels: each gets the mass of its bin, the outermost also the tails.

    With ``F`` the logistic distribution function and ``a < b`` the edges of a bin, ``log(F(b) - F(a))`` is computed as
    ``log sigmoid(b) + log sigmoid(-a) + log(1 - exp(a - b))``, which avoids cancellation.

    Args:
        top: the highest level.
        weights: ``(..., K)`` logits of the components.
        means: ``(..., K)`` on a scale where levels run from -1 to 1.
        log_scales: ``(..., K)`` on that scale.
    """

    arg_constraints: ClassVar = {}
    support = constraints.nonnegative_integer

    def __init__(self, top: int, weights: Tensor, means: Tensor, log_scales: Tensor) -> None:
        self.top, self.means = top, means
        self.log_weights = weights.log_softmax(-1)
        self.inverse = torch.exp(-log_scales.clamp(_SHARPEST, -_SHARPEST))
        super().__init__(means.shape[:-1], validate_args=False)

    def log_prob(self, value: Tensor) -> Tensor:
        """In nats, element by element."""
        x = (2 * value / self.top - 1)[..., None]
        half = 1 / self.top
        upper = (x + half - self.means) * self.inverse
        lower = (x - half - self.means) * self.inverse
        below = torch.where(value[..., None] >= self.top - 0.5, 0.0, F.logsigmoid(upper))
        above = torch.where(value[..., None] <= 0.5, 0.0, F.logsigmoid(-lower))
        inner = (value[..., None] > 0.5) & (value[..., None] < self.top - 0.5)
        width = torch.log(-torch.expm1(-2 * half * self.inverse))
        return torch.logsumexp(self.log_weights + below + above + torch.where(inner, width, 0.0), -1)

    @property
    def mean(self) -> Tensor:
        """Mean of the logistics clipped at the outer edges, in levels: within half a level of the exact mean."""
        high, low = 1 + 1 / self.top, -1 - 1 / self.top
        rise = F.softplus((high - self.means) * self.inverse) - F.softplus((low - self.means) * self.inverse)
        each = high - rise / self.inverse
        mean = (self.log_weights.exp() * each).sum(-1)
        return ((mean + 1) / 2 * self.top).clamp(0, self.top)

    def sample(self, sample_shape: _size = ()) -> Tensor:
        """Draws a component, then a logistic value from it, rounded to the nearest level."""
        with torch.no_grad():
            shape = self._extended_shape(torch.Size(sample_shape))
            weights = self.log_weights.expand(*shape, -1)
            pick = torch.distributions.Categorical(logits=weights, validate_args=False).sample()[..., None]
            mean = self.means.expand_as(weights).gather(-1, pick)[..., 0]
            scale = 1 / self.inverse.expand_as(weights).gather(-1, pick)[..., 0]
            u = torch.rand_like(mean).clamp(1e-6, 1 - 1e-6)
            x = mean + scale * torch.logit(u)
            return ((x + 1) / 2 * self.top).round().clamp(0, self.top)


@register("logistic-mixture", kind="likelihood")
class LogisticMixture(LevelLikelihood):
    """Independent mixtures of discretised logistics over levels; channels are independent given the latent.

    Salimans, Karpathy, Chen and Kingma 2017, "PixelCNN++: Improving the PixelCNN with Discretized Logistic Mixture
    Likelihood and Other Modifications" (arXiv 1701.05517), without autoregression over colour channels.

    Args:
        spec: specification of the data.
        components: mixture components per element, with three decoder outputs each.

    Raises:
        ConfigError: ``components`` is below 1, or the data is real-valued.

    Example:
        >>> p = LogisticMixture(Spec((1, 2, 2), "unit"), components=2)(torch.zeros(3, 6, 2, 2))
        >>> p.mean[0, 0, 0, 0]
        tensor(0.5000)
    """

    def __init__(self, spec: Spec, *, components: int = 5) -> None:
        super().__init__(spec)
        if components < 1:
            raise ConfigError(f"logistic-mixture needs at least 1 component, not {components}.")
        self.components = components

    @staticmethod
    def natural(spec: Spec) -> bool:
        """Whether ``"auto"`` selects this: for levels, such as those of photographs."""
        return spec.support == "levels"

    def numbers(self) -> int:
        """A weight, a mean and a log scale per component."""
        return 3 * self.components

    def family(self, parameters: Tensor) -> Distribution:
        """The mixture; log scales start at -1, so that an untrained decoder covers the levels."""
        weights, means, log_scales = parameters.chunk(3, -1)
        spread = torch.linspace(-0.5, 0.5, self.components, device=means.device, dtype=means.dtype)
        start = spread if self.components > 1 else 0 * spread
        return DiscretisedLogistics(self.top, weights, means + start, log_scales - 1)

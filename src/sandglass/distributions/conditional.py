"""A network and a head: what turns an input into a distribution."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.distributions import Distribution, Independent, Normal

from sandglass.core import Conditional, Likelihood, Net, Spec
from sandglass.distributions.location_scale import scale_from


class DiagonalGaussian(Conditional):
    """``q(z|x)``: independent normals whose means and log variances a network puts out.

    Args:
        trunk: ``(B, ...) -> (B, 2 dim)``.

    Example:
        >>> DiagonalGaussian(nn.Linear(3, 4))(torch.zeros(5, 3)).rsample().shape
        torch.Size([5, 2])
    """

    def __init__(self, trunk: nn.Module) -> None:
        super().__init__()
        self.trunk = trunk

    def forward(self, c: Tensor | None = None) -> Distribution:
        """The distribution given ``c``."""
        mean, log_variance = at_least_single(self.trunk(c)).chunk(2, -1)
        return Independent(Normal(mean, scale_from(0.5 * log_variance), validate_args=False), 1, validate_args=False)


class Observation(Conditional):
    """``p(x|z)``: a decoder and the likelihood that reads its output.

    Args:
        net: the family the decoder is of.
        dim: size of the latent.
        spec: the data.
        likelihood: the head.
    """

    def __init__(self, net: Net, dim: int, spec: Spec, likelihood: Likelihood) -> None:
        super().__init__()
        self.trunk = net.decoder(dim, (likelihood.channels(spec), *spec.shape[1:]))
        self.likelihood = likelihood

    def forward(self, c: Tensor | None = None) -> Distribution:
        """The distribution given latents ``(B, dim)``."""
        return self.likelihood(at_least_single(self.trunk(c)))


def at_least_single(h: Tensor) -> Tensor:
    """Half-precision outputs in float32, so that statistics and likelihoods are never taken in less."""
    return h.float() if h.dtype in (torch.float16, torch.bfloat16) else h

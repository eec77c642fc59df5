"""A second VAE, on the codes of the first model."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.distributions import Independent, Normal

from sandglass.distributions.conditional import DiagonalGaussian, Network
from sandglass.distributions.location_scale import scale_from
from sandglass.distributions.rate import rate
from sandglass.distributions.standard import StandardNormal
from sandglass.errors import ConfigError
from sandglass.nets.mlp import MLP
from sandglass.registry import register
from sandglass.samplers.sampler import TrainedSampler


@register("two-stage", kind="sampler")
class TwoStage(TrainedSampler):
    """A VAE on the codes, with as many latents as a code has numbers and a learnt scale of its Gaussian likelihood.

    The codes of a VAE may fill the space but not follow the prior; those of the second one do, as far as its rate goes
    to their intrinsic dimension. Dai and Wipf 2019, "Diagnosing and Enhancing VAE Models" (two-stage VAE, arXiv
    1903.05789). Codes are drawn from the second likelihood, noise included, as in their code.

    Args:
        dim: size of a code.
        widths: hidden layers of encoder and decoder.

    Raises:
        ConfigError: a width below 1.

    Example:
        >>> sampler = TwoStage(2, widths=(8,))
        >>> sampler.loss(torch.zeros(5, 2)).shape, sampler.sample(3).shape
        (torch.Size([5]), torch.Size([3, 2]))
    """

    def __init__(self, dim: int, *, widths: Sequence[int] = (512, 512)) -> None:
        super().__init__(dim)
        if any(width < 1 for width in widths):
            raise ConfigError(f"Widths must be at least 1, not {list(widths)}.")
        net = MLP(widths=widths)
        self.q = DiagonalGaussian(Network.encoder(net, (dim,), 2 * dim))
        self.decoder = Network.decoder(net, dim, (dim,))
        self.log_scale = torch.nn.Parameter(torch.zeros(()))
        self.pu = StandardNormal(dim)

    def cost(self, z: Tensor) -> Tensor:
        """``(B,)`` negative evidence bounds of normalised codes ``(B, dim)`` in nats, from one draw each."""
        q = self.q(z)
        u = q.rsample()
        return rate(q, self.pu(), u) - self.p(u).log_prob(z)

    def p(self, u: Tensor) -> Independent:
        """``p(z|u)`` of normalised codes, given ``(B, dim)``."""
        scale = scale_from(self.log_scale).expand(len(u), self.dim)
        return Independent(Normal(self.decoder(u), scale, validate_args=False), 1, validate_args=False)

    def draw(self, n: int) -> Tensor:
        """``(n, dim)`` normalised codes."""
        return self.p(self.pu().sample((n,))).sample()

"""The plain autoencoder."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from sandglass.core import Batch, Clock, Phase, Spec, Terms
from sandglass.distributions.conditional import Observation, at_least_single
from sandglass.distributions.observed import fill, log_prob
from sandglass.errors import ConfigError
from sandglass.models._latent import LatentModel
from sandglass.registry import LikelihoodOption, NetOption, register, resolve


@register("ae")
class Autoencoder(LatentModel):
    """Autoencoder: an encoder to a code, a decoder back, trained to reconstruct.

    The objective of an example is ``-log p(x|z)`` in nats at its own code z, summed over elements: binary cross-entropy
    with the Bernoulli, half the squared error plus a constant with a Gaussian of fixed scale 1. It has no prior, so
    ``sample`` draws codes from a Gaussian with the running mean and covariance of the training codes (an ex-post
    density, as in Ghosh et al. 2020, "From Variational to Deterministic Autoencoders", arXiv 1903.12436).

    Args:
        spec: the data.
        latent_dim: size of the code.
        net: network family of encoder and decoder; auto is conv for images and mlp for rows.
        likelihood: what the reconstruction is judged by; auto is bernoulli for values in [0, 1], gaussian for real
            ones, and mixed for tables with columns of other kinds.

    Example:
        >>> model = Autoencoder(Spec((1, 8, 8), "unit"), latent_dim=2, net="mlp", likelihood="bernoulli")
        >>> model.reconstruct(torch.rand(5, 1, 8, 8)).shape
        torch.Size([5, 1, 8, 8])
    """

    objective = "reconstruction"
    masks = True
    provides = ("encode", "decode", "reconstruct", "interpolate")

    def __init__(
        self,
        spec: Spec,
        *,
        latent_dim: int = 16,
        net: NetOption = "auto",
        likelihood: LikelihoodOption = "auto",
    ) -> None:
        super().__init__()
        if latent_dim < 1:
            raise ConfigError(f"An autoencoder needs latent_dim >= 1, not {latent_dim}.")
        self.spec, self.latent_dim = spec, latent_dim
        nets = resolve("net", net, spec=spec)
        self.encoder = nets.encoder(spec.shape, latent_dim)
        self.likelihood = Observation(nets, latent_dim, spec, resolve("likelihood", likelihood, spec, spec=spec))
        self.codes = RunningGaussian(latent_dim)

    def phases(self) -> Sequence[Phase]:
        """One player: everything, on the reconstruction."""
        return (Phase("reconstruction", (self,), self.reconstruction, scheduled=False),)

    def reconstruction(self, batch: Batch, clock: Clock) -> Terms:
        """``-log p(x|z)`` of what was observed, averaged over the batch."""
        z = self.encode(fill(batch.x, batch.mask))
        if self.training:
            self.codes.update(z.detach())
        distortion = -log_prob(self.likelihood(z), batch.clean, batch.mask)
        return Terms(distortion.mean(), {"distortion": distortion.detach()})

    def encode(self, x: Tensor) -> Tensor:
        """``(B, latent_dim)`` codes."""
        return at_least_single(self.encoder(x))

    def draw(self, n: int) -> Tensor:
        """``(n, latent_dim)`` draws from a Gaussian fitted to the training codes."""
        return self.codes.sample(n)


class RunningGaussian(nn.Module):
    """A mean and covariance that follow a stream of codes; buffers, so they are saved with the weights.

    Args:
        dim: size of a code.
        momentum: share of the newest batch.
    """

    mean: Tensor
    second: Tensor
    weight: Tensor

    def __init__(self, dim: int, momentum: float = 0.02) -> None:
        super().__init__()
        self.momentum = momentum
        self.register_buffer("mean", torch.zeros(dim))
        self.register_buffer("second", torch.zeros(dim, dim))
        self.register_buffer("weight", torch.zeros(()))

    @torch.no_grad()
    def update(self, z: Tensor) -> None:
        """Takes in the codes ``(B, dim)``."""
        self.mean.lerp_(z.mean(0), self.momentum)
        self.second.lerp_(z.T @ z / len(z), self.momentum)
        self.weight.lerp_(torch.ones_like(self.weight), self.momentum)

    def sample(self, n: int) -> Tensor:
        """``(n, dim)`` draws; standard normal before the first update."""
        noise = torch.randn(n, len(self.mean), device=self.mean.device, dtype=self.mean.dtype)
        seen = self.weight.clamp(min=1e-12)
        mean = self.mean / seen
        covariance = self.second / seen - mean[:, None] * mean
        values, vectors = torch.linalg.eigh(covariance)
        drawn = mean + noise * values.clamp(min=0).sqrt() @ vectors.T
        return torch.where(self.weight > 0, drawn, noise)

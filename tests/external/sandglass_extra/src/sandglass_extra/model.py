"""A model."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from sandglass.core import Batch, Clock, Latent, Model, Phase, Spec, Terms
from sandglass.registry import NetOption, register, resolve


@register("linear-ae")
class LinearAutoencoder(Model):
    """Autoencoder trained on the squared error, with a standard normal over its codes.

    Args:
        spec: the data.
        latent_dim: size of the code.
        net: network family of encoder and decoder.
    """

    provides = ("encode", "decode", "reconstruct")
    needs = ("complete",)  # nothing missing

    def __init__(self, spec: Spec, *, latent_dim: int = 4, net: NetOption = "affine") -> None:
        super().__init__()
        self.spec, self.latents = spec, (Latent("z", (latent_dim,)),)
        nets = resolve("net", net, spec=spec)
        self.encoder: nn.Module = nets.encoder(spec.shape, latent_dim)
        self.decoder: nn.Module = nets.decoder(latent_dim, spec.shape)

    def phases(self) -> tuple[Phase, ...]:
        """One."""
        return (Phase("reconstruction", (self.encoder, self.decoder), self.loss, scheduled=False),)

    def loss(self, batch: Batch, clock: Clock) -> Terms:
        """The squared error, summed over elements, averaged over the batch."""
        error = (self.reconstruct(batch) - batch.x).square().flatten(1).sum(1)
        return Terms(error.mean(), {"error": error.detach()})

    def encode(self, batch: Batch) -> Tensor:
        """``(B, latent_dim)``."""
        return self.encoder(batch.x)

    def decode(self, code: Tensor, given: Batch | None = None) -> Tensor:
        """``(B, *shape)``, in [0, 1] where the data is."""
        x = self.decoder(code)
        return x if self.spec.support == "real" else x.sigmoid()

    def reconstruct(self, batch: Batch) -> Tensor:
        """``(B, *shape)``."""
        return self.decode(self.encode(batch))

    def sample(self, n: int, given: Batch | None = None, *, noise: bool = False) -> Tensor:
        """``(n, *shape)``."""
        return self.decode(torch.randn(n, self.code_size, device=self.device, dtype=self.dtype)).detach()

"""What every model with an encoder and a decoder does in the same way."""

from __future__ import annotations

import abc

import torch
from torch import Tensor

from sandglass.core import Model
from sandglass.distributions.conditional import Observation
from sandglass.errors import ConfigError


class LatentModel(Model):
    """An encoder to a latent code and a likelihood ``p(x|z)`` back; all that follows from the two.

    Attributes:
        latent_dim: size of the code.
        likelihood: ``p(x|z)``.
    """

    denoises = True
    latent_dim: int
    likelihood: Observation

    @abc.abstractmethod
    def encode(self, x: Tensor) -> Tensor:
        """``(B, latent_dim)`` codes of ``(B, *shape)``; the same for the same input in eval mode."""

    @abc.abstractmethod
    def draw(self, n: int) -> Tensor:
        """``(n, latent_dim)`` new codes."""

    def decode(self, z: Tensor) -> Tensor:
        """``(B, latent_dim)`` to the means ``(B, *shape)``."""
        return self.likelihood(z).mean

    def reconstruct(self, x: Tensor) -> Tensor:
        """``decode(encode(x))``."""
        return self.decode(self.encode(x))

    def interpolate(self, a: Tensor, b: Tensor, steps: int = 8) -> Tensor:
        """``(B, steps, *shape)``: decoded points on the straight line between the codes of ``a`` and ``b``.

        Raises:
            ConfigError: fewer than 2 steps.
        """
        if steps < 2:
            raise ConfigError(f"An interpolation needs at least 2 steps, not {steps}.")
        t = torch.linspace(0, 1, steps, device=a.device, dtype=a.dtype)[None, :, None]
        z = self.encode(a)[:, None] * (1 - t) + self.encode(b)[:, None] * t
        return self.decode(z.flatten(0, 1)).unflatten(0, z.shape[:2])

    @torch.no_grad()
    def sample(self, n: int, y: Tensor | None = None, *, noise: bool = False) -> Tensor:
        """``(n, *shape)`` means at new codes, or draws of x around them with ``noise``."""
        p = self.likelihood(self.draw(n))
        return p.sample() if noise else p.mean

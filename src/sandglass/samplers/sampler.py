"""What all samplers share."""

from __future__ import annotations

import abc
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn
from torch.distributions import Distribution

from sandglass import rng
from sandglass.errors import DivergedError

STAGE = "density"
"""The name of the stage in which a sampler is fitted."""


def codes_of(posteriors: Iterable[Distribution | Tensor]) -> Tensor:
    """``(N, dim)`` codes, or a draw from each posterior, of batches; in float64 on the CPU.

    Raises:
        DivergedError: some are not finite.
    """
    drawn = (q if isinstance(q, Tensor) else q.sample() for q in posteriors)
    codes = torch.cat([z.detach().cpu().double() for z in drawn])
    bad = int((~codes.isfinite()).any(1).sum())
    if bad:
        raise DivergedError(f"{bad:,} of {len(codes):,} codes are not finite, so no sampler can be fitted to them.")
    return codes


def some_of(codes: Tensor, n: int, stream: str) -> Tensor:
    """At most ``n`` codes in random order, by the name of the stream alone."""
    return codes[rng.permutation(len(codes), 0, stream)[:n]]


class Sampler(nn.Module, abc.ABC):
    """A distribution of codes that is fitted to those of the training examples, in the place of a prior.

    Sizes of its tensors depend on its options alone.

    Args:
        dim: size of a code.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dim = dim

    @abc.abstractmethod
    def fit(self, codes: Tensor) -> Mapping[str, float]:
        """Fits it to codes ``(N, dim)`` in float64; returns figures of the fit."""

    @abc.abstractmethod
    def sample(self, n: int) -> Tensor:
        """``(n, dim)`` draws."""


class TrainedSampler(Sampler):
    """A sampler that is trained by gradients, on codes of which each number has mean 0 and scale 1.

    Args:
        dim: size of a code.
    """

    mean: Tensor
    scale: Tensor

    def __init__(self, dim: int) -> None:
        super().__init__(dim)
        self.register_buffer("mean", torch.zeros(dim))
        self.register_buffer("scale", torch.ones(dim))

    @torch.no_grad()
    def fit(self, codes: Tensor) -> Mapping[str, float]:
        """Fits mean and scale of the codes; returns the number of codes."""
        self.mean.copy_(codes.mean(0))
        self.scale.copy_(codes.std(0, correction=0).clamp(min=1e-6))
        return {"codes": float(len(codes))}

    def loss(self, z: Tensor) -> Tensor:
        """``(B,)`` what is minimised for codes ``(B, dim)``: their negative log density or bound on it, in nats."""
        return self.cost((z - self.mean) / self.scale) + self.scale.log().sum()

    def sample(self, n: int) -> Tensor:
        """``(n, dim)`` draws."""
        return self.mean + self.scale * self.draw(n)

    @abc.abstractmethod
    def cost(self, z: Tensor) -> Tensor:
        """``(B,)`` the loss of normalised codes ``(B, dim)``."""

    @abc.abstractmethod
    def draw(self, n: int) -> Tensor:
        """``(n, dim)`` normalised codes."""

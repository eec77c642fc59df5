"""What all samplers share."""

from __future__ import annotations

import abc
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.distributions import Distribution, Independent, Normal

from sandglass import rng
from sandglass.errors import DivergedError


@dataclass(frozen=True)
class Codes:
    """Codes of training examples.

    Args:
        z: ``(N, dim)``, of a probabilistic encoder a draw from q(z|x) each.
        mean: ``(N, dim)``, the means of q(z|x); of a deterministic encoder the codes.
        scale: ``(N, dim)``, the standard deviations of q(z|x) where it is a diagonal Gaussian; None for any other.
    """

    z: Tensor
    mean: Tensor
    scale: Tensor | None = None

    @classmethod
    def of(cls, posteriors: Iterable[Distribution | Tensor]) -> Codes:
        """From the posteriors or codes of batches, in float64 on the CPU.

        Raises:
            DivergedError: some are not finite.
        """
        z, mean, scale = [], [], []
        for q in posteriors:
            z.append(_double(q if isinstance(q, Tensor) else q.sample()))
            mean.append(z[-1] if isinstance(q, Tensor) else _double(q.mean))
            if isinstance(q, Independent) and isinstance(q.base_dist, Normal):
                scale.append(_double(q.stddev))
        codes = cls(torch.cat(z), torch.cat(mean), torch.cat(scale) if len(scale) == len(z) else None)
        bad = int((~codes.z.isfinite()).any(1).sum())
        if bad:
            raise DivergedError(f"{bad:,} of {len(codes):,} codes are not finite, so no sampler can be fitted to them.")
        return codes

    def __len__(self) -> int:
        return len(self.z)

    def some(self, n: int, stream: str) -> Codes:
        """At most ``n`` of them in random order, by the name of the stream alone."""
        rows = rng.permutation(len(self), 0, stream)[:n]
        return Codes(self.z[rows], self.mean[rows], None if self.scale is None else self.scale[rows])


def _double(t: Tensor) -> Tensor:
    return t.detach().cpu().double()


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
    def fit(self, codes: Codes) -> Mapping[str, float]:
        """Fits it to codes; returns figures of the fit."""

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
    def fit(self, codes: Codes) -> Mapping[str, float]:
        """Fits mean and scale of the codes; returns the number of codes."""
        self.mean.copy_(codes.z.mean(0))
        self.scale.copy_(codes.z.std(0, correction=0).clamp(min=1e-6))
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

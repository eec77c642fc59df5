"""What all quantisers share."""

from __future__ import annotations

import abc
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from sandglass.distributions.conditional import at_least_single


@dataclass(frozen=True)
class Quantised:
    """Vectors after quantisation.

    Args:
        values: ``(B, n, D)`` the vectors of the codes; their gradient is passed on to what was quantised.
        codes: ``(B, n * depth)`` whole numbers.
        commitment: ``(B,)`` squared distance of what was quantised from its codes, or None where the quantiser needs
            no such term.
        penalty: ``(B,)`` a term of the quantiser's own in the objective, weighted, or None.
        statistics: by which a codebook moves; see its ``follow``.
    """

    values: Tensor
    codes: Tensor
    commitment: Tensor | None = None
    penalty: Tensor | None = None
    statistics: Mapping[str, Tensor] = field(default_factory=dict)


class Quantiser(nn.Module, abc.ABC):
    """Vectors ``(B, n, dim)`` to whole numbers below ``size``, and these to vectors.

    A quantiser is made for a number of codes and a size of their vectors; one whose vectors have a size of their own
    leaves the latter out of account.

    Attributes:
        size: K, how many values a code can have.
        dim: D, of a vector.
        depth: codes of a vector, one after the other.
        of_batch: whether its penalty has a statistic of the batch in it, or of a shard of one.
    """

    size: int
    dim: int
    depth: int = 1
    of_batch: bool = False

    @abc.abstractmethod
    def forward(self, h: Tensor) -> Quantised:
        """The encoder's vectors ``(B, n, D)`` quantised, with the straight-through gradient."""

    @abc.abstractmethod
    def nearest(self, points: Tensor) -> Tensor:
        """``(..., n * depth)`` the codes whose vectors are nearest to ``(..., n, D)`` points among these vectors."""

    @abc.abstractmethod
    def lookup(self, codes: Tensor) -> Tensor:
        """``(..., n, D)`` the vectors of codes ``(..., n * depth)``."""

    def encode(self, h: Tensor) -> Tensor:
        """``(B, n * depth)`` codes of the encoder's vectors ``(B, n, D)``; it changes nothing, whatever the mode."""
        return self.nearest(at_least_single(h))

    def usage(self, codes: Tensor) -> dict[str, Tensor]:
        """How codes ``(B, n * depth)`` are spread; see :func:`usage`."""
        return usage(codes, self.size)


class Fitted(Quantiser):
    """A quantiser with buffers that begin with a fit."""

    @abc.abstractmethod
    def fit(self, batches: Iterable[Tensor]) -> Mapping[str, float]:
        """Sets its buffers by ``(B, n, D)`` batches of the encoder's vectors; returns figures of the fit."""


class Followed(Fitted):
    """A quantiser with vectors in buffers, which begin with a fit and then follow the statistics of the batches."""

    @abc.abstractmethod
    def follow(self, statistics: Mapping[str, Tensor]) -> None:
        """Moves its vectors by the statistics ``(S, ...)`` of all shards of a batch; nothing is decided on the host."""


def straight_through(values: Tensor, h: Tensor) -> Tensor:
    """``values``, whose gradient goes to ``h`` as if the two were one.

    Bengio, Leonard and Courville 2013, "Estimating or Propagating Gradients Through Stochastic Neurons" (arXiv
    1308.3432).
    """
    return h + (values - h).detach()


def members(codes: Tensor, size: int) -> Tensor:
    """``(M, K)`` whether an element of ``(M,)`` codes is each code."""
    return codes[:, None] == torch.arange(size, device=codes.device)


def usage(codes: Tensor, size: int) -> dict[str, Tensor]:
    """How codes ``(B, n)`` are spread: the share of the codebook in use, and the perplexity, both 0-d.

    The perplexity is e to the entropy of their frequencies in nats: K where all K are used alike, 1 where one is.

    Example:
        >>> {k: round(float(v), 4) for k, v in usage(torch.tensor([[0, 1]]), 4).items()}
        {'used': 0.5, 'perplexity': 2.0}
    """
    flat = codes.flatten()
    ones = torch.ones(flat.shape, device=flat.device)  # whole numbers below 2^24: exact in any order
    share = torch.zeros(size, device=flat.device).index_add_(0, flat, ones) / len(flat)
    return {"used": (share > 0).float().mean(), "perplexity": torch.special.entr(share).sum().exp()}

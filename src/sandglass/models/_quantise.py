"""Quantisers: what turns vectors of real numbers into whole numbers and back."""

from __future__ import annotations

import abc
import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from sandglass.distributions.conditional import at_least_single
from sandglass.errors import ConfigError
from sandglass.nets.frame import normal

_ROUNDS = 20  # of k-means: far more than what it still moves after that is moved by the first updates
_DIMS, _LEAST = 3, 4  # dimensions of a finite scalar quantiser where each can have so many levels
_NEARLY = 0.75  # of the codes asked for must be there before fewer levels a dimension are tried
_PER_CODE = 256  # vectors a code that k-means looks at


@dataclass(frozen=True)
class Quantised:
    """Vectors after quantisation.

    Args:
        values: ``(B, n, D)`` the vectors of the codes; their gradient is passed on to what was quantised.
        codes: ``(B, n)`` whole numbers.
        commitment: ``(B,)`` squared distance of what was quantised from its codes, or None where the quantiser needs
            no such term.
        statistics: by which a codebook moves; see its ``follow``.
    """

    values: Tensor
    codes: Tensor
    commitment: Tensor | None = None
    statistics: Mapping[str, Tensor] = field(default_factory=dict)


class Quantiser(nn.Module, abc.ABC):
    """Vectors ``(B, n, dim)`` to whole numbers below ``size``, and these to vectors.

    Attributes:
        size: K, how many codes there are.
        dim: D, of a vector.
    """

    size: int
    dim: int

    @abc.abstractmethod
    def forward(self, h: Tensor) -> Quantised:
        """The encoder's vectors ``(B, n, D)`` quantised, with the straight-through gradient."""

    @abc.abstractmethod
    def nearest(self, points: Tensor) -> Tensor:
        """``(...)`` the codes whose vectors are nearest to ``(..., D)`` points among these vectors."""

    @abc.abstractmethod
    def lookup(self, codes: Tensor) -> Tensor:
        """``(..., D)`` the vectors of codes ``(...)``."""

    def encode(self, h: Tensor) -> Tensor:
        """``(B, n)`` codes of the encoder's vectors ``(B, n, D)``; it changes nothing, whatever the mode."""
        return self.nearest(at_least_single(h))


def straight_through(values: Tensor, h: Tensor) -> Tensor:
    """``values``, whose gradient goes to ``h`` as if the two were one.

    Bengio, Leonard and Courville 2013, "Estimating or Propagating Gradients Through Stochastic Neurons" (arXiv
    1308.3432).
    """
    return h + (values - h).detach()


class Codebook(Quantiser):
    """A vector for each code, the mean of what is assigned to it: followed by moving averages, not by gradients.

    The quantiser of van den Oord, Vinyals and Kavukcuoglu 2017, "Neural Discrete Representation Learning" (arXiv
    1711.00937), with the update of its appendix A.1: with n_i vectors of a batch assigned to code i and their sum s_i,
    ``N_i <- g N_i + (1 - g) n_i``, ``m_i <- g m_i + (1 - g) s_i``, ``e_i = m_i / N_i``. It starts from k-means, and a
    code that is hardly used takes the place of a vector of the batch, as in Dhariwal et al. 2020, "Jukebox" (arXiv
    2005.00341) and Lancucki et al. 2020, "Robust Training of Vector Quantized Bottleneck Models" (arXiv 2005.08520).

    Everything is in buffers, which :meth:`follow` moves after an update.

    Args:
        size: how many codes.
        dim: of a vector.
        decay: g, what a step keeps of the averages.
        revive: share of an even use below which a code is replaced; 0 for never.

    Raises:
        ConfigError: a value that makes no sense.

    Example:
        >>> book = Codebook(2, 1, decay=0.9, revive=0.0).eval()
        >>> _ = book.vectors.copy_(torch.tensor([[0.0], [1.0]]))
        >>> book(torch.tensor([[[0.2], [0.9]]])).codes
        tensor([[0, 1]])
    """

    vectors: Tensor
    counts: Tensor
    sums: Tensor

    def __init__(self, size: int, dim: int, *, decay: float = 0.95, revive: float = 0.05) -> None:
        super().__init__()
        if size < 2:
            raise ConfigError(f"A codebook needs codebook_size >= 2, not {size}.")
        if dim < 1:
            raise ConfigError(f"A codebook needs code_dim >= 1, not {dim}.")
        if not 0 <= decay < 1:
            raise ConfigError(f"The decay must be in [0, 1), not {decay}.")
        if not 0 <= revive < 1:
            raise ConfigError(f"revive is a share of an even use, in [0, 1), not {revive}.")
        self.size, self.dim, self.decay, self.revive = size, dim, decay, revive
        self.register_buffer("vectors", normal(size, dim))
        self.register_buffer("counts", torch.ones(size))
        self.register_buffer("sums", self.vectors.clone())

    def forward(self, h: Tensor) -> Quantised:
        """As of every quantiser; in train mode with the statistics of what was assigned to each code."""
        h = at_least_single(h)
        codes = self.nearest(h)
        values = self.lookup(codes)
        statistics = self.statistics(h.detach().flatten(0, 1), codes.flatten()) if self.training else {}
        commitment = (h - values).square().sum((1, 2))
        return Quantised(straight_through(values, h), codes, commitment, statistics)

    def nearest(self, points: Tensor) -> Tensor:
        """``(...)`` the codes nearest to ``(..., D)`` by Euclidean distance, each by itself: exact in any batch."""
        flat = points.detach().reshape(-1, self.dim).to(self.vectors.dtype)
        if torch.compiler.is_compiling():  # an exported graph has no cdist; this takes D times the memory
            distance = (flat[:, None] - self.vectors).square().sum(-1)
        else:
            distance = torch.cdist(flat, self.vectors, compute_mode="donot_use_mm_for_euclid_dist")
        return distance.argmin(1).view(points.shape[:-1])

    def lookup(self, codes: Tensor) -> Tensor:
        """``(..., D)`` the vectors of codes ``(...)``."""
        return self.vectors[codes]

    @torch.no_grad()
    def statistics(self, h: Tensor, codes: Tensor) -> dict[str, Tensor]:
        """Of vectors ``(M, D)`` and their codes ``(M,)``: how many have each code, ``(K,)``, and their sums ``(K, D)``;
        and for each code a vector ``(K, D)`` that would take its place, drawn from the generator of the device.
        """
        n, s = self._gathered(h, codes)
        found = {"counts": n, "sums": s}
        if self.revive:
            found["fresh"] = h[torch.randint(len(h), (self.size,), device=h.device)].to(s.dtype)
        return found

    @torch.no_grad()
    def follow(self, statistics: Mapping[str, Tensor]) -> None:
        """One step of the moving averages, by the statistics ``(S, ...)`` of all shards of a batch.

        Nothing is decided on the host.
        """
        n, s = statistics["counts"].sum(0), statistics["sums"].sum(0)
        counts, sums = self.counts.lerp(n, 1 - self.decay), self.sums.lerp(s, 1 - self.decay)
        some = counts > 1e-6
        vectors = torch.where(some[:, None], sums / counts.clamp(min=1e-6)[:, None], self.vectors)
        if self.revive:
            even = counts.mean()
            dead = counts < self.revive * even
            offered = statistics["fresh"]
            places = torch.arange(self.size, device=offered.device)
            fresh = offered[torch.randint(len(offered), (self.size,), device=offered.device), places]
            vectors = torch.where(dead[:, None], fresh, vectors)
            counts = torch.where(dead, even, counts)
            sums = torch.where(dead[:, None], fresh * even, sums)
        self.vectors.copy_(vectors)
        self.counts.copy_(counts)
        self.sums.copy_(sums)

    @torch.no_grad()
    def fit(self, batches: Iterable[Tensor]) -> Mapping[str, float]:
        """K-means from random vectors among ``(B, n, D)`` batches of the encoder's, 256 a code at most.

        Returns:
            How many vectors it saw, their mean squared distance to their codes, and the share of codes in use.
        """
        h = sampled((b.flatten(0, 1) for b in batches), _PER_CODE * self.size).to(self.vectors.dtype)
        first = torch.randperm(len(h), device=h.device)
        self.vectors.copy_(h[first.repeat(-(-self.size // len(h)))[: self.size]])
        for _ in range(_ROUNDS):
            n, s = self._gathered(h, self.nearest(h))
            other = h[torch.randint(len(h), (self.size,), device=h.device)]
            self.vectors.copy_(torch.where(n[:, None] > 0, s / n.clamp(min=1)[:, None], other))
        codes = self.nearest(h)
        n, _ = self._gathered(h, codes)
        self.counts.copy_(n * self.size / len(h))
        self.sums.copy_(self.vectors * self.counts[:, None])
        error = (h - self.vectors[codes]).square().sum(1).mean()
        return {"vectors": float(len(h)), "distance": float(error), "used": float((n > 0).float().mean())}

    def _gathered(self, h: Tensor, codes: Tensor) -> tuple[Tensor, Tensor]:
        """How many of the vectors ``(M, D)`` have each code, ``(K,)``, and their sums ``(K, D)``."""
        with torch.autocast(h.device.type, enabled=False):
            member = members(codes, self.size).to(self.vectors.dtype)
            return member.sum(0), member.T @ h.to(self.vectors.dtype)


class FiniteScalar(Quantiser):
    """Every dimension of a vector rounded to one of a few levels; the code numbers their combinations.

    Mentzer, Minnen, Agustsson and Tschannen 2023, "Finite Scalar Quantization: VQ-VAE Made Simple" (arXiv 2309.15505):
    a dimension with L levels is bounded by ``floor(L / 2) tanh`` (shifted by half a level where L is even), rounded
    with a straight-through gradient, and divided by ``floor(L / 2)``. It has no weights and needs no further term.

    Args:
        levels: of each dimension, 2 or more.

    Raises:
        ConfigError: a value that makes no sense.

    Example:
        >>> fsq = FiniteScalar((3, 2))
        >>> fsq.size, fsq.dim, fsq.lookup(torch.tensor([0, 1, 5])).tolist()
        (6, 2, [[-1.0, -1.0], [0.0, -1.0], [1.0, 0.0]])
    """

    levels: Tensor
    places: Tensor

    def __init__(self, levels: Sequence[int]) -> None:
        super().__init__()
        if not levels or min(levels) < 2:
            raise ConfigError(f"The levels are whole numbers from 2 on, one a dimension, not {list(levels)}.")
        self.size, self.dim = math.prod(levels), len(levels)
        places = list(itertools.accumulate(levels[:-1], int.__mul__, initial=1))
        self.register_buffer("levels", torch.tensor(levels), persistent=False)
        self.register_buffer("places", torch.tensor(places), persistent=False)

    @property
    def middle(self) -> Tensor:
        """``(D,)`` the level that stands for 0."""
        return self.levels // 2

    def bound(self, h: Tensor) -> Tensor:
        """``(..., D)`` real numbers that round to a level of each dimension, 0 being in the middle."""
        reach = (self.levels - 1) * (1 - 1e-3) / 2
        offset = 0.5 * (self.levels % 2 == 0)
        shift = torch.atanh(offset / reach * (self.levels > 2)).to(h.dtype)  # two levels have no middle one
        return torch.tanh(h + shift) * reach.to(h.dtype) - offset.to(h.dtype)

    def forward(self, h: Tensor) -> Quantised:
        """As of every quantiser; the gradient is that of the bounded numbers before they are rounded."""
        bounded = self.bound(at_least_single(h))
        rounded = bounded.round()
        return Quantised(straight_through(rounded, bounded) / self.middle.to(bounded.dtype), self._number(rounded))

    def encode(self, h: Tensor) -> Tensor:
        """``(B, n)`` codes of the encoder's vectors ``(B, n, D)``."""
        return self._number(self.bound(at_least_single(h)).round())

    def nearest(self, points: Tensor) -> Tensor:
        """``(...)`` the codes nearest to points ``(..., D)`` in [-1, 1]."""
        levels = (points * self.middle).round() + self.middle
        return self._number(torch.minimum(levels.clamp(min=0), self.levels - 1) - self.middle)

    def lookup(self, codes: Tensor) -> Tensor:
        """``(..., D)`` the vectors of codes ``(...)``, in [-1, 1]."""
        level = codes[..., None] // self.places % self.levels
        return (level - self.middle) / self.middle

    def _number(self, rounded: Tensor) -> Tensor:
        """``(...)`` codes of ``(..., D)`` whole numbers around 0."""
        return ((rounded.detach().long() + self.middle) * self.places).sum(-1)


def levels_for(size: int) -> tuple[int, ...]:
    """Levels whose product is nearly ``size`` and no more: 5 to 8 of each dimension where that can be, else fewer.

    There are three dimensions or more from 64 codes on, as in Mentzer et al. 2023 (arXiv 2309.15505, table 1): two
    dimensions of 8 levels leave more combinations unused than three of 4.

    Raises:
        ConfigError: fewer than 2 codes, or more than 2^24.

    Example:
        >>> levels_for(64), levels_for(1024), levels_for(6)
        ((4, 4, 4), (8, 5, 5, 5), (6,))
    """
    if not 2 <= size <= 2**24:
        raise ConfigError(f"A quantiser needs codebook_size >= 2, and at most 2^24, not {size}.")
    found: tuple[int, ...] = ()
    least = _DIMS if size >= _LEAST**_DIMS else 1
    for fewest in (5, 4, 3, 2):
        for dims in range(least, 1 + int(math.log(size, fewest) + 1e-9)):
            choices = itertools.combinations_with_replacement(range(8, fewest - 1, -1), dims)
            fit = [levels for levels in choices if math.prod(levels) <= size]
            found = max([found, *fit], key=lambda levels: (math.prod(levels), -max(levels, default=0)))
        if math.prod(found) >= _NEARLY * size:
            break
    return found


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
    share = members(codes.flatten(), size).float().mean(0)
    return {"used": (share > 0).float().mean(), "perplexity": torch.special.entr(share).sum().exp()}


def sampled(batches: Iterable[Tensor], most: int) -> Tensor:
    """``(n, D)`` of the vectors ``(M, D)`` that come by, at most ``most``, each with the same chance."""
    kept, keys = torch.empty(0), torch.empty(0)
    for batch in batches:
        draws = torch.rand(len(batch), device=batch.device)
        kept, keys = (torch.cat([kept, batch]), torch.cat([keys, draws])) if len(kept) else (batch, draws)
        if len(kept) > most:
            keys, places = keys.topk(most, largest=False)
            kept = kept[places]
    return kept

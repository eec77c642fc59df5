"""A vector for each code, which follows the mean of what is assigned to it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

from sandglass.distributions.conditional import at_least_single
from sandglass.errors import ConfigError
from sandglass.nets.frame import normal
from sandglass.quantisers.quantiser import Followed, Quantised, members, straight_through
from sandglass.registry import register

_ROUNDS = 20  # of k-means: far more than what it still moves after that is moved by the first updates
_PER_CODE = 256  # vectors a code that k-means looks at


@register("ema", kind="quantiser")
class Codebook(Followed):
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
        decay: what a step keeps of the moving averages of the codebook.
        revive: share of an even use below which a code is replaced by a vector of the batch; 0 for never.

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
        return Quantised(straight_through(values, h), codes, commitment, statistics=statistics)

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
        return self.settle(self.some(batches))

    def some(self, batches: Iterable[Tensor]) -> Tensor:
        """``(M, D)`` vectors among ``(B, n, D)`` batches of the encoder's, 256 a code at most."""
        return sampled((b.flatten(0, 1) for b in batches), _PER_CODE * self.size).to(self.vectors.dtype)

    @torch.no_grad()
    def settle(self, h: Tensor) -> dict[str, float]:
        """K-means from random ones of the vectors ``(M, D)``; returns the figures of :meth:`fit`."""
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

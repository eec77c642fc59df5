"""Several codes of a vector, each for what the ones before it leave over."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn

from sandglass.distributions.conditional import at_least_single
from sandglass.errors import ConfigError
from sandglass.quantisers.codebook import Codebook
from sandglass.quantisers.quantiser import Followed, Quantised, straight_through, usage
from sandglass.registry import register

_ROUNDS = 2  # of k-means over what a shared codebook leaves over, which depends on itself


@register("residual", kind="quantiser")
class Residual(Followed):
    """Several codes of a vector, each the nearest to what those before it leave over; their sum stands for it.

    Lee, Kim, Kim, Cho and Han 2022, "Autoregressive Image Generation using Residual Quantization" (arXiv 2203.01941):
    with ``r_0 = h``, ``k_d`` is the code nearest to ``r_{d-1}``, ``r_d = r_{d-1} - e(k_d)``, and h becomes ``e(k_1) +
    ... + e(k_D)``. So K vectors a depth stand for up to ``K^depth`` regions of space, where a codebook of as many would
    hardly be used. The commitment is the sum over d of ``|h - (e(k_1) + ... + e(k_d))|^2``, as there.

    Args:
        size: how many vectors a codebook has.
        dim: of a vector.
        depth: codes of a vector.
        shared: whether all depths have one codebook, as in the paper, or each its own.
        decay: what a step keeps of the moving averages of the codebook.
        revive: share of an even use below which a code is replaced by a vector of the batch; 0 for never.

    Raises:
        ConfigError: a value that makes no sense.

    Example:
        >>> made = Residual(2, 1, depth=3, shared=True).eval()
        >>> _ = made.books[0].vectors.copy_(torch.tensor([[-1.0], [1.0]]))
        >>> codes = made.encode(torch.tensor([[[0.8]]]))
        >>> codes, made.lookup(codes)
        (tensor([[1, 0, 1]]), tensor([[[1.]]]))
    """

    def __init__(
        self,
        size: int,
        dim: int,
        *,
        depth: int = 2,
        shared: bool = False,
        decay: float = 0.95,
        revive: float = 0.05,
    ) -> None:
        super().__init__()
        if depth < 1:
            raise ConfigError(f"Residual quantisation needs depth >= 1, not {depth}.")
        self.size, self.dim, self.depth, self.shared = size, dim, depth, shared
        self.books = nn.ModuleList(
            Codebook(size, dim, decay=decay, revive=revive) for _ in range(1 if shared else depth)
        )

    def book(self, d: int) -> Codebook:
        """The codebook of a depth, from 0 on."""
        found = self.books[0 if self.shared else d]
        assert isinstance(found, Codebook)
        return found

    def forward(self, h: Tensor) -> Quantised:
        """As of every quantiser; in train mode with the statistics of what was assigned to each code."""
        h = at_least_single(h)
        codes, rests = self._down(h)
        first, *others = (rest.square().sum((1, 2)) for rest in rests[1:])
        found = self.statistics(rests[:-1], codes) if self.training else {}
        values = self.lookup(codes.flatten(1)).to(h.dtype)
        return Quantised(straight_through(values, h), codes.flatten(1), sum(others, first), statistics=found)

    def statistics(self, rests: list[Tensor], codes: Tensor) -> dict[str, Tensor]:
        """Those of the codebooks, of vectors ``(B, n, D)`` by depth and their codes ``(B, n, depth)``."""
        flat = [rest.detach().flatten(0, 1) for rest in rests]
        each = list(codes.flatten(0, 1).unbind(1))
        if self.shared:
            return self.book(0).statistics(torch.cat(flat), torch.cat(each))
        by_depth = (self.book(d).statistics(*pair) for d, pair in enumerate(zip(flat, each, strict=True)))
        return {f"{name}_{d}": value for d, found in enumerate(by_depth) for name, value in found.items()}

    def follow(self, statistics: Mapping[str, Tensor]) -> None:
        """One step of the moving averages of every codebook, by the statistics ``(S, ...)`` of all shards."""
        for d in range(len(self.books)):
            end = "" if self.shared else f"_{d}"
            own = {name.removesuffix(end): value for name, value in statistics.items() if name.endswith(end)}
            self.book(d).follow(own)

    @torch.no_grad()
    def fit(self, batches: Iterable[Tensor]) -> Mapping[str, float]:
        """K-means of every codebook over what those before it leave over, 256 vectors a code at most.

        Returns:
            How many vectors it saw, their mean squared distance to their codes' vectors, and the share of codes in use.
        """
        h = rest = self.book(0).some(batches)
        if self.shared:
            self.book(0).settle(h)
            for _ in range(_ROUNDS * (self.depth > 1)):
                self.book(0).settle(torch.cat(self._down(h)[1][:-1]))
        else:
            for d in range(self.depth):
                self.book(d).settle(rest)
                rest = rest - self.book(d).lookup(self.book(d).nearest(rest))
        codes, rests = self._down(h)
        error = rests[-1].square().sum(1).mean()
        used = self.usage(codes.flatten()[None])["used"]
        return {"vectors": float(len(h)), "distance": float(error), "used": float(used)}

    def nearest(self, points: Tensor) -> Tensor:
        """``(..., n * depth)`` codes of ``(..., n, D)`` points, each nearest to what those before it leave over."""
        return self._down(points)[0].flatten(-2)

    def lookup(self, codes: Tensor) -> Tensor:
        """``(..., n, D)`` the sums of the vectors of codes ``(..., n * depth)``."""
        each = codes.unflatten(-1, (-1, self.depth)).unbind(-1)
        first, *rest = (self.book(d).lookup(k) for d, k in enumerate(each))
        return sum(rest, first)

    def usage(self, codes: Tensor) -> dict[str, Tensor]:
        """How codes ``(B, n * depth)`` are spread over all vectors, those of every codebook."""
        if self.shared:
            return usage(codes, self.size)
        places = torch.arange(self.depth, device=codes.device) * self.size
        return usage((codes.unflatten(-1, (-1, self.depth)) + places).flatten(-2), self.size * self.depth)

    def _down(self, h: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Codes ``(..., depth)`` of ``(..., D)`` vectors, and what is left over: before the first, and after each."""
        codes, rests = [], [h]
        for d in range(self.depth):
            codes.append(self.book(d).nearest(rests[-1]))
            rests.append(rests[-1] - self.book(d).lookup(codes[-1]).to(h.dtype))
        return torch.stack(codes, -1), rests

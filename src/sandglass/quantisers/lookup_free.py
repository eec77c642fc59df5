"""The sign of every dimension of a vector as one bit of its code."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from sandglass.distributions.conditional import at_least_single
from sandglass.errors import ConfigError
from sandglass.quantisers.quantiser import Fitted, Quantised, straight_through
from sandglass.registry import register

_MOST = 24  # bits of a code
_TINY = 1e-12  # a smaller chance has no gradient, which would be infinite
_TOGETHER = 8  # bits whose joint entropy over a batch is computed; of more it is bounded by that of such groups


@register("lfq", kind="quantiser")
class LookupFree(Fitted):
    """The sign of every dimension as one bit of the code: no codebook, and an entropy penalty that spreads the codes.

    Yu et al. 2023, "Language Model Beats Diffusion: Tokenizer is Key to Visual Generation" (arXiv 2310.05737), section
    3.1. A vector of ``log2 K`` numbers becomes their signs, with a straight-through gradient. The penalty of a code is
    ``entropy * (H[q(k|h)] - diversity * H[mean of q(k|h)])`` in nats: each code is to be certain, and all of them in
    use. Here q(k|h) is the softmax of ``-|h - e_k|^2 / temperature``, whose bits are independent. The mean is over the
    codes of a batch, or of a shard of it where the run has several; at least 2 examples. The second entropy is exact up
    to 256 codes, and of more the sum over groups of 8 bits.

    One thing differs from the paper. Vectors are counted from the mean of those that the untrained encoder makes of the
    training examples: they hardly differ at first, and the commitment would pull all of them to the same signs.

    Args:
        size: how many codes there are to be; it has the largest power of two that is no more.
        dim: it has one dimension for each bit, whatever this is.
        entropy: weight of the penalty of a code, in nats; 0 for none.
        diversity: weight, within the penalty, of the entropy of the mean.
        temperature: of the softmax.

    Raises:
        ConfigError: a value that makes no sense.

    Example:
        >>> made = LookupFree(8)
        >>> made.size, made.encode(torch.tensor([[[0.3, -2.0, 0.1]]])), made.lookup(torch.tensor([5])).tolist()
        (8, tensor([[5]]), [[1.0, -1.0, 1.0]])
    """

    places: Tensor
    centre: Tensor

    def __init__(
        self,
        size: int = 64,
        dim: int = 0,
        *,
        entropy: float = 10.0,
        diversity: float = 1.0,
        temperature: float = 2.0,
    ) -> None:
        super().__init__()
        if not 2 <= size <= 2**_MOST:
            raise ConfigError(f"A quantiser needs codebook_size >= 2, and at most 2^{_MOST}, not {size}.")
        for name, value in (("entropy", entropy), ("diversity", diversity)):
            if not 0 <= value < math.inf:
                raise ConfigError(f"The weight {name} must be finite and at least 0, not {value}.")
        if not 0 < temperature < math.inf:
            raise ConfigError(f"The temperature must be finite and above 0, not {temperature}.")
        self.dim = int(math.log2(size))
        self.size = 2**self.dim
        self.entropy, self.diversity, self.temperature = entropy, diversity, temperature
        self.of_batch = entropy > 0 and diversity > 0
        self.register_buffer("places", torch.tensor([2**i for i in range(self.dim)]), persistent=False)
        self.register_buffer("centre", torch.zeros(self.dim))

    @torch.no_grad()
    def fit(self, batches: Iterable[Tensor]) -> Mapping[str, float]:
        """Takes the mean of the encoder's vectors as the centre; returns how many there were."""
        count, total = 0, torch.zeros_like(self.centre)
        for batch in batches:
            flat = at_least_single(batch).flatten(0, 1).to(self.centre.dtype)
            count, total = count + len(flat), total + flat.sum(0)
        self.centre.copy_(total / max(count, 1))
        return {"vectors": float(count)}

    def encode(self, h: Tensor) -> Tensor:
        """``(B, n)`` codes of the encoder's vectors ``(B, n, D)``."""
        return self.nearest(at_least_single(h) - self.centre)

    def forward(self, h: Tensor) -> Quantised:
        """As of every quantiser, with the entropy penalty."""
        h = at_least_single(h)
        h = h - self.centre.to(h.dtype)
        codes = self.nearest(h)
        values = self.lookup(codes).to(h.dtype)
        commitment = (h - values).square().sum((1, 2))
        return Quantised(straight_through(values, h), codes, commitment, self.penalty(h) if self.entropy else None)

    def penalty(self, h: Tensor) -> Tensor:
        """``(B,)`` the entropy penalty of vectors ``(B, n, D)``, summed over their codes."""
        logits = 4 * h / self.temperature  # |h + 1|^2 - |h - 1|^2
        p = logits.sigmoid()
        certain = (p * F.softplus(-logits) + (1 - p) * F.softplus(logits)).sum(-1)
        spread = sum(
            torch.special.entr(joint(bits).mean(0).clamp(min=_TINY)).sum()
            for bits in p.flatten(0, 1).split(_TOGETHER, 1)
        )
        return self.entropy * (certain.sum(1) - self.diversity * h.shape[1] * spread)

    def nearest(self, points: Tensor) -> Tensor:
        """``(..., n)`` codes of points ``(..., n, D)``: which of their numbers are above 0."""
        return ((points > 0).long() * self.places).sum(-1)

    def lookup(self, codes: Tensor) -> Tensor:
        """``(..., n, D)`` the vectors of codes ``(..., n)``, of -1 and 1."""
        return 2.0 * (codes[..., None] // self.places % 2) - 1


def joint(p: Tensor) -> Tensor:
    """``(M, 2^D)`` the probabilities of all combinations of D independent bits, each 1 with probabilities ``(M, D)``.

    Example:
        >>> joint(torch.tensor([[0.5, 0.25]]))
        tensor([[0.3750, 0.1250, 0.3750, 0.1250]])
    """
    found = torch.ones_like(p[:, :1])
    for one in p.unbind(1):
        found = (found[:, :, None] * torch.stack([1 - one, one], 1)[:, None]).flatten(1)
    return found

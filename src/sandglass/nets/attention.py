"""Multi-head scaled dot-product attention over sequences ``(B, T, D)``: self-attention or attention to a context."""

from __future__ import annotations

import math
from contextlib import AbstractContextManager

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from sandglass.errors import ConfigError

Past = tuple[Tensor, Tensor]
"""Cached keys and values ``(B, heads, S, D / heads)`` of the previous positions of a sequence."""


def attention(
    q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None, *, causal: bool = False, dropout: float = 0.0
) -> Tensor:
    """Scaled dot-product attention.

    ``softmax(q k^T / sqrt(D)) v`` of Vaswani et al. 2017, "Attention Is All You Need" (arXiv 1706.03762). The output is
    0 for a query whose keys are all masked.

    Args:
        q: queries ``(..., T, D)``.
        k: keys ``(..., S, D)``.
        v: values ``(..., S, E)``.
        mask: bool, broadcast to ``(..., T, S)``, True where a query may attend; None for no mask.
        causal: whether the query at t attends to positions up to t only.
        dropout: dropout probability of the attention weights.

    Returns:
        ``(..., T, E)``.

    Example:
        >>> q = k = torch.eye(2)[None]
        >>> attention(q, k, torch.tensor([[[1.0], [3.0]]]), causal=True)[0, 0]  # attends to itself only
        tensor([1.])
    """
    if mask is None:
        return F.scaled_dot_product_attention(q, k, v, dropout_p=dropout, is_causal=causal)
    allowed = _allowed(q, k, mask, causal)
    # Kernels differ in their output for a query whose keys are all masked.
    return F.scaled_dot_product_attention(q, k, v, allowed, dropout).masked_fill(~allowed.any(-1, keepdim=True), 0)


def twice_differentiable() -> AbstractContextManager[None]:
    """A context in which gradients of attention can be differentiated again, as for a gradient penalty.

    The fused kernels have no second derivative.
    """
    return sdpa_kernel(SDPBackend.MATH)


def attention_weights(q: Tensor, k: Tensor, mask: Tensor | None = None, *, causal: bool = False) -> Tensor:
    """The attention weights of :func:`attention`, for visualisation.

    Args:
        q: queries ``(..., T, D)``.
        k: keys ``(..., S, D)``.
        mask: bool, broadcast to ``(..., T, S)``, True where a query may attend; None for no mask.
        causal: whether the query at t attends to positions up to t only.

    Returns:
        ``(..., T, S)``; each row sums to 1, or to 0 where all keys are masked.

    Example:
        >>> attention_weights(torch.zeros(1, 3, 4), torch.zeros(1, 3, 4), causal=True)[0, 1]
        tensor([0.5000, 0.5000, 0.0000])
    """
    allowed = _allowed(q, k, mask, causal)
    scores = (q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1])).masked_fill(~allowed, -math.inf)
    return scores.softmax(-1).masked_fill(~allowed, 0)


def _allowed(q: Tensor, k: Tensor, mask: Tensor | None, causal: bool) -> Tensor:
    """``(..., T, S)``, True where a query may attend."""
    allowed = torch.ones(q.shape[-2], k.shape[-2], dtype=torch.bool, device=q.device)
    allowed = allowed.tril() if causal else allowed
    return allowed if mask is None else allowed & mask


def check_heads(width: int, heads: int, dropout: float) -> None:
    """Checks the options of an attention layer.

    Raises:
        ConfigError: the heads do not divide the width, or the dropout is outside [0, 1).
    """
    if heads < 1 or width < 1 or width % heads:
        raise ConfigError(f"The heads must divide the width, and {heads} does not divide {width}.")
    if not 0 <= dropout < 1:
        raise ConfigError(f"The dropout must be in [0, 1), not {dropout}.")


class Attention(nn.Module):
    """Multi-head attention: self-attention, causal or not, or cross-attention to a context.

    Every head has its own queries, keys and values of width ``width / heads``; a linear map combines their outputs.
    Without position embeddings in the input it is permutation equivariant. Vaswani et al. 2017, "Attention Is All You
    Need" (arXiv 1706.03762).

    Args:
        width: D, of the sequence.
        heads: number of heads, a divisor of the width.
        context: width of the context; 0 for self-attention.
        causal: whether position t attends to positions up to t only.
        dropout: dropout probability of the attention weights.

    Raises:
        ConfigError: the heads do not divide the width, the dropout is outside [0, 1), or it is causal with a context.

    Example:
        >>> x, words = torch.rand(2, 7, 8), torch.rand(2, 3, 5)
        >>> Attention(8, 2, causal=True)(x).shape, Attention(8, 2, context=5)(x, words).shape
        (torch.Size([2, 7, 8]), torch.Size([2, 7, 8]))
        >>> Attention(8, 2, context=5).weights(x, words).shape
        torch.Size([2, 2, 7, 3])
    """

    def __init__(self, width: int, heads: int, *, context: int = 0, causal: bool = False, dropout: float = 0.0) -> None:
        super().__init__()
        check_heads(width, heads, dropout)
        if context and causal:
            raise ConfigError("Attention to a context cannot be causal.")
        self.heads, self.context, self.causal, self.dropout = heads, context, causal, dropout
        self.query = nn.Linear(width, width)
        self.key_value = nn.Linear(context or width, 2 * width)
        self.out = nn.Linear(width, width)

    def forward(self, x: Tensor, context: Tensor | None = None, mask: Tensor | None = None) -> Tensor:
        """The output ``(B, T, D)``.

        Args:
            x: ``(B, T, D)``.
            context: ``(B, S, context)``, if built with a context.
            mask: bool, broadcast to ``(B, T, S)``, True where a position may attend; None for no mask.

        Raises:
            ConfigError: the context is unexpected or missing.
        """
        q, k, v = self._heads(x, context)
        dropout = self.dropout if self.training else 0.0
        found = attention(q, k, v, _per_head(mask), causal=self.causal, dropout=dropout)
        return self.out(found.transpose(1, 2).flatten(2))

    def extend(self, x: Tensor, past: Past | None = None) -> tuple[Tensor, Past]:
        """Output for the next positions of a causal sequence, using cached keys and values of the previous ones.

        Args:
            x: ``(B, T, D)``, the next positions.
            past: the cache returned by the previous call; None at first.

        Returns:
            ``(B, T, D)``, equal to the output of :meth:`forward` at these positions, and the updated cache.

        Raises:
            ConfigError: the attention is not causal.

        Example:
            >>> attend, x = Attention(8, 2, causal=True).eval(), torch.rand(2, 5, 8)
            >>> first, past = attend.extend(x[:, :3])
            >>> bool(torch.allclose(attend(x)[:, 3:], attend.extend(x[:, 3:], past)[0], atol=1e-6))
            True
        """
        if not self.causal:
            raise ConfigError("Only a causal sequence can be extended; build the attention with `causal`.")
        q, k, v = self._heads(x, None)
        if past is not None:
            k, v = torch.cat([past[0], k], 2), torch.cat([past[1], v], 2)
        before = k.shape[2] - x.shape[1]
        mask = torch.ones(x.shape[1], k.shape[2], dtype=torch.bool, device=x.device).tril(before)
        dropout = self.dropout if self.training else 0.0
        found = attention(q, k, v, None if len(mask) == 1 else mask, dropout=dropout)
        return self.out(found.transpose(1, 2).flatten(2)), (k, v)

    def weights(self, x: Tensor, context: Tensor | None = None, mask: Tensor | None = None) -> Tensor:
        """Attention weights ``(B, heads, T, S)``; arguments as in :meth:`forward`.

        Raises:
            ConfigError: the context is unexpected or missing.
        """
        q, k, _ = self._heads(x, context)
        return attention_weights(q, k, _per_head(mask), causal=self.causal)

    def _heads(self, x: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values, ``(B, heads, T or S, D / heads)`` each."""
        if (context is None) != (not self.context):
            raise ConfigError(
                f"This attention needs a context (B, S, {self.context}) but got none."
                if context is None
                else "This attention was built without a context but got one; build it with `context`."
            )
        k, v = self.key_value(x if context is None else context).chunk(2, -1)
        q, k, v = (t.unflatten(-1, (self.heads, -1)).transpose(1, 2) for t in (self.query(x), k, v))
        return q, k, v


def _per_head(mask: Tensor | None) -> Tensor | None:
    """``(B, T, S)`` with an axis for the heads."""
    return None if mask is None else mask.unsqueeze(-3)

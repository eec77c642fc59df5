"""Attention over sequences ``(B, T, D)``: scaled dot products, in several heads, among themselves or to a context."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sandglass.errors import ConfigError

Past = tuple[Tensor, Tensor]
"""Keys and values ``(B, heads, S, D / heads)`` of the positions of a sequence so far."""


def attention(
    q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None, *, causal: bool = False, dropout: float = 0.0
) -> Tensor:
    """Scaled dot-product attention: for each query the values, weighted by how its key answers.

    ``softmax(q k^T / sqrt(D)) v`` of Vaswani et al. 2017, "Attention Is All You Need" (arXiv 1706.03762). A query that
    may attend to nothing gets zeros.

    Args:
        q: queries ``(..., T, D)``.
        k: keys ``(..., S, D)``.
        v: values ``(..., S, E)``.
        mask: bool, broadcast to ``(..., T, S)``, True where a query may attend; None where it may everywhere.
        causal: whether the query at t attends to positions up to t alone.
        dropout: share of the weights silenced.

    Returns:
        ``(..., T, E)``.

    Example:
        >>> q = k = torch.eye(2)[None]
        >>> attention(q, k, torch.tensor([[[1.0], [3.0]]]), causal=True)[0, 0]  # the first sees itself alone
        tensor([1.])
    """
    if mask is None:
        return F.scaled_dot_product_attention(q, k, v, dropout_p=dropout, is_causal=causal)
    allowed = _allowed(q, k, mask, causal)
    # Kernels differ in what they give a query that may attend to nothing.
    return F.scaled_dot_product_attention(q, k, v, allowed, dropout).masked_fill(~allowed.any(-1, keepdim=True), 0)


def attention_weights(q: Tensor, k: Tensor, mask: Tensor | None = None, *, causal: bool = False) -> Tensor:
    """The weights that :func:`attention` gives to the values, for pictures of them.

    Args:
        q: queries ``(..., T, D)``.
        k: keys ``(..., S, D)``.
        mask: bool, broadcast to ``(..., T, S)``, True where a query may attend; None where it may everywhere.
        causal: whether the query at t attends to positions up to t alone.

    Returns:
        ``(..., T, S)``; each row sums to 1, or to 0 where the query may attend to nothing.

    Example:
        >>> attention_weights(torch.zeros(1, 3, 4), torch.zeros(1, 3, 4), causal=True)[0, 1]
        tensor([0.5000, 0.5000, 0.0000])
    """
    allowed = _allowed(q, k, mask, causal)
    scores = (q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1])).masked_fill(~allowed, -math.inf)
    return scores.softmax(-1).masked_fill(~allowed, 0)


def _allowed(q: Tensor, k: Tensor, mask: Tensor | None, causal: bool) -> Tensor:
    """``(..., T, S)`` where a query may attend."""
    allowed = torch.ones(q.shape[-2], k.shape[-2], dtype=torch.bool, device=q.device)
    allowed = allowed.tril() if causal else allowed
    return allowed if mask is None else allowed & mask


def check_heads(width: int, heads: int, dropout: float) -> None:
    """Refuses options that no attention has.

    Raises:
        ConfigError: heads that do not divide the width, or a dropout outside [0, 1).
    """
    if heads < 1 or width < 1 or width % heads:
        raise ConfigError(f"The heads must divide the width, and {heads} does not divide {width}.")
    if not 0 <= dropout < 1:
        raise ConfigError(f"The dropout must be in [0, 1), not {dropout}.")


class Attention(nn.Module):
    """Multi-head attention: of a sequence to itself, causal or not, or to a context.

    Every head attends by queries, keys and values of its own, ``width / heads`` wide; a linear map puts what they found
    together. Without positions in the input it is equivariant to their order. Vaswani et al. 2017, "Attention Is All
    You Need" (arXiv 1706.03762).

    Args:
        width: D, of the sequence.
        heads: how many; they divide the width.
        context: width of what it attends to; 0 for the sequence itself.
        causal: whether position t attends to those up to t alone.
        dropout: share of the weights silenced in training.

    Raises:
        ConfigError: heads that do not divide the width, a dropout outside [0, 1), or a causal one with a context.

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
            raise ConfigError("Attention to a context has no order to be causal in.")
        self.heads, self.context, self.causal, self.dropout = heads, context, causal, dropout
        self.query = nn.Linear(width, width)
        self.key_value = nn.Linear(context or width, 2 * width)
        self.out = nn.Linear(width, width)

    def forward(self, x: Tensor, context: Tensor | None = None, mask: Tensor | None = None) -> Tensor:
        """``(B, T, D)``: what each position found.

        Args:
            x: ``(B, T, D)``.
            context: ``(B, S, context)``, where it was built for one.
            mask: bool, broadcast to ``(B, T, S)``, True where a position may attend; None where it may everywhere.

        Raises:
            ConfigError: a context that it was not built for, or none where it needs one.
        """
        q, k, v = self._heads(x, context)
        dropout = self.dropout if self.training else 0.0
        found = attention(q, k, v, _per_head(mask), causal=self.causal, dropout=dropout)
        return self.out(found.transpose(1, 2).flatten(2))

    def extend(self, x: Tensor, past: Past | None = None) -> tuple[Tensor, Past]:
        """What further positions of a causal sequence find, those before them not being computed again.

        Args:
            x: ``(B, T, D)``, the further positions.
            past: what the call for the positions before returned; None at the first.

        Returns:
            ``(B, T, D)``, what :meth:`forward` of the whole sequence has there, and what the next call needs.

        Raises:
            ConfigError: it is not causal.

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
        seen = torch.ones(x.shape[1], k.shape[2], dtype=torch.bool, device=x.device).tril(before)
        dropout = self.dropout if self.training else 0.0
        found = attention(q, k, v, None if len(seen) == 1 else seen, dropout=dropout)
        return self.out(found.transpose(1, 2).flatten(2)), (k, v)

    def weights(self, x: Tensor, context: Tensor | None = None, mask: Tensor | None = None) -> Tensor:
        """``(B, heads, T, S)``: how much each position attends to each; arguments as in :meth:`forward`.

        Raises:
            ConfigError: a context that it was not built for, or none where it needs one.
        """
        q, k, _ = self._heads(x, context)
        return attention_weights(q, k, _per_head(mask), causal=self.causal)

    def _heads(self, x: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values, ``(B, heads, T or S, D / heads)`` each."""
        if (context is None) != (not self.context):
            raise ConfigError(
                f"This attention needs a context (B, S, {self.context}) and was given none."
                if context is None
                else "This attention was given a context and was built without one; build it with `context`."
            )
        k, v = self.key_value(x if context is None else context).chunk(2, -1)
        q, k, v = (t.unflatten(-1, (self.heads, -1)).transpose(1, 2) for t in (self.query(x), k, v))
        return q, k, v


def _per_head(mask: Tensor | None) -> Tensor | None:
    """``(B, T, S)`` with an axis for the heads."""
    return None if mask is None else mask.unsqueeze(-3)

"""A causal transformer as the prior over codes."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from sandglass.distributions.conditional import at_least_single
from sandglass.models._code_prior import CodePrior, check_prior
from sandglass.nets.attention import Past
from sandglass.nets.frame import normal
from sandglass.nets.net import Condition, Net
from sandglass.nets.vit import Block


class TransformerPrior(CodePrior):
    """The prior over codes by a causal transformer.

    Each position reads the code before it (the first a start vector), its place, and the condition. Vaswani et al.
    2017, "Attention Is All You Need" (arXiv 1706.03762), normalised before each part.

    Args:
        size: K, how many values a code has.
        shape: of the map of codes.
        cond: what it is conditioned on.
        net: the family of the network that reads a picture condition.
        above: levels whose codes it is given.
        width: of the transformer.
        depth: its blocks.
        heads: of its attention; they divide its width.
        dropout: dropout probability in training.

    Raises:
        ConfigError: a value that makes no sense.

    Example:
        >>> import math
        >>> p = TransformerPrior(5, (3,), width=8, depth=1, heads=2)()
        >>> codes = p.sample((4,))
        >>> codes.shape, bool(torch.allclose(p.log_prob(codes), torch.tensor(-3 * math.log(5))))
        (torch.Size([4, 3]), True)
    """

    def __init__(
        self,
        size: int,
        shape: tuple[int, ...],
        cond: Condition = 0,
        net: Net | None = None,
        above: tuple[tuple[int, tuple[int, ...]], ...] = (),
        *,
        width: int = 128,
        depth: int = 4,
        heads: int = 4,
        dropout: float = 0.1,
    ) -> None:
        check_prior(width, depth, dropout, heads)
        super().__init__(size, shape)
        self.start = nn.Parameter(normal(1, 1, width, std=0.02))
        self.embedding = nn.Embedding(size, width, _weight=normal(size, width, std=0.02))
        self.places = nn.Parameter(normal(self.length, width, std=0.02))
        self.read(width, cond, net, above)
        self.dropout = nn.Dropout(dropout)
        self.blocks = nn.ModuleList(Block(width, heads, dropout, causal=True) for _ in range(depth))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, size)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def logits(self, codes: Tensor, context: Tensor | None = None) -> Tensor:
        """As of every prior over codes."""
        before = self.embedding(codes[:, :-1])
        x = torch.cat([self.start.expand(len(codes), 1, -1).to(before.dtype), before], 1)
        x = self._placed(x, self.places, context)
        for block in self.blocks:
            x = block(x)
        return at_least_single(self.head(self.norm(x)))

    @torch.no_grad()
    def draw(self, n: int, context: Tensor | None = None) -> Tensor:
        """As of every prior over codes."""
        pasts: list[Past | None] = [None] * len(self.blocks)
        before = self.start.expand(n, 1, -1)
        codes = []
        for t, place in enumerate(self.places):
            here = context if context is None or context.shape[1] == 1 else context[:, t : t + 1]
            x = self._placed(before, place, here)
            for i, block in enumerate(self.blocks):
                x, pasts[i] = block.extend(x, pasts[i])  # type: ignore[operator]
            chances = at_least_single(self.head(self.norm(x)))[:, 0].softmax(-1)
            codes.append(torch.multinomial(chances, 1))
            before = self.embedding(codes[-1])
        return torch.cat(codes, 1)

    def _placed(self, x: Tensor, places: Tensor, context: Tensor | None) -> Tensor:
        """What the first block reads: vectors ``(B, T, width)`` with their places and the context."""
        x = x + places
        return self.dropout(x if context is None else x + context)

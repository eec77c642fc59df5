"""An autoregressive prior over sequences of codes."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.distributions import Distribution

from sandglass.distributions.conditional import Conditional, at_least_single
from sandglass.errors import ConfigError
from sandglass.nets.attention import Past
from sandglass.nets.frame import normal
from sandglass.nets.net import Condition, Net
from sandglass.nets.vit import Block

_ONE = torch.Size()


class CodePrior(Conditional):
    """``p(k) = prod_t p(k_t | k_1 ... k_{t-1}, c)`` over sequences of codes, by a causal transformer.

    Each position reads the code before it (the first a start vector), its place, and the condition. Vaswani et al.
    2017, "Attention Is All You Need" (arXiv 1706.03762), normalised before each part; in the place of the PixelCNN of
    van den Oord et al. 2017 (arXiv 1711.00937). Before training all sequences are equally likely.

    Args:
        size: K, how many codes there are.
        length: n, of a sequence.
        cond: what it is conditioned on.
        net: the family of the network that reads a picture condition.
        prior_width: of the transformer that is the prior over codes.
        prior_depth: its blocks.
        prior_heads: of its attention; they divide its width.
        prior_dropout: dropout probability in training.

    Raises:
        ConfigError: a value that makes no sense.

    Example:
        >>> prior = CodePrior(5, 3, prior_width=8, prior_heads=2)
        >>> p = prior()
        >>> codes = p.sample((4,))
        >>> codes.shape, bool(torch.allclose(p.log_prob(codes), torch.tensor(-3 * math.log(5))))
        (torch.Size([4, 3]), True)
    """

    def __init__(
        self,
        size: int,
        length: int,
        cond: Condition = 0,
        net: Net | None = None,
        *,
        prior_width: int = 128,
        prior_depth: int = 4,
        prior_heads: int = 4,
        prior_dropout: float = 0.1,
    ) -> None:
        super().__init__()
        if prior_width < 1 or prior_depth < 1:
            raise ConfigError(f"A prior needs prior_width and prior_depth >= 1, not {prior_width} and {prior_depth}.")
        if prior_heads < 1 or prior_width % prior_heads:
            raise ConfigError(f"prior_heads must divide prior_width: {prior_heads} does not divide {prior_width}.")
        if not 0 <= prior_dropout < 1:
            raise ConfigError(f"The prior_dropout must be in [0, 1), not {prior_dropout}.")
        self.size, self.length = size, length
        self.start = nn.Parameter(normal(1, 1, prior_width, std=0.02))
        self.embedding = nn.Embedding(size, prior_width, _weight=normal(size, prior_width, std=0.02))
        self.places = nn.Parameter(normal(length, prior_width, std=0.02))
        self.condition: nn.Module | None = None
        if isinstance(cond, tuple):
            assert net is not None
            self.condition = net.encoder(cond, prior_width)
        elif cond:
            self.condition = nn.Linear(cond, prior_width)
        self.dropout = nn.Dropout(prior_dropout)
        self.blocks = nn.ModuleList(
            Block(prior_width, prior_heads, prior_dropout, causal=True) for _ in range(prior_depth)
        )
        self.norm, self.head = nn.LayerNorm(prior_width), nn.Linear(prior_width, size)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def forward(self, h: Tensor | None = None, c: Tensor | None = None, mask: Tensor | None = None) -> CodeSequence:
        """The distribution over ``(length,)`` codes; one for each of the conditions ``(B, ...)``, if there are any."""
        return CodeSequence(self, c)

    def logits(self, codes: Tensor, c: Tensor | None = None) -> Tensor:
        """``(B, length, size)``: of every position given the codes ``(B, length)`` before it, all at once."""
        before = self.embedding(codes[:, :-1])
        x = torch.cat([self.start.expand(len(codes), 1, -1).to(before.dtype), before], 1)
        x = self._placed(x, self.places, c)
        for block in self.blocks:
            x = block(x)
        return at_least_single(self.head(self.norm(x)))

    @torch.no_grad()
    def draw(self, n: int, c: Tensor | None = None) -> Tensor:
        """``(n, length)`` codes, position by position, under ``n`` conditions where there are any."""
        pasts: list[Past | None] = [None] * len(self.blocks)
        before = self.start.expand(n, 1, -1)
        codes = []
        for place in self.places:
            x = self._placed(before, place, c)
            for i, block in enumerate(self.blocks):
                x, pasts[i] = block.extend(x, pasts[i])  # type: ignore[operator]
            chances = at_least_single(self.head(self.norm(x)))[:, 0].softmax(-1)
            codes.append(torch.multinomial(chances, 1))
            before = self.embedding(codes[-1])
        return torch.cat(codes, 1)

    def _placed(self, x: Tensor, places: Tensor, c: Tensor | None) -> Tensor:
        """What the first block reads: vectors ``(B, T, width)`` with their places and the condition."""
        x = x + places
        return self.dropout(x if self.condition is None or c is None else x + self.condition(c.to(x.dtype))[:, None])


class CodeSequence(Distribution):
    """The distribution of a :class:`CodePrior` over sequences, under conditions or none.

    Args:
        prior: gives the logits.
        c: ``(B, ...)``, or None.
    """

    arg_constraints = {}  # noqa: RUF012 # as in every distribution of PyTorch

    def __init__(self, prior: CodePrior, c: Tensor | None = None) -> None:
        self.prior, self.c = prior, c
        batch = torch.Size([] if c is None else [len(c)])
        super().__init__(batch, torch.Size([prior.length]), validate_args=False)

    def log_prob(self, value: Tensor) -> Tensor:
        """``(B,)`` of codes ``(B, length)``, in nats."""
        logits = self.prior.logits(value, self.c)
        return -F.cross_entropy(logits.transpose(1, 2), value, reduction="none").sum(1)

    def sample(self, sample_shape: torch.Size | list[int] | tuple[int, ...] = _ONE) -> Tensor:
        """``(*sample_shape, B, length)`` codes, without B where there are no conditions."""
        times = math.prod(sample_shape)
        c = None if self.c is None else self.c.repeat(times, *[1] * (self.c.dim() - 1))
        codes = self.prior.draw(times if c is None else len(c), c)
        return codes.view(*sample_shape, *self.batch_shape, -1)

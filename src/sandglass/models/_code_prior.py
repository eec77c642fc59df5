"""Autoregressive priors over codes: what all of them share."""

from __future__ import annotations

import abc
import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.distributions import Distribution

from sandglass.distributions.conditional import Conditional, at_least_single
from sandglass.errors import ConfigError
from sandglass.models._code_map import ResidualBlock
from sandglass.nets.frame import normal
from sandglass.nets.net import Condition, Net

_ONE = torch.Size()
_BLOCKS = 2  # residual blocks over the codes above


class CodePrior(Conditional):
    """``p(k) = prod_t p(k_t | k_1 ... k_{t-1}, c)`` over maps of codes, row by row.

    Before training all codes are equally likely.

    Args:
        size: K, how many values a code has.
        shape: of the map, ``(n,)``, ``(h, w)`` or ``(h, w, depth)``.

    Attributes:
        length: n, codes of a map.
    """

    condition: nn.Module | None
    above: nn.ModuleList

    def __init__(self, size: int, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.size, self.shape, self.length = size, shape, math.prod(shape)

    def read(
        self, width: int, cond: Condition, net: Net | None, above: tuple[tuple[int, tuple[int, ...]], ...]
    ) -> None:
        """Makes what reads the condition and the codes above, after the embedding: optimisers count parameters.

        Args:
            width: of the vectors between the layers.
            cond: what it is conditioned on.
            net: the family of the network that reads a picture condition.
            above: by level from the top, the values of a code and the shape of the map; codes that it is given, too.
        """
        self.condition = None
        if isinstance(cond, tuple):
            assert net is not None
            self.condition = net.encoder(cond, width)
        elif cond:
            self.condition = nn.Linear(cond, width)
        self.above = nn.ModuleList(Above(n, one, self.shape, width) for n, one in above)

    @abc.abstractmethod
    def logits(self, codes: Tensor, context: Tensor | None = None) -> Tensor:
        """``(B, length, size)``: of every position given the codes ``(B, length)`` before it, all at once.

        Args:
            codes: of the map.
            context: ``(B, length or 1, width)`` what every position is given besides, or None.
        """

    @abc.abstractmethod
    def draw(self, n: int, context: Tensor | None = None) -> Tensor:
        """``(n, length)`` codes, position by position, under ``n`` contexts where there are any."""

    def forward(self, h: Tensor | None = None, c: Tensor | None = None, mask: Tensor | None = None) -> CodeSequence:
        """The distribution over ``(length,)`` codes; one for each of the conditions ``(B, ...)``, if there are any.

        Args:
            h: ``(B, m)`` codes of the levels above, or None where there are none.
            c: ``(B, ...)`` conditions, or None.
            mask: not used.
        """
        return CodeSequence(self, self.context(h, c))

    def context(self, h: Tensor | None, c: Tensor | None) -> Tensor | None:
        """``(B, length or 1, width)`` the codes above and the conditions as vectors; None without either."""
        found: Tensor | None = None
        if self.condition is not None and c is not None:
            found = self.condition(c.to(self.dtype))[:, None]
        if h is not None and len(self.above):
            for reads, k in zip(self.above, h.split([a.size for a in self.above], 1), strict=True):
                found = reads(k) if found is None else found + reads(k)
        return found

    @property
    def dtype(self) -> torch.dtype:
        """The type of its weights."""
        return next(self.parameters()).dtype


class OneCode(CodePrior):
    """The prior over a single code, which follows no other: its logits, from what it is given.

    Args:
        size: K, how many values the code has.
        shape: of the map, with one place.
        cond: what it is conditioned on.
        net: the family of the network that reads a picture condition.
        above: levels whose codes it is given.
        width: of the vectors between the layers.

    Example:
        >>> OneCode(5, (1, 1), width=8)().log_prob(torch.tensor([[3], [4]]))
        tensor([-1.6094, -1.6094], grad_fn=...)
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
    ) -> None:
        super().__init__(size, shape)
        self.read(width, cond, net, above)
        self.start, self.hidden = nn.Parameter(normal(1, 1, width, std=0.02)), nn.Linear(width, width)
        self.head = nn.Linear(width, size)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def logits(self, codes: Tensor, context: Tensor | None = None) -> Tensor:
        """As of every prior over codes."""
        x = self.start if context is None else self.start + context
        return at_least_single(self.head(F.silu(self.hidden(x)))).expand(len(codes), -1, -1)

    @torch.no_grad()
    def draw(self, n: int, context: Tensor | None = None) -> Tensor:
        """As of every prior over codes."""
        codes = torch.zeros(n, 1, dtype=torch.long, device=self.start.device)
        return torch.multinomial(self.logits(codes, context)[:, 0].softmax(-1), 1)


class Above(nn.Module):
    """A map of codes as vectors for the places of a larger map.

    Args:
        size: values of a code.
        shape: of the map of codes, ``(n,)``, ``(h, w)`` or ``(h, w, depth)``.
        onto: the larger one.
        width: of a vector.

    Example:
        >>> Above(5, (2, 2), (4, 3), 8)(torch.zeros(7, 4, dtype=torch.long)).shape
        torch.Size([7, 12, 8])
    """

    def __init__(self, size: int, shape: tuple[int, ...], onto: tuple[int, ...], width: int) -> None:
        super().__init__()
        self.size = math.prod(shape)
        self.depth, self.plane = depth_of(shape), plane_of(shape)
        self.times, self.onto = depth_of(onto), plane_of(onto)
        self.embedding = nn.Embedding(size * self.depth, width, _weight=normal(size * self.depth, width, std=0.5))
        self.register_buffer("first", torch.tensor([d * size for d in range(self.depth)]), persistent=False)
        self.blocks = nn.Sequential(*[ResidualBlock(width) for _ in range(_BLOCKS)], nn.Conv2d(width, width, 1))

    first: Tensor

    def forward(self, codes: Tensor) -> Tensor:
        """``(B, m)`` codes to ``(B, n, width)``."""
        vectors = self.embedding(codes.unflatten(1, (-1, self.depth)) + self.first).sum(2)
        maps = self.blocks(vectors.transpose(1, 2).unflatten(2, self.plane))
        maps = F.interpolate(maps, self.onto, mode="nearest")
        return maps.flatten(2).transpose(1, 2).repeat_interleave(self.times, 1)


def plane_of(shape: tuple[int, ...]) -> tuple[int, int]:
    """Height and width of a map of codes; a row is one place high.

    Example:
        >>> plane_of((7,)), plane_of((4, 3)), plane_of((4, 3, 2))
        ((1, 7), (4, 3), (4, 3))
    """
    return (1, shape[0]) if len(shape) == 1 else (shape[0], shape[1])


def depth_of(shape: tuple[int, ...]) -> int:
    """Codes of a place.

    Example:
        >>> depth_of((4, 3)), depth_of((4, 3, 2))
        (1, 2)
    """
    return shape[2] if len(shape) > 2 else 1


def check_prior(width: int, depth: int, dropout: float, heads: int | None = None) -> None:
    """Checks the options of a network over codes, with the heads of one that has them.

    Raises:
        ConfigError: a value that makes no sense.
    """
    if width < 1 or depth < 1:
        raise ConfigError(f"A prior needs prior_width and prior_depth >= 1, not {width} and {depth}.")
    if not 0 <= dropout < 1:
        raise ConfigError(f"The prior_dropout must be in [0, 1), not {dropout}.")
    if heads is not None and (heads < 1 or width % heads):
        raise ConfigError(f"prior_heads must divide prior_width: {heads} does not divide {width}.")


class CodeSequence(Distribution):
    """The distribution of a :class:`CodePrior` over sequences, under conditions or none.

    Args:
        prior: gives the logits.
        context: ``(B, ...)``, or None.
    """

    arg_constraints = {}  # noqa: RUF012 # as in every distribution of PyTorch

    def __init__(self, prior: CodePrior, context: Tensor | None = None) -> None:
        self.prior, self.context = prior, context
        batch = torch.Size([] if context is None else [len(context)])
        super().__init__(batch, torch.Size([prior.length]), validate_args=False)

    def log_prob(self, value: Tensor) -> Tensor:
        """``(B,)`` of codes ``(B, length)``, in nats."""
        logits = self.prior.logits(value, self.context)
        return -F.cross_entropy(logits.transpose(1, 2), value, reduction="none").sum(1)

    def sample(self, sample_shape: torch.Size | list[int] | tuple[int, ...] = _ONE) -> Tensor:
        """``(*sample_shape, B, length)`` codes, without B where there are no conditions."""
        times = math.prod(sample_shape)
        c = None if self.context is None else self.context.repeat(times, *[1] * (self.context.dim() - 1))
        codes = self.prior.draw(times if c is None else len(c), c)
        return codes.view(*sample_shape, *self.batch_shape, -1)

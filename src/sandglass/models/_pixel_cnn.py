"""Gated masked convolutions as the prior over codes."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sandglass.distributions.conditional import at_least_single
from sandglass.models._code_prior import CodePrior, check_prior, depth_of, plane_of
from sandglass.nets.frame import normal
from sandglass.nets.net import Condition, Net

_KERNEL = 5  # columns that a convolution sees, and half as many rows, rounded up


class PixelCNN(CodePrior):
    """The prior over codes by a PixelCNN: convolutions that see the places above and to the left.

    Van den Oord et al. 2016, "Conditional Image Generation with PixelCNN Decoders" (arXiv 1606.05328): one stack of
    convolutions over the rows above, one over the places to the left in the same row, which reads the former, so that
    no place is left out; each with gates ``tanh(a) * sigmoid(b)`` that also read the condition and, here, where they
    are. Several codes of a place follow each other in its row.

    Args:
        size: K, how many values a code has.
        shape: of the map of codes.
        cond: what it is conditioned on.
        net: the family of the network that reads a picture condition.
        above: levels whose codes it is given.
        width: channels.
        depth: layers.
        dropout: dropout probability in training.

    Raises:
        ConfigError: a value that makes no sense.

    Example:
        >>> import math
        >>> p = PixelCNN(5, (3, 2), width=8, depth=2)()
        >>> codes = p.sample((4,))
        >>> codes.shape, bool(torch.allclose(p.log_prob(codes), torch.tensor(-6 * math.log(5))))
        (torch.Size([4, 6]), True)
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
        dropout: float = 0.1,
    ) -> None:
        check_prior(width, depth, dropout)
        super().__init__(size, shape)
        rows, columns = plane_of(shape)
        self.plane = rows, columns * depth_of(shape)
        self.embedding = nn.Embedding(size, width, _weight=normal(size, width, std=0.5))
        self.places = nn.Parameter(normal(self.length, width, std=0.02))
        self.read(width, cond, net, above)
        self.layers = nn.ModuleList(Gated(width, first=i == 0, last=i == depth - 1) for i in range(depth))
        self.dropout, self.head = nn.Dropout(dropout), nn.Sequential(nn.ReLU(), nn.Conv2d(width, size, 1))
        nn.init.zeros_(self.head[-1].weight)  # type: ignore[arg-type]
        nn.init.zeros_(self.head[-1].bias)  # type: ignore[arg-type]

    def logits(self, codes: Tensor, context: Tensor | None = None) -> Tensor:
        """As of every prior over codes."""
        return self._rows(codes, context, self.plane[0])

    @torch.no_grad()
    def draw(self, n: int, context: Tensor | None = None) -> Tensor:
        """As of every prior over codes; a place costs as much as the rows down to it."""
        codes = torch.zeros(n, self.length, dtype=torch.long, device=self.places.device)
        for t in range(self.length):
            chances = self._rows(codes, context, t // self.plane[1] + 1)[:, t].softmax(-1)
            codes[:, t] = torch.multinomial(chances, 1)[:, 0]
        return codes

    def _rows(self, codes: Tensor, context: Tensor | None, rows: int) -> Tensor:
        """``(B, rows * columns, size)`` the logits of the first rows, which need no code of the others."""
        some = rows * self.plane[1]
        given = self.places if context is None else self.places + context
        above = left = self._map(self.embedding(codes[:, :some]), rows)
        given = self._map(given.expand(len(codes), -1, -1)[:, :some].to(above.dtype), rows)
        whole: Tensor | None = None
        for layer in self.layers:
            above, left, skip = layer(above, left, given)
            left = left if layer.out is None else self.dropout(left)
            whole = skip if whole is None else whole + skip
        assert whole is not None
        return at_least_single(self.head(self.dropout(whole)).flatten(2).transpose(1, 2))

    def _map(self, vectors: Tensor, rows: int) -> Tensor:
        return vectors.transpose(1, 2).unflatten(2, (rows, self.plane[1]))


class Gated(nn.Module):
    """One layer of the two stacks.

    Args:
        width: channels.
        first: whether the place itself is masked; the layers after the first may see what was made of it.
        last: whether no layer follows, which would read the places to the left.

    Example:
        >>> x = torch.zeros(2, 4, 3, 5)
        >>> [t.shape for t in Gated(4, first=True)(x, x, x)]
        [torch.Size([2, 4, 3, 5]), torch.Size([2, 4, 3, 5]), torch.Size([2, 4, 3, 5])]
    """

    def __init__(self, width: int, *, first: bool, last: bool = False) -> None:
        super().__init__()
        self.first, half = first, _KERNEL // 2 + 1
        self.rows = nn.Conv2d(width, 2 * width, (half, _KERNEL))
        self.columns = nn.Conv2d(width, 2 * width, (1, half))
        self.link = nn.Conv2d(2 * width, 2 * width, 1)
        self.given = nn.Conv2d(width, 4 * width, 1)
        self.out = None if last else nn.Conv2d(width, width, 1)
        self.skip = nn.Conv2d(width, width, 1)

    def forward(self, above: Tensor, left: Tensor, given: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The next maps ``(B, C, h, w)`` of both stacks, and what the layer adds to the output.

        Args:
            above: of the rows above; in the first layer, of the codes.
            left: of the places to the left as well; in the first layer, of the codes.
            given: what each place is given.
        """
        reach, one = _KERNEL // 2, int(self.first)  # in the first layer everything is moved by one place
        seen = F.pad(above, (reach, reach, reach + one, 0))
        vertical = self.rows(seen[:, :, : seen.shape[2] - one])
        seen = F.pad(left, (reach + one, 0))
        horizontal = self.columns(seen[..., : seen.shape[3] - one]) + self.link(vertical)
        one_given, other_given = self.given(given).chunk(2, 1)
        gated = _gate(horizontal + other_given)
        if self.out is not None:
            left = self.out(gated) if self.first else left + self.out(gated)
        return _gate(vertical + one_given), left, self.skip(gated)


def _gate(x: Tensor) -> Tensor:
    a, b = x.chunk(2, 1)
    return torch.tanh(a) * torch.sigmoid(b)

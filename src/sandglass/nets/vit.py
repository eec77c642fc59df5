"""Vision transformers at any height, width and channel count."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sandglass.core import Spec
from sandglass.errors import ConfigError
from sandglass.nets.attention import Attention, Past, check_heads
from sandglass.nets.frame import (
    Channels,
    Cond,
    FromCode,
    Headed,
    check_condition,
    cond_shape,
    needed,
    picture_shape,
    resize,
)
from sandglass.registry import register

Size = tuple[int, int]

_SPREAD = (
    0.5  # of learned positions at first, about that of sines: from 0.02 a small vit is long blind to where it looks
)


@register("vit", kind="net")
class ViT:
    """Transformers over the patches of a picture, at any height, width and channel count.

    The encoder is that of Dosovitskiy et al. 2020, "An Image is Worth 16x16 Words: Transformers for Image Recognition
    at Scale" (arXiv 2010.11929): patches, embedded, with positions, through pre-normalised blocks. The decoder goes the
    other way as in He et al. 2022, "Masked Autoencoders Are Scalable Vision Learners" (arXiv 2111.06377): a token for
    each patch through further blocks, and a linear map to its pixels. A side that the patch does not divide is padded
    with zeros, and trimmed on the way back.

    A vector condition is one token more. A picture condition is resized to the picture, and its patches, like those of
    the mask where gaps are told, are embedded and added. ``analysis`` and ``synthesis`` work on one map, of the tokens.

    Args:
        width: of a token.
        depth: blocks in each direction.
        heads: of the attention; they divide the width.
        patch: height and width of a patch; a picture thinner than that has patches as thin.
        positions: ``learned``, or ``sine`` of the row and of the column.
        pool: what the encoder's head reads: the ``mean`` of the tokens, or a ``token`` of its own beside them.
        dropout: share of the attention weights, and of what a block adds, silenced in training.

    Raises:
        ConfigError: sizes below 1, heads that do not divide the width, sine positions in a width that 4 does not
            divide, or a dropout outside [0, 1).

    Example:
        >>> net = ViT(width=16, depth=1, heads=2)
        >>> net.encoder((3, 37, 53), 6)(torch.zeros(2, 3, 37, 53)).shape
        torch.Size([2, 6])
        >>> net.decoder(6, (3, 37, 53), cond=10)(torch.zeros(2, 6), torch.zeros(2, 10)).shape
        torch.Size([2, 3, 37, 53])
        >>> net.analysis((3, 37, 53)).shapes
        [(16, 10, 14)]
    """

    def __init__(
        self,
        *,
        width: int = 64,
        depth: int = 3,
        heads: int = 4,
        patch: int = 4,
        positions: Literal["learned", "sine"] = "learned",
        pool: Literal["mean", "token"] = "mean",
        dropout: float = 0.0,
    ) -> None:
        if min(width, depth, heads, patch) < 1:
            raise ConfigError(
                f"A vit needs a width, depth, heads and patch from 1 on, not {width}, {depth}, {heads}, {patch}."
            )
        if positions not in ("learned", "sine"):
            raise ConfigError(f"The positions are one of learned, sine, not '{positions}'.")
        if pool not in ("mean", "token"):
            raise ConfigError(f"The pool is one of mean, token, not '{pool}'.")
        if positions == "sine" and width % 4:
            raise ConfigError(f"Sine positions need a width that 4 divides, not {width}.")
        check_heads(width, heads, dropout)
        self.width, self.depth, self.heads, self.patch = width, depth, heads, patch
        self.positions, self.pool, self.dropout = positions, pool, dropout

    @staticmethod
    def natural(spec: Spec) -> bool:
        """Never: it needs more data than the others to be as good."""
        return False

    def encoder(self, shape: tuple[int, ...], out: int, *, cond: Cond = 0, masked: bool = False) -> Headed:
        """``(B, C, H, W) -> (B, out)``, told a condition and, with ``masked``, the gaps.

        Raises:
            ConfigError: examples that are no images, or a condition that is neither a vector nor a picture.
        """
        reader = Reader(self, shape, cond, masked, summary=self.pool == "token")
        return Headed(Pooled(reader), nn.Linear(self.width, out))

    def decoder(self, dim: int, shape: tuple[int, ...], *, cond: Cond = 0) -> FromCode:
        """``(B, dim) -> (B, C, H, W)``, told a condition.

        Raises:
            ConfigError: examples that are no images, or a condition that is neither a vector nor a picture.
        """
        small = (self.width, *Grid.of(shape, self.patch).size)
        stem = nn.Sequential(nn.Linear(dim, math.prod(small)), nn.Unflatten(-1, small))
        return FromCode(stem, self.synthesis([small], shape, cond=cond))

    def analysis(self, shape: tuple[int, ...], *, cond: Cond = 0) -> TokenAnalysis:
        """``(B, C, H, W)``, and a condition, to a list of one map: the tokens, where their patches stood.

        Raises:
            ConfigError: examples that are no images, or a condition that is neither a vector nor a picture.
        """
        return TokenAnalysis(Reader(self, shape, cond))

    def synthesis(self, shapes: Sequence[tuple[int, ...]], shape: tuple[int, ...], *, cond: Cond = 0) -> TokenSynthesis:
        """A list of one map ``(B, *shapes[0])``, and a condition, to ``(B, C, H, W)``.

        Raises:
            ConfigError: another number of maps, a map with another number of tokens than there are patches, examples
                that are no images, or a condition that is neither a vector nor a picture.
        """
        size = Grid.of(shape, self.patch).size
        if len(shapes) != 1 or tuple(shapes[0][1:]) != size:
            given = ", ".join(map(str, shapes)) or "none"
            raise ConfigError(f"A vit needs one map of {size[0]}x{size[1]} tokens for such pictures, not {given}.")
        return TokenSynthesis(self, shapes[0][0], shape, cond)


@dataclass(frozen=True)
class Grid:
    """How a picture divides into patches, row by row.

    Args:
        shape: of the picture.
        patch: height and width of a patch.

    Example:
        >>> grid, x = Grid.of((2, 5, 6), 4), torch.rand(3, 2, 5, 6)
        >>> grid.size, grid.cut(x).shape, bool((grid.join(grid.cut(x)) == x).all())
        ((2, 2), torch.Size([3, 4, 32]), True)
    """

    shape: tuple[int, int, int]
    patch: Size

    @classmethod
    def of(cls, shape: tuple[int, ...], patch: int) -> Grid:
        """For square patches, where the picture is not thinner than them.

        Raises:
            ConfigError: it is no picture.
        """
        channels, height, width = picture_shape(shape, "vit")
        return cls((channels, height, width), (min(patch, height), min(patch, width)))

    @property
    def size(self) -> Size:
        """Patches down and across."""
        return math.ceil(self.shape[1] / self.patch[0]), math.ceil(self.shape[2] / self.patch[1])

    @property
    def width(self) -> int:
        """Numbers in a patch."""
        return self.shape[0] * math.prod(self.patch)

    def cut(self, x: Tensor) -> Tensor:
        """``(B, C, H, W)`` to patches ``(B, T, width)``, padded with zeros below and on the right."""
        (rows, columns), (height, width) = self.size, self.patch
        x = F.pad(x, (0, columns * width - self.shape[2], 0, rows * height - self.shape[1]))
        x = x.unflatten(3, (columns, width)).unflatten(2, (rows, height))
        return x.permute(0, 2, 4, 1, 3, 5).flatten(3).flatten(1, 2)

    def join(self, patches: Tensor) -> Tensor:
        """Patches ``(B, T, width)`` to ``(B, C, H, W)``."""
        x = patches.unflatten(2, (self.shape[0], *self.patch)).unflatten(1, self.size)
        x = x.permute(0, 3, 1, 4, 2, 5).flatten(4).flatten(2, 3)
        return x[..., : self.shape[1], : self.shape[2]]


def sine_positions(size: Size, width: int) -> Tensor:
    """``(T, width)``: of each place, sines and cosines of its row in one half, and of its column in the other.

    Args:
        size: rows and columns.
        width: 4 divides it.

    Example:
        >>> sine_positions((1, 2), 4)
        tensor([[0.0000, 1.0000, 0.0000, 1.0000],
                [0.0000, 1.0000, 0.8415, 0.5403]])
    """
    rows, columns = torch.meshgrid(torch.arange(size[0]), torch.arange(size[1]), indexing="ij")
    rates = 10000.0 ** -(torch.arange(width // 4) * 4 / width)
    angles = [place.flatten()[:, None] * rates for place in (rows, columns)]
    return torch.cat([wave for angle in angles for wave in (angle.sin(), angle.cos())], 1)


class Block(nn.Module):
    """Attention, then two layers on each token, what either finds being added; normalised before each.

    Args:
        width: of a token.
        heads: of the attention.
        dropout: share silenced in training.
        causal: whether a token attends to those up to itself alone.

    Example:
        >>> Block(8, 2, 0.0)(torch.rand(3, 5, 8)).shape
        torch.Size([3, 5, 8])
    """

    def __init__(self, width: int, heads: int, dropout: float, *, causal: bool = False) -> None:
        super().__init__()
        self.before, self.attention = nn.LayerNorm(width), Attention(width, heads, dropout=dropout, causal=causal)
        self.mlp = nn.Sequential(
            nn.LayerNorm(width), nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width)
        )
        self.silence = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """``(B, T, width) -> (B, T, width)``."""
        x = x + self.silence(self.attention(self.before(x)))
        return x + self.silence(self.mlp(x))

    def extend(self, x: Tensor, past: Past | None = None) -> tuple[Tensor, Past]:
        """The same of further tokens of a causal sequence, after those of which ``past`` came back."""
        found, past = self.attention.extend(self.before(x), past)
        x = x + self.silence(found)
        return x + self.silence(self.mlp(x)), past


class Trunk(nn.Module):
    """Blocks over the tokens of a picture, and over those that stand beside them.

    Args:
        net: the options.
        size: rows and columns of the picture's tokens.
        told: width of a vector condition, 0 for none.
        summary: whether a token of its own stands beside them.
    """

    positions: Tensor

    def __init__(self, net: ViT, size: Size, told: int = 0, *, summary: bool = False) -> None:
        super().__init__()
        self.count = math.prod(size)
        if net.positions == "learned":
            self.positions = nn.Parameter(_SPREAD * torch.randn(self.count, net.width))
        else:
            self.register_buffer("positions", sine_positions(size, net.width))
        self.summary = nn.Parameter(0.02 * torch.randn(1, 1, net.width)) if summary else None
        self.cond = cond_shape(told)
        self.told = nn.Linear(told, net.width) if told else None
        self.blocks = nn.Sequential(*(Block(net.width, net.heads, net.dropout) for _ in range(net.depth)))
        self.norm = nn.LayerNorm(net.width)

    def forward(self, tokens: Tensor, c: Tensor | None) -> Tensor:
        """``(B, T, width)``, or one token, the summary, ``(B, 1, width)``; ``c`` is the vector ``(B, told)``.

        Raises:
            ConfigError: no condition where it needs one, or one of another shape.
        """
        row = [tokens + self.positions]
        if self.summary is not None:
            row.append(self.summary.expand(tokens.shape[0], -1, -1))
        if self.told is not None:
            row.append(self.told(needed(c, self.cond).to(tokens.dtype))[:, None])
        tokens = self.blocks(torch.cat(row, 1) if len(row) > 1 else row[0])
        asked = tokens[:, : self.count] if self.summary is None else tokens[:, self.count : self.count + 1]
        return self.norm(asked)


def vector(cond: Cond) -> int:
    """The width of a vector condition; 0 for a picture and for none."""
    shape = cond_shape(cond)
    return shape[0] if len(shape) == 1 else 0


class Reader(nn.Module):
    """Pictures to tokens.

    Args:
        net: the options.
        shape: of a picture.
        cond: of the condition.
        masked: whether gaps are told.
        summary: whether the one token that comes out is one of its own.
    """

    def __init__(
        self, net: ViT, shape: tuple[int, ...], cond: Cond, masked: bool = False, *, summary: bool = False
    ) -> None:
        super().__init__()
        told = vector(cond)
        self.inputs = Channels(picture_shape(shape, "vit"), 0 if told else cond, masked)
        self.grid = Grid.of(self.inputs.joined, net.patch)
        self.embed = nn.Linear(self.grid.width, net.width)
        self.trunk = Trunk(net, self.grid.size, told, summary=summary)

    def forward(self, x: Tensor, c: Tensor | None = None, mask: Tensor | None = None) -> Tensor:
        """``(B, T, width)`` or, with a summary, ``(B, 1, width)``.

        Raises:
            ConfigError: a condition or mask that it was not built for, or no condition where it needs one.
        """
        seen = self.inputs(x, None if self.trunk.cond else c, mask)
        return self.trunk(self.embed(self.grid.cut(seen)), c)


class Pooled(nn.Module):
    """The mean of the tokens of pictures.

    Args:
        reader: pictures to tokens.
    """

    def __init__(self, reader: Reader) -> None:
        super().__init__()
        self.reader = reader

    def forward(self, x: Tensor, c: Tensor | None = None, mask: Tensor | None = None) -> Tensor:
        """``(B, width)``; arguments and errors as of the reader."""
        return self.reader(x, c, mask).mean(1)


class TokenAnalysis(nn.Module):
    """Pictures to a map of their tokens.

    Args:
        reader: pictures to tokens.

    Attributes:
        shapes: ``(width, rows, columns)`` of the one map.
    """

    def __init__(self, reader: Reader) -> None:
        super().__init__()
        self.reader = reader
        self.shapes: list[tuple[int, ...]] = [(reader.embed.out_features, *reader.grid.size)]

    def forward(self, x: Tensor, c: Tensor | None = None) -> list[Tensor]:
        """``[(B, width, rows, columns)]`` of pictures ``(B, C, H, W)`` and conditions ``(B, *cond)``.

        Raises:
            ConfigError: a condition that it was not built for, or none where it needs one.
        """
        return [self.reader(x, c).transpose(1, 2).unflatten(2, self.shapes[0][1:])]


class TokenSynthesis(nn.Module):
    """A map of tokens to pictures.

    Args:
        net: the options.
        channels: of the map.
        shape: of a picture.
        cond: of the condition.
    """

    def __init__(self, net: ViT, channels: int, shape: tuple[int, ...], cond: Cond) -> None:
        super().__init__()
        told = vector(cond)
        self.grid = Grid.of(shape, net.patch)
        self.cond = cond_shape(0 if told else cond)
        self.lift = nn.Linear(channels, net.width)
        self.guide: nn.Linear | None = None
        if self.cond:
            self.seen = Grid((picture_shape(self.cond, "vit")[0], *self.grid.shape[1:]), self.grid.patch)
            self.guide = nn.Linear(self.seen.width, net.width)
        self.trunk = Trunk(net, self.grid.size, told)
        self.pixels = nn.Linear(net.width, self.grid.width)

    def forward(self, maps: Sequence[Tensor], c: Tensor | None = None) -> Tensor:
        """Pictures ``(B, C, H, W)`` from one map and conditions ``(B, *cond)``.

        Raises:
            ConfigError: another number of maps, a condition that it was not built for, or none where it needs one.
        """
        if len(maps) != 1:
            raise ConfigError(f"This network needs one map, and was given {len(maps)}.")
        tokens = self.lift(maps[0].flatten(2).transpose(1, 2))
        if self.guide is None:
            check_condition(c, self.trunk.cond)
        else:
            picture = resize(needed(c, self.cond).to(tokens.dtype), self.seen.shape[1:])
            tokens = tokens + self.guide(self.seen.cut(picture))
        return self.grid.join(self.pixels(self.trunk(tokens, c)))

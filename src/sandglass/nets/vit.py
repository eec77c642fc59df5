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
    image_shape,
    needed,
    normal,
    resize,
    vector_width,
)
from sandglass.registry import register

Size = tuple[int, int]

_SPREAD = 0.5  # initial scale of learned positions, as of sine positions; with 0.02 a small vit learns them slowly


@register("vit", kind="net")
class ViT:
    """Transformers over the patches of an image, at any height, width and channel count.

    The encoder is that of Dosovitskiy et al. 2020, "An Image is Worth 16x16 Words: Transformers for Image Recognition
    at Scale" (arXiv 2010.11929): patch embeddings with positions, through pre-normalised blocks. The decoder follows He
    et al. 2022, "Masked Autoencoders Are Scalable Vision Learners" (arXiv 2111.06377): a token for each patch through
    blocks, and a linear map to its pixels. Sides that are not a multiple of the patch size are padded with zeros, and
    cropped by the decoder.

    A vector condition is an additional token. An image condition is resized to the image; its patches and those of the
    mask of missing values are embedded and added. ``analysis`` and ``synthesis`` use a single map, that of the tokens.

    Args:
        width: embedding width of a token.
        depth: number of blocks in the encoder, and in the decoder.
        heads: number of attention heads, a divisor of the width.
        patch: height and width of a patch, reduced for smaller images.
        positions: ``learned``, or ``sine`` of the row and the column.
        pool: input of the encoder's head: the ``mean`` of the tokens, or an additional class ``token``.
        dropout: dropout probability of attention weights and of the residual branches.

    Raises:
        ConfigError: a size is below 1, the heads do not divide the width, the width is no multiple of 4 with sine
            positions, or the dropout is outside [0, 1).

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
                f"A vit needs width, depth, heads and patch of at least 1, not {width}, {depth}, {heads}, {patch}."
            )
        if positions not in ("learned", "sine"):
            raise ConfigError(f"The option positions must be one of learned, sine, not '{positions}'.")
        if pool not in ("mean", "token"):
            raise ConfigError(f"The option pool must be one of mean, token, not '{pool}'.")
        if positions == "sine" and width % 4:
            raise ConfigError(f"Sine positions need a width that is a multiple of 4, not {width}.")
        check_heads(width, heads, dropout)
        self.width, self.depth, self.heads, self.patch = width, depth, heads, patch
        self.positions, self.pool, self.dropout = positions, pool, dropout

    @staticmethod
    def natural(spec: Spec) -> bool:
        """Never: it needs more data than the other nets."""
        return False

    def encoder(self, shape: tuple[int, ...], out: int, *, cond: Cond = 0, masked: bool = False) -> Headed:
        """``(B, C, H, W) -> (B, out)``, with a condition and, if ``masked``, a mask.

        Raises:
            ConfigError: the examples are not images, or the condition is neither a vector nor an image.
        """
        reader = Reader(self, shape, cond, masked, summary=self.pool == "token")
        return Headed(Pooled(reader), nn.Linear(self.width, out))

    def decoder(self, dim: int, shape: tuple[int, ...], *, cond: Cond = 0) -> FromCode:
        """``(B, dim) -> (B, C, H, W)``, with a condition.

        Raises:
            ConfigError: the examples are not images, or the condition is neither a vector nor an image.
        """
        small = (self.width, *Grid.of(shape, self.patch).size)
        stem = nn.Sequential(nn.Linear(dim, math.prod(small)), nn.Unflatten(-1, small))
        return FromCode(stem, self.synthesis([small], shape, cond=cond))

    def analysis(self, shape: tuple[int, ...], *, cond: Cond = 0) -> TokenAnalysis:
        """``(B, C, H, W)`` and a condition to a list of one map: the tokens at the positions of their patches.

        Raises:
            ConfigError: the examples are not images, or the condition is neither a vector nor an image.
        """
        return TokenAnalysis(Reader(self, shape, cond))

    def synthesis(self, shapes: Sequence[tuple[int, ...]], shape: tuple[int, ...], *, cond: Cond = 0) -> TokenSynthesis:
        """A list of one map ``(B, *shapes[0])`` and a condition to ``(B, C, H, W)``.

        Raises:
            ConfigError: there is not exactly one map with a token per patch, the examples are not images, or the
                condition is neither a vector nor an image.
        """
        size = Grid.of(shape, self.patch).size
        if len(shapes) != 1 or tuple(shapes[0][1:]) != size:
            given = ", ".join(map(str, shapes)) or "none"
            raise ConfigError(f"A vit needs one map of {size[0]}x{size[1]} tokens for these images, not {given}.")
        return TokenSynthesis(self, shapes[0][0], shape, cond)


@dataclass(frozen=True)
class Grid:
    """Division of an image into patches, in row-major order.

    Args:
        shape: of the image.
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
        """A grid of square patches, reduced to the size of smaller images.

        Raises:
            ConfigError: the shape is not that of an image.
        """
        channels, height, width = image_shape(shape, "vit")
        return cls((channels, height, width), (min(patch, height), min(patch, width)))

    @property
    def size(self) -> Size:
        """Number of rows and columns of patches."""
        return math.ceil(self.shape[1] / self.patch[0]), math.ceil(self.shape[2] / self.patch[1])

    @property
    def width(self) -> int:
        """Number of values in a patch."""
        return self.shape[0] * math.prod(self.patch)

    def cut(self, x: Tensor) -> Tensor:
        """``(B, C, H, W)`` to patches ``(B, T, width)``, padded with zeros at the bottom and the right."""
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
    """``(T, width)`` position embeddings: sines and cosines of the row in one half, of the column in the other.

    Args:
        size: rows and columns.
        width: a multiple of 4.

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
    """A pre-normalised transformer block: attention and a two-layer MLP, each with a residual connection.

    Args:
        width: of a token.
        heads: number of attention heads.
        dropout: dropout probability.
        causal: whether attention is causal.

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
        self.drop = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """``(B, T, width) -> (B, T, width)``."""
        x = x + self.drop(self.attention(self.before(x)))
        return x + self.drop(self.mlp(x))

    def extend(self, x: Tensor, past: Past | None = None) -> tuple[Tensor, Past]:
        """Output for the next tokens of a causal sequence, and the updated cache; see :meth:`Attention.extend`."""
        found, past = self.attention.extend(self.before(x), past)
        x = x + self.drop(found)
        return x + self.drop(self.mlp(x)), past


class Trunk(nn.Module):
    """Transformer blocks over the tokens of an image, a condition token and a class token.

    Args:
        net: the options.
        size: rows and columns of the image's tokens.
        cond_width: width of a vector condition, 0 for none.
        summary: whether there is a class token, which is then the only output.
    """

    positions: Tensor

    def __init__(self, net: ViT, size: Size, cond_width: int = 0, *, summary: bool = False) -> None:
        super().__init__()
        self.count = math.prod(size)
        if net.positions == "learned":
            self.positions = nn.Parameter(normal(self.count, net.width, std=_SPREAD))
        else:
            self.register_buffer("positions", sine_positions(size, net.width))
        self.summary = nn.Parameter(normal(1, 1, net.width, std=0.02)) if summary else None
        self.cond = cond_shape(cond_width)
        self.condition = nn.Linear(cond_width, net.width) if cond_width else None
        self.blocks = nn.Sequential(*(Block(net.width, net.heads, net.dropout) for _ in range(net.depth)))
        self.norm = nn.LayerNorm(net.width)

    def forward(self, tokens: Tensor, c: Tensor | None) -> Tensor:
        """``(B, T, width)``, or ``(B, 1, width)`` with a class token; ``c`` is the vector ``(B, cond_width)``.

        Raises:
            ConfigError: the condition is missing or has another shape.
        """
        row = [tokens + self.positions]
        if self.summary is not None:
            row.append(self.summary.expand(tokens.shape[0], -1, -1))
        if self.condition is not None:
            row.append(self.condition(needed(c, self.cond).to(tokens.dtype))[:, None])
        tokens = self.blocks(torch.cat(row, 1) if len(row) > 1 else row[0])
        kept = tokens[:, : self.count] if self.summary is None else tokens[:, self.count : self.count + 1]
        return self.norm(kept)


class Reader(nn.Module):
    """Images to tokens.

    Args:
        net: the options.
        shape: of an image.
        cond: shape of the condition.
        masked: whether a mask is an input.
        summary: whether the output is a class token only.
    """

    def __init__(
        self, net: ViT, shape: tuple[int, ...], cond: Cond, masked: bool = False, *, summary: bool = False
    ) -> None:
        super().__init__()
        cond_width = vector_width(cond)
        self.inputs = Channels(image_shape(shape, "vit"), 0 if cond_width else cond, masked)
        self.grid = Grid.of(self.inputs.joined, net.patch)
        self.embed = nn.Linear(self.grid.width, net.width)
        self.trunk = Trunk(net, self.grid.size, cond_width, summary=summary)

    def forward(self, x: Tensor, c: Tensor | None = None, mask: Tensor | None = None) -> Tensor:
        """``(B, T, width)``, or ``(B, 1, width)`` with a class token.

        Raises:
            ConfigError: a condition or mask is unexpected or missing, or has the wrong shape.
        """
        joined = self.inputs(x, None if self.trunk.cond else c, mask)
        return self.trunk(self.embed(self.grid.cut(joined)), c)


class Pooled(nn.Module):
    """The mean of the tokens of an image.

    Args:
        reader: images to tokens.
    """

    def __init__(self, reader: Reader) -> None:
        super().__init__()
        self.reader = reader

    def forward(self, x: Tensor, c: Tensor | None = None, mask: Tensor | None = None) -> Tensor:
        """``(B, width)``; arguments and errors as in :class:`Reader`."""
        return self.reader(x, c, mask).mean(1)


class TokenAnalysis(nn.Module):
    """Images to a map of their tokens.

    Args:
        reader: images to tokens.

    Attributes:
        shapes: ``(width, rows, columns)`` of the one map.
    """

    def __init__(self, reader: Reader) -> None:
        super().__init__()
        self.reader = reader
        self.shapes: list[tuple[int, ...]] = [(reader.embed.out_features, *reader.grid.size)]

    def forward(self, x: Tensor, c: Tensor | None = None) -> list[Tensor]:
        """``[(B, width, rows, columns)]`` from images ``(B, C, H, W)`` and conditions ``(B, *cond)``.

        Raises:
            ConfigError: a condition is unexpected or missing, or has the wrong shape.
        """
        return [self.reader(x, c).transpose(1, 2).unflatten(2, self.shapes[0][1:])]


class TokenSynthesis(nn.Module):
    """A map of tokens to images.

    Args:
        net: the options.
        channels: of the map.
        shape: of an image.
        cond: shape of the condition.
    """

    def __init__(self, net: ViT, channels: int, shape: tuple[int, ...], cond: Cond) -> None:
        super().__init__()
        cond_width = vector_width(cond)
        self.grid = Grid.of(shape, net.patch)
        self.cond = cond_shape(0 if cond_width else cond)
        self.lift = nn.Linear(channels, net.width)
        self.guide: nn.Linear | None = None
        if self.cond:
            self.cond_grid = Grid((image_shape(self.cond, "vit")[0], *self.grid.shape[1:]), self.grid.patch)
            self.guide = nn.Linear(self.cond_grid.width, net.width)
        self.trunk = Trunk(net, self.grid.size, cond_width)
        self.pixels = nn.Linear(net.width, self.grid.width)

    def forward(self, maps: Sequence[Tensor], c: Tensor | None = None) -> Tensor:
        """Images ``(B, C, H, W)`` from one map and conditions ``(B, *cond)``.

        Raises:
            ConfigError: the number of maps is wrong, or a condition is unexpected, missing or has the wrong shape.
        """
        if len(maps) != 1:
            raise ConfigError(f"This network needs one map but got {len(maps)}.")
        tokens = self.lift(maps[0].flatten(2).transpose(1, 2))
        if self.guide is None:
            check_condition(c, self.trunk.cond)
        else:
            image = resize(needed(c, self.cond).to(tokens.dtype), self.cond_grid.shape[1:])
            tokens = tokens + self.guide(self.cond_grid.cut(image))
        return self.grid.join(self.pixels(self.trunk(tokens, c)))

"""Residual blocks of convolutions, their conditions, and attention over pixels."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sandglass.nets._activation import activation as make_activation
from sandglass.nets._bf16 import GroupNorm
from sandglass.nets.attention import Attention
from sandglass.nets.convolution import Conv2d

_BRANCH = 0.1  # factor of the initial weights of a branch's last layer
_HEAD = 32  # channels of an attention head


@dataclass(frozen=True)
class Style:
    """What the blocks of a network have in common.

    Args:
        blocks: residual blocks for each size.
        norm: ``group`` or ``none``.
        attention: the largest shorter side of a map with self-attention.
        dropout: dropout probability.
        activation: name of the activation.
    """

    blocks: int = 1
    norm: Literal["group", "none"] = "group"
    attention: int = 0
    dropout: float = 0.0
    activation: str = "silu"


class Block(nn.Module):
    """A residual block: normalise, activate, convolve; scale and shift by the condition; activate, convolve.

    Args:
        style: the options.
        a: channels of the input.
        b: channels of the output.
        cond: width of a vector condition, 0 for none.
    """

    def __init__(self, style: Style, a: int, b: int, cond: int = 0) -> None:
        super().__init__()
        self.before, self.first = normalise(style, a), Conv2d(a, b, 3, padding=1)
        self.modulate = nn.Linear(cond, 2 * b) if cond else None
        self.between, self.second = normalise(style, b), Conv2d(b, b, 3, padding=1)
        self.activation, self.drop = make_activation(style.activation), nn.Dropout(style.dropout)
        self.skip = nn.Identity() if a == b else Conv2d(a, b, 1)
        shrink(self.second)
        if isinstance(self.skip, nn.Conv2d):
            preserve(style, self.skip)
        preserve(style, self.first, self.second, activated=True)

    def forward(self, x: Tensor, c: Tensor | None) -> Tensor:
        """``(B, a, h, w) -> (B, b, h, w)`` under the vector ``c`` ``(B, cond)``."""
        h = self.between(self.first(self.activation(self.before(x))))
        if self.modulate is not None:
            scale, shift = self.modulate(c).to(h.dtype)[:, :, None, None].chunk(2, 1)
            h = torch.addcmul(h + shift, h, scale)
        h = self.activation(h)
        return self.skip(x) + self.second(self.drop(h.contiguous()) if self.drop.p else h)


class PixelAttention(nn.Module):
    """Self-attention over the pixels of a map, with a residual connection.

    Args:
        style: the options.
        channels: of the map.
    """

    def __init__(self, style: Style, channels: int) -> None:
        super().__init__()
        heads = max(n for n in range(1, max(1, channels // _HEAD) + 1) if channels % n == 0)
        self.before, self.attention = normalise(style, channels), Attention(channels, heads)
        shrink(self.attention.out)

    def forward(self, x: Tensor) -> Tensor:
        """``(B, C, h, w) -> (B, C, h, w)``."""
        found = self.attention(self.before(x).flatten(2).transpose(1, 2))
        return x + found.transpose(1, 2).unflatten(2, x.shape[2:])


class Blocks(nn.Module):
    """The blocks of one size, with attention after each where the map is small enough.

    Args:
        style: the options.
        a: channels of the input.
        b: channels of the output.
        size: height and width of the map.
        cond: width of a vector condition.
    """

    def __init__(self, style: Style, a: int, b: int, size: tuple[int, int], cond: int) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(Block(style, a if i == 0 else b, b, cond) for i in range(style.blocks))
        attend = min(size) <= style.attention and size != (1, 1)
        self.attention = nn.ModuleList(PixelAttention(style, b) for _ in range(style.blocks)) if attend else None

    def forward(self, x: Tensor, c: Tensor | None) -> Tensor:
        """``(B, a, h, w) -> (B, b, h, w)`` under the vector ``c`` ``(B, cond)``."""
        for i, block in enumerate(self.blocks):
            x = block(x, c)
            if self.attention is not None:
                x = self.attention[i](x)
        return x


class Flattened(nn.Module):
    """The smallest map of an analysis, normalised, activated and flattened.

    Args:
        down: the analysis.
        channels: of that map.
        style: the options.
    """

    def __init__(self, down: nn.Module, channels: int, style: Style) -> None:
        super().__init__()
        self.down, self.norm = down, normalise(style, channels)
        self.activation = make_activation(style.activation)

    def forward(self, x: Tensor, c: Tensor | None = None, mask: Tensor | None = None) -> Tensor:
        """``(B, n)`` of images ``(B, C, H, W)``, conditions ``(B, *cond)`` and masks."""
        return self.activation(self.norm(self.down(x, c, mask)[-1])).flatten(1)


class Cut(nn.Module):
    """Squares of pixels as channels, with the last rows and columns repeated where the square does not divide the size.

    Args:
        side: of a square.
    """

    def __init__(self, side: int) -> None:
        super().__init__()
        self.side = side

    def forward(self, x: Tensor) -> Tensor:
        """``(B, C, H, W) -> (B, C side^2, ceil(H / side), ceil(W / side))``."""
        if self.side == 1:
            return x
        excess = [-n % self.side for n in (x.shape[3], x.shape[2])]
        if any(excess):
            x = F.pad(x, (0, excess[0], 0, excess[1]), mode="replicate")
        return F.pixel_unshuffle(x, self.side)


def normalise(style: Style, channels: int) -> nn.Module:
    """Group normalisation with 4 channels or more a group, or nothing."""
    groups = max(n for n in range(1, max(1, min(32, channels // 4)) + 1) if channels % n == 0)
    return GroupNorm(groups, channels) if style.norm == "group" and channels > 1 else nn.Identity()


def shrink(layer: nn.Conv2d | nn.Linear) -> None:
    """Multiplies initial weights by 0.1, so that a residual branch begins near zero."""
    if not layer.weight.is_meta:
        with torch.no_grad():
            layer.weight.mul_(_BRANCH)


def preserve(style: Style, *layers: nn.Conv2d | nn.Linear, activated: bool = False) -> None:
    """Without normalisation, scales initial weights so that the output of a layer varies as much as its input.

    PyTorch draws weights with a variance of a third of one over the number of inputs. He et al. 2015, "Delving Deep
    into Rectifiers" (arXiv 1502.01852) has three times as much for a linear layer, and six times after a rectifier.

    Args:
        style: the options.
        layers: the layers.
        activated: whether their input comes from an activation.
    """
    for layer in layers:
        if style.norm == "none" and not layer.weight.is_meta:
            with torch.no_grad():
                layer.weight.mul_(math.sqrt(6 if activated else 3))

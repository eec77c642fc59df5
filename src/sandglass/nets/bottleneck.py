"""Residual bottlenecks without normalisation, and the maps of an example at every size that they make."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sandglass.nets._bf16 import doubled, pooled
from sandglass.nets._residual import Cut
from sandglass.nets.conv import Size, halved
from sandglass.nets.convolution import Conv2d
from sandglass.nets.frame import Channels, Cond, Flat, Inputs, cond_shape, needed, resize

_SMALLEST = 4  # pixels of the longer side of the smallest map but that of one pixel
_KERNEL = 3  # pixels of the longer side of a map from which on neighbouring pixels are read


class Bottleneck(nn.Module):
    """Four convolutions, each after a GELU: 1x1 to few channels, two of 3x3 there, 1x1; 1x1 all on the smallest maps.

    Child 2020, "Very Deep VAEs Generalize Autoregressive Models and Can Outperform Them on Images" (arXiv 2011.10650).
    The weights keep the variance of what comes in, apart from ``gain``.

    Args:
        a: channels of the input.
        b: channels of the output.
        middle: channels between.
        size: height and width of the map.
        gain: factor of the initial weights of the last convolution; ``1 / sqrt(n)`` for one of n residual branches.

    Example:
        >>> Bottleneck(6, 4, 2, (5, 7))(torch.zeros(3, 6, 5, 7)).shape
        torch.Size([3, 4, 5, 7])
    """

    def __init__(self, a: int, b: int, middle: int, size: Size, gain: float = 1.0) -> None:
        super().__init__()
        kernel = 3 if max(size) >= _KERNEL else 1
        three = [Conv2d(n, middle, k, padding=k // 2) for n, k in ((a, 1), (middle, kernel), (middle, kernel))]
        layers = [*three, Conv2d(middle, b, 1)]
        self.layers = nn.ModuleList(layers)
        for layer, factor in zip(layers, (1, 1, 1, gain), strict=True):
            if not layer.weight.is_meta:
                with torch.no_grad():
                    layer.weight.mul_(factor * math.sqrt(6))  # PyTorch's variance is a sixth of what keeps it
                    nn.init.zeros_(layer.bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        """``(B, a, h, w) -> (B, b, h, w)``."""
        for layer in self.layers:
            x = layer(F.gelu(x))
        return x


class Pyramid(nn.Module):
    """Residual bottlenecks at every size of an example, averaged down to the next smaller one; returns all maps.

    Args:
        shape: of an example; one that is no image is a map of one pixel.
        sizes: of the maps, the largest first, see :func:`sizes_of`.
        patch: side of the squares of pixels that are the channels of the largest map.
        width: channels of the maps.
        middle: channels within a bottleneck.
        blocks: bottlenecks of each size.
        cond: shape of the condition.

    Example:
        >>> net = Pyramid((3, 9, 7), sizes_of((3, 9, 7)), 1, 8, 2, 1)
        >>> [tuple(h.shape) for h in net(torch.zeros(2, 3, 9, 7))]
        [(2, 8, 9, 7), (2, 8, 5, 4), (2, 8, 3, 2), (2, 8, 1, 1)]
    """

    def __init__(
        self,
        shape: tuple[int, ...],
        sizes: Sequence[Size],
        patch: int,
        width: int,
        middle: int,
        blocks: int,
        cond: Cond = 0,
    ) -> None:
        super().__init__()
        image = len(shape) == 3
        self.inputs: Inputs = Channels(shape, cond) if image else Flat(shape, cond)
        kernel = 3 if image else 1
        self.stem = Conv2d(self.inputs.joined[0] * patch**2, width, kernel, padding=kernel // 2)
        self.cut = Cut(patch)
        gain = 1 / math.sqrt(blocks * len(sizes))
        self.stages = nn.ModuleList(
            nn.ModuleList(Bottleneck(width, width, middle, size, gain) for _ in range(blocks)) for size in sizes
        )
        self.sizes = list(sizes)

    def forward(self, x: Tensor, c: Tensor | None = None) -> list[Tensor]:
        """The maps ``(B, width, *sizes[i])`` of examples ``(B, *shape)`` and conditions ``(B, *cond)``.

        Raises:
            ConfigError: a condition is unexpected or missing, or has the wrong shape.
        """
        h = self.inputs(x, c)
        h = self.stem(self.cut(h if len(self.inputs.shape) == 3 else h.flatten(1)[:, :, None, None]))
        maps: list[Tensor] = []
        for stage, size in zip(self.stages, self.sizes, strict=True):
            if maps:
                h = h.mean((2, 3), keepdim=True) if size == (1, 1) else pooled(h)
            for block in stage:  # type: ignore[attr-defined]
                h = h + block(h)
            maps.append(h)
        return maps


class Guide(nn.Module):
    """A condition as a map of every size.

    Args:
        cond: shape of the condition.
        shape: of an example, to whose size an image condition is resized.
        sizes: of the maps, the largest first.
        patch: as of :class:`Pyramid`.
        width: channels of the maps.
        middle: channels within a bottleneck.

    Example:
        >>> guide = Guide(5, (3, 9, 7), sizes_of((3, 9, 7)), 1, 8, 2)
        >>> [tuple(h.shape) for h in guide(torch.zeros(2, 5))]
        [(2, 8, 1, 1), (2, 8, 1, 1), (2, 8, 1, 1), (2, 8, 1, 1)]
    """

    def __init__(
        self, cond: Cond, shape: tuple[int, ...], sizes: Sequence[Size], patch: int, width: int, middle: int
    ) -> None:
        super().__init__()
        self.cond, self.size = cond_shape(cond), tuple(shape[1:])
        self.pyramid = None
        if len(self.cond) == 3 and len(shape) == 3:
            self.pyramid = Pyramid((self.cond[0], *shape[1:]), sizes, patch, width, middle, 1)
        given = width if self.pyramid is not None else math.prod(self.cond)
        self.each = nn.ModuleList(Conv2d(given, width, 1) for _ in sizes)

    def forward(self, c: Tensor | None) -> list[Tensor]:
        """The maps ``(B, width, h, w)`` of conditions ``(B, *cond)``, of one pixel for a vector.

        Raises:
            ConfigError: the condition is missing or has another shape.
        """
        c = needed(c, self.cond).to(next(self.parameters()).dtype)
        if self.pyramid is None:
            return [layer(c.flatten(1)[:, :, None, None]) for layer in self.each]
        maps = self.pyramid(resize(c, (self.size[0], self.size[1])))
        return [layer(h) for layer, h in zip(self.each, maps, strict=True)]


def sizes_of(shape: tuple[int, ...], patch: int = 1) -> list[Size]:
    """Heights and widths from the largest map down to one pixel, halved and rounded up; one pixel for a row.

    From 4 pixels of the longer side or fewer it goes to one pixel at once.

    Example:
        >>> sizes_of((1, 28, 28)), sizes_of((3, 37, 53), patch=4), sizes_of((6,))
        ([(28, 28), (14, 14), (7, 7), (4, 4), (1, 1)], [(10, 14), (5, 7), (3, 4), (1, 1)], [(1, 1)])
    """
    if len(shape) != 3:
        return [(1, 1)]
    sizes = [(math.ceil(shape[1] / patch), math.ceil(shape[2] / patch))]
    while max(sizes[-1]) > _SMALLEST:
        sizes.append(halved(sizes[-1]))
    return sizes if sizes[-1] == (1, 1) else [*sizes, (1, 1)]


def enlarged(h: Tensor, size: Size) -> Tensor:
    """``(B, C, h, w)`` at the next larger size of :func:`sizes_of`: every pixel as a square, the excess cut off.

    Example:
        >>> enlarged(torch.tensor([[[[1.0, 2.0]]]]), (1, 3))
        tensor([[[[1., 1., 2.]]]])
    """
    return h.expand(-1, -1, *size) if h.shape[2:] == (1, 1) else doubled(h)[..., : size[0], : size[1]]

"""Networks between examples and a map, or a row, of vectors that are to be quantised."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from sandglass.errors import ConfigError
from sandglass.nets.conv import Trim, halved
from sandglass.nets.convolution import Conv2d
from sandglass.nets.frame import FromCode
from sandglass.nets.net import Condition, Maps, Net

_VALUES = 48  # that a code of a map stands for when their number is not given: 7x7 grey pixels, or 4x4 in colour
_FEWEST, _MOST = 4, 64
_IN_A_ROW = 8
_BLOCKS = 2


class CodeMap:
    """A family of networks whose codes are ``n`` vectors of ``dim`` numbers, one after the other.

    Of a family with maps it takes the largest of at most so many places, and puts two residual blocks beside it on
    either side, as in van den Oord et al. 2017 (arXiv 1711.00937, section 4.1); a code then stands for a region of the
    picture. Where even the smallest map of the family has more places, strided convolutions halve it further. Of
    another family the vectors are a row, of no order in space.

    Args:
        net: the family.
        shape: of what the encoder reads.
        codes: how many vectors: at most so many on a map, exactly so many in a row. When not given, on a map one for
            every 48 values of the picture, from 4 to 64; in a row 8.
        dim: of a vector.

    Attributes:
        size: ``(h, w)`` of the map, or ``(n,)``.
        sizes: those of the last map of the family and of its further halvings, of which ``size`` is the last.

    Raises:
        ConfigError: no vectors.

    Example:
        >>> import torch
        >>> from sandglass.nets.conv import Conv
        >>> net = CodeMap(Conv(width=4), (1, 28, 28), None, 3)
        >>> net.size, net.encoder((1, 28, 28), 4 * 4 * 3)(torch.zeros(2, 1, 28, 28)).shape
        ((4, 4), torch.Size([2, 48]))
    """

    def __init__(self, net: Net, shape: tuple[int, ...], codes: int | None, dim: int) -> None:
        if codes is not None and codes < 1:
            raise ConfigError(f"An example needs codes >= 1, not {codes}.")
        self.net, self.dim, self.level = net, dim, 0
        self.maps: Maps | None = net if isinstance(net, Maps) and len(shape) == 3 else None
        self.size: tuple[int, ...] = (codes or _IN_A_ROW,)
        if self.maps is not None:
            shapes: Sequence[tuple[int, ...]] = self.maps.analysis(shape).shapes  # type: ignore[assignment]
            most = codes or places_for(shape)
            fit = [i for i, (_, h, w) in enumerate(shapes) if h * w <= most]
            self.level = fit[0] if fit else len(shapes) - 1
            self.width, *size = shapes[self.level]
            self.last, self.sizes = self.level == len(shapes) - 1, [(size[0], size[1])]
            while math.prod(self.sizes[-1]) > most:
                self.sizes.append(halved(self.sizes[-1]))
            self.size = self.sizes[-1]

    def encoder(self, shape: tuple[int, ...], out: int, *, cond: Condition = 0, masked: bool = False) -> nn.Module:
        """``(B, *shape)`` to ``(B, n * dim)``, the vectors one after the other."""
        if self.maps is None:
            return self.net.encoder(shape, out, cond=cond, masked=masked)
        head = nn.Sequential(*self._end(), Conv2d(self.width, self.dim, 1))
        return LastMap(self._analysis(shape, cond), head, flat=True)

    def features(self, shape: tuple[int, ...]) -> nn.Module:
        """``(B, *shape)`` to the map ``(B, width, h, w)`` that the vectors are made of; only of a family with maps."""
        return LastMap(self._analysis(shape, 0), nn.Sequential(*self._end()))

    def decoder(self, dim: int, shape: tuple[int, ...], *, cond: Condition = 0) -> nn.Module:
        """``(B, n * dim)`` to ``(B, *shape)``."""
        if self.maps is None:
            return self.net.decoder(dim, shape, cond=cond)
        begin = Conv2d(self.dim, self.width, 3, padding=1)
        stem = nn.Sequential(FromVectors(self.size, self.dim), begin, *blocks(self.width), *self.rise())
        return self.synthesised(stem, shape, cond)

    def rise(self) -> list[nn.Module]:
        """Layers from the map of the vectors to the last one of the family."""
        return [layer for size in reversed(self.sizes[:-1]) for layer in up(self.width, size)]

    def synthesised(self, stem: nn.Module, shape: tuple[int, ...], cond: Condition) -> nn.Module:
        """A decoder of codes whose stem makes the last map of the family."""
        assert self.maps is not None
        return FromCode(stem, self.maps.synthesis([(self.width, *self.sizes[0])], shape, cond=cond))

    def _analysis(self, shape: tuple[int, ...], cond: Condition) -> nn.Module:
        assert self.maps is not None
        analysis: Any = self.maps.analysis(shape, cond=cond)
        found: nn.Module = analysis if self.last else analysis.first(self.level + 1)
        return found

    def _end(self) -> list[nn.Module]:
        further = [layer for _ in self.sizes[1:] for layer in down(self.width)]
        return [*further, *blocks(self.width), nn.ReLU()]


def places_for(shape: tuple[int, ...]) -> int:
    """Codes of a picture ``(C, H, W)`` when their number is not given: at most so many.

    Example:
        >>> [places_for(shape) for shape in ((1, 8, 8), (1, 28, 28), (3, 32, 32), (3, 96, 96))]
        [4, 16, 64, 64]
    """
    return min(max(math.prod(shape) // _VALUES, _FEWEST), _MOST)


def down(width: int) -> list[nn.Module]:
    """Layers to a map of half the height and width."""
    return [nn.SiLU(), Conv2d(width, width, 3, stride=2, padding=1)]


def up(width: int, size: tuple[int, int]) -> list[nn.Module]:
    """Layers to a map of twice the height and width, cut to a size."""
    return [nn.SiLU(), nn.ConvTranspose2d(width, width, 4, stride=2, padding=1), Trim(*size)]


def blocks(width: int) -> list[nn.Module]:
    """Residual blocks."""
    return [ResidualBlock(width) for _ in range(_BLOCKS)]


class ResidualBlock(nn.Module):
    """A 3x3 convolution and a 1x1 one, each after a ReLU, whose result is added.

    Args:
        width: channels.
        activation: in the place of the ReLU.

    Example:
        >>> import torch
        >>> ResidualBlock(4)(torch.zeros(2, 4, 3, 5)).shape
        torch.Size([2, 4, 3, 5])
    """

    def __init__(self, width: int, activation: Callable[[Tensor], Tensor] = F.relu) -> None:
        super().__init__()
        self.region, self.place = Conv2d(width, width, 3, padding=1), Conv2d(width, width, 1)
        self.activation = activation

    def forward(self, x: Tensor) -> Tensor:
        """``(B, C, h, w) -> (B, C, h, w)``."""
        return x + self.place(self.activation(self.region(self.activation(x))))


class LastMap(nn.Module):
    """The last map of an analysis, and layers after it.

    Args:
        analysis: pictures, and a condition, to maps.
        head: the last of them to ``(B, dim, h, w)``.
        flat: whether it is given as vectors, row by row and one after the other.
    """

    def __init__(self, analysis: nn.Module, head: nn.Module, *, flat: bool = False) -> None:
        super().__init__()
        self.body, self.head, self.flat = analysis, head, flat

    def forward(self, x: Tensor, c: Tensor | None = None) -> Tensor:
        """``(B, C, H, W)`` to ``(B, dim, h, w)``, or to ``(B, h * w * dim)``."""
        maps = self.body(x) if c is None else self.body(x, c)
        found: Tensor = self.head(maps[-1])
        return found.flatten(2).transpose(1, 2).flatten(1) if self.flat else found


class FromVectors(nn.Module):
    """Vectors, row by row, as a map.

    Args:
        size: ``(h, w)``.
        dim: of a vector.

    Example:
        >>> import torch
        >>> FromVectors((2, 3), 4)(torch.zeros(5, 24)).shape
        torch.Size([5, 4, 2, 3])
    """

    def __init__(self, size: tuple[int, ...], dim: int) -> None:
        super().__init__()
        self.size, self.dim, self.count = size, dim, math.prod(size)

    def forward(self, z: Tensor) -> Tensor:
        """``(B, h * w * dim)`` to ``(B, dim, h, w)``."""
        return z.unflatten(1, (self.count, self.dim)).transpose(1, 2).unflatten(2, self.size)

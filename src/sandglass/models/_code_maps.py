"""Networks between examples and several maps of vectors, each half as high and wide as the next."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sandglass.errors import ConfigError
from sandglass.models._code_map import CodeMap, FromVectors, ResidualBlock, blocks, down, up
from sandglass.models._code_prior import plane_of
from sandglass.nets.conv import halved
from sandglass.nets.convolution import Conv2d
from sandglass.nets.net import Condition, Net

_WIDTH = 32  # channels of the maps of a family without any, which are rows


class CodeMaps:
    """A family of networks whose codes are the vectors of several maps, those of the top first.

    The bottom map is that of a :class:`~sandglass.models._code_map.CodeMap`; each further one has half its height and
    width. Razavi, van den Oord and Vinyals 2019, "Generating Diverse High-Fidelity Images with VQ-VAE-2" (arXiv
    1906.00446), figure 2: what the encoder makes of a level reads the quantised vectors of those above, and the decoder
    reads the vectors of all.

    Args:
        net: the family.
        shape: of what the encoder reads.
        codes: vectors of the bottom map, as of a ``CodeMap``.
        dims: of a vector, by level from the top.

    Attributes:
        sizes: ``(h, w)`` or ``(n,)`` of each level, from the top.

    Raises:
        ConfigError: more maps than the bottom can be halved.

    Example:
        >>> from sandglass.nets.conv import Conv
        >>> maps = CodeMaps(Conv(width=4), (1, 28, 28), None, (3, 2))
        >>> maps.sizes, [f.shape[1:] for f in maps.encoder((1, 28, 28))(torch.zeros(5, 1, 28, 28))]
        ([(2, 2), (4, 4)], [torch.Size([16, 2, 2]), torch.Size([16, 4, 4])])
        >>> maps.decoder(4 * 3 + 16 * 2, (1, 28, 28))(torch.zeros(5, 44)).shape
        torch.Size([5, 1, 28, 28])
    """

    def __init__(self, net: Net, shape: tuple[int, ...], codes: int | None, dims: Sequence[int]) -> None:
        self.net, self.dims = net, tuple(dims)
        self.bottom = CodeMap(net, shape, codes, dims[-1])
        self.width = self.bottom.width if self.bottom.maps is not None else _WIDTH
        self.planes = [plane_of(self.bottom.size)]
        for _ in dims[1:]:
            if self.planes[0] == (1, 1):
                size = "x".join(map(str, self.bottom.size))
                raise ConfigError(
                    f"With {size} codes at the bottom there can be {len(self.planes)} maps, each of half the height "
                    f"and width of the next, and not {len(dims)}: take fewer maps, or more codes."
                )
            self.planes.insert(0, halved(self.planes[0]))
        self.sizes = [size if self.bottom.maps is not None else size[1:] for size in self.planes]

    def encoder(self, shape: tuple[int, ...]) -> Pyramid:
        """``(B, *shape)`` to the features of each level, from the top."""
        if self.bottom.maps is not None:
            return Pyramid(self.bottom.features(shape), self.width, self.planes, self.dims)
        row = self.net.encoder(shape, self.width * self.planes[-1][1])
        body = nn.Sequential(row, nn.Unflatten(1, (self.width, *self.planes[-1])))
        return Pyramid(body, self.width, self.planes, self.dims)

    def decoder(self, dim: int, shape: tuple[int, ...], *, cond: Condition = 0) -> nn.Module:
        """``(B, dim)``, the vectors of all levels one after the other, to ``(B, *shape)``."""
        joined = Joined(self.width, self.planes, self.dims)
        if self.bottom.maps is not None:
            return self.bottom.synthesised(nn.Sequential(joined, *self.bottom.rise()), shape, cond)
        return OfRows(joined, self.net.decoder(self.width * self.planes[-1][1], shape, cond=cond))


class Descent(nn.Module):
    """From the vectors of levels to maps of the size of the next level, the top first.

    Args:
        width: channels of a map.
        planes: heights and widths, from the top.
        dims: of a vector.
        last: whether it goes on from the bottom, too, whose map keeps its size.
    """

    def __init__(
        self, width: int, planes: Sequence[tuple[int, int]], dims: Sequence[int], *, last: bool = True
    ) -> None:
        super().__init__()
        self.read, self.steps = nn.ModuleList(), nn.ModuleList()
        for i, dim in enumerate(dims if last else dims[:-1]):
            self.read.append(FromVectors(planes[i], dim))
            first = Conv2d(dim + (width if i else 0), width, 3, padding=1)
            rise = up(width, planes[i + 1]) if i + 1 < len(planes) else []
            self.steps.append(nn.Sequential(first, *blocks(width), *rise))

    def forward(self, i: int, vectors: Tensor, above: Tensor | None) -> Tensor:
        """The map ``(B, width, h, w)`` of the next level from the vectors ``(B, n * dim)`` of one and those above."""
        own: Tensor = self.read[i](vectors)
        found: Tensor = self.steps[i](own if above is None else torch.cat([own, above.to(own.dtype)], 1))
        return found


class Pyramid(nn.Module):
    """The features of every level, and the vectors of a level from its features and the levels above.

    Args:
        body: examples to the features of the bottom.
        width: channels of a map.
        planes: heights and widths, from the top.
        dims: of a vector.
    """

    def __init__(self, body: nn.Module, width: int, planes: Sequence[tuple[int, int]], dims: Sequence[int]) -> None:
        super().__init__()
        self.body = body
        self.down = nn.ModuleList(nn.Sequential(*down(width), *_smooth(width)) for _ in planes[1:])
        self.heads = nn.ModuleList(Conv2d(width * (1 + bool(i)), dim, 1) for i, dim in enumerate(dims))
        self.descent = Descent(width, planes, dims, last=False)

    def forward(self, x: Tensor) -> list[Tensor]:
        """``(B, width, h, w)`` of each level, from the top."""
        found = [self.body(x)]
        for layers in self.down:
            found.insert(0, layers(found[0]))
        return found

    def vectors(self, i: int, features: Tensor, above: Tensor | None) -> Tensor:
        """``(B, n, dim)`` of a level, before they are quantised."""
        read = features if above is None else torch.cat([features, above.to(features.dtype)], 1)
        return self.heads[i](read).flatten(2).transpose(1, 2)


def _smooth(width: int) -> list[nn.Module]:
    """Residual blocks without ReLUs, all of whose inputs can be negative where a map has one place."""
    return [ResidualBlock(width, F.silu), ResidualBlock(width, F.silu), nn.SiLU()]


class Joined(nn.Module):
    """The vectors of all levels as one map of the size of the bottom.

    Args:
        width: channels of the map.
        planes: heights and widths, from the top.
        dims: of a vector.
    """

    def __init__(self, width: int, planes: Sequence[tuple[int, int]], dims: Sequence[int]) -> None:
        super().__init__()
        self.descent = Descent(width, planes, dims)
        self.parts = [math.prod(plane) * dim for plane, dim in zip(planes, dims, strict=True)]

    def forward(self, z: Tensor) -> Tensor:
        """``(B, D)`` to ``(B, width, h, w)``."""
        found: Tensor | None = None
        for i, part in enumerate(z.split(self.parts, 1)):
            found = self.descent(i, part, found)
        assert found is not None
        return found


class OfRows(nn.Module):
    """A decoder of a family without maps, from vectors of levels.

    Args:
        joined: the vectors of all levels to one map.
        decoder: of the map, flattened.
    """

    def __init__(self, joined: nn.Module, decoder: nn.Module) -> None:
        super().__init__()
        self.joined, self.decoder = joined, decoder

    def forward(self, z: Tensor, c: Tensor | None = None) -> Tensor:
        """``(B, D)`` and conditions to ``(B, *shape)``."""
        flat = self.joined(z).flatten(1)
        found: Tensor = self.decoder(flat) if c is None else self.decoder(flat, c)
        return found

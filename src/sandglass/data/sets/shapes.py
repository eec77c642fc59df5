"""Squares, ellipses and hearts with known generative factors, for measuring disentanglement."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch

from sandglass.data.sets._options import whole
from sandglass.data.sources.raw import Part, Raw
from sandglass.data.transform import ImageTransform
from sandglass.errors import ConfigError
from sandglass.registry import register

Plane = np.ndarray[tuple[int, ...], np.dtype[np.float64]]

FACTORS = ("shape", "scale", "rotation", "x", "y")
_RADIUS = 0.3  # radius of the disc around the largest shape, as a fraction of the side
_LARGEST = 2**31  # largest number of pixels in the dataset


def _square(u: Plane, v: Plane) -> np.ndarray:
    return np.maximum(abs(u), abs(v)) <= 0.7


def _ellipse(u: Plane, v: Plane) -> np.ndarray:
    return u**2 + (2 * v) ** 2 <= 1


def _heart(u: Plane, v: Plane) -> np.ndarray:
    u, v = 1.395 * u, 0.552 - 1.395 * v  # upright, its centre of mass at the origin, its tip at the edge of the disc
    return (u / 1.15) ** 2 + (v - 0.8 * np.sqrt(abs(u) + 0.04)) ** 2 <= 1


# Each shape as an indicator function on the unit disc, and its period of rotational symmetry.
_SHAPES: dict[str, tuple[Callable[[Plane, Plane], np.ndarray], float]] = {
    "square": (_square, math.pi / 2),
    "ellipse": (_ellipse, math.pi),
    "heart": (_heart, 2 * math.pi),
}


@register("shapes", kind="dataset")
class Shapes:
    """A square, ellipse or heart, white on black, in every combination of five known factors; needs no download.

    After dSprites (L. Matthey, I. Higgins, D. Hassabis and A. Lerchner, 2017). Every combination occurs once. The
    rotations of a shape are spaced over its period of symmetry, so that no two pictures are the same (with few pixels
    or many positions some can be; the notes count them). A pixel is white if its centre lies inside the shape. The
    label is the shape.

    ``factors`` of a split holds, for each picture, the indices of its shape, scale, rotation, x and y, from 0.

    Args:
        side: height and width in pixels.
        scales: number of sizes, evenly spaced from half the largest to the largest, whose radius is 0.3 of ``side``.
        rotations: number of angles.
        positions: number of positions of the centre along each axis, evenly spaced so that the largest shape stays
            inside the picture.

    Raises:
        ConfigError: an invalid value.

    Example:
        >>> raw = Shapes(side=16, scales=2, rotations=3, positions=4).read()
        >>> raw.parts["train"].x.shape, raw.factors
        (torch.Size([288, 1, 16, 16]), ('shape', 'scale', 'rotation', 'x', 'y'))
        >>> raw.parts["train"].factors[-1]
        tensor([2, 1, 2, 3, 3])
    """

    size = "13,824"
    shape = (1, 32, 32)
    licence = "Apache-2.0"
    origin = "made by Sandglass, after dSprites"

    def __init__(self, *, side: int = 32, scales: int = 4, rotations: int = 8, positions: int = 12) -> None:
        self.side = whole("shapes", "side", side, 8)
        self.counts = (
            len(_SHAPES),
            whole("shapes", "scales", scales, 1),
            whole("shapes", "rotations", rotations, 1),
            whole("shapes", "positions", positions, 1),
            positions,
        )
        if math.prod(self.counts) * side**2 > _LARGEST:
            raise ConfigError(
                f"shapes: {math.prod(self.counts):,} pictures of {side}x{side} are too many; choose smaller values."
            )

    def read(self) -> Raw:
        """All pictures as one split, ordered by their factors, the last varying fastest."""
        scales = np.linspace(0.5, 1, self.counts[1]) if self.counts[1] > 1 else np.ones(1)
        places = np.linspace(_RADIUS, 1 - _RADIUS, self.counts[3]) if self.counts[3] > 1 else np.full(1, 0.5)
        pixels = (np.arange(self.side) + 0.5) / self.side
        # Offsets of every pixel centre from every position, in units of the largest shape's radius.
        away = (pixels - places[:, None]) / _RADIUS
        dx, dy = away[:, None, None, :], away[None, :, :, None]
        x = np.empty((*self.counts, self.side, self.side), np.uint8)
        for i, (inside, period) in enumerate(_SHAPES.values()):
            for j, scale in enumerate(scales):
                for k in range(self.counts[2]):
                    angle = period * k / self.counts[2]
                    cos, sin = math.cos(angle) / scale, math.sin(angle) / scale
                    x[i, j, k] = inside(cos * dx + sin * dy, cos * dy - sin * dx)
        factors = np.indices(self.counts).reshape(5, -1).T
        part = Part(
            torch.from_numpy(x.reshape(-1, 1, self.side, self.side)),
            torch.from_numpy(factors[:, 0].copy()),
            factors=torch.from_numpy(factors.copy()),
        )
        transform = ImageTransform((self.side, self.side), 1, levels=2)
        return Raw({"train": part}, transform, classes=tuple(_SHAPES), factors=FACTORS)

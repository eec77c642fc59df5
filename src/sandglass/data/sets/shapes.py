"""Squares, ellipses and hearts whose making is known: what a code has to find again."""

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
_RADIUS = 0.3  # of the disc around the largest shape, in sides of the picture
_LARGEST = 2**31  # pixels of the whole set


def _square(u: Plane, v: Plane) -> np.ndarray:
    return np.maximum(abs(u), abs(v)) <= 0.7


def _ellipse(u: Plane, v: Plane) -> np.ndarray:
    return u**2 + (2 * v) ** 2 <= 1


def _heart(u: Plane, v: Plane) -> np.ndarray:
    u, v = 1.395 * u, 0.552 - 1.395 * v  # upright, its centre of mass at the origin, its tip at the edge of the disc
    return (u / 1.15) ** 2 + (v - 0.8 * np.sqrt(abs(u) + 0.04)) ** 2 <= 1


# Each shape as a function of the plane, inside the unit disc, and the angle after which it looks the same again.
_SHAPES: dict[str, tuple[Callable[[Plane, Plane], np.ndarray], float]] = {
    "square": (_square, math.pi / 2),
    "ellipse": (_ellipse, math.pi),
    "heart": (_heart, 2 * math.pi),
}


@register("shapes", kind="dataset")
class Shapes:
    """A square, ellipse or heart, white on black, in every combination of five known factors; needs no download.

    After dSprites (L. Matthey, I. Higgins, D. Hassabis and A. Lerchner, 2017). Every combination occurs once: the
    rotations of a shape are spread over the angle after which it looks the same, so that no two are one picture (with
    few pixels or many positions some can be; the notes count them). A pixel is white where its centre lies inside,
    black elsewhere. The label is the shape.

    ``factors`` of a split holds, for each picture, the numbers of its shape, scale, rotation, x and y, from 0.

    Args:
        side: height and width in pixels.
        scales: sizes, evenly from half the largest to the largest, which reaches 0.3 of ``side`` from its centre.
        rotations: angles.
        positions: places of the centre in each direction, evenly from where the largest touches one edge to where it
            touches the other.

    Raises:
        ConfigError: a value that makes no sense.

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
                f"shapes: {math.prod(self.counts):,} pictures of {side}x{side} are too many; ask for less."
            )

    def read(self) -> Raw:
        """All pictures as one split, ordered by their factors, the last the fastest."""
        scales = np.linspace(0.5, 1, self.counts[1]) if self.counts[1] > 1 else np.ones(1)
        places = np.linspace(_RADIUS, 1 - _RADIUS, self.counts[3]) if self.counts[3] > 1 else np.full(1, 0.5)
        pixels = (np.arange(self.side) + 0.5) / self.side
        # From every position to the centre of every pixel, in units of the largest shape's radius.
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

"""Image grids of a report: sharp on every screen, with transparent gaps, as files and as data URIs."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from sandglass.data.pixels import Pixels, enlarge, grid, png


def with_alpha(images: Pixels) -> Pixels:
    """``(..., C)`` with an opaque alpha channel, if there is none."""
    if images.shape[-1] in (2, 4):
        return images
    return np.concatenate([images, np.full_like(images[..., :1], 255)], axis=-1)


@dataclass(frozen=True)
class Mosaic:
    """A finished image grid.

    Args:
        name: file name without ``.png``.
        alt: alternative text.
        pixels: ``(H, W, C)``.
        width: maximum width on the page, in CSS pixels.
    """

    name: str
    alt: str
    pixels: Pixels
    width: int

    @property
    def height(self) -> int:
        """Height on the page, in CSS pixels."""
        return round(self.width * self.pixels.shape[0] / self.pixels.shape[1])

    @cached_property
    def file(self) -> bytes:
        """The PNG file."""
        return png(self.pixels)

    @property
    def figure(self) -> Any:
        """The grid as a figure of matplotlib."""
        from matplotlib.figure import Figure
        from PIL import Image

        with Image.open(io.BytesIO(self.file)) as image:
            pixels = np.asarray(image.convert("RGBA"))
        figure = Figure(figsize=(self.width / 72, self.height / 72), layout="constrained")
        axes = figure.add_subplot()
        axes.imshow(pixels)
        axes.set_axis_off()
        return figure

    @property
    def uri(self) -> str:
        """The PNG file as a data URI."""
        return "data:image/png;base64," + base64.b64encode(self.file).decode()


def mosaic(name: str, alt: str, images: Pixels, columns: int, *, width: int, pad: int = 4) -> Mosaic:
    """A grid with transparent gaps and images enlarged by an integer factor.

    Args:
        name: file name.
        alt: alternative text.
        images: ``(N, H, W, C)``.
        columns: images per row.
        width: on the page, in CSS pixels.
        pad: gap between images, in pixels of the file.
    """
    times = fitting(images.shape[2], columns, width, pad)
    pixels = grid(with_alpha(enlarge(images, times)), columns, pad, background=0)
    pixels = pixels[pad : len(pixels) - pad, pad : pixels.shape[1] - pad] if pad else pixels
    return Mosaic(name, alt, pixels, width)


def fitting(size: int, columns: int, width: int, pad: int) -> int:
    """Factor to enlarge images ``size`` pixels wide, so that ``columns`` of them are about twice ``width`` wide.

    Twice, so that images are sharp on high-resolution screens and only ever scaled down on others.
    """
    return max(1, int((2 * width / columns - pad) / size + 0.5))

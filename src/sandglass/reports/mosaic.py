"""Image grids with exact pixels, without a plotting library, for any height, width and number of channels."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt
from torch import Tensor

from sandglass.data.transform import Transform
from sandglass.errors import SaveError

Pixels = npt.NDArray[np.uint8]

_MODES = {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}


def to_images(x: Tensor, transform: Transform) -> Pixels:
    """Examples as pixels, by the inverse of their transform.

    Standardised arrays that are not images are shown from -3 (black) to 3 standard deviations (white), the same for
    originals and reconstructions; with two or more than four channels, only the first channel is shown.

    Args:
        x: ``(N, C, H, W)`` examples in the scale of the model.
        transform: of the run.

    Returns:
        ``(N, H, W, C)`` with 1, 3 or 4 channels.

    Example:
        >>> import torch
        >>> from sandglass.data.transform import ImageTransform
        >>> to_images(torch.rand(2, 1, 28, 20), ImageTransform((28, 20), 1)).shape
        (2, 28, 20, 1)
    """
    x = x.detach().cpu()
    if transform.kind != "image":
        unit = np.clip(x.double().numpy() / 6 + 0.5, 0, 1)
        array: Pixels = np.moveaxis(np.round(unit * 255).astype(np.uint8), 1, -1)
        return array if array.shape[-1] in (1, 3, 4) else array[..., :1]
    images: Pixels = np.asarray(transform.inverse(x))
    return images[..., None] if images.ndim == 3 else images


def grid(images: Pixels, columns: int, pad: int = 2, background: int = 255) -> Pixels:
    """Images in rows of ``columns``, with ``pad`` pixels of background between and around them.

    Args:
        images: ``(N, H, W, C)``.
        columns: images per row; an incomplete last row is filled with background.
        pad: padding in pixels.
        background: value of every channel of the background; 0 is transparent for images with alpha.

    Returns:
        ``(rows * (H + pad) + pad, columns * (W + pad) + pad, C)``.

    Example:
        >>> grid(np.zeros((5, 8, 6, 1), np.uint8), columns=3).shape
        (22, 26, 1)
    """
    n, height, width, channels = images.shape
    rows = -(-n // columns)
    canvas = np.full((rows * (height + pad) + pad, columns * (width + pad) + pad, channels), background, np.uint8)
    for k, image in enumerate(images):
        top, left = (
            place * (size + pad) + pad for place, size in zip(divmod(k, columns), (height, width), strict=True)
        )
        canvas[top : top + height, left : left + width] = image
    return canvas


def enlarge(images: Pixels, times: int) -> Pixels:
    """``(N, H, W, C)`` enlarged by an integer factor with nearest-neighbour interpolation."""
    return images.repeat(times, axis=1).repeat(times, axis=2)


def with_alpha(images: Pixels) -> Pixels:
    """``(..., C)`` with an opaque alpha channel, if there is none."""
    if images.shape[-1] in (2, 4):
        return images
    return np.concatenate([images, np.full_like(images[..., :1], 255)], axis=-1)


def png(array: Pixels) -> bytes:
    """``(H, W, C)`` as a PNG file: grey, grey with alpha, RGB or RGBA, depending on the number of channels."""
    from PIL import Image

    height, width, channels = array.shape
    image = Image.frombytes(_MODES[channels], (width, height), np.ascontiguousarray(array).tobytes())
    buffer = io.BytesIO()
    image.save(buffer, format="PNG")
    return buffer.getvalue()


def make_folder(path: Path) -> None:
    """Creates a folder and its parents, unless it exists.

    Raises:
        SaveError: the folder could not be created.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SaveError(f"The folder {path} could not be created: {error.strerror}.") from error


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

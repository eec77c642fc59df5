"""Examples as pixels, and image grids with exact pixels, for any height, width and number of channels."""

from __future__ import annotations

import io

import numpy as np
import numpy.typing as npt
from torch import Tensor

from sandglass.data.transform import ImageTransform, Transform

Pixels = npt.NDArray[np.uint8]

_MODES = {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}


def to_images(x: Tensor, transform: Transform) -> Pixels:
    """Examples as pixels, by their transform.

    Standardised arrays that are not images are shown from -3 (black) to 3 standard deviations (white), the same for
    originals and reconstructions. Of two channels the first is shown, of more than four the first three; see
    :func:`what_is_shown`.

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
        >>> to_images(torch.rand(2, 5, 28, 20), ImageTransform((28, 20), 5)).shape
        (2, 28, 20, 3)
    """
    x = x.detach().cpu()
    if isinstance(transform, ImageTransform):
        images: Pixels = np.asarray(transform.pictures(x))
        images = images[..., None] if images.ndim == 3 else images
    else:
        unit = np.clip(x.double().numpy() / 6 + 0.5, 0, 1)
        images = np.moveaxis(np.round(unit * 255).astype(np.uint8), 1, -1)
    return images[..., : _shown(images.shape[-1])]


def _shown(channels: int) -> int:
    """How many channels a picture shows."""
    return channels if channels in (1, 3, 4) else 1 if channels == 2 else 3


def what_is_shown(transform: Transform) -> str:
    """What pictures of an array show, where they cannot show all of it; else empty.

    Example:
        >>> from sandglass.data.transform import ArrayTransform, ImageTransform
        >>> what_is_shown(ImageTransform((28, 20), 5)), what_is_shown(ImageTransform((28, 20), 2))
        ('channels 1 to 3 of 5', 'channel 1 of 2')
        >>> what_is_shown(ArrayTransform((1, 28, 20)))
        'black and white 3 standard deviations below and above the mean'
    """
    spec = transform.spec()
    if not spec.is_image:
        return ""
    channels = spec.shape[0]
    shown = _shown(channels)
    of = "" if shown == channels else f"channel 1 of {channels}" if shown == 1 else f"channels 1 to 3 of {channels}"
    grey = "black and white 3 standard deviations below and above the mean" if spec.support == "real" else ""
    return "; ".join(filter(None, (of, grey)))


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


def png(array: Pixels) -> bytes:
    """``(H, W, C)`` as a PNG file: grey, grey with alpha, RGB or RGBA, depending on the number of channels."""
    from PIL import Image

    height, width, channels = array.shape
    image = Image.frombytes(_MODES[channels], (width, height), np.ascontiguousarray(array).tobytes())
    buffer = io.BytesIO()
    image.save(buffer, format="PNG")
    return buffer.getvalue()

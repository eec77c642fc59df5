"""Converts a decoded picture to the channels, size and values of the model input.

NumPy is imported only where needed: most pictures do not need it, and a worker process starts in half the time without
it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from sandglass.data.sources import images
from sandglass.errors import DataError

if TYPE_CHECKING:
    import numpy as np
    from PIL.Image import Image

_SMALL = 2**14  # bytes of a picture up to which slicing is as fast as NumPy


HALVES = {"left": "right", "right": "left", "top": "bottom", "bottom": "top"}
"""The halves of a file with two pictures side by side, each with the opposite half."""


def half_size(size: tuple[int, int], half: str) -> tuple[int, int]:
    """Height and width of half a picture; of the whole for an empty string.

    Example:
        >>> half_size((64, 128), "left"), half_size((64, 128), "")
        ((64, 64), (64, 128))
    """
    height, width = size
    return (height // 2, width) if half in ("top", "bottom") else (height, width // 2) if half else size


def halved(image: Image, half: str) -> tuple[Image, frozenset[str]]:
    """Half a picture, and a remark if the side is odd, so that the middle line is dropped.

    Raises:
        DataError: the side is a single pixel.
    """
    height, width = half_size((image.height, image.width), half)
    if not height * width:
        raise DataError(f"a picture of {image.height}x{image.width} cannot be halved")
    left, top = image.width - width if half == "right" else 0, image.height - height if half == "bottom" else 0
    odd = (image.width if half in ("left", "right") else image.height) % 2
    remarks = frozenset({"odd side, the middle line was dropped"} if odd else ())
    return image.crop((left, top, left + width, top + height)), remarks


def to_channels(image: Image, channels: int, background: tuple[int, int, int]) -> tuple[Image, bool]:
    """Converts a normalised picture to 1, 3 or 4 channels; also returns whether it was composited on the background."""
    module = images.pillow()
    if channels == 4:
        return (image if image.mode == "RGBA" else image.convert("RGBA")), False
    composited = image.mode in ("LA", "RGBA")
    if composited:
        image = image.convert("RGBA")
        image = module.alpha_composite(module.new("RGBA", image.size, (*background, 255)), image)
    mode = "L" if channels == 1 else "RGB"
    return (image if image.mode == mode else image.convert(mode)), composited


class Frame(Protocol):
    """A target format; see :class:`~sandglass.data.transform.ImageTransform` for the attributes."""

    @property
    def size(self) -> tuple[int, int]: ...  # noqa: D102
    @property
    def channels(self) -> int: ...  # noqa: D102
    @property
    def fit(self) -> str: ...  # noqa: D102
    @property
    def levels(self) -> int: ...  # noqa: D102
    @property
    def background(self) -> tuple[int, int, int]: ...  # noqa: D102
    @property
    def continuous(self) -> bool: ...  # noqa: D102
    @property
    def value_range(self) -> tuple[float, float] | None: ...  # noqa: D102


def framed(image: Image, done: frozenset[str], frame: Frame) -> tuple[Image, frozenset[str]]:
    """Converts the result of :func:`sandglass.data.sources.images.load` to the frame's size and channels."""
    image, composited = to_channels(image, frame.channels, frame.background)
    if composited:
        done = done | {"transparency composited on the background"}
    if image.size != (frame.size[1], frame.size[0]):
        verb = {"crop": "cropped", "pad": "padded", "stretch": "stretched"}[frame.fit]
        done = done | {f"{verb} to {frame.size[0]}x{frame.size[1]}"}
    return resize(image, frame.size, frame.fit, frame.background), done


def kept(image: Image, frame: Frame) -> bytes:
    """The stored values ``(C, H, W)`` of a framed picture, in row-major order; see :func:`quantised`."""
    if frame.levels == 256 and not frame.continuous:
        data, channels = image.tobytes(), frame.channels
        if channels == 1:
            return data
        if len(data) <= _SMALL:
            return b"".join([data[channel::channels] for channel in range(channels)])
    return quantised(planes(image), frame).tobytes()


def planes(image: Image) -> np.ndarray[Any, Any]:
    """``(C, H, W)`` bytes from 0 to 255 of a framed picture."""
    import numpy as np

    array = np.frombuffer(image.tobytes(), np.uint8).reshape(image.height, image.width, -1)
    return array.transpose(2, 0, 1)


def quantised(array: np.ndarray[Any, Any], frame: Frame) -> np.ndarray[Any, Any]:
    """Converts bytes from 0 to 255 to stored values: uint8 levels, or float32 in [0, 1] if ``frame.continuous``."""
    import numpy as np

    if frame.continuous:
        return array.astype(np.float32) / np.float32(255)
    if frame.levels == 256:
        return array
    return np.round(array * ((frame.levels - 1) / 255)).astype(np.uint8)


def resize(image: Image, size: tuple[int, int], fit: str, background: tuple[int, int, int]) -> Image:
    """Resizes a picture to ``size`` (H, W); one that has that size is returned unchanged.

    Args:
        image: a picture of mode L, RGB or RGBA.
        size: height and width in pixels.
        fit: ``"crop"`` keeps the aspect ratio and crops the centre; ``"pad"`` keeps it and pads with the background;
            ``"stretch"`` does not keep it.
        background: red, green and blue of the padding, 0 to 255.

    Example:
        >>> resize(images.pillow().new("L", (40, 20)), (8, 8), "pad", (255, 255, 255)).size
        (8, 8)
    """
    height, width = size
    if image.size == (width, height):
        return image
    module = images.pillow()
    lanczos = module.Resampling.LANCZOS
    ratios = width / image.width, height / image.height
    if fit == "stretch":
        return image.resize((width, height), lanczos, reducing_gap=3.0)
    if fit == "crop":
        ratio = max(ratios)
        w, h = min(width / ratio, image.width), min(height / ratio, image.height)
        left, top = (image.width - w) / 2, (image.height - h) / 2
        return image.resize((width, height), lanczos, box=(left, top, left + w, top + h), reducing_gap=3.0)
    ratio = min(ratios)
    w, h = max(1, min(width, round(image.width * ratio))), max(1, min(height, round(image.height * ratio)))
    colour = module.new("RGB", (1, 1), background).convert(image.mode).getpixel((0, 0))
    canvas: Image = module.new(image.mode, (width, height), colour)
    canvas.paste(image.resize((w, h), lanczos, reducing_gap=3.0), ((width - w) // 2, (height - h) // 2))
    return canvas

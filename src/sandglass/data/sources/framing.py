"""A picture that has been read, brought to the channels, the size and the values that a model wants.

NumPy is imported where it is needed: most pictures are kept as they are, and a process that decodes those starts in
half the time without it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from sandglass.data.sources import images
from sandglass.errors import DataError

if TYPE_CHECKING:
    import numpy as np
    from PIL.Image import Image

_SMALL = 2**14  # bytes of a picture up to which slices are as fast as NumPy


HALVES = {"left": "right", "right": "left", "top": "bottom", "bottom": "top"}
"""The halves of a picture that holds two side by side, and which is the other one."""


def half_size(size: tuple[int, int], half: str) -> tuple[int, int]:
    """Height and width of a half of a picture; an empty text stands for the whole.

    Example:
        >>> half_size((64, 128), "left"), half_size((64, 128), "")
        ((64, 64), (64, 128))
    """
    height, width = size
    return (height // 2, width) if half in ("top", "bottom") else (height, width // 2) if half else size


def halved(image: Image, half: str) -> tuple[Image, frozenset[str]]:
    """One half of a picture, and a remark where a line in the middle belongs to none.

    Raises:
        DataError: it is a single pixel across.
    """
    height, width = half_size((image.height, image.width), half)
    if not height * width:
        raise DataError(f"a picture of {image.height}x{image.width} has no two halves")
    left, top = image.width - width if half == "right" else 0, image.height - height if half == "bottom" else 0
    odd = (image.width if half in ("left", "right") else image.height) % 2
    remarks = frozenset({"an odd side, whose middle line belongs to no half"} if odd else ())
    return image.crop((left, top, left + width, top + height)), remarks


def to_channels(image: Image, channels: int, background: tuple[int, int, int]) -> tuple[Image, bool]:
    """A normal picture with 1, 3 or 4 channels, and whether transparency was laid over the background for it."""
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
    """What pictures are brought to; :class:`~sandglass.data.transform.ImageTransform` says what each means."""

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
    """What :func:`sandglass.data.sources.images.load` returns in the frame's size and channels, with remarks."""
    image, composited = to_channels(image, frame.channels, frame.background)
    if composited:
        done = done | {"transparency laid over the background"}
    if image.size != (frame.size[1], frame.size[0]):
        verb = {"crop": "cropped", "pad": "padded", "stretch": "stretched"}[frame.fit]
        done = done | {f"{verb} to {frame.size[0]}x{frame.size[1]}"}
    return resize(image, frame.size, frame.fit, frame.background), done


def kept(image: Image, frame: Frame) -> bytes:
    """The numbers ``(C, H, W)`` of a framed picture as they are kept, in row-major order; see :func:`quantised`."""
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
    """Bytes from 0 to 255 as they are kept: uint8 levels, or float32 in [0, 1] where ``frame.continuous``."""
    import numpy as np

    if frame.continuous:
        return array.astype(np.float32) / np.float32(255)
    if frame.levels == 256:
        return array
    return np.round(array * ((frame.levels - 1) / 255)).astype(np.uint8)


def resize(image: Image, size: tuple[int, int], fit: str, background: tuple[int, int, int]) -> Image:
    """A picture of exactly ``size`` (H, W); one of that size already is returned untouched.

    Args:
        image: mode L, RGB or RGBA.
        size: height and width in pixels.
        fit: ``"crop"`` fills the frame and cuts what stands out, evenly on both sides; ``"pad"`` shows all of the
            picture on the background; ``"stretch"`` changes its proportions.
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

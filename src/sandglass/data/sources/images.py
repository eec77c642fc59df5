"""One picture: opened safely, turned upright, brought to 8 bits, a number of channels and a size."""

from __future__ import annotations

import io
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from sandglass.errors import DataError, MissingPackageError

if TYPE_CHECKING:
    from PIL.Image import Image

FORMATS = ("PNG", "JPEG", "WEBP", "TIFF", "BMP", "GIF", "PPM")
"""Decoders that are allowed; the others of Pillow (PostScript among them) are never reached by a file's content."""

SUFFIXES = frozenset(
    ".png .apng .jpg .jpeg .jpe .jfif .webp .tif .tiff .bmp .gif .ppm .pgm .pbm .pnm".split()  # noqa: SIM905
)
MAX_PIXELS = 50_000_000
"""A picture that claims more is refused from its header, before any of it is decoded."""

_SMALL = 2**18
_GREY = ("1", "L", "LA", "La", "I", "I;16", "I;16B", "I;16L", "I;16N")
_TURNING = {"exif", "xmp", "XML:com.adobe.xmp", "Raw profile type exif"}
_ALPHA = ("RGBA", "LA", "PA", "RGBa", "La")


@cache
def pillow() -> Any:
    """The module ``PIL.Image``, with the decoders of :data:`FORMATS` at hand and no others.

    Raises:
        MissingPackageError: Pillow is not installed.
    """
    try:
        import PIL.Image

        # Left to itself, Pillow looks for these by importing all forty that it has.
        from PIL import (  # noqa: F401
            BmpImagePlugin,
            GifImagePlugin,
            JpegImagePlugin,
            PngImagePlugin,
            PpmImagePlugin,
            TiffImagePlugin,
            WebPImagePlugin,
        )
    except ImportError as error:
        raise MissingPackageError("Pictures need Pillow; install it with `pip install pillow`.") from error
    return PIL.Image


@contextmanager
def quiet() -> Iterator[None]:
    """Silences Pillow's own remarks on size and damaged metadata while files are read: both are judged here."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@contextmanager
def opened(path: str | os.PathLike[str]) -> Iterator[Image]:
    """A picture file whose header has been read and found acceptable.

    Raises:
        DataError: not a picture of an allowed format, or one of more than :data:`MAX_PIXELS`.
    """
    module = pillow()
    try:
        image = module.open(_content(path), formats=FORMATS)
    except module.DecompressionBombError as error:
        raise DataError(f"{shown(path)}: more than {MAX_PIXELS / 1e6:g} megapixels; shrink it first.") from error
    except Exception as error:  # a damaged header may raise anything in a decoder
        raise DataError(f"{shown(path)}: {_reason(error)}") from error
    with image:
        width, height = image.size
        if width * height > MAX_PIXELS:
            raise DataError(f"{shown(path)}: {width}x{height}, over {MAX_PIXELS / 1e6:g} megapixels; shrink it first.")
        yield image


def _content(path: str | os.PathLike[str]) -> Any:
    """What to open: of a small file all that is in it, for a decoder reads a few bytes at a time; else the path."""
    with open(path, "rb", buffering=0) as file:
        data = file.read(_SMALL)
        return io.BytesIO(data) if len(data) < _SMALL and not file.read(1) else path


def probe(path: str | os.PathLike[str]) -> tuple[tuple[int, int], bool]:
    """The upright size ``(H, W)`` and whether it is grey, from the header; of a PNG all is read for its EXIF tag.

    Raises:
        DataError: as :func:`opened`.
    """
    with opened(path) as image:
        width, height = image.size
        grey = is_grey(image)  # before the tag is asked for: a PNG decodes to find it, and then forgets its layout
        try:
            turned = image.getexif().get(0x0112, 1) in (5, 6, 7, 8)
        except Exception:  # damaged metadata is not a damaged picture
            turned = False
        return ((width, height) if turned else (height, width)), grey


def is_grey(image: Image) -> bool:
    """Whether a picture has no colour by its mode."""
    # Pillow opens grey with alpha of 16 bits as RGBA; how it unpacks the file tells.
    return image.mode in _GREY or any("'LA;16" in f"'{tile[3]}" for tile in getattr(image, "tile", ()))


def load(path: str | os.PathLike[str]) -> tuple[Image, frozenset[str]]:
    """A picture file, decoded to the last byte; see :func:`normal` for what is returned.

    Raises:
        DataError: it cannot be decoded, with the file and the reason.
    """
    with opened(path) as image:
        bits = _declared_bits(image)  # the decoder forgets them once it has run
        try:
            image.load()
            return normal(image, bits)
        except DataError as error:
            raise DataError(f"{shown(path)}: {error}") from error
        except Exception as error:  # a damaged body may raise anything in a decoder
            raise DataError(f"{shown(path)}: {_reason(error)}") from error


def normal(image: Image, bits: int | None = None) -> tuple[Image, frozenset[str]]:
    """An upright picture of 8 bits in mode L, LA, RGB or RGBA, and what was done to it.

    Grey values of more than 8 bits are divided by the largest value of their declared depth and never clipped.

    Args:
        image: a picture of any mode.
        bits: of one value in its file; None asks the picture.

    Returns:
        The picture, and remarks out of ``"turned upright"``, ``"16-bit grey scaled to 8 bits"``, ... , each a phrase
        that a count of pictures goes before.

    Raises:
        DataError: a picture of floats, whose range nobody declares.
    """
    bits = _declared_bits(image) if bits is None else bits
    done = set()
    if image.format in ("GIF", "WEBP", "PNG", "TIFF") and getattr(image, "is_animated", False):
        done.add("several frames, of which the first was taken")
    if image.mode in ("RGB", "RGBA") and bits > 8:
        done.add("16-bit colour reduced to 8 bits")
    upright = image
    # A JPEG without any such block cannot say how it is turned; most small ones have none, and asking takes a while.
    if (image.format != "JPEG" or _TURNING & image.info.keys()) and image.getexif().get(0x0112, 1) != 1:
        from PIL import ImageOps

        upright = ImageOps.exif_transpose(image)
    if upright is not image:
        done.add("a turned camera, set upright by their EXIF tag")
    mode = upright.mode
    if mode == "F":
        raise DataError("a picture of floats declares no range; save it with 8 or 16 bits, or give an array in [0, 1]")
    if mode == "I" or mode.startswith("I;"):
        return _deep_grey(upright, bits), frozenset(done | {"16-bit grey scaled to 8 bits"})
    if mode == "CMYK":
        done.add("CMYK converted to RGB")
    transparent = mode in _ALPHA or "transparency" in upright.info
    target = ("L" if mode in ("1", "L", "LA", "La") else "RGB") + ("A" if transparent else "")
    return (upright if mode == target else upright.convert(target)), frozenset(done)


def _declared_bits(image: Image) -> int:
    """Bits of a value in the file, as its header has it; 8 where it says nothing and 16 for wide modes."""
    bits = getattr(image, "tag_v2", {}).get(258)
    if bits:
        return int(bits[0] if isinstance(bits, tuple) else bits)
    if image.mode.startswith("I"):
        return 16
    return 16 if any(";16" in str(tile) for tile in getattr(image, "tile", ())) else 8


def _deep_grey(image: Image, bits: int) -> Image:
    values = np.asarray(image).astype(np.int64)
    bits = min(bits, 16)
    top = 2**bits - 1
    if values.size and (values.min() < 0 or values.max() > top):
        raise DataError(
            f"grey values from {values.min()} to {values.max()} do not fit {bits} bits; save it with 16 bits"
        )
    result: Image = pillow().fromarray(((values * 510 + top) // (2 * top)).astype(np.uint8))
    return result


def to_channels(image: Image, channels: int, background: tuple[int, int, int]) -> tuple[Image, bool]:
    """A normal picture with 1, 3 or 4 channels, and whether transparency was laid over the background for it."""
    module = pillow()
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


def framed(image: Image, done: frozenset[str], frame: Frame) -> tuple[np.ndarray[Any, Any], frozenset[str]]:
    """What :func:`load` returns as ``(C, H, W)`` bytes from 0 to 255, and remarks on what was done to it."""
    image, composited = to_channels(image, frame.channels, frame.background)
    if composited:
        done = done | {"transparency laid over the background"}
    if image.size != (frame.size[1], frame.size[0]):
        verb = {"crop": "cropped", "pad": "padded", "stretch": "stretched"}[frame.fit]
        done = done | {f"{verb} to {frame.size[0]}x{frame.size[1]}"}
    image = resize(image, frame.size, frame.fit, frame.background)
    array = np.frombuffer(image.tobytes(), np.uint8).reshape(*frame.size, frame.channels)
    return array.transpose(2, 0, 1), done


def quantised(array: np.ndarray[Any, Any], frame: Frame) -> np.ndarray[Any, Any]:
    """Bytes from 0 to 255 as they are kept: uint8 levels, or float32 in [0, 1] where ``frame.continuous``."""
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
        >>> resize(pillow().new("L", (40, 20)), (8, 8), "pad", (255, 255, 255)).size
        (8, 8)
    """
    height, width = size
    if image.size == (width, height):
        return image
    module = pillow()
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


def shown(path: str | os.PathLike[str]) -> str:
    r"""A file's name as it can be printed and encoded anywhere, whatever bytes it is made of.

    Example:
        >>> shown("a\udcff.png")
        'a\\xff.png'
    """
    if isinstance(path, str) and path.isascii() and path.isprintable():
        return path
    text = os.fsencode(path).decode("utf-8", "backslashreplace")
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def is_picture(path: str | Path) -> bool:
    """Whether a name ends like a picture's."""
    name = os.fspath(path)
    return name[name.rfind(".") :].lower() in SUFFIXES


def _reason(error: Exception) -> str:
    if isinstance(error, PermissionError):
        return "no permission to read it"
    if type(error).__name__ == "UnidentifiedImageError":
        return "not a picture of a known format"
    text = " ".join(str(error).split())
    return f"damaged ({text or type(error).__name__})"

"""One picture: opened safely, turned upright, brought to 8 bits, a number of channels and a size."""

from __future__ import annotations

import io
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sandglass.errors import ConfigError, DataError, MissingPackageError

if TYPE_CHECKING:
    from PIL.Image import Image

FORMATS = ("PNG", "JPEG", "WEBP", "TIFF", "BMP", "GIF", "PPM")
"""Decoders that are allowed; the others of Pillow (PostScript among them) are never reached by a file's content."""

_NAMED = {
    "PNG": (".png", ".apng"), "JPEG": (".jpg", ".jpeg", ".jpe", ".jfif"), "WEBP": (".webp",), "TIFF": (".tif", ".tiff"),
    "BMP": (".bmp",), "GIF": (".gif",), "PPM": (".ppm", ".pgm", ".pbm", ".pnm"),
}  # fmt: skip
SUFFIXES = frozenset(suffix for suffixes in _NAMED.values() for suffix in suffixes)
MAX_PIXELS = 50_000_000
"""A picture that claims more is refused from its header, before any of it is decoded."""

_GREY = ("1", "L", "LA", "La", "F", "I", "I;16", "I;16B", "I;16L", "I;16N")
_SMALL = 2**18
_HEAD = 2**16
_EIGHT = ("JPEG", "MPO", "WEBP", "GIF")  # formats of 8 bits
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


def opened(path: str | os.PathLike[str]) -> Image:
    """A picture file whose header has been read and found acceptable; to be closed, as by ``with``.

    Raises:
        DataError: not a picture of an allowed format, or one of more than :data:`MAX_PIXELS`.
    """
    module = pillow()
    try:
        image = _open(_content(path))
    except module.DecompressionBombError as error:
        raise DataError(f"{shown(path)}: more than {MAX_PIXELS / 1e6:g} megapixels; shrink it first.") from error
    except Exception as error:  # a damaged header may raise anything in a decoder
        raise DataError(f"{shown(path)}: {_reason(error)}") from error
    width, height = image.size
    if width * height > MAX_PIXELS:
        image.close()
        raise DataError(f"{shown(path)}: {width}x{height}, over {MAX_PIXELS / 1e6:g} megapixels; shrink it first.")
    return image


def _content(path: str | os.PathLike[str]) -> Any:
    """What to open: of a small file all that is in it, for a decoder reads a few bytes at a time; else the path."""
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0))
    try:
        size = os.fstat(descriptor).st_size
        data = os.read(descriptor, size + 1) if size < _SMALL else b""
    finally:
        os.close(descriptor)
    return io.BytesIO(data) if 0 < len(data) == size else path


def _open(content: Any) -> Image:
    """A picture with its header read, by its content."""
    module = pillow()
    if isinstance(content, io.BytesIO):
        head = content.getvalue()[:_HEAD]
        if head.startswith(b"\xff\xd8\xff") and b"MPF\0" not in head:
            from PIL.JpegImagePlugin import JpegImageFile

            with suppress(Exception):  # of a damaged one Pillow says below what is wrong
                return JpegImageFile(content)  # as Pillow would, without asking who else might want it
            content.seek(0)
    image: Image = module.open(content, formats=FORMATS)
    return image


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


def load(path: str | os.PathLike[str], value_range: tuple[float, float] | None = None) -> tuple[Image, frozenset[str]]:
    """A picture file, decoded to the last byte; see :func:`normal` for the range and for what is returned.

    One that the system does not give is asked for twice, for a disk or network may fail for a moment.

    Raises:
        DataError: it cannot be decoded, with the file and the reason.
    """
    try:
        return _load(path, value_range)
    except DataError as error:
        if not isinstance(error.__cause__, OSError) or error.__cause__.errno is None:
            raise  # damage stays damage
    return _load(path, value_range)


def _load(path: str | os.PathLike[str], value_range: tuple[float, float] | None) -> tuple[Image, frozenset[str]]:
    with opened(path) as image:
        top = _declared_top(image)  # the decoder forgets it once it has run
        try:
            image.load()
            picture, done = normal(image, top, value_range)
        except DataError as error:
            raise DataError(f"{shown(path)}: {error}") from error
        except Exception as error:  # a damaged body may raise anything in a decoder
            raise DataError(f"{shown(path)}: {_reason(error)}") from error
        if os.path.splitext(path)[1].lower() not in _NAMED.get(
            "JPEG" if image.format == "MPO" else str(image.format), ()
        ):
            done |= {"another format than their name says"}
        return picture, done


def normal(
    image: Image, top: int | None = None, value_range: tuple[float, float] | None = None
) -> tuple[Image, frozenset[str]]:
    """An upright picture of 8 bits in mode L, LA, RGB or RGBA, and what was done to it.

    Grey values of more than 8 bits are divided by the largest value of their declared depth and never clipped.

    Args:
        image: a picture of any mode.
        top: the largest value that its file declares; None asks the picture.
        value_range: of a picture of floats, or of grey values of more than 8 bits: what becomes black and white.

    Returns:
        The picture, and remarks out of ``"turned upright"``, ``"16-bit grey scaled to 8 bits"``, ... , each a phrase
        that a count of pictures goes before.

    Raises:
        DataError: a picture of floats, whose range nobody declares.
    """
    top = _declared_top(image) if top is None else top
    done = set()
    if image.format in ("GIF", "WEBP", "PNG", "TIFF", "MPO") and getattr(image, "is_animated", False):
        done.add("several frames, of which the first was taken")
    if image.mode in ("RGB", "RGBA") and top > 255:
        done.add("16-bit colour reduced to 8 bits")
    upright = image
    # A JPEG without any such block cannot say how it is turned; most small ones have none, and asking takes a while.
    if (image.format != "JPEG" or _TURNING & image.info.keys()) and image.getexif().get(0x0112, 1) != 1:
        from PIL import ImageOps

        upright = ImageOps.exif_transpose(image)
    if upright is not image:
        done.add("a turned camera, set upright by their EXIF tag")
    mode = upright.mode
    if mode == "F" or mode == "I" or mode.startswith("I;"):
        upright, remarks = _ranged(upright, value_range) if value_range else _deep_grey(upright, top)
        return upright, frozenset(done | remarks)
    if mode == "CMYK":
        upright, remark = _from_cmyk(upright)
        return upright, frozenset(done | {remark})
    transparent = mode in _ALPHA or "transparency" in upright.info
    target = ("L" if mode in ("1", "L", "LA", "La") else "RGB") + ("A" if transparent else "")
    return (upright if mode == target else upright.convert(target)), frozenset(done)


def _declared_top(image: Image) -> int:
    """The largest value that the file's header allows for; 255 where it says nothing and 65,535 for wide modes."""
    if image.format in _EIGHT:
        return 255
    tags = getattr(image, "tag_v2", {})
    bits, largest = (v[0] if isinstance(v, tuple) and v else v for v in (tags.get(258), tags.get(281)))
    if not isinstance(bits, int):
        wide = image.mode.startswith("I") or any(";16" in str(tile) for tile in getattr(image, "tile", ()))
        bits = 16 if wide else 8
    top = 2 ** min(bits, 16) - 1
    # Cameras put 10, 12 or 14 bits into 16 and declare the largest value; one of no depth is merely the largest found.
    return largest if largest in (1023, 4095, 16383) and largest < top else top


def _deep_grey(image: Image, top: int) -> tuple[Image, set[str]]:
    """Whole grey values from 0 to ``top`` as bytes.

    Raises:
        DataError: floats, or values beyond that.
    """
    if image.mode == "F":
        raise DataError(
            "a picture of floats declares no range; say which values are black and white, "
            "value_range=(low, high) (--value-range LOW,HIGH)"
        )
    import numpy as np

    values = np.asarray(image).astype(np.int64)
    bits = top.bit_length()
    if values.size and (values.min() < 0 or values.max() > top):
        raise DataError(
            f"grey values from {values.min()} to {values.max()} do not fit {bits} bits; say which are black and white, "
            "value_range=(low, high) (--value-range LOW,HIGH)"
        )
    result: Image = pillow().fromarray(((values * 510 + top) // (2 * top)).astype(np.uint8))
    return result, {f"{bits}-bit grey scaled to 8 bits"}


def _ranged(image: Image, value_range: tuple[float, float]) -> tuple[Image, set[str]]:
    """Grey values of any kind as bytes, the ends of a range being black and white.

    Raises:
        DataError: values that are not finite.
    """
    import numpy as np

    low, high = value_range
    values = (np.asarray(image).astype(np.float64) - low) / (high - low)
    if not np.isfinite(values).all():
        raise DataError("it has values that are missing or infinite")
    done = {f"values from {low:g} to {high:g} scaled to 8 bits"}
    if values.size and (values.min() < 0 or values.max() > 1):
        done.add(f"values below {low:g} or above {high:g} cut off there")
    result: Image = pillow().fromarray(np.round(np.clip(values, 0, 1) * 255).astype(np.uint8))
    return result, done


def check_range(values: Any) -> tuple[float, float] | None:
    """Two ends of a range of values, the lower first; None stays None.

    Raises:
        ConfigError: anything else.

    Example:
        >>> check_range([0, 4095])
        (0.0, 4095.0)
    """
    if values is None:
        return None
    try:
        low, high = (float(v) for v in values)
    except (TypeError, ValueError):
        low = high = 0.0
    if not -float("inf") < low < high < float("inf"):
        raise ConfigError(f"value_range must be two numbers, the lower first, such as (0, 4095), not {values!r}.")
    return low, high


def _from_cmyk(image: Image) -> tuple[Image, str]:
    """A picture of inks in RGB, by the colour profile that it brings where there is one, and a remark on it."""
    profile = image.info.get("icc_profile")
    if not profile:
        return image.convert("RGB"), "CMYK converted to RGB"
    try:
        from PIL import ImageCms

        inks = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        found = ImageCms.profileToProfile(image, inks, ImageCms.createProfile("sRGB"), outputMode="RGB")
    except Exception:  # a damaged profile is not a damaged picture
        found = None
    if found is None:
        return image.convert("RGB"), "CMYK converted to RGB without their colour profile, which cannot be used"
    return found, "CMYK converted to RGB by their colour profile"


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
    return os.path.splitext(path)[1].lower() in SUFFIXES


def _reason(error: Exception) -> str:
    if isinstance(error, PermissionError):
        return "no permission to read it"
    if type(error).__name__ == "UnidentifiedImageError":
        return "not a picture of a known format"
    text = " ".join(str(error).split())
    return f"damaged ({text or type(error).__name__})"

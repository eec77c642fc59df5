"""Reads a picture: opens it safely, applies its orientation and converts it to 8 bits."""

from __future__ import annotations

import io
import os
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sandglass.data.sources import depth
from sandglass.errors import ConfigError, DataError, MissingPackageError

if TYPE_CHECKING:
    from PIL.Image import Image

FORMATS = ("PNG", "JPEG", "WEBP", "TIFF", "BMP", "GIF", "PPM")
"""Allowed decoders; Pillow's other decoders, such as PostScript, are never used, whatever a file contains."""

_NAMED = {
    "PNG": (".png", ".apng"), "JPEG": (".jpg", ".jpeg", ".jpe", ".jfif"), "WEBP": (".webp",), "TIFF": (".tif", ".tiff"),
    "BMP": (".bmp",), "GIF": (".gif",), "PPM": (".ppm", ".pgm", ".pbm", ".pnm"),
}  # fmt: skip
SUFFIXES = frozenset(suffix for suffixes in _NAMED.values() for suffix in suffixes)
MAX_PIXELS = 50_000_000
"""A picture that declares more is rejected by its header, before it is decoded."""

_STARTS = re.compile(
    rb"\x89PNG\r\n\x1a\n|\xff\xd8\xff|RIFF....WEBP|II[*+]\0|MM\0[*+]|BM.{12}[\x0c-\x7f]\0\0\0|GIF8[79]a|P[1-6]\s+[#\d]",
    re.DOTALL,
)  # the first bytes of a file in each of FORMATS
_GREY = ("1", "L", "LA", "La", "F", "I", "I;16", "I;16B", "I;16L", "I;16N")
_SMALL = 2**18
_HEAD = 2**16
_EIGHT = ("JPEG", "MPO", "WEBP", "GIF")  # formats of 8 bits
_TURNING = {"exif", "xmp", "XML:com.adobe.xmp", "Raw profile type exif"}
_ALPHA = ("RGBA", "LA", "PA", "RGBa", "La")


@cache
def pillow() -> Any:
    """The module ``PIL.Image``, with only the decoders of :data:`FORMATS` imported.

    Raises:
        MissingPackageError: Pillow is not installed.
    """
    try:
        import PIL.Image

        # By default, Pillow would import all of its forty plugins.
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
    """Silences Pillow's warnings about size and damaged metadata, which are checked here."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def opened(path: str | os.PathLike[str]) -> Image:
    """Opens a picture file and checks its header; use it as a context manager.

    Raises:
        DataError: it is not of an allowed format, or has more than :data:`MAX_PIXELS`.
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
    """The content of a small file, because decoders read a few bytes at a time; the path of a larger one."""
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0))
    try:
        size = os.fstat(descriptor).st_size
        data = os.read(descriptor, size + 1) if size < _SMALL else b""
    finally:
        os.close(descriptor)
    return io.BytesIO(data) if 0 < len(data) == size else path


def _open(content: Any) -> Image:
    """Opens a picture and reads its header; the format is determined by its content."""
    module = pillow()
    if isinstance(content, io.BytesIO):
        head = content.getvalue()[:_HEAD]
        if head.startswith(b"\xff\xd8\xff") and b"MPF\0" not in head:
            from PIL.JpegImagePlugin import JpegImageFile

            with suppress(Exception):  # if it is damaged, Pillow reports the error below
                return JpegImageFile(content)  # faster than Pillow's search through all decoders
            content.seek(0)
    image: Image = module.open(content, formats=FORMATS)
    return image


def probe(path: str | os.PathLike[str]) -> tuple[tuple[int, int], bool]:
    """The upright size ``(H, W)`` and whether it is grey, from the header; a PNG is read whole for its EXIF tag.

    Raises:
        DataError: as :func:`opened`.
    """
    with opened(path) as image:
        width, height = image.size
        grey = is_grey(image)  # before reading EXIF, because a PNG is decoded to find it and then loses its layout
        try:
            turned = image.getexif().get(0x0112, 1) in (5, 6, 7, 8)
        except Exception:  # damaged metadata is not a damaged picture
            turned = False
        return ((width, height) if turned else (height, width)), grey


def is_grey(image: Image) -> bool:
    """Whether a picture is grey, by its mode."""
    # Pillow opens 16-bit grey with alpha as RGBA; only the layout of its tiles shows that it is grey.
    return image.mode in _GREY or any("'LA;16" in f"'{tile[3]}" for tile in getattr(image, "tile", ()))


def load(path: str | os.PathLike[str], value_range: tuple[float, float] | None = None) -> tuple[Image, frozenset[str]]:
    """Decodes a picture file completely; see :func:`normal` for the range and the returned values.

    A read error is retried once, because it may be a temporary failure of disk or network.

    Raises:
        DataError: it cannot be decoded; the message has the file and the reason.
    """
    try:
        return _load(path, value_range)
    except DataError as error:
        if not isinstance(error.__cause__, OSError) or error.__cause__.errno is None:
            raise  # damaged content, not a read error
    return _load(path, value_range)


def _load(path: str | os.PathLike[str], value_range: tuple[float, float] | None) -> tuple[Image, frozenset[str]]:
    with opened(path) as image:
        top = _declared_top(image)  # not available after decoding
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
            done |= {"format does not match the file extension"}
        return picture, done


def normal_object(image: Image, value_range: tuple[float, float] | None = None) -> tuple[Image, frozenset[str]]:
    """As :func:`normal`, for a picture that someone else opened, and that may be damaged or closed.

    Raises:
        DataError: as :func:`normal`, and if it cannot be decoded.
    """
    try:
        top = _declared_top(image)  # not available after decoding
        image.load()
        return normal(image, top, value_range)
    except DataError:
        raise
    except Exception as error:  # a damaged body may raise anything in a decoder
        raise DataError(_reason(error)) from error


def normal(
    image: Image, top: int | None = None, value_range: tuple[float, float] | None = None
) -> tuple[Image, frozenset[str]]:
    """Converts a picture to upright orientation, 8 bits and mode L, LA, RGB or RGBA; also returns remarks.

    Grey values of more than 8 bits are divided by the largest value of their declared depth and never clipped.

    Args:
        image: a picture of any mode.
        top: the largest value that its file declares; None to read it from the picture.
        value_range: values mapped to black and white, for a picture of floats or of more than 8 bits.

    Returns:
        The picture, and remarks on the conversions, such as ``"16-bit grey scaled to 8 bits"``, each a phrase to follow
        a count of pictures.

    Raises:
        DataError: a picture of floats without a range.
    """
    if not all(image.size):
        raise DataError("it has no pixels")
    top = _declared_top(image) if top is None else top
    done = set()
    if image.format in ("GIF", "WEBP", "PNG", "TIFF", "MPO") and getattr(image, "is_animated", False):
        done.add("several frames, only the first was read")
    if image.mode in ("RGB", "RGBA") and top > 255:
        done.add(depth.COLOUR)
        extrema: Any = image.getextrema()
        most = max(high for _, high in extrema[:3])
        done |= {depth.unused(most.bit_length() + 8, 16, "colours")} if most < 128 else set()
    upright = image
    # A JPEG without such metadata has no orientation; most small ones have none, and reading EXIF takes time.
    if (image.format != "JPEG" or _TURNING & image.info.keys()) and image.getexif().get(0x0112, 1) != 1:
        from PIL import ImageOps

        upright = ImageOps.exif_transpose(image)
    if upright is not image:
        done.add("rotated upright by their EXIF orientation")
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
    """The largest value by the file's header; by default 255, or 65,535 for 16-bit modes."""
    if image.format in _EIGHT:
        return 255
    tags = getattr(image, "tag_v2", {})
    bits, largest = (v[0] if isinstance(v, tuple) and v else v for v in (tags.get(258), tags.get(281)))
    if not isinstance(bits, int):
        wide = image.mode.startswith("I") or any(";16" in str(tile) for tile in getattr(image, "tile", ()))
        bits = 16 if wide else 8
    top = 2 ** min(bits, 16) - 1
    # Cameras store 10, 12 or 14 bits in 16 and declare the largest value; other values are only the observed maximum.
    return largest if largest in (1023, 4095, 16383) and largest < top else top


def _deep_grey(image: Image, top: int) -> tuple[Image, set[str]]:
    """Converts integer grey values from 0 to ``top`` to bytes.

    Raises:
        DataError: floats, or values outside that range.
    """
    if image.mode == "F":
        raise DataError(
            "a picture of floats declares no range; give the values of black and white, "
            "value_range=(low, high) (--value-range LOW,HIGH)"
        )
    import numpy as np

    values = np.asarray(image).astype(np.int64)
    bits = top.bit_length()
    if values.size and (values.min() < 0 or values.max() > top):
        raise DataError(
            f"grey values from {values.min()} to {values.max()} do not fit {bits} bits; give the values of black and "
            "white, value_range=(low, high) (--value-range LOW,HIGH)"
        )
    result: Image = pillow().fromarray(((values * 510 + top) // (2 * top)).astype(np.uint8))
    used = int(values.max()).bit_length() if values.size else bits
    return result, {depth.scaled(bits), *([depth.unused(used, bits)] if used < bits else [])}


def _ranged(image: Image, value_range: tuple[float, float]) -> tuple[Image, set[str]]:
    """Converts grey values of any type to bytes, with the ends of a range as black and white.

    Raises:
        DataError: values that are not finite.
    """
    import numpy as np

    low, high = value_range
    values = (np.asarray(image).astype(np.float64) - low) / (high - low)
    if not np.isfinite(values).all():
        raise DataError("it has missing or infinite values")
    done = {f"values from {low:g} to {high:g} scaled to 8 bits"}
    if values.size and (values.min() < 0 or values.max() > 1):
        done.add(f"values below {low:g} or above {high:g} clipped")
    result: Image = pillow().fromarray(np.round(np.clip(values, 0, 1) * 255).astype(np.uint8))
    return result, done


def check_range(values: Any) -> tuple[float, float] | None:
    """Checks a range of values (low, high) and returns it as floats; None stays None.

    Raises:
        ConfigError: it is not a range.

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
    """Converts CMYK to RGB, by its colour profile if it has one; also returns a remark."""
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
        return image.convert("RGB"), "CMYK converted to RGB without their colour profile, which is damaged"
    return found, "CMYK converted to RGB by their colour profile"


def shown(path: str | os.PathLike[str]) -> str:
    r"""A file name with unprintable and undecodable characters escaped.

    Example:
        >>> shown("a\udcff.png")
        'a\\xff.png'
    """
    if isinstance(path, str) and path.isascii() and path.isprintable():
        return path
    text = os.fsencode(path).decode("utf-8", "backslashreplace")
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def is_picture(path: str | Path) -> bool:
    """Whether a file name has the extension of a picture."""
    return os.path.splitext(path)[1].lower() in SUFFIXES


def is_content(data: bytes) -> bool:
    r"""Whether bytes start like a picture file of one of :data:`FORMATS`.

    Example:
        >>> is_content(b"GIF89a..."), is_content(b"BMW")
        (True, False)
    """
    return _STARTS.match(data) is not None


def _reason(error: Exception) -> str:
    if isinstance(error, FileNotFoundError):
        return "there is no such file"
    if isinstance(error, PermissionError):
        return "no permission to read it"
    if type(error).__name__ == "UnidentifiedImageError":
        return "not a picture of a known format"
    text = " ".join(str(error).split())
    return f"damaged ({text or type(error).__name__})"

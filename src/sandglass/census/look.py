"""Statistics of a single picture: header, values, and features to find duplicates."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from sandglass.data.sources import framing, images

SIDE = 16
"""Side of the grey thumbnail for finding near duplicates."""

FRAME = 32
"""Side of the colour thumbnail for the mean picture."""

_SHARP = 256
_LEVELS = np.arange(256.0)
_BLACK, _WHITE = 12, 243


@dataclass(frozen=True, slots=True)
class Look:
    """Statistics of a picture; about half a kilobyte.

    Args:
        size: upright height and width.
        mode: Pillow mode of the file.
        format: such as ``"PNG"``; empty for an array.
        length: size of the file in bytes; 0 for an array.
        remarks: conversions made in reading, as noted by the loader.
        alpha: whether any pixel is transparent.
        digest: digest of its upright pixels, independent of the file format.
        grey: grey thumbnail, ``SIDE * SIDE`` bytes.
        mean: mean of red, green and blue, 0 to 255; one value for grey.
        square: mean of the squared values.
        flat: whether all pixels are equal.
        black, white: fractions of nearly black and nearly white pixels.
        clipped: fraction of the values that are 0 or 255.
        sharp: sharpness, see :func:`_sharpness`.
    """

    size: tuple[int, int]
    mode: str
    format: str
    length: int
    remarks: frozenset[str]
    alpha: bool
    digest: bytes
    grey: bytes
    mean: tuple[float, ...]
    square: tuple[float, ...]
    flat: bool
    black: float
    white: float
    clipped: float
    sharp: float


def look_at(content: Any, value_range: tuple[float, float] | None = None) -> tuple[Look, npt.NDArray[np.uint8]]:
    """Decodes a picture completely and computes its statistics.

    Args:
        content: a file, or a Pillow picture.
        value_range: values of black and white in pictures of floats or of more than 8 bits.

    Returns:
        The statistics, and its colour thumbnail for the mean picture, ``(FRAME, FRAME, 3)``.

    Raises:
        DataError: it cannot be decoded.
    """
    if isinstance(content, str | os.PathLike):
        with images.opened(content) as header:
            mode, kind = header.mode, header.format or ""
        image, remarks = images.load(content, value_range)
        return _look(image, remarks, mode, kind, os.stat(content).st_size)
    image, remarks = images.normal_object(content, value_range)
    return _look(image, remarks, content.mode, "", 0)


def _look(image: Any, remarks: frozenset[str], mode: str, kind: str, size: int) -> tuple[Look, npt.NDArray[np.uint8]]:
    alpha = image.mode in ("LA", "RGBA") and image.getchannel("A").getextrema()[0] < 255
    digest = hashlib.blake2b(f"{image.mode} {image.size}".encode() + image.tobytes(), digest_size=16).digest()
    plain, _ = framing.to_channels(image, 1 if image.mode in ("L", "LA") else 3, (255, 255, 255))
    grey = plain if plain.mode == "L" else plain.convert("L")
    bilinear = images.pillow().Resampling.BILINEAR
    counts = np.array(plain.histogram(), np.float64).reshape(-1, 256) / (plain.width * plain.height)
    tones = counts[0] if grey is plain else np.array(grey.histogram()) / (grey.width * grey.height)
    look = Look(
        size=(plain.height, plain.width),
        mode=mode,
        format=kind,
        length=size,
        remarks=remarks,
        alpha=alpha,
        digest=digest,
        # Pillow's bilinear filter averages over the support of a pixel, and is less sensitive to shifts than a box.
        grey=grey.resize((SIDE, SIDE), bilinear, reducing_gap=3.0).tobytes(),
        mean=tuple((counts @ _LEVELS).tolist()),
        square=tuple((counts @ _LEVELS**2).tolist()),
        flat=bool((counts.max(1) == 1).all()),
        black=float(tones[: _BLACK + 1].sum()),
        white=float(tones[_WHITE:].sum()),
        clipped=float((counts[:, 0] + counts[:, -1]).mean()),
        sharp=_sharpness(grey),
    )
    small = plain.resize((FRAME, FRAME), bilinear, reducing_gap=3.0)
    return look, np.asarray(small if small.mode == "RGB" else small.convert("RGB"))


def _sharpness(grey: Any) -> float:
    """Root mean square of the Laplacian at no more than 256 pixels a side; small if the picture is out of focus."""
    if max(grey.size) > _SHARP:
        grey = grey.reduce(-(-max(grey.size) // _SHARP))
    if min(grey.size) < 3:
        return 0.0
    x = np.asarray(grey, np.float32)
    laplacian = (4 * x[1:-1, 1:-1] - x[:-2, 1:-1] - x[2:, 1:-1] - x[1:-1, :-2] - x[1:-1, 2:]).ravel()
    return float(np.sqrt(laplacian @ laplacian / laplacian.size))

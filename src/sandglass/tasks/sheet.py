"""Labelled grids of images: one example per row and one variant per column, or with row labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from sandglass.data.pixels import Pixels, enlarge

_TILE, _LARGEST = 96, 192  # size in pixels that small images are enlarged to, and maximum size of large ones
_GAP, _PAD, _BREAK = 6, 16, 18  # gap between images, outer margin, and extra gap between groups of columns
_FONT = 14
_INK, _FAINT, _PAPER = (24, 24, 27), (113, 113, 122), (255, 255, 255)


@dataclass(frozen=True)
class Shown:
    """One column of a sheet.

    Args:
        name: heading.
        detail: subheading, such as a strength.
        images: ``(N, H, W, C)`` with 1, 3 or 4 channels, the same N, H and W in every column.
        apart: whether there is a wider gap before it.
    """

    name: str
    detail: str
    images: Pixels
    apart: bool = False


def short(text: object, length: int = 16) -> str:
    """Text on one line, truncated to ``length`` characters.

    Example:
        >>> short("Iris versicolor var. alba", 12)
        'Iris versic…'
    """
    line = " ".join(str(text).split())
    return line if len(line) <= length else line[: length - 1] + "…"


def sheet(columns: Sequence[Shown]) -> Pixels:
    """One image of all columns with headings; small images are enlarged by an integer factor.

    Returns:
        ``(H, W, 3)``.

    Example:
        >>> tiles = np.zeros((4, 28, 28, 1), np.uint8)
        >>> sheet([Shown("original", "", tiles), Shown("blur", "2", tiles, apart=True)]).shape
        (430, 224, 3)
    """
    from PIL import Image, ImageDraw, ImageFont

    font = ImageFont.load_default(_FONT)
    tiles = [_tiles(column.images) for column in columns]
    n, high, wide, _ = tiles[0].shape
    lengths = [max(int(np.ceil(font.getlength(text))) for text in (c.name, c.detail)) for c in columns]
    line = _FONT + 5
    top = _PAD + 2 * line + _GAP
    left, places = _PAD, []
    for column, length in zip(columns, lengths, strict=True):
        left += _BREAK if column.apart else 0
        places.append((left, max(wide, length)))
        left += max(wide, length) + _GAP
    page = Image.new("RGB", (left - _GAP + _PAD, top + n * (high + _GAP) - _GAP + _PAD), _PAPER)
    draw = ImageDraw.Draw(page)
    for column, images, (start, width) in zip(columns, tiles, places, strict=True):
        draw.text((start + width / 2, _PAD), column.name, _INK, font, anchor="ma")
        draw.text((start + width / 2, _PAD + line), column.detail, _FAINT, font, anchor="ma")
        for k, image in enumerate(images):
            page.paste(Image.fromarray(image), (start + (width - wide) // 2, top + k * (high + _GAP)))
    return np.asarray(page)


def with_labels(image: Pixels, rows: Sequence[str]) -> Pixels:
    """A grid with labels to the left of its rows.

    Args:
        image: ``(H, W, C)``, the grid.
        rows: labels of the rows, which have equal height.

    Returns:
        ``(H, W + space, 3)``.

    Example:
        >>> with_labels(np.zeros((62, 120, 1), np.uint8), ["cat", "dog"]).shape[::2]
        (62, 3)
    """
    from PIL import Image, ImageDraw, ImageFont

    font = ImageFont.load_default(_FONT)
    texts = [short(row, 24) for row in rows]
    space = max(int(np.ceil(font.getlength(text))) for text in texts) + 2 * _GAP
    (grid,) = _coloured(image[None])
    page = Image.new("RGB", (space + grid.shape[1], len(grid)), _PAPER)
    draw = ImageDraw.Draw(page)
    for k, text in enumerate(texts):
        draw.text((space - _GAP, (k + 0.5) * len(grid) / len(rows)), text, _INK, font, anchor="rm")
    page.paste(Image.fromarray(grid), (space, 0))
    return np.asarray(page)


def _coloured(images: Pixels) -> Pixels:
    """``(N, H, W, C)`` as RGB on a white background."""
    if images.shape[-1] == 4:
        alpha = images[..., 3:] / 255
        images = np.round(images[..., :3] * alpha + 255 * (1 - alpha)).astype(np.uint8)
    return np.ascontiguousarray(np.broadcast_to(images, (*images.shape[:3], 3)))


def _tiles(images: Pixels) -> Pixels:
    """``(N, H, W, C)`` as RGB on a white background, at the size of the sheet."""
    images = _coloured(images)
    times = _TILE / max(images.shape[1:3])
    if times > 1:
        return enlarge(images, round(times))
    if max(images.shape[1:3]) <= _LARGEST:
        return images
    return np.stack([_smaller(image) for image in images])


def _smaller(image: Pixels) -> Pixels:
    from PIL import Image

    thumbnail = Image.fromarray(np.ascontiguousarray(image))
    thumbnail.thumbnail((_LARGEST, _LARGEST), Image.Resampling.LANCZOS)
    return np.asarray(thumbnail)

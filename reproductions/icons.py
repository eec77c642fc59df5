"""Draws the emoji of a colour font as pictures of 64x64 on white, as data for ``photos.py``.

    python reproductions/icons.py NotoColorEmoji.ttf icons/

The font is that of Google's Noto project (Debian: fonts-noto-color-emoji). Flags, skin tones, letters and
digits are left out.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from fontTools.ttLib import TTFont
from PIL import Image, ImageChops, ImageDraw, ImageFont

SIZE = 109  # pixels of the bitmaps in the font
MARGIN = 4
FIRST, LAST = 0x203C, 0x1FFFF
LEFT_OUT = (range(0x1F3FB, 0x1F400), range(0x1F1E6, 0x1F200), range(0xFE00, 0xFE10))  # skin tones, flags, variants


def codes(font: Path) -> list[int]:
    """The code points of its emoji."""
    known = sorted(TTFont(font).getBestCmap())
    return [code for code in known if FIRST <= code <= LAST and not any(code in left for left in LEFT_OUT)]


def drawn(code: int, font: ImageFont.FreeTypeFont, side: int) -> Image.Image | None:
    """The emoji in the middle of a white square; None if the font shows nothing."""
    page = Image.new("RGB", (2 * SIZE, 2 * SIZE), "white")
    ImageDraw.Draw(page).text((0, 0), chr(code), font=font, embedded_color=True)
    box = ImageChops.invert(page.convert("L")).getbbox()
    if box is None:
        return None
    width, height = box[2] - box[0], box[3] - box[1]
    square = max(width, height) + 2 * MARGIN
    icon = Image.new("RGB", (square, square), "white")
    icon.paste(page.crop(box), ((square - width) // 2, (square - height) // 2))
    return icon.resize((side, side), Image.Resampling.LANCZOS)


def main() -> None:
    """Writes a PNG for each emoji."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("font", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--side", type=int, default=64)
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    font, count = ImageFont.truetype(str(options.font), SIZE), 0
    for code in codes(options.font):
        if (icon := drawn(code, font, options.side)) is not None:
            icon.save(options.folder / f"u{code:04x}.png")
            count += 1
    print(f"{options.folder}: {count} icons")


if __name__ == "__main__":
    main()

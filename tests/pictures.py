"""Folders of pictures with everything in them that goes wrong: the same bytes every time."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
from PIL import Image

HEIGHT, WIDTH = 37, 53
"""Of the good pictures: odd, and not square."""

GOOD = 24

PASSED_OVER = {
    "loop": "a link to a folder above it, a loop",
    "elsewhere": "a link to a folder",
    "nowhere.png": "a link to nothing",
    "pipe.png": "not a regular file",
    ".hidden.png": "hidden",
    "Thumbs.db": "a file of the operating system",
    "._00.png": "a file of the operating system",
    "notes.txt": "not a picture by its extension",
}
"""What :func:`odd_folder` holds beside pictures, and why each is not read."""

BAD = ("cut.jpg", "empty.png", "page.jpg")
"""Pictures by their names that cannot be decoded."""


def scene(seed: int, height: int = HEIGHT, width: int = WIDTH) -> np.ndarray:
    """A smooth colour picture ``(height, width, 3)`` that is like no other: a few soft waves, and some grain."""
    random = np.random.default_rng([seed, 1])
    y, x = np.mgrid[:height, :width] / max(height, width)
    waves = np.zeros((height, width, 3))
    for _ in range(6):
        across, up, phase = random.uniform(-9, 9), random.uniform(-9, 9), random.uniform(0, 6.3)
        waves += np.sin(across * x + up * y + phase)[..., None] * random.uniform(-1, 1, 3)
    waves += random.normal(0, 0.15, waves.shape)
    low, high = waves.min(), waves.max()
    return np.round(20 + 215 * (waves - low) / (high - low)).astype(np.uint8)


def save(array: np.ndarray, path: Path, **options: object) -> Path:
    """Writes an array as a picture, making its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path, **options)
    return path


def odd_folder(root: Path) -> Path:
    """A flat folder of 37x53 colour pictures with odd and broken ones among them.

    24 good PNG files; ``deep.png`` (16-bit grey), ``ink.jpg`` (CMYK), ``turned.jpg`` (on its side by EXIF),
    ``clear.png`` (transparent), ``moving.gif`` (two frames), ``flat.png`` (one colour), ``again.png`` (a copy of
    ``00.png``), ``lighter.png`` (``01.png``, brighter); :data:`BAD`, which cannot be read; and :data:`PASSED_OVER`.
    """
    root.mkdir(parents=True)
    for i in range(GOOD):
        save(scene(i), root / f"{i:02}.png")
    deep = scene(100)[..., 0].astype(np.uint16) * 257
    Image.fromarray(deep).save(root / "deep.png")
    Image.fromarray(scene(101)).convert("CMYK").save(root / "ink.jpg")
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(np.rot90(scene(102)).copy()).save(root / "turned.jpg", exif=exif)
    clear = np.dstack([scene(103), np.full((HEIGHT, WIDTH), 255, np.uint8)])
    clear[:10, :10, 3] = 0
    save(clear, root / "clear.png")
    frames = [Image.fromarray(scene(k)).quantize(32) for k in (104, 105)]
    frames[0].save(root / "moving.gif", save_all=True, append_images=frames[1:], duration=100)
    save(np.full((HEIGHT, WIDTH, 3), 90, np.uint8), root / "flat.png")
    save(scene(0), root / "again.png", compress_level=1)
    save((scene(1) * 0.8 + 45).astype(np.uint8), root / "lighter.png")
    whole = save(scene(106), root / "cut.jpg", quality=90).read_bytes()
    (root / "cut.jpg").write_bytes(whole[: len(whole) * 6 // 10])
    (root / "empty.png").write_bytes(b"")
    (root / "page.jpg").write_text("<html>404 not found</html>")
    _beside(root)
    return root


def _beside(root: Path) -> None:
    outside = root.parent / f"{root.name}-outside"
    save(scene(107), outside / "other.png")
    (root / "loop").symlink_to(root)
    (root / "elsewhere").symlink_to(outside)
    (root / "nowhere.png").symlink_to(root / "gone.png")
    os.mkfifo(root / "pipe.png")
    save(scene(108), root / ".hidden.png")
    (root / "Thumbs.db").write_bytes(b"\xd0\xcf")
    (root / "._00.png").write_bytes(b"\0\5\x16\7")
    (root / "notes.txt").write_text("not a picture")


def class_folder(root: Path, counts: dict[str, int], test: int = 0, shared: int = 0) -> Path:
    """A folder a class under ``train`` (and ``test``), ``shared`` of the test pictures being copies of train's."""
    seed = 1000
    for label, count in counts.items():
        for i in range(count):
            save(scene(seed + i), root / "train" / label / f"{i:03}.png")
        for i in range(test):
            source = seed + i if i < shared else seed + 500 + i
            save(scene(source), root / "test" / label / f"{i:03}.bmp")
        seed += 1000
    return root

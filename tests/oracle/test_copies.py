"""Near copies: what must be found, what must not, and that no pair is passed over."""

from __future__ import annotations

import io
import os
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pictures import scene
from sandglass.census.copies import BARS, Near, exact_groups, near_pairs
from sandglass.census.look import look_at
from sandglass.data.load import load_data

Picture = Image.Image


def jpeg(image: Picture, quality: int) -> Picture:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality)
    return Image.open(buffer).convert(image.mode)


def levels(image: Picture, gain: float, offset: float) -> Picture:
    return Image.fromarray(np.clip(np.asarray(image, np.float32) * gain + offset, 0, 255).astype(np.uint8))


COPY: dict[str, Callable[[Picture], Picture]] = {
    "brighter": lambda i: levels(i, 1, 20),
    "darker": lambda i: levels(i, 1, -20),
    "less contrast": lambda i: levels(i, 0.7, 30),
    "JPEG 90": lambda i: jpeg(i, 90),
    "JPEG 60": lambda i: jpeg(i, 60),
    "1 px smaller": lambda i: i.resize((i.width - 1, i.height - 1), Image.Resampling.BICUBIC),
    "1 px larger": lambda i: i.resize((i.width + 1, i.height + 1), Image.Resampling.BILINEAR),
    "twice as large": lambda i: i.resize((2 * i.width, 2 * i.height), Image.Resampling.BICUBIC),
}


def found(images: list[Picture]) -> Near:
    looks = [look_at(image)[0] for image in images]
    grey = np.stack([np.frombuffer(look.grey, np.uint8) for look in looks])
    colour = np.array([look.mean if len(look.mean) == 3 else look.mean * 3 for look in looks], np.float32)
    return near_pairs(grey, colour)


@cache
def every_digit() -> tuple[Picture, ...]:
    """Handwritten digits: the hard case, for some of them are nearly alike by chance."""
    folder = os.environ.get("SANDGLASS_DATA")
    known = bool(folder and Path(folder, "mnist").is_dir())
    x = load_data("mnist" if known else "digits", limit=2000, validation=0, test=0).train.x[:, 0].numpy()
    return tuple(Image.fromarray(a if known else a * 15) for a in x)


def digits(n: int) -> list[Picture]:
    return list(every_digit()[:n])


@pytest.mark.parametrize("kind", ["scenes", "digits"])
@pytest.mark.parametrize("change", COPY)
def test_copies_are_found(kind: str, change: str) -> None:
    """Recall of at least 0.95 for every change, among pictures of which each has one copy."""
    n = 100
    originals = [Image.fromarray(scene(i)) for i in range(n)] if kind == "scenes" else digits(n)
    if kind == "digits" and min(originals[0].size) < 20 and "px" in change:
        pytest.skip("one of 8 pixels is no small change; SANDGLASS_DATA names no folder with mnist")
    pairs = {tuple(p) for p in found(originals + [COPY[change](i) for i in originals]).pairs.tolist()}
    recall = sum((i, n + i) in pairs for i in range(n)) / n
    assert recall >= 0.95
    alarms = pairs - {(i, n + i) for i in range(n)}
    assert len(alarms) <= (0.04 * n if kind == "digits" else 0), sorted(alarms)[:5]


def test_different_digits_are_not_taken_for_copies() -> None:
    """Of 2,000 digits, two million pairs, at most 1 % of the digits stand in a pair."""
    images = digits(2000)
    near = found(images)
    assert len(set(near.pairs.ravel().tolist())) <= 0.01 * len(images)
    assert near.bar == BARS[-1], "so many are alike by chance that the strictest bar is used"


def test_a_lower_bar_would_take_digits_for_copies(monkeypatch: pytest.MonkeyPatch) -> None:
    """The control: with one low bar for all data, chance pairs would be reported."""
    monkeypatch.setattr("sandglass.census.copies.BARS", (0.95,))
    assert len(set(found(digits(1000)).pairs.ravel().tolist())) > 0.1 * 1000


@pytest.mark.parametrize("spread", [0.02, 0.3, 3.0])
def test_no_pair_is_passed_over(spread: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """The sorted search finds exactly the pairs that comparing each with each finds."""
    monkeypatch.setattr("sandglass.census.copies._BLOCK", 16)  # many blocks and pieces
    random = np.random.default_rng(0)
    centres = random.normal(size=(12, 256))
    x = centres[random.integers(0, 12, 400)] + spread * random.normal(size=(400, 256))
    grey = np.clip(128 + 30 * x, 0, 255).astype(np.uint8)
    near = near_pairs(grey, np.zeros((400, 3), np.float32))
    unit = grey - grey.mean(1, keepdims=True)
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    all_pairs = np.argwhere(np.triu(unit @ unit.T >= near.bar, 1))
    assert sorted(map(tuple, near.pairs.tolist())) == sorted(map(tuple, all_pairs.tolist()))
    assert (np.diff(near.similarity) <= 0).all()


def test_pairs_at_the_very_bar_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pictures on an arc, where neighbours are as far from each other as copies may be."""
    monkeypatch.setattr("sandglass.census.copies._BLOCK", 4)
    across, up = np.linalg.qr(np.random.default_rng(0).normal(size=(256, 2)))[0].T
    angle = np.linspace(0, 2.5, 60)[:, None]
    grey = np.round(128 + 400 * (np.cos(angle) * across + np.sin(angle) * up)).clip(0, 255).astype(np.uint8)
    near = near_pairs(grey, np.zeros((60, 3), np.float32))
    unit = grey - grey.mean(1, keepdims=True)
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    assert sorted(map(tuple, near.pairs.tolist())) == [
        tuple(p) for p in np.argwhere(np.triu(unit @ unit.T >= near.bar, 1)).tolist()
    ]
    assert len(near.pairs) > 50


def test_another_colour_is_another_picture() -> None:
    red, blue = (np.zeros((20, 20, 3), np.uint8) for _ in range(2))
    ramp = np.linspace(0, 200, 20)
    red[..., 0], blue[..., 2] = ramp / 0.299 / 3.4, ramp / 0.114 / 8.8
    pair = [Image.fromarray(red), Image.fromarray(blue)]
    assert len(found(pair).pairs) == 0
    assert len(found([p.convert("L") for p in pair]).pairs) == 1, "the control: in grey they are alike"


def test_noise_on_nothing_is_no_copy() -> None:
    """Pictures without contrast correlate by rounding alone."""
    flat = np.full((2, 256), 100, np.uint8)
    flat[:, 0] = 101
    assert len(near_pairs(flat, np.zeros((2, 3), np.float32)).pairs) == 0


@pytest.mark.parametrize("n", [0, 1])
def test_few_pictures_have_no_pairs(n: int) -> None:
    assert near_pairs(np.zeros((n, 256), np.uint8), np.zeros((n, 3), np.float32)).pairs.shape == (0, 2)


def test_thousands_that_are_all_alike_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sandglass.census.copies._MANY", 1000)
    monkeypatch.setattr("sandglass.census.copies._BLOCK", 16)
    random = np.random.default_rng(0)
    grey = np.clip(np.arange(256) + random.normal(0, 2, (400, 256)), 0, 255).astype(np.uint8)
    near = near_pairs(grey, np.zeros((400, 3), np.float32))
    assert not near.whole
    assert len(near.pairs) < 400 * 399 / 2 / 2


def test_equal_pixels_are_equal_whatever_the_file(tmp_path: Path) -> None:
    image = Image.fromarray(scene(1))
    names = ["a.png", "b.bmp", "c.tiff", "d.webp"]
    for name in names:
        image.save(tmp_path / name, **({"lossless": True} if name.endswith("webp") else {}))
    image.putpixel((0, 0), (1, 2, 3))
    image.save(tmp_path / "other.png")
    digests = [look_at(tmp_path / name)[0].digest for name in [*names, "other.png"]]
    assert exact_groups(digests) == [[0, 1, 2, 3]]


def test_the_same_bytes_in_another_shape_are_another_picture() -> None:
    values = np.arange(6, dtype=np.uint8)
    lying, standing = (look_at(Image.fromarray(values.reshape(shape)))[0] for shape in ((2, 3), (3, 2)))
    assert lying.digest != standing.digest

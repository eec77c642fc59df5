"""Every mode and depth of pictures read right; beside each the plain conversion, which gets it wrong."""

from __future__ import annotations

import io
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageCms

import sandglass
from sandglass import api
from sandglass.app.main import main
from sandglass.data.load import load_data
from sandglass.data.sources import images
from sandglass.data.transform import ImageTransform
from sandglass.errors import ConfigError, DataError

RAMP = np.arange(65536, dtype=np.uint16).reshape(256, 256)


def only(source, **options):
    """The examples of a source, all in train."""
    return load_data(source, validation=0, test=0, **options)


def pixels(data) -> np.ndarray:
    """The one picture, ``(H, W)`` or ``(H, W, C)``."""
    return data.transform.inverse(data.train.x[0])


def raw_tiff(path: Path, values: np.ndarray, **tags: tuple[int, int]) -> Path:
    """A grey TIFF of one strip, little-endian, with tags of one's own: ``number=(type, value)``."""
    height, width = values.shape
    body = values.tobytes()
    bits = values.dtype.itemsize * 8
    entries = {256: (4, width), 257: (4, height), 258: (3, bits), 259: (3, 1), 262: (3, 1), 273: (4, 8), 277: (3, 1),
               278: (4, height), 279: (4, len(body))} | {int(k[1:]): v for k, v in tags.items()}  # fmt: skip
    listed = b"".join(struct.pack("<HHLL", k, kind, 1, value) for k, (kind, value) in sorted(entries.items()))
    head = struct.pack("<2sHL", b"II", 42, 8 + len(body))
    path.write_bytes(head + body + struct.pack("<H", len(entries)) + listed + bytes(4))
    return path


@pytest.mark.parametrize("mode", ["I;16 png", "I;16 tif", "I;16B tif", "I tif", "I pgm"])
def test_deep_grey_keeps_all_its_levels(tmp_path, mode):
    kind, suffix = mode.split()
    path = tmp_path / f"a.{suffix}"
    if suffix == "pgm":
        path.write_bytes(b"P5 256 256 65535\n" + RAMP.astype(">u2").tobytes())
    elif kind == "I;16B":
        Image.frombytes(kind, (256, 256), RAMP.astype(">u2").tobytes()).save(path)
    else:
        Image.fromarray(RAMP.astype(np.int32) if kind == "I" else RAMP).save(path)
    x = pixels(only(path))
    assert np.abs(x / 255 - RAMP / 65535).max() <= 0.5 / 255 + 1e-9
    assert (np.bincount(x.ravel(), minlength=256) >= 128).all()  # 256 even levels
    with Image.open(path) as image:  # the control
        naive = np.asarray(image.convert("L"))
    assert kind == "I;16B" or (naive == 255).mean() > 0.99 or np.abs(naive / 255 - RAMP / 65535).max() > 0.5 / 255


def test_twelve_bits_in_sixteen_are_read_by_what_is_declared(tmp_path):
    values = np.linspace(0, 4095, 64).round().astype("<u2").reshape(8, 8)
    declared = only(raw_tiff(tmp_path / "a.tif", values, _281=(3, 4095)))
    assert np.abs(pixels(declared) / 255 - values / 4095).max() <= 0.5 / 255 + 1e-9
    assert "1 picture: 12-bit grey scaled to 8 bits" in declared.notes
    found = only(raw_tiff(tmp_path / "b.tif", values, _281=(3, 3517)))  # a largest value found is no depth
    assert pixels(found).max() == round(4095 / 257)  # the control, too: without the tag all is dark
    given = only(tmp_path / "b.tif", value_range=(0, 4095))
    assert np.array_equal(pixels(given), pixels(declared))
    liar = raw_tiff(tmp_path / "c.tif", values * 2, _281=(3, 4095))
    with pytest.raises(DataError, match=r"grey values from 0 to 8190 do not fit 12 bits; give .*--value-range"):
        only(liar)


def test_floats_need_a_range(tmp_path):
    values = np.linspace(-1000, 3000, 64, dtype=np.float32).reshape(8, 8)
    Image.fromarray(values).save(tmp_path / "a.tif")
    with pytest.raises(
        DataError, match=r"a picture of floats declares no range; .*value_range=.*--value-range LOW,HIGH"
    ):
        only(tmp_path)
    data = only(tmp_path, value_range=(-1000, 3000))
    assert np.abs(pixels(data) / 255 - (values + 1000) / 4000).max() <= 0.5 / 255 + 1e-6
    assert data.notes == ("1 picture: values from -1000 to 3000 scaled to 8 bits",)
    assert data.source["value_range"] == [-1000, 3000] and load_data(**data.source).fingerprint == data.fingerprint
    window = only(tmp_path, value_range=(0, 1000))
    assert np.abs(pixels(window) / 255 - np.clip(values / 1000, 0, 1)).max() <= 0.5 / 255 + 1e-6
    assert "1 picture: values below 0 or above 1000 clipped" in window.notes
    with Image.open(tmp_path / "a.tif") as image:
        naive = np.asarray(image.convert("L"))  # the control
    assert len(np.unique(naive)) < 10
    values[3, 3] = np.nan
    Image.fromarray(values).save(tmp_path / "b.tif")
    assert only(tmp_path, value_range=(-1000, 3000)).bad == (("b.tif", "it has missing or infinite values"),)


def test_the_range_travels_with_the_model(tmp_path):
    values = np.linspace(0, 2, 64, dtype=np.float32).reshape(8, 8)
    (tmp_path / "old").mkdir()
    for i in range(12):
        Image.fromarray(np.roll(values, i)).save(tmp_path / "old" / f"{i}.tif")
    words = ["--data", str(tmp_path / "old"), "--value-range", "0,2.0", "--epochs", "1", "--net", "mlp", "--no-report"]
    assert main(["train", "ae", *words, "--out", str(tmp_path / "run")]) == 0
    new = only(tmp_path / "old" / "0.tif", **api.reading_of(tmp_path / "run" / "model"))
    assert np.abs(pixels(new) / 255 - values / 2).max() <= 0.5 / 255 + 1e-6
    transform = api.transform_of(tmp_path / "run")
    assert transform.value_range == (0.0, 2.0) and ImageTransform.from_dict(transform.to_dict()) == transform
    older = {k: v for k, v in transform.to_dict().items() if k != "value_range"}  # as before there was such a thing
    assert ImageTransform.from_dict(older).value_range is None


@pytest.mark.parametrize(
    "value", [3, (1, 0), (0, 0), (0, float("nan")), ("a", "b"), (0, 1, 2), "ab", (0, float("inf"))]
)
def test_ranges_that_make_no_sense(tmp_path, value):
    with pytest.raises(ConfigError, match="value_range must be two numbers, the lower first"):
        load_data("digits", value_range=value)


@pytest.mark.parametrize("source", ["digits", np.ones((9, 5)), [[1.0, 2.0], [3.0, 4.0]]])
def test_a_range_is_for_pictures(source):
    with pytest.raises(ConfigError, match="value_range is for pictures"):
        load_data(source, value_range=(0, 9))


def test_a_range_that_changes_no_picture_is_said(tmp_path):
    Image.new("L", (6, 6), 9).save(tmp_path / "a.png")
    assert any("value_range changed no picture" in note for note in only(tmp_path, value_range=(0, 9)).notes)


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_bits_that_no_picture_uses_are_said(tmp_path, suffix):
    for i, top in enumerate((4095, 1000, 3000)):
        Image.fromarray(np.linspace(0, top, 64).reshape(8, 8).astype(np.uint16)).save(tmp_path / f"{i}.{suffix}")
    said = [note for note in load_data(tmp_path, validation=0, test=0).notes if "bits, so" in note]
    assert said == [
        "3 pictures: grey values need only 12 of 16 bits, so 17 of 256 levels are left; "
        "value_range=(0, 4095) (--value-range 0,4095) uses all"
    ]
    assert any("need only 12 of 16 bits" in f.message for f in sandglass.inspect(tmp_path).findings)
    ranged = load_data(tmp_path, validation=0, test=0, value_range=(0, 4095))
    assert not any("need only" in note for note in ranged.notes) and pixels(ranged).max() == 255
    Image.fromarray(np.full((8, 8), 65535, np.uint16)).save(tmp_path / f"white.{suffix}")
    assert not any("need only" in note for note in load_data(tmp_path, validation=0, test=0).notes)


def ink_profile(paper: int = 255, per_ink: tuple[int, ...] = (64, 64, 64, 64)) -> bytes:
    """A small ICC profile of four inks: Lab from a table of the 16 corners, each ink taking some lightness away."""

    def lab(corner: int) -> bytes:
        dark = sum(per_ink[i] for i in range(4) if corner >> (3 - i) & 1)
        return bytes([max(0, paper - dark), 128, 128])

    def tag(kind: bytes, body: bytes) -> bytes:
        return kind + bytes(4) + body

    identity = bytes(range(256))
    matrix = struct.pack(">9l", *(65536 * (i % 4 == 0) for i in range(9)))
    table = b"".join(lab(corner) for corner in range(16))
    lut = tag(b"mft1", bytes([4, 3, 2, 0]) + matrix + identity * 4 + table + identity * 3)
    white = tag(b"XYZ ", struct.pack(">3l", 63190, 65536, 54061))
    text = tag(b"desc", struct.pack(">L", 5) + b"inks\0" + bytes(4 + 4 + 2 + 1 + 67))
    right = tag(b"text", b"none\0")
    tags = {b"A2B0": lut, b"desc": text, b"cprt": right, b"wtpt": white}
    at, listed, bodies = 128 + 4 + 12 * len(tags), b"", b""
    for name, body in tags.items():
        body += bytes(-len(body) % 4)
        listed += struct.pack(">4sLL", name, at + len(bodies), len(body))
        bodies += body
    header = struct.pack(">L4sL4s4s4s12s4s", 0, b"lcms", 0x02100000, b"prtr", b"CMYK", b"Lab ", bytes(12), b"acsp")
    header += bytes(28) + struct.pack(">3l", 63190, 65536, 54061) + bytes(48)
    whole = header + struct.pack(">L", len(tags)) + listed + bodies
    return struct.pack(">L", len(whole)) + whole[4:]


INKS = [(0, 255, 255, 0), (255, 0, 0, 0), (0, 0, 0, 255), (30, 60, 90, 20)]
PLAIN = [(255, 0, 0), (0, 255, 255), (0, 0, 0), (207, 180, 152)]


def inked(path: Path, inks: tuple[int, ...], **options) -> Path:
    Image.new("CMYK", (16, 16), inks).save(path, **({"quality": 100} if path.suffix == ".jpg" else {}), **options)
    return path


@pytest.mark.parametrize("suffix", [".jpg", ".tif"])
def test_cmyk(tmp_path, suffix):
    """JPEG files hold inks inverted, as Adobe does and everybody after it; TIFF files hold them as they are."""
    for inks, expected in zip(INKS, PLAIN, strict=True):
        data = only(inked(tmp_path / f"a{suffix}", inks))
        assert np.abs(pixels(data).astype(int) - expected).max() <= 3
        assert data.notes == ("1 picture: CMYK converted to RGB",)
    with Image.open(tmp_path / f"a{suffix}") as image:  # the control: what is in the file
        stored = image.tile[0][3][0] if suffix == ".jpg" else image.mode
    assert stored == ("CMYK;I" if suffix == ".jpg" else "CMYK")


@pytest.mark.parametrize("suffix", [".jpg", ".tif"])
def test_cmyk_goes_through_the_profile_that_a_file_brings(tmp_path, suffix):
    grey = ink_profile()
    path = inked(tmp_path / f"a{suffix}", (255, 0, 0, 0), icc_profile=grey)
    data = only(path)
    assert data.notes == ("1 picture: CMYK converted to RGB by their colour profile",)
    expected = ImageCms.profileToProfile(
        Image.new("CMYK", (1, 1), (255, 0, 0, 0)), ImageCms.ImageCmsProfile(io.BytesIO(grey)),
        ImageCms.createProfile("sRGB"), outputMode="RGB",
    ).getpixel((0, 0))  # fmt: skip
    assert max(expected) - min(expected) <= 3  # these inks are all grey
    assert np.abs(pixels(data).astype(int) - expected).max() <= 3
    with Image.open(path) as image:
        naive = image.convert("RGB").getpixel((0, 0))  # the control: cyan
    assert naive[0] < 5 and naive[1] > 250
    inked(path, (255, 0, 0, 0), icc_profile=grey[:200])
    assert only(path).notes == ("1 picture: CMYK converted to RGB without their colour profile, which is damaged",)


def test_alpha_equals_the_reference_over_white(tmp_path):
    colour, alpha = np.array([200, 40, 90]), 100
    expected = np.round(colour * alpha / 255 + 255 * (1 - alpha / 255))
    Image.new("RGBA", (4, 4), (*colour, alpha)).save(tmp_path / "rgba.png")
    Image.new("LA", (4, 4), (int(colour[0]), alpha)).save(tmp_path / "la.png")
    palette = Image.new("P", (4, 4), 1)
    palette.putpalette([0, 0, 0, *colour])
    palette.save(tmp_path / "p.png", transparency=bytes([255, alpha]))
    for name, value in (("rgba", expected), ("la", expected[0]), ("p", expected)):
        data = only(tmp_path / f"{name}.png")
        assert np.abs(pixels(data) - value).max() <= 1, name
        assert data.notes == ("1 picture: transparency composited on the background",)
        with images.quiet(), Image.open(tmp_path / f"{name}.png") as image:  # the control: colours that nobody sees
            assert np.abs(np.asarray(image.convert("RGB"))[0, 0] - expected).max() > 30
    grey = Image.new("L", (4, 4), 7)
    grey.save(tmp_path / "key.png", transparency=7)
    assert (pixels(only(tmp_path / "key.png")) == 255).all()


@pytest.mark.parametrize("suffix", [".gif", ".webp", ".png", ".tif"])
def test_of_an_animation_the_first_frame_is_taken(tmp_path, suffix):
    frames = [Image.new("RGB", (8, 8), (v, v, v)) for v in (10, 200, 90)]
    options = {} if suffix == ".tif" else {"duration": 50}
    frames[0].save(tmp_path / f"a{suffix}", save_all=True, append_images=frames[1:], **options)
    data = only(tmp_path)
    assert np.abs(pixels(data).astype(int) - 10).max() <= 1 and len(data.train) == 1
    assert "1 picture: several frames, only the first was read" in data.notes


def test_the_preview_in_a_phones_picture_is_no_second_one(tmp_path):
    first, preview = Image.new("RGB", (8, 8), (10, 10, 10)), Image.new("RGB", (4, 4), (200, 200, 200))
    first.save(tmp_path / "a.jpg", format="MPO", save_all=True, append_images=[preview])
    data = only(tmp_path)
    assert data.spec.shape == (3, 8, 8) and np.abs(pixels(data).astype(int) - 10).max() <= 2
    assert data.notes == ("1 picture: several frames, only the first was read",)


def test_another_format_than_the_name_says_is_noted(tmp_path):
    Image.new("RGB", (4, 4)).save(tmp_path / "a.jpg", format="PNG")
    Image.new("RGB", (4, 4), 9).save(tmp_path / "b.JPEG", format="JPEG")
    assert only(tmp_path).notes == ("1 picture: format does not match the file extension",)


def test_a_postscript_program_is_no_picture(tmp_path):
    program = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\nshowpage\n%%EOF\n"
    (tmp_path / "a.png").write_bytes(program)
    with pytest.raises(DataError, match="not a picture of a known format"):
        only(tmp_path)
    with Image.open(tmp_path / "a.png") as image:
        assert image.format == "EPS"  # the control: it would go to Ghostscript


def test_orientation_control(tmp_path):
    """Without the tag a turned picture lies on its side."""
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (40, 20)).save(tmp_path / "a.jpg", exif=exif)
    assert only(tmp_path).spec.shape == (3, 40, 20)
    with Image.open(tmp_path / "a.jpg") as image:
        assert np.asarray(image).shape == (20, 40, 3)


def test_lab_and_other_modes_come_out_right(tmp_path):
    assert images.normal(Image.new("YCbCr", (4, 4), (76, 85, 255)))[0].getpixel((0, 0)) == (254, 0, 0)
    Image.new("LAB", (4, 4), (136, 208, 195)).save(tmp_path / "a.tif")
    x = pixels(only(tmp_path)).astype(int)
    assert x[0, 0, 0] > 240 and x[0, 0, 1:].max() < 30  # red


def test_continuous_pictures_are_read_too():
    x = torch.rand(5, 1, 4, 4)
    assert torch.equal(only(x).train.x, x)

"""Folders of pictures: layouts, modes, sizes, and files that are broken or not files."""

from __future__ import annotations

import os
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from sandglass.data.load import load_data
from sandglass.data.transform import ImageTransform
from sandglass.errors import ConfigError, DataError, NotFoundError

RNG = np.random.default_rng(0)


def save(path: Path, shape=(12, 10, 3), **options) -> np.ndarray:
    path.parent.mkdir(parents=True, exist_ok=True)
    array = RNG.integers(0, 256, shape, np.uint8)
    Image.fromarray(array).save(path, **options)
    return array


def only(folder: Path, **options):
    """The examples of a folder, all in train."""
    return load_data(folder, validation=0, test=0, **options)


@pytest.mark.parametrize("shape", [(37, 53, 3), (28, 20), (1, 1, 3), (5, 7, 4)])
def test_flat_folder_keeps_pixels(tmp_path, shape):
    arrays = [save(tmp_path / f"{i:02}.png", shape) for i in range(20)]
    channels = {2: 1, 3: 3}[len(shape)] if len(shape) == 2 or shape[2] == 3 else 4
    data = only(tmp_path, channels=channels)
    assert data.spec.shape == (channels, *shape[:2])
    expected = np.stack(arrays)[..., None] if len(shape) == 2 else np.stack(arrays)
    assert np.array_equal(data.train.x.movedim(1, -1).numpy(), expected)
    assert np.array_equal(data.transform.inverse(data.train.batch(slice(0, 20)).x), np.stack(arrays))
    assert data.train.names[3] == "03.png"
    assert data.train.y is None


def test_class_folders(tmp_path):
    for i in range(20):
        save(tmp_path / "cat" / f"{i}.png")
        save(tmp_path / "dog" / "more" / f"{i}.png")
    data = load_data(tmp_path)
    assert data.classes == ("cat", "dog")
    assert data.spec.classes == 2
    for split in data.splits.values():
        assert split.y.bincount().tolist() == [len(split) // 2] * 2
        assert all(name.startswith(data.classes[y]) for name, y in zip(split.names, split.y.tolist(), strict=True))
    assert load_data(tmp_path, labels=False).train.y is None
    with pytest.raises(NotFoundError, match="class folders"):
        load_data(tmp_path, labels="cat")


@pytest.mark.parametrize("name", ["val", "valid", "Validation"])
def test_split_folders(tmp_path, name):
    for split, n in (("train", 8), (name, 3), ("test", 2)):
        for label in "ab":
            for i in range(n):
                save(tmp_path / split / label / f"{i}.png")
    data = load_data(tmp_path)
    assert {k: len(v) for k, v in data.splits.items()} == {"train": 16, "validation": 6, "test": 4}
    assert data.classes == ("a", "b")


def test_mixed_sizes_need_a_size(tmp_path):
    for i, side in enumerate([10, 10, 10, 14, 14, 20]):
        save(tmp_path / f"{i}.png", (side, 12, 3))
    with pytest.raises(DataError, match=r"10x12 \(3\), 14x12 \(2\), 20x12 \(1\).*--size 64.*fit"):
        load_data(tmp_path)
    data = only(tmp_path, size="10x12")
    assert data.spec.shape == (3, 10, 12)
    assert "3 pictures: cropped to 10x12" in data.notes
    assert only(tmp_path, size=8, fit="pad").spec.shape == (3, 8, 8)


def test_a_damaged_file_of_another_size_does_not_make_sizes_mixed(tmp_path):
    for i in range(3):
        save(tmp_path / f"{i}.png")
    save(tmp_path / "odd.png", (40, 40, 3))
    (tmp_path / "odd.png").write_bytes((tmp_path / "odd.png").read_bytes()[:900])
    data = only(tmp_path)
    assert len(data.train) == 3
    assert "1 file could not be read: odd.png" in data.notes[-1]


def test_fit_policies():
    white, black = (255, 255, 255), (0, 0, 0)
    picture = Image.new("RGB", (40, 20), black)
    picture.paste(white, (0, 0, 10, 20))
    crop = ImageTransform((20, 20), 3, "crop").apply(picture)
    assert crop.max() == 0  # the white stripe is cut off
    pad = ImageTransform((20, 20), 3, "pad", background=(255, 0, 0)).apply(picture)
    assert pad[:, 0, 0].tolist() == [255, 0, 0]
    assert pad[:, 10, 15].tolist() == [0, 0, 0]
    stretch = ImageTransform((20, 20), 3, "stretch").apply(picture)
    assert stretch[0, 10].float().mean() == pytest.approx(255 / 4, abs=3)


def test_16_bit_grey_is_scaled_not_clipped(tmp_path):
    ramp = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    Image.fromarray(ramp).save(tmp_path / "a.png")
    Image.fromarray(ramp).save(tmp_path / "b.tif")
    data = only(tmp_path)
    assert data.spec.shape == (1, 256, 256)
    error = (data.train.x[:, 0].double() / 255 - torch.from_numpy(ramp / 65535.0)).abs().max()
    assert error <= 0.5 / 255 + 1e-9
    assert "2 pictures: 16-bit grey scaled to 8 bits" in data.notes


def test_16_bit_pgm_and_big_endian_tiff(tmp_path):
    ramp = np.linspace(0, 65535, 64).astype(np.uint16).reshape(8, 8)
    (tmp_path / "a.pgm").write_bytes(b"P5 8 8 65535\n" + ramp.astype(">u2").tobytes())
    Image.frombytes("I;16B", (8, 8), ramp.astype(">u2").tobytes()).save(tmp_path / "b.tif")
    x = only(tmp_path).train.x[:, 0].double() / 255
    assert (x - torch.from_numpy(ramp / 65535.0)).abs().max() <= 1 / 255


def test_float_tiff_is_refused_with_the_reason(tmp_path):
    Image.fromarray(np.zeros((4, 4), np.float32)).save(tmp_path / "f.tif")
    with pytest.raises(DataError, match=r"f\.tif: a picture of floats declares no range"):
        only(tmp_path)


def test_exif_orientation(tmp_path):
    upright = np.zeros((16, 24, 3), np.uint8)
    upright[:8, :8] = 255
    t = Image.Transpose
    # What a viewer does for each tag is undone before saving.
    undo = {2: t.FLIP_LEFT_RIGHT, 3: t.ROTATE_180, 4: t.FLIP_TOP_BOTTOM, 5: t.TRANSPOSE, 6: t.ROTATE_90}
    undo |= {7: t.TRANSVERSE, 8: t.ROTATE_270}
    for tag in range(1, 9):
        image = Image.fromarray(upright)
        if tag > 1:
            image = image.transpose(undo[tag])
        exif = Image.Exif()
        exif[0x0112] = tag
        image.save(tmp_path / f"{tag}.png", exif=exif)
    data = only(tmp_path)
    assert data.spec.shape == (3, 16, 24)
    for x in data.train.x:
        assert np.array_equal(x.movedim(0, -1).numpy(), upright)


def test_alpha_is_laid_over_white(tmp_path):
    hidden = np.zeros((6, 6, 4), np.uint8)
    hidden[..., 0] = 255  # red where nobody can see it
    hidden[3:, :, 3] = 255
    Image.fromarray(hidden).save(tmp_path / "a.png")
    palette = Image.new("P", (6, 6), 1)
    palette.putpalette([0, 0, 0, 255, 0, 0])
    palette.save(tmp_path / "b.png", transparency=1)
    data = only(tmp_path)
    assert (data.train.x[0, :, :3] == 255).all()
    assert data.train.x[0, :, 3:].unique(dim=1).flatten().unique().tolist() == [0, 255]
    assert (data.train.x[1] == 255).all()
    assert "2 pictures: transparency composited on the background" in data.notes
    assert only(tmp_path, channels=4).train.x[0, 3, 0, 0] == 0


def test_grey_with_alpha_stays_grey(tmp_path):
    Image.fromarray(np.zeros((4, 4, 2), np.uint8)).save(tmp_path / "a.png")
    data = only(tmp_path)
    assert data.spec.shape == (1, 4, 4)
    assert (data.train.x == 255).all()


def test_cmyk_and_palette(tmp_path):
    Image.new("CMYK", (8, 8), (0, 255, 255, 0)).save(tmp_path / "a.jpg", quality=95)
    palette = Image.new("P", (8, 8), 1)
    palette.putpalette([0, 0, 0, 255, 0, 0])
    palette.save(tmp_path / "b.gif")
    x = only(tmp_path).train.x.float()
    for picture in x:
        assert (picture.mean((1, 2)) - torch.tensor([255.0, 0, 0])).abs().max() <= 4


def test_bilevel_pictures_are_grey(tmp_path):
    Image.new("1", (8, 8), 1).save(tmp_path / "a.png")
    Image.new("L", (8, 8), 7).save(tmp_path / "b.png")
    data = only(tmp_path)
    assert data.spec.shape == (1, 8, 8)
    assert data.train.x[:, 0, 0, 0].tolist() == [255, 7]


def test_animations_give_their_first_frame(tmp_path):
    frames = [Image.new("L", (8, 8), v) for v in (10, 200)]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    data = only(tmp_path)
    assert data.train.x.float().mean() == pytest.approx(10, abs=1)
    assert any("several frames" in note for note in data.notes)


def bomb() -> bytes:
    """A PNG whose header claims 13,300 x 13,300 pixels."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", 13300, 13300, 1, 0, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(99))) + chunk(b"IEND", b"")
    )


def test_broken_files_are_left_out_and_named(tmp_path):
    whole = [save(tmp_path / f"{i}.png") for i in range(3)]
    png = (tmp_path / "0.png").read_bytes()
    save(tmp_path / "9.jpg", quality=95)
    jpg = (tmp_path / "9.jpg").read_bytes()
    (tmp_path / "9.jpg").unlink()
    for percent in (1, 10, 50, 90):
        (tmp_path / f"cut{percent}.png").write_bytes(png[: len(png) * percent // 100])
        (tmp_path / f"cut{percent}.jpg").write_bytes(jpg[: len(jpg) * percent // 100])
    (tmp_path / "empty.png").touch()
    (tmp_path / "page.jpg").write_text("<html>404</html>")
    Image.fromarray(whole[0]).save(tmp_path / "other.png", format="PCX")  # a decoder that is not among the allowed
    (tmp_path / "bomb.png").write_bytes(bomb())
    data = only(tmp_path)
    assert np.array_equal(data.train.x.movedim(1, -1).numpy(), np.stack(whole))
    assert any(note.startswith("12 files could not be read: bomb.png: ") for note in data.notes)


def test_nothing_readable(tmp_path):
    with pytest.raises(DataError, match="holds no picture"):
        load_data(tmp_path)
    (tmp_path / "bomb.png").write_bytes(bomb())
    with pytest.raises(DataError, match=r"bomb\.png: 13300x13300, over 50 megapixels"):
        load_data(tmp_path, size=8)
    with pytest.raises(DataError, match="None of the 1 pictures"):
        load_data(tmp_path)
    with pytest.raises(NotFoundError, match=r"Known datasets: .*digits, .*mnist"):
        load_data(tmp_path / "nowhere")


@pytest.mark.timeout(20)
def test_what_is_no_picture_is_ignored(tmp_path):
    save(tmp_path / "a.png")
    (tmp_path / "__MACOSX").mkdir()
    for name in ("._a.png", ".DS_Store", "Thumbs.db", "__MACOSX/b.png", "readme.txt"):
        (tmp_path / name).write_text("not a picture")
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "dangling.png").symlink_to(tmp_path / "gone.png")
    (tmp_path / "loop").symlink_to(tmp_path, target_is_directory=True)
    data = only(tmp_path)
    assert data.train.names == ("a.png",)
    assert not any("could not" in note for note in data.notes)


def test_names_of_any_bytes(tmp_path):
    names = [
        "a b.png",
        "-x.png",
        "é.png",
        "e\u0301.png",
        "🦔.png",
        "a\nb.png",
        "n" * 251 + ".png",
        os.fsdecode(b"\xff\xfe.png"),
    ]
    for name in names:
        save(tmp_path / name)
    data = only(tmp_path)
    assert len(data.train) == len(names)
    assert all(n.encode("utf-8") and n.isprintable() for n in data.train.names)
    order = sorted(names, key=os.fsencode)
    assert [n[0] for n in data.train.names[:3]] == [n[0] for n in order[:3]]


def test_copies_stay_in_one_split(tmp_path):
    for i in range(10):
        save(tmp_path / f"{i}.png", (4, 4, 3))
        for copy in range(5):
            (tmp_path / f"{i}-{copy}.png").write_bytes((tmp_path / f"{i}.png").read_bytes())
    for seed in range(20):
        data = load_data(tmp_path, seed=seed, validation=0.2, test=0.2)
        contents = [{x.numpy().tobytes() for x in split.x} for split in data.splits.values()]
        assert len(set.union(*contents)) == sum(map(len, contents)) == 10
    assert any(note.startswith("50 of the training pictures are exact copies") for note in data.notes)


def test_source_makes_the_same_again(tmp_path):
    for i in range(12):
        save(tmp_path / f"{i}.png")
    data = load_data(os.path.relpath(tmp_path), size=(6, 8), fit="stretch", seed=3)
    assert data.source == {"source": str(tmp_path), "size": [6, 8], "fit": "stretch", "seed": 3}
    again = load_data(**data.source)
    assert again.fingerprint == data.fingerprint
    assert again.train.names == data.train.names
    array = np.asarray(Image.open(tmp_path / "3.png")).copy()
    array[0, 0, 0] ^= 255
    Image.fromarray(array).save(tmp_path / "3.png")
    assert load_data(**data.source).fingerprint != data.fingerprint


def test_a_trained_models_transform_reads_one_new_picture(tmp_path):
    save(tmp_path / "photo.png", (50, 60, 4))
    data = only(tmp_path / "photo.png", transform=ImageTransform((8, 8), 1).to_dict())
    assert data.spec.shape == (1, 8, 8)
    assert len(data.train) == 1
    with pytest.raises(ConfigError, match="belong to the transform"):
        load_data(tmp_path / "photo.png", size=3, transform=ImageTransform((8, 8), 1))


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"size": 0}, "size"), ({"size": "axb"}, "size"), ({"size": (1, 2, 3)}, "size"), ({"fit": "squash"}, "fit"),
        ({"channels": 2}, "channels"), ({"validation": 1.0}, "validation"), ({"validation": 0.6, "test": 0.5}, "leave"),
        ({"limit": 0}, "limit"), ({"test": float("nan")}, "test"), ({"seed": 0.5}, "seed"),
    ],
)  # fmt: skip
def test_options_that_make_no_sense(options, word):
    with pytest.raises(ConfigError, match=word):
        load_data("digits", **options)


def png(colour: int, channels: int, value: bytes) -> bytes:
    """A 4x4 PNG of 16 bits a value, which Pillow cannot write."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    rows = zlib.compress((b"\0" + value * 4 * channels) * 4)
    header = struct.pack(">IIBBBBB", 4, 4, 16, colour, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def test_16_bit_colour_is_noted_and_grey_with_alpha_stays_grey(tmp_path):
    (tmp_path / "rgb.png").write_bytes(png(2, 3, b"\x80\xff"))
    data = only(tmp_path)
    assert data.spec.shape == (3, 4, 4)
    assert "1 picture: 16-bit colour reduced to 8 bits" in data.notes and len(data.notes) < 3
    (tmp_path / "rgb.png").write_bytes(png(2, 3, b"\x0f\xff"))
    assert any("colours need only 12 of 16 bits, so 17 of 256 levels are left" in note for note in only(tmp_path).notes)
    (tmp_path / "rgb.png").write_bytes(png(4, 2, b"\xff\xff"))
    data = only(tmp_path)
    assert data.spec.shape == (1, 4, 4)
    assert (data.train.x == 255).all()

"""Files that are cut, changed, huge or hostile: noticed, named, and never in the way of the others."""

from __future__ import annotations

import io
import os
import re
import resource
import tracemalloc
import warnings
import zipfile

import numpy as np
import pytest
from PIL import Image
from test_data_images import bomb

from sandglass.app.main import main
from sandglass.data.load import load_data
from sandglass.data.sources import archives
from sandglass.errors import DataError

RNG = np.random.default_rng(0)
NOISE = RNG.integers(0, 256, (64, 64), np.uint8)


def only(source, **options):
    """The examples of a source, all in train."""
    return load_data(source, validation=0, test=0, **options)


def encoded(suffix: str, picture: np.ndarray = NOISE) -> bytes:
    buffer = io.BytesIO()
    kind = {".jpg": "JPEG", ".tif": "TIFF"}.get(suffix, suffix[1:].upper())
    Image.fromarray(picture).save(buffer, kind, **({"lossless": True} if suffix == ".webp" else {}))
    return buffer.getvalue()


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp", ".tif", ".bmp", ".gif"])
def test_every_cut_is_noticed(tmp_path, suffix):
    whole = encoded(suffix)
    (tmp_path / f"whole{suffix}").write_bytes(whole)
    cuts = {percent: len(whole) * percent // 100 for percent in (0, 1, 10, 50, 90, 99)}
    for percent, length in cuts.items():
        (tmp_path / f"{percent}{suffix}").write_bytes(whole[:length])
    data = only(tmp_path)
    assert data.train.names == (f"whole{suffix}",)
    assert sorted(name for name, _ in data.bad) == sorted(f"{percent}{suffix}" for percent in cuts)
    if suffix == ".jpg":
        with Image.open(tmp_path / "90.jpg") as image:
            image.verify()  # the control: it has nothing to say


def test_one_changed_byte_changes_the_fingerprint(tmp_path):
    """E10: a decoder does not mind a wrong byte in a JPEG; the fingerprint of the data does."""
    picture = RNG.integers(0, 256, (32, 32), np.uint8)
    whole = encoded(".jpg", picture)
    path = tmp_path / "a.jpg"
    path.write_bytes(whole)
    before = only(path).fingerprint
    start = whole.index(b"\xff\xda") + 12
    decoded = noticed = 0
    for at in RNG.choice(np.arange(start, len(whole) - 2), 200, replace=False).tolist():
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 1 << at % 8]) + whole[at + 1 :])
        try:
            noticed += only(path).fingerprint != before
            decoded += 1
        except DataError:
            noticed += 1
    assert noticed == 200
    assert decoded > 100  # the control: that it decodes says nothing


def test_a_bomb_is_refused_from_its_header(tmp_path):
    path = tmp_path / "bomb.png"
    path.write_bytes(bomb())
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(DataError, match="13300x13300, over 50 megapixels"):
        only(path)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50 * 1024
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with Image.open(path) as image:  # the control: a warning and nothing else
            assert image.size == (13300, 13300)


def test_bombs_of_arrays_are_refused_from_their_headers(tmp_path):
    zeros = np.zeros((140, 1024, 1024), np.uint8)
    np.savez_compressed(tmp_path / "zeros.npz", x=zeros)
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "<f8", "fortran_order": False, "shape": (2**50,)})
    with zipfile.ZipFile(tmp_path / "shape.npz", "w") as archive:
        archive.writestr("x.npy", header.getvalue())
    (tmp_path / "shape.npy").write_bytes(header.getvalue())
    del zeros
    tracemalloc.start()
    for name, match in (("zeros.npz", "would unpack to 140 MiB, like a decompression bomb"),
                        ("shape.npz", "declares more values than it holds"),
                        ("shape.npy", "cannot be read as NumPy data")):  # fmt: skip
        with pytest.raises(DataError, match=match):
            load_data(tmp_path / name)
    assert tracemalloc.get_traced_memory()[1] < 20 * 2**20
    with np.load(tmp_path / "zeros.npz") as archive:  # the control
        assert archive["x"].nbytes > 1000 * 2**17 and tracemalloc.get_traced_memory()[1] > 2**27
    tracemalloc.stop()
    np.savez_compressed(tmp_path / "small.npz", x=np.zeros((50, 16, 16), np.uint8))
    assert len(only(tmp_path / "small.npz").train) == 50


def test_the_order_of_a_folder_is_that_of_its_names(tmp_path, monkeypatch):
    """E26: file systems list in orders of their own."""
    for c in "ba":
        (tmp_path / c).mkdir()
        for i in RNG.permutation(12).tolist():
            (tmp_path / c / f"{i}.png").write_bytes(encoded(".png", RNG.integers(0, 256, (4, 4), np.uint8)))
    expected = load_data(tmp_path)
    scandir = os.scandir

    class Backwards:
        def __init__(self, path):
            with scandir(path) as entries:
                self.entries = sorted(entries, key=lambda e: e.name, reverse=True)

        def __enter__(self):
            return iter(self.entries)

        def __exit__(self, *_):
            pass

    with os.scandir(tmp_path / "a") as entries:
        first = next(entries).name
    monkeypatch.setattr(os, "scandir", Backwards)
    with os.scandir(tmp_path / "a") as entries:
        assert next(entries).name == "9.png" != first or first == "9.png"
    again = load_data(tmp_path)
    assert again.fingerprint == expected.fingerprint and again.train.names == expected.train.names


def test_mixed_sizes_are_told_the_same_each_time(tmp_path):
    """E15: seven sizes, one report."""
    for i in range(21):
        (tmp_path / f"{i}.png").write_bytes(encoded(".png", np.zeros((4 + i % 7, 5), np.uint8)))
    told = set()
    for _ in range(3):
        with pytest.raises(DataError, match="have 7 sizes") as caught:
            load_data(tmp_path)
        told.add(str(caught.value))
    assert len(told) == 1 and "4x5 (3), 5x5 (3)" in told.pop()


NAMES = [
    "A.png", "a.png", "é.png", "e\u0301.png", "🦔.png", "a b.png", "a\nb.png", "-x.png", "'\"<b>.png", "%s{}.png",
    "n" * 251 + ".png", os.fsdecode(b"\xff\xfe.png"),
]  # fmt: skip


def test_names_of_any_kind_go_through_everything(tmp_path, capsys):
    """E19 and E25: twelve names through training, logs, lists and exports; of what the files say, nothing comes out."""
    exif = Image.Exif()
    exif[0x010E] = "a secret"
    exif[0x8825] = {1: "N", 2: (48.0, 51.0, 29.0)}
    for folder in ("photos", "damaged"):
        (tmp_path / folder).mkdir()
    for name in NAMES:
        picture = Image.fromarray(RNG.integers(0, 256, (8, 8), np.uint8))
        picture.save(tmp_path / "photos" / name, exif=exif, icc_profile=b"a secret" * 20)
        (tmp_path / "damaged" / name).write_bytes(b"nothing")
    for i in range(4):
        (tmp_path / "damaged" / f"{i}.png").write_bytes(encoded(".png", RNG.integers(0, 256, (8, 8), np.uint8)))
    words = ["--epochs", "1", "--net", "mlp", "--batch-size", "4"]
    run = str(tmp_path / "run")
    assert main(["train", "vae", "--data", str(tmp_path / "photos"), *words, "--no-report", "--out", run]) == 0
    assert main(["encode", run, "--split", "all", "-o", str(tmp_path / "codes.csv")]) == 0
    assert main(["generate", run, "-n", "3", "-o", str(tmp_path / "drawn")]) == 0
    codes = (tmp_path / "codes.csv").read_text(encoding="utf-8")
    shown = [archives.images.shown(name) for name in NAMES]
    assert len(set(shown)) == 12 and all(re.escape(n) in re.escape(codes) or '"' in n for n in shown)
    assert main(["train", "vae", "--data", str(tmp_path / "damaged"), *words, "--no-report",
                 "--out", str(tmp_path / "bad")]) == 0  # fmt: skip
    listed = (tmp_path / "bad" / "bad_files.csv").read_text(encoding="utf-8")
    assert listed.count("not a picture") == 12
    (tmp_path / "photos" / "a.png").read_bytes().index(b"eXIf")  # the control: it is in what came in
    made = [p for p in tmp_path.rglob("*") if p.is_file() and p.parent.name not in ("photos", "damaged")]
    pictures = [p for p in made if p.suffix == ".png"]
    assert len(pictures) >= 3
    for path in pictures:
        with Image.open(path) as image:
            assert not image.getexif() and "icc_profile" not in image.info
    assert not [p for p in made if b"a secret" in p.read_bytes()]

"""Datasets that are asked for an item once, or whose items are not the same each time, and that have a thread."""

from __future__ import annotations

import io
import os
import random
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from PIL import Image, TiffImagePlugin

from sandglass.data.load import load_data
from sandglass.data.sources import decoding, held, images
from sandglass.errors import DataError

pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # files that datasets open
N = 12


def grey(value: int) -> Image.Image:
    return Image.fromarray(np.full((8, 8), value, np.uint8))


def content(value: int) -> io.BytesIO:
    file = io.BytesIO()
    grey(value).save(file, "PNG")
    return file


class Made:
    """A dataset of opened pictures, which counts what it is asked for."""

    def __init__(self, item: Callable[[int], Any], count: int = N) -> None:
        self.item, self.count, self.read = item, count, 0

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, i: int) -> Any:
        self.read += 1
        return self.item(i)


def values(data: Any) -> list[int]:
    return sorted(int(x) for part in data.splits.values() for x in part.x.reshape(len(part), -1)[:, 0])


def first(data: Any) -> list[tuple[int, int]]:
    """The first value of each picture with its class."""
    pairs = [(x, data.classes[int(y)]) for part in data.splits.values() for x, y in zip(part.x, part.y, strict=True)]
    return sorted((int(x.flatten()[0]), int(y)) for x, y in pairs)


def one_hot(k: int) -> Any:
    return np.eye(10)[k]


def bool_hot(k: int) -> Any:
    return torch.arange(10) == k


def scratch(path: Path, times: Callable[[int], float] | None, *, replaced: bool) -> Callable[[int], Any]:
    """Unpacks every item to the same file, perhaps with a time, and opens it."""

    def item(i: int) -> Any:
        new = path.with_name(f"new{path.suffix}") if replaced else path
        grey(i * 20).save(new)
        if times is not None:
            os.utime(new, (times(i), times(i)))
        if replaced:
            new.replace(path)
        return Image.open(path), i % 2

    return item


@pytest.mark.parametrize("most", [2**28, 0])
@pytest.mark.parametrize("times", [None, float, lambda _: 0.0, lambda _: 4e9])
@pytest.mark.parametrize("replaced", [False, True])
@pytest.mark.parametrize("ending", ["png", "bmp"])
def test_a_scratch_file_has_another_picture_each_time(
    tmp_path: Path, most: int, times: Any, replaced: bool, ending: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(held, "_HELD", most)
    made = Made(scratch(tmp_path / f"scratch.{ending}", times, replaced=replaced))
    assert values(load_data(made)) == [i * 20 for i in range(N)]
    assert made.read == N or not most


def test_a_dataset_is_not_asked_twice(tmp_path: Path) -> None:
    """With pictures drawn at random, their classes would be those of others."""
    draw = random.Random(0)

    def drawn(_: int) -> Any:
        k = draw.randrange(N)
        return Image.open(content(k * 20)), k

    made = Made(drawn)
    data = load_data(made)
    assert made.read == N
    for part in data.splits.values():
        for x, y in zip(part.x, part.y, strict=True):
            assert int(x.flatten()[0]) == 20 * int(data.classes[int(y)])


@pytest.mark.parametrize("kind", [int, float, str, np.float32, np.int64, torch.tensor, one_hot, bool_hot])
@pytest.mark.parametrize("mapping", [False, True])
def test_another_class_beyond_what_is_held_is_said(kind: Any, mapping: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(held, "_HELD", 0)
    draw = random.Random(0)

    def item(_: int) -> Any:
        k = draw.randrange(10)
        return {"image": grey(k), "label": kind(k)} if mapping else (grey(k), kind(k))

    with pytest.raises(DataError, match=r"another class when it is asked again; its pictures take more than 256 MiB"):
        load_data(Made(item, 60), on_bad="stop")


@pytest.mark.parametrize(("mode", "bytes_each"), [("L", 64), ("I;16", 128), ("F", 256), ("RGB", 256)])
def test_as_many_are_kept_as_fit_in_memory(mode: str, bytes_each: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pillow has four bytes for each pixel of a colour picture or one of floats."""
    for kept in (0, 5, N):
        monkeypatch.setattr(held, "_HELD", kept * bytes_each)
        made = Made(lambda _: Image.new(mode, (8, 8)))
        held_now = held.Held(made)
        assert sum(isinstance(held_now.item(i), Image.Image) for i in range(N)) == kept


def test_only_the_class_is_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    """Captions, numbers of parts that are not used, and classes that are given apart may be others each time."""
    monkeypatch.setattr(held, "_HELD", 0)
    asked = iter(range(1000))
    pairs = [(i * 20, i % 2) for i in range(N)]

    def item(i: int) -> Any:
        return {"image": grey(i * 20), "label": i % 2, "caption": f"{next(asked)}", "no": next(asked)}

    def drawn(i: int) -> Any:
        return grey(i * 20), next(asked)

    assert first(load_data(Made(item))) == pairs
    assert first(load_data(Made(lambda i: (grey(i * 20), i % 2, next(asked), str(next(asked)))))) == pairs
    assert first(load_data(Made(lambda i: (grey(i * 20), np.eye(2)[i % 2])))) == pairs
    assert first(load_data((Made(drawn), [i % 2 for i in range(N)]))) == pairs
    assert first(load_data(Made(drawn), labels=[i % 2 for i in range(N)])) == pairs
    for made in (drawn, item, lambda i: {"image": grey(i * 20), "label": next(asked)}, lambda i: (grey(i * 20), None)):
        assert values(load_data(Made(made), labels=False)) == [i * 20 for i in range(N)]
    with pytest.raises(DataError, match="another class when"):
        load_data(Made(item), labels="no", on_bad="stop")


def test_a_file_that_is_written_later_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the size and the time that it had."""
    path = tmp_path / "a.bmp"
    item = scratch(path, lambda _: 0.0, replaced=False)
    item(3)
    monkeypatch.setattr(held, "_SETTLED", 0.0)
    with path.open("rb") as file:
        before = held._state(file.fileno())
        time.sleep(0.05)
        assert held._state(file.fileno()) == before is not None
        item(4)
        assert held._state(file.fileno()) != before


def test_files_beyond_what_is_held_are_read_from_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for i in range(N):
        grey(i * 20).save(tmp_path / f"{i}.png")
        os.utime(tmp_path / f"{i}.png", (i, i))
    monkeypatch.setattr(held, "_HELD", 0)
    monkeypatch.setattr(held, "_SETTLED", 0.0)
    made = Made(lambda i: (Image.open(tmp_path / f"{i}.png"), i % 2))
    assert values(load_data(made)) == [i * 20 for i in range(N)] and made.read == N


def test_opened_pictures_are_read_as_they_are(tmp_path: Path) -> None:
    """In the middle of a file, with a frame chosen, as a draft, or in 16 bits."""
    grey(40).save(tmp_path / "f.gif", save_all=True, append_images=[grey(200)])
    frames = [Image.open(tmp_path / "f.gif") for _ in range(N)]
    frames[1].seek(1)
    assert values(load_data(frames, channels=1)) == [40] * (N - 1) + [200] and frames[1].tell() == 1
    big = io.BytesIO()
    Image.new("RGB", (64, 64), (9, 90, 200)).save(big, "JPEG")
    drafts = [Image.open(io.BytesIO(big.getvalue())) for _ in range(N)]
    for picture in drafts:
        picture.draft("L", (16, 16))
    assert load_data(drafts).spec.shape == (1, *drafts[0].size[::-1])
    Image.fromarray(np.full((8, 8), 40_000, np.uint16)).save(tmp_path / "d.png")
    deep = load_data([Image.open(tmp_path / "d.png") for _ in range(N)])
    assert any("16-bit" in note for note in deep.notes)


@pytest.mark.parametrize("most", [2**28, 0])
@pytest.mark.parametrize("crew", [1, 3])
@pytest.mark.parametrize("sizes", [1, 2])
def test_the_code_of_a_dataset_runs_in_one_thread(
    most: int, crew: int, sizes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(held, "_HELD", most)
    monkeypatch.setattr(decoding, "workers", lambda: crew)
    base = sqlite3.connect(":memory:")
    base.execute("create table t(i integer, b blob)")
    for i in range(N):
        base.execute("insert into t values(?, ?)", (i, content(i * 20).getvalue()))

    def item(i: int) -> Any:
        picture = Image.open(io.BytesIO(base.execute("select b from t where i=?", (i,)).fetchone()[0]))
        return picture.crop((0, 0, 8, 8 - i % sizes)), i % 2

    data = load_data(Made(item), size=8 if sizes > 1 else None)
    assert values(data) == [i * 20 for i in range(N)] and not data.bad
    whole = load_data(Made(lambda i: (item(i)[0].resize((8, 8)), i % 2)))
    assert values(whole) == [i * 20 for i in range(N)]


def test_the_reason_is_one_of_reading(monkeypatch: pytest.MonkeyPatch) -> None:
    made = [Image.open(content(i)) for i in range(N)]
    damaged = [Image.open(io.BytesIO(content(i).getvalue()[:45])) for i in range(N)]
    monkeypatch.setattr(decoding, "load", lambda *_: (made[0], frozenset()))
    for pictures in (damaged, [grey(3).crop((0, 0, 0, 0))] * N):
        with pytest.raises(DataError, match=r"The first: picture 0: (damaged|it has no pixels)"):
            load_data(pictures)


def test_few_pictures_wait_to_be_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    alive, most = 0, 0

    class Counted(Image.Image):
        def copy(self) -> Image.Image:
            return counted(super().copy())

        def __del__(self) -> None:
            nonlocal alive
            alive -= 1

    def counted(picture: Image.Image) -> Image.Image:
        nonlocal alive, most
        picture.__class__ = Counted
        alive += 1
        most = max(most, alive)
        return picture

    def item(i: int) -> Any:
        return counted(grey(i))

    monkeypatch.setattr(held, "_HELD", 0)
    for crew in (1, 2, 8):
        monkeypatch.setattr(decoding, "workers", lambda crew=crew: crew)
        most = 0
        normal = images.normal_object
        monkeypatch.setattr(images, "normal_object", lambda *a, normal=normal: (time.sleep(0.001), normal(*a))[1])
        assert len(values(load_data(Made(item, 100), size=4))) == 100
        assert most < 25, crew


class Reused(Made):
    """A dataset that gives the same picture each time, which it has changed."""

    def __init__(self, picture: Image.Image, change: Callable[[Image.Image, int], Any], count: int = N) -> None:
        super().__init__(lambda i: (change(picture, i), picture, i % 2)[1:], count)


@pytest.mark.parametrize("most", [2**28, 0, 300])
@pytest.mark.parametrize("ending", ["tif", "gif", "webp", "png", "canvas"])
def test_one_picture_for_all_items(tmp_path: Path, ending: str, most: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(held, "_HELD", most)
    picture, change = grey(0), lambda canvas, i: canvas.paste(i * 20, (0, 0, 8, 8))
    if ending != "canvas":
        frames = [grey(i * 20).convert("RGB" if ending == "webp" else "L") for i in range(N)]
        options = {"lossless": True} if ending == "webp" else {}
        frames[0].save(tmp_path / f"f.{ending}", save_all=True, append_images=frames[1:], **options)
        picture, change = Image.open(tmp_path / f"f.{ending}"), lambda opened, i: opened.seek(i)
    data = load_data(Reused(picture, change), channels=1)
    assert first(data) == [(i * 20, i % 2) for i in range(N)] and not data.bad
    assert not any("several frames" in note and not note.startswith("1 picture") for note in data.notes)


class Example(NamedTuple):
    picture: Any
    kind: int


class Pair(list[Any]):
    """A list of a kind of its own."""


def test_items_that_are_named_tuples_or_lists(monkeypatch: pytest.MonkeyPatch) -> None:
    for most in (2**28, 0):
        monkeypatch.setattr(held, "_HELD", most)
        for kind in (lambda pair: Example(*pair), Pair):
            made = Reused(grey(0), lambda canvas, i: canvas.paste(i * 20, (0, 0, 8, 8)))
            item = made.item
            made.item = lambda i, item=item, kind=kind: kind(item(i))
            assert first(load_data(made)) == [(i * 20, i % 2) for i in range(N)]


@pytest.mark.parametrize("most", [2**28, 0])
def test_a_smaller_picture_of_jpeg_2000_stays_small(most: int, monkeypatch: pytest.MonkeyPatch) -> None:
    features = pytest.importorskip("PIL.features")
    if not features.check("jpg_2000"):
        pytest.skip("Pillow has no JPEG 2000 here")
    file = io.BytesIO()
    Image.new("L", (64, 64), 40).save(file, "JPEG2000")

    def reduced(i: int, by: int = 2) -> Any:
        picture = Image.open(io.BytesIO(file.getvalue()))
        if by:
            picture.reduce = by
        return picture, i % 2

    monkeypatch.setattr(held, "_HELD", most)
    assert load_data(Made(reduced)).spec.shape == (1, 16, 16)
    assert load_data(Made(lambda i: reduced(i, 0))).spec.shape == (1, 64, 64)


def test_a_copy_is_read_as_the_picture_is(tmp_path: Path) -> None:
    """With its depth, the largest value that its file declares, its orientation, and the note on frames."""
    deep = [Image.fromarray(np.full((8, 8), 300 * i, np.uint16)) for i in range(N)]
    for largest, top in ((None, 65_535), (4095, 4095)):
        tags = TiffImagePlugin.ImageFileDirectory_v2()
        if largest:
            tags[281] = largest
        deep[0].save(tmp_path / "d.tif", save_all=True, append_images=deep[1:], tiffinfo=tags)
        data = load_data(Reused(Image.open(tmp_path / "d.tif"), lambda opened, i: opened.seek(i)))
        assert values(data) == [round(300 * i * 255 / top) for i in range(N)]
    turned = []
    for i, (kind, options) in enumerate([("WEBP", {"lossless": True}), ("PNG", {}), ("TIFF", {}), ("JPEG", {})] * 3):
        exif = Image.Exif()
        exif[0x0112] = 3
        file = io.BytesIO()
        Image.fromarray(np.repeat(np.arange(8, dtype=np.uint8) * 20 + i, 16).reshape(8, 16)).convert("RGB").save(
            file, kind, exif=exif, **options
        )
        turned.append(Image.open(file))
        if i >= 4:
            turned[i].load()
        if i >= 8 and kind != "TIFF":  # which Pillow turns
            turned[i].getexif()[0x0112] = 1
            turned[i].info["exif"] = turned[i].getexif().tobytes()
    upright = values(load_data(turned, channels=1))
    assert sum(value > 100 for value in upright) == 9 and len(upright) == N
    fan = io.BytesIO()
    grey(9).convert("RGB").save(fan, "WEBP", save_all=True, append_images=[grey(99).convert("RGB")], lossless=True)
    data = load_data([Image.open(fan) for _ in range(N)])
    assert f"{N} pictures: several frames, only the first was read" in data.notes


def test_a_damaged_frame_is_not_another_frame(tmp_path: Path) -> None:
    frames = [grey(i * 20) for i in range(N)]
    frames[0].save(tmp_path / "f.tif", save_all=True, append_images=frames[1:], compression="tiff_deflate")
    with Image.open(tmp_path / "f.tif") as opened:
        opened.seek(5)
        place = opened.tag_v2[273][0]
    content = bytearray((tmp_path / "f.tif").read_bytes())
    content[place : place + 8] = b"\xff" * 8
    (tmp_path / "f.tif").write_bytes(content)
    data = load_data(Reused(Image.open(tmp_path / "f.tif"), lambda opened, i: opened.seek(i)))
    assert [name for name, _ in data.bad] == ["picture 5"] and data.bad[0][1].startswith("damaged (")
    assert first(data) == [(i * 20, i % 2) for i in range(N) if i != 5]


@pytest.mark.parametrize("kind", ["array", "tensor", "shared", "mapping", "list", "one-hot", "alone"])
def test_one_buffer_for_all_items(kind: str) -> None:
    """Of numbers, which the dataset fills again for each item, as it may paint a picture again."""
    x, hot, row = np.zeros((8, 8), np.uint8), np.zeros(2), {}

    def item(i: int) -> Any:
        x[:], hot[:] = i * 20, np.eye(2)[i % 2]
        row.update(image=x, label=i % 2)
        tensor = torch.from_numpy(x)
        one = {"array": (x, i % 2), "tensor": (tensor, i % 2), "list": [x, i % 2], "one-hot": (grey(i * 20), hot)}
        return row if kind == "mapping" else x if kind == "alone" else one.get(kind, (held_tensor, i % 2))

    held_tensor = torch.from_numpy(x)
    data = load_data(Made(item))
    if kind == "alone":
        assert values(data) == [i * 20 for i in range(N)]
    else:
        assert first(data) == [(i * 20, i % 2) for i in range(N)]


def test_a_large_array_is_not_copied_by_its_items() -> None:
    whole = torch.zeros(N, 1, 8, 8)
    kept = held.Held(Made(lambda i: (whole[i], i % 2)))
    assert kept.item(3)[0].data_ptr() == whole[3].data_ptr()
    rows = [np.zeros((8, 8))] * 2
    assert held.Held(rows).item(1) is rows[1]


def test_a_list_with_items_of_its_own_is_a_dataset() -> None:
    class Own(list[int]):
        x = np.zeros((8, 8), np.uint8)

        def __getitem__(self, i: Any) -> Any:
            self.x[:] = i * 20
            return self.x

    kept = held.Held(Own(range(N)))
    assert [int(x[0, 0]) for x in [kept.item(i) for i in range(N)]] == [i * 20 for i in range(N)]

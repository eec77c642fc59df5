"""Datasets of pictures larger than memory or than the number of open files, and those whose pictures are damaged."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from sandglass.data.load import load_data
from sandglass.data.sources import held
from sandglass.errors import DataError

pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # files that datasets open
N = 60
PICTURES = np.random.default_rng(0).integers(0, 256, (N, 40, 40, 3), np.uint8)


class Made:
    """A dataset that makes its pictures, and knows how many of them exist."""

    def __init__(self, count: int = N, grey: int = 0) -> None:
        self.count, self.grey, self.alive, self.most, self.read = count, grey, 0, 0, 0

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, i: int) -> dict[str, Any]:
        self.read += 1
        picture = Image.fromarray(PICTURES[i] if i >= self.grey else PICTURES[i][..., 0])
        return {"image": self.counted(picture), "label": i % 3}

    def counted(self, picture: Image.Image) -> Image.Image:
        """A picture that is counted while it or a copy exists."""
        copied = {"copy": lambda own: self.counted(Image.Image.copy(own)), "__del__": lambda _: self.gone()}
        picture.__class__ = type("Counted", (Image.Image,), copied)
        self.alive += 1
        self.most = max(self.most, self.alive)
        return picture

    def gone(self) -> None:
        self.alive -= 1


def same(data: Any, wanted: Any) -> bool:
    return bool(data.fingerprint == wanted.fingerprint and data.notes == wanted.notes)


@pytest.mark.parametrize("grey", [0, 7, N])
def test_pictures_are_decoded_and_resized_a_few_at_a_time(monkeypatch: pytest.MonkeyPatch, grey: int) -> None:
    whole = Made(grey=grey)
    wanted = load_data(whole, size=8)
    assert whole.most >= N == whole.read, "few and small pictures are read once"
    monkeypatch.setattr(held, "_HELD", 5 * 40 * 40 * 3)
    made = Made(grey=grey)
    assert same(load_data(made, size=8), wanted)
    assert made.most < 35, "some are held, and some are in a batch that is being decoded"
    assert made.read <= (2 * N if grey != 7 else 4 * N)


@pytest.mark.parametrize("ending", ["png", "webp"])
@pytest.mark.parametrize("kind", ["mapping", "pair", "list", "alone"])
def test_more_pictures_than_open_files(tmp_path: Path, kind: str, ending: str) -> None:
    resource = pytest.importorskip("resource")
    for i in range(N):
        Image.fromarray(PICTURES[i]).save(tmp_path / f"{i:02}.{ending}")

    class Files:
        def __len__(self) -> int:
            return N

        def __getitem__(self, i: int) -> Any:
            picture = Image.open(tmp_path / f"{i:02}.{ending}")
            pair = {"mapping": {"image": picture, "label": i % 3}, "pair": (picture, i % 3), "list": [picture, i % 3]}
            return pair.get(kind, picture)

    limit = resource.getrlimit(resource.RLIMIT_NOFILE)
    used = len(list(Path("/proc/self/fd").iterdir())) if Path("/proc/self/fd").is_dir() else 100
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (used + 30, limit[1]))
        data = load_data(Files())
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limit)
    assert sum(map(len, data.splits.values())) == N and data.classes == (() if kind == "alone" else ("0", "1", "2"))


def test_pictures_in_a_list_stay_as_they_were(tmp_path: Path) -> None:
    Image.fromarray(PICTURES[0]).save(tmp_path / "a.png")
    mine = [Image.open(tmp_path / "a.png"), Image.open(tmp_path / "a.png")]
    mine[1].load()
    load_data(mine)
    assert mine[0].tile and not mine[1].tile, "the one that was not decoded is not decoded now"


def cut(data: bytes) -> io.BytesIO:
    return io.BytesIO(data[: len(data) * 2 // 3])


def test_damaged_pictures_are_left_out() -> None:
    buffer = io.BytesIO()
    Image.fromarray(PICTURES[0]).save(buffer, "JPEG")
    whole = buffer.getvalue()
    closed = Image.open(io.BytesIO(whole))
    closed.close()
    data = load_data([Image.open(io.BytesIO(whole)), Image.open(cut(whole)), closed, Image.open(io.BytesIO(whole))])
    assert [name for name, _ in data.bad] == ["picture 1", "picture 2"] and "truncated" in data.bad[0][1]
    with pytest.raises(DataError, match="None of the 1 pictures"):
        load_data([Image.open(cut(whole))])


@pytest.mark.parametrize(("after", "says"), [(KeyError("gone\naway"), "cannot be fetched again"), (3, "then an int")])
def test_a_dataset_that_changes_its_mind_is_said(after: Any, says: str, monkeypatch: pytest.MonkeyPatch) -> None:
    class Changing(Made):
        def __getitem__(self, i: int) -> Any:
            self.read += 1
            if self.read > 6 and isinstance(after, Exception):
                raise after
            buffer = io.BytesIO()
            Image.fromarray(PICTURES[i]).save(buffer, "PNG")
            return Image.open(buffer) if self.read <= 6 else after

    monkeypatch.setattr(held, "_HELD", 0)
    with pytest.raises(DataError, match=says) as caught:
        load_data(Changing(6))
    assert "\n" not in str(caught.value)


def test_files_in_a_column_that_are_no_pictures_are_named(tmp_path: Path) -> None:
    import pandas as pd

    sounds = [{"bytes": b"RIFF....WAVEfmt ", "path": f"{i}.wav"} for i in range(30)]
    frame = pd.DataFrame({"audio": sounds, "x": np.arange(30.0)})
    frame.to_parquet(tmp_path / "a.parquet")
    for source in (frame, tmp_path / "a.parquet"):
        with pytest.raises(
            DataError, match=r"'audio' holds files that are no pictures, such as 0\.wav.*drop"
        ) as caught:
            load_data(source)
        assert "\n" not in str(caught.value)
        assert load_data(source, drop="audio").spec.shape == (1,)
    with pytest.raises(DataError, match=r"'audio' holds files that are no pictures, such as 0\.wav"):
        load_data([{"audio": sound, "label": 0} for sound in sounds])
    with pytest.raises(DataError, match=r"'s' holds mappings.*drop"):
        load_data(pd.DataFrame({"s": [{"a": 1, "b": 2}] * 30, "x": np.arange(30.0)}))

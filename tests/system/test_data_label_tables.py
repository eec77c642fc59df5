"""Tables of labels as others write them: paths of another computer, other separators; and labels that cannot be."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from test_data_labels import CATS, KINDS, NAMES, N, csv, flat, kinds, whole

from sandglass.data.dataset import Dataset
from sandglass.data.load import load_data
from sandglass.errors import DataError, SandglassError


@pytest.mark.parametrize("before", ["/home/me/photos/", "../p/", "p/", "C:\\data\\"])
def test_paths_of_another_computer_are_read_without_what_all_begin_with(tmp_path: Path, before: str) -> None:
    folder = flat(tmp_path / "p", lambda i: f"{i % 3}/{i:03}.png")
    rows = [f"{before}{i % 3}/{i:03}.png,{CATS[i]}" for i in range(N)]
    csv(folder / "m.csv", ["file,kind", *rows])
    data = whole(folder, labels="m.csv:kind")
    assert [data.classes[k] for k in data.train.y] == [CATS[int(Path(n).stem)] for n in data.train.names]
    start = before.replace("\\", "/")
    assert f"paths in m.csv are read without '{start}'" in data.notes
    csv(folder / "m.csv", rows)
    assert whole(folder, labels="m.csv").fingerprint == data.fingerprint, "without a header"
    csv(folder / "m.csv", ["file,kind", "x/000.png,cat", "y/000.png,dog"])
    with pytest.raises(DataError, match="no column with the file names"):
        whole(folder, labels="m.csv:kind")


@pytest.mark.parametrize("before", ["", "/home/me/q/", "q/"])
def test_a_row_of_another_split_is_not_that_of_a_picture(tmp_path: Path, before: str) -> None:
    """Tables of whole datasets, with equal file names in two splits, beside a part of the pictures."""
    folder = flat(tmp_path / "q", lambda i: f"train/{i}.png", 8)
    rows = [f"train/{i}.png,cat" for i in range(2)] + [f"test/{i}.png,dog" for i in range(2, 8)]
    table = csv(tmp_path / "a.csv", ["file,kind", *(before + row for row in rows)])
    data = whole(folder, labels=str(table))
    assert data.train.names == ("train/0.png", "train/1.png") and kinds(data) == ["cat", "cat"]
    assert any("6 rows name no picture in a.csv" in note for note in data.notes) and len(data.bad) == 6
    rows = [f"{split}/{i}.png,{kind}" for split, kind in (("train", "cat"), ("test", "dog")) for i in range(8)]
    csv(table, ["file,kind", *(before + row for row in rows)])
    assert kinds(whole(folder, labels=str(table))) == ["cat"] * 8
    flat(folder, lambda i: f"test/{i + 4}.png", 4)
    csv(table, ["file,kind", *(f"{before}train/{i}.png,cat" for i in range(8))])
    read = load_data(folder, labels=str(table), validation=0, test=0)
    assert all(name.startswith("train/") for part in read.splits.values() for name in part.names)
    (folder / "train").rename(tmp_path / "other")
    csv(table, ["file,kind", *(before + row for row in rows)])
    with pytest.raises(DataError, match="no column with the file names"):
        whole(tmp_path / "other", labels=str(table))


def test_a_file_name_alone_is_found(tmp_path: Path) -> None:
    folder = flat(tmp_path / "p", lambda i: f"{i % 3}/{i:03}.png")
    table = csv(folder / "m.csv", ["file,kind", *(f"{i:03}.png,{CATS[i]}" for i in range(N))])
    assert len(whole(folder, labels="m.csv").train) == N
    csv(table, ["file,kind", *(f"{i % 3}/{i:03}.png,{CATS[i]}" for i in range(N - 1)), f"{N - 1:03}.png,cat"])
    data = whole(folder, labels="m.csv")
    assert len(data.train) == N and not data.bad, "beside paths, too"


def named(data: Dataset) -> dict[str, str]:
    """The class of each picture by its name."""
    return {name: data.classes[k] for name, k in zip(data.train.names, data.train.y, strict=True)}


def test_paths_of_another_split_or_of_other_files_are_not_those_of_pictures(tmp_path: Path) -> None:
    flat(tmp_path, lambda i: f"{('train', 'test')[i // 3]}/{i % 3}.png", 6)
    flat(tmp_path, lambda i: f"{('cats', 'dogs')[i // 3]}/{i % 3}.png", 6)
    for rows, place in (("train", "test"), ("dogs", "cats"), ("gone/train", "test"), ("elsewhere/val", "test")):
        table = csv(tmp_path / "t.csv", ["file,kind", *(f"{rows}/{i}.png,{CATS[i]}" for i in range(3))])
        with pytest.raises(DataError, match="no column with the file names"):
            whole(tmp_path / place, labels=str(table))
    table = csv(tmp_path / "t.csv", ["file,kind", *(f"cats/{i}.png,{CATS[i]}" for i in range(3))])
    assert named(whole(tmp_path / "cats", labels=str(table))) == {f"{i}.png": CATS[i] for i in range(3)}


def test_paths_of_several_places(tmp_path: Path) -> None:
    folder = flat(tmp_path / "p", lambda i: ("cats/1.png", "dogs/2.png")[i], 2)
    csv(folder / "m.csv", ["file,kind", "/a/x/cats/1.png,a", "/b/y/dogs/2.png,b"])
    data = whole(folder, labels="m.csv")
    assert named(data) == {"cats/1.png": "a", "dogs/2.png": "b"}
    assert "paths in m.csv are read without '/a/x/' and 1 other beginning" in data.notes
    folder = flat(tmp_path / "q", lambda i: f"{i}.png", 6)
    csv(folder / "m.csv", ["file,kind", *(f"/data/train/{'ab'[i % 2]}/{i}.png,{'ab'[i % 2]}" for i in range(6))])
    assert named(whole(folder, labels="m.csv")) == {f"{i}.png": "ab"[i % 2] for i in range(6)}
    folder = flat(tmp_path / "imgs", lambda i: ("cats/1.png", "dogs/2.png", "x.png")[i], 3)
    table = csv(tmp_path / "m.csv", ["file,kind", "old/imgs/cats/1.png,a", "old/imgs/dogs/2.png,b", "x.png,c"])
    assert named(whole(folder, labels=str(table))) == {"cats/1.png": "a", "dogs/2.png": "b", "x.png": "c"}


def test_paths_in_the_folder_of_the_table(tmp_path: Path) -> None:
    folder = flat(tmp_path / "p", lambda i: f"data/{'train' if i < 10 else 'test'}/{i % 10}.png")
    rows = [f"{'train' if i < 10 else 'test'}/{i % 10}.png,{KINDS[i >= 10]}" for i in range(N)]
    csv(folder / "data" / "m.csv", ["file,kind", *rows])
    data = load_data(folder, labels="m.csv", validation=0)
    assert {split: kinds(replace(data, splits={"train": part})) for split, part in data.splits.items()} == {
        "train": ["cat"] * 10, "test": ["dog"] * 10,
    }  # fmt: skip


@pytest.mark.parametrize("separator", ["\t", "|", ";"])
def test_other_separators(tmp_path: Path, separator: str) -> None:
    folder = flat(tmp_path / "p")
    csv(folder / "m.csv", [f"{n}{separator}{k}" for n, k in zip(["file", *NAMES], ["kind", *CATS], strict=True)])
    assert kinds(whole(folder, labels=Path("m.csv"))) == CATS


def test_labels_that_cannot_be_are_not_passed_over(tmp_path: Path) -> None:
    folder = flat(tmp_path / "p")
    np.save(tmp_path / "x.npy", np.zeros((9, 8, 8), np.uint8))
    np.savez(tmp_path / "x.npz", x=np.zeros((9, 8, 8), np.uint8), kind=np.arange(9) % 2)
    assert whole(tmp_path / "x.npz", labels="kind").classes == ("0", "1")
    for place, says in (
        ("x.npy", "x.npy has none of these"),
        ("p/000.png", "000.png has none of"),
        ("x.npz", "no array 'kin'.*'kind'"),
    ):
        with pytest.raises(SandglassError, match=says):
            whole(tmp_path / place, labels="kin")
    (folder / "m.csv").write_bytes("file,kind\n000.png,café\n".encode("latin-1"))
    with pytest.raises(DataError, match=r"m\.csv is not a table in UTF-8.*save it as UTF-8"):
        whole(folder, labels="m.csv")

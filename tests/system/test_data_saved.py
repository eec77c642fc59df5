"""Hugging Face datasets saved to disk, and damaged files of columns."""

from __future__ import annotations

import io
import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pytest
from PIL import Image

from people import table, whole, with_gaps
from sandglass.data.load import load_data
from sandglass.errors import DataError


def save_dataset(folder: Path, table: Any, features: dict[str, Any]) -> Path:
    """The files that ``save_to_disk`` writes."""
    folder.mkdir(parents=True)
    name = "data-00000-of-00001.arrow"
    with pyarrow.OSFile(str(folder / name), "wb") as file, pyarrow.ipc.new_stream(file, table.schema) as stream:
        stream.write_table(table)
    (folder / "state.json").write_text(json.dumps({"_data_files": [{"filename": name}], "_split": "train"}))
    (folder / "dataset_info.json").write_text(json.dumps({"features": features}))
    return folder


def encoded(value: int) -> dict[str, Any]:
    file = io.BytesIO()
    Image.fromarray(np.full((6, 5, 3), value, np.uint8)).save(file, "PNG")
    return {"bytes": file.getvalue(), "path": None}


LABEL = {"_type": "ClassLabel", "names": ["zebra", "cow", "ant"]}


def test_saved_pictures(tmp_path: Path) -> None:
    cells = {"image": [encoded(i) for i in range(20)], "label": [i % 2 * 2 for i in range(20)], "more": range(20)}
    folder = save_dataset(tmp_path / "pics", pyarrow.table(cells), {"image": {"_type": "Image"}, "label": LABEL})
    data = whole(folder)
    assert data.spec.shape == (3, 6, 5) and data.classes == ("zebra", "ant")
    assert data.train.x[:, 0, 0, 0].tolist() == list(range(20)) and data.train.y.tolist() == [0, 1] * 10
    assert "other columns than pictures were left out: 'more'" in data.notes
    assert whole(folder, labels=False).train.y is None and whole(folder, size=3).spec.shape == (3, 3, 3)
    assert load_data(**data.source).fingerprint == data.fingerprint
    elsewhere = pyarrow.table({"image": [{"bytes": None, "path": "/etc/passwd"}] * 3})
    folder = save_dataset(tmp_path / "links", elsewhere, {"image": {"_type": "Image"}})
    with pytest.raises(DataError, match="holds a path, not a picture"):
        load_data(folder)


def test_saved_labels_without_a_name(tmp_path: Path) -> None:
    cells = {"image": [encoded(i) for i in range(20)], "label": [i % 4 for i in range(20)]}
    folder = save_dataset(tmp_path / "pics", pyarrow.table(cells), {"image": {"_type": "Image"}, "label": LABEL})
    with pytest.raises(DataError, match="label 3 and names of 3 classes, 0 to 2: 'zebra', 'cow', 'ant'"):
        whole(folder)


def test_saved_columns(tmp_path: Path) -> None:
    cells = pyarrow.table({"a": [1, None, 3] * 8, "b": ["x", "y", None] * 8, "label": [0, 1, 2] * 8})
    save_dataset(tmp_path / "d" / "train", cells, {"label": LABEL})
    save_dataset(tmp_path / "d" / "test", cells.slice(0, 5), {"label": LABEL})
    (tmp_path / "d" / "dataset_dict.json").write_text('{"splits": ["train", "test", "extra"]}')
    data = load_data(tmp_path / "d", labels="label", validation=0)
    assert {s: len(part) for s, part in data.splits.items()} == {"train": 24, "test": 5}
    assert data.classes == ("ant", "cow", "zebra") and data.train.y[:3].tolist() == [2, 1, 0]
    assert data.transform.inverse(data.train.x)["a"].dtype == np.int64
    assert load_data(tmp_path / "d" / "train").spec.columns[2].categories == ("ant", "cow", "zebra")


def _cut(folder: Path) -> None:
    file = next(folder.glob("*.arrow"))
    file.write_bytes(file.read_bytes()[:-200])


def _wild(folder: Path) -> None:
    next(folder.glob("*.arrow")).write_bytes(b"\xff" * 500)


def _outside(folder: Path) -> None:
    """The control: joined to the folder as it stands, the name leads to a file that is there."""
    next(folder.glob("*.arrow")).rename(folder.parent / "secret.arrow")
    (folder / "state.json").write_text('{"_data_files": [{"filename": "../secret.arrow"}]}')
    assert (folder / "../secret.arrow").is_file()


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (_cut, "cannot be read"), (_wild, "cannot be read"), (_outside, "does not list the files of its folder"),
        (lambda f: next(f.glob("*.arrow")).unlink(), "lacks the file"),
        (lambda f: (f / "state.json").write_text("{"), "state.json cannot be read"),
        (lambda f: (f / "state.json").write_text("[]"), "state.json is damaged"),
    ],
)  # fmt: skip
def test_saved_datasets_that_are_damaged(damage: Callable[[Path], Any], words: str, tmp_path: Path) -> None:
    folder = save_dataset(tmp_path / "d", pyarrow.table({"a": [1.0, 2.0] * 50}), {})
    load_data(folder)
    damage(folder)
    with pytest.raises(DataError, match=words):
        load_data(folder)


@pytest.mark.parametrize("ending", ["parquet", "feather"])
def test_damaged_files_of_columns(ending: str, tmp_path: Path) -> None:
    path = tmp_path / f"t.{ending}"
    getattr(table(), f"to_{ending}")(path)
    good = path.read_bytes()
    for bad in (b"", good[: len(good) // 2], b"\xff" * 200, good[:4] + b"\xff" * (len(good) - 8) + good[-4:]):
        path.write_bytes(bad)
        with pytest.raises(DataError, match=f"t.{ending} is not a table"):
            load_data(path)


@pytest.mark.parametrize("seed", range(4))
def test_mutated_files_are_read_or_refused_in_one_line(seed: int, tmp_path: Path) -> None:
    """Never a traceback, and nothing that ends the process: offsets are checked before they are followed."""
    frame = with_gaps(table()).convert_dtypes()
    frame.to_parquet(tmp_path / "t.parquet")
    frame.to_feather(tmp_path / "t.feather")
    frame.to_csv(tmp_path / "t.csv", index=False)
    folder = save_dataset(tmp_path / "d", pyarrow.Table.from_pandas(frame), {})
    chance = random.Random(seed)
    files = [tmp_path / "t.parquet", tmp_path / "t.feather", tmp_path / "t.csv", next(folder.glob("*.arrow"))]
    for file in files:
        good = file.read_bytes()
        for _ in range(10):
            bad = bytearray(good)
            for _ in range(chance.choice([1, 3, 20])):
                bad[chance.randrange(len(bad))] = chance.choice([0, 127, 128, 255, chance.randrange(256)])
            file.write_bytes(bad)
            try:
                load_data(folder if file.suffix == ".arrow" else file)
            except DataError as error:
                assert "\n" not in str(error)
        file.write_bytes(good)

"""Datasets of items: mappings with named keys, tuples, and what Hugging Face's and PyTorch's datasets give."""

from __future__ import annotations

import io
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from sandglass.census.take import inspect
from sandglass.data.load import load_data
from sandglass.errors import DataError

N = 24
PIXELS = np.random.default_rng(0).integers(0, 256, (N, 8, 10), np.uint8)
PICTURES = [Image.fromarray(x) for x in PIXELS]


class Given(torch.utils.data.Dataset):
    """A map-style dataset of given items."""

    def __init__(self, items: list[Any]) -> None:
        self.items = items

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, i: int) -> Any:
        return self.items[i]


class Hub(Given):
    """What ``datasets.Dataset`` looks like: mappings, declared features, and columns by name."""

    def __init__(self, items: list[Any], names: list[str] | None = None, key: str = "label") -> None:
        super().__init__(items)
        self.features = {k: SimpleNamespace() for k in items[0]}
        if names:
            self.features[key] = SimpleNamespace(names=names)
        self.column_names = list(items[0])

    def __getitem__(self, i: Any) -> Any:
        return [item[i] for item in self.items] if isinstance(i, str) else self.items[i]


def whole(source: Any, **options: Any) -> Any:
    return load_data(source, validation=0, test=0, **options)


def same_pixels(data: Any) -> bool:
    return bool(np.array_equal(data.train.x[:, 0].numpy(), PIXELS))


IMAGES = {
    "pillow": PICTURES,
    "arrays": list(PIXELS),
    "channels": [x[..., None] for x in PIXELS],
    "tensors": [torch.from_numpy(x)[None] for x in PIXELS],
    "floats": [torch.from_numpy(x)[None] / 255 for x in PIXELS],
}
LABELS = {
    "integers": [i % 3 for i in range(N)],
    "tensors": [torch.tensor(i % 3) for i in range(N)],
    "numpy": [np.int64(i % 3) for i in range(N)],
    "one-hot": [np.eye(3)[i % 3] for i in range(N)],
    "one-hot tensors": [torch.eye(3)[i % 3] for i in range(N)],
    "one-hot lists": [[float(i % 3 == k) for k in range(3)] for i in range(N)],
}


@pytest.mark.parametrize("kind", IMAGES)
@pytest.mark.parametrize("classes", LABELS)
def test_mappings_and_tuples_read_alike(kind: str, classes: str) -> None:
    pairs = list(zip(IMAGES[kind], LABELS[classes], strict=True))
    mappings = [{"image": x, "label": y, "path": f"{i}.png"} for i, (x, y) in enumerate(pairs)]
    for source in (Given(pairs), pairs, Given(mappings), mappings, Hub(mappings)):
        data = whole(source)
        assert same_pixels(data) and data.train.y.tolist() == [i % 3 for i in range(N)]
        assert data.classes == ("0", "1", "2")
    assert "other keys than 'image', 'label' were left out: 'path'" in data.notes
    assert whole(Given(mappings), labels=False).train.y is None
    assert whole(Given(pairs), labels=False).train.y is None


def test_keys_are_named() -> None:
    items = [
        {"left": a, "right": b, "kind": "xy"[i % 2]}
        for i, (a, b) in enumerate(zip(PICTURES, PICTURES[::-1], strict=True))
    ]
    with pytest.raises(DataError, match=r"several pictures.*image='left'.*'left', 'right', 'kind'"):
        whole(items)
    data = whole(Given(items), image="right", labels="kind")
    assert np.array_equal(data.train.x[:, 0].numpy(), PIXELS[::-1]) and data.classes == ("x", "y")
    assert whole(items, image="left").train.y is None
    assert len(whole(items, image="left", labels=np.arange(N) % 4).classes) == 4
    with pytest.raises(DataError, match=r"no key 'lft' for image. Did you mean 'left'"):
        whole(items, image="lft")
    with pytest.raises(DataError, match=r"no key 'knd' for labels. Did you mean 'kind'"):
        whole(items, image="left", labels="knd")


def test_a_hub_dataset_names_its_classes() -> None:
    items = [{"img": x, "label": i % 2} for i, x in enumerate(PICTURES)]
    data = whole(Hub(items, ["zebra", "ant"]))
    assert data.classes == ("zebra", "ant") and data.train.y.tolist() == [i % 2 for i in range(N)]
    splits = load_data({"train": Hub(items[:16], ["zebra", "ant"]), "test": Hub(items[16:], ["zebra", "ant"])})
    assert {s: len(part) for s, part in splits.splits.items()} == {"train": 14, "validation": 2, "test": 8}
    assert splits.classes == ("zebra", "ant")


def test_labels_given_apart_have_names_of_their_own() -> None:
    hub = Hub([{"img": x, "label": 0} for x in PICTURES], ["zebra", "ant"])
    assert whole((hub, ["xy"[i % 2] for i in range(N)])).classes == ("x", "y")
    assert whole((hub, [7 + i % 2 for i in range(N)])).classes == ("7", "8")
    assert whole(hub, labels=[i % 2 for i in range(N)]).classes == ("0", "1")
    assert whole((hub, None)).classes == ("zebra",)


def test_columns_of_equal_length() -> None:
    data = whole({"image": PICTURES, "label": [i % 2 for i in range(N)]})
    assert same_pixels(data) and data.classes == ("0", "1")


def test_mappings_without_pictures_are_rows() -> None:
    rows = [{"age": 20 + i, "town": ["Ulm", None, "Bern"][i % 3], "label": "ab"[i % 2]} for i in range(N)]
    data = whole(Hub(rows), labels="label")
    assert data.transform.frame and [c["name"] for c in data.transform.columns] == ["age", "town"]
    assert data.classes == ("a", "b")
    assert data.fingerprint == whole(pd.DataFrame(rows), labels="label").fingerprint
    vectors = [{"features": np.arange(4.0) + i, "label": i % 2} for i in range(N)]
    data = whole(vectors)
    assert data.spec.shape == (4,) and data.classes == ("0", "1")


def test_paths_in_items(tmp_path) -> None:
    for i, picture in enumerate(PICTURES):
        picture.save(tmp_path / f"{i}.png")
    assert same_pixels(whole([{"image": str(tmp_path / f"{i}.png")} for i in range(N)]))
    assert same_pixels(whole([{"file": tmp_path / f"{i}.png", "label": 1} for i in range(N)], image="file"))


def content(picture: Image.Image, kind: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, kind)
    return buffer.getvalue()


class Broken(Given):
    def __getitem__(self, i: int) -> Any:
        if i == 3:
            raise KeyError("no such row")
        return super().__getitem__(i)


@pytest.mark.parametrize(
    ("source", "says"),
    [
        (Given([PICTURES[0], None, PICTURES[1], None]), "2 of the 4 items of 'train' are None, the first is number 1"),
        ([*PICTURES, None], "1 of the 25 items"),
        ([None, *PICTURES], "1 of the 25 items"),
        (Given([(None, 1), (PICTURES[0], 0)]), "are None"),
        ([{"image": PICTURES[0]}, {"image": None}], "1 of the 2 values of 'image' are None"),
        (Given([(a, b) for a, b in zip(PICTURES, PICTURES, strict=True)]), "pairs of pictures.*given="),
        ([(None, 1), (PICTURES[0], 0)], "1 of the 2 first parts of items of 'items' are None"),
        ([{"image": None, "label": 1}, {"image": PICTURES[0], "label": 0}], "1 of the 2 values of 'image' are None"),
        ([{"image": None, "label": 1}, {"image": PIXELS[0], "label": 0}], "1 of the 2 values of 'image' are None"),
        ([{"image": None, "label": 1}, {"image": content(PICTURES[0]), "label": 0}], "values of 'image' are None"),
        ([{"image": None}, {"image": {"bytes": content(PICTURES[0])}}], "values of 'image' are None"),
        (pd.DataFrame({"image": [None, *PICTURES], "label": 1}), "1 of the 25 values of 'image' are None"),
        (pd.DataFrame({"image": [np.nan, *PICTURES], "label": 1}), "1 of the 25 values of 'image' are None"),
        ([{"label": 1}, {"image": PICTURES[0], "label": 0}], "Item 0 has no key 'image'. Its keys: 'label'"),
        ([{"image": x, "label": None if i == 0 else 1} for i, x in enumerate(PICTURES)], "1 of the 24 labels"),
        ([(x, None if i == 0 else 1) for i, x in enumerate(PICTURES)], "1 of the 24 labels"),
        (pd.DataFrame({"image": PICTURES, "label": [None, *[1] * 23]}), "1 of the 24 labels"),
        (Given([{"image": PICTURES[0]}, {"img": PICTURES[1]}]), "Item 1 has no key 'image'. Its keys: 'img'"),
        (Given([PICTURES[0], {"img": PICTURES[1]}]), "mappings and others are not"),
        (Given([{"image": {"bytes": b"x", "path": "a.png"}}]), "None of the 1 pictures can be read"),
        (Given([{"image": {"bytes": None, "path": "a.png"}}]), "picture 0 holds a path, not a picture"),
        (Given([{"image": x, "label": None if i == 3 else 1} for i, x in enumerate(PICTURES)]),
         "1 of the 24 labels of 'train' are missing, the first is number 3.*labels=False"),
        (Hub([{"image": x, "label": -(i == 3)} for i, x in enumerate(PICTURES)], ["a", "b"]), "1 of the 24 labels"),
        ({"image": PICTURES, "label": [1, 2]}, "different lengths: 'image' 24, 'label' 2"),
        ({"image": PICTURES[:3], "label": "cat"}, "The column 'label' is of type str; give a list"),
        ({"image": PICTURES[:4], "label": "cat"}, "The column 'label' is of type str; give a list"),
        ({"image": PICTURES[:4], "label": 3}, "The column 'label' is of type int; give a list"),
        ({"image": PICTURES[:4], "label": np.array(3)}, "The column 'label' is of type ndarray; give a list"),
        ({"image": PICTURES[:4], "label": None}, "The column 'label' is of type NoneType; give a list"),
        (Hub([{"image": x, "label": i % 3} for i, x in enumerate(PICTURES)], ["a", "b"]),
         "label 2 .* names of 2 classes, 0 to 1"),
        (Hub([{"image": x, "label": -2 * (i % 2)} for i, x in enumerate(PICTURES)], ["a", "b"]),
         "label -2 .* names of 2 classes, 0 to 1"),
        ([None, None], "2 of the 2 items of 'train' are None"),
        ([(Given, 1)], "object values"),
        (np.float32(3), "a single number"),
        (torch.tensor(1.0), "a single number"),
        (pd.DataFrame({"a": pd.period_range("2020", periods=20, freq="D")}), r"period\[D\] values; turn it into"),
        ([], "at least one example"),
        (["nowhere/a.png", "nowhere/b.png"], "None of the 2 pictures can be read. The first: nowhere/a.png"),
        (Given([{"meta": {"a": 1}, "when": object()}]), "no picture or array.*'meta', 'when'"),
        (Given([({"image": PICTURES[0]}, 1)]), "tuples of mappings.*'image'"),
        (Given([(PICTURES[0], 1), (PICTURES[1],)]), "fewer parts"),
        (Given([(x, np.array([1.0, 1.0, 0.0])) for x in PICTURES]), "one class per example"),
        (Given([(x, [1] * (i % 3)) for i, x in enumerate(PICTURES)]), "one class per example"),
        (Broken([(x, 1) for x in PICTURES]), "Item 3 of 'train' cannot be read: KeyError: 'no such row'"),
        (Given([]), "no examples"),
        (torch.utils.data.DataLoader(Given(PICTURES)), "DataLoader gives batches.*give the dataset"),
        ((x for x in PICTURES), r"generator has no known length.*list\("),
        ({"train": Given([{"a": 1}]), "extra": Given([{"a": 1}])}, "'extra' is not a split"),
        ([PICTURES[0], PIXELS[1]], "Item 1 .* an ndarray where others have a picture"),
    ],
)  # fmt: skip
def test_what_cannot_be_read_is_one_line(source: Any, says: str) -> None:
    with pytest.raises(DataError, match=says) as caught:
        whole(source)
    assert "\n" not in str(caught.value)


def test_pictures_in_tables_and_as_files(tmp_path) -> None:
    """What ``to_pandas`` and the Parquet files of a hub give, and lists of paths."""
    kinds = [i % 2 for i in range(N)]
    data = whole(pd.DataFrame({"image": PICTURES, "label": kinds}))
    assert same_pixels(data) and data.classes == ("0", "1")
    packed = [{"bytes": content(picture), "path": None} for picture in PICTURES]
    assert same_pixels(whole(Given([{"image": x, "label": 1} for x in packed])))
    assert same_pixels(whole([{"image": x["bytes"]} for x in packed]))
    pd.DataFrame({"picture": packed, "label": kinds, "text": "a"}).to_parquet(tmp_path / "t.parquet")
    for options in ({}, {"image": "picture"}):
        data = whole(tmp_path / "t.parquet", **options)
        assert same_pixels(data) and data.classes == ("0", "1")
        assert load_data(**data.source).fingerprint == data.fingerprint
    for source in (tmp_path / "t.parquet", pd.DataFrame({"image": PICTURES, "label": kinds})):
        census = inspect(source)
        assert census.kind == "pictures" and census.facts["examples"] == N
    with pytest.raises(DataError, match=r"no key 'pictur' for image. Did you mean 'picture'"):
        whole(tmp_path / "t.parquet", image="pictur")
    paths = []
    for i, picture in enumerate(PICTURES):
        paths.append(tmp_path / f"{i}.png")
        picture.save(paths[-1])
    assert same_pixels(whole(paths)) and same_pixels(whole([str(path) for path in paths]))
    assert whole(paths, labels=kinds).train.y.tolist() == kinds


def test_tables_of_pictures_by_split() -> None:
    kinds = [i % 2 for i in range(N)]
    frame = pd.DataFrame({"image": PICTURES, "label": kinds})
    data = load_data({"train": frame[:16], "test": frame[16:]}, validation=0)
    assert len(data.splits["test"]) == 8 and data.classes == ("0", "1")
    words = whole([{"x": "red", "data": i / 7, "label": "a"} for i in range(N)])
    assert words.transform.frame, "texts that are no file names are cells"


def test_rows_with_names() -> None:
    rows = np.array([(i, i / 7) for i in range(N)], dtype=[("a", int), ("b", float)])
    assert [c["name"] for c in whole(rows).transform.columns] == ["a", "b"]
    assert whole([{0: x, 1: "a"} for x in PICTURES]).notes == ("other keys than '0' were left out: '1'",)


def test_a_split_whose_labels_are_hidden() -> None:
    def items(some: list[Any], label: int | None = None) -> Hub:
        return Hub([{"image": x, "label": i % 2 if label is None else label} for i, x in enumerate(some)], ["a", "b"])

    data = load_data({"train": items(PICTURES[:16]), "test": items(PICTURES[16:], -1)}, validation=0)
    assert data.splits["test"].y is None and data.train.y.tolist() == [i % 2 for i in range(16)]


def test_pairs_of_pictures_as_the_message_says() -> None:
    pairs = list(zip(PICTURES, PICTURES[::-1], strict=True))
    data = whole([a for a, b in pairs], given={"source": [b for a, b in pairs]})
    assert np.array_equal(data.train.given["source"][:, 0].numpy(), PIXELS[::-1])


def test_bytes_that_are_no_pictures_are_cells(tmp_path) -> None:
    frame = pd.DataFrame({"id": [b"a", b"b"] * 6, "v": range(12)})
    data = whole(frame)
    assert data.transform.frame and [c["name"] for c in data.transform.columns] == ["id", "v"]
    assert whole(frame, drop=["id"]).spec.shape == (1,)
    frame.to_parquet(tmp_path / "t.parquet")
    assert whole(tmp_path / "t.parquet", drop=["id"]).spec.shape == (1,)
    assert inspect(frame).kind == "table"


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "TIFF", "BMP", "GIF", "PPM"])
def test_a_column_of_the_content_of_files(kind: str) -> None:
    frame = pd.DataFrame({"image": [content(x, kind) for x in PICTURES], "label": [i % 2 for i in range(N)]})
    data = whole(frame)
    assert data.spec.shape[1:] == (8, 10) and data.classes == ("0", "1")
    frame.loc[0, "image"] = b"damaged"
    assert len(whole(frame).train) == N - 1


def test_keys_of_mappings_of_bytes_and_paths_are_named(tmp_path: Path) -> None:
    for i in range(20):
        Image.fromarray(np.full((8, 8), i * 10, np.uint8)).save(tmp_path / f"{i}.png")
    paths = [str(tmp_path / f"{i}.png") for i in range(20)]
    alone = [{"path": path} for path in paths]
    both = [{"bytes": Path(path).read_bytes(), "path": f"{i % 2}.png"} for i, path in enumerate(paths)]
    wanted = load_data(paths).fingerprint
    assert load_data(alone, image="path").fingerprint == wanted
    assert load_data([{"bytes": item["bytes"]} for item in both], image="bytes").fingerprint == wanted
    assert load_data(both).fingerprint == wanted
    assert load_data(both, image="bytes", labels="path").classes == ("0.png", "1.png")
    assert load_data(both, labels=np.arange(20) % 2).classes == ("0", "1")
    for items in (alone, [*both[:3], {"bytes": None, "path": paths[3]}, *both[4:]]):
        with pytest.raises(DataError, match=r"has a path and no content.*image='path'"):
            load_data(items)
    with pytest.raises(DataError, match="no key 'picture' for image"):
        load_data(both, image="picture")
    with pytest.raises(DataError, match="which these are not"):
        load_data(paths, image="path")

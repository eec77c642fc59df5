"""Arrays, tables and datasets handed over in Python or read from files, and the transforms fitted to them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from sandglass.data.load import load_data
from sandglass.data.transform import ArrayTransform, ImageTransform, TableTransform, Transform
from sandglass.errors import ConfigError, DataError

RNG = np.random.default_rng(0)
BYTES = RNG.integers(0, 256, (20, 9, 7, 3), np.uint8)


def whole(source, **options):
    return load_data(source, validation=0, test=0, **options)


@pytest.mark.parametrize(
    ("source", "shape"),
    [
        (BYTES, (3, 9, 7)),
        (np.moveaxis(BYTES, -1, 1), (3, 9, 7)),
        (torch.from_numpy(BYTES).movedim(-1, 1), (3, 9, 7)),
        (BYTES[..., 0], (1, 9, 7)),
        (np.asfortranarray(BYTES), (3, 9, 7)),
        (BYTES.astype(">i8"), (3, 9, 7)),
        (BYTES / 255, (3, 9, 7)),
        ((BYTES / 255).astype(np.float32), (3, 9, 7)),
        ((BYTES / 255).astype(">f8"), (3, 9, 7)),
        (BYTES.astype(np.uint16) * 257, (3, 9, 7)),
    ],
)
def test_layouts_and_types_of_pictures_give_the_same_bytes(source, shape):
    data = whole(source)
    assert data.spec.shape == shape
    assert data.spec.support == "levels"
    assert data.train.x.dtype == torch.uint8
    expected = np.moveaxis(BYTES, -1, 1)[:, : shape[0]]
    assert np.array_equal(data.train.x.numpy(), expected)
    assert data.train.x.is_contiguous()


def test_floats_that_are_no_bytes_stay_floats():
    x = RNG.random((10, 6, 5))
    data = whole(x)
    assert data.train.x.dtype == torch.float32
    assert data.spec.support == "levels"
    assert np.array_equal(data.train.x[:, 0].numpy(), x.astype(np.float32))
    again = Transform.from_dict(json.loads(json.dumps(data.transform.to_dict())))
    assert torch.equal(whole(x, transform=again).train.x, data.train.x)


def test_the_greys_of_things_on_a_white_ground_are_levels_and_those_at_the_edges_of_ink_are_not():
    side = np.linspace(-1, 1, 20)
    far = np.hypot(*np.meshgrid(side, side)) - 0.4
    thing = np.where(far < 0, 60 + 120 * (side + 1) / 2, 255)
    ink = 255 / (1 + np.exp(-30 * np.abs(far) + 4))
    for picture, support in ((thing, "levels"), (ink, "unit")):
        data = whole(np.repeat(picture[None].round().astype(np.uint8), 10, 0))
        greys = data.train.batch(slice(0, 1)).x
        assert 0.02 < ((greys > 0.1) & (greys < 0.9)).double().mean() < 0.25  # of all values it would be few in both
        assert data.spec.support == support


@pytest.mark.parametrize("dtype", [bool, np.uint8, np.float64, np.int64])
@pytest.mark.parametrize("shape", [(12, 8, 6), (12, 5)])
def test_zeros_and_ones_are_binary(dtype, shape):
    x = (RNG.random(shape) < 0.5).astype(dtype)
    data = whole(x)
    assert data.spec.support == "binary"
    assert data.spec.levels == 2
    assert np.array_equal(data.train.batch(slice(0, 12)).x.reshape(shape).numpy(), x.astype(np.float32))
    assert torch.equal(whole(x, transform=data.transform).train.x, data.train.x)


@pytest.mark.parametrize(
    ("x", "words"),
    [
        (np.zeros((4, 8, 8), np.uint8), r"x\[None\]"),
        (np.zeros((64, 64, 3), np.uint8), r"x\[None\]"),
        (np.zeros((10, 3, 8, 3), np.uint8), "3 channels first or 3 channels last; give channels_at='first'"),
        (np.zeros((0, 8, 8), np.uint8), "at least one example"),
        (np.zeros(5), "give rows"),
        (np.zeros((2, 2, 2, 2, 2)), "pictures are"),
        (RNG.integers(0, 17, (20, 8, 8)).astype(float), "whole numbers up to 16 as float64"),
        (np.array([["a", "b"]]), "not numbers"),
        (np.array([[1, None]], dtype=object), "not numbers"),
        (np.array([[1j]]), "not numbers"),
        (object(), "cannot be read"),
        ({"train": BYTES, "dev": BYTES}, "not a split"),
        ({"test": BYTES}, "do not include 'train'"),
        ((BYTES, np.zeros(3)), "20 examples and 3 labels"),
        ((BYTES, np.linspace(0, 1, 20)), "not whole numbers"),
        ({"train": BYTES, "test": BYTES / 255.0}, "same type and shape"),
    ],
)
def test_what_cannot_be_understood_is_refused(x, words):
    with pytest.raises(DataError, match=words):
        load_data(x)


def test_a_tensor_settles_the_layout():
    assert whole(torch.zeros(10, 3, 8, 3, dtype=torch.uint8)).spec.shape == (3, 8, 3)


@pytest.mark.parametrize("bad", [np.inf, -np.inf])
def test_values_that_are_not_finite_are_refused_with_their_index(bad):
    x = RNG.random((10, 4))
    x[3, 2] = x[7, 0] = bad
    with pytest.raises(DataError, match=r"2 infinite values, the first at index \(3, 2\)"):
        load_data(x)
    with pytest.raises(DataError, match=r"1 missing or infinite value, the first at index \(0, 0, 0\)"):
        load_data(np.full((1, 4, 5), np.nan)[:, :1, :1])


def test_memory_maps_and_read_only_arrays_are_not_modified(tmp_path):
    np.save(tmp_path / "x.npy", BYTES)
    before = (tmp_path / "x.npy").read_bytes()
    data = whole(tmp_path / "x.npy")
    data.train.x.zero_()
    frozen = BYTES.copy()
    frozen.flags.writeable = False
    whole(frozen).train.x.zero_()
    assert (tmp_path / "x.npy").read_bytes() == before
    assert np.array_equal(frozen, BYTES)
    tensor = torch.from_numpy(BYTES.copy()).movedim(-1, 1)
    whole(tensor).train.x.zero_()
    assert tensor.any()


def test_numpy_archives(tmp_path):
    y = np.arange(20) % 4
    np.savez(tmp_path / "a.npz", x=BYTES, y=y)
    assert whole(tmp_path / "a.npz").train.y.tolist() == y.tolist()
    assert whole(tmp_path / "a.npz", labels=False).train.y is None
    np.savez(tmp_path / "b.npz", x_train=BYTES, y_train=y, x_test=BYTES[:5], y_test=y[:5])
    data = load_data(tmp_path / "b.npz", validation=0)
    assert {k: len(v) for k, v in data.splits.items()} == {"train": 20, "test": 5}
    np.savez(tmp_path / "c.npz", pictures=BYTES)
    assert whole(tmp_path / "c.npz").spec.shape == (3, 9, 7)
    np.save(tmp_path / "d.npy", np.array([{}], dtype=object), allow_pickle=True)
    (tmp_path / "e.npz").write_bytes(b"PK no")
    for name in ("d.npy", "e.npz"):
        with pytest.raises(DataError, match=name):
            load_data(tmp_path / name)


def test_rows_are_standardised_by_the_training_rows_alone():
    x = RNG.normal(5, 3, (200, 4))
    x[:, 3] = 7.0
    data = load_data(x)
    assert data.spec.shape == (4,)
    assert data.spec.support == "real"
    assert len(data.spec.columns) == 4
    assert data.train.x.mean(0).abs().max() < 1e-6
    assert data.train.x[:, :3].std(0, correction=0) == pytest.approx([1, 1, 1], abs=1e-5)
    assert data.splits["test"].x.mean(0)[:3].abs().max() > 1e-3
    everything = np.concatenate([data.transform.inverse(s.x) for s in data.splits.values()])
    order = np.lexsort(everything.T), np.lexsort(x.T)
    assert np.allclose(everything[order[0]], x[order[1]], rtol=0, atol=1e-5)


def test_arrays_of_real_numbers_keep_their_shape():
    x = RNG.normal(0, 40, (30, 6, 8))
    data = whole(x)
    assert isinstance(data.transform, ArrayTransform)
    assert data.spec.support == "real"
    assert data.spec.shape == (1, 6, 8)
    assert np.allclose(data.transform.inverse(data.train.x), x, atol=1e-4)
    assert any("outside [0, 1]" in note for note in data.notes)
    assert torch.allclose(whole(x, transform=data.transform).train.x, data.train.x)


def frame(n=120) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "height": RNG.normal(170, 10, n),
            "count": RNG.integers(0, 1000, n),
            "town": RNG.choice(["Ulm", "Bern", "Graz"], n),
            "member": RNG.random(n) < 0.5,
            "grade": pd.Categorical(RNG.choice([1, 2, 10], n)),
            "kind": RNG.choice(["no", "yes"], n),
        }
    )


def test_frame_round_trip():
    table = frame()
    data = whole(table, labels="kind")
    assert data.classes == ("no", "yes")
    assert data.spec.shape == (2 + 3 + 2 + 3,)
    assert [c.categories for c in data.spec.columns[2:]] == [
        ("Bern", "Graz", "Ulm"),
        ("False", "True"),
        ("1", "2", "10"),
    ]
    assert "3 columns one-hot" in data.notes
    transform = Transform.from_dict(json.loads(json.dumps(data.transform.to_dict())))
    back = transform.inverse(data.train.x)
    assert list(back.columns) == ["height", "count", "town", "member", "grade"]
    for name in ("count", "town", "member", "grade"):
        assert back[name].tolist() == table[name].tolist(), name
    assert np.allclose(back["height"], table["height"], rtol=1e-6)
    assert torch.equal(transform.apply(table[list(table.columns[::-1])]), data.train.x)


def test_csv_equals_frame(tmp_path):
    table = frame().drop(columns="grade")
    table.to_csv(tmp_path / "people.csv", index=False)
    data = load_data(tmp_path / "people.csv", labels="kind")
    direct = load_data(table, labels="kind")
    assert data.name == "people"
    assert data.source == {"source": str(tmp_path / "people.csv"), "labels": "kind"}
    assert data.fingerprint == direct.fingerprint == load_data(**data.source).fingerprint
    assert direct.source is None


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "not a table"), ("a,b\n", "no rows"), ("a,b\n1,\n", "'b' has no value in any row"),
        ("a,b\n1,2,3\n4,5,6,7\n", "not a table"), ("a,b\n1,inf\n", "value that is infinite, the first in row 0"),
        ("a,b\n1,2,3\n4,5,6\n", "more cells than the first line"), ("a,a\n1,2\n", "2 columns named 'a'"),
    ],
)  # fmt: skip
def test_csv_that_is_no_table(tmp_path, text, words):
    (tmp_path / "t.csv").write_text(text)
    with pytest.raises(DataError, match=words):
        load_data(tmp_path / "t.csv")


def test_tables_that_cannot_be_encoded():
    with pytest.raises(DataError, match="no column 'sort'"):
        load_data(frame(), labels="sort")
    with pytest.raises(DataError, match=r"'id' has 120 different texts .*--drop 'id'"):
        load_data(frame().assign(id=[f"n{i}" for i in range(120)]))
    with pytest.raises(DataError, match="timedelta64"):
        load_data(frame().assign(day=pd.Timedelta(days=1)))


def test_a_trained_transform_reads_new_rows():
    table = frame()
    fitted = whole(table, labels="kind").transform
    data = whole(table.iloc[:5], transform=fitted)
    assert torch.equal(data.train.x, fitted.apply(table.iloc[:5]))
    assert data.notes == ("columns that the model does not use were left out: kind",)
    with pytest.raises(DataError, match=r"lacks 'town': expected 'height', .* got 'height'"):
        whole(table.drop(columns="town"), transform=fitted)
    with pytest.raises(DataError, match="'town' has 'Rome' in row 0"):
        whole(table.assign(town="Rome"), transform=fitted)
    rows = whole(RNG.random((9, 3))).transform
    with pytest.raises(DataError, match=r"\(9, 4\); expected \(N, 3\)"):
        whole(RNG.random((9, 4)), transform=rows)
    with pytest.raises(DataError, match="got pictures"):
        load_data("digits", transform=rows)
    with pytest.raises(DataError, match="reads rows of 3"):
        whole(BYTES, transform=rows)
    with pytest.raises(DataError, match="got a table"):
        whole(table, transform=ImageTransform((4, 4), 1))


class Pairs(torch.utils.data.Dataset):
    def __init__(self, items):
        self.items = items

    def __len__(self):
        return len(self.items)

    def __getitem__(self, i):
        return self.items[i]


def test_torch_datasets():
    x = torch.from_numpy(BYTES).movedim(-1, 1)
    data = whole(Pairs([(a / 255, i % 3) for i, a in enumerate(x)]))
    assert torch.equal(data.train.x, x)
    assert data.train.y.tolist() == [i % 3 for i in range(20)]
    assert data.source is None
    assert torch.equal(whole(Pairs([(a, torch.tensor(1)) for a in x])).train.x, x)
    assert torch.equal(whole(Pairs(list(x[:3, 0]))).train.x, x[:3, :1])
    pictures = whole(Pairs([(Image.fromarray(a), "ab"[i % 2]) for i, a in enumerate(BYTES)]))
    assert torch.equal(pictures.train.x, x)
    assert pictures.classes == ("a", "b")
    assert whole(Pairs(list(torch.randn(6, 4)))).spec.shape == (4,)
    with pytest.raises(DataError, match="2 shapes"):
        load_data(Pairs([torch.zeros(1, 2, 2), torch.zeros(1, 3, 3)]))
    with pytest.raises(DataError, match="no examples"):
        load_data(Pairs([]))


def test_arrays_are_resized_and_unfolded():
    assert whole(BYTES, size=(4, 5), channels=1).spec.shape == (1, 4, 5)
    flat = BYTES[..., 0].reshape(20, -1)
    data = whole(flat, size=(9, 7))
    assert np.array_equal(data.train.x[:, 0].numpy(), BYTES[..., 0])
    with pytest.raises(DataError, match="not pictures of 1x9x9"):
        load_data(flat, size=9)


@pytest.mark.parametrize(("size", "channels"), [((6, 5), 1), ((6, 5), 3), ((6, 5), 4)])
@pytest.mark.parametrize("levels", [2, 17, 256])
def test_inverse_then_apply_is_identity(size, channels, levels):
    transform = ImageTransform(size, channels, levels=levels)
    x = torch.from_numpy(RNG.integers(0, levels, (4, channels, *size)).astype(np.uint8))
    raw = transform.inverse(x)
    assert raw.dtype == np.uint8
    assert np.array_equal(raw, transform.inverse(x.float() / (levels - 1)))
    assert torch.equal(transform.apply([Image.fromarray(r) for r in raw]), x)
    assert torch.equal(torch.stack([transform.apply(r) for r in raw]), x)


@pytest.mark.parametrize(
    ("values", "word"),
    [
        ({"kind": "pickle"}, "no transform 'pickle'"), ({}, "no transform"),
        ({"kind": "image", "size": [8, 8], "channels": 1, "colour": 1}, "no 'colour'"),
        ({"kind": "image", "size": [8, 8]}, "damaged"), ({"kind": "image", "size": [8, 8], "channels": 0}, "channels"),
        ({"kind": "image", "size": [10**6, 10**6], "channels": 1}, "megapixels"),
        ({"kind": "table", "columns": [{"name": "a"}]}, "damaged"),
        ({"kind": "array", "shape": [3], "scale": 0.0}, "positive scale"),
        ({"kind": "array", "shape": [3], "dtype": "object"}, "type 'object'"),
        ({"kind": "image", "size": [8, 8], "channels": 1, "layout": "HH"}, "layout 'HH'"),
    ],
)  # fmt: skip
def test_transforms_from_damaged_files(values, word):
    with pytest.raises(ConfigError, match=word):
        Transform.from_dict(values)


def test_table_transform_round_trip_is_exact_to_float_precision():
    x = RNG.normal(1e6, 3.0, (50, 2))
    transform = whole(x).transform
    assert isinstance(transform, TableTransform)
    assert np.abs(transform.inverse(transform.apply(x)) - x).max() < 1e-5


def test_splits_are_disjoint_seeded_and_stratified():
    x = np.arange(1000.0)[:, None] @ np.ones((1, 2))
    y = np.repeat(["a", "b", "c"], [700, 250, 50])
    data = load_data((x, y), validation=0.1, test=0.2)
    rows = {s: data.transform.inverse(part.x)[:, 0].round().astype(int) for s, part in data.splits.items()}
    assert sorted(np.concatenate(list(rows.values()))) == list(range(1000))
    counts = {s: part.y.bincount().tolist() for s, part in data.splits.items()}
    assert counts == {"train": [490, 175, 35], "validation": [70, 25, 5], "test": [140, 50, 10]}
    for split, part in data.splits.items():
        assert [data.classes[i] for i in part.y] == y[rows[split]].tolist()
    assert load_data((x, y), test=0.2).fingerprint == data.fingerprint
    assert load_data((x, y), test=0.2, seed=1).fingerprint != data.fingerprint


@pytest.mark.parametrize("n", [1, 2, 3, 5, 10])
def test_few_examples(n):
    data = load_data(RNG.random((n, 3)))
    assert sum(len(s) for s in data.splits.values()) == n
    assert len(data.train) >= 1


def test_limit():
    x = RNG.random((100, 3))
    data = load_data(x, limit=7)
    assert len(data.train) == 7
    assert len(data.splits["test"]) == 10
    assert data.train.x.mean(0).abs().max() < 1e-6


@pytest.mark.parametrize("shape", ["(-20, 4)", "(-2,)", "(2, -3, 4)"])
def test_a_file_that_claims_a_size_below_zero_is_damaged(shape: str, tmp_path: Path) -> None:
    head = f"{{'descr': '<f8', 'fortran_order': False, 'shape': {shape}, }}"
    header = f"{head:<117}\n".encode()
    path = tmp_path / "x.npy"
    path.write_bytes(b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + bytes(64))
    with pytest.raises(DataError, match=r"x\.npy"):
        load_data(path)

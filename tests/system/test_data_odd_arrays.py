"""Odd arrays, lists and datasets: each is read, or refused in one line that says what to give instead."""

from __future__ import annotations

import collections
import io
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import scipy.sparse
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset

import sandglass
from sandglass.data.load import load_data
from sandglass.errors import DataError, NotFoundError, SandglassError
from sandglass.registry import build

RNG = np.random.default_rng(0)
X = RNG.random((12, 6, 5))
ROWS = RNG.normal(size=(12, 4))


class Labelled:
    """An array with names for its axes, like those of xarray."""

    def __init__(self, values: Any) -> None:
        self.values = values

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Any:
        return np.asarray(self.values, dtype)

    def __len__(self) -> int:
        return len(self.values)

    def __getitem__(self, i: Any) -> Labelled:
        return Labelled(self.values[i])


@dataclass
class Item:
    """An example with a class."""

    image: Any
    label: int


class Styled:
    """What has columns but no rows, like a styled table of pandas."""

    columns = ("a",)


class Long:
    """A dataset of a length that cannot be."""

    def __init__(self, length: Any) -> None:
        self.length = length

    def __len__(self) -> int:
        return self.length  # type: ignore[no-any-return]

    def __getitem__(self, i: int) -> Any:
        return X[0]


class Endless(IterableDataset):  # type: ignore[type-arg]
    def __iter__(self) -> Iterator[Any]:
        return iter(torch.from_numpy(X))


class Unsized(Dataset):  # type: ignore[type-arg]
    def __getitem__(self, i: int) -> Any:
        return X[i]


def masked(x: Any) -> Any:
    return np.ma.masked_array(x, np.arange(x.size).reshape(x.shape) == 3)


def fields() -> Any:
    return np.array([(1, 2.0), (3, 4.0)], dtype=[("a", "i4"), ("b", "f8")])


def content(seed: int) -> bytes:
    """The content of a picture file."""
    buffer = io.BytesIO()
    Image.fromarray((255 * X[seed]).astype(np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


def nested() -> Any:
    """A tensor of examples of unequal length."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it is a prototype, PyTorch says
        return torch.nested.nested_tensor([torch.rand(2, 3), torch.rand(3, 3)])


def boxed(values: list[Any]) -> Any:
    """An array of objects."""
    found = np.empty(len(values), object)
    for i, value in enumerate(values):
        found[i] = value
    return found


READ: dict[str, tuple[Callable[[], Any], tuple[int, ...]]] = {
    "half precision": (lambda: X.astype(np.float16), (1, 6, 5)),
    "long double": (lambda: X.astype(np.longdouble), (1, 6, 5)),
    "Boolean pictures": (lambda: X > 0.5, (1, 6, 5)),
    "column-major": (lambda: np.asfortranarray(X), (1, 6, 5)),
    "negative strides": (lambda: X[::-1, ::-1], (1, 6, 5)),
    "every other": (lambda: X[::2, ::2], (1, 3, 5)),
    "big-endian": (lambda: X.astype(">f4"), (1, 6, 5)),
    "broadcast": (lambda: np.broadcast_to(X[:1], X.shape), (1, 6, 5)),
    "masked rows": (lambda: masked(ROWS), (4,)),
    "masked nowhere": (lambda: np.ma.masked_array(X), (1, 6, 5)),
    "one picture": (lambda: X[None, 0], (1, 6, 5)),
    "one row": (lambda: ROWS[:1], (4,)),
    "one pixel": (lambda: X[:, :1, :1], None),  # type: ignore[dict-item]
    "channels of one pixel": (lambda: RNG.random((12, 1, 1, 7)), (1, 1, 7)),
    "objects with an array": (lambda: Labelled(X), (1, 6, 5)),
    "read-only": (lambda: np.frombuffer(X.tobytes()).reshape(X.shape), (1, 6, 5)),
    "fields": (fields, (2,)),
    "a matrix": (lambda: np.asmatrix(ROWS), (4,)),
    "large rows": (lambda: ROWS * 1e30, (4,)),
    "constant": (lambda: np.full((12, 6, 5), 7.5), (1, 6, 5)),
    "nested lists": (lambda: X.tolist(), (1, 6, 5)),
    "a list of arrays": (lambda: list(X), (1, 6, 5)),
    "a list of tensors": (lambda: list(torch.from_numpy(X)), (1, 6, 5)),
    "a list of pairs": (lambda: [(x, i % 2) for i, x in enumerate(X)], (1, 6, 5)),
    "a list of lists of pairs": (lambda: [[x, "ab"[i % 2]] for i, x in enumerate(X)], (1, 6, 5)),
    "a list of pictures": (lambda: [Image.fromarray((255 * x).astype(np.uint8)) for x in X], (1, 6, 5)),
    "splits of lists": (lambda: {"train": list(X), "test": list(X[:3])}, (1, 6, 5)),
    "a tensor with gradients": (lambda: torch.rand(12, 1, 6, 5, requires_grad=True), (1, 6, 5)),
    "a list with gradients": (lambda: [torch.rand(6, 5, requires_grad=True) for _ in range(9)], (1, 6, 5)),
    "a half tensor": (lambda: torch.from_numpy(X).half(), (1, 6, 5)),
    "a bfloat16 tensor": (lambda: torch.from_numpy(X).bfloat16(), (1, 6, 5)),
    "a tensor of views": (lambda: torch.from_numpy(X).movedim(0, -1).movedim(-1, 0), (1, 6, 5)),
    "a dataset of tensors": (lambda: TensorDataset(torch.from_numpy(X), torch.arange(12) % 2), (1, 6, 5)),
    "rounding errors around 0 and 1": (lambda: np.where(X > 0.5, 1 + 1e-7, -1e-8), (1, 6, 5)),
    "contents of files": (lambda: [content(i) for i in range(9)], (1, 6, 5)),
    "contents in a bytearray": (lambda: [bytearray(content(i)) for i in range(9)], (1, 6, 5)),
    "contents with labels": (lambda: [(content(i), i % 2) for i in range(9)], (1, 6, 5)),
    "contents as the hub has them": (lambda: [{"bytes": content(i), "path": None} for i in range(9)], (1, 6, 5)),
    "splits of columns": (lambda: {"train": {"image": [*map(content, range(9))], "label": [0, 1, 2] * 3}}, (1, 6, 5)),
    "a deque": (lambda: collections.deque(X), (1, 6, 5)),
    "an empty split of a dataset": (lambda: {"train": [(x, 1) for x in X], "test": Long(0)}, (1, 6, 5)),
    "Keras's pairs": (lambda: ((X, np.arange(12)[:, None] % 3), (X[:5], np.arange(5)[:, None] % 3)), (1, 6, 5)),
}  # fmt: skip

REFUSED: dict[str, tuple[Callable[[], Any], str]] = {
    "no dimension": (lambda: np.array(3.0), "single number"),
    "a number in a tensor": (lambda: torch.tensor(3.0), "single number"),
    "one dimension": (lambda: X[:, 0, 0], "give rows"),
    "a series": (lambda: pd.Series(X[:, 0, 0]), "give rows"),
    "five dimensions": (lambda: np.zeros((4, 3, 5, 6, 7)), "pictures are"),
    "objects": (lambda: X.astype(object), "not numbers"),
    "complex": (lambda: X * 1j, "two channels"),
    "a complex tensor": (lambda: torch.from_numpy(X) * 1j, "two channels"),
    "dates": (lambda: np.array([["2020-01-01"]], dtype="M8[D]"), "pandas DataFrame"),
    "masked pictures": (lambda: masked(X), r"filled\(0\)"),
    "nothing": (lambda: X[:0], "at least one example"),
    "no width": (lambda: X[:, :, :0], "at least one example"),
    "an empty list": (lambda: [], "at least one example"),
    "NaN in pictures": (lambda: np.where(X > 0.99, np.nan, X), "missing or infinite"),
    "only NaN": (lambda: np.full((4, 3), np.nan), "only NaN"),
    "infinite rows": (lambda: np.where(ROWS > 1, np.inf, ROWS), "infinite"),
    "huge": (lambda: X * 1e300, "too large"),
    "huge rows": (lambda: ROWS * 1e300, "larger than"),
    "unequal lists": (lambda: [[1.0, 2.0], [3.0]], "same length"),
    "unequal arrays": (lambda: [X[0], X[0, :3]], "2 shapes"),
    "unequal pairs": (lambda: [(X[0], 1), (X[1],)], "fewer parts"),
    "a sparse matrix": (lambda: scipy.sparse.csr_matrix(ROWS), r"x\.toarray\(\)"),
    "a sparse array": (lambda: scipy.sparse.coo_array(ROWS), r"x\.toarray\(\)"),
    "a sparse tensor": (lambda: torch.from_numpy(ROWS).to_sparse(), r"x\.to_dense\(\)"),
    "a sparse matrix with labels": (lambda: (scipy.sparse.csr_matrix(ROWS), np.arange(12) % 2), r"x\.toarray\(\)"),
    "a tensor of 8 bits": (lambda: torch.zeros(4, 1, 6, 5).to(torch.float8_e4m3fn), r"x\.float\(\)"),
    "a tensor of no device": (lambda: torch.zeros(4, 6, 5, device="meta"), "x"),
    "a generator": (lambda: (x for x in X), r"list\(\.\.\.\)"),
    "an iterator": (lambda: iter(X), r"list\(\.\.\.\)"),
    "a dataset of unknown length": (Endless, r"list\(\.\.\.\)"),
    "a dataset without a length": (Unsized, r"\[data\[i\] for i in range\(n\)\]"),
    "a loader": (lambda: DataLoader(TensorDataset(torch.from_numpy(X))), r"loader\.dataset"),
    "a loader of unknown length": (lambda: DataLoader(Endless()), r"list\(loader\.dataset\)"),
    "a set": (lambda: {1.0, 2.0}, "cannot be read|list"),
    "a nested tensor": (nested, "to_padded_tensor"),
    "fields of several values": (lambda: np.zeros(9, [("a", "f4", (3,)), ("b", "i4")]), "the field 'a' of several"),
    "durations": (lambda: np.arange(9).astype("m8[s]")[:, None], r"numpy.timedelta64\(1, 's'\)"),
    "an array of arrays": (lambda: boxed([*X]), r"numpy.stack\(list\(x\)\)"),
    "a series of arrays": (lambda: pd.Series([*X]), r"numpy.stack\(list\(x\)\)"),
    "an array of pictures": (lambda: boxed([Image.new("L", (5, 6))] * 9), r"as a list: list\(x\)"),
    "fractions": (lambda: [[Fraction(1, 3), 2]] * 9, r"x.astype\(float\)"),
    "open files": (lambda: [io.BytesIO(b"x")] * 9, "open each file first"),
    "one column": (lambda: [1.0, 2.0, 3.0], r"x\[:, None\]"),
    "data classes": (lambda: [Item(X[0], 1)] * 9, r"vars\(item\)"),
    "sets in cells": (lambda: pd.DataFrame({"a": [{1, 2}] * 9}), r"'a' holds values of type set.*types=\{'a'.*drop"),
    "objects in cells": (lambda: pd.DataFrame({"a": [object()] * 9}), "type object; .* lists of them, or leave it"),
    "frozen sets in cells": (lambda: pd.DataFrame({"a": [frozenset({1})] * 9}), r"types=\{'a': 'categorical'\} \("),
    "classes in cells": (lambda: pd.DataFrame({"a": [int, str, int] * 3}), r"type type.*types=\{'a': 'categorical'\}"),
    "mappings in cells": (lambda: pd.DataFrame({"a": [{"k": 1}] * 9}), r"mappings.*types=\{'a': 'categorical'\}.*drop"),
    "functions in cells": (lambda: pd.DataFrame({"a": [len] * 9}), "column 'a' holds values of type builtin"),
    "tensors in cells": (lambda: pd.DataFrame({"a": [*torch.rand(9, 3)]}), "column 'a' holds values of type Tensor"),
    "tables in cells": (lambda: pd.DataFrame({"a": [pd.DataFrame()] * 9}), "column 'a' holds values of type DataFrame"),
    "a styled table": (Styled, "The source is a Styled, not a table; give its DataFrame"),
    "columns of a table": (lambda: {"age": [1, 2], "kind": ["x", "y"]}, r"For a table give pandas.DataFrame\(\{'age'"),
    "a negative length": (lambda: Long(-1), "length of the dataset cannot be read: ValueError"),
    "half an example": (lambda: Long(2.5), "length of the dataset cannot be read: TypeError"),
    "an endless length": (lambda: Long(10**30), "length of the dataset cannot be read: OverflowError"),
    "boxes as labels": (lambda: [(x, {"boxes": [[1, 2]], "labels": [0]}) for x in X], "'boxes', 'labels', which is no"),
    "a split of None": (lambda: {"train": X, "test": None}, "The split 'test' is None"),
    "the content of one file": (lambda: content(0), r"as a list, \[content, ...\]"),
    "a mapping in a split": (lambda: {"train": {"a": 1, "b": 2}}, "dict with the keys 'a', 'b' cannot be read"),
    "values of a dictionary": (lambda: {1: X}.values(), r"has no order.*list\(\.\.\.\)"),
    "a class": (lambda: np.ndarray, "ndarray is a class"),
    "pictures without pixels": (lambda: [Image.new("L", (0, 5))] * 3, "picture 0: it has no pixels"),
    "nothing at all": (lambda: None, "A NoneType cannot be read"),
    "a function": (lambda: len, "cannot be read"),
    "one Pillow picture": (lambda: Image.new("L", (5, 6)), r"\[picture\]"),
    "a tuple of three": (lambda: (X, X, X), r"\(x, y\)"),
    "two sets as a pair": (lambda: (X, X), "one class per example"),
    "pairs of unequal length": (lambda: ((X, np.arange(3)), (X, np.arange(12))), "12 examples and 3 labels"),
    "pairs of other sizes": (lambda: ((X, np.arange(12)), (X[:, :4], np.arange(12))), "same type and shape"),
}  # fmt: skip


@pytest.mark.parametrize("name", READ)
@pytest.mark.filterwarnings("ignore:the matrix subclass")
def test_an_odd_array_is_read(name: str) -> None:
    make, shape = READ[name]
    if shape is None:  # two readings
        with pytest.raises(DataError, match="channels=1"):
            load_data(make())
        return
    data = load_data(make())
    assert data.spec.shape == shape
    assert all(bool(torch.isfinite(part.batch(slice(None)).x).all()) for part in data.splits.values())
    assert sandglass.inspect(make()).facts["examples"] > 0


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_read_is_refused_in_a_line_with_a_way(name: str) -> None:
    make, words = REFUSED[name]
    with pytest.raises(DataError, match=words) as caught:
        load_data(make())
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 300
    try:
        sandglass.inspect(make())
    except SandglassError as error:
        assert "\n" not in str(error)


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("https://example.com/x.zip", "is an address; download it"),
        ("pictures/*.png", "in Python a list of files"),
    ],
)
def test_a_name_of_another_kind_is_named(name: str, says: str) -> None:
    with pytest.raises(NotFoundError, match=says):
        load_data(name)


def test_masked_values_of_rows_are_missing() -> None:
    data = load_data(masked(ROWS), validation=0, test=0)
    assert data.train.mask is not None and int((~data.train.mask).sum()) == 1


def test_pairs_as_keras_gives_them_are_training_and_test_set(tmp_path: Path) -> None:
    x, y = (255 * X).astype(np.uint8), np.arange(12)[:, None] % 3
    data = load_data(((x, y), (x[:5], y[:5])))
    assert {split: len(part) for split, part in data.splits.items()} == {"train": 11, "validation": 1, "test": 5}
    assert data.classes == ("0", "1", "2") and data.splits["test"].y.tolist() == y[:5, 0].tolist()
    run = sandglass.train("ae", ((x, y), (x[:5], y[:5])), out=tmp_path / "run", epochs=1, net="mlp", latent_dim=2)
    assert run.config["data"]["examples"]["test"] == 5
    rows = load_data(((ROWS, y), (ROWS[:5], y[:5])))
    assert len(rows.splits["test"]) == 5


def test_the_ways_that_are_named_work() -> None:
    loader = DataLoader(TensorDataset(torch.from_numpy(X), torch.arange(12) % 2))
    assert load_data(loader.dataset).classes == ("0", "1")
    assert load_data(list(DataLoader(Endless()).dataset)).spec.shape == (1, 6, 5)
    unsized = Unsized()
    assert load_data([unsized[i] for i in range(12)]).spec.shape == (1, 6, 5)
    assert load_data(scipy.sparse.csr_matrix(ROWS).toarray()).spec.shape == (4,)
    assert load_data(torch.from_numpy(ROWS).to_sparse().to_dense()).spec.shape == (4,)
    assert load_data(pd.DataFrame(fields())).spec.shape == (2,)
    assert load_data([Image.new("L", (5, 6))]).spec.shape == (1, 6, 5)


MODEL = build("vae", sandglass.Spec((1, 6, 5), "unit"), latent_dim=2, net="mlp").eval()


@pytest.mark.parametrize("method", ["encode", "reconstruct", "posterior", "bound", "log_prob", "decode", "embed"])
@pytest.mark.parametrize("kind", ["float64", "float16", "big-endian", "reversed", "list", "column-major", "read-only"])
def test_a_model_takes_arrays(method: str, kind: str) -> None:
    x: Any = RNG.random((3, 2)) if method in ("decode", "embed") else X[:3, None]
    tensor = torch.as_tensor(x, dtype=torch.float32)
    x = {
        "float64": x,
        "float16": x.astype(np.float16),
        "big-endian": x.astype(">f4"),
        "reversed": x[::-1],
        "list": x.tolist(),
        "column-major": np.asfortranarray(x),
        "read-only": np.frombuffer(x.tobytes()).reshape(x.shape),
    }[kind]
    tensor = tensor.flip(0) if kind == "reversed" else tensor
    tensor = tensor.half().float() if kind == "float16" else tensor

    def value(found: Any) -> torch.Tensor:
        return found if isinstance(found, torch.Tensor) else getattr(found, "elbo", getattr(found, "mean", None))

    torch.manual_seed(0)
    made = value(getattr(MODEL, method)(x))
    torch.manual_seed(0)
    assert torch.allclose(made, value(getattr(MODEL, method)(tensor)), atol=1e-6)


def test_bytes_of_pictures_become_what_a_model_reads() -> None:
    levels = (255 * X[:3, None]).astype(np.uint8)
    codes = MODEL.encode(levels.astype(np.float32) / 255)
    assert torch.allclose(MODEL.encode(levels), codes) and torch.allclose(MODEL.encode(torch.from_numpy(levels)), codes)
    assert MODEL.interpolate(levels[:1], levels[1:2], 3).shape == (1, 3, 1, 6, 5)


@pytest.mark.parametrize("method", ["encode", "reconstruct", "decode", "log_prob"])
@pytest.mark.parametrize(
    "value", [X[:3], X[0, 0], 3.0, "a", None, object(), [[1], [2, 3]], X[:3].astype(object), X[:3] * 1j, {"x": X}]
)
def test_what_a_model_cannot_take_is_refused_in_a_line(method: str, value: Any) -> None:
    with pytest.raises(DataError, match=rf"{method}\(\) takes") as caught:
        getattr(MODEL, method)(value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("scale", [1e-7, 1e-9, 1e-30])
def test_small_values_are_no_rounding_errors(scale: float) -> None:
    fields = RNG.normal(size=(60, 8, 8)) * scale
    data = load_data(fields, validation=0, test=0)
    assert data.spec.support == "real" and abs(float(data.train.x.double().std()) - 1) < 0.01
    back = data.transform.inverse(data.train.x)
    assert np.abs(back - fields).max() < 1e-5 * scale


class Unit:
    """What has a text of its own and can be called, like a unit of measurement."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __str__(self) -> str:
        return self.name

    def __call__(self, value: float) -> float:
        return value


def test_values_with_a_text_of_their_own_are_categories() -> None:
    units = [Unit(name) for name in ("m", "s", "kg")] * 20
    data = load_data(pd.DataFrame({"unit": units, "x": RNG.normal(size=60)}))
    assert data.spec.columns[0].categories == ("kg", "m", "s")
    for cells in ([frozenset({i % 3}) for i in range(60)], [{"k": i % 2} for i in range(60)], [int, str] * 30):
        table = pd.DataFrame({"v": cells, "x": RNG.normal(size=60)})
        assert load_data(table, types={"v": "categorical"}).spec.columns[0].kind == "categorical"

"""Options of companions and unpaired sets that are arrays: where their channels are, and which values are white."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import sandglass
from sandglass.data.load import load_data
from sandglass.errors import ConfigError, DataError, NotFoundError

N = 40
CHANCE = np.random.default_rng(0)
GREY = CHANCE.integers(0, 256, (N, 8, 8), np.uint8)
DEEP = CHANCE.integers(0, 4096, (N, 8, 8), np.uint16)  # 12 bits in 16
TWO = CHANCE.random((N, 3, 8, 3)).astype(np.float32)  # three channels first or last


def shape(data: Any, kind: str) -> tuple[int, ...]:
    found: tuple[int, ...] = getattr(data.spec, kind)["s"].shape
    return found


@pytest.mark.parametrize("kind", ["given", "beside"])
def test_one_may_have_options_of_its_own(kind: str) -> None:
    data = load_data(GREY, **{kind: {"s": {"source": DEEP, "value_range": (0, 4095)}}})
    assert getattr(data.spec, kind)["s"].support in ("unit", "levels") and not data.notes
    x = data.train.given["s"] if kind == "given" else data.train.beside["s"].x
    assert 0.99 < float(x.max()) <= 1
    data = load_data(GREY, **{kind: {"s": {"source": TWO, "channels_at": "last"}}})
    assert shape(data, kind) == (3, 3, 8)


@pytest.mark.parametrize("kind", ["given", "beside"])
def test_those_of_the_examples_hold_where_it_has_none(kind: str) -> None:
    assert shape(load_data(TWO, channels_at="last", **{kind: {"s": TWO}}), kind) == (3, 3, 8)
    assert shape(load_data(TWO, channels_at="last", **{kind: {"s": GREY}}), kind) == (1, 8, 8)
    assert shape(load_data(GREY, channels_at="first", **{kind: {"s": TWO}}), kind) == (3, 8, 3)
    clear = CHANCE.random((N, 8, 8, 3))
    assert shape(load_data(TWO, channels_at="first", **{kind: {"s": clear}}), kind) == (3, 8, 8)
    data = load_data(DEEP, value_range=(0, 4095), **{kind: {"s": DEEP}})
    assert not [note for note in data.notes if "16-bit" in note or "reach only" in note]


def test_a_mask_beside_deep_pictures_stays_a_mask() -> None:
    data = load_data(DEEP, value_range=(0, 4095), given={"s": GREY > 9, "row": CHANCE.normal(size=(N, 3))})
    assert data.spec.given["s"].support == "binary" and data.spec.given["row"].support == "real"


@pytest.mark.parametrize("kind", ["given", "beside"])
@pytest.mark.parametrize(
    "case",
    [
        "flow",
        "temperature",
        "deeper",
        "inside",
        "whole fractions",
        "below 0",
        "both signs",
        "unit",
        "bytes",
        "wide bytes",
        "mask",
        "16 levels",
    ],
)
def test_the_range_of_the_examples_is_that_of_whole_numbers_in_it(kind: str, case: str) -> None:
    wide, noise = CHANCE.random((N, 8, 8)), CHANCE.normal(size=(N, 8, 8))
    twelve = (0, 4095)
    x, span, support, top, noted = {
        "flow": (noise, twelve, "real", None, True),
        "temperature": (noise + 300, twelve, "real", None, True),
        "deeper": ((wide * 60000).astype(np.uint16), twelve, "levels", 60000 / 65535, True),
        "inside": (DEEP, twelve, "levels", 1, False),
        "whole fractions": (DEEP.astype(np.float32), twelve, "unit", 1, False),
        "below 0": (DEEP.astype(np.int16) - 1000, (-1000, 3095), "unit", 1, False),
        "both signs": (wide * 2 - 1, (-1, 1), "unit", 1, False),
        "unit": (wide, twelve, "unit", 1, False),
        "bytes": (GREY, twelve, "levels", 1, False),
        "wide bytes": (GREY.astype(np.int64), twelve, "levels", 1, False),
        "mask": (GREY > 9, twelve, "binary", 1, False),
        "16 levels": (GREY // 16, (0, 15), "levels", 1, False),
    }[case]
    data = load_data(DEEP if span == twelve else x, value_range=span, validation=0, test=0, **{kind: {"s": x}})
    found = getattr(data.spec, kind)["s"]
    assert found.support == support or {found.support, support} <= {"unit", "levels"}
    split = data.train if kind == "given" else data.train.beside["s"]
    values = split.batch(slice(None)).given["s"] if kind == "given" else split.batch(slice(None)).x
    transform = getattr(data.transform, kind)["s"]
    assert top is None or abs(float(values.max()) - top) < 0.02
    assert np.abs(transform.inverse(values).reshape(x.shape) - x.astype(float)).max() < (300 if top else 1e-4)
    assert noted == any("value_range 0 to 4095 is not for these values" in note for note in data.notes)


def test_they_are_kept_with_the_run(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", GREY)
    np.save(tmp_path / "deep.npy", DEEP)
    one = {"source": str(tmp_path / "deep.npy"), "value_range": (0, 4095)}
    data = load_data(tmp_path / "x.npy", given={"s": one}, beside={"b": one})
    assert data.source is not None
    assert data.source["given"] == {"s": one | {"value_range": [0.0, 4095.0]}} == {"s": data.source["beside"]["b"]}
    assert load_data(**data.source).fingerprint == data.fingerprint
    new = load_data(GREY, given={"s": DEEP}, beside={"b": DEEP}, transform=data.transform, validation=0, test=0)
    assert float(new.train.given["s"].max()) > 0.99, "the model's range holds for new data"


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"given": {"s": TWO}}, r"For this one alone: given=\{'s': \{'source': ..., 'channels_at'"),
        ({"beside": {"s": TWO}}, r"For this one alone: beside=\{'s'"),
        ({"given": {"s": {"source": DEEP, "chanels_at": "last"}}}, "Did you mean 'channels_at'"),
        ({"given": {"s": {"source": DEEP, "channels_at": "left"}}}, "must be first or last"),
        ({"beside": {"s": {"source": DEEP, "value_range": 3}}}, "must be two numbers"),
        ({"given": {"s": {"source": "grey=", "value_range": (0, 1)}}}, "or made from the examples"),
        ({"channels_at": "first", "given": {"s": DEEP}}, "four dimensions"),
    ],
)
def test_what_is_wrong_is_one_line(options: dict[str, Any], says: str) -> None:
    with pytest.raises((ConfigError, DataError), match=says) as caught:
        sandglass.load_data(GREY, **options)
    assert "\n" not in str(caught.value)


def test_an_array_beside_picture_files_is_an_array(photos: Path) -> None:
    with pytest.raises(DataError, match="companions of picture files are pictures of the same names"):
        sandglass.load_data(photos, size=8, given={"s": {"source": np.zeros((40, 8, 8)), "value_range": (0, 1)}})
    file = photos.parent / "depth.npy"
    np.save(file, np.zeros((40, 8, 8), np.uint16))
    for where in (str(file), file):
        with pytest.raises(DataError, match="'s': companions of picture files are pictures of the same names"):
            sandglass.load_data(photos, size=8, given={"s": {"source": where, "value_range": (0, 1)}})
    with pytest.raises(NotFoundError, match=r"nowhere\.npy"):
        sandglass.load_data(photos, size=8, given={"s": {"source": "nowhere.npy", "value_range": (0, 1)}})
    with pytest.raises(
        ConfigError, match="'s' is read as pictures or made from the examples, so it has no value_range"
    ):
        sandglass.load_data(photos, size=8, given={"s": {"source": str(photos), "value_range": (0, 1)}})

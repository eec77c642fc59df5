"""The axes, range and type of an array: read by one rule, asked about if unclear, and given back as handed in."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import sandglass
from sandglass.app.main import main
from sandglass.data.load import load_data
from sandglass.data.transform import ImageTransform, Transform
from sandglass.errors import ConfigError, DataError
from sandglass.estimator import GenerativeModel

RNG = np.random.default_rng(0)
UNIT = RNG.random((20, 10, 9, 3))

KINDS: dict[str, tuple[Any, float]] = {
    "unit": (UNIT, 1e-6),
    "single precision": (UNIT.astype(np.float32), 1e-6),
    "half precision": (UNIT.astype(np.float16), 1e-3),
    "from -1 to 1": ((2 * UNIT - 1).astype(np.float32), 1e-6),
    "standardised": ((UNIT - UNIT.mean()) / UNIT.std(), 1e-6),
    "to 255 with fractions": (255 * UNIT, 1e-4),
    "bytes": ((255 * UNIT).astype(np.uint8), 0),
    "bytes as int64": ((255 * UNIT).astype(np.int64), 0),
    "16 bits": ((255 * UNIT).astype(np.uint16) * 257, 0),
    "signed": ((400 * UNIT - 200).astype(np.int16), 0),
    "Boolean": (UNIT > 0.5, 0),
    "zeros and ones": ((UNIT > 0.5).astype(np.int32), 0),
}


def whole(source: Any, **options: Any) -> Any:
    return load_data(source, validation=0, test=0, **options)


def back(data: Any) -> Any:
    """The examples of a dataset, as a model has them, by the stored transform."""
    stored = Transform.from_dict(json.loads(json.dumps(data.transform.to_dict())))
    return stored.inverse(data.train.batch(slice(None)).x)


def same(made: Any, x: Any, error: float) -> None:
    x = np.asarray(x)
    assert made.shape == x.shape and made.dtype == x.dtype
    assert np.abs(made.astype(float) - x.astype(float)).max() <= error


@pytest.mark.parametrize("layout", ["last", "first", "grey"])
@pytest.mark.parametrize("kind", KINDS)
def test_an_array_is_read_by_its_shape_and_comes_back_as_it_was(kind: str, layout: str) -> None:
    x, error = KINDS[kind]
    x = np.moveaxis(x, -1, 1) if layout == "first" else x[..., 0] if layout == "grey" else x
    data = whole(x)
    assert data.spec.shape == (1 if layout == "grey" else 3, 10, 9)
    same(back(data), x, error)
    again = whole(x[:7], transform=data.transform)
    assert np.allclose(again.train.batch(slice(None)).x, data.train.batch(slice(0, 7)).x)


@pytest.mark.parametrize("dtype", ["float32", "float64", "int64", "uint8", "bool"])
def test_rows_come_back_in_their_type(dtype: str) -> None:
    x = (9 * RNG.random((30, 4))).astype(dtype)
    same(back(whole(x)), x, 1e-6)
    pictures = (255 * RNG.random((20, 42))).astype("uint8")
    same(back(whole(pictures, size=(7, 6))), pictures, 0)


def test_a_row_with_gaps_stays_of_floats() -> None:
    x = RNG.integers(0, 9, (30, 2)).astype(np.float32)
    x[3, 1] = np.nan
    data = whole(x)
    same(np.nan_to_num(data.transform.inverse(data.train.x, data.train.mask), nan=-1), np.nan_to_num(x, nan=-1), 1e-6)


@pytest.mark.parametrize(
    ("shape", "options", "read"),
    [
        ((9, 4, 4, 3), {"channels": 3}, (3, 4, 4)), ((9, 4, 4, 3), {"channels": 4}, (4, 4, 3)),
        ((9, 3, 8, 3), {"channels_at": "last"}, (3, 3, 8)), ((9, 3, 8, 3), {"channels_at": "first"}, (3, 8, 3)),
        ((9, 1, 1, 3), {"channels": 3}, (3, 1, 1)), ((9, 1, 1, 7), {"channels": 7}, (7, 1, 1)),
        ((9, 1, 1, 1), {}, (1, 1, 1)),
        ((9, 8, 8, 5), {}, (5, 8, 8)), ((9, 13, 8, 8), {}, (13, 8, 8)), ((9, 2, 7, 8), {}, (2, 7, 8)),
        ((9, 7, 8, 2), {}, (2, 7, 8)), ((9, 6, 5, 6), {"channels_at": "last"}, (6, 6, 5)),
        ((4, 8, 8), {"channels": 1}, (1, 8, 8)), ((64, 64, 3), {"channels": 1}, (1, 64, 3)),
    ],
)  # fmt: skip
@pytest.mark.parametrize("values", ["bytes", "unit", "real"])
def test_the_shape_and_the_options_decide_whatever_the_values(shape: Any, options: Any, read: Any, values: str) -> None:
    x = RNG.random(shape)
    x = (255 * x).astype(np.uint8) if values == "bytes" else x * 3 - 1 if values == "real" else x
    data = whole(x, **options)
    assert data.spec.shape == read
    same(back(data), x, 1e-5)


@pytest.mark.parametrize(
    ("shape", "option"),
    [((9, 4, 4, 3), "channels_at='first' (--channels-at first) or channels_at='last'"), ((9, 3, 8, 3), "channels_at"),
     ((9, 6, 5, 6), "channels_at"), ((4, 8, 8), "channels=1 (--channels 1)"), ((64, 64, 3), "x[None]")],
)  # fmt: skip
@pytest.mark.parametrize("values", ["bytes", "real"])
def test_two_readings_are_asked_about(shape: Any, option: str, values: str) -> None:
    x = RNG.random(shape) * 255
    with pytest.raises(DataError) as caught:
        load_data(x.astype(np.uint8) if values == "bytes" else x)
    assert option in str(caught.value) and "\n" not in str(caught.value)


def test_numbers_of_channels_that_cannot_be_converted_are_refused() -> None:
    five = RNG.random((9, 8, 8, 5))
    with pytest.raises(DataError, match="5 channels were given for 3"):
        load_data(five, channels=3)
    with pytest.raises(ConfigError, match="channels must be 1, 3 or 4 for pictures, not 5"):
        load_data(UNIT, channels=5)
    with pytest.raises(DataError, match="5 channels were given for 3"):
        whole(five, transform=whole(UNIT).transform)
    assert whole(UNIT, channels=1).spec.shape == (1, 10, 9)


def test_an_axis_that_is_none_is_refused() -> None:
    for source in ("digits", UNIT[..., 0], UNIT[:, 0, 0]):
        with pytest.raises(ConfigError, match="channels_at is for arrays of four dimensions"):
            load_data(source, channels_at="last")
    with pytest.raises(ConfigError, match="channels_at must be first or last"):
        load_data(UNIT, channels_at="middle")
    with pytest.raises(ConfigError, match=r"size, fit and channels convert pictures.*value_range=\(-"):
        load_data(UNIT - 0.5, size=5)


@pytest.mark.parametrize("kind", ["array", "npy", "npz", "tensor"])
def test_a_range_is_taken_from_every_array(kind: str, tmp_path: Path) -> None:
    deep = (4095 * UNIT).astype(np.uint16)
    source: Any = torch.from_numpy(deep.astype(np.int32)).movedim(-1, 1) if kind == "tensor" else deep
    if kind in ("npy", "npz"):
        source = tmp_path / f"x.{kind}"
        np.save(source, deep) if kind == "npy" else np.savez(source, x=deep)
    data = whole(source, value_range=(0, 4095))
    assert np.allclose(data.train.batch(slice(None)).x, np.moveaxis(deep, -1, 1) / 4095, atol=1e-6)
    same(back(data), source if kind == "tensor" else deep, 0)
    if data.source is not None:
        assert load_data(**data.source).fingerprint == data.fingerprint
    again = whole(deep[:5], transform=data.transform)
    assert np.array_equal(again.train.x, data.train.x[:5])
    clipped = whole(deep, value_range=(0, 1000))
    assert "values below 0 or above 1000 were clipped" in clipped.notes


def test_a_depth_that_is_not_used_is_said() -> None:
    deep = (4000 * UNIT).astype(np.uint16)
    note = whole(deep).notes[-1]
    assert f"values reach only {deep.max()} of 65535" in note and "17 of 256 grey levels" in note
    assert "value_range=(0, 4095) (--value-range 0,4095)" in note
    assert "value_range=(0, 16)" in whole((16 * UNIT).round().astype(np.uint8)).notes[0]
    assert "value_range=(0, 4095)" in whole(deep.astype(np.int32)).notes[0]
    assert "values reach only 0.0" in whole(deep / 65535).notes[0]
    assert not whole((255 * UNIT).astype(np.uint8)).notes and not whole(UNIT).notes
    with pytest.raises(DataError, match=r"whole numbers up to 16 .* value_range=\(0, 16\)"):
        load_data((16 * UNIT).round())


def test_a_range_is_that_of_the_examples_and_of_sets_like_them() -> None:
    deep, mask = (4095 * UNIT).astype(np.uint16), (255 * UNIT[..., :1]).astype(np.uint8)
    data = whole(deep, value_range=(0, 4095), given={"mask": mask}, beside={"b": deep})
    batch = data.train.batch(slice(None))
    assert np.array_equal((255 * batch.given["mask"]).round().numpy(), np.moveaxis(mask, -1, 1))
    assert data.train.beside["b"].batch(slice(None)).x.max() > 0.9
    same(data.transform.given["mask"].inverse(batch.given["mask"]), mask, 0)


@pytest.mark.parametrize("kind", ["from -1 to 1", "bytes", "to 255 with fractions", "Boolean"])
def test_samples_and_reconstructions_come_back_as_the_array_was(kind: str, tmp_path: Path) -> None:
    x, _ = KINDS[kind]
    run = sandglass.train("vae", (x), out=tmp_path / "run", epochs=1, latent_dim=2, net="mlp")
    model, transform = sandglass.load(run), sandglass.api.transform_of(run)
    made = transform.inverse(model.reconstruct(run.data.train.batch(slice(0, 4))))
    assert made.shape == (4, *x.shape[1:]) and made.dtype == x.dtype
    assert main(["generate", str(run.path), "-n", "5", "-o", str(tmp_path / "s.npy")]) == 0
    samples = np.load(tmp_path / "s.npy")
    assert samples.shape == (5, *x.shape[1:]) and samples.dtype == x.dtype
    if kind == "bytes":
        assert samples.max() > 1


@pytest.mark.parametrize(
    ("x", "options"),
    [((4095 * UNIT).astype(np.uint16), {"value_range": (0, 4095)}), (2 * UNIT - 1, {"value_range": (-1, 1)}),
     (UNIT[:, :4, :4], {"channels_at": "last"}), (UNIT[:, :, :3, 0], {}),
     ((4095 * UNIT[..., 0]).reshape(20, -1).round(), {"value_range": (0, 4095), "image_shape": (10, 9)})],
)  # fmt: skip
def test_the_estimator_takes_the_range_and_the_axis(x: Any, options: Any, tmp_path: Path) -> None:
    model = GenerativeModel("ae", latent_dim=2, net="mlp", epochs=1, random_state=0, **options).fit(x)
    for made in (model.reconstruct(x), model.sample(20)):
        assert made.shape == x.shape and made.dtype == x.dtype
        assert made.min() >= x.min() - 0.05 * np.ptp(x) and made.max() <= x.max() + 0.05 * np.ptp(x)
    loaded = GenerativeModel.load(model.save(tmp_path / "saved"))
    assert np.array_equal(loaded.reconstruct(x), model.reconstruct(x))


@pytest.mark.parametrize("channels", [2, 5, 13])
@pytest.mark.parametrize("kind", ["bytes", "unit", "real", "npy", "tensor"])
def test_any_number_of_channels_is_taken(kind: str, channels: int, tmp_path: Path) -> None:
    x = RNG.random((12, 8, 8, channels))
    x = (255 * x).astype(np.uint8) if kind in ("bytes", "npy") else x * 9 if kind == "real" else x
    source: Any = torch.from_numpy(x).movedim(-1, 1) if kind == "tensor" else x
    if kind == "npy":
        source = str(tmp_path / "x.npy")
        np.save(source, x)
    data = whole(source)
    assert data.spec.shape == (channels, 8, 8)
    assert data.spec.support == ("real" if kind == "real" else "levels")
    same(back(data), source if kind == "tensor" else x, 1e-5)
    assert f"read as {channels} channels of 8x8" in data.notes[0]
    small = whole(source, size=4) if kind != "real" else data
    assert small.spec.shape[0] == channels


def test_several_channels_go_the_whole_way(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    x = (255 * np.clip(RNG.random((60, 1, 1, 5)) + 0.1 * RNG.random((60, 8, 8, 5)), 0, 1)).astype(np.uint8)
    np.save(tmp_path / "x.npy", x)
    run = tmp_path / "run"
    words = ["--epochs", "1", "--net", "mlp", "--latent-dim", "2"]
    assert main(["train", "vae", "--data", str(tmp_path / "x.npy"), *words, "--out", str(run)]) == 0
    said = capsys.readouterr()
    assert "note: read as 5 channels of 8x8, channels last" in said.err
    assert "Pictures show channels 1 to 3 of 5." in (run / "report.html").read_text()
    assert main(["generate", str(run), "-n", "6", "-o", str(tmp_path / "s.npy")]) == 0
    samples = np.load(tmp_path / "s.npy")
    assert samples.shape == (6, 8, 8, 5) and samples.dtype == np.uint8
    assert "shows" not in capsys.readouterr().err
    for out in ("s.png", "folder"):
        separate = ["--separate"] if out == "folder" else []
        assert main(["generate", str(run), "-n", "6", *separate, "-o", str(tmp_path / out)]) == 0
        said = capsys.readouterr()
        assert f"note: {out} shows channels 1 to 3 of 5; -o samples.npy has all numbers" in said.err
    assert main(["inspect", str(tmp_path / "x.npy")]) == 0
    assert "60 arrays of shape 5x8x8" in capsys.readouterr().out


def test_the_notes_of_an_array_are_said_in_training(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sandglass.train("ae", (4095 * UNIT).astype(np.uint16), out=tmp_path / "run", epochs=1, net="mlp", latent_dim=2)
    assert "value_range=(0, 4095)" in capsys.readouterr().err


@pytest.mark.parametrize("end", ["first", "last"])
def test_a_cube_of_real_numbers_is_reordered_once(end: str) -> None:
    x = RNG.normal(size=(40, 3, 3, 3)) * 9
    data = whole(x, channels_at=end)
    same(back(data), x, 1e-5)
    again = whole(x, transform=data.transform)
    assert torch.equal(again.train.x, data.train.x)
    assert torch.equal(data.transform.apply(x), data.train.x)


@pytest.mark.parametrize("n", [3, 30])
@pytest.mark.parametrize(
    ("shape", "layout"),
    [
        ((8, 8), "NHW"),
        ((8, 3, 3), "NHWC"),
        ((3, 8, 3), "NHWC"),
        ((3, 8, 3), "NCHW"),
        ((3, 3, 3), "NHWC"),
        ((64,), "ND"),
    ],
)
@pytest.mark.parametrize("kind", [np.uint8, np.float32, bool, np.int32])
def test_what_a_transform_gives_back_it_reads(n: int, shape: tuple[int, ...], layout: str, kind: Any) -> None:
    x = (RNG.random((n, *shape)) < 0.5).astype(kind) if kind in (bool, np.int32) else RNG.random((n, *shape))
    x = (255 * x).astype(kind) if kind is np.uint8 else x.astype(kind)
    options = {"ND": {"size": 8}, "NHW": {"channels": 1}}.get(
        layout, {"channels_at": "last" if layout == "NHWC" else "first"}
    )
    data = whole(x, **options)
    assert data.transform.layout == layout
    stored = data.train.batch(slice(None)).x
    there = data.transform.inverse(stored)
    read = data.transform.apply(there)
    assert read.shape == stored.shape and torch.equal(read, data.train.x)
    assert torch.equal(data.transform.apply(there[0]), data.train.x[0])
    assert torch.equal(data.transform.apply(torch.from_numpy(there)), data.train.x)
    assert torch.equal(data.transform.apply(list(there)), data.train.x)


def test_grey_pictures_of_another_size_are_read_as_grey_pictures() -> None:
    transform = whole(RNG.integers(0, 256, (30, 8, 8), np.uint8)).transform
    assert transform.apply(np.zeros((3, 16, 16), np.uint8)).shape == (3, 1, 8, 8)


@pytest.mark.parametrize("top", [255, 65535])
def test_new_16_bit_pictures_are_read_by_the_rule_of_the_model(top: int) -> None:
    x = (np.linspace(0, top, 20 * 64).reshape(20, 8, 8)).astype(np.uint16)
    data = whole(x)
    same(back(data), x, 0 if top == 255 else 129)
    stored = Transform.from_dict(json.loads(json.dumps(data.transform.to_dict())))
    dark = np.arange(200, 264, dtype=np.uint16).reshape(1, 8, 8) if top > 255 else x[:1]
    wanted = dark // 257 + (dark % 257 > 128) if top > 255 else dark
    assert np.array_equal(whole(dark, transform=stored).train.x[:, 0], wanted)
    assert np.array_equal(stored.apply(dark)[:, 0], wanted)
    black = np.eye(8, dtype=np.uint16)[None]
    assert whole(black, transform=stored).train.x.max() == stored.apply(black).max() == (1 if top == 255 else 0)
    if top == 255:
        for read in (stored.apply, lambda raw: whole(raw, transform=stored)):
            with pytest.raises(DataError, match="300; they must lie in 0 to 255"):
                read(x + np.uint16(45))


def test_transforms_of_before_have_no_white() -> None:
    values = whole(np.full((20, 8, 8), 9, np.uint16)).transform.to_dict()
    assert values.pop("white") == 255
    assert Transform.from_dict(values).inverse(np.ones((2, 1, 8, 8))).max() == 65535
    with pytest.raises(ConfigError, match="white"):
        Transform.from_dict({**values, "white": 0})


def test_channels_at_is_for_the_array_whatever_the_transform() -> None:
    x = RNG.integers(0, 256, (20, 3, 8, 3), np.uint8)
    model = ImageTransform((3, 8), 3)  # of pictures in files
    data = whole(x, transform=model, channels_at="last")
    assert torch.equal(data.train.x, torch.from_numpy(x).movedim(-1, 1))
    assert data.source is None or data.source["channels_at"] == "last"
    grey = RNG.integers(0, 256, (20, 8, 8), np.uint8)
    with pytest.raises(ConfigError, match="four dimensions"):
        whole(grey, transform=whole(grey[..., None]).transform, channels_at="last")
    rows = whole(RNG.normal(size=(20, 3)))
    with pytest.raises(ConfigError, match="four dimensions"):
        whole(RNG.normal(size=(20, 3)), transform=rows.transform, channels_at="last")


@pytest.mark.parametrize("make", [np.asarray, torch.from_numpy])
@pytest.mark.parametrize("shape", [(8, 6), (8, 3)])
@pytest.mark.parametrize("real", [False, True])
def test_a_list_of_grey_pictures_comes_back_without_channels(make: Any, shape: tuple[int, ...], real: bool) -> None:
    x = RNG.normal(size=(30, *shape)) if real else RNG.integers(0, 256, (30, *shape), np.uint8)
    data = whole([make(one) for one in x])
    assert data.spec.shape == (1, *shape)
    same(back(data), x, 1e-5 if real else 0)
    assert torch.equal(whole([make(one) for one in x], transform=data.transform).train.x, data.train.x)
    assert torch.equal(data.transform.apply(x), data.train.x)
    with pytest.raises(ConfigError, match="four dimensions"):
        whole([make(one) for one in x], channels_at="last")
    if not real:
        colour = whole([make(one) for one in x], channels=3)
        assert colour.spec.shape == (3, *shape) and colour.transform.layout == "NHWC"


def test_the_channels_of_one_picture_are_found_as_those_of_several() -> None:
    transform = ImageTransform((3, 8), 3)
    x = RNG.integers(0, 256, (3, 8, 3), np.uint8)
    with pytest.raises(DataError, match=r"\(3, 8, 3\), which can be 3 channels first or 3 channels last"):
        transform.apply(x)
    with pytest.raises(DataError, match="which can be 3 channels first"):
        transform.apply(x[None])
    assert ImageTransform((8, 3), 3).apply(torch.from_numpy(x)).tolist() == x.tolist()
    five = RNG.integers(0, 256, (5, 8, 3), np.uint8)
    assert ImageTransform((8, 3), 5).apply(five).tolist() == five.tolist()
    with pytest.raises(DataError, match="1, 3 or 4 channels"):
        transform.apply(np.zeros((5, 8, 6), np.uint8))

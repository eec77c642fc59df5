"""The estimator of models that are conditional on labels."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone

import sandglass
from sandglass.errors import CapabilityError, ConfigError, DataError
from sandglass.estimator import GenerativeModel

SMALL = {"latent_dim": 2, "net": "mlp", "random_state": 0}


@pytest.fixture(scope="module")
def data() -> tuple[np.ndarray, np.ndarray]:
    y = np.arange(120) % 3
    x = np.random.default_rng(0).normal(size=(120, 2)) + 20.0 * y[:, None]
    return x, np.array(["low", "middle", "high"])[y]


@pytest.fixture(scope="module")
def model(data: tuple[np.ndarray, np.ndarray]) -> GenerativeModel:
    return GenerativeModel("cvae", epochs=60, lr=1e-2, **SMALL).fit(*data)


def test_samples_are_of_the_class_that_was_asked_for(model: GenerativeModel) -> None:
    assert model.classes_.tolist() == ["high", "low", "middle"]
    found = model.sample(3, y=["low", "middle", "high"], noise=False)
    assert np.allclose(found.mean(1), [0, 20, 40], atol=8)
    assert np.allclose(model.sample(20, y="high").mean(), 40, atol=8)


def test_what_takes_x_takes_y(model: GenerativeModel, data: tuple[np.ndarray, np.ndarray]) -> None:
    x, y = data
    codes = model.transform(x, y)
    assert codes.shape == (120, 2) and model.inverse_transform(codes, y).shape == x.shape
    assert model.reconstruct(x, y).shape == x.shape
    right, wrong = model.score_samples(x, y), model.score_samples(x, np.roll(y, 1))
    assert right.mean() > wrong.mean() + 1
    assert np.array_equal(right[:7], model.score_samples(x[:7], y[:7])) and model.score(x, y) == right.mean()
    again = clone(model).set_params(epochs=1)
    assert again.fit_transform(x, y).shape == (120, 2)


def test_wrong_classes_are_refused(model: GenerativeModel, data: tuple[np.ndarray, np.ndarray]) -> None:
    x, y = data
    with pytest.raises(ConfigError, match="give the class of every example as y="):
        model.transform(x)
    with pytest.raises(ConfigError, match="give the class of every example as y="):
        model.sample(3)
    with pytest.raises(DataError, match=r"a class for each of 3 examples"):
        model.sample(3, y=["low", "high"])
    with pytest.raises(DataError, match="the class lower, which the model does not know; it knows high, low, middle"):
        model.sample(1, y="lower")
    plain = GenerativeModel(epochs=1, **SMALL).fit(x, y)
    with pytest.raises(ConfigError, match="'vae' is not conditional on labels; leave y out"):
        plain.sample(3, y=["low"] * 3)
    with pytest.raises(CapabilityError, match="needs source"):
        GenerativeModel("pix2pix").fit(x, y)


@pytest.mark.parametrize(
    ("y", "says"),
    [
        (np.random.default_rng(0).normal(size=90), "90 different values for 90 examples, which are not classes"),
        (np.where(np.arange(90) % 9 == 0, np.nan, 1), "10 of the 90 classes in y are missing, the first is number 0"),
        (pd.array([1, None] * 45, dtype="Int64"), "45 of the 90 classes in y are missing, the first is number 1"),
        ([None] * 90, "90 of the 90 classes in y are missing"),
        (np.array(["a", 1] * 45, dtype=object), "several types"),
    ],
)
def test_what_is_no_class_is_refused(y: Any, says: str) -> None:
    with pytest.raises(DataError, match=says):
        GenerativeModel("cvae", epochs=1).fit(np.zeros((90, 3)), y)


def test_classes_are_kept(model: GenerativeModel, data: tuple[np.ndarray, np.ndarray], tmp_path: Path) -> None:
    x, y = data
    for same in (pickle.loads(pickle.dumps(model)), GenerativeModel.load(model.save(tmp_path / "saved"))):
        assert np.array_equal(same.transform(x, y), model.transform(x, y))


def test_many_classes_keep_their_order() -> None:
    y = np.repeat(np.arange(12), 10)
    x = np.random.default_rng(0).normal(size=(120, 2))
    model = GenerativeModel("cvae", epochs=1, **SMALL).fit(x, y)
    assert model.classes_.tolist() == list(range(12)) and model.sample(2, y=[11, 3]).shape == (2, 2)


def test_of_a_run(tmp_path: Path) -> None:
    run = sandglass.train("cvae", "digits", out=tmp_path / "run", epochs=1, latent_dim=2, net="mlp", sheets=0)
    found = GenerativeModel.from_run(run)
    assert found.sample(3, y=[1, 7, 9]).shape == (3, 8, 8)

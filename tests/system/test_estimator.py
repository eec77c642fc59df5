"""The scikit-learn face: its contract, what comes back in whose unit, and log densities that order cannot change."""

from __future__ import annotations

import copy
import json
import pickle
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning, NotFittedError
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import check_estimator

import sandglass
from fitted import TINY, rows
from sandglass import registry
from sandglass.errors import CapabilityError, CheckpointError, ConfigError, DataError, NotFoundError
from sandglass.estimator import GenerativeModel
from sandglass.runs.model_folder import write_model_folder

EXPECTED_TO_FAIL: dict[str, str] = {}
"""Check of scikit-learn to the reason why it cannot pass; there is none."""


def mixed(n: int = 60) -> pd.DataFrame:
    random = np.random.default_rng(0)
    frame = pd.DataFrame({
        "age": random.integers(18, 80, n),
        "income": random.normal(3e4, 8e3, n),
        "town": random.choice(["Oslo", "Bern", "Rome"], n),
        "member": random.random(n) < 0.5,
    })  # fmt: skip
    frame.loc[3, "income"] = np.nan
    return frame


@pytest.mark.parametrize("model", ["vae", *(pytest.param(name, marks=pytest.mark.slow) for name in ("ae", "gan"))])
def test_scikit_learn_s_own_checks_pass(model: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # scikit-learn warns of what it skips
        results = check_estimator(
            GenerativeModel(model, **TINY), expected_failed_checks=EXPECTED_TO_FAIL, on_fail=None, on_skip=None
        )
    failed = {r["check_name"]: r["exception"] for r in results if r["status"] not in ("passed", "skipped")}
    assert failed == {}
    assert {r["check_name"] for r in results if r["status"] == "skipped"} <= {"check_array_api_input"}
    assert len(results) > 35


ALONE = [n for n in registry.names("model") if set(registry.declared(n).needs) <= {"complete"} and n != "ms-ssim-vae"]
"""Models that need nothing beside X; one is of pictures alone."""


@pytest.mark.parametrize("model", ALONE)
def test_a_method_is_there_where_the_model_has_what_it_takes(model: str) -> None:
    known = [option.name for option in registry.schema("model", model)]
    options = {k: v for k, v in TINY.items() if k not in ("latent_dim", "net") or k in known}
    options |= {"latent_dim": 3} if "latent_dim" in known else {}
    estimator = GenerativeModel(model, **options)
    provides = registry.declared(model).provides
    needs = {"transform": "encode", "fit_transform": "encode", "inverse_transform": "decode",
             "reconstruct": "reconstruct", "score_samples": "log_prob", "score": "log_prob"}  # fmt: skip
    assert {m: hasattr(estimator, m) for m in needs} == {m: c in provides for m, c in needs.items()}
    x = rows()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # one epoch ends before the schedules of some do
        estimator.fit(x)
    assert estimator.sample(7).shape == (7, 4)
    size = 3 if "latent_dim" in known else estimator.model_.code_size
    if "encode" in provides:
        codes = estimator.transform(x)
        real = all(latent.support != "index" for latent in estimator.model_.latents)
        assert codes.dtype == (np.float32 if real else np.int64) and codes.shape == (60, size)
        assert estimator.get_feature_names_out().tolist() == [f"generativemodel{i}" for i in range(size)]
    if "decode" in provides:
        assert estimator.inverse_transform(np.zeros((3, size))).shape == (3, 4)
    if "log_prob" in provides:
        assert estimator.score(x) == pytest.approx(estimator.score_samples(x).mean(), abs=1e-12)
    assert not hasattr(GenerativeModel("no-such"), "transform")


def test_a_list_of_rows_for_an_estimator_of_a_table() -> None:
    frame = pd.DataFrame(rows(), columns=list("abcd"))
    estimator = GenerativeModel(**TINY).fit(frame)
    with pytest.warns(UserWarning, match="feature names"):
        found = estimator.reconstruct(rows()[:3].tolist())
    assert list(found.index) == [0, 1, 2] and list(found.columns) == list(frame.columns)
    assert estimator.reconstruct(frame[::-1]).index.equals(frame[::-1].index)


def test_a_table_of_mixed_columns_goes_through() -> None:
    frame = mixed()
    estimator = GenerativeModel(**TINY).set_output(transform="pandas").fit(frame)
    codes = estimator.transform(frame)
    assert list(codes.columns) == ["generativemodel0", "generativemodel1"] and codes.index.equals(frame.index)
    back = estimator.inverse_transform(codes)
    assert list(back.columns) == list(frame.columns) and set(back["town"]) <= {"Oslo", "Bern", "Rome"}
    assert back["age"].dtype == np.int64 and back["member"].dtype == bool
    filled = estimator.reconstruct(frame)
    assert filled.notna().all().all() and len(filled) == len(frame)
    assert np.isfinite(estimator.score_samples(frame)).all()
    assert estimator.feature_names_in_.tolist() == list(frame.columns) and estimator.n_features_in_ == 4
    with pytest.raises(ValueError, match="feature names"):
        estimator.transform(frame[["income", "age", "town", "member"]])
    with pytest.raises(ValueError, match="now missing"):
        estimator.transform(frame[["age", "income"]])
    with pytest.raises(DataError, match="Kyiv"):
        estimator.transform(frame.assign(town="Kyiv"))


def test_a_frame_and_an_array_of_its_numbers_are_one() -> None:
    x = rows()
    bare = pd.DataFrame(x)  # headers that are numbers
    estimators = [GenerativeModel(**TINY).fit(v) for v in (x, bare)]
    codes = [e.transform(v) for e in estimators for v in (x, bare)]
    assert all(np.array_equal(c, codes[0]) for c in codes)
    assert isinstance(estimators[1].sample(3), pd.DataFrame) and isinstance(estimators[0].sample(3), np.ndarray)


def test_missing_values_need_a_model_that_takes_them() -> None:
    x = rows()
    x[2, 1] = np.nan
    assert GenerativeModel("vae").__sklearn_tags__().input_tags.allow_nan
    assert not GenerativeModel("gan").__sklearn_tags__().input_tags.allow_nan
    with pytest.raises(ValueError, match="NaN"):
        GenerativeModel("gan", **TINY).fit(x)
    with pytest.raises(CapabilityError, match="missing values"):
        GenerativeModel("gan", **TINY).fit(pd.DataFrame(x, columns=list("abcd")))
    estimator = GenerativeModel(**TINY).fit(x)
    at_mean = np.where(np.isnan(x), np.nanmean(x, 0), x)
    assert np.allclose(estimator.transform(x), estimator.transform(at_mean), atol=1e-6)


@pytest.mark.parametrize("layout", ["grey", "first", "last", "rows", "bytes", "deep", "binary", "real"])
def test_pictures_come_back_in_their_layout_and_unit(layout: str) -> None:
    random = np.random.default_rng(0)
    shape = {"first": (40, 3, 7, 6), "last": (40, 7, 6, 3), "rows": (40, 42), "real": (40, 2, 7, 6)}
    x: Any = random.random(shape.get(layout, (40, 7, 6)))
    x = np.round(x * 255).astype(np.uint8) if layout == "bytes" else x > 0.5 if layout == "binary" else x
    x = 100 * x - 50 if layout == "real" else (x * 65535).astype(np.uint16) if layout == "deep" else x
    options = {"image_shape": (7, 6)} if layout == "rows" else {}
    estimator = GenerativeModel("ae", **{**TINY, "latent_dim": 16, "epochs": 150, "net": "linear"}, **options).fit(x)
    channels = {"first": 3, "last": 3, "real": 2}.get(layout, 1)
    assert estimator.model_.spec.shape == (channels, 7, 6)
    assert estimator.model_.spec.support == {"binary": "binary", "real": "real"}.get(layout, "levels")
    read = estimator._prepared(x).batch(slice(None)).x
    assert layout == "real" or 0.9 < float(read.max()) <= 1
    for made in (estimator.reconstruct(x), estimator.inverse_transform(estimator.transform(x)), estimator.sample(40)):
        assert made.shape == x.shape and made.dtype == x.dtype
        if layout != "real":
            assert made.min() >= 0 and made.max() <= {"bytes": 255, "deep": 65535}.get(layout, 1)
    # Nearer to its own picture than to another one: neither layout nor unit was mistaken on the way.
    made, true = (v.reshape(40, -1).astype(float) for v in (estimator.reconstruct(x), x))
    assert ((made - true) ** 2).sum() < 0.8 * ((made - np.roll(true, 1, 0)) ** 2).sum()
    with pytest.raises(ValueError, match=r"fitted to|features"):
        estimator.transform(x[..., :-1])


def test_in_a_pipeline_and_a_grid_search() -> None:
    x = rows() @ np.random.default_rng(3).normal(size=(4, 6))
    pipeline = make_pipeline(StandardScaler(), GenerativeModel(**TINY))
    search = GridSearchCV(pipeline, {"generativemodel__latent_dim": [1, 3]}, cv=2, n_jobs=1)
    search.fit(x)
    assert search.best_params_["generativemodel__latent_dim"] in (1, 3)
    assert np.isfinite(search.cv_results_["mean_test_score"]).all()
    assert search.transform(x).shape == (60, search.best_params_["generativemodel__latent_dim"])
    assert np.allclose(pipeline.fit(x).inverse_transform(np.zeros((1, 2))).shape, (1, 6))


def test_nothing_is_left_where_it_was_called(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "here").mkdir()
    (tmp_path / "tmp").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "tmp"))
    GenerativeModel(**TINY).fit(rows())
    assert list((tmp_path / "here").iterdir()) == [] and list((tmp_path / "tmp").iterdir()) == []


def test_a_random_state_decides_everything() -> None:
    x = rows()
    first, again, other = (GenerativeModel(**{**TINY, "random_state": s}).fit(x) for s in (0, 0, 1))
    assert np.array_equal(first.transform(x), again.transform(x))
    assert np.array_equal(first.score_samples(x), again.score_samples(x))
    assert not np.array_equal(first.transform(x), other.transform(x))
    assert np.array_equal(first.sample(5), first.sample(5))
    assert not np.array_equal(first.sample(5), first.sample(5, random_state=7))
    assert not np.array_equal(first.sample(300)[:256], first.sample(300, noise=False)[:256])
    free = GenerativeModel(**{**TINY, "random_state": None}).fit(x)
    assert not np.array_equal(free.sample(5), free.sample(5))


def same(a: GenerativeModel, b: GenerativeModel, x: Any) -> None:
    assert np.array_equal(a.transform(x), b.transform(x))
    assert np.array_equal(a.score_samples(x), b.score_samples(x))
    if isinstance(x, pd.DataFrame):
        assert a.sample(5).equals(b.sample(5))
    else:
        assert np.array_equal(a.sample(5), b.sample(5))


@pytest.mark.parametrize("kind", ["rows", "table", "pictures"])
def test_saved_and_loaded_it_is_the_same(kind: str, tmp_path: Path) -> None:
    x: Any = {"rows": rows(), "table": mixed(), "pictures": (rows(40, 30).reshape(40, 5, 6) > 0)}[kind]
    estimator = GenerativeModel(**TINY).fit(x)
    folder = estimator.save(tmp_path / "new" / "folder")
    assert {f.name for f in folder.iterdir()} == {"config.json", "model.safetensors", "README.md", "MANIFEST.json"}
    loaded = GenerativeModel.load(folder)
    same(estimator, loaded, x)
    assert loaded.get_params() == estimator.get_params()
    assert getattr(loaded, "n_features_in_", 0) == estimator.n_features_in_
    assert sandglass.load(folder).code_size == 2
    with pytest.raises(ConfigError, match="not empty"):
        estimator.save(folder)


def test_a_folder_that_is_not_one_is_refused_in_words(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError):
        GenerativeModel.load(tmp_path)
    run = sandglass.train("vae", rows(), out=tmp_path / "run", epochs=1, model_options={"latent_dim": 2})
    with pytest.raises(CheckpointError, match="no estimator"):
        GenerativeModel.load(run.path / "model")
    folder = GenerativeModel(**TINY).fit(rows()).save(tmp_path / "saved")
    text = (folder / "config.json").read_text()
    (folder / "config.json").write_text(text.replace('"score_draws"', '"score_drawn"'))
    with pytest.raises(CheckpointError, match="damaged"):
        GenerativeModel.load(folder)


def test_copies_and_pickles_are_the_same_and_hold_plain_values(tmp_path: Path) -> None:
    x = rows()
    estimator = GenerativeModel(**TINY).fit(x)
    same(estimator, copy.deepcopy(estimator), x)
    data = pickle.dumps(estimator)
    same(estimator, pickle.loads(data), x)
    named = [word for word in (b"torch", b"sandglass.models", b"sandglass.data", b"sandglass.nets") if word in data]
    assert named == [], "a pickle names our estimator and NumPy, and no class of PyTorch or of a model"
    assert not hasattr(clone(estimator), "model_")
    assert clone(estimator).get_params() == estimator.get_params()


EARLIER = {
    "bytes, channels last": (np.uint8, (6, 5, 3), 255.0),
    "bytes, channels first": (np.uint8, (3, 6, 5), 255.0),
    "cubes": (np.uint8, (3, 3, 3), 255.0),
    "grey": (np.uint8, (6, 5), 255.0),
    "16 bits": (np.uint16, (6, 5, 3), 65535.0),
    "unit": (np.float64, (6, 5, 3), 1.0),
    "real": (np.float64, (6, 5, 3), 1.0),
}


@pytest.mark.parametrize("way", ["folder", "pickle"])
@pytest.mark.parametrize("kind", EARLIER)
def test_images_of_an_estimator_of_the_earlier_version_come_back(kind: str, way: str, tmp_path: Path) -> None:
    dtype, shape, top = EARLIER[kind]
    x = np.random.default_rng(0).random((40, *shape)) * 60 + np.arange(np.prod(shape)).reshape(shape)
    x = (x / x.max() * top).astype(dtype) if kind != "real" else x
    options = {"channels_at": "first"} if kind == "cubes" else {"value_range": (0, 65535)} if kind == "16 bits" else {}
    new = GenerativeModel(**TINY, **options).fit(x)
    earlier = _as_earlier(new, top, way, tmp_path)
    wanted, found = new.reconstruct(x), earlier.reconstruct(x)
    assert found.shape == x.shape and found.dtype == wanted.dtype and np.array_equal(found, wanted)
    assert np.array_equal(earlier.transform(x), new.transform(x))
    clone(earlier).fit(x) if kind != "cubes" else None


@pytest.mark.parametrize("way", ["folder", "pickle"])
def test_flattened_images_of_the_earlier_version_come_back(way: str, tmp_path: Path) -> None:
    x = np.random.default_rng(0).integers(0, 256, (40, 90), np.uint8)
    new = GenerativeModel(**TINY, image_shape=(3, 6, 5)).fit(x)
    earlier = _as_earlier(new, 255.0, way, tmp_path)
    assert np.array_equal(earlier.reconstruct(x), new.reconstruct(x))


@pytest.mark.parametrize("way", ["folder", "pickle"])
@pytest.mark.parametrize(("top", "shape"), [(9.0, (6, 5, 3)), (255.0, (7, 5, 3))])
def test_an_earlier_estimator_that_says_too_little_is_refused(
    top: float, shape: tuple[int, ...], way: str, tmp_path: Path
) -> None:
    x = np.random.default_rng(0).integers(0, 256, (40, 6, 5, 3), np.uint8)
    new = GenerativeModel(**TINY).fit(x)
    new._shape = shape
    with pytest.raises(CheckpointError, match="fit it again"):
        _as_earlier(new, top, way, tmp_path)


def _as_earlier(new: GenerativeModel, top: float, way: str, tmp_path: Path) -> GenerativeModel:
    """The estimator as written by the version before layouts and types of arrays were stored."""
    lacking = ("layout", "dtype", "white", "value_range")
    if way == "folder":
        folder = new.save(tmp_path / "earlier")
        config = json.loads((folder / "config.json").read_text())
        config["transform"] = {k: v for k, v in config["transform"].items() if k not in lacking}
        config["estimator"]["top"] = top
        for name in ("value_range", "channels_at"):
            del config["estimator"]["params"][name]
        write_model_folder(tmp_path / "written", config, new.model_.state_dict(), "")
        return GenerativeModel.load(tmp_path / "written")
    values = copy.deepcopy(new.__getstate__())
    values["_top"] = top
    values["_stored"]["transform"] = {k: v for k, v in values["_stored"]["transform"].items() if k not in lacking}
    for name in ("value_range", "channels_at"):
        del values[name]
    earlier = GenerativeModel.__new__(GenerativeModel)
    earlier.__setstate__(values)
    return earlier


def test_a_pickle_from_before_an_option_is_the_model_that_it_was() -> None:
    """The density of codes of ``ae`` was one Gaussian then."""
    new = GenerativeModel(**{**TINY, "model": "ae", "model_options": {"sampler": "gaussian"}}).fit(rows())
    values = copy.deepcopy(new.__getstate__())
    del values["_stored"]["model"]["options"]["sampler"]
    earlier = GenerativeModel.__new__(GenerativeModel)
    earlier.__setstate__(values)
    assert np.array_equal(earlier.sample(5, random_state=0), new.sample(5, random_state=0))


class OwnNet:
    """A net of a person's own."""

    def encoder(self, shape: tuple[int, ...], out: int) -> torch.nn.Module:
        return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(int(np.prod(shape)), out))

    def decoder(self, dim: int, shape: tuple[int, ...]) -> torch.nn.Module:
        return torch.nn.Sequential(torch.nn.Linear(dim, int(np.prod(shape))), torch.nn.Unflatten(-1, shape))


def test_a_net_of_one_s_own_goes_along(tmp_path: Path) -> None:
    x = rows()
    estimator = GenerativeModel(**{**TINY, "net": OwnNet()}).fit(x)
    same(estimator, copy.deepcopy(estimator), x)
    folder = estimator.save(tmp_path / "saved")
    with pytest.raises(ConfigError, match="custom net"):
        GenerativeModel.load(folder)
    same(estimator, GenerativeModel.load(folder, net=OwnNet()), x)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"model": "vea"}, ConfigError, "Did you mean 'vae'"),
        ({"model": "cvae"}, ConfigError, "conditional on labels: give the class of every example"),
        ({"model_options": {"latent_dim": 3}}, ConfigError, "given twice"),
        ({"training_options": {"epochs": 3}}, ConfigError, "given twice"),
        ({"training_options": {"epoch": 3}}, ConfigError, "Did you mean 'epochs'"),
        ({"model_options": {"bets": 3}}, ConfigError, "Did you mean 'beta'"),
        ({"score_draws": 0}, ConfigError, "score_draws"),
        ({"validation_fraction": 1.5}, ConfigError, "validation"),
        ({"image_shape": (3, 5)}, ConfigError, "image_shape"),
    ],
)
def test_an_option_that_makes_no_sense_is_refused(options: dict[str, Any], error: type, message: str) -> None:
    with pytest.raises(error, match=message):
        GenerativeModel(**{**TINY, **options}).fit(rows())


def test_options_reach_model_and_training() -> None:
    options = {"model_options": {"beta": 3.0}, "training_options": {"seed": 11, "optimizer": "adamw"}}
    estimator = GenerativeModel(**TINY, validation_fraction=0.2, **options).fit(rows())
    assert estimator.model_.penalty.beta.value == 3.0
    for method, value in (("transform", rows()), ("inverse_transform", np.zeros((1, 2))), ("sample", 2)):
        with pytest.raises(NotFittedError):
            getattr(GenerativeModel(**TINY), method)(value)
    with pytest.raises(DataError, match="Codes"):
        estimator.inverse_transform(np.zeros((2, 5)))
    with pytest.raises(ConfigError, match="n_samples"):
        estimator.sample(0)


def test_what_training_has_to_say_is_a_warning(capsys: pytest.CaptureFixture[str]) -> None:
    options = {"lr": 1e18, "training_options": {"optimizer": "sgd", "momentum": 0.0}, "batch_size": 20}
    with pytest.warns(ConvergenceWarning, match="not finite"):
        GenerativeModel(**{**TINY, **options}).fit(rows())
    assert capsys.readouterr() == ("", "")


def test_it_is_not_imported_unasked() -> None:
    code = "import sys, sandglass; sandglass.train; print('sandglass.estimator' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_a_saved_folder_says_in_json_what_it_is(tmp_path: Path) -> None:
    folder = GenerativeModel(**TINY).fit(rows()).save(tmp_path / "saved")
    about = json.loads((folder / "config.json").read_text())["estimator"]
    assert about["params"]["latent_dim"] == 2 and about["n_features_in"] == 4 and about["shape"] == [4]

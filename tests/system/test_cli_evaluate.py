"""``sandglass evaluate``: figures by name, of every example, and what does not apply."""

from __future__ import annotations

import csv
import time
from pathlib import Path

import numpy as np
import pytest

import sandglass
from sandglass.app import output
from sandglass.app.main import main
from sandglass.estimator import GenerativeModel

SMALL = {"epochs": 1, "latent_dim": 2, "net": "mlp", "sheets": 0}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> sandglass.Run:
    return sandglass.train("vae", "digits", out=tmp_path_factory.mktemp("evaluate") / "run", **SMALL)


def read(path: Path) -> list[dict[str, str]]:
    with path.open() as file:
        return list(csv.DictReader(file))


def test_only_the_figures_that_were_asked_for_are_printed(
    run: sandglass.Run, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["evaluate", str(run.path), "--metrics", "rate,mae"]) == 0
    capsys.readouterr()
    assert main(["evaluate", str(run.path), "--metrics", "elbo,mse"]) == 0
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()[3:5]] == ["elbo", "mse"]
    assert {"elbo", "mse", "rate", "mae"} <= set(run.results()["test"]["metrics"])


def test_the_figures_of_every_example(run: sandglass.Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "each.csv"
    assert main(["evaluate", str(run.path), "--metrics", "elbo,mse", "--each", str(file)]) == 0
    assert "elbo, mse of each of 359 examples" in capsys.readouterr().out
    rows, metrics = read(file), sandglass.evaluate(run, metrics=["elbo", "mse"])["metrics"]
    assert list(rows[0]) == ["index", "class", "elbo", "mse"] and len(rows) == 359
    for name in ("elbo", "mse"):
        assert np.mean([float(row[name]) for row in rows]) == pytest.approx(metrics[name]["value"], rel=1e-9)
    assert main(["evaluate", str(run.path), "--each", "each.txt"]) == 2
    assert "each.txt should end in .csv or .parquet" in capsys.readouterr().err


def test_the_files_of_every_example(photos: Path, tmp_path: Path) -> None:
    run = sandglass.train("vae", photos, out=tmp_path / "run", data_options={"size": 8}, **SMALL)
    file = tmp_path / "each.csv"
    assert main(["evaluate", str(run.path), "--split", "train", "--metrics", "mse", "--each", str(file)]) == 0
    rows = read(file)
    assert {row["class"] for row in rows} == {"round", "square"} and all(row["name"].endswith(".png") for row in rows)


def test_an_example_without_values_has_no_figure(tmp_path: Path) -> None:
    x = np.random.default_rng(0).normal(size=(60, 3))
    x[5] = np.nan
    run = sandglass.train("vae", x, out=tmp_path / "run", data_options={"validation": 0, "test": 0}, **SMALL)
    found = sandglass.evaluate(run, split="train", metrics=["mse", "elbo"])
    assert np.isnan(found.each["mse"]).sum() == 1 and len(found.each["mse"]) == 60
    assert found["metrics"]["mse"]["n"] == 59 and found["metrics"]["mse"]["value"] is not None


def test_a_figure_that_does_not_apply_is_an_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = sandglass.train("vae", "digits", out=tmp_path / "run", likelihood="bernoulli", **SMALL)
    assert main(["evaluate", str(run.path), "--metrics", "bits_per_dim"]) == 65
    assert "'bits_per_dim' needs a likelihood" in capsys.readouterr().err


def test_a_long_evaluation_says_what_it_does(
    run: sandglass.Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(output, "_EVERY", 0.01)
    with output.telling() as tell:
        tell("fid, 3 of 19 metrics")
        time.sleep(0.1)
    assert "evaluating: fid, 3 of 19 metrics, after 0." in capsys.readouterr().err


def test_an_estimator_of_a_run(run: sandglass.Run, tmp_path: Path) -> None:
    images = np.random.default_rng(0).random((6, 8, 8))
    found = GenerativeModel.from_run(run)
    assert found.transform(images).shape == (6, 2) and found.reconstruct(images).shape == (6, 8, 8)
    assert 0 <= found.sample(3).min() and found.sample(3).max() <= 1 and found.score_samples(images).shape == (6,)
    assert np.array_equal(
        found.transform((images * 255).round().astype(np.uint8)),
        GenerativeModel.from_run(run.path).transform((images * 255).round().astype(np.uint8)),
    )
    saved = GenerativeModel.load(found.save(tmp_path / "saved"))
    assert np.array_equal(saved.transform(images), found.transform(images))


def test_an_estimator_of_a_run_on_arrays_gives_arrays_like_them(tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (40, 3, 8, 8), dtype=np.uint8)
    found = GenerativeModel.from_run(sandglass.train("vae", images, out=tmp_path / "run", **SMALL))
    for made in (found.sample(3), found.reconstruct(images[:3])):
        assert made.shape == (3, 3, 8, 8) and made.dtype == np.uint8 and made.max() > 1


def test_an_estimator_of_a_run_on_a_table(tmp_path: Path) -> None:
    import pandas

    frame = pandas.DataFrame({"a": np.arange(60.0), "b": ["x", "y", "z"] * 20})
    run = sandglass.train("vae", frame, out=tmp_path / "run", **SMALL)
    found = GenerativeModel.from_run(run)
    assert found.feature_names_in_.tolist() == ["a", "b"] and found.transform(frame).shape == (60, 2)
    assert list(found.sample(4).columns) == ["a", "b"]

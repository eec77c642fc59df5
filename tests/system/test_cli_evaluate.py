"""``sandglass evaluate``: figures by name, of every example, and what does not apply."""

from __future__ import annotations

import csv
import io
import re
import sys
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


class Screen(io.StringIO):
    """A terminal."""

    def isatty(self) -> bool:
        return True


def test_a_terminal_sees_the_metric_and_how_many_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(output, "_OFTEN", 0.01)
    screen = Screen()
    monkeypatch.setattr(sys, "stderr", screen)
    with output.telling() as tell:
        for doing in ("elbo, 1 of 2 metrics", "fid, 2 of 2 metrics"):
            tell(doing)
            time.sleep(0.2)
        print("a note", file=sys.stderr)
    shown = screen.getvalue()
    assert "evaluating: elbo, 1 of 2 metrics, after 0." in shown and "evaluating: fid, 2 of 2 metrics" in shown
    assert "a note" in shown and shown.count("evaluating: fid") < 50
    screen.truncate(0)
    with output.telling(quiet=True) as tell:
        tell("elbo, 1 of 1 metrics")
        time.sleep(0.05)
    assert "evaluating" not in screen.getvalue()


def test_every_table_of_figures_says_which_value_is_better(
    run: sandglass.Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """By the same names wherever they are printed."""
    other = sandglass.train("vae", "digits", out=tmp_path / "other", **SMALL)
    assert main(["evaluate", str(run.path), "--metrics", "bound,mse"]) == 0
    one = rows_of(capsys.readouterr().out, "metric")
    assert (
        main(["compare", str(run.path), str(other.path), "--metrics", "bound,mse", "-o", str(tmp_path / "c.html")]) == 0
    )
    text = capsys.readouterr().out
    several = rows_of(text, "figure")
    expected = {"elbo": "higher", "rate": "", "distortion": "", "bits_per_dim": "lower", "mse": "lower"}
    assert one == several == expected
    assert "Best of all by elbo" in text or "By elbo, in this order" in text
    assert "bits_per_dim, bits/dim" not in text
    assert "<th>better</th>" in re.sub(r"<th [^>]*>", "<th>", (tmp_path / "c.html").read_text())
    assert "<td>higher</td>" in sandglass.evaluate(run, metrics=["elbo"])._repr_html_()


def rows_of(text: str, head: str) -> dict[str, str]:
    """Which value is better, by the name of the figure, in the first table with this head."""
    lines = text.splitlines()
    first = next(i for i, line in enumerate(lines) if line.startswith(head))
    rows = {}
    for line in lines[first + 1 :]:
        if not line.strip():
            break
        rows[re.split(r"[ ,]", line)[0]] = next(iter(re.findall(r"higher|lower", line)), "")
    return rows


def test_the_head_of_the_report_has_bits(run: sandglass.Run) -> None:
    sandglass.evaluate(run, metrics=["bound"])
    page = sandglass.report(run).read_text()
    assert page.index(" bits/dim") < page.index("<h2"), "it is above the first section"
    assert "bits/dim bits/dim" not in page


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

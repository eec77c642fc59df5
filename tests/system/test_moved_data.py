"""A run whose data has moved: --data finds the same splits again, and says so where it does not."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import sandglass
from helpers import Cli
from sandglass.comparing.page import heading
from sandglass.data.sources import images, tables
from sandglass.errors import DataError, NotFoundError
from sandglass.metrics.compared import Ranking
from sandglass.runs.result import Result

SMALL = ["--net", "mlp", "--model.net.widths", "8", "--latent-dim", "2", "--threads", "1", "--no-report"]


def folder_of(path: Path, count: int = 40, seed: int = 0) -> Path:
    """Grey pictures in two class folders."""
    chance = np.random.default_rng(seed)
    for i in range(count):
        (path / "ab"[i % 2]).mkdir(parents=True, exist_ok=True)
        Image.fromarray(chance.integers(0, 256, (8, 8), np.uint8)).save(path / "ab"[i % 2] / f"{i}.png")
    return path


def table_of(path: Path, count: int = 60, seed: int = 0) -> Path:
    """A table with a column of classes."""
    chance = np.random.default_rng(seed)
    lines = [f"{v:.3f},{w:.3f},{'xy'[i % 2]}" for i, (v, w) in enumerate(chance.normal(size=(count, 2)))]
    path.write_text("\n".join(["height,weight,kind", *lines]) + "\n")
    return path


@pytest.fixture
def moved(cli: Cli, tmp_path: Path) -> tuple[Path, Path, dict]:
    """A run of pictures, the new place of its data, and its figures on the test split."""
    old = folder_of(tmp_path / "old")
    assert cli("train", "vae", "--data", old, *SMALL, "--epochs", "2", "--out", "run")[0] == 0
    code, out, _ = cli("evaluate", "run", "--json", "--metrics", "elbo,mse")
    assert code == 0
    (tmp_path / "run" / "results.json").unlink()
    shutil.move(old, tmp_path / "new")
    return tmp_path / "run", tmp_path / "new", json.loads(out)


def test_the_error_of_moved_data_says_what_to_do(cli: Cli, moved: tuple) -> None:
    run, new, _ = moved
    for words in (["evaluate", run], ["report", run], ["reconstruct", run], ["train", "--resume", run, "--epochs", "3"],
                  ["compare", run, run.parent / "other"]):  # fmt: skip
        if words[0] == "compare":
            shutil.copytree(run, run.parent / "other")
        code, _, err = cli(*words)
        assert code == 66 and "--data" in err and str(new.parent / "old") in err and err.count("\n") == 1, words
    with pytest.raises(NotFoundError, match="data="):
        sandglass.evaluate(run)


def test_evaluate_measures_the_same_split(cli: Cli, moved: tuple) -> None:
    run, new, before = moved
    code, out, _ = cli("evaluate", run, "--data", new, "--json", "--metrics", "elbo,mse")
    assert code == 0 and json.loads(out) == before
    assert json.loads((run / "results.json").read_text()), "these are the figures of the run"
    assert sandglass.evaluate(run, data=new, metrics=["mse"])["metrics"]["mse"] == before["metrics"]["mse"]
    code, out, _ = cli("evaluate", run, "--data", new, "--split", "validation", "--metrics", "mse")
    assert code == 0 and "split validation" in out


def test_tasks_use_the_same_split(cli: Cli, moved: tuple) -> None:
    run, new, _ = moved
    assert cli("encode", run, "--data", new, "-o", "codes.npz")[0] == 0
    with np.load("codes.npz") as codes:
        assert set(codes["split"]) == {"train", "validation", "test"} and len(codes["codes"]) == 40
    assert cli("reconstruct", run, "--data", new, "-o", "back")[0] == 0
    assert len(list(Path("back").iterdir())) == 4, "of the test split alone"
    assert cli("score", run, "--data", new, "--split", "test", "-o", "scores.csv")[0] == 0
    assert len(Path("scores.csv").read_text().splitlines()) == 5


def test_report_and_compare_find_moved_data(cli: Cli, moved: tuple) -> None:
    run, new, _ = moved
    code, out, err = cli("report", run, "--data", new)
    assert code == 0 and Path(out.strip()).is_file(), err
    shutil.copytree(run, run.parent / "other")
    code, out, err = cli("compare", run, run.parent / "other", "--data", new, "--metrics", "mse")
    assert code == 0 and "4 test examples" in out, err
    other = folder_of(run.parent / "else", seed=1)
    code, _, err = cli("report", run, "--data", other)
    assert code == 65 and "is not the data of" in err and err.count("\n") == 1
    code, out, err = cli("compare", run, run.parent / "other", "--data", other, "--metrics", "mse")
    assert code == 0 and "40 examples" in out and "is not the data" in err


def test_resume_finds_moved_data_and_remembers_it(cli: Cli, moved: tuple) -> None:
    run, new, _ = moved
    code, _, err = cli("train", "--resume", run, "--data", folder_of(run.parent / "else", seed=1), "--epochs", "3")
    assert code == 65 and "as many examples" in err and err.count("\n") == 1
    code, _, err = cli("train", "--resume", run, "--data", new, "--epochs", "3", "--no-report")
    assert code == 0, err
    assert sandglass.Run(run).config["data"]["source"]["source"] == str(new)
    assert cli("evaluate", run, "--metrics", "mse")[0] == 0


def test_resume_in_python_reads_a_path_like_the_run(moved: tuple) -> None:
    run, new, _ = moved
    assert sandglass.resume(run, data=new, epochs=3).steps()


def test_every_use_in_python_takes_the_new_place(moved: tuple, tmp_path: Path) -> None:
    run, new, before = moved
    assert sandglass.use("manifold", run, data=new, side=2).x.shape == (4, 1, 8, 8)  # between its codes
    assert sandglass.use("encode", run, data=new).arrays["codes"].shape == (40, 2)
    found = sandglass.use("encode", run, data=folder_of(tmp_path / "else", 10, seed=1))
    assert len(found.arrays["codes"]) == 10 and "is not the data of" in found.notes[0]
    assert sandglass.report(run, data=new).is_file()
    measured = sandglass.Run(run).results()["test"]["metrics"]
    assert measured["mse"]["value"] == pytest.approx(before["metrics"]["mse"]["value"])
    with pytest.raises(DataError, match="is not the data of"):
        sandglass.use("manifold", run, data=tmp_path / "else")


def test_figures_of_every_example_of_all_splits(moved: tuple) -> None:
    run, new, _ = moved
    found = sandglass.evaluate(run, data=new, split="all", metrics=["mse"])
    assert list(found.each)[:4] == ["index", "split", "name", "class"] and len(found.each["mse"]) == 40


def test_a_moved_table_keeps_its_options(cli: Cli, tmp_path: Path) -> None:
    words = ["--labels", "kind", "--types", "height=numeric", "--validation", "0.2", "--seed", "3"]
    assert cli("train", "vae", "--data", table_of(tmp_path / "t.csv"), *SMALL, *words, "--epochs", "1",
               "--out", "run")[0] == 0  # fmt: skip
    before = json.loads(cli("evaluate", "run", "--metrics", "mse", "--json")[1])
    (tmp_path / "t.csv").rename(tmp_path / "moved.csv")
    after = json.loads(cli("evaluate", "run", "--data", "moved.csv", "--metrics", "mse", "--json")[1])
    assert after == before


@pytest.mark.parametrize("count", [30, 60])
def test_other_data_is_said_and_measured_whole(cli: Cli, tmp_path: Path, count: int) -> None:
    assert cli("train", "vae", "--data", table_of(tmp_path / "t.csv"), *SMALL, "--epochs", "1", "--out", "run")[0] == 0
    new = table_of(tmp_path / "new.csv", count, seed=1)
    code, out, err = cli("evaluate", "run", "--data", new, "--metrics", "mse")
    assert code == 0 and f"new, all {count} examples" in out and "split" not in out
    assert "new.csv is not the data of run" in err and ("60" in err if count == 30 else "as many examples" in err)
    assert not (tmp_path / "run" / "results.json").exists()
    assert json.loads(cli("evaluate", "run", "--data", new, "--json")[1])["split"] == "all"
    code, _, err = cli("evaluate", "run", "--data", new, "--split", "test")
    assert code == 65 and "no split 'test'" in err
    code, _, err = cli("score", "run", "--data", new, "-o", "scores.csv")
    assert code == 0 and len((tmp_path / "scores.csv").read_text().splitlines()) == count + 1
    with pytest.warns(UserWarning, match="is not the data of run"):
        found = sandglass.evaluate("run", data=new, metrics=["mse"])
    assert found["split"] == "all" and found["metrics"]["mse"]["n"] == count


def test_data_that_changed_where_it_is(cli: Cli, tmp_path: Path) -> None:
    data = table_of(tmp_path / "t.csv")
    assert cli("train", "vae", "--data", data, *SMALL, "--epochs", "1", "--out", "run")[0] == 0
    table_of(data, 50)
    code, _, err = cli("evaluate", "run", "--metrics", "mse")
    assert code == 0 and "has changed" in err and "50" in err
    with pytest.raises(DataError, match="50"):
        sandglass.resume("run", epochs=2)


def test_a_sweep_finds_moved_data(cli: Cli, tmp_path: Path) -> None:
    pytest.importorskip("optuna")
    table_of(tmp_path / "t.csv")
    words = ["vae", "--data", "t.csv", *SMALL[:-1], "--epochs", "1", "--vary", "lr=1e-3,1e-2", "--sampler", "random"]
    code, _, err = cli("sweep", *words, "--trials", "1", "-o", "swept")
    assert code == 0, err
    (tmp_path / "t.csv").rename(tmp_path / "moved.csv")
    code, _, err = cli("sweep", "--resume", "swept", "--trials", "2")
    assert code == 66 and "--data PLACE" in err and err.count("\n") == 1
    code, _, err = cli("sweep", "--resume", "swept", "--trials", "2", "--data", "moved.csv")
    assert code == 0, err
    assert "moved.csv" in (tmp_path / "swept" / "sweep.yaml").read_text()


def test_a_place_that_does_not_exist(cli: Cli, moved: tuple) -> None:
    for words in (["evaluate"], ["report"], ["encode"]):
        code, _, err = cli(*words, moved[0], "--data", "nowhere")
        assert code in (2, 66) and err.count("\n") == 1, words


def test_titles_of_figures_and_sizes() -> None:
    """A unit is not repeated, and one number is not several."""
    ranking = Ranking("bits_per_dim", "", "bits/dim", {"a": [Result("bits_per_dim", 3.0, 0.1, 9, "bits/dim")]})
    assert heading(ranking) == "bits/dim"
    assert heading(Ranking("psnr", "", "dB", {"a": [Result("psnr", 3.0, 0.1, 9, "dB")]})) == "PSNR, dB"
    assert sandglass.load_data(np.arange(40.0)[:, None]).about.endswith("examples of 1 number")
    assert sandglass.load_data(np.arange(40.0).reshape(20, 2)).about.endswith("examples of 2 numbers")


def test_a_result_for_each_row_of_the_runs_own_table_is_in_the_order_of_the_file(cli: Cli, tmp_path: Path) -> None:
    table = table_of(tmp_path / "rows.csv")
    lines = table.read_text().splitlines()
    lines[40] = ",".join(["", *lines[40].split(",")[1:]])
    table.write_text("\n".join(lines) + "\n")
    assert cli("train", "vae", "--data", table, *SMALL, "--epochs", "1", "--out", "run")[0] == 0
    assert cli("complete", "run", "--data", table, "-o", "filled.csv")[0] == 0
    filled = (tmp_path / "filled.csv").read_text().splitlines()
    assert len(filled) == 61
    for before, after in zip(lines[1:40] + lines[41:], filled[1:40] + filled[41:], strict=True):
        assert [float(v) for v in before.split(",")[:2]] == pytest.approx([float(v) for v in after.split(",")[-3:-1]])
    assert filled[40].split(",")[-3] != ""
    assert cli("score", "run", "--data", table, "-o", "scores.csv")[0] == 0
    assert len((tmp_path / "scores.csv").read_text().splitlines()) == 61


def test_scores_in_order_have_the_classes_of_a_table(cli: Cli, tmp_path: Path) -> None:
    old = folder_of(tmp_path / "old")
    names = sorted(p.name for p in old.rglob("*.png"))
    (old / "kinds.csv").write_text("\n".join(["name,kind", *(f"{n},{'xy'[len(n) % 2]}" for n in names)]) + "\n")
    words = ["--labels", "kinds.csv:kind", *SMALL, "--epochs", "1", "--out", "run"]
    assert cli("train", "cvae", "--data", old, *words)[0] == 0
    shutil.move(old, tmp_path / "new")
    code, _, err = cli("score", "run", "--data", "new", "-o", "scores.csv")
    assert code == 0 and len(Path("scores.csv").read_text().splitlines()) == 41, err


@pytest.mark.parametrize("words", ["evaluate --metrics mse", "encode -o out.csv", "score -o out.csv"])
@pytest.mark.parametrize("other", [False, True])
@pytest.mark.parametrize("kind", ["table", "pictures"])
def test_data_is_read_once(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: str, other: bool, kind: str
) -> None:
    make = table_of if kind == "table" else folder_of
    assert cli("train", "vae", "--data", make(tmp_path / "a.csv"), *SMALL, "--epochs", "1", "--out", "run")[0] == 0
    read: list[Path] = []
    module, name = (tables, "read_file") if kind == "table" else (images, "load")
    load = getattr(module, name)
    monkeypatch.setattr(module, name, lambda path, *rest: read.append(path) or load(path, *rest))
    place = make(tmp_path / "b.csv", seed=1) if other else tmp_path / "a.csv"
    code, _, err = cli(words.split()[0], "run", "--data", place, *words.split()[1:])
    assert code == 0 and ("is not the data" in err) == other, err
    assert len(read) == len(set(read)) == (1 if kind == "table" else 40)

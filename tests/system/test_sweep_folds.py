"""Cross-validation: every example is held out once, and trials are ranked by the mean over folds."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import sandglass
from helpers import Cli
from sandglass.data.splits import Fold
from sandglass.errors import ConfigError, DataError, NotFoundError
from sandglass.metrics.measure import measure
from sandglass.runs.run import Run
from sandglass.sweeps import trial as trials
from sandglass.sweeps.study import Study

SMALL: dict[str, Any] = {
    "model_options": {"net": {"name": "mlp", "widths": [8]}}, "epochs": 2, "batch_size": 16, "threads": 1,
}  # fmt: skip
X = np.random.default_rng(0).normal(size=(90, 3)).astype("float32")


@pytest.mark.parametrize(("n", "of"), [(5, 2), (20, 3), (101, 5), (25, 10), (29, 20), (12, 10), (55, 10)])
def test_each_example_is_held_out_once(n: int, of: int) -> None:
    y = torch.arange(n) % 3
    found = [Fold(k, of).carve(n, 0.1, seed=3, y=y) for k in range(1, of + 1)]
    test = set(found[0]["test"].tolist())
    sizes = [len(parts["validation"]) for parts in found]
    assert max(sizes) - min(sizes) <= 1 and min(sizes) > 0
    held = [i for parts in found for i in parts["validation"].tolist()]
    assert len(held) == len(set(held)) and test.isdisjoint(held)
    assert set(held) | test == set(range(n))
    for parts in found:
        assert set(parts["test"].tolist()) == test
        assert torch.cat(list(parts.values())).sort().values.tolist() == list(range(n))
        if n > 20:
            sizes = [int((y[parts["validation"]] == c).sum()) for c in range(3)]
            assert max(sizes) - min(sizes) <= 3  # stratified


def test_a_group_is_in_one_fold() -> None:
    groups = torch.arange(60) // 4
    for k in (1, 2, 3):
        held = Fold(k, 3).carve(60, 0.0, seed=0, groups=groups)["validation"]
        inside = set(groups[held].tolist())
        assert sum(int((groups == g).sum()) for g in inside) == len(held) > 0


@pytest.mark.parametrize("wrong", ["0/5", "6/5", "1/1", "two", 2])
def test_what_is_no_fold(wrong: Any) -> None:
    with pytest.raises(ConfigError, match="such as 2/5"):
        sandglass.load_data(X, fold=wrong)


def test_the_data_must_have_no_validation_split() -> None:
    with pytest.raises(DataError, match="has a split for it"):
        sandglass.load_data({"train": X, "validation": X[:5]}, fold="1/2")


def test_the_figure_of_a_trial_is_the_mean_over_folds(tmp_path: Path) -> None:
    found = sandglass.sweep(
        "vae", X, vary={"lr": [1e-5, 1e-2, 1.1e-2]}, sampler="grid", folds=3, out=tmp_path / "s", **SMALL
    )
    assert found.folds == 3 and [t.state for t in found.trials] == ["finished"] * 3
    for one in found.trials:
        values = []
        for k in (1, 2, 3):
            held = sandglass.load_data(X, fold=f"{k}/3").splits["validation"]
            run = Run(one.folder / f"fold-{k}")
            values.append(next(r.value for r in measure(run.load_model(), held, names=["elbo"])))
        assert one.folds == pytest.approx(values) and one.value == pytest.approx(np.mean(values))
        assert one.stderr == pytest.approx(np.std(values, ddof=1) / 3**0.5) and one.epochs == 6
    best = max(found.trials, key=lambda t: t.value or -np.inf)
    assert found.best is best
    for one in found.trials[1:]:
        apart = np.array(one.folds) - np.array(best.folds)
        assert (one in found.ties) == (abs(apart.mean()) <= 2 * apart.std(ddof=1) / 3**0.5)
    page = (tmp_path / "s" / "sweep.html").read_text()
    assert "each on 3 folds" in page and "by cross-validation" in page


def test_a_trial_stopped_in_a_later_fold_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    vary: dict[str, Any] = {"lr": [1e-3, 1e-2]}
    whole = sandglass.sweep("vae", X, vary=vary, sampler="grid", folds=3, out=tmp_path / "a", **SMALL)
    calls, real = [], trials.train

    def stopped(*args: Any, **options: Any) -> Run:
        calls.append(options["out"].name)
        if len(calls) == 5:
            raise KeyboardInterrupt
        return real(*args, **options)

    monkeypatch.setattr(trials, "train", stopped)
    with pytest.raises(KeyboardInterrupt):
        sandglass.sweep("vae", X, vary=vary, sampler="grid", folds=3, out=tmp_path / "b", **SMALL)
    assert calls == ["fold-1", "fold-2", "fold-3", "fold-1", "fold-2"]
    again = sandglass.sweep(resume=tmp_path / "b", data=X)
    assert calls[5:] == ["fold-2", "fold-3"]  # not the first again
    assert [(t.number, t.folds) for t in again.trials] == [(t.number, t.folds) for t in whole.trials]


def test_data_that_cannot_be_split_anew_is_refused(tmp_path: Path) -> None:
    for data, folds, message in (
        (sandglass.load_data(X), 3, "instead of a Dataset"),
        (X, 1, "at least 2 folds"),
        (X[:4], 9, "at least 9 examples"),
    ):
        with pytest.raises(ConfigError, match=message):
            sandglass.sweep("vae", data, vary={"lr": [1e-3, 1e-2]}, folds=folds, out=tmp_path / "s", **SMALL)
        assert not (tmp_path / "s").exists()
    with pytest.raises(ConfigError, match="leave it out"):
        sandglass.sweep("vae", X, vary={"lr": [1e-3, 1e-2]}, folds=2, data_options={"fold": "1/2"}, out=tmp_path / "s")


def test_on_the_command_line(cli: Cli) -> None:
    words = ["--data", "digits", "--limit", "120", "--net", "mlp", "--model.net.widths", "8", "--epochs", "1"]
    code, out, err = cli("sweep", "vae", *words, "--threads", "1", "--vary", "lr=1e-6,1e-2", "--sampler", "grid",
                         "--folds", "2", "--out", "s")  # fmt: skip
    assert code == 0 and "2 trials of vae on digits, 1 epoch each, 2 folds" in err
    assert "Means over 2 folds" in out and "evaluate" not in out
    for number, fold in (("0000", 1), ("0001", 2)):
        assert Run(f"s/{number}/fold-{fold}").config["data"]["source"]["fold"] == f"{fold}/2"
    command = next(line for line in out.splitlines() if line.startswith("  sandglass train")).split()[1:]
    assert cli(*command, "--no-report", "--out", "again")[0] == 0
    final = Run("again").config
    assert final["training"]["lr"] == 1e-2 and "fold" not in final["data"]["source"]
    code, out, _ = cli("sweep", "--resume", "s", "--json")
    assert code == 0 and json.loads(out)["folds"] == 2 and len(json.loads(out)["trials"][0]["folds"]) == 2
    code, _, err = cli("sweep", "--resume", "s", "--folds", "3")
    assert code == 2 and "omit --folds" in err
    code, _, err = cli("sweep", "vae", *words, "--vary", "lr=1e-6,1e-2", "--folds", "2", "--fold", "1/2")
    assert code == 2 and "leave it out" in err


def test_other_processes_read_the_folds(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", X)
    found = sandglass.sweep(
        "vae", str(tmp_path / "x.npy"), vary={"lr": [1e-3, 1e-2]}, sampler="grid", folds=2, jobs=2, out=tmp_path / "s",
        **SMALL,
    )  # fmt: skip
    alone = sandglass.sweep("vae", X, vary={"lr": [1e-3, 1e-2]}, sampler="grid", folds=2, out=tmp_path / "t", **SMALL)
    assert [t.folds for t in found.trials] == [pytest.approx(t.folds) for t in alone.trials]
    with Study(tmp_path / "s")._alone():
        assert (tmp_path / "s" / "0001" / "fold-2" / "model").is_dir()


def test_the_folds_of_moved_data_are_found(tmp_path: Path) -> None:
    np.save(tmp_path / "old.npy", X)
    options = {"vary": {"lr": [1e-3, 1e-2]}, "folds": 2, "trials": 1, "out": tmp_path / "s", **SMALL}
    sandglass.sweep("vae", tmp_path / "old.npy", **options)
    (tmp_path / "old.npy").rename(tmp_path / "new.npy")
    with pytest.raises(NotFoundError, match="--data PLACE"):
        sandglass.sweep(resume=tmp_path / "s", trials=2)
    found = sandglass.sweep(resume=tmp_path / "s", data=tmp_path / "new.npy", trials=2)
    assert [len(one.folds) for one in found.trials] == [2, 2]
    sandglass.sweep(resume=tmp_path / "s", trials=3)  # the new place is kept

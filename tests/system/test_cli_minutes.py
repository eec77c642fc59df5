"""``--minutes`` on the command line."""

from __future__ import annotations

from pathlib import Path

import yaml
from test_cli_train import SMALL, configuration

from helpers import Cli
from sandglass.runs.run import Run


def test_minutes_choose_the_length_and_are_repeated_by_the_configuration(cli: Cli, tmp_path: Path) -> None:
    words = ["train", "vae", "--data", "digits", "--limit", "100", "--threads", "1", "--net", "conv"]
    code, _, err = cli(*words, "--minutes", "0.02", "--no-report", "--out", "run")
    assert code == 0 and "0.02 minutes: width " in err and "evaluation and report" not in err
    assert "Trained for" in err
    config = yaml.safe_load((tmp_path / "run/config.yaml").read_text())
    assert config["training"]["minutes"] is None and config["plan"]["minutes"] == 0.02
    assert config["model"]["options"]["net"]["width"] == config["plan"]["width"]
    code, _, err = cli("train", "--config", "run/config.yaml", "--out", "again", "--no-report")
    assert code == 0, err
    run, again = (tmp_path / n / "metrics.jsonl" for n in ("run", "again"))
    assert run.read_bytes() == again.read_bytes()
    code, out, _ = cli(*words, "--minutes", "0.02", "--dry-run")
    assert code == 0 and "0.02 minutes: width " in out


def test_a_width_that_was_given_stays(cli: Cli, tmp_path: Path) -> None:
    words = ["train", "vae", "--data", "digits", "--limit", "50", "--threads", "1", "--model.net.width", "5"]
    code, _, err = cli(*words, "--minutes", "0.01", "--no-report", "--out", "run")
    assert code == 0 and "0.01 minutes: batch 16, " in err
    assert yaml.safe_load((tmp_path / "run/config.yaml").read_text())["model"]["options"]["net"]["width"] == 5


def test_weights_to_start_from_decide_the_width(cli: Cli, tmp_path: Path) -> None:
    words = ["train", "vae", "--data", "digits", "--limit", "100", "--threads", "1", "--no-report"]
    assert cli(*words, "--max-steps", "2", "--out", "a")[0] == 0
    code, _, err = cli(*words, "--minutes", "0.01", "--init-from", "a", "--out", "b")
    assert code == 0 and "0.01 minutes: batch " in err


def test_minutes_and_epochs_are_given_once(cli: Cli, tmp_path: Path) -> None:
    for more in (["--epochs", "3"], ["--stage.train.epochs", "3"], ["--max-steps", "3"]):
        code, _, err = cli("train", "--data", "digits", "--minutes", "2", *more)
        assert code == 2 and "Give the length of training once" in err
    code, _, err = cli("sweep", "vae", "--data", "digits", *SMALL, "--vary", "lr=0.1,0.01", "--minutes", "1")
    assert code == 2 and "epochs instead of minutes" in err
    assert cli("train", "--data", "digits", *SMALL, "--epochs", "1", "--no-report", "--out", "run")[0] == 0
    code, _, err = cli("train", "--resume", "run", "--minutes", "3", "--epochs", "9")
    assert code == 2 and "Give the length of training once" in err
    code, _, err = cli("train", "--resume", "run", "--minutes", "soon")
    assert code == 2 and "--minutes must be a number, not soon" in err
    before = Run("run").steps()[-1]
    code, _, err = cli("train", "--resume", "run", "--minutes", "0.01", "--no-report")
    assert code == 0 and "of 0.01 further minutes" in err and Run("run").steps()[-1] > before


def test_a_later_layer_says_how_long(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text(
        "training: {epochs: 9, max_steps: 5, stage: {prior: {epochs: 3, lr: 0.1}, codes: {epochs: 2}}}"
    )
    training = configuration(cli, "vq-vae", "--config", "c.yaml", "--minutes", "5")["training"]
    assert (training["minutes"], training["epochs"], training["max_steps"]) == (5, None, None)
    assert training["stage"] == {"prior": {"lr": 0.1}}
    (tmp_path / "d.yaml").write_text("training: {minutes: 9}")
    training = configuration(cli, "vae", "--config", "d.yaml", "--epochs", "5")["training"]
    assert (training["minutes"], training["epochs"]) == (None, 5)

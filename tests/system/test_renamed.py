"""Models whose name has changed: configurations and runs with the earlier one."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from test_cli_train import SMALL

import sandglass
from helpers import Cli
from sandglass import registry
from sandglass.app import configure


def test_a_configuration_with_the_name_of_an_earlier_version_still_trains(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "old.yaml").write_text("model: {name: capacity-vae}\ndata: {source: digits}\n")
    assert cli("train", "--config", "old.yaml", *SMALL, "--epochs", "1", "--no-report", "--out", "a")[0] == 0
    run = sandglass.Run(tmp_path / "a")
    assert run.config["model"]["name"] == "disentangled-beta-vae"
    assert run.config["model"]["options"]["capacity"] == 25.0 and run.load_model().code_size == 3


def test_a_run_with_the_name_of_an_earlier_version_loads_and_goes_on(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as then:  # when it was registered
        old = dataclasses.replace(registry.entry("model", "disentangled-beta-vae"), name="capacity-vae")
        then.setitem(registry.names.__globals__["_entries"], ("model", "capacity-vae"), old)
        words = ("capacity-vae", "--data", "digits", *SMALL, "--epochs", "1", "--no-report", "--out", "runs/a")
        assert cli("train", *words)[0] == 0
    run = sandglass.Run(tmp_path / "runs" / "a")
    assert run.config["model"]["name"] == "capacity-vae" and run.load_model().penalty.capacity.value == 25.0
    code, _, err = cli("train", "--resume", "runs/a", "--epochs", "2", "--no-report")
    assert code == 0 and "model.name" not in err, err
    assert "disentangled-beta-vae" in cli("runs")[1] and "capacity-vae" not in cli("runs")[1]
    config = configure.over({"model": run.config["model"]}, {"model": {"name": "disentangled-beta-vae"}})
    assert config["model"]["options"] == run.config["model"]["options"]  # the same model: all its options stay
    (tmp_path / "capacity-vae").mkdir()
    assert cli("train", "capacity-vae", "--data", "digits", *SMALL, "--dry-run")[0] == 0  # a model, not the folder


def test_options_that_a_quantiser_has_now_are_replaced_with_it(cli: Cli) -> None:
    """As those of any other choice are, where another is chosen above an old configuration."""
    old = {"model": {"name": "vq-vae", "options": {"quantiser": "ema", "decay": 0.5, "codes": 3}}}
    for above, name in (
        ({"options": {"quantiser": {"name": "fsq"}}}, "fsq"),
        ({"name": "rq-vae"}, "residual"),
        ({"options": {"quantiser": {"revive": 0.0}}}, "ema"),
    ):
        config = configure.complete(configure.over(old, {"model": above}))
        found = config["model"]["options"]["quantiser"]
        assert (found["name"], found.get("decay", 0.0)) == (name, {"fsq": 0.0, "residual": 0.95, "ema": 0.5}[name])
        assert config["model"]["options"]["codes"] == 3
    kept = configure.over(old, {"model": {"name": "vq-vae-2"}})["model"]["options"]  # another class, with no preset
    assert kept["quantiser"] == {"name": "ema", "decay": 0.5}
    for word in ("--decay", "--model.decay"):
        code, _, err = cli("train", "vq-vae", "--data", "digits", word, "0.5", "--dry-run")
        assert code == 2 and "--quantiser.decay" in err, err

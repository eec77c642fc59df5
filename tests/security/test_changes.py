"""What was changed between stopping and going on is refused or listed, never passed over in silence."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

import sandglass
from helpers import Quiet
from offer import GOLDEN
from sandglass.engine.record import environment
from sandglass.errors import CheckpointError, ConfigError, DataError
from sandglass.runs.plain import read_yaml, to_yaml
from sandglass.runs.run import Run


@pytest.fixture
def path(tmp_path: Path) -> Path:
    shutil.copytree(GOLDEN / "vae", tmp_path / "run")
    return tmp_path / "run"


def edit(path: Path, name: str, value: Any) -> None:
    config = read_yaml(path / "config.yaml")
    place: Any = config
    *way, last = name.split(".")
    for key in way:
        place = place[key]
    place[last] = value
    (path / "config.yaml").write_bytes(to_yaml(config))


def resumed(path: Path) -> tuple[list[str], list[str]]:
    """What was said, and what the events keep of it."""
    quiet = Quiet()
    run = sandglass.resume(path, epochs=2, progress=quiet)
    kept = [line for e in run.events() if e["event"] == "changed" for line in e["what"]]
    return [line for line in quiet.said if "Changed since the run began" in line], kept


EDITS = {
    "training.lr": 0.5, "training.batch_size": 64, "training.seed": 3, "training.optimizer": "sgd",
    "training.select": "last", "model.options.beta": 9.0, "training.clip": 1.0, "classes": list("abcdefghij"),
}  # fmt: skip


@pytest.mark.parametrize("name", EDITS)
def test_an_edited_setting_is_listed(name: str, path: Path) -> None:
    edit(path, name, EDITS[name])
    try:
        said, kept = resumed(path)
    except (CheckpointError, ConfigError, DataError):
        return  # refused
    assert any(f" {name} was " in line for line in said)
    assert any(line.startswith(f"{name} was ") for line in kept)


def test_nothing_is_said_where_nothing_changed(path: Path) -> None:
    """But for the machine, which is another than that of the golden run."""
    config = read_yaml(path / "config.yaml")
    (path / "config.yaml").write_bytes(to_yaml({**config, "environment": environment()}))
    assert resumed(path) == ([], [])


def test_another_version_is_listed(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sandglass, "__version__", "9.9.9")
    said, kept = resumed(path)
    assert any("sandglass was" in line and "9.9.9" in line for line in said)
    assert any("9.9.9" in line for line in kept)


def test_another_shape_of_model_is_refused(path: Path) -> None:
    edit(path, "model.options.latent_dim", 5)
    with pytest.raises(CheckpointError, match="shape"):
        resumed(path)


def test_an_added_or_changed_picture_is_refused(photos: Path, tmp_path: Path) -> None:
    options = {"model_options": {"latent_dim": 2, "net": "mlp"}, "data_options": {"size": 8}, "epochs": 1}
    run = sandglass.train("ae", photos, out=tmp_path / "run", progress=Quiet(), **options)  # type: ignore[arg-type]
    first = sorted((photos / "round").iterdir())[0]
    shutil.copy(first, photos / "round" / "new.png")
    with pytest.raises(DataError, match="differs from what"):
        sandglass.resume(run.path, epochs=2, progress=Quiet())
    (photos / "round" / "new.png").unlink()
    kept = first.read_bytes()
    shutil.copy(sorted((photos / "square").iterdir())[0], first)
    with pytest.raises(DataError, match="differs from what"):
        sandglass.resume(run.path, epochs=2, progress=Quiet())
    first.write_bytes(kept)
    assert sandglass.resume(run.path, epochs=2, progress=Quiet()).steps()
    assert Run(run.path).config["training"]["epochs"] == 2

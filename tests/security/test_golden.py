"""Runs written by every released version still load, answer as they did, and can be gone on with."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import sandglass
from helpers import Quiet
from offer import command
from sandglass.errors import CheckpointError, ConfigError
from sandglass.runs import storage
from sandglass.runs.model_folder import load_model
from sandglass.runs.plain import read_yaml, to_yaml
from sandglass.runs.run import Run

GOLDEN = Path(__file__).parents[1] / "golden"
RUNS = sorted(f.parent for f in GOLDEN.glob("*/*/config.yaml") if f.parts[-3] != "0.1.0")


def answer(folder: Path, x: torch.Tensor, which: str) -> torch.Tensor:
    model = Run(folder).load_model(which)
    with torch.no_grad():
        return model.reconstruct(x) if "reconstruct" in model.provides else model.decode(x)


def test_the_present_version_has_its_golden_runs() -> None:
    """Made by ``tests/golden/make.py`` and committed with a release; small, for they stay for ever."""
    own = [f for f in RUNS if f.parent.name == sandglass.__version__]
    assert {f.name for f in own} >= {"ae", "vae", "gan"}
    for folder in RUNS:
        assert sum(f.stat().st_size for f in folder.rglob("*") if f.is_file()) < 200 * 2**10


@pytest.mark.parametrize("folder", RUNS, ids=lambda f: f"{f.parent.name}-{f.name}")
def test_old_weights_give_the_same_outputs(folder: Path) -> None:
    golden = load_file(folder / "golden.safetensors")
    for which in ("kept", "last"):
        assert (answer(folder, golden["x"], which) - golden["y"]).abs().max() <= 1e-6
    model = load_model(folder / "model")
    name, value = next((n, v) for n, v in model.state_dict().items() if v.is_floating_point())
    with torch.no_grad():
        value.view(-1)[0] += 0.1  # the control: other weights are another answer
        ask = model.reconstruct if "reconstruct" in model.provides else model.decode
        assert (ask(golden["x"]) - golden["y"]).abs().max() > 1e-6, name


@pytest.mark.parametrize("folder", RUNS, ids=lambda f: f"{f.parent.name}-{f.name}")
def test_old_runs_can_be_gone_on_with(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder, tmp_path / "run")
    run = sandglass.resume(tmp_path / "run", epochs=2, progress=Quiet())
    assert run.steps()[-1] == 22 + sum(stage.fit is not None for stage in run.load_model().stages())
    command("verify", str(run.path))


def test_what_a_newer_version_wrote_says_what_it_needs(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(RUNS[0] / "model", folder)
    manifest = {k: v for k, v in storage.read_manifest(folder).items() if k != "seal"}
    newer = {**manifest, "format": storage.FORMAT + 1, "needs": "7.3"}
    (folder / storage.MANIFEST).write_bytes(storage.seal(newer))
    with pytest.raises(CheckpointError, match=r"it needs >= 7\.3, this is"):
        load_model(folder)
    shutil.copytree(RUNS[0], tmp_path / "run")
    config = read_yaml(tmp_path / "run" / "config.yaml")
    (tmp_path / "run" / "config.yaml").write_bytes(to_yaml({**config, "format": 3}))
    with pytest.raises(ConfigError, match="newer Sandglass"):
        Run(tmp_path / "run")


def test_files_of_sandglass_01_give_an_error_with_advice() -> None:
    """Its weights have other names; its settings still train."""
    old = GOLDEN / "0.1.0" / "vae"
    with pytest.raises(ConfigError, match=r"written by Sandglass 0\.1.*train --config .*config\.yaml"):
        Run(old)
    with pytest.raises(CheckpointError, match=r"written by Sandglass 0\.1.*that version"):
        load_model(old / "model")
    command("train", "--config", str(old / "config.yaml"), "--dry-run")

"""Resuming in a new process, with other noise in the air, and with parts of the state taken away."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from helpers import digest, fresh, make_loop, pictures, stop_at
from sandglass.engine import snapshot
from sandglass.engine.loop import Loop
from sandglass.engine.options import SCHEDULES
from sandglass.errors import CheckpointError
from sandglass.runs.run import Checkpoint, Run
from victim import OPTIONS, prepare

VICTIM = [sys.executable, str(Path(__file__).parents[1] / "victim.py")]


def finish(*folders: Path) -> list[str]:
    done = subprocess.run([*VICTIM, "finish", *map(str, folders)], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def test_stops_each_resumed_in_a_new_process(tmp_path: Path) -> None:
    """Each stop is made here, each end in another process, and all ends are those of a third that never stopped."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    folders = [tmp_path / f"stop{k}" for k in (1, 17, 46)]
    for folder in folders:
        loop, _ = prepare(folder)
        stop_at(loop, int(folder.name.removeprefix("stop")), lambda loop=loop: setattr(loop.signals, "stop", 15))
        with pytest.raises(SystemExit):
            loop.fit()
    torch.set_num_threads(threads)
    processes = [finish(folder)[0] for folder in folders]
    assert set(processes) == set(finish(tmp_path / "straight"))


def test_other_seeds_are_other_runs(tmp_path: Path) -> None:
    digests = set()
    for seed in range(3):
        loop, run = prepare(tmp_path / str(seed), seed=seed)
        loop.fit()
        digests.add(digest(loop.model, run))
    assert len(digests) == 3


GAN_OPTIONS = {**OPTIONS, "schedule": "cosine", "epochs": 4}


def _gan(path: Path, optimizer: str = "adam"):  # type: ignore[no-untyped-def]
    data = pictures()
    model = fresh("gan", data, latent_dim=2, net={"name": "conv", "width": 4, "hidden": 8, "norm": "batch"})
    return make_loop(model, data, path, **{**GAN_OPTIONS, "optimizer": optimizer})


@pytest.fixture(scope="module")
def stopped_gan(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    folder = tmp_path_factory.mktemp("gan")
    loop, run = _gan(folder / "straight")
    loop.fit()
    loop_b, _ = _gan(folder / "stopped")
    stop_at(loop_b, 7, lambda: setattr(loop_b.signals, "stop", 15))
    with pytest.raises(SystemExit):
        loop_b.fit()
    return folder / "stopped", digest_all(loop, run)


def digest_all(loop, run) -> str:  # type: ignore[no-untyped-def]
    import hashlib

    h = hashlib.sha256(digest(loop.model, run).encode())
    for file, tensors in sorted(snapshot.tensors(loop.stepper).items()):
        for name, value in sorted(tensors.items()):
            h.update(f"{file}/{name}".encode() + value.numpy().tobytes())
    return h.hexdigest()


def resumed_with(path: Path, checkpoint: Checkpoint, tmp_path: Path) -> str:
    import shutil

    shutil.copytree(path, tmp_path / "copy")
    loop, run = _gan(tmp_path / "copy")
    loop.fit(checkpoint)
    return digest_all(loop, run)


def test_the_whole_state_resumes_exactly(stopped_gan: tuple[Path, str], tmp_path: Path) -> None:
    path, expected = stopped_gan
    checkpoint = _gan(path)[1].latest_checkpoint()[0]
    assert checkpoint is not None
    assert resumed_with(path, checkpoint, tmp_path) == expected


@pytest.mark.parametrize(
    "missing",
    [
        "model/generator.module.0.weight",
        "model/critic.network.1.running_mean",
        "optim/critic/0/exp_avg",
        "optim/critic/0/step",
        "optim/generator/0/exp_avg_sq",
        "ema/critic.network.0.weight",
        "meter/critic/values",
        "state/loop",
        "state/log_bytes",
        "state/meter",
    ],
)
def test_every_part_of_the_state_is_needed(missing: str, stopped_gan: tuple[Path, str], tmp_path: Path) -> None:
    """With one part taken out of a checkpoint, resuming either refuses or ends elsewhere."""
    path, expected = stopped_gan
    checkpoint = _gan(path)[1].latest_checkpoint()[0]
    assert checkpoint is not None
    file, key = missing.split("/", 1)
    tensors = {name: dict(values) for name, values in checkpoint.tensors.items()}
    state = dict(checkpoint.state)
    del (state if file == "state" else tensors[file])[key]
    with contextlib.suppress(CheckpointError, KeyError, RuntimeError):
        assert resumed_with(path, Checkpoint(checkpoint.step, tensors, state), tmp_path) != expected


@pytest.mark.parametrize("optimizer", ["adamw", "sgd", "rmsprop"])
def test_every_optimizer_resumes_exactly(optimizer: str, tmp_path: Path) -> None:
    loop, run = _gan(tmp_path / "straight", optimizer)
    loop.fit()
    expected = digest_all(loop, run)
    loop, _ = _gan(tmp_path / "stopped", optimizer)
    stop_at(loop, 5, lambda: setattr(loop.signals, "stop", 15))
    with pytest.raises(SystemExit):
        loop.fit()
    loop, run = _gan(tmp_path / "stopped", optimizer)
    loop.fit(run.latest_checkpoint()[0])
    assert digest_all(loop, run) == expected


@pytest.mark.parametrize("schedule", sorted({*SCHEDULES} - {"constant"}))
def test_every_schedule_resumes_exactly(schedule: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the learning rate, beside one of beta; stopped at every fifth step and resumed."""
    monkeypatch.setattr("os.fsync", lambda descriptor: None)

    def start(folder: str) -> tuple[Loop, Run]:
        data, beta = pictures(), {"beta_schedule": {"name": "cyclical", "epochs": 4, "cycles": 3, "ramp": "sigmoid"}}
        model = fresh("vae", data, latent_dim=2, net={"name": "mlp", "widths": [8]}, **beta)
        options = {"epochs": 8, "batch_size": 16, "lr": 1.0, "schedule": schedule, "schedule_every": 1, "log_every": 3}
        return make_loop(model, data, tmp_path / folder, **options, lr_warmup=0.5)

    loop, run = start("straight")
    loop.fit()
    expected = digest_all(loop, run)
    rates = {r["value"] for r in run.metrics() if r["term"] == "lr"}
    assert len(rates) > 2
    for step in range(2, loop.total, 5):
        loop, _ = start(f"stop{step}")
        stop_at(loop, step, lambda loop=loop: setattr(loop.signals, "stop", 15))
        with pytest.raises(SystemExit):
            loop.fit()
        loop, run = start(f"stop{step}")
        loop.fit(run.latest_checkpoint()[0])
        assert digest_all(loop, run) == expected, step

"""Damage is noticed and named; the newest checkpoint is the one with the highest step; one process trains at a time."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from helpers import digest, fresh, make_loop, pictures
from sandglass.errors import CheckpointError, ConfigError, LockedError, SaveError
from sandglass.runs import storage
from sandglass.runs.lock import hold
from sandglass.runs.model_folder import load_model
from sandglass.runs.run import Run


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("trained") / "run"
    data = pictures()
    model = fresh("vae", data, latent_dim=2, net={"name": "mlp", "widths": [8]})
    loop, _ = make_loop(model, data, path, epochs=3, batch_size=16, keep=3, ema=0.9)
    loop.fit()
    return path


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> Run:
    shutil.copytree(trained, tmp_path / "run")
    return Run(tmp_path / "run")


def flip(path: Path, bit: int) -> None:
    data = bytearray(path.read_bytes())
    data[bit // 8] ^= 1 << (bit % 8)
    path.write_bytes(bytes(data))


def every_flip_is_noticed(folder: Path, flips: int) -> None:
    chance = random.Random(0)
    files = sorted(folder.iterdir())
    storage.verify_folder(folder)
    for number in range(flips):
        file = files[number % len(files)]
        before = file.read_bytes()
        flip(file, chance.randrange(8 * len(before)))
        with pytest.raises(CheckpointError, match=str(folder)):
            storage.verify_folder(folder)
        file.write_bytes(before)
    storage.verify_folder(folder)


def test_a_model_can_be_read_by_those_who_can_read_its_folder(run: Run) -> None:
    for folder in (run.path / "model", *(run.path / "checkpoints").glob("step-*")):
        for file in folder.iterdir():
            assert file.stat().st_mode & 0o666 == folder.stat().st_mode & 0o666, file


def test_flipped_bits_are_noticed(run: Run) -> None:
    every_flip_is_noticed(run.checkpoint_path(run.steps()[-1]), 200)
    every_flip_is_noticed(run.path / "model", 50)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_thousand_flipped_bits_are_noticed(run: Run) -> None:
    every_flip_is_noticed(run.checkpoint_path(run.steps()[-1]), 1000)


def test_cut_files_are_noticed(run: Run) -> None:
    folder = run.checkpoint_path(run.steps()[-1])
    for name in ("model.safetensors", "optim.safetensors", "state.json", storage.MANIFEST):
        data = (folder / name).read_bytes()
        for percent in range(0, 100, 1):
            (folder / name).write_bytes(data[: len(data) * percent // 100])
            with pytest.raises(CheckpointError):
                run.read_checkpoint(run.steps()[-1])
        (folder / name).write_bytes(data)
    run.read_checkpoint(run.steps()[-1])


def test_a_swapped_added_or_missing_file_is_noticed(run: Run) -> None:
    first, last = run.steps()[0], run.steps()[-1]
    for name in sorted(f.name for f in run.checkpoint_path(last).iterdir()):
        own = (run.checkpoint_path(last) / name).read_bytes()
        shutil.copy(run.checkpoint_path(first) / name, run.checkpoint_path(last) / name)
        if (run.checkpoint_path(last) / name).read_bytes() != own:
            with pytest.raises(CheckpointError):
                run.read_checkpoint(last)
        (run.checkpoint_path(last) / name).unlink()
        with pytest.raises(CheckpointError, match=name):
            run.read_checkpoint(last)
        (run.checkpoint_path(last) / name).write_bytes(own)
    (run.checkpoint_path(last) / "extra").write_text("x")
    with pytest.raises(CheckpointError, match="extra"):
        run.read_checkpoint(last)


def test_a_renamed_checkpoint_is_noticed(run: Run) -> None:
    os.rename(run.checkpoint_path(run.steps()[-1]), run.checkpoint_path(999))
    with pytest.raises(CheckpointError, match="renamed"):
        run.read_checkpoint(999)


def test_the_newest_is_found_by_step_whatever_the_times_say(run: Run) -> None:
    for age, step in enumerate(run.steps()):
        for file in [run.checkpoint_path(step), *run.checkpoint_path(step).iterdir()]:
            os.utime(file, (1e9 - age * 3600, 1e9 - age * 3600))
    (run.path / "checkpoints" / "LAST").write_text("nonsense\n")
    checkpoint, problems = run.latest_checkpoint()
    assert checkpoint is not None and checkpoint.step == max(run.steps()) and not problems


def test_a_damaged_newest_falls_back_and_says_so_and_ends_the_same(run: Run) -> None:
    data = pictures()
    expected = Run(run.path)
    model = fresh("vae", data, latent_dim=2, net={"name": "mlp", "widths": [8]})
    last, _ = expected.latest_checkpoint()
    assert last is not None
    model.load_state_dict(dict(last.tensors["model"]))
    straight = digest(model, expected)
    flip(run.checkpoint_path(run.steps()[-1]) / "optim.safetensors", 12345)
    checkpoint, problems = run.latest_checkpoint()
    assert checkpoint is not None and checkpoint.step == run.steps()[-2]
    assert len(problems) == 1 and "optim.safetensors" in problems[0]
    fresh_model = fresh("vae", data, latent_dim=2, net={"name": "mlp", "widths": [8]})
    loop, again = make_loop(fresh_model, data, run.path, epochs=3, batch_size=16, keep=3, ema=0.9)
    loop.fit(checkpoint)
    assert digest(loop.model, again) == straight


def test_weights_that_are_not_finite_or_do_not_fit_are_refused(run: Run) -> None:
    import json

    from safetensors.torch import load_file, save_file

    def rewrite(change: object) -> None:
        tensors = load_file(run.path / "model" / "model.safetensors")
        change(tensors)  # type: ignore[operator]
        files: dict[str, storage.Content] = {
            name: (run.path / "model" / name).read_bytes() for name in ("config.json", "README.md")
        }
        files["model.safetensors"] = lambda path: save_file(tensors, path)
        storage.write_folder(run.path / "model", files, {})

    name = "q.trunk.module.1.weight"
    rewrite(lambda t: t[name].view(-1)[0].fill_(float("nan")))
    with pytest.raises(CheckpointError, match=f"{name}.*not finite"):
        load_model(run.path / "model")
    rewrite(lambda t: t.update({name: torch.zeros(3, 3)}))
    with pytest.raises(CheckpointError, match=f"{name}.*shape"):
        load_model(run.path / "model")
    rewrite(lambda t: t.pop(name))
    with pytest.raises(CheckpointError, match=f"{name}.*missing"):
        load_model(run.path / "model")
    config = json.loads((run.path / "model" / "config.json").read_text())
    assert config["model"]["name"] == "vae"


def test_a_configuration_cannot_name_code(run: Run) -> None:
    import json

    before = set(sys.modules)
    for evil in ("os.system", "builtins.eval", "sandglass.models.vae.VAE", "../vae", "http://x/y"):
        config = json.loads((run.path / "model" / "config.json").read_text())
        config["model"]["name"] = evil
        files: dict[str, storage.Content] = {
            name: (run.path / "model" / name).read_bytes() for name in ("model.safetensors", "README.md")
        }
        storage.write_folder(run.path / "model", {**files, "config.json": json.dumps(config).encode()}, {})
        with pytest.raises(ConfigError, match="There is no model"):
            load_model(run.path / "model")
    assert not {m for m in set(sys.modules) - before if not m.startswith(("sandglass", "importlib"))}


def test_a_format_from_the_future_is_refused(run: Run) -> None:
    folder = run.path / "model"
    manifest = storage.read_manifest(folder)
    del manifest["seal"]
    (folder / storage.MANIFEST).write_bytes(storage.seal({**manifest, "format": storage.FORMAT + 1}))
    with pytest.raises(CheckpointError, match="newer Sandglass"):
        load_model(folder)


def test_one_process_at_a_time(tmp_path: Path) -> None:
    with hold(tmp_path / "run"), pytest.raises(LockedError, match=f"process {os.getpid()}"), hold(tmp_path / "run"):
        pass
    with hold(tmp_path / "run"):
        pass


def race(tmp_path: Path, rounds: int) -> None:
    victim = [sys.executable, str(Path(__file__).parents[1] / "victim.py"), "train"]
    for number in range(rounds):
        command = [*victim, str(tmp_path / str(number))]
        both = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(2)]
        results = [p.communicate(timeout=120) for p in both]
        trained = [out for out, _ in results if "done" in out]
        refused = [err for _, err in results if "LockedError" in err or "already exists" in err]
        assert len(trained) == 1 and len(refused) == 1, results
        checkpoint, problems = Run(tmp_path / str(number)).latest_checkpoint()
        assert checkpoint is not None and not problems


def test_of_two_at_once_one_trains(tmp_path: Path) -> None:
    race(tmp_path, 1)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_of_two_at_once_one_trains_twenty_times(tmp_path: Path) -> None:
    race(tmp_path, 20)


def test_a_full_disk_keeps_what_was_there(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every write, in turn, fails as on a full disk; the old folder verifies after each."""
    real, steps = storage._write, run.steps()

    for fail_at in range(1, 6):
        calls = 0

        def write(path: Path, content: storage.Content, fail_at: int = fail_at) -> None:
            nonlocal calls
            calls += 1
            if calls == fail_at:
                path.write_bytes(b"half")
                raise OSError(28, "No space left on device")
            real(path, content)

        monkeypatch.setattr(storage, "_write", write)
        checkpoint = run.read_checkpoint(steps[-1])
        if fail_at <= len(checkpoint.tensors) + 2:
            with pytest.raises(SaveError, match=r"No space left.*MiB free"):
                run.save_checkpoint(steps[-1], checkpoint.tensors, {}, {})
        monkeypatch.setattr(storage, "_write", real)
        run.read_checkpoint(steps[-1])
        assert not [f for f in (run.path / "checkpoints").iterdir() if f.name.startswith(".")]


def test_the_order_of_writing_survives_a_power_cut(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every file is flushed before the rename, and the folder after it; the manifest is written last."""
    order: list[str] = []
    fsync, rename = os.fsync, os.rename
    monkeypatch.setattr(os, "fsync", lambda fd: (order.append("sync " + os.readlink(f"/proc/self/fd/{fd}")), fsync(fd)))
    monkeypatch.setattr(os, "rename", lambda a, b: (order.append("rename"), rename(a, b)))
    if not Path("/proc/self/fd").exists():
        pytest.skip("no /proc to name open files by")
    storage.write_folder(tmp_path / "x", {"a": b"1", "b": b"2"}, {})
    names = [line.split("/")[-1] for line in order]
    assert names[:3] == ["a", "b", storage.MANIFEST]
    assert order.index("rename") == 4 and order[-1] == f"sync {tmp_path}"


def test_retention_keeps_the_best_and_the_newest(tmp_path: Path) -> None:
    data = pictures(n=40)
    options = {"epochs": 200, "batch_size": 20, "lr": 0.05, "early_stopping": 3, "keep": 2}
    loop, run = make_loop(fresh("vae", data, net="mlp", latent_dim=2), data, tmp_path / "run", **options)
    loop.fit()
    best = loop.now.best_step
    assert best is not None and best < run.steps()[-2]
    assert run.steps() == [best, best + 4, best + 6]
    assert run.pointed("BEST") == best and run.pointed("LAST") == best + 6
    kept, checkpoint = run.load_model(), run.read_checkpoint(best)
    for key, value in kept.state_dict().items():
        assert torch.equal(value, checkpoint.tensors["model"][key])

"""Killed without warning at random moments, nothing that was saved is lost, and the end is the same to the bit."""

from __future__ import annotations

import random
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from sandglass.runs.run import Run

VICTIM = [sys.executable, str(Path(__file__).parents[1] / "victim.py")]

NAIVE = """
import os, sys
data = os.urandom(20_000_000)
print("ready", flush=True)
while True:
    with open(sys.argv[1], "wb") as file:
        for i in range(0, len(data), 100_000):
            file.write(data[i:i + 100_000])
"""


def kill_after(command: list[str], seconds: float) -> list[str]:
    """Starts a process, waits for its first line, kills it some time later; the lines it wrote."""
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    first = process.stdout.readline()
    time.sleep(seconds)
    process.send_signal(signal.SIGKILL)
    rest, _ = process.communicate(timeout=60)
    return [first.strip(), *rest.split()]


def survive(folder: Path, kills: int, seed: int) -> None:
    chance = random.Random(seed)
    expected = subprocess.run(
        [*VICTIM, "finish", str(folder / "straight")], capture_output=True, text=True, check=True, timeout=120
    ).stdout.split()[-1]
    folders = [folder / f"kill{i}" for i in range(kills)]
    interrupted = 0
    for path in folders:
        lines = kill_after([*VICTIM, "train", str(path)], chance.uniform(0.0, 1.2))
        saved = [int(line) for line in lines if line.isdigit()]
        interrupted += "done" not in lines
        if saved:
            newest, problems = Run(path).latest_checkpoint()
            assert not problems, "a finished-looking checkpoint does not verify"
            assert newest is not None and newest.step >= saved[-1], "an acknowledged checkpoint is lost"
    assert interrupted, "no process was killed before its end; the test shows nothing"
    finished = subprocess.run(
        [*VICTIM, "finish", *map(str, folders)], capture_output=True, text=True, check=True, timeout=60 + 20 * kills
    ).stdout.split()
    assert finished == [expected] * kills
    for path in folders:
        assert not [f.name for f in (path / "checkpoints").iterdir() if f.name.startswith(".")]


def test_kills_lose_nothing(tmp_path: Path) -> None:
    survive(tmp_path, kills=3, seed=0)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_fifty_kills_lose_nothing(tmp_path: Path) -> None:
    survive(tmp_path, kills=50, seed=1)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_kills_with_the_temporary_folder_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if not Path("/dev/shm").is_dir():
        pytest.skip("no second file system to point TMPDIR at")
    monkeypatch.setenv("TMPDIR", "/dev/shm")
    survive(tmp_path, kills=10, seed=2)


def test_killed_in_its_second_stage_a_run_ends_the_same(tmp_path: Path) -> None:
    """Kills the training of a VQ-VAE in the first, second and later steps of its prior."""
    straight = subprocess.run(
        [*VICTIM, "finish", str(tmp_path / "vq-vae-straight")], capture_output=True, text=True, check=True, timeout=120
    ).stdout.split()
    border = next(r["step"] for r in Run(tmp_path / "vq-vae-straight").metrics() if r["stage"] == "prior")
    folders = [tmp_path / f"vq-vae-{more}" for more in (0, 1, 5)]
    for more, path in zip((0, 1, 5), folders, strict=True):
        process = subprocess.Popen([*VICTIM, "train", str(path)], stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        while not (line := process.stdout.readline().strip()).isdigit() or int(line) < border + more:
            assert line, "it ended before it could be killed"
        process.kill()
        process.communicate(timeout=60)
        newest, problems = Run(path).latest_checkpoint()
        assert not problems and newest is not None and newest.step >= border + more
        assert newest.state["loop"]["stage"] == "prior"
    finished = subprocess.run(
        [*VICTIM, "finish", *map(str, folders)], capture_output=True, text=True, check=True, timeout=240
    ).stdout.split()
    assert finished == straight * 3


def test_the_naive_save_does_lose_its_file(tmp_path: Path) -> None:
    """The control: written in place, the only copy is cut in at least one of five kills."""
    chance = random.Random(0)
    cut = 0
    for i in range(5):
        path = tmp_path / str(i)
        kill_after([sys.executable, "-c", NAIVE, str(path)], chance.uniform(0.05, 0.3))
        cut += path.stat().st_size != 20_000_000
    assert cut > 0


def test_nothing_is_written_outside_its_own_folder() -> None:
    """A temporary file on another file system cannot be renamed into place as one act."""
    source = Path(__file__).parents[2] / "src" / "sandglass" / "runs"
    for name in ("storage.py", "run.py"):
        assert not re.search(r"^\s*(import|from) tempfile", (source / name).read_text(), re.MULTILINE)

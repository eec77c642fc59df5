"""The command as a scheduler and a person at a keyboard stop it."""

from __future__ import annotations

import contextlib
import os
import pty
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from sandglass.runs.run import Run

TRAIN = [sys.executable, "-m", "sandglass", "train", "vae", "--data", "digits", "--net", "mlp", "--epochs", "100000"]


def started(out: Path, **where: object) -> subprocess.Popen[bytes]:
    """A training that has saved at least once."""
    process = subprocess.Popen([*TRAIN, "--out", str(out)], **where)  # type: ignore[call-overload]
    for _ in range(600):
        if (out / "checkpoints" / "LAST").exists():
            return process  # type: ignore[no-any-return]
        assert process.poll() is None, "training ended by itself"
        time.sleep(0.1)
    raise AssertionError("nothing was saved within a minute")


def test_sigterm_ends_with_143_and_a_checkpoint_of_that_step(tmp_path: Path) -> None:
    process = started(tmp_path / "run", stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 143
    assert b"Traceback" not in err and b"--resume" in err
    run = Run(tmp_path / "run")
    checkpoint, problems = run.latest_checkpoint()
    assert checkpoint is not None and not problems
    assert f"Stopped at step {checkpoint.step} " in err.decode()


@pytest.mark.parametrize("times", [1, 2])
def test_ctrl_c_at_a_terminal_ends_with_130_and_no_traceback(times: int, tmp_path: Path) -> None:
    keyboard, terminal = pty.openpty()
    process = started(tmp_path / "run", stdin=terminal, stdout=terminal, stderr=terminal, start_new_session=True)
    for _ in range(times):
        process.send_signal(signal.SIGINT)
    shown = b""
    os.set_blocking(keyboard, False)
    for _ in range(600):
        with contextlib.suppress(BlockingIOError, OSError):
            shown += os.read(keyboard, 65536)
        if process.poll() is not None:
            break
        time.sleep(0.1)
    assert process.returncode == 130
    assert b"Traceback" not in shown
    checkpoint, problems = Run(tmp_path / "run").latest_checkpoint()
    assert checkpoint is not None and not problems

"""Whatever is done to the bytes of a file, reading it ends with an error of ours or with what it holds."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[1] / "fuzz.py"


def survive(folder: Path, count: int, seed: int) -> None:
    words = [sys.executable, "-W", "ignore", str(SCRIPT), str(folder), str(count), str(seed)]
    done = subprocess.run(words, capture_output=True, text=True, timeout=1500)
    lines = [line.split("\t") for line in done.stdout.splitlines()]
    assert done.returncode == 0 and lines[-1][0] == "all", done.stderr[-3000:]  # a crash or a hang ends it before
    assert lines[:-1] == []
    ends = json.loads(lines[-1][1])
    assert ends["read"] + ends["refused"] == count
    assert min(ends.values()) > count / 20, "nothing was damaged, or everything beyond being looked at"


def test_five_hundred_damaged_files(tmp_path: Path) -> None:
    survive(tmp_path, 500, seed=0)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_ten_thousand_damaged_files(tmp_path: Path) -> None:
    survive(tmp_path, 10_000, seed=1)


def test_the_check_sees_what_is_not_ours() -> None:
    """The control: a reader without care ends otherwise."""
    from offer import outcome

    def careless() -> None:
        json.loads(b"{")["model"]

    assert outcome(careless).startswith("JSONDecodeError")

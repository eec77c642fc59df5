"""Small files that ask for much are refused for little memory, and what would take more could not have it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[1] / "bombs.py"
SOME = (
    "header-of-objects", "shape-2-60", "shape-that-wraps", "shape-10-12", "length-2-63", "json-deep", "config-widths",
    "config-latent", "config-stages", "spec-1000000x1000000x1000000", "pixels.png", "shape.npy", "wide.npy",
    "shape.npz", "zeros.npz", "large.yaml",
)  # fmt: skip


def reading(folder: Path, *names: str) -> dict[str, tuple[int, str, int]]:
    """Name to size, what came of it and the peak of memory."""
    if not Path("/proc/self/clear_refs").exists():
        pytest.skip("the peak of memory is not to be had here")
    words = [sys.executable, str(SCRIPT), str(folder), *names]
    done = subprocess.run(words, capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stderr
    lines = [line.split("\t") for line in done.stdout.splitlines()]
    return {name: (int(size), came, int(peak)) for name, size, came, peak, _ in lines}


def little_is_taken(folder: Path, *names: str) -> None:
    found = reading(folder, *names)
    size, _, peak = found.pop("careless")
    assert peak > 2 * size + 200 * 2**20, "the control takes too little to show anything"
    assert len(found) >= max(len(names), 30 if not names else 0)
    assert [(name, came) for name, (_, came, _) in found.items() if came != "refused"] == []
    assert [(name, peak) for name, (size, _, peak) in found.items() if peak > 2 * size + 200 * 2**20] == []


def test_bombs_are_refused_for_little(tmp_path: Path) -> None:
    little_is_taken(tmp_path, *SOME)


@pytest.mark.slow
def test_all_bombs_are_refused_for_little(tmp_path: Path) -> None:
    little_is_taken(tmp_path)

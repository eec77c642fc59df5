"""What every test has: one thread a process, a cache of its own, and no network."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

# Set before PyTorch is loaded: the tests run in several processes, which would fight for the cores.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("MPLBACKEND", "agg")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests that share a fixture of their file go to one process, so that it is made once."""
    for item in items:
        fixtures = getattr(item, "_fixtureinfo", None)
        made = [d for found in fixtures.name2fixturedefs.values() for d in found] if fixtures is not None else []
        if any(d.scope in ("module", "session") and d.baseid.endswith(".py") for d in made):
            item.add_marker(pytest.mark.xdist_group(item.path.stem))


@pytest.fixture(autouse=True)
def _apart(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Nothing of the person who runs the tests is read, and nothing outside this machine is asked."""
    monkeypatch.setenv("SANDGLASS_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    connect = socket.socket.connect

    def only_here(self: socket.socket, address: Any) -> None:
        if self.family in (socket.AF_INET, socket.AF_INET6) and address[0] not in ("127.0.0.1", "::1", "localhost"):
            raise OSError(f"a test asked the network for {address[0]}")
        connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", only_here)


@pytest.fixture
def cli(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., tuple[int, str, str]]:
    """Runs a command in an empty folder: exit code, standard output, standard error."""
    from sandglass.app.main import main

    monkeypatch.chdir(tmp_path)

    def call(*words: str | Path) -> tuple[int, str, str]:
        capsys.readouterr()
        code = main([str(w) for w in words])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return call


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """A folder of 40 small colour pictures of different sizes, in two class folders."""
    import numpy as np
    from PIL import Image

    random = np.random.default_rng(0)
    for number in range(40):
        folder = tmp_path / "photos" / ("round" if number % 2 else "square")
        folder.mkdir(parents=True, exist_ok=True)
        height, width = 24 + number % 5, 30 + number % 7
        rows, columns = np.mgrid[:height, :width]
        inside = (
            (rows - height / 2) ** 2 + (columns - width / 2) ** 2 < (height / 3) ** 2
            if number % 2
            else (abs(rows - height / 2) < height / 4) & (abs(columns - width / 2) < height / 4)
        )
        colours = random.integers(0, 256, (2, 3))
        Image.fromarray(np.where(inside[..., None], *colours).astype(np.uint8)).save(folder / f"{number:02}.png")
    return tmp_path / "photos"

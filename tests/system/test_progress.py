"""What is seen while training: a bar in a terminal, a line in a notebook, nothing in a pipe."""

from __future__ import annotations

import sys
import types
from pathlib import Path

import pytest

from helpers import fresh, make_loop, pictures
from sandglass.engine.progress import Bar, Line, Silent, default_progress


def train(path: Path, progress: Silent) -> None:
    data = pictures()
    loop, _ = make_loop(fresh("vae", data, net="mlp"), data, path, epochs=2, batch_size=16, progress=progress)
    loop.fit()


def test_where_it_is_seen_decides(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: False, raising=False)
    assert type(default_progress()) is Silent
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    assert type(default_progress()) is Bar
    monkeypatch.setitem(sys.modules, "ipykernel", types.ModuleType("ipykernel"))
    assert type(default_progress()) is Line


def test_a_pipe_hears_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train(tmp_path / "run", Silent())
    assert capsys.readouterr() == ("", "")


def test_a_notebook_sees_one_line_with_terms_rate_and_time_left(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train(tmp_path / "run", Line())
    out = capsys.readouterr().out
    last = out.strip().split("\r")[-1]
    assert last.startswith("epoch 2/2  ") and "/s  ETA 00:00" in last
    assert "train loss" in last and "rate" in last and "validation" in last
    assert out.count("\n") == 1


def test_a_terminal_sees_a_bar_in_80_columns(tmp_path: Path) -> None:
    import io

    from rich.console import Console

    bar = Bar()
    screen = io.StringIO()
    bar.bar.live.console = Console(file=screen, force_terminal=True, width=80)
    train(tmp_path / "run", bar)  # type: ignore[arg-type]
    shown = screen.getvalue()
    assert "epoch 2/2" in shown and "ETA" in shown and "train loss" in shown and "/s" in shown

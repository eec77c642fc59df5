"""What is seen while training: a bar in a terminal, one line in a notebook, a line now and then in a pipe."""

from __future__ import annotations

import sys
import types
from pathlib import Path

import pytest

from helpers import fresh, make_loop, pictures
from sandglass.engine.progress import Bar, Line, Lines, Silent, default_progress


def train(path: Path, progress: Silent) -> None:
    data = pictures()
    loop, _ = make_loop(fresh("vae", data, net="mlp"), data, path, epochs=2, batch_size=16, progress=progress)
    loop.fit()


def test_where_it_is_seen_decides(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: False, raising=False)
    assert type(default_progress()) is Lines
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    assert type(default_progress()) is Bar
    monkeypatch.setitem(sys.modules, "ipykernel", types.ModuleType("ipykernel"))
    assert type(default_progress()) is Line


def test_silence_is_silent(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train(tmp_path / "run", Silent())
    assert capsys.readouterr() == ("", "")


def lines_of(seconds: float, steps: int, capsys: pytest.CaptureFixture[str]) -> list[str]:
    """The lines in a pipe, of a run of so many steps, each of some seconds."""
    now = [0.0]
    lines = Lines(clock=lambda: now[0])
    lines.start(0, steps, 10)
    lines.show("train", {"loss": 12.345, "rate": 3.0})
    lines.show("validation", {"loss": 20.0, "objective": 11.0})
    for step in range(1, steps + 1):
        now[0] += seconds
        lines.drawn(Path(f"run/figures/progress/samples-{step:08d}.png"))
        lines.advance(step, 16)
    lines.stop()
    out, err = capsys.readouterr()
    assert out == "" and "\r" not in err and "\x1b" not in err
    return err.splitlines()


def test_a_short_run_in_a_pipe_prints_little(capsys: pytest.CaptureFixture[str]) -> None:
    assert lines_of(0.01, 900, capsys) == []
    assert len(lines_of(0.25, 100, capsys)) <= 2


def test_a_long_run_in_a_pipe_prints_a_line_now_and_then(capsys: pytest.CaptureFixture[str]) -> None:
    lines = lines_of(1.0, 400, capsys)
    assert len(lines) == 20 and [line.split("  ")[2] for line in lines[:3]] == ["5%", "10%", "15%"]
    assert lines[0] == (
        "epoch 2/40  step 20/400  5%  train loss 12.35  validation objective 11  6:20 left  "
        "run/figures/progress/samples-00000020.png"
    )
    assert 100 <= len(lines_of(1.0, 3600, capsys)) <= 140


def test_a_training_in_a_pipe_prints_lines(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ticks = iter(range(10**6))
    train(tmp_path / "run", Lines(clock=lambda: 15.0 * next(ticks)))
    err = capsys.readouterr().err.splitlines()
    assert "step 8/8  100%" in err[-1] and "validation objective" in err[-1] and "figures/progress" in err[-1]


def test_a_notebook_sees_one_line_with_terms_rate_and_time_left(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train(tmp_path / "run", Line())
    out = capsys.readouterr().out
    last = out.strip().split("\r")[-1]
    assert last.startswith("epoch 2/2  ") and "/s  ETA 0:00" in last
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

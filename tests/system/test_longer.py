"""A run that stopped early goes on when it is asked to, and says what it does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import sandglass
from helpers import Quiet, digest, fresh, pictures
from sandglass.engine.options import Settled
from sandglass.engine.resume import finished
from sandglass.errors import ConfigError
from sandglass.runs.run import Run

SMALL: dict[str, Any] = {
    "batch_size": 20, "lr": 0.1, "threads": 1, "sheets": 0, "device": "cpu", "precision": "fp32"
}  # fmt: skip


def start(path: Path, **options: Any) -> Run:
    data = pictures(40)
    model = fresh("vae", data, net={"name": "mlp", "widths": [8]}, latent_dim=2)
    return sandglass.train(model, data, out=path, **{**SMALL, "epochs": 60, "early_stopping": 2, **options})


def go_on(path: Path, **options: Any) -> tuple[Run, list[str]]:
    quiet = Quiet()
    return sandglass.resume(path, data=pictures(40), progress=quiet, **options), quiet.said


def ended(run: Run) -> tuple[Any, ...]:
    """The weights and log of a run, and where it ended."""
    checkpoint = run.latest_checkpoint()[0]
    assert checkpoint is not None
    state = {k: v for k, v in checkpoint.state["loop"].items() if k != "seconds"}
    return digest(run.load_model("last"), run), digest(run.load_model(), run), state


def epochs(run: Run) -> int:
    return run.steps()[-1] // 2


@pytest.fixture
def stopped(tmp_path: Path) -> Run:
    run = start(tmp_path / "run")
    assert epochs(run) < 40 and finished(run)
    return run


def test_more_patience_is_the_same_as_from_the_start(stopped: Run, tmp_path: Path) -> None:
    run, said = go_on(stopped.path, early_stopping=9)
    assert ended(run) == ended(start(tmp_path / "patient", early_stopping=9))
    assert run.config["training"]["early_stopping"] == 9
    assert [line for line in said if "stop" in line] == [
        "The stage 'train' stops early after 9 epochs without improvement instead of 2.",
        "It had stopped early, and goes on.",
    ]
    assert not any("bits may differ" in line for line in said)


def test_without_early_stopping_it_goes_to_its_last_epoch(stopped: Run, tmp_path: Path) -> None:
    run, said = go_on(stopped.path, early_stopping=0)
    assert epochs(run) == 60 and "no longer stops early; it did after 2 epochs" in "".join(said)
    assert ended(run) == ended(start(tmp_path / "straight", early_stopping=0))


@pytest.mark.parametrize("more", [60, 61, 90])
def test_with_epochs_it_goes_on_and_is_patient_anew(more: int, stopped: Run) -> None:
    before = epochs(stopped)
    run, said = go_on(stopped.path, epochs=more)
    assert epochs(run) >= before + 2, "it was given no new epochs"
    assert "It had stopped early, and goes on, and stops again after 2 epochs without improvement." in said
    assert finished(run)


def test_a_crash_after_going_on_does_not_undo_it(stopped: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was decided is on disk before the first new step."""
    from sandglass.engine.loop import Loop

    def crash(self: Loop) -> None:
        raise MemoryError

    before = epochs(stopped)
    with monkeypatch.context() as m, pytest.raises(MemoryError):
        m.setattr(Loop, "step", crash)
        go_on(stopped.path, epochs=90)
    run, _ = go_on(stopped.path)
    assert epochs(run) >= before + 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"early_stopping": 1}, "stops after 2 epochs without improvement: .*raised, or switched off"),
        ({"epochs": 30}, "has 60 epochs: .*only have more, not 30; .*goes on with --early-stopping 0"),
        ({"stage": {"train": {"lr": 0.1}}}, "of the stage 'train' only epochs and early_stopping can be given, not lr"),
        ({"stage": {"foo": {"epochs": 90}}}, "trains no stage 'foo'. It trains: train"),
    ],
)
def test_what_would_change_the_past_is_refused(options: dict[str, Any], message: str, stopped: Run) -> None:
    before = {f: f.read_bytes() for f in stopped.path.rglob("*") if f.is_file()}
    with pytest.raises(ConfigError, match=message):
        go_on(stopped.path, **options)
    assert {f: f.read_bytes() for f in stopped.path.rglob("*") if f.is_file()} == before


def test_early_stopping_does_not_begin_in_a_resumed_run(tmp_path: Path) -> None:
    run = start(tmp_path / "run", early_stopping=0, epochs=2)
    with pytest.raises(ConfigError, match="'train' does not stop early: in a resumed run"):
        go_on(run.path, early_stopping=3)


STAGES: dict[str, Any] = {"stage": {"prior": {"epochs": 30, "lr": 0.5}}}


def staged(path: Path, **options: Any) -> Run:
    data = pictures(40)
    model = fresh("vq-vae", data, net={"name": "mlp", "widths": [8]}, codes=4)
    return sandglass.train(model, data, out=path, **{**SMALL, "epochs": 30, "early_stopping": 2, **STAGES, **options})


def test_patience_is_that_of_the_stage_that_was_reached(tmp_path: Path) -> None:
    """The first one, which had stopped early too, stays what it was; the configuration repeats the run."""
    run = staged(tmp_path / "run")
    first = next(r["step"] for r in run.metrics() if r["stage"] == "prior") - 2
    run, _ = go_on(run.path, early_stopping=8)
    training = run.config["training"]
    assert training["early_stopping"] == 2 and training["stage"]["prior"]["early_stopping"] == 8
    assert ended(run) == ended(staged(tmp_path / "again", stage=training["stage"]))
    assert first < 60


def test_patience_of_one_stage(tmp_path: Path) -> None:
    run = staged(tmp_path / "run")
    run, said = go_on(run.path, stage={"prior": {"early_stopping": 0}})
    assert run.config["training"]["stage"]["prior"]["early_stopping"] == 0
    last = run.latest_checkpoint()[0]
    assert last is not None and last.state["loop"]["step"] == 60
    assert any("'prior' no longer stops early" in line for line in said)


@pytest.mark.parametrize("own", [{}, {"prior": {"max_steps": 2}}])
def test_more_epochs_of_one_stage_leave_the_limits_of_the_others(own: dict[str, Any], tmp_path: Path) -> None:
    """``max_steps`` of the run is that of each of its stages."""
    run = staged(
        tmp_path / "run",
        epochs=4,
        early_stopping=0,
        max_steps=4,
        stage={"prior": {"epochs": 4, **own.get("prior", {})}},
    )
    limited = Settled.of(run.config["training"]).of_stage("codes").max_steps
    run, _ = go_on(run.path, stage={"prior": {"epochs": 5}})
    training = Settled.of(run.config["training"])
    assert training.of_stage("codes").max_steps == limited == 4
    assert training.of_stage("prior").max_steps is None and training.of_stage("prior").epochs == 5
    last = run.latest_checkpoint()[0]
    assert last is not None and last.state["loop"]["step"] == 10 and finished(run)
    assert ended(run) == ended(
        staged(tmp_path / "again", early_stopping=0, epochs=4, max_steps=4, stage=training.stage)
    )

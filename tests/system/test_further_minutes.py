"""A run that goes on for further minutes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from test_minutes import NET, QUANTISED, Stepping, plan_of, train

import sandglass
from helpers import Quiet, digest, fresh, make_loop, pictures
from sandglass.engine.budget import Budget
from sandglass.engine.resume import finished
from sandglass.errors import ConfigError
from sandglass.runs.run import Run


def further(path: Path, run: Run, minutes: float, **options: Any) -> tuple[Run, list[str]]:
    said = Quiet()
    return sandglass.resume(run.path, data=pictures(), minutes=minutes, progress=said, **options), said.said


def test_what_was_trained_before_is_not_of_the_further_minutes() -> None:
    plan = {"minutes": 1, "planning": 2.0, "shares": {"train": 1.0}, "seconds": {}, "before": 100.0}
    budget = Budget.of(plan)
    assert budget is not None and budget.text == "1 further minute"
    assert budget.used(130.0) == 32.0  # 30 seconds since then, and 2 of planning


@pytest.mark.parametrize("options", [{"epochs": 2}, {"epochs": 2, "schedule": "cosine"}, {"minutes": 0.005}])
def test_a_run_goes_on_for_further_minutes_and_ends_on_time(options: dict[str, Any], tmp_path: Path) -> None:
    run = train(tmp_path / "run", **options)
    before = run.steps()[-1]
    run, said = further(tmp_path, run, 0.05)
    assert run.steps()[-1] > before and finished(run)
    assert any(text.startswith("0.05 further minutes: batch ") for text in said)
    assert any(text.startswith("Trained for 0.0") and "of 0.05 further minutes" in text for text in said)
    assert run.config["plan"]["before"] > 0


def test_what_further_minutes_decided_can_be_repeated(tmp_path: Path) -> None:
    run, _ = further(tmp_path, train(tmp_path / "run", epochs=2), 0.02)
    given = ("threads", "device", "sheets", "minutes")
    again = train(tmp_path / "again", **{k: v for k, v in run.config["training"].items() if k not in given})
    assert digest(run.load_model(), run) == digest(again.load_model(), again)


def test_an_interrupted_run_of_further_minutes_has_the_rest_of_them(tmp_path: Path) -> None:
    run, _ = further(tmp_path, train(tmp_path / "run", epochs=2), 0.02)
    said = Quiet()
    sandglass.resume(run.path, data=pictures(), progress=said)
    (left,) = [text for text in said.said if "are left" in text]
    assert left.endswith(" of 0.02 further minutes are left.") and 0 <= float(left.split()[0]) <= 0.02


def test_a_stage_that_stopped_early_goes_on_for_further_minutes(tmp_path: Path) -> None:
    run = train(tmp_path / "run", epochs=80, early_stopping=1, lr=0.1)
    before = run.steps()[-1]
    run, said = further(tmp_path, run, 0.02, early_stopping=0)
    assert run.steps()[-1] > before and any("It had stopped early, and goes on" in text for text in said)


@pytest.mark.parametrize("name", ["ae", "vq-vae"])
def test_further_minutes_are_for_the_stage_that_was_reached(name: str, tmp_path: Path) -> None:
    """A fit in closed form that came after it is made anew."""
    data, small = pictures(), QUANTISED if name == "vq-vae" else {"latent_dim": 2, "net": NET}
    common: dict[str, Any] = {"threads": 1, "device": "cpu", "sheets": 0, "progress": Quiet()}
    stage = {"stage": {"prior": {"epochs": 2}}} if name == "vq-vae" else {}
    run = sandglass.train(fresh(name, data, **small), data, out=tmp_path / "run", epochs=2, **stage, **common)
    first = run.config["training"]["epochs"]
    run, said = further(tmp_path, run, 0.02)
    training = run.config["training"]
    (line,) = [text for text in said if text.startswith("The stage")]
    assert finished(run) and line.startswith(f"The stage '{'prior' if name == 'vq-vae' else 'train'}' is given ")
    assert (training["epochs"] > first) == (name == "ae")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"minutes": 0}, "minutes must be a finite number above 0, not 0"),
        ({"minutes": float("nan")}, "minutes must be a finite number above 0, not nan"),
        ({"minutes": 1, "epochs": 9}, "length of training once"),
        ({"minutes": 1, "stage": {"train": {"epochs": 9}}}, "length of training once"),
    ],
)
def test_further_minutes_that_are_refused(options: dict[str, Any], message: str, tmp_path: Path) -> None:
    run = train(tmp_path / "run", epochs=1)
    before = {f: f.read_bytes() for f in run.path.rglob("*") if f.is_file()}
    with pytest.raises(ConfigError, match=message):
        sandglass.resume(run.path, data=pictures(), progress=Quiet(), **options)
    assert {f: f.read_bytes() for f in run.path.rglob("*") if f.is_file()} == before


def test_the_time_left_is_at_most_that_until_the_deadline(tmp_path: Path) -> None:
    class Kept(Quiet):
        begun: float | None = None

        def start(self, step: int, total: int, steps_per_epoch: int, stage: str = "", seconds: Any = None) -> None:
            self.begun = self.begun or seconds

    for plan, expected in ((plan_of(1.0, "train"), 60.0), (None, None)):
        data, shown, clock = pictures(), Kept(), Stepping(9.0)
        model = fresh("vae", data, latent_dim=2, net=NET)
        loop, _ = make_loop(model, data, tmp_path / str(expected), plan=plan, clock=clock, progress=shown, epochs=1)
        clock.drive(loop)
        loop.fit()
        assert shown.begun == expected

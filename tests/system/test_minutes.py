"""Training for a given time: the plan, the deadline, and that what the clock decided can be repeated."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

import sandglass
from helpers import Quiet, digest, fresh, make_loop, pictures, stop_at
from sandglass.core import Model
from sandglass.engine.loop import Loop
from sandglass.engine.options import Settled, Training
from sandglass.engine.planning import (
    Plan,
    choose_batch,
    epochs_in,
    free_width,
    make_plan,
    narrower,
    shares_of,
    wider,
)
from sandglass.engine.resume import finished
from sandglass.engine.timing import Cost
from sandglass.errors import ConfigError
from sandglass.runs.run import Run

NET = {"name": "mlp", "widths": [8]}
QUANTISED = {"net": {"name": "conv", "width": 4, "hidden": 8}, "codebook_size": 8, "code_dim": 2, "prior_width": 8}


class Ticking:
    """A clock that moves with every reading."""

    def __init__(self, tick: float) -> None:
        self.tick, self.now = tick, 0.0

    def __call__(self) -> float:
        self.now += self.tick
        return self.now


class Stepping:
    """A clock that moves by a step of training, and by nothing else."""

    def __init__(self, seconds: float) -> None:
        self.seconds, self.now = seconds, 0.0

    def __call__(self) -> float:
        return self.now

    def drive(self, loop: Loop) -> None:
        answer = loop.answer_deadline

        def stepping() -> None:
            self.now += self.seconds
            answer()

        loop.answer_deadline = stepping  # type: ignore[method-assign]


def plan_of(minutes: float, *stages: str) -> dict[str, Any]:
    return {"minutes": minutes, "planning": 0.0, "shares": shares_of(stages or ("train",)), "seconds": {}}


def timed(path: Path, seconds: float, minutes: float = 1.0, name: str = "vae", **options: Any) -> tuple[Loop, Run]:
    """A run of 50 pictures in batches of 16, four steps an epoch, each of which takes some seconds."""
    data = pictures()
    stages = ("codes", "prior") if name == "vq-vae" else ("train",)
    small = QUANTISED if name == "vq-vae" else {"latent_dim": 2, "net": NET}
    options = {"batch_size": 16, "log_every": 3, "epochs": 5, **options}
    clock = Stepping(seconds)
    loop, run = make_loop(
        fresh(name, data, **small), data, path, plan=plan_of(minutes, *stages), clock=clock, **options
    )
    clock.drive(loop)
    return loop, run


def repeated(path: Path, run: Run, name: str = "vae") -> str:
    """The digest of a run of the same configuration without a clock."""
    data = pictures()
    training = {k: v for k, v in run.config["training"].items() if k != "minutes"}
    small = QUANTISED if name == "vq-vae" else {"latent_dim": 2, "net": NET}
    loop, again = make_loop(fresh(name, data, **small), data, path, **training)
    loop.fit()
    return digest(loop.model, again)


# the plan


def test_a_plan_is_a_function_of_measured_seconds() -> None:
    assert epochs_in(60, Cost(0.1), 10) == 58
    assert epochs_in(60, Cost(0.1, 1.0), 10) == 29
    assert epochs_in(1, Cost(100.0), 10) == 1
    assert sum(shares_of(["a", "b", "c"]).values()) == pytest.approx(1)


def test_a_wider_net_is_only_timed_where_it_may_be_chosen() -> None:
    asked: list[int] = []

    def cost_of(width: int) -> Cost:
        asked.append(width)
        return Cost((width / 32) ** 2 * 0.01)

    usual = Cost(0.01)
    assert wider(50, cost_of, 32, usual, 38)[0] == 32 and asked == []
    assert wider(200, cost_of, 32, usual, 38)[0] == 64 and asked == [64]
    asked.clear()
    assert narrower(200, cost_of, 32, usual, 38)[0] == 32 and asked == []
    assert narrower(2, cost_of, 32, usual, 38)[0] == 8 and asked == [16, 8]


def test_a_narrower_net_or_smaller_batch_that_is_no_faster_is_not_taken() -> None:
    def steps_of(batch: int) -> int:
        return 60000 // batch

    same = Cost(0.1)
    assert narrower(1, lambda width: same, 32, same, 38)[0] == 32
    assert choose_batch(1, lambda batch: same, 128, same, steps_of)[0] == 128
    assert choose_batch(1, lambda batch: Cost(0.1 * batch / 128), 128, same, steps_of)[0] == 16
    assert choose_batch(1, lambda batch: Cost(0.1 * batch / 128), 128, same, steps_of, least=64)[0] == 64


def test_planning_leaves_no_trace() -> None:
    data = pictures()
    model = fresh("vae", data, latent_dim=2, net=NET)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    torch.manual_seed(3)
    state = torch.get_rng_state()
    plan = make_plan(model, data, Training(minutes=1, threads=1), clock=Ticking(0.01))
    assert torch.equal(state, torch.get_rng_state())
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    assert model.training and plan.width is None and plan.epochs["train"] > 1 and plan.spent > 0
    applied = plan.applied(Training(minutes=1, threads=1))
    assert (applied.minutes, applied.epochs, applied.batch_size) == (
        None,
        plan.epochs["train"],
        plan.batch_sizes["train"],
    )


def test_the_width_is_chosen_where_it_was_not_given() -> None:
    assert free_width("vae", {}) and free_width("vae", {"net": "conv"}) and free_width("vae", {"net": {"name": "conv"}})
    assert not free_width("vae", {"net": {"name": "conv", "width": 8}})
    assert not free_width("vae", {"net": object()})


def test_a_width_that_another_option_forbids_is_not_taken() -> None:
    """A resnet of at most 32 channels is not made of 64, however much time there is."""
    data = pictures()
    options = {"name": "resnet", "width": 32, "max_width": 32}
    model = fresh("vae", data, latent_dim=2, net=options)

    def make(width: int) -> Model:
        return fresh("vae", data, latent_dim=2, net={**options, "width": width})

    with pytest.raises(ConfigError, match="max_width"):
        make(64)
    assert make_plan(model, data, Training(minutes=10**4, threads=1), make, clock=Ticking(0.01)).width == 32


def test_a_plan_says_what_it_chose() -> None:
    costs = {"codes": Cost(0.12), "prior": Cost(0.034)}
    plan = Plan(2, None, {"codes": 32, "prior": 16}, {"codes": 9, "prior": 1}, costs, shares_of(list(costs)), 1.0)
    assert plan.line() == (
        "2 minutes: batch 32 and 16, 9 epochs of codes (50% of the time), then 1 epoch of prior (50% of the time); "
        "a step takes 0.12 s and 0.034 s"
    )


def test_every_stage_has_its_batch_and_epochs() -> None:
    costs = {"codes": Cost(0.12), "prior": Cost(0.034)}
    plan = Plan(2, None, {"codes": 32, "prior": 16}, {"codes": 9, "prior": 1}, costs, shares_of(list(costs)), 1.0)
    applied = plan.applied(Training(minutes=2, stage={"prior": {"lr": 0.1}}))
    assert (applied.epochs, applied.batch_size) == (9, 32)
    assert applied.stage == {"prior": {"lr": 0.1, "epochs": 1, "batch_size": 16}}
    data = pictures()
    model = fresh("vq-vae", data, **QUANTISED)
    made = make_plan(model, data, Training(minutes=1, threads=1, batch_size=8), clock=Ticking(0.01))
    assert set(made.epochs) == {"codes", "prior"} and set(made.batch_sizes.values()) == {8}


@pytest.mark.parametrize(
    "options", [{"epochs": 3}, {"max_steps": 3}, {"stage": {"train": {"epochs": 3}}}, {"minutes": 0}, {"minutes": -1}]
)
def test_refusals(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="minutes"):
        Training(**{"minutes": 2, **options})


# the deadline


@pytest.mark.parametrize("seconds", [7.0, 9.0, 20.0, 100.0])
def test_a_slow_run_ends_on_time_and_its_configuration_repeats_it(seconds: float, tmp_path: Path) -> None:
    loop, run = timed(tmp_path / "run", seconds)
    loop.fit()
    steps = -(-60 // seconds)
    run = Run(run.path)
    assert loop.now.step == steps and run.config["training"]["stage"]["train"]["max_steps"] == steps
    events = {e["event"]: e for e in run.events()}
    assert events["deadline"]["step"] == steps and events["deadline"]["planned"] == 20
    assert run.steps()[-1] == steps and (run.path / "model").is_dir()
    assert any("the time is up" in text for text in loop.progress.said)  # type: ignore[attr-defined]
    assert digest(loop.model, run) == repeated(tmp_path / "again", run)


def test_a_run_that_ended_on_time_is_finished(tmp_path: Path) -> None:
    from sandglass.app.runs import state
    from sandglass.runs.card import ended

    loop, run = timed(tmp_path / "run", 9.0)
    loop.fit()
    assert state(Run(run.path), complete=False) == "finished"
    assert ended(run.config["training"]) == " (the stage train ended after 7 updates)"


def test_a_fast_run_goes_on_and_its_configuration_repeats_it(tmp_path: Path) -> None:
    loop, run = timed(tmp_path / "run", 1.0)
    loop.fit()
    run = Run(run.path)
    assert run.config["training"]["epochs"] == 15 and loop.now.step == 60
    assert "extended" in [e["event"] for e in run.events()] and run.steps()[-1] == 60
    assert digest(loop.model, run) == repeated(tmp_path / "again", run)


def test_a_learning_rate_that_has_fallen_to_0_is_not_followed_by_epochs(tmp_path: Path) -> None:
    loop, _ = timed(tmp_path / "run", 1.0, schedule="cosine")
    loop.fit()
    assert loop.now.step == 20
    assert "fallen to 0" in loop.progress.said[-1]  # type: ignore[attr-defined]


def test_each_stage_has_its_share(tmp_path: Path) -> None:
    loop, run = timed(tmp_path / "run", 3.0, name="vq-vae", stage={"prior": {"epochs": 5}})
    loop.fit()
    events = [(e["event"], e["stage"]) for e in run.events() if e["event"] in ("deadline", "extended")]
    assert events == [("deadline", "codes"), ("deadline", "prior")]
    assert loop.elapsed() == pytest.approx(60, abs=6)
    assert digest(loop.model, run) == repeated(tmp_path / "again", Run(run.path), "vq-vae")


@pytest.mark.parametrize("seconds", [1.0, 9.0])
def test_stopped_at_every_step_and_resumed_it_ends_the_same(
    seconds: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The clock of a run counts the time before it was stopped."""
    monkeypatch.setattr("os.fsync", lambda descriptor: None)
    loop, run = timed(tmp_path / "straight", seconds)
    loop.fit()
    expected, steps = digest(loop.model, run), loop.now.step
    for step in range(1, steps, 1 if steps < 20 else 7):
        path = tmp_path / str(step)
        loop, _ = timed(path, seconds)
        stop_at(loop, step, lambda loop=loop: setattr(loop.signals, "stop", 15))
        with pytest.raises(SystemExit):
            loop.fit()
        loop, run = timed(path, seconds)
        loop.fit(run.latest_checkpoint()[0])
        assert digest(loop.model, run) == expected, step


def test_a_fit_in_closed_form_comes_after_the_time(tmp_path: Path) -> None:
    loop, run = timed(tmp_path / "run", 9.0, name="ae")
    loop.fit()
    assert loop.stage.name == "density" and loop.now.fitted and loop.now.total == 8
    assert digest(loop.model, run) == repeated(tmp_path / "again", Run(run.path), "ae")


def test_killed_after_the_decision_it_still_ends_there(tmp_path: Path) -> None:
    """The configuration is written before the last checkpoint."""
    loop, run = timed(tmp_path / "straight", 9.0, save_steps=1)
    loop.fit()
    expected = digest(loop.model, run)
    loop, run = timed(tmp_path / "killed", 9.0, save_steps=1)
    stop_at(loop, 7, lambda: (_ for _ in ()).throw(OSError("killed")))
    with pytest.raises(OSError, match="killed"):
        loop.fit()
    assert Run(run.path).config["training"]["stage"]["train"]["max_steps"] == 7
    assert run.steps()[-1] == 6
    loop, run = timed(tmp_path / "killed", 0.001)
    loop.fit(run.latest_checkpoint()[0])
    assert digest(loop.model, run) == expected


# by name, and by the command


def train(path: Path, **options: Any) -> Run:
    return sandglass.train(
        "vae", pictures(), out=path, threads=1, device="cpu", progress=Quiet(), sheets=0,
        model_options={"latent_dim": 2, "net": NET}, **options,
    )  # fmt: skip


def test_the_run_holds_its_plan_and_its_settings_repeat_it(tmp_path: Path) -> None:
    run = train(tmp_path / "run", minutes=0.01)
    config = yaml.safe_load((run.path / "config.yaml").read_text())
    assert config["plan"]["minutes"] == 0.01 and config["training"]["minutes"] is None
    given = ("threads", "device", "sheets", "minutes")
    again = train(tmp_path / "again", **{k: v for k, v in config["training"].items() if k not in given})
    assert digest(run.load_model(), run) == digest(again.load_model(), again)
    assert "plan" not in again.config


def test_a_resumed_run_has_the_rest_of_its_time(tmp_path: Path) -> None:
    run = train(tmp_path / "run", minutes=0.01)
    assert finished(run)
    said = Quiet()
    sandglass.resume(run.path, data=pictures(), progress=said)
    assert any("of 0.01 minutes are left" in text for text in said.said)
    epochs = Settled.of(run.config["training"]).epochs + 1
    run = sandglass.resume(run.path, data=pictures(), epochs=epochs, progress=Quiet())
    assert "plan" not in run.config and run.config["training"]["epochs"] == epochs
    assert run.steps()[-1] == epochs * -(-50 // run.config["training"]["batch_size"])


# updates of an epoch


def test_a_last_batch_of_one_example_is_counted_as_it_is_trained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With batch normalisation it is joined to the batch before it: in the plan, the warning and a dry run as well."""
    from sandglass.app.train import shortage
    from sandglass.engine.batches import updates_per_epoch
    from sandglass.engine.options import settle_epochs

    data = pictures(33)
    model = fresh("vae", data, latent_dim=2, net={"name": "conv", "width": 4, "norm": "batch"})
    stage = model.stages()[0]
    assert updates_per_epoch(stage, 16, 1, 33) == 2
    settled = Training(batch_size=16, threads=1, device="cpu").settled(["validation"], 33, model.stages())
    assert settled.epochs == settle_epochs(2)
    short = Training(batch_size=16, epochs=10, threads=1, device="cpu").settled(["validation"], 33, model.stages())
    assert shortage(short, model.stages(), 33, timed=False).startswith("only 20 updates")
    timed = []
    monkeypatch.setattr("sandglass.engine.planning.measure", lambda *_, **__: timed.append(1) or Cost(1.0))
    plan = make_plan(model, data, Training(minutes=1, batch_size=16, threads=1))
    assert timed and plan.epochs == {"train": epochs_in(60, Cost(1.0), 2)} != {"train": epochs_in(60, Cost(1.0), 3)}

"""Stages of training: each from the best weights of the one before, with a clock, averages and options of its own."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import sandglass
from helpers import Quiet, digest, make_loop, rows, stop_at
from sandglass import rng
from sandglass.core import Batch, Batches, Clock, Model, Phase, Spec, Stage, Terms
from sandglass.data.dataset import Dataset
from sandglass.data.load import load_data
from sandglass.engine.loop import Loop
from sandglass.engine.optimizers import make_optimizers
from sandglass.engine.options import Settled, Training
from sandglass.engine.resume import asked_for, lengthened
from sandglass.engine.step import Stepper
from sandglass.errors import ConfigError


class Chain(Model):
    """A linear code, then its mean in closed form, then a linear prediction of the code from the mean's side."""

    def __init__(self) -> None:
        super().__init__()
        self.spec = Spec((3,))
        self.first = nn.Sequential(nn.Linear(3, 2), nn.Dropout(0.2))
        self.second = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))
        self.back = nn.Linear(2, 3)
        self.register_buffer("centre", torch.zeros(2))
        self.before: list[dict[str, Tensor]] = []
        self.modes: list[tuple[str, bool, bool]] = []

    def stages(self) -> Sequence[Stage]:
        one = Phase("rebuild", (self.first, self.back), self.rebuild)
        two = Phase("predict", (self.second,), self.predict)
        return (
            Stage("code", (one,), objective="rebuild"),
            Stage("centre", fit=self.fit_centre),
            Stage("prior", (two,), fit=self.remember, objective="predict", epochs=4, optim={"lr": 0.05}),
        )

    def rebuild(self, batch: Batch, clock: Clock) -> Terms:
        self.modes.append(("code", self.first[1].training, self.second[1].training))
        each = (self.back(self.first(batch.x)) - batch.x).square().sum(1)
        noisy = each * (1 + 0.1 * torch.randn(()))
        return Terms(noisy.mean(), {"error": each.detach()}, {"lr_like": clock.epoch + 1})

    def predict(self, batch: Batch, clock: Clock) -> Terms:
        self.modes.append(("prior", self.first[1].training, self.second[1].training))
        with torch.no_grad():
            target = self.first(batch.x) - self.centre
        each = (self.second(batch.x) - target).square().sum(1)
        return Terms(each.mean(), {"miss": each.detach()})

    def fit_centre(self, train: Batches, validation: Batches | None) -> Mapping[str, float]:
        with torch.no_grad():
            codes = torch.cat([self.first(b.x) for b in train()])
            self.centre.copy_(codes.mean(0))
        return {"spread": float(codes.std())}

    def remember(self, train: Batches, validation: Batches | None) -> Mapping[str, float]:
        self.before.append({k: v.clone() for k, v in self.state_dict().items()})
        return {}

    def sample(self, n: int, given: Batch | None = None, *, noise: bool = False) -> Tensor:
        return self.back(self.centre.expand(n, -1))


def chain() -> Chain:
    with rng.forked("cpu", 0, "weights"):
        return Chain()


@pytest.fixture
def data() -> Dataset:
    generator = torch.Generator().manual_seed(0)
    return rows(torch.randn(40, 3, generator=generator), torch.randn(12, 3, generator=generator))


RICH: dict[str, Any] = {
    "epochs": 5, "batch_size": 16, "lr": 0.3, "log_every": 2, "keep": 1, "ema": 0.6, "early_stopping": 2,
    "schedule": "plateau", "schedule_every": 1, "schedule_factor": 0.5, "clip": 4.0, "accumulate": 2,
    "stage": {"prior": {"epochs": 4, "lr": 0.2, "ema": 0.8, "early_stopping": 3}},
}  # fmt: skip


def test_resume_is_exact_at_every_step_of_every_stage(data: Dataset, tmp_path: Path) -> None:
    """With an average, early stopping and a plateau in each."""
    loop, run = make_loop(chain(), data, tmp_path / "straight", **RICH)
    loop.fit()
    assert {r["stage"] for r in run.metrics()} == {"code", "centre", "prior"}
    expected, last = digest(loop.model, run), loop.now.total
    for k in range(1, last):
        folder = tmp_path / f"stop{k}"
        loop, run = make_loop(chain(), data, folder, **RICH)
        stop_at(loop, k, lambda loop=loop: setattr(loop.signals, "stop", 15))
        with pytest.raises(SystemExit):
            loop.fit()
        torch.manual_seed(999)
        loop, run = make_loop(chain(), data, folder, **RICH)
        checkpoint, problems = run.latest_checkpoint()
        assert checkpoint is not None and not problems
        loop.fit(checkpoint)
        assert digest(loop.model, run) == expected, f"resume at step {k} differs"


@pytest.mark.parametrize("every", [4, pytest.param(1, marks=pytest.mark.slow)])
def test_a_kill_between_any_two_writes_loses_nothing(data: Dataset, tmp_path: Path, every: int) -> None:
    """Whatever checkpoint was written last, resuming from it gives the same run."""
    loop, run = make_loop(chain(), data, tmp_path / "straight", **RICH, save_steps=1)
    loop.fit()
    expected = digest(loop.model, run)

    class Killed(BaseException):
        pass

    for k in range(2, loop.now.total + 1, every):
        folder = tmp_path / f"kill{k}"
        loop, run = make_loop(chain(), data, folder, **RICH, save_steps=1)
        stop_at(loop, k, lambda: (_ for _ in ()).throw(Killed()))
        with pytest.raises(Killed):
            loop.fit()
        loop, run = make_loop(chain(), data, folder, **RICH, save_steps=1)
        checkpoint, problems = run.latest_checkpoint()
        assert checkpoint is not None and checkpoint.step <= k and not problems
        loop.fit(checkpoint)
        assert digest(loop.model, run) == expected, f"a kill at step {k} shows"


@pytest.mark.parametrize(("ema", "epochs"), [(0.0, 7), (0.5, 3)])
def test_a_stage_starts_from_the_best_weights_of_the_one_before(
    data: Dataset, tmp_path: Path, ema: float, epochs: int
) -> None:
    options = {"epochs": epochs, "batch_size": 8, "lr": 1.0, "ema": ema, "keep": 20, "early_stopping": 0}
    loop, run = make_loop(chain(), data, tmp_path / "run", **options)
    loop.fit()
    measured = {r["step"]: r["value"] for r in run.metrics() if r["term"] == "objective" and r["stage"] == "code"}
    best = min(measured, key=lambda step: measured[step])
    assert best != max(measured), "the last epoch is the best: this run shows nothing"
    tensors = run.read_checkpoint(best).tensors
    weights = tensors.get("ema") or tensors["model"]
    model = loop.model
    assert isinstance(model, Chain)
    (found,) = model.before
    for name in ("first.0.weight", "first.0.bias", "back.weight", "back.bias"):
        assert torch.equal(found[name], weights[name]), name
        assert torch.equal(model.state_dict()[name], weights[name]), f"{name} moved in a stage that does not train it"


def test_the_last_weights_are_handed_on_where_they_are_to_be_kept(data: Dataset, tmp_path: Path) -> None:
    options = {"epochs": 3, "batch_size": 8, "lr": 1.0, "select": "last", "keep": 9, "ema": 0.5}
    loop, run = make_loop(chain(), data, tmp_path / "run", **options)
    loop.fit()
    last = max(r["step"] for r in run.metrics() if r["stage"] == "code")
    assert isinstance(loop.model, Chain)
    assert torch.equal(
        loop.model.before[0]["first.0.weight"], run.read_checkpoint(last).tensors["ema"]["first.0.weight"]
    )


def test_the_kept_model_has_every_stage(data: Dataset, tmp_path: Path) -> None:
    loop, run = make_loop(chain(), data, tmp_path / "run", **RICH)
    loop.fit()
    best = min(
        (r for r in run.metrics() if r["term"] == "objective" and r["stage"] == "prior"), key=lambda r: r["value"]
    )
    kept = run.read_checkpoint(run.pointed("BEST") or 0)
    assert kept.step == best["step"] and kept.state["loop"]["stage"] == "prior"
    assert not torch.equal(kept.tensors["model"]["centre"], torch.zeros(2))


def test_only_what_a_stage_trains_is_in_train_mode(data: Dataset, tmp_path: Path) -> None:
    model = chain()
    loop, _ = make_loop(model, data, tmp_path / "run", epochs=2, stage={"prior": {"epochs": 2}})
    loop.fit()
    assert {m for m in model.modes if m[0] == "code"} == {("code", True, False), ("code", False, False)}
    assert {m for m in model.modes if m[0] == "prior"} == {("prior", False, True), ("prior", False, False)}


def test_an_earlier_stage_validates_and_keeps_a_moving_average(data: Dataset, tmp_path: Path) -> None:
    """Of the weights that it trains: an average that only the last phase moved kept the initial ones."""
    loop, run = make_loop(chain(), data, tmp_path / "run", epochs=3, batch_size=8, lr=0.1, ema=0.9, keep=9)
    start = loop.model.state_dict()["first.0.weight"].clone()
    loop.fit()
    first = run.read_checkpoint(run.steps()[0]).tensors
    assert not torch.equal(first["ema"]["first.0.weight"], start)
    assert not torch.equal(first["ema"]["first.0.weight"], first["model"]["first.0.weight"])


def test_scalars_and_figures_of_a_fit_are_logged(data: Dataset, tmp_path: Path) -> None:
    loop, run = make_loop(chain(), data, tmp_path / "run", epochs=2, batch_size=40, stage={"prior": {"epochs": 1}})
    loop.fit()
    found = {(r["stage"], r["phase"], r["term"]): r["value"] for r in run.metrics() if r["split"] == "train"}
    assert found["code", "rebuild", "lr_like"] == 2.0
    with torch.no_grad():
        codes = loop.model.eval().first(data.train.batch(slice(None)).x)  # type: ignore[operator]
    assert found["centre", "centre", "spread"] == pytest.approx(float(codes.std()), rel=1e-5)


def option_of(settled: Settled, stage: Stage, name: str) -> Any:
    optimizer = make_optimizers(stage, settled.of_stage(stage.name))[stage.phases[0].name]
    return optimizer.param_groups[0][name]


def test_a_setting_is_the_stages_flag_the_runs_the_phases_the_stages_or_the_usual_one() -> None:
    model = chain()

    def settled(**options: Any) -> Settled:
        return Training(**options).settled(["validation"], 40, model.stages())

    code, _, prior = model.stages()
    prior_own = {"prior": {"lr": 0.7, "weight_decay": 0.1}}
    assert option_of(settled(), code, "lr") == 1e-3
    assert option_of(settled(), prior, "lr") == 0.05
    of_phase = Stage("prior", (Phase("p", (model.second,), model.predict, optim={"lr": 0.02}),), optim={"lr": 0.05})
    assert option_of(settled(), of_phase, "lr") == 0.02
    assert option_of(settled(lr=0.3), of_phase, "lr") == 0.3
    assert option_of(settled(lr=0.3, stage=prior_own), of_phase, "lr") == 0.7
    assert option_of(settled(lr=0.3, stage=prior_own), of_phase, "weight_decay") == 0.1
    assert option_of(settled(lr=0.3, stage=prior_own), code, "weight_decay") == 0.0
    assert settled().of_stage("prior").epochs == 4, "the stage's own"
    assert settled(epochs=7).of_stage("prior").epochs == 4 and settled(epochs=7).of_stage("code").epochs == 7
    assert settled(stage={"prior": {"epochs": 9}}).of_stage("prior").epochs == 9


@pytest.mark.parametrize(
    ("stage", "message"),
    [
        ({"pryor": {"epochs": 3}}, "no stage 'pryor'. Did you mean 'prior'"),
        ({"prior": {"epoch": 3}}, "no option 'epoch'. Did you mean 'epochs'"),
        ({"prior": {"epochs": 0}}, "epochs must be at least 1"),
        ({"centre": {"epochs": 3}}, "fitted in closed form"),
    ],
)
def test_stage_options_that_make_no_sense_are_refused(stage: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Training.of({"stage": stage}).settled(["validation"], 40, chain().stages())


def test_an_optimiser_setting_that_there_is_not_is_refused() -> None:
    model = chain()
    with pytest.raises(ConfigError, match="phase 'p' sets 'lrr'"):
        Phase("p", (model.first,), model.rebuild, optim={"lrr": 1.0})
    with pytest.raises(ConfigError, match="stage 's' sets 'eps'"):
        Stage("s", optim={"eps": 1.0})
    with pytest.raises(ConfigError, match="no phase 'q'"):
        Stage("s", (Phase("p", (model.first,), model.rebuild),), objective="q")


def test_phases_may_share_an_optimiser_and_train_a_bare_parameter() -> None:
    """Two losses, each on every other step, move one weight through one optimiser's moments."""
    model = chain()
    weight = nn.Parameter(torch.tensor([1.0]))
    model.register_parameter("bare", weight)

    def loss(sign: float) -> Callable[[Batch, Clock], Terms]:
        return lambda batch, clock: Terms(sign * weight.sum(), {})

    stage = Stage(
        "s", (Phase("a", (weight,), loss(1.0), optimizer="both"), Phase("b", (weight,), loss(3.0), 2, optimizer="both"))
    )
    stepper = Stepper(model, stage, Training(device="cpu", lr=0.1))
    assert list(stepper.optimizers) == ["both"]
    batch = Batch(torch.zeros(4, 3))
    for step in range(3):
        stepper(batch, Clock(step), 1.0)
    moments, gradient, second = 0.0, [1.0, 3.0, 1.0, 1.0, 3.0], 0.0
    expected = 1.0
    for k, g in enumerate(gradient, 1):
        moments, second = 0.9 * moments + 0.1 * g, 0.999 * second + 0.001 * g * g
        expected -= 0.1 * (moments / (1 - 0.9**k)) / (math.sqrt(second / (1 - 0.999**k)) + 1e-8)
    assert float(weight.detach()) == pytest.approx(expected, rel=1e-5)


def test_phases_that_share_an_optimiser_must_agree_on_its_settings() -> None:
    weight = nn.Parameter(torch.tensor([1.0]))
    phases = [
        Phase(name, (weight,), lambda batch, clock: Terms(weight.sum(), {}), optim={"lr": lr}, optimizer="both")
        for name, lr in (("a", 0.1), ("b", 0.2))
    ]
    with pytest.raises(ConfigError, match="'a' and 'b' share an optimiser but not its 'lr'"):
        Stepper(chain(), Stage("s", tuple(phases)), Training(device="cpu"))


def ae(folder: Path, **options: Any) -> Any:
    small = {"latent_dim": 2, "net": {"name": "mlp", "widths": [8]}}
    return sandglass.train(
        "ae", load_data("digits"), out=folder, model_options=small, progress=Quiet(), threads=1, **options
    )


def test_an_earlier_stage_can_be_given_more_epochs_while_only_fits_follow(tmp_path: Path) -> None:
    short = ae(tmp_path / "short", epochs=2)
    long = sandglass.resume(short.path, epochs=3, progress=Quiet(), data=load_data("digits"))
    straight = ae(tmp_path / "straight", epochs=3)
    for name, value in straight.load_model().state_dict().items():
        assert torch.equal(value, long.load_model().state_dict()[name]), name
    assert straight.metrics() == long.metrics()


def test_what_a_later_stage_learnt_is_not_thrown_away(data: Dataset, tmp_path: Path) -> None:
    loop, run = make_loop(chain(), data, tmp_path / "run", **RICH)
    loop.fit()
    settled = Training(**RICH).settled(["validation"], 40, chain().stages())
    stages = chain().stages()
    longer, last = lengthened(settled, stages, asked_for(stages, 9, {}))
    assert longer.epochs == 9 and last == ["code"]
    checkpoint, _ = run.latest_checkpoint(last)
    with pytest.raises(ConfigError, match=r"already in its stage 'prior'.*--stage.prior.epochs"):
        run.drop_after(checkpoint, keep_trained=last)
    later = asked_for(stages, None, {"prior": {"epochs": 12}})
    assert lengthened(settled, stages, later)[1] == ["code", "centre", "prior"]
    with pytest.raises(ConfigError, match="can only have more"):
        lengthened(settled, stages, asked_for(stages, 2, {}))
    with pytest.raises(ConfigError, match=r"trains no stage 'centre'. It trains: code, prior"):
        asked_for(stages, None, {"centre": {"epochs": 3}})


def test_patience_is_raised_only_where_it_is_longer() -> None:
    stages = chain().stages()
    options = {"early_stopping": 5, "stage": {"prior": {"early_stopping": 50}}}
    settled = Training(**options).settled(["validation"], 40, stages)
    assert asked_for(stages, None, {}, 20, "code", settled) == {"code": {"early_stopping": 20}}
    assert set(asked_for(stages, None, {}, 0, "code", settled)) == {"code", "prior"}
    assert asked_for(stages, None, {}, 60, "prior", settled) == {"prior": {"early_stopping": 60}}
    with pytest.raises(ConfigError, match="fitted in closed form"):
        asked_for([s for s in stages if not s.phases], 9, {})


def test_the_border_does_not_move_with_the_length_of_a_later_stage(data: Dataset, tmp_path: Path) -> None:
    found: list[Loop] = []
    for epochs in (1, 5):
        loop, _ = make_loop(chain(), data, tmp_path / str(epochs), epochs=3, stage={"prior": {"epochs": epochs}})
        loop.fit()
        found.append(loop)
    first, second = (loop.model for loop in found)
    assert isinstance(first, Chain) and isinstance(second, Chain)
    for name, value in first.before[0].items():
        assert torch.equal(value, second.before[0][name]), name


def test_more_epochs_of_a_stage_whose_checkpoints_are_gone_are_refused_and_nothing_is_lost(tmp_path: Path) -> None:
    """It began again from nothing, and what had been trained was deleted."""
    small = {"codes": 2, "codebook_size": 4, "net": {"name": "mlp", "widths": [8]}, "prior_width": 8, "prior_heads": 2}
    data = load_data("digits")
    own: dict[str, Any] = {"out": tmp_path / "vq", "epochs": 2, "threads": 1, "model_options": small}
    deep = sandglass.train("vq-vae", data, progress=Quiet(), save_seconds=0.0, **own)
    flat = ae(tmp_path / "ae", epochs=2, keep=1, select="last")
    for run, why in (
        (deep, "already in its stage 'prior'"),
        (flat, "no checkpoint of its stage 'train' to resume from"),
    ):
        before = {f: f.read_bytes() for f in sorted(run.path.rglob("*")) if f.is_file() and f.name != "run.lock"}
        with pytest.raises(ConfigError, match=why):
            sandglass.resume(run.path, epochs=3, progress=Quiet(), data=data)
        assert before == {
            f: f.read_bytes() for f in sorted(run.path.rglob("*")) if f.is_file() and f.name != "run.lock"
        }

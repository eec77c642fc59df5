"""A sweep finds what is best by validation, and loses nothing when it is stopped or killed."""

from __future__ import annotations

import os
import re
import signal
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from test_report import Page
from torch import Tensor, nn

import sandglass
from helpers import rows
from sandglass.core import Batch, Clock, Model, Phase, Spec, Terms
from sandglass.data.dataset import Dataset, Split
from sandglass.errors import ConfigError, DataError, MissingPackageError, NotFoundError, SandglassError
from sandglass.registry.names import Entry, _entries, discover
from sandglass.runs.run import Run
from sandglass.runs.verify import verify
from sandglass.sweeps import trial as trials
from sandglass.sweeps.page import warnings
from sandglass.sweeps.study import Plan, Study
from sandglass.sweeps.trials import Swept

pytest.importorskip("optuna")

TINY: dict[str, Any] = {"epochs": 3, "batch_size": 8, "threads": 1}


class Bowl(Model):
    """Its objective is a known bowl over its own options, whatever is trained.

    Args:
        spec: the data.
        a: lowest at 3.
        b: lowest at 4.
        wrong: what goes wrong.
    """

    def __init__(self, spec: Spec, *, a: float = 0.0, b: int = 4, wrong: str = "nothing") -> None:
        super().__init__()
        if wrong == "options":
            raise ConfigError("A bowl is not\nbuilt so.")
        self.spec, self.a, self.b, self.wrong = spec, a, b, wrong
        self.weight = nn.Parameter(torch.zeros(1))

    def phases(self) -> Sequence[Phase]:
        return [Phase("bowl", (self,), self.loss, scheduled=False)]

    def loss(self, batch: Batch, clock: Clock) -> Terms:
        if self.wrong == "memory":
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory")
        height = (self.a - 3) ** 2 + (self.b - 4) ** 2 + 1
        if self.wrong == "nan":
            height = float("nan")
        each = height + 0 * batch.x.flatten(1).sum(1) * self.weight
        return Terms(each.mean(), {})

    def sample(self, n: int, given: Batch | None = None, *, noise: bool = False) -> Tensor:
        return torch.zeros(n, *self.spec.shape)


@pytest.fixture(autouse=True)
def bowl(monkeypatch: pytest.MonkeyPatch) -> None:
    """The model ``bowl``, for one test."""
    discover("model")
    monkeypatch.setitem(_entries, ("model", "bowl"), Entry("bowl", "model", Bowl, {}))


@pytest.fixture
def data() -> Dataset:
    """16 rows, 8 of them also for validation."""
    x = torch.arange(32.0).reshape(16, 2)
    return rows(x, x[:8])


def swept(data: Dataset, out: Path, **options: Any) -> Swept:
    return sandglass.sweep("bowl", data, out=out, **{"metric": "objective", **TINY, **options})


def drawn(found: Swept) -> list[tuple[Any, ...]]:
    """The settings and figures of the trials in order."""
    return [(t.number, dict(t.values), t.value, t.state) for t in sorted(found.trials, key=lambda t: t.number)]


def test_a_grid_covers_the_product_and_finds_the_lowest(data: Dataset, tmp_path: Path) -> None:
    found = swept(data, tmp_path / "s", vary={"a": [1.0, 2.5, 9.0], "b": "3..5"}, sampler="grid")
    assert {(t.values["model.a"], t.values["model.b"]) for t in found.trials} == {
        (a, b) for a in (1.0, 2.5, 9.0) for b in (3, 4, 5)
    }
    assert len(found.trials) == 9 and found.count("finished") == 9
    assert found.best is not None and dict(found.best.values) == {"model.a": 2.5, "model.b": 4}
    assert found.best.value == pytest.approx(1.25)
    values = [t.value or 0.0 for t in found.trials]
    assert values == sorted(values)
    assert values == [
        pytest.approx((t.values["model.a"] - 3) ** 2 + (t.values["model.b"] - 4) ** 2 + 1) for t in found.trials
    ]


def test_few_combinations_are_each_tried_once(data: Dataset, tmp_path: Path) -> None:
    """By default; where there are more than trials, or a range, they are sampled."""
    found = swept(data, tmp_path / "s", vary={"a": [1.0, 2.5], "b": "3..4"})
    assert found.sampler == "grid" and len(found.trials) == 4
    assert swept(data, tmp_path / "t", vary={"a": [1.0, 2.5, 9.0]}, trials=2).sampler == "tpe"
    assert swept(data, tmp_path / "u", vary={"a": (1.0, 2.5)}, trials=2).sampler == "tpe"


def test_a_trial_that_ends_while_another_process_looks_is_not_taken_up(data: Dataset, tmp_path: Path) -> None:
    swept(data, tmp_path / "s", vary={"a": [1.0, 2.5, 9.0]}, sampler="random", trials=1)
    plan = Plan.read(tmp_path / "s" / "sweep.yaml")
    one, other = (Study.create(tmp_path / "t", replace(plan, trials=2)), Study(tmp_path / "t"))
    running = one.claim()
    assert running is not None
    take = other._take

    def late(number: int) -> Any:
        if number == running.number and running.lock.is_locked:
            one.finish(running, "finished", 1.0)
            running.lock.release()
        return take(number)

    other._take = late  # type: ignore[method-assign]
    claimed = other.claim()
    assert claimed is not None and claimed.number != running.number
    claimed.lock.release()
    one.close()
    other.close()


def test_tpe_comes_close_to_the_lowest_and_repeats(data: Dataset, tmp_path: Path) -> None:
    vary = {"a": (-20.0, 20.0), "b": "0..8"}
    found = swept(data, tmp_path / "s", vary=vary, trials=20, **{**TINY, "epochs": 1})
    assert found.best is not None and found.best.value is not None and found.best.value < 8
    assert len({t.values["model.a"] for t in found.trials}) == 20
    again = swept(data, tmp_path / "t", vary=vary, trials=5, **{**TINY, "epochs": 1})
    assert drawn(again) == drawn(found)[:5]
    other = swept(data, tmp_path / "u", vary=vary, trials=5, seed=1, **{**TINY, "epochs": 1})
    assert [d[1] for d in drawn(other)] != [d[1] for d in drawn(again)]


def test_every_trial_is_a_run(data: Dataset, tmp_path: Path) -> None:
    found = swept(data, tmp_path / "s", vary={"lr": [0.1, 0.2], "a": [1.0, 2.0]}, sampler="grid")
    for one in found.trials:
        run = Run(one.folder)
        assert run.config["training"]["lr"] == one.values["training.lr"]
        assert run.config["model"]["options"]["a"] == one.values["model.a"]
        assert run.config["training"]["threads"] == 1 and run.config["training"]["epochs"] == 3
        assert [problem for _, problem in verify(run) if problem] == []
        assert one.epochs == 3 and one.seconds > 0


def test_what_cannot_be_tried_fails_with_its_reason_and_the_rest_goes_on(data: Dataset, tmp_path: Path) -> None:
    found = swept(data, tmp_path / "s", vary={"wrong": ["options", "nan", "memory", "nothing"]}, sampler="grid")
    reasons = {t.values["model.wrong"]: (t.state, t.reason) for t in found.trials}
    assert reasons["nothing"] == ("finished", "")
    assert reasons["options"] == ("failed", "A bowl is not built so.")
    assert reasons["nan"][0] == "failed" and "not finite" in reasons["nan"][1]
    assert reasons["memory"][0] == "failed" and "memory" in reasons["memory"][1]
    with pytest.raises(SandglassError, match=r"No trial of .* finished\. A bowl is not built so"):
        swept(data, tmp_path / "t", vary={"a": [1.0, 2.0]}, sampler="grid", model_options={"wrong": "options"})


def test_hopeless_trials_are_pruned_and_say_so(data: Dataset, tmp_path: Path) -> None:
    """Of a falling then rising row, those above the median of what came before at that epoch end early."""
    heights = [5.0, 6.0, 4.0, 7.0, 9.0, 3.0, 8.0]  # the first four train on whatever they are
    found = swept(data, tmp_path / "s", vary={"a": heights}, sampler="grid", prune="median", **{**TINY, "epochs": 6})
    states = {t.values["model.a"]: t.state for t in found.trials}
    assert states == {h: "pruned" if h in (9.0, 8.0) else "finished" for h in heights}
    pruned = next(t for t in found.trials if t.values["model.a"] == 9.0)
    assert 0 < pruned.epochs < 6 and "validation objective was 37" in pruned.reason
    assert [problem for _, problem in verify(Run(pruned.folder)) if problem] == []
    assert (pruned.folder / "model").is_dir() and found.best is not None and found.best.values["model.a"] == 3.0


def test_halving_prunes_too(data: Dataset, tmp_path: Path) -> None:
    found = swept(data, tmp_path / "s", vary={"a": [3.0, 4.0, 5.0, 6.0, 7.0, 8.0]}, sampler="grid", prune="halving")
    assert found.count("pruned") >= 3 and found.best is not None and found.best.values["model.a"] == 3.0


def test_the_pruner_looks_at_the_bound_and_not_at_its_weight() -> None:
    assert trials.watched({"distortion": 5.0, "rate": 2.0, "objective": 5.0 + 10 * 2.0}) == 7.0
    assert trials.watched({"objective": 4.0, "loss": 9.0}) == 4.0
    assert trials.watched({"other": 1.0}) is None


def test_a_stopped_sweep_goes_on_to_what_it_would_have_been(
    data: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    vary = {"a": (-9.0, 9.0), "lr": "1e-4..1e-1"}
    whole = swept(data, tmp_path / "whole", vary=vary, trials=5)
    show, calls = trials.Watch.show, []

    def interrupted(self: trials.Watch, split: str, terms: Any) -> None:
        show(self, split, terms)
        calls.append(split)
        if len(calls) == 9:  # in the second epoch of the second trial
            os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(trials.Watch, "show", interrupted)
    with pytest.raises(KeyboardInterrupt):
        swept(data, tmp_path / "s", vary=vary, trials=5)
    assert (tmp_path / "s" / "sweep.html").is_file()
    [broken] = [p for p in (tmp_path / "s").glob("0*") if Run(p).metrics()[-1]["epoch"] != 3]
    steps = Run(broken).steps()
    assert steps and steps[-1] < 6
    found = sandglass.sweep(resume=tmp_path / "s", data=data)
    assert drawn(found) == drawn(whole)
    assert [e["event"] for e in Run(broken).events()] == ["start", "stop", "resume", "stop"]
    for one in found.trials:
        twin = next(t for t in whole.trials if t.number == one.number)
        assert Run(one.folder).metrics_file.read_bytes() == Run(twin.folder).metrics_file.read_bytes()
    more = sandglass.sweep(resume=tmp_path / "s", data=data, trials=6)
    assert drawn(more)[:5] == drawn(whole) and len(more.trials) == 6


def test_a_trial_broken_off_before_its_run_was_there_is_begun_again(
    data: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*args: Any, out: Path, **options: Any) -> None:
        (out / "checkpoints").mkdir(parents=True)
        raise SystemExit(143)

    with monkeypatch.context() as patch:
        patch.setattr(trials, "train", broken)
        with pytest.raises(SystemExit):
            swept(data, tmp_path / "s", vary={"a": [1.0, 2.0]}, sampler="grid")
    found = sandglass.sweep(resume=tmp_path / "s", data=data)
    assert [t.state for t in found.trials] == ["finished", "finished"]


class Untouchable(Split):
    """A test split that says when it is looked at."""

    @property
    def x(self) -> Tensor:
        raise AssertionError("the test split was looked at")

    @x.setter
    def x(self, value: Tensor) -> None:
        pass

    def __len__(self) -> int:
        return 4


def test_the_test_split_is_never_looked_at(tmp_path: Path) -> None:
    x = torch.randn(40, 2, generator=torch.Generator().manual_seed(0))
    data = rows(x, x[:20])
    data.splits["test"] = Untouchable.__new__(Untouchable)  # type: ignore[index]
    vars(data.splits["test"]).update({"y": None, "mask": None, "names": (), "factors": None, "levels": 256})
    small = {"net": {"name": "mlp", "widths": [4]}}
    found = sandglass.sweep("vae", data, out=tmp_path / "s", vary={"latent_dim": [1, 2]}, sampler="grid",
                            model_options=small, **TINY)  # fmt: skip
    assert found.metric == "elbo" and found.count("finished") == 2
    assert all(t.stderr is not None for t in found.trials)
    best = max(found.trials, key=lambda t: t.value or 0.0)
    assert found.best is best  # higher is better


def test_nats_of_another_kind_are_not_ranked(tmp_path: Path) -> None:
    small = {"latent_dim": 2, "net": {"name": "mlp", "widths": [4]}}
    found = sandglass.sweep(
        "vae", "digits", data_options={"limit": 200}, out=tmp_path / "s", sampler="grid", model_options=small,
        vary={"likelihood": ["bernoulli", "gaussian"]}, **{**TINY, "epochs": 1},
    )  # fmt: skip
    assert [t.state for t in found.trials] == ["finished", "failed"]
    assert "cannot be compared" in found.trials[1].reason


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"vary": {}}, ConfigError, "options to vary"),
        ({"metric": "bound"}, ConfigError, "several figures"),
        ({"metric": "rate"}, ConfigError, "neither higher nor lower"),
        ({"metric": "elbo"}, ConfigError, "has no elbo"),
        ({"metric": "elob"}, ConfigError, "Did you mean"),
        ({"metric": None}, ConfigError, "metric to rank trials by"),
        ({"sampler": "grit"}, ConfigError, "tpe, random, grid"),
        ({"prune": "hard"}, ConfigError, "median, halving"),
        ({"trials": 0}, ConfigError, "at least 1 trial"),
        ({"jobs": 0}, ConfigError, "at least 1 job"),
        ({"jobs": 2}, ConfigError, "one job only"),
        ({"watch": "none", "select": "last"}, ConfigError, "uses the validation split"),
        ({"lr": -1.0}, ConfigError, "lr must be above 0"),
        ({"epohcs": 1}, ConfigError, "no option 'epohcs'"),
        ({"model_options": {"c": 1}}, ConfigError, "no option 'c'"),
        ({"model_options": {"b": object()}}, ConfigError, "a custom object"),
        ({"resume": "nowhere"}, ConfigError, "keeps its settings"),
    ],
    ids=lambda value: re.sub(r" at 0x\w+", "", str(value)),  # the same in every process
)
def test_mistakes_are_found_before_anything_is_written(
    options: dict[str, Any], error: type[Exception], message: str, data: Dataset, tmp_path: Path
) -> None:
    with pytest.raises(error, match=message):
        swept(data, tmp_path / "s", **{"vary": {"a": [1.0, 2.0]}, **options})
    assert not (tmp_path / "s").exists()


def test_other_mistakes(data: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DataError, match="validation split"):
        swept(rows(torch.zeros(8, 2)), tmp_path / "s", vary={"a": [1.0, 2.0]})
    (tmp_path / "s").mkdir()
    (tmp_path / "s" / "file").touch()
    with pytest.raises(ConfigError, match="not empty"):
        swept(data, tmp_path / "s", vary={"a": [1.0, 2.0]})
    with pytest.raises(NotFoundError, match="not a sweep"):
        sandglass.sweep(resume=tmp_path / "s")
    swept(data, tmp_path / "t", vary={"a": [1.0, 2.0]}, trials=2, sampler="tpe")
    with pytest.raises(DataError, match="passed as a Python object"):
        sandglass.sweep(resume=tmp_path / "t")
    with pytest.raises(DataError, match="The data has changed"):
        other = rows(torch.zeros(8, 2), torch.zeros(4, 2))
        sandglass.sweep(resume=tmp_path / "t", data=Dataset(**{**vars(other), "fingerprint": "other"}))
    with pytest.raises(ConfigError, match="increased, not set to 1"):
        sandglass.sweep(resume=tmp_path / "t", data=data, trials=1)
    (tmp_path / "t" / "sweep.yaml").write_text("vary: 3\n")
    with pytest.raises(ConfigError, match="damaged"):
        sandglass.sweep(resume=tmp_path / "t", data=data)
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(MissingPackageError, match=r"sandglass-ml\[sweep\]"):
        swept(data, tmp_path / "u", vary={"a": [1.0, 2.0]})


def test_the_page_stands_alone(data: Dataset, tmp_path: Path) -> None:
    found = swept(
        data, tmp_path / "<b>", vary={"a": (1.0, 5.0), "lr": "1e-4..1e-1", "wrong": ["nothing", "nan"]}, trials=8
    )
    assert found.best is not None and 0.99 < sum(found.importances.values()) < 1.01
    text = (tmp_path / "<b>" / "sweep.html").read_text()
    page = Page(text)
    assert {link for link in page.links if not link.startswith(("data:", "#"))} == {f"{found.best.folder.name}/"}
    assert "script" not in page.tags and "<b>/" not in text and len(page.ids) == len(set(page.ids))
    for said in (
        "Options",
        "Importance of options",
        "Progress",
        "Trials",
        "failed",
        "not finite",
        "which no trial has used",
    ):
        assert said in text, said


def test_what_a_measure_asks_of_the_data_is_at_hand(tmp_path: Path) -> None:
    """The centres of a mixture, of which only the data knows."""
    found = sandglass.sweep(
        "gan", "ring", vary={"lr": [1e-4, 1e-3]}, sampler="grid", metric="modes_reached", out=tmp_path / "s",
        data_options={"limit": 100}, **TINY,
    )  # fmt: skip
    assert [trial.state for trial in found.trials] == ["finished", "finished"]


def test_a_best_value_at_an_end_of_what_was_searched_is_named(data: Dataset, tmp_path: Path) -> None:
    """The bowl is lowest at 3: inside a wide range, whatever values were drawn, and beyond a short list."""
    wide = swept(data, tmp_path / "s", vary={"a": (-20.0, 20.0)}, sampler="random", trials=3)
    assert not any("end of its range" in text for text in warnings(wide))
    short = swept(data, tmp_path / "t", vary={"a": [0.0, 1.0, 2.0]}, sampler="grid")
    assert "The best a is at the upper end of its range" in warnings(short)[0]

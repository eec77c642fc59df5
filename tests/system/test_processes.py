"""Several processes train what one process trains: the same weights, one writer, one message, and no end without it."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import several
from helpers import fresh, pictures
from sandglass.core import Batch, Clock, Model, Phase, Spec, Terms
from sandglass.engine.gradient import Gradient, Sums
from sandglass.engine.options import Training
from sandglass.engine.processes import Processes
from sandglass.engine.sharding import blocks
from sandglass.runs.run import Run
from several import STEPS, end, far, start, weights

MLP: Mapping[str, Any] = {"net": {"name": "mlp", "widths": [16]}}
CONV: Mapping[str, Any] = {"latent_dim": 4, "net": {"name": "conv", "width": 8, "norm": "none"}}
CASES: dict[str, dict[str, Any]] = {
    "vae": {"model": "vae", "model_options": MLP, "clip": 1.0, "augment": ["shift", "mixup"], "corrupt": ["gaussian"]},
    "gan-r1": {"model": "gan", "model_options": {**CONV, "adversary": "non-saturating", "r1": 1.0}},
    "gan-augmented": {"model": "gan", "model_options": {**CONV, "ada": 0.01}, "batch_size": 7},
    "flow": {"model": "flow-matching", "model_options": MLP, "ema": 0.9},
    "vq-vae": {
        "model": "vq-vae",
        "model_options": {**MLP, "codes": 4, "revive": 0.5},
        "stage": {"prior": {"epochs": 1, "max_steps": STEPS}},
    },
    "latent-flow": {
        "model": "latent-flow",
        "model_options": MLP,
        "stage": {"flow": {"epochs": 1, "max_steps": STEPS, "accumulate": 4}},
    },
    "batch-norm": {"model": "ae", "model_options": {"net": {"name": "conv", "width": 8, "norm": "batch"}}},
}
DIVIDED = ("vae", "gan-r1", "flow", "vq-vae", "latent-flow")
"""Also with divided weights: clipping, corrupted inputs, phases with a derivative of a gradient, an average, stages."""
RESUMED = {"model": "gan", "model_options": CONV, "save_steps": 8, "keep": 9}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs of every case by two processes and by one, and runs of each begun by the other."""
    folder = tmp_path_factory.mktemp("runs")
    torch.manual_seed(0)
    np.save(folder / "odd.npy", np.random.default_rng(0).normal(size=(42, 3)).astype(np.float32))  # 33 + 9
    few = {"epochs": 1, "max_steps": STEPS, "batch_size": 32}
    cases = {name: {**few, **case} for name, case in CASES.items()}
    cases["rows"] = {"model": "vae", "data": str(folder / "odd.npy"), "epochs": 10, "batch_size": 32, "accumulate": 4}
    cases["begun"] = {**few, **RESUMED}
    for name, case in cases.items():
        several.trained({"accumulate": 2, **case, "path": str(folder / f"one-{name}")})
    shutil.copytree(folder / "one-begun", folder / "one-then-two")
    forget(folder / "one-then-two")
    later = [{"path": str(folder / "one-then-two"), "resume": {}}]
    divided = {"shard_weights": True}
    later += [
        {**cases[name], **divided, "path": str(folder / f"divided-{name}")} for name in (*DIVIDED, "rows", "begun")
    ]
    several.train(2, *[{**case, "path": str(folder / f"two-{name}")} for name, case in cases.items()], *later)
    for begun in ("two", "divided"):
        shutil.copytree(folder / f"{begun}-begun", folder / f"{begun}-then-one")
        forget(folder / f"{begun}-then-one")
        several.trained({"path": str(folder / f"{begun}-then-one"), "resume": {}})
    shutil.copytree(folder / "divided-begun", folder / "divided-then-divided")
    forget(folder / "divided-then-divided")
    several.train(2, {"path": str(folder / "divided-then-divided"), "resume": {}})
    return folder


def forget(path: Path) -> None:
    """Forgets all checkpoints but that of step 8."""
    kept = path / "checkpoints" / "step-00000008"
    for checkpoint in (path / "checkpoints").glob("step-*"):
        if checkpoint != kept:
            shutil.rmtree(checkpoint)
    assert kept.is_dir()


def figures(path: Path) -> list[tuple[Any, ...]]:
    """The logged values by what they are of."""
    return [(r["step"], r["split"], r["phase"], r["term"], r["n"], r["value"]) for r in Run(path).metrics()]


@pytest.mark.parametrize("name", [*CASES, "rows"])
def test_two_processes_give_the_weights_of_one(runs: Path, name: str) -> None:
    """Weights, buffers, optimisers and averages, after every stage; for rows with batches of 1 in two shards."""
    two, one = weights(runs / f"two-{name}"), weights(runs / f"one-{name}")
    apart, what = far(two, one)
    assert apart < 1e-5, f"{what} is {apart:.1e} apart"
    for a, b in zip(figures(runs / f"two-{name}"), figures(runs / f"one-{name}"), strict=True):
        assert a[:-1] == b[:-1] and a[-1] == pytest.approx(b[-1], rel=1e-4, abs=1e-6)


@pytest.mark.parametrize("name", [*DIVIDED, "rows"])
def test_divided_weights_are_those_of_whole_ones(runs: Path, name: str) -> None:
    """And so are the checkpoint, which is one, the log and the model."""
    apart, what = far(weights(runs / f"divided-{name}"), weights(runs / f"one-{name}"))
    assert apart < (1e-3 if what.endswith("key_value.bias") else 1e-5), f"{what} is {apart:.1e} apart"
    for a, b in zip(figures(runs / f"divided-{name}"), figures(runs / f"one-{name}"), strict=True):
        assert a[:-1] == b[:-1] and a[-1] == pytest.approx(b[-1], rel=1e-4, abs=1e-6)
    divided, one = (Run(runs / f"{kind}-{name}").load_model().state_dict() for kind in ("divided", "one"))
    assert far(dict(divided), one)[0] < 1e-3


def test_what_must_move_has_moved(runs: Path) -> None:
    """So that equal means something: the augmentation, the codebook, running statistics, the average."""
    augmented = weights(runs / "two-gan-augmented")
    assert augmented["model/ada.p"] > 0
    assert any(not torch.equal(v, augmented[f"model/{k[4:]}"]) for k, v in augmented.items() if k.startswith("ema/"))
    assert weights(runs / "two-vq-vae")["model/quantiser.counts"].std() > 0
    norm = weights(runs / "two-batch-norm")
    assert all(v.abs().sum() > 0 for k, v in norm.items() if k.endswith("running_mean"))
    assert Run(runs / "two-latent-flow").config["training"]["stage"]["flow"]["accumulate"] == 4


@pytest.mark.parametrize("name", ["one-then-two", "two-then-one", "divided-then-one", "divided-then-divided"])
def test_a_run_is_resumed_by_another_number_of_processes(runs: Path, name: str) -> None:
    apart, what = far(weights(runs / name), weights(runs / "one-begun"))
    assert apart < 1e-5, f"{what} is {apart:.1e} apart"
    assert figures(runs / name)[-1][:-1] == figures(runs / "one-begun")[-1][:-1]
    assert [e["event"] for e in Run(runs / name).events()] == ["start", "stop", "resume", "stop"]


def test_one_process_writes(runs: Path) -> None:
    run = Run(runs / "two-vae")
    assert run.config["training"]["accumulate"] == 2
    assert [e["event"] for e in run.events()] == ["start", "stop"]
    assert not list(run.path.rglob("*.tmp*"))


def test_a_run_of_another_process_is_not_written(tmp_path: Path) -> None:
    run = Run.create(tmp_path / "run", {"format": 2, "training": {}})
    other = Run(run.path, writes=False)
    before = {f: f.read_bytes() for f in run.path.rglob("*") if f.is_file()}
    other.event("start")
    other.log([{"step": 1}])
    other.save_checkpoint(1, {}, {}, {})
    other.point("LAST", 1)
    other.rewrite({"format": 2, "training": {"epochs": 3}})
    other.write_model({}, "card", 1)
    other.write_results({})
    assert {f: f.read_bytes() for f in run.path.rglob("*") if f.is_file()} == before
    assert other.config["training"] == {"epochs": 3}


class Tied(torch.nn.Module):
    """The second layer uses the weight of the first without calling it."""

    def __init__(self) -> None:
        super().__init__()
        self.first = torch.nn.Linear(3, 3)

    def forward(self, x: Tensor) -> Tensor:
        return torch.nn.functional.linear(self.first(x), self.first.weight)


def test_what_is_divided() -> None:
    shared = torch.nn.Linear(2, 2)
    twice = torch.nn.ModuleList([torch.nn.Sequential(shared, torch.nn.ReLU(), torch.nn.Linear(2, 1)), shared])
    assert [m.out_features for m in blocks(twice)] == [1], "a layer that is used twice stays whole"
    model = fresh("vae", pictures(), net={"name": "vit", "width": 8, "depth": 2, "heads": 1})
    whole = {name for name, _ in model.named_parameters()}
    for block in blocks(model):
        own = {id(p) for p in block.parameters()}
        whole -= {name for name, p in model.named_parameters() if id(p) in own}
    sizes = {name: p.numel() for name, p in model.named_parameters()}
    assert sum(sizes[name] for name in whole) < 0.1 * sum(sizes.values()), whole


def test_weights_that_cannot_be_divided_are_said(tmp_path: Path) -> None:
    here = str(Path(__file__).parent)
    script = f"""
import sys
sys.path[:0] = [{here!r}, {str(Path(__file__).parents[1])!r}]
import torch, sandglass
from helpers import rows
from test_processes import Plain
data = rows(torch.randn(16, 3, generator=torch.Generator().manual_seed(0)))
options = {{"device": "cpu", "epochs": 1, "batch_size": 8, "sheets": 0, "shard_weights": True}}
try:
    sandglass.train(Plain(), data, out=sys.argv[1], **options)
except sandglass.errors.ConfigError as error:
    print(error)
"""
    ended = end(start(script, 2, str(tmp_path / "run")))
    assert any("cannot be divided" in out and "leave out --shard-weights" in out for _, out, _ in ended), ended


def test_a_signal_in_a_validation_by_divided_weights_stops_all(tmp_path: Path) -> None:
    """Every process calls every layer equally often, or waits for ever: they stop at the same batch."""
    script = """
import os, signal, sys
import sandglass
from sandglass.engine import loop, validate
def stopping(stepper, split, clock, *, interrupted):
    asked = []
    def now():
        asked.append(1)
        if os.environ["RANK"] == "1" and len(asked) == 1:
            os.kill(os.getpid(), signal.SIGTERM)
        return interrupted()
    return validate.validate(stepper, split, clock, interrupted=now)
loop.validate = stopping
try:
    sandglass.train("vae", "digits", out=sys.argv[1], device="cpu", epochs=1, max_steps=2, batch_size=8, sheets=0,
                    latent_dim=2, net={"name": "mlp", "widths": [8]}, shard_weights=True)
except SystemExit as error:
    print("ended with", error.code, flush=True)
os._exit(0)
"""
    ended = end(start(script, 2, str(tmp_path / "run")), 60)
    assert all("ended with 143" in out for _, out, _ in ended), ended
    assert [c.name for c in (tmp_path / "run" / "checkpoints").glob("step-*")] == ["step-00000002"]


class Plain(Model):
    """A person's own, with :class:`Tied`."""

    def __init__(self) -> None:
        super().__init__()
        self.spec, self.body, self.config = Spec((3,)), Tied(), {"name": "ae", "options": {}}

    def phases(self) -> tuple[Phase, ...]:
        return (Phase("fit", (self.body,), self.loss),)

    def loss(self, batch: Batch, clock: Clock) -> Terms:
        each = (self.body(batch.x) - batch.x).square().sum(1)
        return Terms(each.mean(), {"distortion": each.detach()})

    def sample(self, n: int, given: Batch | None = None, *, noise: bool = False) -> torch.Tensor:
        return torch.zeros(n, 3)


# the end

COMMAND = ["train", "vae", "--device", "cpu", "--net", "mlp", "--no-report", "--sheets", "0"]


@pytest.fixture
def long(tmp_path: Path) -> Iterator[tuple[Path, list[subprocess.Popen[str]]]]:
    """A run that would take hours, in its first steps."""
    path = tmp_path / "run"
    words = ["--data", "digits", "--epochs", "100000", "--out", str(path), "--save_steps", "5", "--batch-size", "256"]
    processes = start("", 2, *COMMAND, *words)
    until = time.monotonic() + 120
    while not list(path.glob("checkpoints/step-*/MANIFEST.json")):
        assert time.monotonic() < until and all(p.poll() is None for p in processes), end(processes, 5)
        time.sleep(0.1)
    yield path, processes


def test_a_signal_to_one_process_stops_all_after_the_same_step(long: tuple[Path, list[subprocess.Popen[str]]]) -> None:
    path, processes = long
    os.kill(processes[1].pid, signal.SIGTERM)
    ended = end(processes)
    assert [code for code, _, _ in ended] == [143, 143]
    assert ended[0][2].count("Stopped at step") == 1 and not ended[1][2] and not ended[1][1]
    step = Run(path).steps()[-1]
    assert f"Stopped at step {step} of" in ended[0][2] and f"--resume {path}" in ended[0][2]


def test_a_process_that_is_killed_ends_the_others_with_one_line(
    long: tuple[Path, list[subprocess.Popen[str]]],
) -> None:
    _, processes = long
    processes[1].kill()
    code, _, messages = end(processes)[0]
    assert code == 77 and messages.count("sandglass: ") == 1 and "Traceback" not in messages
    assert "Another process of this training ended early" in messages


def test_an_error_of_one_process_is_said_once(tmp_path: Path) -> None:
    for rank in range(2):
        np.save(tmp_path / f"{rank}.npy", np.random.default_rng(rank).normal(size=(40, 3)))
    script = f"""
import os, sys
from sandglass.app.main import main
sys.exit(main(["train", "vae", "--data", {str(tmp_path)!r} + "/" + os.environ["RANK"] + ".npy", *sys.argv[1:]]))
"""
    ended = end(start(script, 2, "--device", "cpu", "--epochs", "1", "--out", str(tmp_path / "run")))
    said = [line for _, _, messages in ended for line in messages.splitlines() if line.startswith("sandglass: ")]
    assert len(said) == 1 and "do not read the same data" in said[0], ended
    assert sorted(code for code, _, _ in ended) == [65, 77] or [code for code, _, _ in ended] == [65, 65]
    assert not (tmp_path / "run").exists() and "Traceback" not in ended[0][2] + ended[1][2]


def test_torchrun_trains_for_minutes(tmp_path: Path) -> None:
    words = [*COMMAND, "--data", "digits", "--minutes", "0.05", "--out", str(tmp_path / "run")]
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m"]
    ended = subprocess.run([*torchrun, "sandglass", *words], capture_output=True, text=True, timeout=300)
    assert ended.returncode == 0, ended.stderr
    assert ended.stderr.count("2 processes, 2 shards") == 1 and ended.stdout.count("run     ") == 1
    config = Run(tmp_path / "run").config
    assert config["plan"]["minutes"] == 0.05 and config["training"]["accumulate"] == 2
    model = json.loads((tmp_path / "run" / "model" / "config.json").read_text())
    assert model["step"] > 0


@pytest.mark.parametrize("elsewhere", [False, True])
def test_a_parameter_without_a_gradient_anywhere_is_not_updated(elsewhere: bool) -> None:
    """As with one process: zeros would still move it by its momentum and weight decay."""

    class Two(Processes):
        def sum(self, tensors: Sequence[Tensor]) -> None:
            tensors[2].add_(float(elsewhere))  # whether the other process has a gradient of it

        def share(self, tensors: Iterable[Tensor]) -> None:
            pass

    used, unused = (torch.nn.Parameter(torch.ones(2)) for _ in range(2))
    used.grad = torch.ones(2)
    gradient = Gradient("train", Training(), [], torch.device("cpu"), Two(0, 2))
    gradient.exchange([used, unused], Sums(["loss"], torch.zeros(1), {}, 4))
    assert used.grad is not None and (unused.grad is not None) == elsewhere

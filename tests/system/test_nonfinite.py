"""Numbers that are not finite are kept out of weights and checkpoints, and are named."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from helpers import Quiet, fresh, make_loop, pictures, rows
from sandglass.core import Model
from sandglass.data.dataset import Dataset
from sandglass.engine import snapshot
from sandglass.engine.loop import Loop
from sandglass.errors import DivergedError
from sandglass.runs.run import Run


def table(bad: int | None = None) -> Dataset:
    x = torch.randn(60, 4, generator=torch.Generator().manual_seed(0))
    if bad is not None:
        x[bad, 2] = float("nan")
    return rows(x)


def start(path: Path, data: Dataset, model: Model | None = None, **options: object) -> tuple[Loop, Run, Quiet]:
    quiet = Quiet()
    model = model or fresh("vae", data, latent_dim=2)
    settings = {"epochs": 4, "batch_size": 10, "log_every": 2, "save_steps": 1, "keep": 30, **options}
    loop, run = make_loop(model, data, path, progress=quiet, **settings)
    return loop, run, quiet


def every_saved_number_is_finite(run: Run) -> None:
    for step in run.steps():
        for file in run.checkpoint_path(step).glob("*.safetensors"):
            for name, value in load_file(file).items():
                assert torch.isfinite(value.float()).all(), f"{file}: {name}"


def test_a_bad_input_is_skipped_counted_and_named(tmp_path: Path) -> None:
    loop, run, quiet = start(tmp_path / "run", table(bad=33))
    loop.fit()
    events = [e for e in run.events() if e["event"] == "skipped"]
    assert len(events) == 4 and all(33 in e["examples"] for e in events)  # once an epoch
    assert [e["term"] for e in events] == ["loss"] * 4
    for event in events:
        assert 33 in loop.loader.indices(event["step"]).tolist()
    assert sum(r["value"] for r in run.metrics() if r["term"] == "skipped") == 4
    assert len([line for line in quiet.said if "not finite" in line]) == 4
    assert all(r["value"] is not None for r in run.metrics())
    every_saved_number_is_finite(run)


def test_file_names_are_named(tmp_path: Path) -> None:
    data = pictures()
    model = fresh("vae", data, net="mlp", latent_dim=2)
    loop, _, quiet = start(tmp_path / "run", data, model, epochs=1)
    original = loop.loader.batch
    loop.loader.batch = lambda step: original(step).map(  # type: ignore[method-assign]
        lambda t: t * float("inf") if step == 3 and t.is_floating_point() else t
    )
    loop.fit()
    assert any(".png" in line and "Step 4" in line for line in quiet.said)


@pytest.mark.parametrize("optimizer", ["adam", "adamw", "sgd", "rmsprop"])
@pytest.mark.parametrize("bad_step", [0, 3, 23])
def test_a_skipped_update_changes_nothing(optimizer: str, bad_step: int, tmp_path: Path) -> None:
    """Weights, optimiser and average after a bad step are those before it, to the bit."""
    loop, run, _ = start(tmp_path / "run", table(), optimizer=optimizer, ema=0.9, lr=1e-3, epochs=4)
    snapshots: list[dict[str, Tensor]] = []
    original = loop.stepper.gradient.backward

    def backward(number, phase, batch, clock, *others):  # type: ignore[no-untyped-def]
        sums = original(number, phase, batch, clock, *others)
        if clock.step == bad_step:
            loop.stepper.own[phase.name][0].grad[0, 0] = float("nan")  # type: ignore[index]
        return sums

    loop.stepper.gradient.backward = backward  # type: ignore[method-assign]
    step = loop.step

    def watched() -> None:
        def state() -> dict[str, Tensor]:
            files = snapshot.tensors(loop.stepper)
            return {f"{f}/{k}": v.clone() for f in ("model", "optim", "ema") for k, v in files[f].items()}

        at = loop.now.step
        before = state()
        step()
        if at == bad_step:
            after = state()
            for key, value in after.items():
                old = before.get(key, torch.zeros_like(value))
                assert torch.equal(value, old), key
            snapshots.append(after)

    loop.step = watched  # type: ignore[method-assign]
    loop.fit()
    assert snapshots
    (event,) = [e for e in run.events() if e["event"] == "skipped"]
    assert (event["step"], event["term"], event["count"]) == (bad_step, "grad_norm", 1)
    every_saved_number_is_finite(run)


def test_running_statistics_are_protected_too(tmp_path: Path) -> None:
    data = pictures()
    model = fresh("vae", data, latent_dim=2, net={"name": "conv", "width": 4, "norm": "batch"})
    loop, run, _ = start(tmp_path / "run", data, model, epochs=2)
    original = loop.loader.batch
    loop.loader.batch = lambda step: original(step).map(  # type: ignore[method-assign]
        lambda t: t * float("nan") if step == 2 and t.is_floating_point() else t
    )
    loop.fit()
    every_saved_number_is_finite(run)
    assert all(torch.isfinite(b).all() for b in model.buffers())


def test_an_absurd_learning_rate_ends_the_run_and_keeps_the_last_good(tmp_path: Path) -> None:
    loop, run, _ = start(tmp_path / "run", table(), lr=1e20, epochs=50)
    with pytest.raises(DivergedError, match=r"checkpoint of step \d+ is kept.*--lr"):
        loop.fit()
    every_saved_number_is_finite(run)
    checkpoint, problems = run.latest_checkpoint()
    assert checkpoint is not None and not problems


@pytest.mark.parametrize("at", [0, 7, 19])
def test_a_bad_weight_never_reaches_the_disk(at: int, tmp_path: Path) -> None:
    loop, run, _ = start(tmp_path / "run", table())
    step = loop.step

    def spoil() -> None:
        step()
        if loop.now.step == at + 1:
            with torch.no_grad():
                loop.stepper.params[0].view(-1)[0] = float("inf")

    loop.step = spoil  # type: ignore[method-assign]
    with pytest.raises(DivergedError, match="weights are not finite"):
        loop.fit()
    assert run.steps() == list(range(1, at + 1))
    every_saved_number_is_finite(run)
    assert DivergedError.exit_code == 76

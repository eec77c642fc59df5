"""SIGTERM, Ctrl-C and SIGUSR1 act at the next step boundary, wherever they arrive."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from helpers import digest, fresh, make_loop, pictures
from sandglass.engine.loop import Loop
from sandglass.runs.run import Run

OPTIONS = {"epochs": 3, "batch_size": 16, "log_every": 3, "keep": 1, "ema": 0.9}


def prepare(path: Path) -> tuple[Loop, Run]:
    data = pictures()
    return make_loop(fresh("vae", data, net="mlp", latent_dim=2), data, path, **OPTIONS)


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> str:
    loop, run = prepare(tmp_path_factory.mktemp("straight") / "run")
    loop.fit()
    return digest(loop.model, run)


def at_call(loop: object, name: str, call: int, number: int, after: bool = False) -> None:
    """Raises a signal inside the ``call``-th call of a method."""
    original: Callable[..., object] = getattr(loop, name)
    calls = 0

    def wrapped(*args: object, **kwargs: object) -> object:
        nonlocal calls
        calls += 1
        if calls == call and not after:
            os.kill(os.getpid(), number)
        result = original(*args, **kwargs)
        if calls == call and after:
            os.kill(os.getpid(), number)
        return result

    setattr(loop, name, wrapped)


# (where, which call, step of the checkpoint that must follow)
MOMENTS = [
    ("run_stage", 1, 0),
    ("step", 1, 1),
    ("clock", 3, 3),
    ("log_training", 1, 3),
    ("validate", 1, 4),
    ("end_epoch", 2, 8),
    ("save", 1, 4),
    ("keep_best", 1, 4),
    ("step", 12, 12),
    ("keep_model", 1, None),
]


@pytest.mark.parametrize(("where", "call", "step"), MOMENTS, ids=lambda v: str(v))
def test_sigterm_saves_this_step_and_leaves_with_143(
    where: str, call: int, step: int | None, expected: str, tmp_path: Path
) -> None:
    found = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    loop, run = prepare(tmp_path / "run")
    at_call(loop, where, call, signal.SIGTERM)
    if step is None:  # after everything: there is nothing left to stop
        loop.fit()
    else:
        with pytest.raises(SystemExit) as left:
            loop.fit()
        assert left.value.code == 143
        assert run.steps()[-1] == step
    assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == found
    loop, run = prepare(tmp_path / "run")
    checkpoint, problems = run.latest_checkpoint()
    assert checkpoint is not None and not problems
    torch.manual_seed(5)
    loop.fit(checkpoint)
    assert digest(loop.model, run) == expected


def test_a_signal_inside_validation_repeats_the_validation(expected: str, tmp_path: Path) -> None:
    loop, run = prepare(tmp_path / "run")
    phase = loop.stepper.phases[0]
    original, calls = phase.loss, 0

    def loss(*args: object) -> object:
        nonlocal calls
        calls += not torch.is_grad_enabled()
        if calls == 1 and not torch.is_grad_enabled():
            os.kill(os.getpid(), signal.SIGTERM)
        return original(*args)

    object.__setattr__(phase, "loss", loss)
    # Two validation batches, so that the request arrives before the second.
    import sandglass.engine.validate as module

    whole = module.in_order
    module.in_order = lambda split, **kw: whole(split, 5, **kw)
    try:
        with pytest.raises(SystemExit):
            loop.fit()
    finally:
        module.in_order = whole
    checkpoint, _ = run.latest_checkpoint()
    assert checkpoint is not None and checkpoint.step == 4 and checkpoint.state["loop"]["validated"] == 0
    loop, run = prepare(tmp_path / "run")
    loop.fit(checkpoint)
    assert digest(loop.model, run) == expected


def test_ctrl_c_saves_and_raises_once(expected: str, tmp_path: Path) -> None:
    loop, run = prepare(tmp_path / "run")
    at_call(loop, "step", 5, signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        loop.fit()
    assert run.steps()[-1] == 5
    loop, run = prepare(tmp_path / "run")
    loop.fit(run.latest_checkpoint()[0])
    assert digest(loop.model, run) == expected


def test_a_second_ctrl_c_leaves_at_once(tmp_path: Path) -> None:
    loop, run = prepare(tmp_path / "run")
    at_call(loop, "step", 6, signal.SIGINT)
    at_call(loop, "clock", 7, signal.SIGINT)  # the validation asked for one too
    with pytest.raises(KeyboardInterrupt):
        loop.fit()
    checkpoint, problems = run.latest_checkpoint()
    assert checkpoint is not None and checkpoint.step == 4 and not problems


@pytest.mark.skipif(not hasattr(signal, "SIGUSR1"), reason="no SIGUSR1 on this system")
@pytest.mark.parametrize("call", range(1, 12, 2))
def test_sigusr1_saves_and_goes_on_unchanged(call: int, expected: str, tmp_path: Path) -> None:
    loop, run = prepare(tmp_path / "run")
    steps: list[int] = []
    save = run.save_checkpoint
    run.save_checkpoint = lambda step, *a: (steps.append(step), save(step, *a))  # type: ignore
    at_call(loop, "step", call, signal.SIGUSR1)
    loop.fit()
    assert call in steps
    assert digest(loop.model, run) == expected

"""Small data and training shared by the tests."""

from __future__ import annotations

import hashlib
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from sandglass import registry, rng
from sandglass.core import Batch, Model, Spec
from sandglass.data.dataset import Dataset, Split
from sandglass.data.transform import ArrayTransform
from sandglass.engine.loop import Loop
from sandglass.engine.options import Settled, Training
from sandglass.engine.progress import Silent
from sandglass.runs.run import Run
from sandglass.runs.specification import to_plain

Cli = Callable[..., tuple[int, str, str]]
"""Runs a command: exit code, standard output, standard error; the fixture ``cli``."""

_FEW = {"features": {"name": "own", "updates": 2}}
QUICK: dict[str, dict[str, dict[str, Any]]] = {
    "ais": {"ais": {"images": 5, "chains": 2, "steps": 4, "leapfrog": 2}},
    "class_accuracy": {"class_accuracy": _FEW},
    "class_shares": {"class_shares": _FEW},
    "dci": {"dci": {"trees": 2}},
    "factor_vae": {"factor_vae": {"votes": 100}},
    "fid": {"fid": _FEW},
    "fid_infinity": {"fid_infinity": _FEW},
    "inception_score": {"inception_score": _FEW},
    "kid": {"kid": _FEW},
    "modes": {"modes": {"samples": 50}},
    "ms_ssim": {"ms_ssim": {"window": 3}},
    "nearest": {"nearest": _FEW},
    "prdc": {"prdc": _FEW},
    "speed": {"speed": {"batch_size": 4, "rounds": 2, "warmup": 0}},
    "two_sample": {"two_sample": {"samples": 20, "folds": 1}},
}
"""By metric, options with which a slow one is quick: ``{"log_prob": {"log_prob": {"k": 5}}}``."""


class Quiet(Silent):
    """Keeps what was said instead of printing it."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def say(self, text: str) -> None:
        self.said.append(text)


def rows(x: Tensor, validation: Tensor | None = None) -> Dataset:
    """A table of real numbers as it is."""
    splits = {"train": Split(x)} | ({"validation": Split(validation)} if validation is not None else {})
    return Dataset("rows", Spec(tuple(x.shape[1:])), ArrayTransform(tuple(x.shape[1:])), splits, fingerprint="rows")


def pictures(n: int = 50, shape: tuple[int, ...] = (1, 8, 8), seed: int = 0) -> Dataset:
    """Random bytes in three classes, ten of them also the validation split."""
    generator = torch.Generator().manual_seed(seed)
    x = (torch.rand(n, *shape, generator=generator) * 255).to(torch.uint8)
    split = Split(x, torch.arange(n) % 3, names=tuple(f"{i}.png" for i in range(n)))
    splits = {"train": split, "validation": split.take(torch.arange(10))}
    spec = Spec(shape, "unit", classes=3)
    return Dataset("pictures", spec, ArrayTransform(shape), splits, classes=("a", "b", "c"), fingerprint="pictures")


def make_loop(
    model: Model,
    data: Dataset,
    path: Path,
    *,
    progress: Silent | None = None,
    plan: dict[str, Any] | None = None,
    clock: Callable[[], float] = time.perf_counter,
    **options: Any,
) -> tuple[Loop, Run]:
    """A loop over a new run folder, or over the run that is there, whose length then holds."""
    training = Training.of({"threads": 1, "save_seconds": 0.0, **options}).settled(
        [s for s in data.splits if s != "train"], len(data.train), model.stages()
    )
    config = {
        "model": getattr(model, "config", {}),
        "spec": to_plain(data.spec),
        "transform": data.transform.to_dict(),
        "classes": list(data.classes),
        "training": training.to_dict(),
        **({"plan": plan} if plan else {}),
    }
    run = Run(path) if (path / "config.yaml").exists() else Run.create(path, config)
    training = Settled.of(run.config["training"]) if plan else training
    return Loop(model, data, run, training, card=lambda run: "card", progress=progress or Quiet(), clock=clock), run


def fit(model: Model, data: Dataset, path: Path | None = None, **options: Any) -> Run:
    """Trains without a command line."""
    with tempfile.TemporaryDirectory() as folder:
        loop, run = make_loop(
            model, data, path or Path(folder) / "run", **{"select": "last", "log_every": 500, **options}
        )
        if path is None:
            loop.save = lambda: None  # type: ignore[method-assign]
        loop.fit()
        return run


def fresh(name: str, data: Dataset, seed: int = 0, **options: Any) -> Model:
    """A model with weights that depend on the seed."""
    with rng.forked("cpu", seed, "weights"):
        return registry.build(name, data.spec, **options)


class Draws(Model):
    """A model whose samples are what a function of their number draws."""

    provides = ()

    def __init__(self, spec: Spec, draw: Any) -> None:
        super().__init__()
        self.spec, self.draw, self.one = spec, draw, nn.Parameter(torch.zeros(()))
        self.asked: list[tuple[int, bool]] = []

    def phases(self) -> tuple[()]:
        return ()

    def sample(self, n: int, given: Batch | None = None, *, noise: bool = False) -> Tensor:
        self.asked.append((n, noise))
        return self.draw(n)


def digest(model: Model, run: Run) -> str:
    """A hash of every weight and of the metric log."""
    h = hashlib.sha256(run.metrics_file.read_bytes())
    for name, value in model.state_dict().items():
        h.update(name.encode() + value.numpy().tobytes())
    return h.hexdigest()


def stop_at(loop: Loop, step: int, act: Callable[[], None]) -> None:
    """Calls ``act`` right after a step, counted through all stages; a fit is one."""
    for name in ("step", "fit_stage"):
        original = getattr(loop, name)

        def stepping(original: Callable[[], None] = original) -> None:
            original()
            if loop.now.total == step:
                act()

        setattr(loop, name, stepping)

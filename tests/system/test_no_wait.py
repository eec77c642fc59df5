"""The host never waits for the device within a step; seen on any machine by the operations that would make it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from helpers import fresh, make_loop, rows
from made import dataset, distinct, normed, small, spec_for
from sandglass import registry
from sandglass.data.augment import AUGMENTATIONS
from sandglass.data.corrupt import CORRUPTIONS
from sandglass.data.dataset import Split
from sandglass.engine.options import Training
from sandglass.engine.train import spec_of

WAITS = ("_local_scalar_dense", "nonzero", "masked_select", "equal", "_unique", "unique_", "lift_fresh")
"""Reading a value, shapes that depend on values, and tensors made of Python values: each goes to a GPU on its own."""


class Watch(TorchDispatchMode):
    """Collects the operations that make the host wait."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.name().removeprefix("aten::").split(".")[0]
        by_mask = name in ("index", "index_put_") and any(
            isinstance(i, Tensor) and i.dtype == torch.bool for i in args[1] if i is not None
        )
        self.count += 1
        if by_mask or any(name == w or (w.endswith("_") and name.startswith(w)) for w in WAITS):
            self.found.append(name)
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize(
    ("name", "optimizer"), [*((name, "adam") for name in distinct()), ("gan", "rmsprop"), ("mvae", "sgd")]
)
def test_a_step_reads_nothing_back(name: str, optimizer: str, tmp_path: Path) -> None:
    spec = spec_for(name, "colour")
    data = dataset(spec)
    known = registry.declared(name).config["options"]
    net = {"net": {"name": "conv", "width": 4, **normed(name)}} if "net" in known else {}
    options: dict[str, Any] = {"epochs": 4, "batch_size": 8, "ema": 0.9, "clip": 1.0, "accumulate": 2}
    options["augment"] = [*AUGMENTATIONS]
    # A JPEG file is made on the host; all else is not.
    options["corrupt"] = [name for name in CORRUPTIONS if name != "jpeg"] if known.get("sees") == "auto" else []
    model = fresh(name, replace(data, spec=spec_of(data, Training.of(options))), **small(name), **net)
    loop, _ = make_loop(model, data, tmp_path / "run", **options, optimizer=optimizer)
    for _ in range(2):
        loop.step()
    with Watch() as watch:
        for _ in range(3):
            loop.step()
    assert watch.count > 300 and not watch.found, watch.found


def test_a_mask_reads_nothing_back(tmp_path: Path) -> None:
    x = torch.randn(50, 6)
    data = replace(rows(x), splits={"train": Split(x, mask=x > -1)})
    loop, _ = make_loop(fresh("vae", data, latent_dim=3), data, tmp_path / "run", epochs=4, batch_size=8)
    loop.step()
    with Watch() as watch:
        loop.step()
    assert watch.count > 50 and not watch.found, watch.found


def test_the_watch_sees_what_would_wait() -> None:
    x = torch.arange(4.0)
    for act in (lambda: float(x[0]), lambda: x[x > 1], lambda: bool((x > 1).any()), lambda: x.nonzero()):
        with Watch() as watch:
            act()
        assert watch.found

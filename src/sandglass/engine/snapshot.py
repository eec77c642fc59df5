"""All that a step changes, as the tensors of a checkpoint."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from sandglass.engine.optimizers import load_optimizer_tensors, optimizer_tensors
from sandglass.engine.sharding import state_of
from sandglass.engine.step import Stepper


def tensors(stepper: Stepper) -> dict[str, dict[str, Tensor]]:
    """By file: weights, optimisers, the figures not yet read, and with a moving average the weights to keep.

    Where the weights are divided among processes, all must ask, and get them whole.
    """
    optim: dict[str, Tensor] = {}
    for name, optimizer in stepper.optimizers.items():
        optim |= optimizer_tensors(optimizer, name)
    files = {"model": state_of(stepper.model), "optim": optim, "meter": stepper.meter.tensors()}
    return files | ({"ema": kept(stepper)} if stepper.average else {})


def kept(stepper: Stepper) -> dict[str, Tensor]:
    """The weights that are validated and worth keeping: the average if there is one."""
    return {k: v.detach().clone() for k, v in state_of(stepper.model).items()} | stepper.average.named()


def load(stepper: Stepper, files: Mapping[str, Mapping[str, Tensor]], meter: Mapping[str, Any]) -> None:
    """The inverse of :func:`tensors`; the caller fills in the weights of the model.

    Args:
        stepper: of the same stage.
        files: as they were saved.
        meter: the plain state of the meter.
    """
    for name, optimizer in stepper.optimizers.items():
        load_optimizer_tensors(optimizer, name, files["optim"])
    stepper.meter.load(files["meter"], meter)
    if stepper.average:
        stepper.average.load(files["ema"])


def finite(stepper: Stepper) -> bool:
    """Whether every weight, buffer and average is finite."""
    values = [*stepper.params, *stepper.buffers, *stepper.average.values]
    return bool(torch.stack([torch.isfinite(t).all() for t in values]).all())

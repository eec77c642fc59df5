"""What training costs on this machine, by a few steps of a copy of the model."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch

from sandglass.core import Clock, Model, Stage
from sandglass.data.augment import make_augmentation
from sandglass.data.corrupt import make_corruption
from sandglass.data.dataset import Dataset
from sandglass.data.loading import Loader
from sandglass.engine.options import Settled
from sandglass.engine.precision import settings
from sandglass.engine.processes import ALONE, Processes
from sandglass.engine.step import Stepper
from sandglass.engine.validate import validate

_WARMUP, _STEPS = 2, 3  # steps that are not timed, and the fewest that are


@dataclass(frozen=True)
class Cost:
    """What training costs on this machine.

    Args:
        step: seconds of an update.
        epoch_end: seconds of a validation.
    """

    step: float
    epoch_end: float = 0.0


def measure(
    model: Model,
    data: Dataset,
    stage: Stage,
    training: Settled,
    *,
    seconds: float = 3.0,
    most: int = 200,
    clock: Callable[[], float] = time.perf_counter,
    processes: Processes = ALONE,
) -> Cost:
    """Times updates of a stage, and a validation; it trains the model, and leaves the random generators as they were.

    Args:
        model: a copy; moved to its device and type.
        data: with a ``train`` split.
        stage: of the model.
        training: the options of that stage.
        seconds: about how long.
        most: at most so many updates.
        clock: tells the time.
        processes: that train together.
    """
    device = torch.device(training.device)
    model = model.to(device, torch.float64 if training.precision == "fp64" else torch.float32)
    stepper = Stepper(model, stage, training, processes)
    loader = Loader(
        data.train,
        training.batch_size,
        seed=training.seed,
        device=device,
        dtype=model.dtype,
        augment=make_augmentation(training.augment, data.spec),
        corrupt=make_corruption(training.corrupt, data.spec),
        stream=stage.name,
        rows=stepper.gradient.rows,
        least=stepper.gradient.least,
        labelled_share=training.labelled_share or 0.0,
    )
    with torch.enable_grad(), settings(training, processes.local):
        stepper.train()
        done, begun = 0, clock()
        while done < _WARMUP + _STEPS or (done < most and clock() - begun < seconds):
            if done == _WARMUP:
                _wait(device)
                begun = clock()
            epoch = torch.zeros((), dtype=model.dtype, device=device)
            total = training.epochs * loader.steps_per_epoch
            place = done % loader.steps_per_epoch
            stepper(loader.batch(place), Clock(done, total, epoch), 1.0, loader.size(place))
            stepper.meter.read()  # its buffer is limited
            done += 1
        _wait(device)
        step = (clock() - begun) / (done - _WARMUP)
        if training.watch == "none" or not len(data.splits[training.watch]):
            return Cost(step)
        split = data.splits[training.watch]
        some = split.take(torch.arange(min(len(split), 256)))
        begun = clock()
        validate(stepper, some, Clock(0, 1, torch.zeros((), dtype=model.dtype, device=device)))
        return Cost(step, (clock() - begun) * len(split) / len(some))


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)

"""``train --dry-run``: estimates time and memory of training from a few steps."""

from __future__ import annotations

import sys
import time

import torch

from sandglass import api, rng
from sandglass.app.configure import Config, given_options
from sandglass.app.output import duration, table
from sandglass.core import Clock, Model, Stage
from sandglass.data.augment import make_augmentation
from sandglass.data.corrupt import make_corruption
from sandglass.data.dataset import Dataset
from sandglass.data.loading import Loader
from sandglass.engine.options import Settled, Training
from sandglass.engine.precision import settings
from sandglass.engine.step import Stepper
from sandglass.engine.train import check_changes, spec_of

_SECONDS = 3.0
_STEPS = 30


def dry_run(config: Config, data: Dataset) -> int:
    """Prints parameters, time and memory without writing anything."""
    name, options = config["model"]["name"], given_options(config["model"]["options"])
    asked = Training.of(config["training"])
    model = api.build(name, spec_of(data, asked), seed=asked.seed, **options)
    check_changes(model, data, asked)
    stages = model.stages()
    training = asked.settled([s for s in data.splits if s != "train"], len(data.train), stages)
    weights = sum(p.numel() for p in model.parameters())
    shape = "x".join(map(str, data.spec.shape))
    net = model.config["options"].get("net")
    rows = [
        ["model", f"{name}, net {net['name']}" if isinstance(net, dict) and "name" in net else name],
        ["data", f"{data.name}: {', '.join(f'{len(s):,} {n}' for n, s in data.splits.items())}, {shape}"],
        ["parameters", f"{weights:,}"],
        ["device", f"{training.device}, {training.precision}, {training.threads} threads"],
    ]
    trained = [stage for stage in stages if stage.phases]
    model = model.to(training.device, torch.float64 if training.precision == "fp64" else torch.float32)
    if training.device.startswith("cuda"):
        torch.cuda.reset_peak_memory_stats(training.device)
    total, epochs = 0.0, []
    for stage in trained:
        own = training.of_stage(stage.name)
        of = f", {stage.name}" if len(trained) > 1 else ""
        seconds, steps = measure(model, data, stage, own)
        rows.append([f"step{of}", f"{seconds * 1e3:.3g} ms ({own.batch_size} examples)"])
        rows.append([f"epoch{of}", f"about {duration(seconds * steps)} ({steps:,} steps), without validation"])
        total += seconds * steps * own.epochs
        epochs.append(str(own.epochs))
    rows.append(["total", f"about {duration(total)} ({' + '.join(epochs)} epochs)"])
    rows.append(["memory", memory(torch.device(training.device))])
    table(["would train", ""], rows)
    print("Nothing was written.")
    return 0


def measure(model: Model, data: Dataset, stage: Stage, training: Settled) -> tuple[float, int]:
    """Seconds per step of a stage, and steps per epoch."""
    device = torch.device(training.device)
    loader = Loader(
        data.train,
        training.batch_size,
        seed=training.seed,
        device=device,
        dtype=model.dtype,
        augment=make_augmentation(training.augment, data.spec),
        corrupt=make_corruption(training.corrupt, data.spec),
    )
    with rng.forked(device), settings(training):
        stepper = Stepper(model, stage, training)
        stepper.train()
        times: list[float] = []
        begun = time.perf_counter()
        while len(times) < 3 or (len(times) < _STEPS and time.perf_counter() - begun < _SECONDS):
            place = len(times)
            start = time.perf_counter()
            epoch = torch.zeros((), dtype=model.dtype, device=device)
            clock = Clock(place, training.epochs * loader.steps_per_epoch, epoch)
            stepper(loader.batch(place % loader.steps_per_epoch), clock, 1.0)
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            times.append(time.perf_counter() - start)
            stepper.meter.read()  # its buffer is limited
    settled = sorted(times[1:])  # the first step includes set-up
    return settled[len(settled) // 2], loader.steps_per_epoch


def memory(device: torch.device) -> str:
    """The peak memory, as text."""
    if device.type == "cuda":
        return f"about {torch.cuda.max_memory_allocated(device) / 2**20:,.0f} MiB on the device"
    return f"about {peak_memory():,.0f} MiB for the whole process"


def peak_memory() -> float:
    """The peak memory of this process in MiB; 0 where the system does not report it."""
    try:
        import resource
    except ImportError:
        return 0.0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**20 if sys.platform == "darwin" else peak / 2**10

"""``train --dry-run``: what a training would take, from a few steps on a copy that is thrown away."""

from __future__ import annotations

import sys
import time

import torch

from sandglass import api, rng
from sandglass.app.configure import Config, given_options
from sandglass.app.output import duration, table
from sandglass.core import Clock, Model
from sandglass.data.augment import make_augmentation
from sandglass.data.corrupt import make_corruption
from sandglass.data.dataset import Dataset
from sandglass.data.loading import Loader
from sandglass.engine.options import Settled, Training
from sandglass.engine.precision import settings
from sandglass.engine.step import Stepper
from sandglass.engine.train import check_changes

_SECONDS = 3.0
_STEPS = 30


def dry_run(config: Config, data: Dataset) -> int:
    """Prints parameters, time and memory; writes nothing."""
    training = Training.of(config["training"]).settled([s for s in data.splits if s != "train"], len(data.train))
    name, options = config["model"]["name"], given_options(config["model"]["options"])
    model = api.build(name, data.spec, seed=training.seed, **options)
    check_changes(model, data, training)
    weights = sum(p.numel() for p in model.parameters())
    batch_seconds, steps, memory = measure(model, data, training)
    epoch = batch_seconds * steps
    shape = "x".join(map(str, data.spec.shape))
    net = model.config["options"].get("net")
    rows = [
        ["model", f"{name}, net {net['name']}" if isinstance(net, dict) and "name" in net else name],
        ["data", f"{data.name}: {', '.join(f'{len(s):,} {n}' for n, s in data.splits.items())}, {shape}"],
        ["parameters", f"{weights:,}"],
        ["device", f"{training.device}, {training.precision}, {training.threads} threads"],
        ["a step", f"{batch_seconds * 1e3:.3g} ms ({training.batch_size} examples)"],
        ["an epoch", f"about {duration(epoch)} ({steps:,} steps), without validation"],
        ["in all", f"about {duration(epoch * training.epochs)} ({training.epochs} epochs)"],
        ["memory", memory],
    ]
    table(["would train", ""], rows)
    print("Nothing was written.")
    return 0


def measure(model: Model, data: Dataset, training: Settled) -> tuple[float, int, str]:
    """Seconds a step, steps an epoch, and memory in words."""
    device = torch.device(training.device)
    dtype = torch.float64 if training.precision == "fp64" else torch.float32
    model = model.to(device, dtype)
    loader = Loader(
        data.train,
        training.batch_size,
        seed=training.seed,
        device=device,
        dtype=dtype,
        augment=make_augmentation(training.augment, data.spec),
        corrupt=make_corruption(training.corrupt, data.spec),
    )
    cuda = device.type == "cuda"
    if cuda:
        torch.cuda.reset_peak_memory_stats(device)
    with rng.forked(device), settings(training):
        stepper = Stepper(model, training)
        times: list[float] = []
        begun = time.perf_counter()
        while len(times) < 3 or (len(times) < _STEPS and time.perf_counter() - begun < _SECONDS):
            place = len(times)
            start = time.perf_counter()
            clock = Clock(place, training.epochs * loader.steps_per_epoch, torch.zeros((), dtype=dtype, device=device))
            stepper(loader.batch(place % loader.steps_per_epoch), clock, 1.0)
            if cuda:
                torch.cuda.synchronize(device)
            times.append(time.perf_counter() - start)
            stepper.meter.read()  # it holds only so many updates
    settled = sorted(times[1:])  # the first step pays for set-up
    if cuda:
        memory = f"about {torch.cuda.max_memory_allocated(device) / 2**20:,.0f} MiB on the device"
    else:
        memory = f"about {peak_memory():,.0f} MiB for the whole process"
    return settled[len(settled) // 2], loader.steps_per_epoch, memory


def peak_memory() -> float:
    """The most memory this process has held so far, in MiB; 0 where the system does not say."""
    try:
        import resource
    except ImportError:
        return 0.0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**20 if sys.platform == "darwin" else peak / 2**10

"""``train --dry-run``: estimates time and memory of training from a few steps."""

from __future__ import annotations

import sys

import torch

from sandglass import api
from sandglass.app.configure import Config, given_options
from sandglass.app.output import counted, duration, table
from sandglass.data.dataset import Dataset
from sandglass.engine.batches import updates_per_epoch
from sandglass.engine.options import Training
from sandglass.engine.timing import measure
from sandglass.engine.train import check_changes, plan_minutes, spec_of, stages_for

_SECONDS = 3.0
_STEPS = 30


def dry_run(config: Config, data: Dataset, *, width: bool = False) -> int:
    """Prints parameters, time and memory without writing anything.

    Args:
        config: complete.
        data: to train on.
        width: whether the width of the net may be chosen to fit a number of minutes.
    """
    name, options = config["model"]["name"], given_options(config["model"]["options"])
    asked = Training.of(config["training"])
    model = api.build(name, spec_of(data, asked), seed=asked.seed, **options)
    check_changes(model, data, asked)
    chosen = ""
    if asked.minutes is not None:
        plan, model = plan_minutes(model, data, asked, width=width)
        asked, chosen = plan.applied(asked), plan.line()
    stages = stages_for(model, data, asked)
    training = asked.settled([s for s in data.splits if s != "train"], len(data.train), stages)
    weights = sum(p.numel() for p in model.parameters())
    shape = "x".join(map(str, data.spec.shape))
    net = model.config["options"].get("net")
    rows = [
        ["model", f"{name}, net {net['name']}" if isinstance(net, dict) and "name" in net else name],
        ["data", f"{data.name}: {', '.join(f'{len(s):,} {n}' for n, s in data.splits.items())}, {shape}"],
        ["parameters", f"{weights:,}"],
        ["device", f"{training.device}, {training.precision}, {counted(training.threads, 'thread')}"],
    ]
    trained = [stage for stage in stages if stage.phases]
    model = model.to(training.device, torch.float64 if training.precision == "fp64" else torch.float32)
    if training.device.startswith("cuda"):
        torch.cuda.reset_peak_memory_stats(training.device)
    total, epochs = 0.0, []
    for stage in trained:
        own = training.of_stage(stage.name)
        of = f", {stage.name}" if len(trained) > 1 else ""
        cost = measure(model, data, stage, own, seconds=_SECONDS, most=_STEPS)
        seconds, steps = cost.step, updates_per_epoch(stage, own.batch_size, own.accumulate, len(data.train))
        rows.append([f"step{of}", f"{seconds * 1e3:.3g} ms ({own.batch_size} examples)"])
        rows.append([f"epoch{of}", f"about {duration(seconds * steps)} ({steps:,} steps), without validation"])
        total += seconds * steps * own.epochs
        epochs.append(str(own.epochs))
    of = "epoch" if epochs == ["1"] else "epochs"
    rows.append(["total", f"about {duration(total)} ({' + '.join(epochs)} {of})"])
    rows.append(["memory", memory(torch.device(training.device))])
    table(["would train", ""], rows)
    if chosen:
        print(chosen)
    print("Nothing was written.")
    return 0


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

"""Sandglass: its own loop, with its log, checkpoints and a sheet of pictures every epoch, without validation."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

import sandglass
from benchmarks.speed.channel import Channel, Job, run, timed
from benchmarks.speed.workers.profiled import profiled
from sandglass import running
from sandglass.core import Model, Spec
from sandglass.data.dataset import Split
from sandglass.engine.loop import Loop
from sandglass.engine.options import Training
from sandglass.engine.progress import Silent
from sandglass.engine.record import describe
from sandglass.metrics.measure import measure
from sandglass.runs.card import model_card
from sandglass.runs.run import Run

NETS: dict[str, dict[str, Any]] = {
    "mlp": {"name": "mlp", "widths": [512]},
    "conv": {"name": "conv"},
    "vit": {"name": "vit"},
}


def net_of(workload: Mapping[str, Any]) -> dict[str, Any]:
    """The options of its networks."""
    return NETS[workload["net"]] | ({"activation": "leaky-relu"} if workload["model"] == "gan" else {})


def model_of(workload: Mapping[str, Any], spec: Spec) -> Model:
    """The model."""
    codes = {} if workload["model"] == "vq-vae" else {"latent_dim": workload["latent"]}
    return sandglass.build(workload["model"], spec, seed=0, net=net_of(workload), **codes, **workload["options"])


def options_of(workload: Mapping[str, Any], epochs: int) -> dict[str, Any]:
    """The options of its training."""
    own = {"ema": 0.0} if workload["model"] == "gan" else {}
    same = {"batch_size": workload["batch"], "lr": workload["rate"], "watch": "none", "select": "last"}
    return {**own, **same, "epochs": epochs, "sheets": epochs}


class Paced(Loop):
    """The training loop, held at the end of every epoch; the clock of its checkpoints stands still meanwhile."""

    def end_epoch(self) -> None:
        super().end_epoch()
        self.pause()

    def pause(self) -> None:
        """Set by the worker."""


class Worker:
    """Trains one workload, and uses the model."""

    def __init__(self, channel: Channel, job: Job) -> None:
        torch.set_num_threads(job.threads)
        if job.device != "cpu":
            channel.synchronise = torch.cuda.synchronize
        self.channel, self.device = channel, job.device
        examples = sandglass.load_data(np.load(job.data), validation=0, test=0)
        model = model_of(job.workload, examples.spec)
        own = {"device": job.device, "threads": job.threads, **job.options}
        options = Training.of(options_of(job.workload, job.epochs + 1) | own)
        training = options.settled([], len(examples.train), model.stages())
        self.run = Run.create(Path(tempfile.mkdtemp(dir=job.folder)) / "run", describe(model, examples, training, None))
        clock = lambda: time.perf_counter() - channel.waited  # noqa: E731
        self.loop = Paced(model, examples, self.run, training, card=model_card, progress=Silent(), clock=clock)
        self.loop.pause = lambda: channel.lap(self)  # type: ignore[method-assign]
        self.model, self.train = model, examples.train

    def about(self) -> dict[str, Any]:
        return {
            "parameters": sum(p.numel() for p in self.model.parameters()),
            "versions": {"sandglass": sandglass.__version__, "torch": torch.__version__.split("+")[0]},
            "precision": self.loop.options.precision,
        }

    def fit(self) -> None:
        self.channel.wait(self)
        self.loop.fit()

    def some(self, n: int) -> Split:
        """The first examples."""
        return self.train.take(torch.arange(n))

    def generate(self, n: int) -> float:
        return timed(lambda: running.sample(self.model, n))

    def encode(self, n: int) -> float:
        return timed(lambda: running.encode(self.model, self.some(n)))

    def score(self, n: int) -> float:
        return timed(lambda: running.over(self.model, self.some(n), self.model.score))

    def save(self) -> float:
        self.loop._saved = None  # this step was perhaps saved before
        return timed(self.loop.save)

    def weights(self, path: str) -> None:
        """Saves the weights in the order of the layers."""
        np.savez(path, *[p.detach().cpu().numpy() for p in self.model.parameters()])

    def log_prob(self, path: str, start: int, stop: int, k: int) -> dict[str, Any]:
        """``log p(x)`` of some examples by importance sampling, and the seconds it took."""
        split = Split(torch.from_numpy(np.load(path)[start:stop]))
        since = time.perf_counter()
        (found,) = measure(self.model, split, names=["log_prob"], log_prob={"k": k}, seed=start)
        assert found.each is not None
        values = found.each.tolist()
        seconds = time.perf_counter() - since
        return {"seconds": seconds, "values": [round(value, 4) for value in values], "note": found.note}

    def profile(self, steps: int) -> dict[str, Any]:
        """Where the time of a step goes; no epoch can follow."""
        return profiled(self.loop.step, steps)


if __name__ == "__main__":
    run(Worker)

"""Throughput of a model on this machine."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from statistics import quantiles
from time import perf_counter

import torch
from torch import Tensor

from sandglass.core import Batch, Model
from sandglass.errors import ConfigError
from sandglass.metrics._bootstrap import median
from sandglass.metrics.evaluation import Evaluation
from sandglass.registry import register
from sandglass.running import conditions, placed
from sandglass.runs.result import Result


@register("speed", kind="metric")
class Speed:
    """Examples encoded, decoded and sampled per second on this machine, one batch at a time.

    Args:
        batch_size: examples per batch.
        rounds: batches to time; the median is reported.
        warmup: untimed batches before those.
    """

    needs = ()
    figures = ("encode_speed", "decode_speed", "sample_speed")
    limits: Mapping[str, str] = {"encode_speed": "a model that encodes", "decode_speed": "a model that decodes"}
    by_default = False
    repeats = False

    def __init__(self, *, batch_size: int = 64, rounds: int = 20, warmup: int = 3) -> None:
        if batch_size < 1 or rounds < 2 or warmup < 0:
            raise ConfigError(
                f"speed needs batch_size >= 1, rounds >= 2 and warmup >= 0, not {batch_size}, {rounds} and {warmup}."
            )
        self.batch_size, self.rounds, self.warmup = batch_size, rounds, warmup

    def __call__(self, model: Model, evaluation: Evaluation) -> Sequence[Result]:
        """The median speed of each operation the model supports; a small split is repeated to fill a batch."""
        index = torch.arange(self.batch_size) % len(evaluation.split)
        batch = placed(model, evaluation.split.batch(index.to(evaluation.split.x.device)))
        given = placed(model, conditions(model, evaluation.split, self.batch_size, evaluation.seed, "speed"))
        work: dict[str, Callable[[], Tensor]] = {"sample_speed": lambda: model.sample(self.batch_size, given)}
        if "encode" in model.provides:
            work["encode_speed"] = lambda: model.encode(batch)
        if "decode" in model.provides:
            z = model.encode(batch) if "encode" in model.provides else self.prior_draws(model, batch)
            work["decode_speed"] = lambda: model.decode(z, batch)
        return [self.rate(figure, work[figure], model.device) for figure in self.figures if figure in work]

    def prior_draws(self, model: Model, batch: Batch) -> Tensor:
        """``(batch_size, D)`` codes drawn from the prior, for a model without an encoder."""
        prior = model.prior(batch)
        return prior.sample(torch.Size([] if prior.batch_shape else [self.batch_size]))

    def rate(self, figure: str, do: Callable[[], Tensor], device: torch.device) -> Result:
        """Examples per second of one operation; the standard error treats rounds as independent."""
        for _ in range(self.warmup):
            do()
        seconds = []
        for _ in range(self.rounds):
            wait(device)
            begun = perf_counter()
            do()
            wait(device)
            seconds.append(perf_counter() - begun)
        fast, _, slow = quantiles(seconds, n=4, method="inclusive")
        middle, error = median(torch.tensor(seconds, dtype=torch.float64))
        where = f"{torch.get_num_threads()} CPU thread(s)" if device.type == "cpu" else device.type
        note = (
            f"{where}; batches of {self.batch_size}; median of {self.rounds} after {self.warmup} to warm up, "
            f"quartiles {self.batch_size / slow:.4g} and {self.batch_size / fast:.4g}"
        )
        value = self.batch_size / middle
        return Result(figure, value, value * error / middle, self.rounds * self.batch_size, "examples/s", note)


def wait(device: torch.device) -> None:
    """Waits until the device has finished all queued work."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()

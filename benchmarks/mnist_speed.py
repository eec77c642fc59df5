"""Ten epochs of the recipe ``mnist-512-2`` compared with a plain PyTorch loop, interleaved by epoch.

The plain loop is optimised: images as bytes on the device, shuffled by index, one fused loss, Adam, and no logging,
checks or checkpoints. Run it as ``python benchmarks/mnist_speed.py [--epochs 10] [--device cpu]``.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import sandglass
from sandglass.data.dataset import Dataset
from sandglass.engine import step as step_module
from sandglass.engine.loop import Loop
from sandglass.engine.options import Training
from sandglass.engine.progress import Silent
from sandglass.engine.record import describe
from sandglass.runs.run import Run

BATCH, RATE = 256, 1e-3


class PlainVAE(nn.Module):
    """A 784-512-2-512-784 VAE in plain PyTorch."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder, self.heads = nn.Linear(784, 512), nn.Linear(512, 4)
        self.hidden, self.out = nn.Linear(2, 512), nn.Linear(512, 784)

    def loss(self, x: Tensor) -> Tensor:
        """Binary cross-entropy plus KL divergence, in nats per image."""
        mean, log_variance = self.heads(F.relu(self.encoder(x))).chunk(2, 1)
        z = mean + torch.randn_like(mean) * (0.5 * log_variance).exp()
        logits = self.out(F.relu(self.hidden(z)))
        distortion = F.binary_cross_entropy_with_logits(logits, x, reduction="sum")
        rate = -0.5 * (1 + log_variance - mean.square() - log_variance.exp()).sum()
        return (distortion + rate) / len(x)


class PlainLoop:
    """A training loop for :class:`PlainVAE`."""

    def __init__(self, images: Tensor, device: str) -> None:
        torch.manual_seed(0)
        self.images = images.flatten(1).to(device)
        self.model = PlainVAE().to(device)
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=RATE)

    def epoch(self) -> None:
        """Trains for one epoch."""
        order = torch.randperm(len(self.images), device=self.images.device)
        for index in order.split(BATCH):
            x = self.images[index].float().div_(255)
            self.optimizer.zero_grad()
            self.model.loss(x).backward()
            self.optimizer.step()


class Interleaved(Loop):
    """Our loop, which runs an epoch of the plain loop after each of its own, and times both."""

    between: Callable[[], None]
    times: list[float]
    other: list[float]

    def end_epoch(self) -> None:
        """Times our epoch, including its checkpoint, then an epoch of the plain loop."""
        super().end_epoch()
        self.times.append(lap(self.device, self.mark))
        start = now(self.device)
        self.between()
        self.other.append(lap(self.device, start))
        self.mark = now(self.device)


def now(device: torch.device) -> float:
    """The time, after synchronising the device."""
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


def lap(device: torch.device, since: float) -> float:
    """Seconds since a time."""
    return now(device) - since


def make(data: Dataset, folder: Path, epochs: int, device: str) -> Interleaved:
    """The recipe's model and settings."""
    options = {"epochs": epochs, "batch_size": BATCH, "lr": RATE, "watch": "none", "select": "last"}
    training = Training.of({**options, "device": device}).settled([], len(data.train))
    net = {"name": "mlp", "widths": [512]}
    model = sandglass.build("vae", data.spec, seed=0, latent_dim=2, net=net, likelihood="bernoulli")
    run = Run.create(folder, describe(model, data, training, None))
    loop = Interleaved(model, data, run, training, card=lambda run: "benchmark", progress=Silent())
    loop.times, loop.other = [], []
    return loop


def where_the_time_goes(loop: Loop) -> dict[str, float]:
    """A CPU profile of the steps of an epoch, as fractions of the time, by wrapping the parts of a step."""
    spent: dict[str, float] = {}

    def wrap(owner: Any, name: str, label: str) -> Callable[[], None]:
        original = getattr(owner, name)

        def timed(*args: Any, **kwargs: Any) -> Any:
            start = time.perf_counter()
            try:
                return original(*args, **kwargs)
            finally:
                spent[label] = spent.get(label, 0.0) + time.perf_counter() - start

        # Phases are frozen and tensors have slots, so plain setattr is not always allowed.
        object.__setattr__(owner, name, timed) if not isinstance(owner, type) else setattr(owner, name, timed)
        return lambda: setattr(owner, name, original) if isinstance(owner, type) else None

    undo = [
        wrap(loop.loader, "batch", "bytes to a batch"),
        wrap(loop.stepper.phases[0], "loss", "forward: networks and bound"),
        wrap(torch.Tensor, "backward", "backward"),
        wrap(loop.stepper.meter, "add", "terms, checks and counts"),
    ]
    original, start = step_module.masked_step, 0.0

    def masked(*args: Any) -> None:
        begun = time.perf_counter()
        original(*args)
        spent["update (Adam)"] = spent.get("update (Adam)", 0.0) + time.perf_counter() - begun

    step_module.masked_step = masked
    start = time.perf_counter()
    for _ in range(loop.loader.steps_per_epoch):
        loop.now.step = 0 if loop.now.step >= loop.total else loop.now.step
        loop.step()
    whole = time.perf_counter() - start
    step_module.masked_step = original
    for function in undo:
        function()
    spent["all the rest"] = whole - sum(spent.values())
    return {label: seconds / whole for label, seconds in spent.items()}


def main() -> None:
    """Runs both and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    data = sandglass.load_data("mnist", validation=0)
    with tempfile.TemporaryDirectory() as folder:
        loop = make(data, Path(folder) / "run", options.epochs + 1, options.device)
        plain = PlainLoop(data.train.x, options.device)
        loop.between = plain.epoch
        loop.mark = now(loop.device)
        loop.fit()
        # The first epoch of each is a warm-up, and not counted.
        ours, theirs = loop.times[1:], loop.other[1:]
        print(
            f"{options.epochs} epochs, batch {BATCH}, {torch.get_num_threads()} threads, {options.device}, "
            f"torch {torch.__version__}"
        )
        print(f"{'':14}{'total s':>10}{'median epoch s':>16}{'images/s':>12}")
        for name, times in (("sandglass", ours), ("plain loop", theirs)):
            rate = len(data.train) / statistics.median(times)
            print(f"{name:14}{sum(times):10.2f}{statistics.median(times):16.3f}{rate:12,.0f}")
        ratios = [a / b for a, b in zip(ours, theirs, strict=True)]
        total, median = sum(ours) / sum(theirs), statistics.median(ratios)
        least = min(ours) / min(theirs)  # the epochs least disturbed by other processes
        print(f"sandglass / plain: total {total:.3f}, median of epochs {median:.3f}, fastest epochs {least:.3f}")
        if options.device == "cpu":
            for label, share in sorted(where_the_time_goes(loop).items(), key=lambda item: -item[1]):
                print(f"  {share:6.1%}  {label}")


if __name__ == "__main__":
    main()

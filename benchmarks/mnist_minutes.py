"""Digits after some minutes of training by default, as a classifier of 99 % accuracy takes them.

    python benchmarks/mnist_minutes.py [--model auto] [--minutes 5] [--option net.patch=2] [--training schedule=cosine]

Needs ``SANDGLASS_DATA`` with ``mnist/``, or downloads it. The judge is a small convolutional network trained on the
60,000 training pictures, kept in ``--out`` for the next time. The figures: its accuracy on the test pictures and its
mean confidence, the probability of the class that it finds most likely, there and on 2,000 samples, by class, with the
share of samples that it is at least half sure of. Confidence does not see missing variety: ``classes`` is the entropy
of the classes found, in nats (2.30 is an even mix).
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
import yaml
from pairs import sheet
from torch import Tensor, nn

import sandglass
from sandglass import running
from sandglass.data.dataset import Split

SAMPLES = 2000
_EPOCHS, _BATCH = 6, 128


def network() -> nn.Sequential:
    """``(B, 1, 28, 28)`` in [0, 1] to ``(B, 10)``."""
    layers: list[nn.Module] = []
    for a, b in ((1, 32), (32, 64), (64, 128)):
        layers += [nn.Conv2d(a, b, 3, padding=1, bias=False), nn.BatchNorm2d(b), nn.ReLU(), nn.MaxPool2d(2)]
    return nn.Sequential(*layers, nn.Flatten(), nn.Dropout(0.4), nn.Linear(128 * 9, 10))


def trained_judge(train: Split, file: Path) -> nn.Sequential:
    """The judge, read from a file or trained and written there."""
    judge = network()
    if file.exists():
        judge.load_state_dict(torch.load(file, weights_only=True))
        return judge.eval()
    torch.manual_seed(0)
    optimiser = torch.optim.Adam(judge.parameters(), 2e-3)
    steps = _EPOCHS * -(-len(train) // _BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 4e-3, total_steps=steps)
    for _ in range(_EPOCHS):
        for index in torch.randperm(len(train)).split(_BATCH):
            batch = train.batch(index)
            assert batch.x is not None and batch.y is not None
            optimiser.zero_grad()
            F.cross_entropy(judge(batch.x), batch.y).backward()
            optimiser.step()
            schedule.step()
    torch.save(judge.state_dict(), file)
    return judge.eval()


@torch.no_grad()
def probabilities(judge: nn.Module, x: Tensor) -> Tensor:
    """``(N, 10)``."""
    return torch.cat([judge(part).softmax(1) for part in x.split(500)])


def figures(p: Tensor) -> str:
    """The figures of some pictures, by their probabilities."""
    confidence, found = p.max(1)
    by_class = " ".join(f"{confidence[found == k].mean():.2f}" for k in range(10))
    share = torch.bincount(found, minlength=10) / len(found)
    entropy = -(share * share.clamp(min=1e-9).log()).sum()
    half = (confidence >= 0.5).double().mean()
    means = f"confidence {confidence.mean():.3f}, at least half sure {half:.3f}, classes {entropy:.2f}"
    return f"{means}; by class {by_class}"


def settings(words: list[str]) -> dict[str, Any]:
    """``net.patch=2`` to ``{"net": {"patch": 2}}``."""
    made: dict[str, Any] = {}
    for word in words:
        path, value = word.split("=", 1)
        *above, last = path.split(".")
        place = made
        for name in above:
            place = place.setdefault(name, {})
        place[last] = yaml.safe_load(value)
    return made


def main() -> None:
    """Trains, draws, judges."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="auto")
    parser.add_argument("--minutes", type=float, default=5)
    parser.add_argument("--option", nargs="*", default=[], help="options of the model")
    parser.add_argument("--training", nargs="*", default=[], help="options of the training")
    parser.add_argument("--out", type=Path, default=Path("runs/mnist-minutes"))
    asked = parser.parse_args()
    asked.out.mkdir(parents=True, exist_ok=True)
    data = sandglass.load_data("mnist")
    judge = trained_judge(data.train, asked.out / "judge.pt")
    test = data.splits["test"].batch(slice(0, None))
    assert test.x is not None and test.y is not None
    p = probabilities(judge, test.x)
    print(f"judge: accuracy {(p.argmax(1) == test.y).double().mean():.4f}\ntest pictures: {figures(p)}", flush=True)
    begun, number = time.monotonic(), len(list(asked.out.glob("run-*.png")))
    run = sandglass.train(
        asked.model, data, out=asked.out / f"run-{number}", minutes=asked.minutes,
        model_options=settings(asked.option), **settings(asked.training),
    )  # fmt: skip
    took = (time.monotonic() - begun) / 60
    x = running.sample(run.load_model(), SAMPLES, key=(0, "judge")).clamp(0, 1).cpu()
    sheet(asked.out / f"run-{number}.png", *x[:64].split(8))
    print(f"{run.config['model']['name']} after {took:.2f} minutes: {figures(probabilities(judge, x))}")


if __name__ == "__main__":
    main()

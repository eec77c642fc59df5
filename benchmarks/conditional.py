"""Pictures drawn given a label by ``cvae`` and ``conditional-gan``, with the options that a person gets by default.

    python benchmarks/conditional.py digits [--seeds 0 1 2]
    python benchmarks/conditional.py mnist [--epochs 20] [--limit 20000]

The metric ``class_accuracy`` judges them: it trains a classifier on the training pictures, and counts the samples that
it finds to be of the label they were drawn under, as many as there are test pictures and in their proportions. Beside
it, the same classifier on the test pictures themselves, on draws from one Gaussian for each label, and on training
pictures of the label with noise. ``spread`` is the standard deviation of a pixel within a label, which accuracy says
nothing about: a model that draws the same picture of a label every time has none.

Epochs are the default on digits (96), and on MNIST the few named in ``EPOCHS``. Runs and sheets, a row for each label,
are left in ``--out``.
"""

from __future__ import annotations

import argparse
import statistics
import time
from pathlib import Path

import torch
from torch import Tensor, nn

import sandglass
from sandglass import running
from sandglass.app.main import main as command
from sandglass.core import Batch, Model, Spec
from sandglass.data.dataset import Dataset
from sandglass.metrics.measure import context_of, measure

MODELS = ("cvae", "conditional-gan")
EPOCHS = {"mnist": {"cvae": 4, "conditional-gan": 3}}
NOISE = 0.2
_EACH = 50  # draws of a label for the spread


class Baseline(Model):
    """What draws ``(n, *shape)`` given labels without having been trained."""

    provides = ()
    needs = ("labels",)

    def __init__(self, spec: Spec) -> None:
        super().__init__()
        self.spec, self.latents, self.anchor = spec, (), nn.Parameter(torch.zeros(()))

    def phases(self) -> tuple[()]:
        """None: there is nothing to train."""
        return ()


class Gaussians(Baseline):
    """One Gaussian for each label, with the mean and the covariance of its training pictures."""

    def __init__(self, data: Dataset) -> None:
        super().__init__(data.spec)
        self.config = {"name": "gaussians", "options": {}}
        train = data.train.batch(slice(0, None))
        self.means, self.factors = [], []
        for k in range(data.spec.classes):
            x = train.x[train.y == k].flatten(1).double()
            self.means.append(x.mean(0))
            self.factors.append(torch.linalg.cholesky(x.T.cov() + 1e-4 * torch.eye(x.shape[1], dtype=x.dtype)))

    def sample(self, n: int, given: Batch | None = None, *, noise: bool = False) -> Tensor:
        """Draws, held within [0, 1]."""
        assert given is not None and given.y is not None
        drawn = [self.means[k] + self.factors[k] @ torch.randn(len(self.means[k])).double() for k in given.y.tolist()]
        return torch.stack(drawn).clamp(0, 1).float().view(-1, *self.spec.shape)


class Noisy(Baseline):
    """A training picture of the label, with Gaussian noise of standard deviation ``NOISE``."""

    def __init__(self, data: Dataset) -> None:
        super().__init__(data.spec)
        self.config = {"name": "noisy", "options": {}}
        train = data.train.batch(slice(0, None))
        self.pictures = [train.x[train.y == k] for k in range(data.spec.classes)]

    def sample(self, n: int, given: Batch | None = None, *, noise: bool = False) -> Tensor:
        """Draws, held within [0, 1]."""
        assert given is not None and given.y is not None
        x = torch.stack([self.pictures[k][torch.randint(len(self.pictures[k]), ())] for k in given.y.tolist()])
        return (x + NOISE * torch.randn_like(x)).clamp(0, 1)


def figures(model: Model, data: Dataset) -> dict[str, float]:
    """Class accuracy of samples and of test pictures, and the spread of samples."""
    found = {r.name: r.value for r in measure(model, data.splits["test"], names=["class_accuracy"], **context_of(data))}
    labels = torch.arange(data.spec.classes).repeat_interleave(_EACH)
    drawn = running.sample(model, len(labels), key=(0, "spread"), given=Batch(y=labels))
    return found | {"spread": spread(drawn, labels)}


def spread(x: Tensor, y: Tensor) -> float:
    """The standard deviation of a pixel within a label, over all of them."""
    return float(torch.stack([x[y == k].flatten(1).std(0) for k in y.unique()]).mean())


def row(name: str, accuracy: list[float], within: list[float], more: str = "") -> None:
    """A line of the table: the median, and the range where there are several."""
    scatter = f" ({min(accuracy):.3f} to {max(accuracy):.3f})" if len(accuracy) > 1 else ""
    line = f"{name:<28} {statistics.median(accuracy):.3f}{scatter}  spread {statistics.median(within):.3f}  {more}"
    print(line.rstrip(), flush=True)


def main() -> None:
    """Trains, measures, draws."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", choices=("digits", "mnist"))
    parser.add_argument("--models", nargs="+", choices=MODELS, default=MODELS)
    parser.add_argument("--epochs", type=int)
    parser.add_argument("--limit", type=int, help="training pictures; all when not given")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--out", type=Path, default=Path("runs/conditional"))
    asked = parser.parse_args()
    data = sandglass.load_data(asked.data, limit=asked.limit)
    test = data.splits["test"].batch(slice(0, None))
    assert test.y is not None
    print(f"{asked.data}: {len(data.train):,} training pictures, {len(test):,} test pictures", flush=True)
    gaussians = figures(Gaussians(data), data)
    row("test pictures", [gaussians["class_accuracy_examples"]], [spread(test.x, test.y)])
    row("a Gaussian for each label", [gaussians["class_accuracy_samples"]], [gaussians["spread"]])
    noisy = figures(Noisy(data), data)
    row("training pictures, noise", [noisy["class_accuracy_samples"]], [noisy["spread"]])
    for name in asked.models:
        start, found = time.perf_counter(), []
        epochs = asked.epochs or EPOCHS.get(asked.data, {}).get(name)
        for seed in asked.seeds:
            out = free(asked.out / f"{name}-{asked.data}")
            run = sandglass.train(name, data, out=out, epochs=epochs, threads=1, seed=seed)
            found.append(figures(sandglass.load(run), data))
            command(["generate", str(out), "--label", "each", "-o", f"{out}.png"])
        minutes = (time.perf_counter() - start) / 60 / len(found)
        row(name, [f["class_accuracy_samples"] for f in found], [f["spread"] for f in found], f"{minutes:.1f} minutes")


def free(path: Path) -> Path:
    """The next folder of that name that is not there."""
    return next(p for n in range(1, 10**6) if not (p := path.with_name(f"{path.name}-{n}")).exists())


if __name__ == "__main__":
    main()

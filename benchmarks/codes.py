"""Discrete codes on digits and MNIST: how they are used, what they cost, and what samples of them look like.

    python benchmarks/codes.py [--data digits mnist] [--models vq-vae fsq-vae vae] [--seeds 0] [--out FOLDER]

Trains each model with its defaults, on 5,000 training pictures of MNIST (``--limit``), and measures the best weights on
at most 2,000 test pictures. ``--epochs`` and ``--prior-epochs`` shorten the training on a slow machine; the first line
says so.
The row "... independent" is a trivial baseline: the same encoder and decoder, and a prior in which every place has the
frequencies of its codes in training, and no place knows another.

used, perplexity    of all codes of the test pictures: the share of the codebook in use, and e to their entropy
bits                what the codes of a picture take under the prior, or the rate of the VAE, in bits
distortion, sum     -log p(x|k) in nats, and with the rate: the negative bound
mse                 of reconstructions
fid                 in features of the data's own, of as many samples as there are test pictures
taken for digits    share of samples that a support vector machine takes for one of the ten digits. It was taught an
                    eleventh class: pictures whose halves or quarters are of different digits. Beside it, what share of
                    test pictures and of reconstructions it takes for digits
"""

from __future__ import annotations

import argparse
import statistics
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from pairs import free, sheet
from sklearn.svm import SVC
from torch import Tensor, nn
from torch.distributions import Categorical, Distribution, Independent

import sandglass
from sandglass.core import Batch, Model
from sandglass.data.dataset import Dataset
from sandglass.metrics.measure import context_of, measure
from sandglass.quantisers.quantiser import usage
from sandglass.rng import permutation
from sandglass.running import observing, sample

COLUMNS = ("used", "perplexity", "bits", "distortion", "sum", "mse", "fid", "taken for digits", "reconstructions")
PLACES = dict.fromkeys(COLUMNS, 2) | {"used": 3, "perplexity": 1, "bits": 1, "mse": 4, "fid": 3} | {
    "taken for digits": 3,
    "reconstructions": 3,
}  # fmt: skip
SAMPLES = 2000


class Frequencies(nn.Module):
    """A prior in which places know nothing of each other.

    Args:
        codes: ``(N, n)`` of the training examples.
        size: K, how many codes there are.
    """

    def __init__(self, codes: Tensor, size: int) -> None:
        super().__init__()
        counts = nn.functional.one_hot(codes, size).sum(0) + 0.5  # of half an example more: no code is impossible
        self.register_buffer("shares", counts / counts.sum(1, keepdim=True))

    def forward(self, h: Tensor | None = None, c: Tensor | None = None, mask: Tensor | None = None) -> Distribution:
        """The distribution of ``(n,)`` codes."""
        return Independent(Categorical(self.shares), 1)


class Judge:
    """A support vector machine that knows the ten digits, and pictures put together of several.

    Args:
        data: its training pictures teach it.
    """

    def __init__(self, data: Dataset) -> None:
        x, y = data.train.batch(slice(None)).x, data.train.y
        assert y is not None
        self.none = data.spec.classes
        labels = torch.cat([y, torch.full_like(y, self.none)])
        self.svm = SVC(C=10).fit(torch.cat([x, mixed(x, 0)]).flatten(1).numpy(), labels.numpy())

    def __call__(self, x: Tensor) -> float:
        """The share of pictures that are taken for a digit."""
        return float((self.svm.predict(x.flatten(1).numpy()) != self.none).mean())


def mixed(x: Tensor, seed: int) -> Tensor:
    """Pictures whose upper and lower half, left and right half, or quarters are of different ones of ``x``."""
    shuffle = torch.Generator().manual_seed(seed)
    n, _, height, width = x.shape
    a, b, c = (x[torch.randperm(n, generator=shuffle)] for _ in range(3))
    made, row, column = x.clone(), height // 2, width // 2
    made[0::3, :, :row] = a[0::3, :, :row]
    made[1::3, :, :, :column] = a[1::3, :, :, :column]
    made[2::3, :, :row] = a[2::3, :, :row]
    made[2::3, :, :, :column] = b[2::3, :, :, :column]
    made[2::3, :, :row, :column] = c[2::3, :, :row, :column]
    return made


def main() -> None:
    """Trains, measures, prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", nargs="+", default=["digits", "mnist"], choices=["digits", "mnist"])
    parser.add_argument("--models", nargs="+", default=["vq-vae", "fsq-vae", "vae"])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--limit", type=int, default=5000, help="training pictures of MNIST")
    parser.add_argument("--epochs", type=int, help="the default when not given")
    parser.add_argument("--prior-epochs", type=int, help="the default when not given")
    parser.add_argument("--out", type=Path, default=Path("runs"))
    options = parser.parse_args()
    for name in options.data:
        data = sandglass.load_data(name, **({"limit": options.limit} if name == "mnist" else {}))
        split = data.splits["test"].take(permutation(len(data.splits["test"]), 0)[:SAMPLES])
        data = replace(data, splits=data.splits | {"test": split})
        judge, test = Judge(data), split.batch(slice(None)).x
        length = f"epochs {options.epochs or 'default'}, of the prior {options.prior_epochs or 'default'}"
        print(f"{name}: {len(data.train)} training pictures, seeds {options.seeds}, {length}", flush=True)
        print(f"{'':22}", *(f"{column:>16}" for column in COLUMNS))
        row("test pictures", [{"taken for digits": judge(test)}])
        row("mixed test pictures", [{"taken for digits": judge(mixed(test, 1))}])
        for model in options.models:
            found: dict[str, list[dict[str, float]]] = {}
            for seed in options.seeds:
                start = time.perf_counter()
                trained = train(model, data, options, seed)
                seconds = time.perf_counter() - start
                for kind, own in variants(model, trained, data).items():
                    found.setdefault(kind, []).append(figures(own, data, judge))
                    if seed == options.seeds[0]:
                        path = options.out / f"{name}-{kind.replace(' ', '-').replace(',', '')}.png"
                        sheet(path, *sample(own, 100).split(10))
            for kind, each in found.items():
                row(kind, each, f"{seconds:8.0f} s" if kind == model else "")


def train(name: str, data: Dataset, options: argparse.Namespace, seed: int) -> Model:
    """A model at its best weights."""
    settings: dict[str, Any] = {"epochs": options.epochs} if options.epochs else {}
    if options.prior_epochs and name != "vae":
        settings["stage"] = {"prior": {"epochs": options.prior_epochs}}
    out = free(options.out / f"codes-{name}-{data.name}-{seed}")
    return sandglass.load(sandglass.train(name, data, out=out, seed=seed, threads=1, **settings))


def variants(name: str, model: Model, data: Dataset) -> dict[str, Model]:
    """The model, and the trivial baseline where it has discrete codes."""
    if not hasattr(model, "pk"):
        return {name: model}
    other = sandglass.build(name, data.spec, **model.config["options"])
    other.load_state_dict(model.state_dict())
    with observing(other):
        other.pk = Frequencies(other.encode(data.train.batch(slice(None))), other.quantiser.size)
    return {name: model, f"{name}, independent": other}


def figures(model: Model, data: Dataset, judge: Judge) -> dict[str, float]:
    """What the table shows of a model, on the test pictures."""
    split = data.splits["test"]
    found = {
        r.name: r.value for r in measure(model, split, names=["bound", "reconstruction", "fid"], **context_of(data))
    }
    made = {
        "bits": found["rate"] / torch.tensor(2.0).log().item(),
        "distortion": found["distortion"],
        "sum": -found["elbo"],
        "mse": found["mse"],
        "fid": found["fid"],
        "taken for digits": judge(sample(model, SAMPLES)),
    }
    with observing(model):
        batches = [split.batch(part) for part in torch.arange(len(split)).split(500)]
        made["reconstructions"] = judge(torch.cat([model.reconstruct(Batch(b.x)) for b in batches]))
        if hasattr(model, "quantiser"):
            codes = torch.cat([model.encode(b) for b in batches])
            made |= {k: float(v) for k, v in usage(codes, model.quantiser.size).items()}
    return made


def row(name: str, each: list[dict[str, float]], after: str = "") -> None:
    """Prints the medians of the seeds, and the range where there are several."""
    cells = []
    for column in COLUMNS:
        values = [figures[column] for figures in each if column in figures]
        middle = f"{statistics.median(values):.{PLACES[column]}f}" if values else ""
        spread = f" {min(values):.{PLACES[column]}f}-{max(values):.{PLACES[column]}f}" if len(values) > 1 else ""
        cells.append(f"{middle + spread:>16}")
    print(f"{name:22}", *cells, after, flush=True)


if __name__ == "__main__":
    main()

"""Codes on a sphere against normal ones of as many dimensions: bounds, and neighbours of codes.

Davidson et al. 2018, "Hyperspherical Variational Auto-Encoders" (arXiv 1804.00891), tables 1 and 2: hidden layers
of 256 and 128 units. A sphere in d + 1 numbers has d dimensions. ``python reproductions/hyperspherical.py --data mnist
--dims 2 5 10 --epochs 10``.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from sklearn.neighbors import KNeighborsClassifier

import sandglass
from sandglass import running
from sandglass.data.dataset import Split
from sandglass.metrics.measure import measure

CODES: dict[str, dict[str, Any]] = {
    "gaussian": {},
    "von-mises-fisher": {"posterior": "von-mises-fisher", "prior": "uniform-sphere"},
    "power-spherical": {"posterior": "power-spherical", "prior": "uniform-sphere"},
}


def main() -> None:
    """Trains and measures each for every number of dimensions and seed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", default="mnist", help="examples with labels")
    parser.add_argument("--dims", type=int, nargs="+", default=(2, 5, 10), help="dimensions of the space of codes")
    parser.add_argument("--seeds", type=int, default=3, help="numbers of trainings of each")
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--draws", type=int, default=100, help="of the bound on log p(x)")
    parser.add_argument("--examples", type=int, default=2000, help="of the test set that are measured")
    parser.add_argument("--codes", nargs="+", choices=CODES, default=tuple(CODES))
    options = parser.parse_args()
    data = sandglass.load_data(options.data)
    lines = []
    for dims in options.dims:
        for name in options.codes:
            given = options.epochs, options.draws, options.examples
            found = [measured(data, name, dims, seed, *given) for seed in range(options.seeds)]
            columns = zip(*found, strict=True)
            cells = [f"{statistics.median(c):.2f} ({min(c):.2f} to {max(c):.2f})" for c in columns]
            lines.append(f"| {dims} | {name} | {' | '.join(cells)} |")
            print(lines[-1], flush=True)
    print(f"\n| dimensions | codes | log p(x), {options.draws} draws | bound | rate | error of 5 neighbours, % |")
    print("|---|---|---|---|---|---|", *lines, sep="\n")


def measured(data: Any, name: str, dims: int, seed: int, epochs: int, draws: int, examples: int) -> tuple[float, ...]:
    """Of test examples: log p(x) and its bound in nats, the rate, and the error of the 5 nearest codes in per cent."""
    size = dims + (name != "gaussian")
    own: dict[str, Any] = {**CODES[name], "latent_dim": size, "net": {"name": "mlp", "widths": [256, 128]}}
    with tempfile.TemporaryDirectory() as folder:
        run = sandglass.train(
            "vae", data, out=Path(folder) / "run", likelihood="bernoulli", batch_size=128, sheets=0, seed=seed,
            epochs=epochs, **own,
        )  # fmt: skip
        model = run.load_model().eval()
    test = some(data.splits.get("test") or data.splits["validation"], examples)
    value = {
        r.name: r.value for r in measure(model, test, names=["bound", "log_prob"], seed=seed, log_prob={"k": draws})
    }
    train = some(data.train, 10_000)
    classes = KNeighborsClassifier(5).fit(running.encode(model, train), train.y).predict(running.encode(model, test))
    wrong = (torch.from_numpy(classes) != test.y).double().mean()
    return value["log_prob"], value["elbo"], value["rate"], 100 * float(wrong)


def some(split: Split, n: int) -> Split:
    """The first examples of a split."""
    return replace(split, x=split.x[:n], y=split.y[:n])


if __name__ == "__main__":
    main()

"""The test ELBO of the MNIST recipes after ten epochs: median of three seeds, in nats.

The Bernoulli likelihood is applied to grey values, so the figures are comparable only among themselves. Run it as
``python benchmarks/mnist_elbo.py [--seeds 0 1 2]``.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import sandglass
from sandglass import recipes

# (recipe, changed model options, minimum of the median)
ROWS: list[tuple[str, dict[str, Any], float]] = [
    ("mnist-512-2", {}, -156.5),
    ("mnist-128-64-2", {}, -155.5),
    ("mnist-512-256-2", {}, -147.8),
    ("mnist-512-2", {"latent_dim": 16}, -107.5),
]


def train(name: str, changes: dict[str, Any], seed: int, folder: Path) -> dict[str, Any]:
    """Trains a recipe; returns its ELBO on the test split."""
    recipe = recipes.read(name)
    options = {k: v for k, v in recipe["model"].items() if k != "name"}
    options = {**options.pop("options", {}), **options, **changes}
    data = sandglass.load_data("mnist", **{k: v for k, v in recipe["data"].items() if k != "source"})
    run = sandglass.train(
        recipe["model"]["name"], data, out=folder, model_options=options, seed=seed, **recipe["training"]
    )
    return dict(sandglass.evaluate(run, metrics=["bound"])["metrics"]["elbo"])


def main() -> None:
    """Trains every row and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    seeds = parser.parse_args().seeds
    print(f"{'recipe':34}{'median':>10}{'at least':>10}   each seed (seconds)")
    for name, changes, least in ROWS:
        values, shown = [], []
        for seed in seeds:
            with tempfile.TemporaryDirectory() as folder:
                start = time.perf_counter()
                elbo = train(name, changes, seed, Path(folder) / "run")
            values.append(elbo["value"])
            shown.append(f"{elbo['value']:.2f} ({time.perf_counter() - start:.0f})")
        title = name + "".join(f" {k}={v}" for k, v in changes.items())
        print(f"{title:34}{statistics.median(values):10.2f}{least:10.1f}   {', '.join(shown)}", flush=True)


if __name__ == "__main__":
    main()

"""Codes in a hyperbolic space against flat ones, on the nodes of a tree with noise: bounds of both.

The synthetic data of Mathieu et al. 2019 (arXiv 1901.06033): a branching diffusion in 50 dimensions, of depth 6, and 50
noisy observations of every node; two latent dimensions, one hidden layer of 200 units: ``python
reproductions/poincare.py --epochs 40``.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

import sandglass
from sandglass.metrics.measure import measure


def main() -> None:
    """Trains and measures each with every seed, which is that of the tree as well."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--depth", type=int, default=6, help="of the tree")
    parser.add_argument("--dim", type=int, default=2, help="size of a code")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=40)
    parser.add_argument("--draws", type=int, default=500, help="of the bound on log p(x)")
    parser.add_argument("--curvatures", type=float, nargs="+", default=(1.0, 4.0, 16.0))
    options = parser.parse_args()
    codes: dict[str, dict[str, Any]] = {"gaussian": {}}
    for c in options.curvatures:
        codes[f"wrapped-normal, curvature {c:g}"] = {"posterior": {"name": "wrapped-normal", "curvature": c}}
    lines = []
    for name, own in codes.items():
        found = [
            measured(tree(options.depth, seed), own | {"latent_dim": options.dim}, options.epochs, options.draws, seed)
            for seed in range(options.seeds)
        ]
        cells = [f"{statistics.median(c):.2f} ({min(c):.2f} to {max(c):.2f})" for c in zip(*found, strict=True)]
        lines.append(f"| {name} | {' | '.join(cells)} |")
        print(lines[-1], flush=True)
    print(f"\n| codes | log p(x), {options.draws} draws | bound | rate |\n|---|---|---|---|", *lines, sep="\n")


def tree(depth: int, seed: int, dim: int = 50, observations: int = 50) -> np.ndarray:
    """``(N, dim)`` noisy observations of the nodes of a binary tree, each column of mean 0 and standard deviation 1.

    A child is its parent with noise of variance 1, and an observation is a node with noise of variance 0.1.
    """
    chance = np.random.default_rng(seed)
    levels = [np.zeros((1, dim))]
    for _ in range(depth):
        parents = levels[-1].repeat(2, 0)
        levels.append(parents + chance.standard_normal(parents.shape))
    nodes = np.concatenate(levels).repeat(observations, 0)
    x = nodes + 0.1**0.5 * chance.standard_normal(nodes.shape)
    return ((x - x.mean(0)) / x.std(0)).astype(np.float32)


def measured(x: np.ndarray, own: dict[str, Any], epochs: int, draws: int, seed: int) -> tuple[float, float, float]:
    """Of validation examples: log p(x), its bound, and the rate, in nats."""
    data = sandglass.load_data(x)
    with tempfile.TemporaryDirectory() as folder:
        run = sandglass.train(
            "vae", data, out=Path(folder) / "run", net={"name": "mlp", "widths": [200]}, likelihood="gaussian",
            batch_size=128, sheets=0, seed=seed, epochs=epochs, **own,
        )  # fmt: skip
        model = run.load_model().eval()
    found = measure(model, data.splits["validation"], names=["bound", "log_prob"], seed=seed, log_prob={"k": draws})
    value = {r.name: r.value for r in found}
    return value["log_prob"], value["elbo"], value["rate"]


if __name__ == "__main__":
    main()

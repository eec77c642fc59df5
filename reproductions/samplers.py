"""Samplers of codes, fitted after training: samples of an autoencoder and of a VAE by each of them.

Ghosh et al. 2020, "From Variational to Deterministic Autoencoders" (arXiv 1903.12436), draw from mixtures of ten
Gaussians; here all samplers there are, with one hidden layer of 512 units, 16 numbers a code, and distances on the
features of a small network of our own: ``python reproductions/samplers.py --data mnist --epochs 6``.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

import sandglass
from sandglass import running
from sandglass.metrics.measure import context_of, measure

KINDS = (
    *("gaussian", "gaussian-mixture components=5", "gaussian-mixture", "gaussian-mixture components=30"),
    *("kernel-density", "sphere", "two-stage", "maf", "spline"),
)


def main() -> None:
    """Trains both, then fits and measures every sampler."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", default="mnist", help="images")
    parser.add_argument("--epochs", type=int, default=6, help="of both, and of samplers that are trained")
    parser.add_argument("--seeds", type=int, default=3, help="numbers of trainings of each")
    parser.add_argument("--models", nargs="+", default=("ae", "vae"))
    parser.add_argument("--kinds", nargs="+", default=KINDS, help="samplers, with options: 'maf transforms=3'")
    options = parser.parse_args()
    data = sandglass.load_data(options.data)
    found: dict[str, list[tuple[float, float]]] = {}
    for seed in range(options.seeds):
        for model in options.models:
            for name, value in measured(data, model, options.epochs, options.kinds, seed):
                print(f"seed {seed}  {name:40}FID {value[0]:.2f}  distance to training {value[1]:.3f}", flush=True)
                found.setdefault(name, []).append(value)
    print(f"\n{'codes':40}FID, median and range of {options.seeds}; nearest training example")
    for name, values in found.items():
        fids, near = zip(*values, strict=True)
        print(
            f"{name:40}{statistics.median(fids):.1f}, {min(fids):.1f} to {max(fids):.1f}; {statistics.median(near):.3f}"
        )


def measured(
    data: Any, model: str, epochs: int, kinds: Sequence[str], seed: int
) -> Iterator[tuple[str, tuple[float, float]]]:
    """By how codes are drawn: the FID of samples, and how far they are from training examples (1: as test examples)."""
    test = data.splits.get("test") or data.splits["validation"]

    def figures(made: Any) -> tuple[float, float]:
        results = measure(made.eval(), test, names=["fid", "nearest"], seed=seed, **context_of(data))
        fid, near = (next(r.value for r in results if r.name.startswith(name)) for name in ("fid", "nearest_ratio"))
        return fid, near

    net = {"name": "mlp", "widths": [512]}
    usual: dict[str, Any] = {"batch_size": 256, "sheets": 0, "seed": seed, "epochs": epochs}
    own: dict[str, Any] = {"latent_dim": 16, "net": net, "likelihood": "bernoulli"}
    with tempfile.TemporaryDirectory() as folder:
        run = sandglass.train(model, data, out=Path(folder) / "run", **own, **usual)
        trained = run.load_model()
        if model == "vae":
            yield "vae, prior", figures(trained)
            codes = running.encode(trained, data.train)
            trained.draw = lambda n, given=None: codes[torch.randint(len(codes), (n,))]
            yield "vae, codes of training examples", figures(trained)
        for kind in kinds:
            name, *given = kind.split()
            own = {key: int(value) for key, value in (option.split("=") for option in given)}
            again = sandglass.fit_sampler(run, {"name": name, **own}, out=Path(folder) / kind, data=data)
            yield f"{model}, {kind}", figures(again.load_model())


if __name__ == "__main__":
    main()

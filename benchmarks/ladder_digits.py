"""A ladder VAE compared with a VAE of equal size on scikit-learn's digits: bounds on 350 validation images, in nats.

Split, likelihood and training are those of ``digits_categorical.py``; both models have the same decoder layers and, to
within 5 percent, the same number of weights. The figures are the negative ELBO, averaged over 20 samples of z; the rate
of each level; and the negative importance-weighted bound with 100 samples. Run it as
``python benchmarks/ladder_digits.py [--seeds 0 1 2]``.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from pathlib import Path
from typing import Any

import torch
from digits_categorical import MODEL, TRAINING, digits

import sandglass
from sandglass import rng
from sandglass.core import Model
from sandglass.data.dataset import Dataset
from sandglass.runs.run import load_model

LADDER = {
    "latent_dims": (16, 8),
    "width": 128,
    "likelihood": "categorical",
    "net": {"name": "mlp", "widths": [256], "decoder_widths": [256, 256], "activation": "leaky-relu"},
}
MODELS: dict[str, dict[str, Any]] = {"vae": MODEL, "ladder-vae": LADDER}
_DRAWS, _WEIGHTED = 20, 100


def trained(name: str, data: Dataset, seed: int, **training: Any) -> Model:
    """A trained model with its best weights by the validation images."""
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder) / "run"
        options = {**TRAINING, "threads": 1, **training}
        sandglass.train(name, data, out=run, model_options=MODELS[name], seed=seed, **options)
        return load_model(run / "model").eval()


@torch.no_grad()
def figures(model: Model, data: Dataset) -> dict[str, float]:
    """Negative ELBO, rates and negative importance-weighted bound on the validation images, in nats per image."""
    batch = data.splits["validation"].batch(slice(0, None))
    with rng.forked("cpu", 0, "figures"):
        bounds = [model.bound(batch) for _ in range(_DRAWS)]
        weighted = -float(model.log_prob(batch, _WEIGHTED).mean())
    rates = {name: statistics.fmean(float(b.rates[name].mean()) for b in bounds) for name in bounds[0].rates}
    return {"-elbo": -statistics.fmean(float(b.elbo.mean()) for b in bounds), f"-iw{_WEIGHTED}": weighted, **rates}


def main() -> None:
    """Trains both with every seed, and prints."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    data, seeds = digits(), parser.parse_args().seeds
    found: dict[str, list[float]] = {name: [] for name in MODELS}
    for seed in seeds:
        for name in MODELS:
            model = trained(name, data, seed)
            own = figures(model, data)
            found[name].append(own["-elbo"])
            size = sum(p.numel() for p in model.parameters())
            print(f"seed {seed} {name:10} {size:,} weights ", *(f"{k} {v:.2f}" for k, v in own.items()), flush=True)
    for name, values in found.items():
        print(f"{name:10} median {statistics.median(values):.2f}, mean {statistics.fmean(values):.2f} nats an image")


if __name__ == "__main__":
    main()

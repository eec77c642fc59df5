"""A ladder VAE against VAEs of equal size on scikit-learn's digits: bounds on log p(x), in nats an image.

Split, likelihood and training are those of ``digits_categorical.py``. The ladder has its default sizes, (16, 8). Beside
it stand the VAE with as many latents in all, 24, and the one of that benchmark, with 16. All have the same decoder
layers and, to within 5 percent, the same number of weights. The validation images also choose the epoch; the test
images choose nothing.

Columns: the negative bound, from one draw of z an example and the mean of 20 such draws; the negative
importance-weighted bound from 100 draws; the rate of every level. Then, for each figure, the median and range over
seeds, and the mean of the differences ladder minus VAE by seed with its standard error: below 0 the ladder is better.
Run it as ``python benchmarks/ladder_digits.py [--seeds 10 11 12 13 14]``. With ``--data mnist`` it takes the first
5,000 training images of MNIST, 1,000 of the others to validate and 1,000 test images, with a Bernoulli likelihood.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from digits_categorical import MODEL, TRAINING, digits

import sandglass
from sandglass import rng
from sandglass.core import Model
from sandglass.data.dataset import Dataset
from sandglass.runs.model_folder import load_model

LADDER = {"net": {**MODEL["net"], "widths": [256], "decoder_widths": [256, 256]}, "likelihood": MODEL["likelihood"]}
MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "vae-16": ("vae", MODEL),
    "vae-24": ("vae", {**MODEL, "latent_dim": 24}),
    "ladder-vae": ("ladder-vae", LADDER),
}
_DRAWS, _WEIGHTED = 20, 100


def mnist() -> Dataset:
    """The first 5,000 training images, 1,000 others to validate, 1,000 to test."""
    whole = sandglass.load_data("mnist")
    train, test = whole.splits["train"], whole.splits["test"]
    cuts = {"train": (train, 0, 5000), "validation": (train, 5000, 6000), "test": (test, 0, 1000)}
    return replace(whole, splits={k: s.take(torch.arange(a, b)) for k, (s, a, b) in cuts.items()}, source=None)


def trained(name: str, data: Dataset, seed: int, **changes: Any) -> Model:
    """A model at its best weights on the validation images."""
    kind, options = MODELS[name]
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder) / "run"
        training = {**TRAINING, "threads": 1}
        sandglass.train(kind, data, out=run, model_options={**options, **changes}, seed=seed, **training)
        return load_model(run / "model").eval()


@torch.no_grad()
def figures(model: Model, data: Dataset, split: str = "validation") -> dict[str, float]:
    """Negative bound, negative importance-weighted bound and rates on a split, in nats an image."""
    batch = data.splits[split].batch(slice(0, None))
    with rng.forked("cpu", 0, "figures"):
        bounds = [model.bound(batch) for _ in range(_DRAWS)]
        weighted = -float(model.log_prob(batch, _WEIGHTED).mean())
    rates = {name: statistics.fmean(float(b.rates[name].mean()) for b in bounds) for name in bounds[0].rates}
    return {"-elbo": -statistics.fmean(float(b.elbo.mean()) for b in bounds), f"-iw{_WEIGHTED}": weighted, **rates}


def summary(found: dict[str, list[dict[str, float]]], key: str) -> list[str]:
    """Median and range of a figure by model, and the ladder's difference from each VAE with its standard error."""
    lines = []
    for name, each in found.items():
        values, line = [figure[key] for figure in each], ""
        if len(values) > 1 and name != "ladder-vae":
            pairs = [own[key] - other[key] for own, other in zip(found["ladder-vae"], each, strict=True)]
            error = statistics.stdev(pairs) / len(pairs) ** 0.5
            line = f"  ladder minus this {statistics.fmean(pairs):+.2f} +- {error:.2f}"
        ends = f"{min(values):.2f} to {max(values):.2f}"
        lines.append(f"  {key:8} {name:10} median {statistics.median(values):.2f} ({ends}){line}")
    return lines


def main() -> None:
    """Trains all with every seed, and prints."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=[10, 11, 12, 13, 14])
    parser.add_argument("--data", choices=["digits", "mnist"], default="digits")
    chosen = parser.parse_args()
    data = digits() if chosen.data == "digits" else mnist()
    changes = {"likelihood": "bernoulli"} if chosen.data == "mnist" else {}
    found: dict[str, dict[str, list[dict[str, float]]]] = {
        split: {name: [] for name in MODELS} for split in ("validation", "test")
    }
    for seed in chosen.seeds:
        for name in MODELS:
            model = trained(name, data, seed, **changes)
            size = sum(p.numel() for p in model.parameters())
            for split, by_model in found.items():
                own = figures(model, data, split)
                by_model[name].append(own)
                shown = " ".join(f"{k} {v:.2f}" for k, v in own.items())
                print(f"seed {seed} {name:10} {size:,} weights  {split:10} {shown}", flush=True)
    for split, by_model in found.items():
        print(split, *summary(by_model, "-elbo"), *summary(by_model, f"-iw{_WEIGHTED}"), sep="\n")
        levels = [k for k in by_model["ladder-vae"][0] if not k.startswith("-")]
        rates = (f"{k} {statistics.median(f[k] for f in by_model['ladder-vae']):.2f}" for k in levels)
        print("  rates of the ladder, median:", ", ".join(rates))


if __name__ == "__main__":
    main()

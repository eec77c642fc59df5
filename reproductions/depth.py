"""One level, several, many: bounds, nats by level, and distances of samples of VAEs after as many epochs.

    python reproductions/depth.py --data mnist [--pictures 5000] [--epochs 4] [--seeds 1] [--out FOLDER]

``vae``, and ``ladder-vae`` and ``hierarchical-vae`` with as many latents in two levels, have the same residual network
for encoder and decoder, the default of the VAE. ``vd-vae`` has its own, and its defaults. The likelihood is the default
one of the data. All have the same learning rate, batches and epochs, and the weights of the last epoch. Bounds are
means over unseen images with standard errors, of five draws each, in nats; bits/dim where the likelihood is of levels;
distances (FID) are on the features of a small network of our own; seconds are of the processor, for an epoch.
"""

from __future__ import annotations

import argparse
import math
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from photos import limited, sheet

import sandglass
from sandglass import rng
from sandglass.core import Model
from sandglass.data.dataset import Dataset
from sandglass.metrics.measure import context_of, measure
from sandglass.models.vae import VAE

MODELS = ("vae", "ladder-vae", "hierarchical-vae", "vd-vae")
_DRAWS = 5
_USED = 0.1  # nats from which on a level counts as used


def options_of(name: str, data: Dataset) -> dict[str, Any]:
    """What is not the default of the model: latents and network of the ladders are those of the VAE."""
    if name in ("vae", "vd-vae"):
        return {}
    own = VAE.defaults(data.spec)
    upper = own["latent_dim"] // 4
    return {"net": own["net"], "latent_dims": [own["latent_dim"] - upper, upper], "beta_schedule": "warm-up"}


def trained(name: str, data: Dataset, epochs: int, lr: float, seed: int) -> tuple[Model, float]:
    """The model of the last epoch, and the seconds of processor time of an epoch."""
    begun = time.process_time()
    with tempfile.TemporaryDirectory() as folder:
        training: dict[str, Any] = {"epochs": epochs, "batch_size": 64, "lr": lr, "schedule": "cosine", "seed": seed}
        own = options_of(name, data)
        kept: dict[str, Any] = {"sheets": 0, "select": "last"}
        run = sandglass.train(name, data, out=Path(folder) / "run", model_options=own, **training, **kept)
        seconds = (time.process_time() - begun) / epochs
        return run.load_model().eval(), seconds


@torch.no_grad()
def bounds(model: Any, data: Dataset) -> tuple[float, float, dict[str, float]]:
    """The bound on unseen images, its standard error, and the rates by level, in nats."""
    elbo, rates = [], []
    with rng.forked("cpu", 0, "depth"):
        for index in torch.arange(len(data.splits["test"])).split(100):
            found = [model.bound(data.splits["test"].batch(index)) for _ in range(_DRAWS)]
            elbo.append(torch.stack([b.elbo for b in found]).mean(0))
            rates.append(torch.stack([torch.stack(list(b.rates.values())).sum(1) for b in found]).mean(0))
    each, level = torch.cat(elbo), torch.stack(rates).sum(0) / len(data.splits["test"])
    named = {latent.name: float(rate) for latent, rate in zip(model.latents, level, strict=True)}
    return float(each.mean()), float(each.std() / math.sqrt(len(each))), named


def main() -> None:
    """Trains and measures each, seed by seed, and prints a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="mnist", help="images: mnist, cifar10, or your own")
    parser.add_argument("--pictures", type=int, default=5000, help="to train on, at most")
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--lr", type=float, default=2e-3)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--models", nargs="+", choices=MODELS, default=MODELS)
    parser.add_argument("--out", type=Path, help="folder for 64 samples of each with the first seed")
    options = parser.parse_args()
    data = limited(sandglass.load_data(options.data), options.pictures)
    lines = ["| model | weights | code | bound, nats | bits/dim | levels used | nats by level | FID | s an epoch |"]
    lines.append("|" + "---|" * 9)
    for seed in range(options.seeds):
        for name in options.models:
            model, seconds = trained(name, data, options.epochs, options.lr, seed)
            elbo, error, rates = bounds(model, data)
            bits = f"{-elbo / (data.spec.size * math.log(2)):.3f}" if model.kind == "mass" else ""
            found = measure(model, data.splits["test"], names=("fid",), **context_of(data))
            fid = next(f"{r.value:.3g} ± {r.stderr:.1g}" for r in found if r.name == "fid")
            cells = [
                f"`{name}`",
                f"{sum(p.numel() for p in model.parameters()):,}",
                f"{model.code_size:,}",
                f"{elbo:.1f} ± {error:.1f}",
                bits,
                f"{sum(rate > _USED for rate in rates.values())} of {len(rates)}",
                ", ".join(f"{level} {rate:.1f}" for level, rate in rates.items()),
                fid,
                f"{seconds:.0f}",
            ]
            lines.append("| " + " | ".join(cells) + " |")
            print(lines[-1], flush=True)
            if options.out and not seed:
                options.out.mkdir(parents=True, exist_ok=True)
                sheet(model, options.out / f"{name}.png")
    print("", *lines, sep="\n")


if __name__ == "__main__":
    main()

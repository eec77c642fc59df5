"""What reconstructions are like under a cost of dissimilarity: MS-SSIM against likelihoods, on the same net.

One hidden layer of 512 units, 16 latents; 6,000 images to train on and 1,000 others. Columns, of the unseen images:
structural similarity at one and several scales, and the mean squared error of their reconstructions, and the rate in
nats. ``mean image`` reconstructs all by the mean of the training images. The costs of ``ms-ssim-vae`` are no
likelihoods, so no bound is compared.

Median and range over seeds. Run it as ``python benchmarks/dissimilarity.py [--data mnist] [--epochs 12]
[--seeds 10 11 12] [--sheet sheet.png]``, the last for pictures, or with ``--quick`` for one seed and epoch of digits.
"""

from __future__ import annotations

import argparse
import dataclasses
import statistics
import tempfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import sandglass
from sandglass import rng
from sandglass.data.dataset import Dataset
from sandglass.metrics.measure import measure

ROWS: dict[str, tuple[str, dict[str, Any]]] = {
    "vae": ("vae", {}),
    "sigma-vae": ("sigma-vae", {}),
    "ms-ssim-vae": ("ms-ssim-vae", {}),
    "ms-ssim-vae, l1=0.16": ("ms-ssim-vae", {"likelihood": {"name": "ms-ssim", "l1": 0.16}}),
}


def few(data: Dataset) -> Dataset:
    """At most 6,000 training images and 1,000 others."""
    test = data.splits.get("test") or data.splits["validation"]
    sizes = {"train": (data.train, 6000), "test": (test, 1000)}
    return dataclasses.replace(
        data, splits={name: split.take(torch.arange(min(n, len(split)))) for name, (split, n) in sizes.items()}
    )


def figures(model: Any, data: Dataset) -> dict[str, float]:
    """Of the unseen images; MS-SSIM where they are large enough for two scales."""
    several = ["ms_ssim"] if min(data.spec.shape[1:]) >= 22 else []
    names = ["ssim", *several, "mse", *(["rate"] if "bound" in model.provides else [])]
    return {r.name: r.value for r in measure(model.eval(), data.splits["test"], names=names)}


def mean_image(data: Dataset) -> dict[str, float]:
    """The figures of one reconstruction for all."""
    mean = data.train.batch(slice(0, None)).x.mean(0)
    model: Any = sandglass.build("ae", data.spec, latent_dim=2, net="mlp")
    model.reconstruct = lambda batch: mean.expand_as(batch.x)
    return figures(model, data)


@torch.no_grad()
def strip(model: Any, x: Tensor) -> Tensor:
    """Reconstructions of images in a row, and as many samples below."""
    with rng.forked("cpu", 0, "strip"):
        rows = model.reconstruct(x), model.sample(len(x))
    return torch.cat([torch.cat(list(row), 2) for row in rows], 1)


def main() -> None:
    """Trains all with every seed, and prints."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", default="mnist", help="images")
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--seeds", type=int, nargs="+", default=[10, 11, 12])
    parser.add_argument("--sheet", help="where to write a picture of reconstructions and samples, of the first seed")
    parser.add_argument("--quick", action="store_true", help="one seed and one epoch of digits")
    chosen = parser.parse_args()
    if chosen.quick:
        chosen.data, chosen.epochs, chosen.seeds = "digits", 1, chosen.seeds[:1]
    data = few(sandglass.load_data(chosen.data))
    x = data.splits["test"].batch(slice(0, 12)).x
    strips = [torch.cat(list(x), 2)]
    print("mean image:", ", ".join(f"{k} {v:.4f}" for k, v in mean_image(data).items()), flush=True)
    for row, (name, options) in ROWS.items():
        found = []
        for seed in chosen.seeds:
            options = {"latent_dim": 16, "net": {"name": "mlp", "widths": [512]}, **options}
            training: dict[str, Any] = {"epochs": chosen.epochs, "batch_size": 64, "lr": 2e-3, "schedule": "cosine"}
            with tempfile.TemporaryDirectory() as folder:
                out = Path(folder) / "run"
                run = sandglass.train(name, data, out=out, model_options=options, seed=seed, sheets=0, **training)
                model = run.load_model().eval()
            found.append(figures(model, data))
            strips += [strip(model, x)] if seed == chosen.seeds[0] else []
        texts = []
        for figure in found[0]:
            values = [each[figure] for each in found]
            texts.append(f"{figure} {statistics.median(values):.4g} ({min(values):.4g} to {max(values):.4g})")
        print(f"{row}: {', '.join(texts)}", flush=True)
    if chosen.sheet:
        from PIL import Image

        pixels = torch.cat(strips, 1).clamp(0, 1).mul(255).round().byte().permute(1, 2, 0).numpy()
        Image.fromarray(pixels.squeeze(-1) if pixels.shape[-1] == 1 else pixels).save(chosen.sheet)


if __name__ == "__main__":
    main()

"""Scales of a Gaussian decoder: fixed at 1, learned by its gradient, computed from the batch, or one for every pixel.

Rybkin, Daniilidis and Levine 2021, "Simple and Effective VAE Training with Calibrated Decoders" (arXiv 2006.13202). All
but the scale is the same: one hidden layer of 512 units, 32 latents, beta = 1 after its warm-up, and the
location is a sigmoid of the decoder's output but in one row. Columns, of test
images: the evidence bound and the distortion (nats of a density, comparable among these rows) and the rate; the FID on
features of a small network of our own, and the scale. Samples are means. Below is a Gaussian of the training images
with their mean and full covariance, whose density has no bound.

Median and range over seeds: ``python benchmarks/decoder_scale.py [--data mnist] [--epochs 6] [--seeds 10 11 12]``, or
``--quick`` for one seed and one epoch of digits.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from pathlib import Path
from typing import Any

import sandglass
from sandglass.data.dataset import Dataset
from sandglass.metrics.measure import context_of, measure

ROWS: dict[str, dict[str, Any]] = {
    "fixed at 1": {"learn": "none", "scale": 1.0},
    "shared, from 1": {"learn": "shared"},
    "shared, from 0.1": {"learn": "shared", "scale": 0.1},
    "optimal": {"learn": "optimal"},
    "optimal, not bounded": {"learn": "optimal", "bounded": False},
    "pixel": {"learn": "pixel"},
}
FIGURES = ("elbo", "distortion", "rate", "fid", "scale")


def figures(data: Dataset, scale: dict[str, Any], epochs: int, seed: int) -> dict[str, float]:
    """What a VAE with this scale comes to."""
    net, likelihood = {"name": "mlp", "widths": [512]}, {"name": "gaussian", "bounded": True, **scale}
    options = {"latent_dim": 32, "net": net, "likelihood": likelihood}
    training: dict[str, Any] = {"epochs": epochs, "batch_size": 256, "seed": seed, "sheets": 0, "schedule": "cosine"}
    with tempfile.TemporaryDirectory() as folder:
        run = sandglass.train("vae", data, out=Path(folder) / "run", model_options=options, **training)
        model: Any = run.load_model().eval()
    test = data.splits.get("test") or data.splits["validation"]
    results = measure(model, test, names=["elbo", "distortion", "rate", "fid"], seed=0, **context_of(data))
    return {r.name: r.value for r in results} | {"scale": float(model.p.likelihood.log_scale.detach().exp())}


def gaussian(data: Dataset) -> float:
    """The FID of a Gaussian with the mean and covariance of the training images, clipped to [0, 1]."""
    from sandglass.models._density import GaussianDensity

    density = GaussianDensity(data.spec.size)
    density.fit(data.train.batch(slice(0, 20_000)).x.flatten(1))

    model: Any = sandglass.build("vae", data.spec, latent_dim=2, net="mlp").eval()
    model.sample = lambda n, given=None, noise=False: density.sample(n).clamp(0, 1).unflatten(1, data.spec.shape)
    test = data.splits.get("test") or data.splits["validation"]
    return measure(model, test, names=["fid"], seed=0, **context_of(data))[0].value


def main() -> None:
    """Trains all with every seed, and prints."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", default="mnist", help="images")
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--seeds", type=int, nargs="+", default=[10, 11, 12])
    parser.add_argument("--rows", nargs="+", choices=list(ROWS), default=list(ROWS))
    parser.add_argument("--quick", action="store_true", help="one seed and one epoch of digits")
    chosen = parser.parse_args()
    if chosen.quick:
        chosen.data, chosen.epochs, chosen.seeds = "digits", 1, chosen.seeds[:1]
    data = sandglass.load_data(chosen.data)
    print(f"a Gaussian of the images: fid {gaussian(data):.1f}", flush=True)
    for row in chosen.rows:
        found = [figures(data, ROWS[row], chosen.epochs, seed) for seed in chosen.seeds]
        texts = []
        for figure in FIGURES:
            values = [each[figure] for each in found]
            texts.append(f"{figure} {statistics.median(values):.4g} ({min(values):.4g} to {max(values):.4g})")
        print(f"{row}: {', '.join(texts)}", flush=True)


if __name__ == "__main__":
    main()

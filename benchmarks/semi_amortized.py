"""Refined posteriors against those of an encoder: the bound and log p(x) of digits, by what the encoder is worth.

Digits: scikit-learn's, in black and white, 1,294 to train on and 503 others. All models have 16 latents, a decoder with
a hidden layer of 128 and 20 epochs; encoders have one of 4 (weak) or of 128. ``vae, refined`` is the same ``vae`` after
training, with 20 steps for each posterior; the others are trained with 5 steps, and have 5 afterwards. Columns: the
evidence bound and log p(x) from 200 draws of the unseen digits, in nats an image, the rate, and the bound of the
encoder's own posteriors. Pixels that are independent of each other stand beside them.

Median and range over seeds. Run it as ``python benchmarks/semi_amortized.py [--seeds 10 11 12]``, or with ``--quick``
for one seed and two epochs.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import sandglass
from sandglass import rng
from sandglass.core import Spec
from sandglass.data.dataset import Dataset, Split
from sandglass.data.transform import ArrayTransform
from sandglass.models.semi_amortized_vae import SemiAmortizedVAE
from sandglass.runs.model_folder import load_model

ROWS: dict[str, tuple[str, dict[str, Any]]] = {
    "vae": ("vae", {}),
    "semi-amortized-vae, stopped": ("semi-amortized-vae", {"through": False}),
    "semi-amortized-vae": ("semi-amortized-vae", {}),
}
ENCODERS = {"weak": [4], "as wide as the decoder": [128]}


def digits() -> tuple[Dataset, Tensor]:
    """Black and white digits to train on, and unseen ones."""
    data = sandglass.load_data("digits")
    ink = {name: (split.batch(slice(0, None)).x > 0.5).float() for name, split in data.splits.items()}
    spec = Spec((1, 8, 8), "binary")
    made = Dataset("ink", spec, ArrayTransform(spec.shape), {"train": Split(ink["train"])}, fingerprint="ink")
    return made, torch.cat([ink["test"], ink["validation"]])


def trained(name: str, data: Dataset, widths: list[int], seed: int, epochs: int, **options: Any) -> Any:
    """A model after its training."""
    net = {"name": "mlp", "widths": widths, "decoder_widths": [128], "activation": "silu"}
    training: dict[str, Any] = {"batch_size": 64, "schedule": "cosine", "select": "last", "threads": 1, "sheets": 0}
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder) / "run"
        options = {"latent_dim": 16, "net": net, **options}
        sandglass.train(name, data, out=run, model_options=options, seed=seed, epochs=epochs, lr=3e-3, **training)
        return load_model(run / "model").eval()


@torch.no_grad()
def figures(model: Any, unseen: Tensor) -> dict[str, float]:
    """Of the unseen digits, in nats."""
    with rng.forked("cpu", 0, "figures"):
        bounds = [model.bound(unseen) for _ in range(10)]
        found = {"elbo": torch.stack([b.elbo.mean() for b in bounds]).mean(), "rate": bounds[0].rate.mean()}
        found["log_p"] = model.log_prob(unseen, 200).mean()
        steps, model.steps = getattr(model, "steps", 0), 0
        found["encoder"] = torch.stack([model.bound(unseen).elbo.mean() for _ in range(10)]).mean()
        model.steps = steps
    return {name: float(value) for name, value in found.items()}


def independent(data: Dataset, unseen: Tensor) -> float:
    """The mean log p(x) of pixels that are independent of each other, with one added example of each colour."""
    x = data.train.batch(slice(0, None)).x
    p = (x.sum(0) + 1) / (len(x) + 2)
    return float((unseen * p.log() + (1 - unseen) * (1 - p).log()).sum((1, 2, 3)).mean())


def summary(found: list[dict[str, float]]) -> str:
    """Median and range of every figure."""
    texts = []
    for key in found[0]:
        values = [each[key] for each in found]
        texts.append(f"{key} {statistics.median(values):.2f} ({min(values):.2f} to {max(values):.2f})")
    return ", ".join(texts)


def main() -> None:
    """Trains all with every seed, and prints."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[10, 11, 12])
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--quick", action="store_true", help="one seed and two epochs")
    chosen = parser.parse_args()
    seeds, epochs = (chosen.seeds[:1], 2) if chosen.quick else (chosen.seeds, chosen.epochs)
    data, unseen = digits()
    print(f"independent pixels: log_p {independent(data, unseen):.2f}", flush=True)
    for encoder, widths in ENCODERS.items():
        for row, (name, options) in ROWS.items():
            models = [trained(name, data, widths, seed, epochs, **options) for seed in seeds]
            print(f"{encoder}, {row}: {summary([figures(model, unseen) for model in models])}", flush=True)
            if name == "vae":
                refined = [SemiAmortizedVAE.of(model, steps=20) for model in models]
                print(f"{encoder}, vae, refined: {summary([figures(m, unseen) for m in refined])}", flush=True)


if __name__ == "__main__":
    main()

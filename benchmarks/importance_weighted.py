"""Objectives of several draws against the VAE: log p(x) of digits, and imputation of tables.

Digits: scikit-learn's, in black and white, 1,294 to train on and 503 others. All models have 40 latents, two hidden
layers of 64 and 30 epochs; all but ``vae`` have 16 draws for each example, and ``vae-16-draws`` has the mean of their
evidence bounds as its objective, which tells what comes of the bound from what comes of more draws. Columns: log p(x)
from 500 draws and the evidence bound of the unseen digits in nats an image, and the active units. Pixels that are
independent of each other stand beside them.

Tables: scikit-learn's breast cancer (569 rows of 30 columns) and wine (178 of 13), standardised, with half of their
values removed at random. Columns: the mean squared error of those values, filled in by the mean of each column, its
nearest neighbours, regressions in turns (scikit-learn's ``KNNImputer`` and ``IterativeImputer``), ``vae`` and
``miwae``, both with 10 latents, two hidden layers of 128 and 150 epochs.

Median and range over seeds. Run it as ``python benchmarks/importance_weighted.py [--seeds 10 11 12 13 14]``, or
with ``--epochs 120`` for other epochs of the digits.
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
from sandglass.core import Batch, Spec
from sandglass.data.dataset import Dataset, Split
from sandglass.data.transform import ArrayTransform
from sandglass.runs.model_folder import load_model

MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "vae": ("vae", {}),
    "vae-16-draws": ("multiply-iwae", {"bounds": 16, "draws": 1}),
    "iwae": ("iwae", {"draws": 16}),
    "multiply-iwae": ("multiply-iwae", {"bounds": 4, "draws": 4}),
    "partially-iwae": ("partially-iwae", {"bounds": 4, "draws": 4}),
    "combination-iwae": ("combination-iwae", {"draws": 16}),
    "dreg-vae": ("dreg-vae", {"draws": 16}),
}
DIGITS: dict[str, Any] = {"latent_dim": 40, "net": {"name": "mlp", "widths": [64, 64], "activation": "silu"}}
TABLE: dict[str, Any] = {
    "latent_dim": 10,
    "net": {"name": "mlp", "widths": [128, 128], "activation": "silu"},
    "likelihood": {"name": "gaussian", "learn": "pixel"},
}
TRAINING: dict[str, Any] = {"batch_size": 64, "schedule": "cosine", "select": "last", "threads": 1}


def made(name: str, spec: Spec, x: Tensor, mask: Tensor | None = None) -> Dataset:
    """A dataset with a training split alone."""
    return Dataset(name, spec, ArrayTransform(spec.shape), {"train": Split(x, mask=mask)}, fingerprint=name)


def digits() -> tuple[Dataset, Tensor]:
    """Black and white digits to train on, and unseen ones."""
    data = sandglass.load_data("digits")
    ink = {name: (split.batch(slice(0, None)).x > 0.5).float() for name, split in data.splits.items()}
    return made("ink", Spec((1, 8, 8), "binary"), ink["train"]), torch.cat([ink["test"], ink["validation"]])


def trained(name: str, data: Dataset, seed: int, options: dict[str, Any], **training: Any) -> Any:
    """A model after its training."""
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder) / "run"
        sandglass.train(name, data, out=run, model_options=options, seed=seed, sheets=0, **TRAINING, **training)
        return load_model(run / "model").eval()


def digit_model(name: str, data: Dataset, seed: int, epochs: int = 30) -> Any:
    """A model of the digits."""
    kind, options = MODELS[name]
    return trained(kind, data, seed, {**DIGITS, **options}, epochs=epochs, lr=2e-3)


@torch.no_grad()
def figures(model: Any, data: Dataset, unseen: Tensor) -> dict[str, float]:
    """log p(x) and the evidence bound of the unseen digits in nats, and the active units."""
    x = data.train.batch(slice(0, None)).x
    with rng.forked("cpu", 0, "figures"):
        log_p, elbo = model.log_prob(unseen, 500).mean(), model.bound(unseen).elbo.mean()
    return {"log_p": float(log_p), "elbo": float(elbo), "active": int((model.encode(x).var(0) > 0.01).sum())}


def independent(data: Dataset, unseen: Tensor) -> float:
    """The mean log p(x) of pixels that are independent of each other, with one added example of each colour."""
    x = data.train.batch(slice(0, None)).x
    p = (x.sum(0) + 1) / (len(x) + 2)
    return float((unseen * p.log() + (1 - unseen) * (1 - p).log()).sum((1, 2, 3)).mean())


def table(name: str, seed: int) -> tuple[Tensor, Tensor]:
    """A standardised table, and which half of its values is observed."""
    from sklearn import datasets

    x = torch.tensor(getattr(datasets, f"load_{name}")().data).float()
    seen = torch.rand(x.shape, generator=torch.Generator().manual_seed(seed)) > 0.5
    return (x - x.mean(0)) / x.std(0), seen


def filled_by_model(kind: str, x: Tensor, seen: Tensor, seed: int) -> Tensor:
    """The table, filled in by a model that is trained on the observed half."""
    data = made("table", Spec((x.shape[1],)), x, seen)
    model = trained(kind, data, seed, TABLE, epochs=150, lr=1e-3)
    with torch.no_grad(), rng.forked("cpu", 0, "filled"):
        filled: Tensor = model.complete(Batch(x.masked_fill(~seen, 0), mask=seen)).x
    return filled


def baselines(x: Tensor, seen: Tensor, seed: int) -> dict[str, Tensor]:
    """The table, filled in by column means, by nearest neighbours and by regressions."""
    from sklearn.experimental import enable_iterative_imputer  # noqa: F401
    from sklearn.impute import IterativeImputer, KNNImputer

    gaps = x.masked_fill(~seen, float("nan")).double().numpy()
    ways = {"neighbours": KNNImputer(n_neighbors=10), "regressions": IterativeImputer(max_iter=30, random_state=seed)}
    means = ((x * seen).sum(0) / seen.sum(0)).expand_as(x)
    return {"means": means} | {name: torch.tensor(way.fit_transform(gaps)).float() for name, way in ways.items()}


def errors(name: str, seed: int) -> dict[str, float]:
    """The mean squared error of the values that were removed, by what filled them in."""
    x, seen = table(name, seed)
    filled = baselines(x, seen, seed) | {kind: filled_by_model(kind, x, seen, seed) for kind in ("vae", "miwae")}
    return {way: float((values - x)[~seen].square().mean()) for way, values in filled.items()}


def summary(found: list[dict[str, float]]) -> str:
    """Median and range of every figure."""
    texts = []
    for key in found[0]:
        values = [each[key] for each in found]
        texts.append(f"{key} {statistics.median(values):.3f} ({min(values):.3f} to {max(values):.3f})")
    return ", ".join(texts)


def main() -> None:
    """Trains all with every seed, and prints."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=[10, 11, 12, 13, 14])
    parser.add_argument("--epochs", type=int, default=30)
    chosen = parser.parse_args()
    seeds = chosen.seeds
    for name in ("wine", "breast_cancer"):
        print(f"{name}: {summary([errors(name, seed) for seed in seeds])}", flush=True)
    data, unseen = digits()
    print(f"independent pixels: log_p {independent(data, unseen):.3f}", flush=True)
    for name in MODELS:
        found = [figures(digit_model(name, data, seed, chosen.epochs), data, unseen) for seed in seeds]
        print(f"{name}: {summary(found)}", flush=True)


if __name__ == "__main__":
    main()

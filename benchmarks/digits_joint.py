"""Joint VAEs of scikit-learn's digits and their labels, with half of the training labels missing.

For each objective: accuracy of predicted labels on the test set, accuracy of samples given a label as classified by a
support vector machine trained on all labels, diversity of the samples of a label, and the bound on log p(x). Baselines
are a support vector machine trained on the known labels, and a Gaussian for each label. Run it as
``python benchmarks/digits_joint.py [--seeds 0 1 2] [--pictures FOLDER]``.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from sklearn.svm import SVC
from torch import Tensor

import sandglass
from sandglass import running
from sandglass.core import Batch, Model
from sandglass.data.dataset import Dataset

MODEL: dict[str, Any] = {"net": {"name": "mlp", "widths": [256, 128], "activation": "silu"}}
TRAINING = {"epochs": 60, "batch_size": 64, "lr": 2e-3, "schedule": "cosine", "select": "last", "threads": 1}
WAYS: dict[str, dict[str, Any]] = {
    "joint": {"terms": "joint"},
    "subsets": {"terms": "subsets"},
    "cross": {"terms": "cross"},
    "cross, weights 1 5": {"terms": "cross", "weights": [1, 5]},
}
LABELS = torch.arange(10).repeat_interleave(50)


def digits() -> tuple[Dataset, SVC, SVC]:
    """The data with half of the training labels missing, and classifiers trained on all and on the known labels."""
    data = sandglass.load_data("digits")
    x, y = data.train.batch(slice(0, None)).x.flatten(1).numpy(), data.train.y
    assert y is not None
    known = torch.rand(len(y), generator=torch.Generator().manual_seed(0)) < 0.5
    train = replace(data.train, y=y.where(known, -1))
    half = SVC().fit(x[known.numpy()], y[known].numpy())
    return replace(data, splits={**data.splits, "train": train}, source=None), SVC().fit(x, y.numpy()), half


def right(judge: SVC, x: Tensor, y: Tensor) -> float:
    """The accuracy of a classifier on ``(N, ...)``."""
    return float((torch.tensor(judge.predict(x.flatten(1).numpy())) == y).float().mean())


def spread(x: Tensor, y: Tensor) -> float:
    """The standard deviation of pixels within a label, averaged over pixels and labels."""
    return float(torch.stack([x[y == k].flatten(1).std(0) for k in range(10)]).mean())


def figures(model: Model, data: Dataset, judge: SVC) -> dict[str, float]:
    """The figures of a model on the test digits."""
    test = data.splits["test"]
    assert test.y is not None
    filled = running.over(model, test, lambda b: model.classify(b).argmax(1))
    drawn = running.sample(model, 500, key=(0, "labels"), given=Batch(y=LABELS))
    log_px = running.over(model, test, lambda b: model.log_prob(replace(b, y=None), 50))
    return {
        "filled in": float((filled == test.y).float().mean()),
        "drawn": right(judge, drawn, LABELS),
        "spread": spread(drawn, LABELS),
        "log p(x)": float(log_px.mean()),
    }


def gaussians(data: Dataset) -> Tensor:
    """``(500, 1, 8, 8)`` samples of a Gaussian for each label, fitted to the training digits with that label."""
    torch.manual_seed(0)
    train, drawn = data.train.batch(slice(0, None)), []
    for k in range(10):
        x = train.x[train.y == k].flatten(1).double()
        cov = x.T.cov() + 1e-4 * torch.eye(64, dtype=torch.float64)
        drawn.append(torch.distributions.MultivariateNormal(x.mean(0), cov).sample((50,)).clamp(0, 1))
    return torch.cat(drawn).float().view(-1, 1, 8, 8)


def sheet(x: Tensor, path: Path) -> None:
    """Saves a picture of ten samples of each label, one row per label."""
    rows = torch.nn.functional.pad(x.view(10, 50, 8, 8)[:, :10], (1, 1, 1, 1))
    pixels = (rows.permute(0, 2, 1, 3).reshape(100, 100).clamp(0, 1) * 255).byte().numpy()
    Image.fromarray(pixels).resize((600, 600), Image.Resampling.NEAREST).save(path)


def main() -> None:
    """Trains and prints."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--pictures", type=Path)
    asked = parser.parse_args()
    data, judge, half = digits()
    test = data.splits["test"].batch(slice(0, None))
    assert test.y is not None
    print(f"real digits: judged right {right(judge, test.x, test.y):.3f}, spread {spread(test.x, test.y):.3f}")
    print(f"support vector machine on the known labels: filled in {right(half, test.x, test.y):.3f}")
    drawn = gaussians(data)
    print(f"a Gaussian for each label: drawn {right(judge, drawn, LABELS):.3f}, spread {spread(drawn, LABELS):.3f}")
    for way, options in WAYS.items():
        found = []
        for seed in asked.seeds:
            with tempfile.TemporaryDirectory() as folder:
                run = sandglass.train(
                    "joint-vae", data, out=Path(folder) / "run", model_options=MODEL | options, seed=seed, **TRAINING
                )
                model = sandglass.load(run)
            found.append(figures(model, data, judge))
        middle = {k: [f[k] for f in found] for k in found[0]}
        print(
            f"{way}: "
            + ", ".join(f"{k} {statistics.median(v):.3f} ({min(v):.3f} to {max(v):.3f})" for k, v in middle.items()),
            flush=True,
        )
        if asked.pictures:
            asked.pictures.mkdir(parents=True, exist_ok=True)
            stem = way.replace(", ", "-").replace(" ", "-")
            sheet(running.sample(model, 500, key=(0, "labels"), given=Batch(y=LABELS)), asked.pictures / f"{stem}.png")
            sheet(running.sample(model, 500, key=(0, "labels")), asked.pictures / f"{stem}-without-a-label.png")


if __name__ == "__main__":
    main()

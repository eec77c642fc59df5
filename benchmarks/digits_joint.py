"""scikit-learn's digits and their labels as two modalities, half of the labels absent in training.

    python benchmarks/digits_joint.py [--seeds 10 11 12] [--ways defaults] [--pictures FOLDER]

With the options that a person gets by default, and with others for comparison: labels filled in for test digits, digits
drawn given a label as a support vector machine on all training pictures judges them, how much the drawn ones of a label
differ, and the bound on log p(x). Beside them the same machine taught by the labels that are there, and one Gaussian
for each label.
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

WAYS: dict[str, dict[str, Any]] = {
    "defaults": {},
    "weights 1 1": {"weights": [1, 1]},
    "terms joint": {"terms": "joint"},
    "terms subsets": {"terms": "subsets"},
}
LABELS = torch.arange(10).repeat_interleave(50)


def digits() -> tuple[Dataset, SVC, SVC]:
    """The data with half of the training labels absent, a judge that knew all of them, and one that knew the half."""
    data = sandglass.load_data("digits")
    x, y = data.train.batch(slice(0, None)).x.flatten(1).numpy(), data.train.y
    assert y is not None
    known = torch.rand(len(y), generator=torch.Generator().manual_seed(0)) < 0.5
    train = replace(data.train, y=y.where(known, -1))
    half = SVC().fit(x[known.numpy()], y[known].numpy())
    return replace(data, splits={**data.splits, "train": train}, source=None), SVC().fit(x, y.numpy()), half


def right(judge: SVC, x: Tensor, y: Tensor) -> float:
    """The share of ``(N, ...)`` that the judge takes for their labels."""
    return float((torch.tensor(judge.predict(x.flatten(1).numpy())) == y).float().mean())


def spread(x: Tensor, y: Tensor) -> float:
    """The standard deviation of a pixel within a label, over all of them."""
    return float(torch.stack([x[y == k].flatten(1).std(0) for k in range(10)]).mean())


def figures(model: Model, data: Dataset, judge: SVC) -> dict[str, float]:
    """What one model reaches on the test digits."""
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
    """``(500, 1, 8, 8)`` draws of one Gaussian a label, from the training digits that have it."""
    torch.manual_seed(0)
    train, drawn = data.train.batch(slice(0, None)), []
    for k in range(10):
        x = train.x[train.y == k].flatten(1).double()
        cov = x.T.cov() + 1e-4 * torch.eye(64, dtype=torch.float64)
        drawn.append(torch.distributions.MultivariateNormal(x.mean(0), cov).sample((50,)).clamp(0, 1))
    return torch.cat(drawn).float().view(-1, 1, 8, 8)


def sheet(x: Tensor, path: Path) -> None:
    """A picture of ten of each label, a row each."""
    rows = torch.nn.functional.pad(x.view(10, 50, 8, 8)[:, :10], (1, 1, 1, 1))
    pixels = (rows.permute(0, 2, 1, 3).reshape(100, 100).clamp(0, 1) * 255).byte().numpy()
    Image.fromarray(pixels).resize((600, 600), Image.Resampling.NEAREST).save(path)


def main() -> None:
    """Trains and prints."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=[10, 11, 12])
    parser.add_argument("--ways", nargs="+", choices=list(WAYS), default=list(WAYS))
    parser.add_argument("--pictures", type=Path)
    asked = parser.parse_args()
    data, judge, half = digits()
    test = data.splits["test"].batch(slice(0, None))
    assert test.y is not None
    print(f"real digits: judged right {right(judge, test.x, test.y):.3f}, spread {spread(test.x, test.y):.3f}")
    print(f"support vector machine on the known labels: filled in {right(half, test.x, test.y):.3f}")
    drawn = gaussians(data)
    print(f"a Gaussian for each label: drawn {right(judge, drawn, LABELS):.3f}, spread {spread(drawn, LABELS):.3f}")
    for way in asked.ways:
        found = []
        for seed in asked.seeds:
            with tempfile.TemporaryDirectory() as folder:
                run = sandglass.train(
                    "joint-vae", data, out=Path(folder) / "run", model_options=WAYS[way], seed=seed, threads=1
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

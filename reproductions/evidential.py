"""Classes that a classifier has never seen: a Dirichlet over its output beside softmax.

The same network is trained on half of the classes, once as evidential (Sensoy et al. 2018, arXiv 1806.01768) and once
with softmax and cross-entropy. Columns, in percent: error on unseen examples of those classes; AUROC of unseen classes
against known ones by the uncertainty of each example: the vacuity, the entropy of the mean, or the entropy of softmax.
Beside them the error of a reconstruction from 32 principal components, and the distance to the nearest example:
``python reproductions/evidential.py``.
"""

from __future__ import annotations

import argparse
import statistics

import torch
import torch.nn.functional as F
from sklearn.decomposition import PCA
from sklearn.metrics import roc_auc_score
from sklearn.neighbors import NearestNeighbors
from torch import Tensor, nn

import sandglass
from sandglass import rng
from sandglass.distributions.evidential import evidential, evidential_loss, vacuity


def main() -> None:
    """Trains and measures each."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", default="mnist", help="labelled images")
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--seeds", type=int, nargs="+", default=[10, 11, 12], help="of trainings")
    parser.add_argument("--examples", type=int, default=10_000, help="of training, at most")
    options = parser.parse_args()
    data = sandglass.load_data(options.data)
    known = data.spec.classes // 2
    train, test = (data.splits[name].batch(slice(0, None)) for name in ("train", "test"))
    mine = train.y < known
    x, y = train.x[mine][: options.examples].flatten(1), train.y[mine][: options.examples]
    seen, new = test.x.flatten(1), (test.y >= known).numpy()
    found: dict[str, list[tuple[float, float]]] = {}
    for seed in options.seeds:
        for name, (wrong, unsure) in measured(x, y, seen, test.y, known, options.epochs, seed).items():
            auroc = 100 * float(roc_auc_score(new, unsure.numpy()))
            found.setdefault(name, []).append((wrong, auroc))
            print(f"seed {seed}  {name:34}{wrong:8.2f}{auroc:8.2f}", flush=True)
    print(f"\n{'uncertainty':34}{'error':>8}{'AUROC':>8}   medians in percent; range of the AUROC")
    for name, rows in found.items():
        errors, aurocs = zip(*rows, strict=True)
        spread = f"{min(aurocs):.1f} to {max(aurocs):.1f}"
        print(f"{name:34}{statistics.median(errors):8.2f}{statistics.median(aurocs):8.2f}   {spread}")


def measured(
    x: Tensor, y: Tensor, seen: Tensor, labels: Tensor, known: int, epochs: int, seed: int
) -> dict[str, tuple[float, Tensor]]:
    """Error in percent, and the uncertainty ``(N,)`` of every test example, by what it is measured."""
    outputs = {}
    for kind in ("evidential", "softmax"):
        with rng.forked("cpu", seed):
            net = nn.Sequential(
                nn.Linear(x.shape[1], 256),
                nn.ReLU(),
                nn.Dropout(0.2),
                nn.Linear(256, 128),
                nn.ReLU(),
                nn.Linear(128, known),
            )
            optimizer = torch.optim.Adam(net.parameters(), lr=1e-3, weight_decay=1e-5)
            for epoch in range(epochs):
                for some in torch.randperm(len(x)).split(100):
                    h = net(x[some])
                    if kind == "evidential":
                        loss = evidential_loss(evidential(h), y[some], min(1.0, epoch / 10)).mean()
                    else:
                        loss = F.cross_entropy(h, y[some])
                    optimizer.zero_grad()
                    loss.backward()
                    optimizer.step()
        with torch.no_grad():
            outputs[kind] = net.eval()(seen)

    def wrong(h: Tensor) -> float:
        own = labels < known
        return 100 * float((h.argmax(1) != labels)[own].float().mean())

    p, log_share = evidential(outputs["evidential"]), outputs["softmax"].log_softmax(1)
    components = PCA(32, random_state=0).fit(x.numpy())
    rebuilt = torch.from_numpy(components.inverse_transform(components.transform(seen.numpy())))
    near = NearestNeighbors(n_neighbors=1).fit(x.numpy()).kneighbors(seen.numpy())[0][:, 0]
    return {
        "evidential, vacuity": (wrong(p.mean), vacuity(p)),
        "evidential, entropy of the mean": (wrong(p.mean), -(p.mean * p.mean.log()).sum(1)),
        "softmax, entropy": (wrong(log_share), -(log_share.exp() * log_share).sum(1)),
        "softmax, 1 - largest probability": (wrong(log_share), 1 - log_share.exp().amax(1)),
        "32 components, error": (float("nan"), (rebuilt - seen).square().sum(1)),
        "distance to the nearest example": (float("nan"), torch.from_numpy(near)),
    }


if __name__ == "__main__":
    main()

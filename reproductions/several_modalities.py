"""Joint models of MNIST digits with (a) their labels and (b) another digit of the same class, rotated and inverted.

    python reproductions/several_modalities.py [--pictures 6000] [--epochs 12] [--seeds 10] [--out runs/several]

Compares ``joint-vae``, ``mvae``, ``mmvae``, ``mopoe-vae`` and ``jmvae``, each with its defaults but for the network.
Digits are black and white (above one half), so that all likelihoods are probabilities. By pairing and model, on 1,000
test examples: the bound of both modalities from one draw, and log p of both and of the picture alone by ``--draws``
importance-weighted draws; how often what is drawn of one modality given the other is of its class, and the two drawn
from the prior of the same one, as a support vector machine trained on the same real digits judges; and labels filled in
wrongly. A sheet of drawn pictures, a row each model, is saved in ``--out``.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from sklearn.svm import SVC
from torch import Tensor

import sandglass
from sandglass import rng
from sandglass.core import Batch, Spec
from sandglass.data.dataset import Dataset, Split
from sandglass.data.transform import ArrayTransform

MODELS = ("joint-vae", "mvae", "mmvae", "mopoe-vae", "jmvae")
PAIRINGS = ("labels", "other")
COLUMNS = {
    "labels": ("bound", "log p(x, y)", "log p(x)", "drawn of label", "labels wrong"),
    "other": ("bound", "log p(x, w)", "log p(x)", "w of x", "x of w", "both of prior"),
}


def turned(x: Tensor) -> Tensor:
    """Rotated by a quarter and inverted, ``(N, 1, H, H)``."""
    return 1 - x.rot90(1, (2, 3))


def back(w: Tensor) -> Tensor:
    """The inverse of :func:`turned`."""
    return (1 - w).rot90(-1, (2, 3))


def partners(y: Tensor, *key: str) -> Tensor:
    """For each example another one of its class, at random: the next one in a random order of the class."""
    found = torch.zeros_like(y)
    for k in range(10):
        (members,) = (y == k).nonzero(as_tuple=True)
        order = members[rng.permutation(len(members), 0, *key, str(k))]
        found[order] = order.roll(1)
    return found


def pairs(source: str, pairing: str, pictures: int, test: int = 1000) -> Dataset:
    """Digits in black and white, with labels or with partners."""
    raw, splits = sandglass.load_data(source), {}
    for name, n in (("train", pictures), ("test", test)):
        some = raw.splits[name].take(rng.permutation(len(raw.splits[name]), 0, name)[:n])
        batch = some.batch(slice(None))
        assert batch.y is not None
        x = (batch.x > 0.5).float()
        given = {"other": turned(x[partners(batch.y, name)])} if pairing == "other" else {}
        splits[name] = Split(x, batch.y, given=given)
    shape = tuple(splits["train"].x.shape[1:])
    companion = {"other": Spec(shape, "binary")} if pairing == "other" else {}
    spec = Spec(shape, "binary", classes=10, given=companion)
    return Dataset(pairing, spec, ArrayTransform(shape), splits, classes=tuple("0123456789"), fingerprint=pairing)


def right(judge: SVC, x: Tensor, y: Tensor) -> float:
    """The share of pictures that the judge takes for their labels."""
    return float((torch.tensor(judge.predict(x.flatten(1).numpy())) == y).float().mean())


@torch.no_grad()
def figures(model: Any, data: Dataset, judge: SVC, draws: int) -> tuple[list[float], Tensor]:
    """Of one model, in the order of :data:`COLUMNS`, and twenty pictures of one modality drawn given the other."""
    test = data.splits["test"].batch(slice(None))
    assert test.y is not None
    alone = Batch(test.x)
    whole = Batch(test.x, test.y) if data.name == "labels" else Batch(test.x, given=test.given)

    def evidence(batch: Batch) -> float:
        parts = [batch.map(lambda t, i=i: t[i : i + 50]) for i in range(0, len(batch), 50)]  # type: ignore[misc]
        return float(torch.cat([model.log_prob(part, draws) for part in parts]).mean())

    with rng.forked("cpu", 0):
        found = [float(model.bound(whole).elbo.mean()), evidence(whole), evidence(alone)]
        if data.name == "labels":
            drawn = model.sample(len(test), Batch(y=test.y))
            wrong = float((model.classify(alone).argmax(1) != test.y).float().mean())
            return [*found, right(judge, drawn, test.y), wrong], drawn[:20]
        w = model.modality("other").p(model.infer(alone)).mean
        x = model.sample(len(test), Batch(given=test.given))
        code = model.draw(len(test))
        one, other = (torch.tensor(judge.predict(t.flatten(1).numpy())) for t in (
            model.modality("x").p(code).mean, back(model.modality("other").p(code).mean)))  # fmt: skip
        same = float((one == other).float().mean())
        return [*found, right(judge, back(w), test.y), right(judge, x, test.y), same], w[:20]


def sheet(rows: list[Tensor], path: Path) -> None:
    """Saves rows of pictures ``(N, 1, H, W)`` in [0, 1]."""
    framed = [torch.nn.functional.pad(x, (1, 1, 1, 1), value=0.5)[:, 0] for x in rows]
    picture = torch.cat([torch.cat(list(x), 1) for x in framed])
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray((picture * 255).round().byte().numpy()).resize((picture.shape[1] * 2, picture.shape[0] * 2)).save(
        path
    )


def main() -> None:
    """Trains, measures, prints and saves."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="mnist", help="pictures of ten classes")
    parser.add_argument("--pairings", nargs="+", choices=PAIRINGS, default=list(PAIRINGS))
    parser.add_argument("--models", nargs="+", default=list(MODELS))
    parser.add_argument("--pictures", type=int, default=6000, help="to train on")
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--seeds", type=int, nargs="+", default=[10], help="of trainings")
    parser.add_argument("--draws", type=int, default=50, help="of the estimates of log p")
    parser.add_argument("--width", type=int, default=256, help="of the hidden layer")
    parser.add_argument("--out", type=Path, default=Path("runs/several"))
    asked = parser.parse_args()
    for pairing in asked.pairings:
        data = pairs(asked.data, pairing, asked.pictures)
        train, test = (data.splits[name].batch(slice(None)) for name in ("train", "test"))
        assert train.y is not None and test.y is not None
        judge = SVC().fit(train.x.flatten(1).numpy(), train.y.numpy())
        print(f"{pairing}: real digits judged right {right(judge, test.x, test.y):.3f}")
        print(f"| model | {' | '.join(COLUMNS[pairing])} | seconds |\n|---{'|---' * len(COLUMNS[pairing])}|---|")
        rows = [test.x[:20]]
        for name in asked.models:
            each, began = [], time.perf_counter()
            for seed in asked.seeds:
                with tempfile.TemporaryDirectory() as folder:
                    run = sandglass.train(
                        name, data, out=Path(folder) / "run", seed=seed, epochs=asked.epochs, batch_size=100, lr=2e-3,
                        schedule="cosine", select="last", sheets=0, threads=1,
                        model_options={
                            "net": {"name": "mlp", "widths": [asked.width], "activation": "silu"},
                            "modalities": [pairing],
                        },
                    )  # fmt: skip
                    model = run.load_model().eval()
                found, drawn = figures(model, data, judge, asked.draws)
                each.append(found)
            rows.append(drawn)
            middle = [statistics.median(v) for v in zip(*each, strict=True)]
            shown = [f"{v:.1f}" if k < 3 else f"{v:.3f}" for k, v in enumerate(middle)]
            print(f"| `{name}` | {' | '.join(shown)} | {time.perf_counter() - began:.0f} |", flush=True)
        sheet(rows, asked.out / f"{pairing}.png")


if __name__ == "__main__":
    main()

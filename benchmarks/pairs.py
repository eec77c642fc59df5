"""Image translation compared with trivial baselines: grey to colour, edges to digits, digits to other digits.

    python benchmarks/pairs.py colour --cifar CIFAR_FOLDER_OR_ZIP [--epochs 16]
    python benchmarks/pairs.py edges [--epochs 6]
    python benchmarks/pairs.py cycle [--epochs 25]

``colour`` trains pix2pix on 2,000 frogs, horses and ships; ``edges`` on 2,000 MNIST digits at 28x28. ``cycle`` trains
cycle-gan on 1,500 MNIST digits at 14x14 and on 1,500 others, thickened and inverted, so that the correct translations
are known. All figures are on held-out test pictures; L1 is the mean absolute difference, 1 from black to white. Sheets
of pictures are saved in ``--out``: source, translation, target; for ``cycle`` also the cycle reconstruction.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

import sandglass
from sandglass.core import Batch, Model
from sandglass.data.dataset import Dataset, Split
from sandglass.rng import permutation
from sandglass.running import observing

INSTANCE = {"name": "conv", "norm": "instance"}
LEAKY = {"name": "conv", "activation": "leaky-relu"}
CLASSES = ("frog", "horse", "ship")


def main() -> None:
    """Trains, evaluates and saves sheets."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("colour", "edges", "cycle"))
    parser.add_argument("--cifar", help="a folder or zip of CIFAR-10 as pictures in class folders")
    parser.add_argument("--epochs", type=int)
    parser.add_argument("--limit", type=int, default=2000, help="training pictures")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("runs"))
    options = parser.parse_args()
    start = time.perf_counter()
    figures = {"colour": colour, "edges": edges, "cycle": cycle}[options.what](options)
    for name, value in figures.items():
        print(f"{name:>28} {value:8.4f}")
    print(f"{'seconds':>28} {time.perf_counter() - start:8.0f}")


def colour(options: argparse.Namespace) -> dict[str, float]:
    """Grey CIFAR pictures to colour."""
    data = sandglass.load_data(options.cifar, given={"source": "grey"}, cache=False)
    wanted = torch.tensor([data.classes.index(name) for name in CLASSES])
    splits = {name: of_classes(split, wanted) for name, split in data.splits.items()}
    splits["train"] = splits["train"].take(torch.arange(options.limit))
    test, model = paired(replace(data, splits=splits), options, 16, "pix2pix-colour")
    train = splits["train"].batch(slice(None))
    offset = (train.x - train.given["source"]).mean((0, 2, 3))[:, None, None]
    grey = test.given["source"]
    baselines = {
        "L1 of the grey picture": grey,
        "L1 of grey, mean tint": (grey + offset).clamp(0, 1),
        "L1 of the mean picture": train.x.mean(0),
    }
    return compared(model, test, baselines, options.out / "colour.png")


def of_classes(split: Split, wanted: Tensor) -> Split:
    """The examples of some classes, in random order."""
    assert split.y is not None
    found = torch.isin(split.y, wanted).nonzero()[:, 0]
    return split.take(found[permutation(len(found), 0)])


def edges(options: argparse.Namespace) -> dict[str, float]:
    """Edges to MNIST digits."""
    data = sandglass.load_data("mnist", given={"source": "edges"}, limit=options.limit)
    test, model = paired(data, options, 6, "pix2pix-edges")
    train = data.train.batch(slice(None))
    inside = train.given["source"] > 0
    two_levels = torch.where(test.given["source"] > 0, train.x[inside].median(), train.x[~inside].median())
    baselines = {
        "L1 of the edges": test.given["source"],
        "L1 of a grey for each value": two_levels,
        "L1 of the mean picture": train.x.mean(0),
    }
    return compared(model, test, baselines, options.out / "edges.png")


def paired(data: Dataset, options: argparse.Namespace, epochs: int, name: str) -> tuple[Batch, Model]:
    """Test pairs, and a pix2pix model trained on the training pairs."""
    run = sandglass.train(
        "pix2pix", data, out=free(options.out / name), epochs=options.epochs or epochs, batch_size=16, lr=1e-3,
        schedule="cosine", threads=1, seed=options.seed, model_options={"critic": LEAKY | {"norm": "instance"}},
    )  # fmt: skip
    return data.splits["test"].batch(slice(300)), sandglass.load(run)


def compared(model: Model, test: Batch, baselines: dict[str, Tensor], path: Path) -> dict[str, float]:
    """L1 of the translations and the baselines; saves a sheet."""
    with observing(model):
        made = model.translate(test)
    sheet(path, *(t[::15] for t in (test.given["source"], made, test.x)))
    return {"L1 of pix2pix": l1(made, test.x)} | {name: l1(x, test.x) for name, x in baselines.items()}


def cycle(options: argparse.Namespace) -> dict[str, float]:
    """Digits to thick, inverted ones and back, unpaired."""
    data = sandglass.load_data("mnist", size=14, limit=3000)
    digits = data.train.batch(slice(None)).x
    spec = replace(data.spec, classes=0)
    own, other = digits[:1500], thick(digits[1500:])
    split = Split(own, beside={"b": Split(other)})
    unpaired = replace(data, spec=replace(spec, beside={"b": spec}), splits={"train": split}, classes=(), source=None)
    run = sandglass.train(
        "cycle-gan", unpaired, out=free(options.out / "cycle-gan"), epochs=options.epochs or 25, batch_size=32, lr=1e-3,
        schedule="cosine", threads=1, seed=options.seed,
        model_options={"cycle": 1.0, "net": INSTANCE | {"width": 16}, "critic": LEAKY},
    )  # fmt: skip
    model, a = sandglass.load(run), data.splits["test"].batch(slice(500)).x
    b = thick(a)
    with observing(model):
        to_b, to_a, back = model.translate(Batch(a)), model.translate(Batch(b), "a"), model.reconstruct(Batch(a))
        forth = model.translate(Batch(to_a))
    sheet(options.out / "cycle.png", *(t[:20] for t in (a, to_b, b, back, b, to_a, a, forth)))
    return {
        "L1 of translation to b": l1(to_b, b),
        "L1 of translation to a": l1(to_a, a),
        "correlation, to b": correlation(to_b, b),
        "correlation, to a": correlation(to_a, a),
        "cycle error from a": l1(back, a),
        "cycle error from b": l1(forth, b),
        "L1 of the mean of b": l1(other.mean(0), b),
        "L1 of the mean of a": l1(own.mean(0), a),
        "L1 of inverting alone": l1(1 - a, b),
    }


def thick(x: Tensor) -> Tensor:
    """Dilates strokes by a pixel and inverts the picture."""
    return 1 - F.max_pool2d(x, 3, 1, 1)


def l1(a: Tensor, b: Tensor) -> float:
    """Mean absolute difference."""
    return float((a - b).abs().mean())


def correlation(a: Tensor, b: Tensor) -> float:
    """Mean correlation of pixels over pictures."""
    return float(np.mean([np.corrcoef(u.flatten(), v.flatten())[0, 1] for u, v in zip(a, b, strict=True)]))


def sheet(path: Path, *rows: Tensor) -> None:
    """Saves rows of pictures ``(N, C, H, W)`` in [0, 1] as a PNG, enlarged three times."""
    framed = [F.pad(x.expand(-1, 3, -1, -1), (1, 1, 1, 1), value=1.0) for x in rows]
    picture = torch.cat([torch.cat(list(x), 2) for x in framed], 1)
    image = Image.fromarray((picture * 255).round().byte().permute(1, 2, 0).numpy())
    path.parent.mkdir(parents=True, exist_ok=True)
    image.resize((3 * image.width, 3 * image.height), Image.Resampling.NEAREST).save(path)


def free(path: Path) -> Path:
    """The next free folder name with a number."""
    return next(p for n in range(1, 10**6) if not (p := path.with_name(f"{path.name}-{n}")).exists())


if __name__ == "__main__":
    main()

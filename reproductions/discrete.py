"""Four quantisers with their priors on one budget: bits per dimension, use of the codes, samples.

    python reproductions/discrete.py --data mnist --limit 4000 --test 1000 --width 8 --out discrete

Trains `vq-vae` with each quantiser (`ema`, `fsq`, `residual`, `lfq`), the encoder and decoder first and then the prior
over the codes, and measures the best weights on test pictures. Pictures in grey with no levels, such as MNIST, become
black and white at 0.5, so that their likelihood is a probability; others stay as they are loaded (`--data cifar10`,
with `--channels 1` for grey).

bits/dim        of the whole model: distortion and rate, the negative bound on log p(x), per value of a picture; only
                where the likelihood is a probability
distortion      -log p(x|k) in nats a picture
rate            -log p(k) in nats a picture, and what as many bits as the codes have would be
used            share of the codes in use on the test pictures, and e to the entropy of their frequencies
FID             in features learnt from the data, of as many samples as there are test pictures
independent     the trivial baseline: every value of a picture has its own frequencies, and none knows another

The sheet has test pictures, and for each quantiser their reconstructions, and samples.
"""

from __future__ import annotations

import argparse
import math
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

import sandglass
from sandglass.core import Batch, Model
from sandglass.data.dataset import Dataset, Split
from sandglass.data.transform import ArrayTransform
from sandglass.metrics.measure import context_of, measure
from sandglass.rng import permutation
from sandglass.running import observing, sample

COLUMNS = ("model", "codes", "bits/dim", "distortion", "rate", "at most", "used", "perplexity", "FID", "minutes")


def main() -> None:
    """Trains and measures each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="mnist", help="pictures")
    parser.add_argument("--channels", type=int, help="1 for grey, 3 for colour; as they are when not given")
    parser.add_argument("--limit", type=int, help="training pictures; all when not given")
    parser.add_argument("--test", type=int, default=2000, help="at most so many test pictures")
    parser.add_argument("--kinds", nargs="+", default=["ema", "fsq", "residual", "lfq"], help="of quantisers")
    parser.add_argument("--size", type=int, default=256, help="of the codebook")
    parser.add_argument("--codes", type=int, help="vectors of a picture; the default of the model when not given")
    parser.add_argument("--width", type=int, default=16, help="channels of the first maps of the net")
    parser.add_argument("--epochs", type=int, default=16)
    parser.add_argument("--prior-epochs", type=int, default=8)
    parser.add_argument("--prior-net", default="transformer", choices=["transformer", "pixelcnn"])
    parser.add_argument("--prior-width", type=int, default=64)
    parser.add_argument("--prior-depth", type=int, default=2)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--lr", type=float, default=3e-3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("discrete"), help="a new folder for runs and the sheet")
    options = parser.parse_args()
    data = pictures(options)
    test = data.splits["test"]
    some = test.batch(slice(0, 16))
    rows = [some.x]
    size = f"{len(data.train):,} training and {len(test):,} test pictures"
    print(f"{data.name}, {size}, {options.epochs} + {options.prior_epochs} epochs, seed {options.seed}\n")
    print(f"| {' | '.join(COLUMNS)} |\n|{'---|' * len(COLUMNS)}", flush=True)
    if data.spec.support == "binary":
        print(f"| independent | | {independent(data):.4f} |{' |' * (len(COLUMNS) - 3)}", flush=True)
    for kind in options.kinds:
        start = time.perf_counter()
        model = trained(kind, data, options)
        minutes = (time.perf_counter() - start) / 60
        print(f"| {' | '.join(figures(kind, model, data, minutes))} |", flush=True)
        with observing(model):
            rows += [model.reconstruct(some), *sample(model, 32).split(16)]
    options.out.mkdir(parents=True, exist_ok=True)
    sheet(options.out / "sheet.png", rows)


def pictures(options: argparse.Namespace) -> Dataset:
    """The data, black and white where it would be grey without levels, with a part of its test pictures."""
    data = sandglass.load_data(options.data, limit=options.limit, channels=options.channels)
    test = data.splits.get("test") or data.splits["validation"]
    test = test.take(permutation(len(test), 0)[: options.test])
    splits = {**data.splits, "test": test}
    if data.spec.support != "unit":
        return replace(data, splits=splits)
    spec = replace(data.spec, support="binary", classes=0)
    black = {name: Split((split.batch(slice(None)).x > 0.5).float()) for name, split in splits.items()}
    name = f"{data.name} in black and white"
    return Dataset(name, spec, ArrayTransform(spec.shape), black, fingerprint=f"{data.fingerprint}-binary")


def trained(kind: str, data: Dataset, options: argparse.Namespace) -> Model:
    """A model at its best weights."""
    model: dict[str, Any] = {"quantiser": kind, "codebook_size": options.size, "codes": options.codes}
    model |= {"net": {"name": "conv", "width": options.width}, "prior_net": options.prior_net}
    model |= {"prior_width": options.prior_width, "prior_depth": options.prior_depth}
    training: dict[str, Any] = {"epochs": options.epochs, "batch_size": options.batch_size, "lr": options.lr}
    training |= {"seed": options.seed, "schedule": "cosine", "sheets": 0, "threads": 1}
    training["stage"] = {"prior": {"epochs": options.prior_epochs, "lr": 1e-3}}
    return sandglass.train("vq-vae", data, out=options.out / kind, **model, **training).load_model().eval()


def figures(kind: str, model: Model, data: Dataset, minutes: float) -> list[str]:
    """A row of the table."""
    test = data.splits["test"]
    found = {r.name: r.value for r in measure(model, test, names=["bound", "fid"], **context_of(data))}
    with observing(model):
        parts = torch.arange(len(test)).split(500)
        codes = torch.cat([model.encode(Batch(test.batch(part).x)) for part in parts])
        use = {name: float(value) for name, value in model.quantiser.usage(codes).items()}
    (latent,) = model.latents
    most = latent.size * math.log(latent.levels)
    shape = f"{'x'.join(map(str, latent.shape))} of {latent.levels}"
    values = [bits_per_value(model, found["elbo"]), f"{found['distortion']:.1f}", f"{found['rate']:.1f}", f"{most:.1f}"]
    values += [f"{100 * use['used']:.1f} %", f"{use['perplexity']:.1f}", f"{found['fid']:.2f}", f"{minutes:.1f}"]
    return [f"`{kind}`", shape, *values]


def bits_per_value(model: Model, elbo: float) -> str:
    """A bound on log p(x) in nats as bits per value of a picture; nothing where p(x) is no probability."""
    return f"{-elbo / math.log(2) / model.spec.size:.4f}" if model.kind == "mass" else ""


def independent(data: Dataset) -> float:
    """Bits per dimension of test pictures in black and white, of which every pixel has its own frequency."""
    x, test = (data.splits[name].batch(slice(None)).x for name in ("train", "test"))
    p = (x.sum(0) + 0.5) / (len(x) + 1)
    return -float((test * p.log2() + (1 - test) * (1 - p).log2()).mean())


def sheet(path: Path, rows: list[Tensor]) -> None:
    """Saves rows of pictures ``(N, C, H, W)`` in [0, 1] as a PNG, enlarged twice."""
    framed = [F.pad(x.expand(-1, 3, -1, -1), (1, 1, 1, 1), value=1.0) for x in rows]
    picture = torch.cat([torch.cat(list(x), 2) for x in framed], 1)
    image = Image.fromarray((picture * 255).round().byte().permute(1, 2, 0).numpy())
    image.resize((2 * image.width, 2 * image.height), Image.Resampling.NEAREST).save(path)


if __name__ == "__main__":
    main()

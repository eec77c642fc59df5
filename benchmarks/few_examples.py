"""Samples where there are few examples: rh-vae by its metric and by its prior, beside a VAE and densities of its codes.

Trains on 150 pictures of MNIST, 50 of each of three digits, and compares as many samples as there are other pictures of
these digits (1,500) with them. All models have the same nets (one hidden layer of 256), 10 latents, 100 epochs, last
weights and otherwise their defaults; nothing was chosen on these figures. Rows: the training pictures, as a copyist
would give them; codes from the prior, from N(mean, covariance) of the training codes, and from q(z|x) of training
pictures drawn at random; and for ``rh-vae`` codes by its metric. Columns:

distance   Frechet distance to the other pictures, on 32 principal components of 5,000 pictures; lower is better
nearest    median distance of a sample to the nearest training picture, over that of the other pictures: well below 1
           samples are copies of training pictures
varied     median distance between two samples, over that of two other pictures (of any digits)

Median and range over seeds. Run it as ``python benchmarks/few_examples.py [--seeds 0 1 2] [--quick]``; with ``--out
FILE`` it draws samples of the last seed as a PNG, a row of the printed order each.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from importance_weighted import summary
from pairs import sheet
from sandglass.models._density import GaussianDensity
from torch import Tensor

import sandglass
from sandglass import rng
from sandglass.core import Batch, Spec
from sandglass.data.dataset import Dataset, Split
from sandglass.data.transform import ArrayTransform
from sandglass.metrics.fid import frechet, moments
from sandglass.runs.model_folder import load_model

DIGITS, EACH, OTHERS = (2, 3, 8), 50, 1500
OPTIONS: dict[str, Any] = {"latent_dim": 10, "net": {"name": "mlp", "widths": [256]}, "likelihood": "bernoulli"}


def pictures(seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """Training pictures, others of the same digits, and 5,000 for the components."""
    data = sandglass.load_data("mnist")
    train, test = data.train.batch(slice(0, 20_000)), data.splits["test"].batch(slice(0, None))
    assert train.y is not None and test.y is not None
    places = [(train.y == digit).nonzero()[:, 0] for digit in DIGITS]
    shuffled = [place[rng.permutation(len(place), seed, "few")] for place in places]
    among = torch.isin(train.y, torch.tensor(DIGITS))
    others = test.x[torch.isin(test.y, torch.tensor(DIGITS))][:OTHERS]
    return train.x[torch.cat([place[:EACH] for place in shuffled])], others, train.x[among][:5000]


def trained(name: str, x: Tensor, seed: int, epochs: int) -> Any:
    """A model of a few pictures."""
    spec = Spec((1, 28, 28), "unit")
    data = Dataset("few", spec, ArrayTransform(spec.shape), {"train": Split(x)}, fingerprint="few")
    with tempfile.TemporaryDirectory() as folder:
        run, training = Path(folder) / "run", {"batch_size": 50, "schedule": "cosine", "select": "last", "threads": 1}
        sandglass.train(
            name, data, out=run, model_options=OPTIONS, seed=seed, epochs=epochs, lr=1e-3, sheets=0, **training
        )
        return load_model(run / "model").eval()


@torch.no_grad()
def samples(model: Any, x: Tensor, n: int) -> dict[str, Callable[[], Tensor]]:
    """By where codes come from, means of p(x|z)."""
    density = GaussianDensity(model.code_size)
    density.fit(model.encode(x))
    drawn = x[torch.randint(len(x), (n,))]
    found = {
        "prior": lambda: model.decode(model.prior().sample((n,))),
        "a Gaussian of the codes": lambda: model.decode(density.sample(n)),
        "posteriors": lambda: model.decode(model.infer(Batch(drawn))),
    }
    return found if not hasattr(model, "metric") else {"metric": lambda: model.sample(n), **found}


def figures(made: Tensor, x: Tensor, others: Tensor, basis: Tensor) -> dict[str, float]:
    """The columns."""
    flat = [t.flatten(1).double() for t in (made, x, others)]
    made, x, others = flat
    distance = frechet(*moments(made @ basis), *moments(others @ basis))
    near = [float(torch.cdist(t, x).min(1).values.median()) for t in (made, others)]
    apart = [float((t[: len(t) // 2] - t[len(t) // 2 :][: len(t) // 2]).norm(dim=1).median()) for t in (made, others)]
    return {"distance": distance, "nearest": near[0] / near[1], "varied": apart[0] / apart[1]}


def main() -> None:
    """Trains both with every seed, and prints."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--epochs", type=int, default=100)
    parser.add_argument("--quick", action="store_true", help="one seed, two epochs")
    parser.add_argument("--out", type=Path, help="a PNG of samples")
    chosen = parser.parse_args()
    if chosen.quick:
        chosen.seeds, chosen.epochs = chosen.seeds[:1], 2
    found: dict[str, list[dict[str, float]]] = {}
    for seed in chosen.seeds:
        x, others, many = pictures(seed)
        basis = torch.linalg.eigh(many.flatten(1).double().T.cov()).eigenvectors[:, -32:]
        copies = x[torch.arange(len(others)) % len(x)][rng.permutation(len(others), seed, "copies")]
        rows, drawn = {"training pictures": copies}, []
        for name in ("vae", "rh-vae"):
            model = trained(name, x, seed, chosen.epochs)
            with torch.no_grad(), rng.forked("cpu", seed, "few"):
                rows |= {f"{name}, {way}": make() for way, make in samples(model, x, len(others)).items()}
        for name, made in rows.items():
            found.setdefault(name, []).append(figures(made, x, others, basis))
            drawn.append(made[torch.arange(16) * 7])
            print(f"seed {seed}, {name}: {summary(found[name][-1:])}", flush=True)
        if chosen.out:
            sheet(chosen.out, *drawn)
    for name, each in found.items():
        print(f"{name}: {summary(each)}", flush=True)


if __name__ == "__main__":
    main()

"""Dirichlet VAEs against Gaussian ones on one budget, and against a "Dirichlet VAE" that is none.

Books and repositories print a "Dirichlet VAE" whose encoder, noise and KL are Gaussian, with the mean of the
cross-entropy over pixels in place of its sum, and which decodes draws from a Dirichlet distribution that it was never
trained on: here as ``printed``. Columns: bound on log p(x) of test images in nats (beta = 1, a cross-entropy of grey
values), its rate, mean squared error of reconstructions, error of five nearest neighbours on codes, FID of samples on
features of our own: ``python reproductions/dirichlet.py --epochs 10``.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from pathlib import Path
from typing import Any

import torch
from sklearn.neighbors import KNeighborsClassifier

import sandglass
from sandglass import running
from sandglass.metrics.measure import context_of, measure


def kinds(dim: int) -> dict[str, dict[str, Any]]:
    """Options of the VAE by name, with codes of so many numbers."""

    def dirichlet(concentration: float) -> dict[str, Any]:
        prior = {"name": "dirichlet", "concentration": concentration}
        return {"latent_dim": dim, "posterior": "dirichlet", "prior": prior}

    return {
        f"gaussian, {dim}": {"latent_dim": dim},
        f"gaussian, {dim - 1}": {"latent_dim": dim - 1},
        **{f"dirichlet, {dim}, concentration {alpha:g}": dirichlet(alpha) for alpha in (1.0, 0.5, 0.1)},
        "printed": {"latent_dim": 2, "beta": 784.0, "beta_schedule": "constant"},
    }


def main() -> None:
    """Trains and measures each."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", default="mnist", help="labelled images")
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--seeds", type=int, nargs="+", default=[10, 11, 12], help="of trainings")
    parser.add_argument(
        "--dim", type=int, default=10, help="numbers of a Dirichlet code, one of which is given by the rest"
    )
    parser.add_argument("--width", type=int, default=256, help="of the hidden layer")
    parser.add_argument("--only", default="", help="kinds whose names begin so")
    options = parser.parse_args()
    data = sandglass.load_data(options.data)
    found: dict[str, list[tuple[float, ...]]] = {}
    for seed in options.seeds:
        for name, own in kinds(options.dim).items():
            if not name.startswith(options.only):
                continue
            values = measured(data, own, seed, options, printed=name == "printed")
            print(f"seed {seed}  {name:32}" + "  ".join(f"{value:8.4g}" for value in values), flush=True)
            found.setdefault(name, []).append(values)
    print(
        f"\n{'codes':32}{'-bound':>10}{'rate':>10}{'MSE':>10}{'kNN error':>10}{'FID':>10}   medians; range of the bound"
    )
    for name, values in found.items():
        each = list(zip(*values, strict=True))
        print(
            f"{name:32}"
            + "".join(f"{statistics.median(v):10.4g}" for v in each)
            + f"   {min(each[0]):.1f} to {max(each[0]):.1f}"
        )


def measured(
    data: Any, own: dict[str, Any], seed: int, options: argparse.Namespace, *, printed: bool
) -> tuple[float, ...]:
    """The columns of the table."""
    net = {"name": "mlp", "widths": [options.width]}
    training: dict[str, Any] = {"epochs": options.epochs, "batch_size": 128, "seed": seed, "sheets": 0}
    with tempfile.TemporaryDirectory() as folder:
        run = sandglass.train("vae", data, out=Path(folder) / "run", net=net, likelihood="bernoulli", **own, **training)
        model = run.load_model().eval()
    test = data.splits.get("test") or data.splits["validation"]
    near = KNeighborsClassifier(5).fit(
        running.encode(model, data.train)[:10_000].numpy(), data.train.y[:10_000].numpy()
    )
    error = 1 - near.score(running.encode(model, test).numpy(), test.y.numpy())
    if printed:
        model.draw = lambda n, given=None: torch.distributions.Dirichlet(torch.ones(2)).sample((n,))
    results = measure(model, test, names=["bound", "mse", "fid"], seed=seed, **context_of(data))
    by_name = {result.name: result.value for result in results}
    return -by_name["elbo"], by_name["rate"], by_name["mse"], error, by_name["fid"]


if __name__ == "__main__":
    main()

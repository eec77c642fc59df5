"""Codes of an autoencoder drawn from densities fitted after training: N(0, I), a Gaussian, mixtures; and a VAE beside.

Ghosh et al. 2020, "From Variational to Deterministic Autoencoders" (arXiv 1903.12436), draw from mixtures of ten
Gaussians; here with one hidden layer of 512 units, 16 numbers a code, and distances on the features of a small network
of our own: ``python reproductions/densities.py --data mnist --epochs 6``.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import sandglass
from sandglass import running
from sandglass.metrics.measure import context_of, measure
from sandglass.models._density import GaussianDensity, density_of

COMPONENTS = (1, 5, 10, 20)


def main() -> None:
    """Trains both, then fits and measures each density."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", default="mnist", help="images")
    parser.add_argument("--epochs", type=int, default=6, help="of both")
    parser.add_argument("--seeds", type=int, default=3, help="numbers of trainings of each")
    parser.add_argument("--components", type=int, nargs="+", default=COMPONENTS, help="Gaussians of the mixtures")
    options = parser.parse_args()
    data = sandglass.load_data(options.data)
    found: dict[str, list[float]] = {}
    for seed in range(options.seeds):
        for name, value in distances(data, options.epochs, options.components, seed):
            found.setdefault(name, []).append(value)
    print(f"{'codes':24}FID, median and range of {options.seeds}")
    for name, values in found.items():
        print(f"{name:24}{statistics.median(values):.2f}, {min(values):.2f} to {max(values):.2f}")


def distances(data: Any, epochs: int, components: Sequence[int], seed: int) -> Iterator[tuple[str, float]]:
    """The FID of the samples of a VAE, and of an autoencoder by each density of its codes."""
    test = data.splits.get("test") or data.splits["validation"]

    def fid(model: Any) -> float:
        (result,) = measure(model.eval(), test, names=["fid"], seed=seed, **context_of(data))
        return result.value

    with tempfile.TemporaryDirectory() as folder:
        vae, model = (trained(name, data, Path(folder) / name, epochs, seed) for name in ("vae", "ae"))
    yield "vae", fid(vae)
    model.density = GaussianDensity(model.code_size)
    yield "ae, N(0, I)", fid(model)
    codes = running.encode(model, data.train)
    for count in components:
        model.density = density_of(model.code_size, count)
        model.density.fit(codes)
        yield "ae, a Gaussian" if count == 1 else f"ae, mixture of {count}", fid(model)


def trained(name: str, data: Any, folder: Path, epochs: int, seed: int) -> Any:
    """A model with one hidden layer and 16 latents."""
    net = {"name": "mlp", "widths": [512]}
    options: dict[str, Any] = {"epochs": epochs, "batch_size": 256, "sheets": 0, "seed": seed}
    run = sandglass.train(name, data, out=folder, latent_dim=16, net=net, likelihood="bernoulli", **options)
    return run.load_model()


if __name__ == "__main__":
    main()

"""Codes of an autoencoder drawn from densities fitted after training: N(0, I), a Gaussian, mixtures; and a VAE beside.

Ghosh et al. 2020, "From Variational to Deterministic Autoencoders" (arXiv 1903.12436), draw from mixtures of ten
Gaussians; here with one hidden layer of 512 units, 16 numbers a code, and distances on the features of a small network
of our own, with their standard errors: ``python reproductions/densities.py --data mnist --epochs 6``.
"""

from __future__ import annotations

import argparse
import tempfile
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
    parser.add_argument("--components", type=int, nargs="+", default=COMPONENTS, help="Gaussians of the mixtures")
    options = parser.parse_args()
    data = sandglass.load_data(options.data)
    test = data.splits.get("test") or data.splits["validation"]

    def fid(model: Any) -> str:
        (found,) = measure(model.eval(), test, names=["fid"], **context_of(data))
        return f"{found.value:8.2f} +- {found.stderr or 0:.2f}"

    with tempfile.TemporaryDirectory() as folder:
        models = {name: trained(name, data, Path(folder) / name, options.epochs) for name in ("ae", "vae")}
    model = models["ae"]
    print(f"{'codes':28}FID")
    print(f"{'vae':28}{fid(models['vae'])}")
    model.density = GaussianDensity(model.code_size)
    print(f"{'ae, N(0, I)':28}{fid(model)}")
    codes = running.encode(model, data.train)
    for components in options.components:
        model.density = density_of(model.code_size, components)
        model.density.fit(codes)
        name = "ae, a Gaussian" if components == 1 else f"ae, mixture of {components}"
        print(f"{name:28}{fid(model)}", flush=True)


def trained(name: str, data: Any, folder: Path, epochs: int) -> Any:
    """A model with one hidden layer and 16 latents."""
    net = {"name": "mlp", "widths": [512]}
    options: dict[str, Any] = {"epochs": epochs, "batch_size": 256, "sheets": 0}
    run = sandglass.train(name, data, out=folder, latent_dim=16, net=net, likelihood="bernoulli", **options)
    return run.load_model()


if __name__ == "__main__":
    main()

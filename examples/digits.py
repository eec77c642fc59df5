"""Trains a VAE with two latent dimensions on handwritten digits, and draws where it puts them.

    python examples/digits.py [--epochs 20]

Leaves ``digits-map.png``: the test digits' codes, coloured by class, and the plane between them decoded.
"""

from __future__ import annotations

import argparse

import matplotlib.pyplot as plt
import torch

import sandglass


def main() -> None:
    """Trains, measures, draws."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=20)
    epochs = parser.parse_args().epochs

    run = sandglass.train("vae", "digits", epochs=epochs, model_options={"latent_dim": 2})
    for name, figure in sandglass.evaluate(run)["metrics"].items():
        print(f"{name:>16} {figure['value']:10.3f} {figure['unit']}")

    model = sandglass.load(run)
    test = sandglass.load_data("digits").splits["test"].batch(slice(None))
    steps = torch.linspace(-2, 2, 15)
    plane = torch.cartesian_prod(steps.flip(0), steps).flip(1)  # rows from the top, columns from the left
    with torch.no_grad():
        codes, pictures = model.encode(test.x).numpy(), model.decode(plane).numpy()

    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 5), layout="constrained")
    points = left.scatter(*codes.T, c=test.y.numpy(), cmap="tab10", s=12)
    figure.colorbar(points, ax=left, label="digit", ticks=range(10))
    left.set(title="codes of the test digits", xlabel="first latent", ylabel="second latent")
    height, width = pictures.shape[-2:]
    tiles = pictures.reshape(15, 15, height, width).swapaxes(1, 2).reshape(15 * height, 15 * width)
    right.imshow(tiles, cmap="gray", extent=(-2, 2, -2, 2))
    right.set(title="the plane, decoded", xlabel="first latent", ylabel="second latent")
    figure.savefig("digits-map.png", dpi=120)
    print(f"The run is {run.path}; the map is digits-map.png.")


if __name__ == "__main__":
    main()

"""Trains a VAE on a folder of your own pictures and draws new ones.

    python examples/own_pictures.py FOLDER [--size 32] [--epochs 50]

Leaves ``new-pictures.png``: originals, what the model makes of them, and samples, a row each.
"""

from __future__ import annotations

import argparse

import numpy as np
import torch
from PIL import Image

import sandglass
from sandglass.api import transform_of

COLUMNS = 8


def main() -> None:
    """Trains, draws."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder")
    parser.add_argument("--size", type=int, default=32)
    parser.add_argument("--epochs", type=int, default=50)
    given = parser.parse_args()

    data = sandglass.load_data(given.folder, size=given.size)
    print(f"{data.name}: {len(data.train)} pictures to learn from. {' '.join(data.notes)}")
    run = sandglass.train("vae", data, epochs=given.epochs, batch_size=32, model_options={"latent_dim": 16})

    model = sandglass.load(run)
    originals = data.train.batch(slice(0, COLUMNS)).x
    with torch.no_grad():
        rows = (originals, model.reconstruct(originals), model.sample(len(originals)))
    transform = transform_of(run)
    sheet = np.concatenate([np.concatenate(list(transform.inverse(row)), axis=1) for row in rows])
    Image.fromarray(sheet.repeat(2, axis=0).repeat(2, axis=1)).save("new-pictures.png")
    print(f"The run is {run.path}; the pictures are new-pictures.png.")


if __name__ == "__main__":
    main()

"""Writes the golden runs of the present version: ``python tests/golden/make.py``, once a release, then committed.

Small, and made from a data set that comes with an installation; ``golden.safetensors`` holds an input and what each
model makes of it.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

import sandglass
from sandglass.core import Model

MODELS = {
    "ae": {"latent_dim": 2, "net": {"name": "mlp", "widths": [16]}},
    "vae": {"latent_dim": 2, "net": {"name": "conv", "width": 4, "hidden": 16, "norm": "batch"}},
    "gan": {"latent_dim": 4, "net": {"name": "mlp", "widths": [16]}},
}


def answer(model: Model, x: Tensor) -> Tensor:
    """What a model makes of its input, without noise: reconstructions, or for a GAN what it decodes."""
    with torch.no_grad():
        return model.reconstruct(x) if "reconstruct" in model.provides else model.decode(x)


def main() -> None:
    torch.__version__ = torch.__version__.split("+")[0]  # whose build of PyTorch made them does not matter
    folder = Path(__file__).parent / sandglass.__version__
    shutil.rmtree(folder, ignore_errors=True)
    for name, options in MODELS.items():
        training = {"epochs": 1, "batch_size": 128, "threads": 1, "keep": 1}
        run = sandglass.train(name, "digits", out=folder / name, model_options=options, **training)
        model = sandglass.load(run)
        generator = torch.Generator().manual_seed(0)
        shape = model.spec.shape if name != "gan" else (4,)
        x = torch.rand(4, *shape, generator=generator)
        save_file({"x": x, "y": answer(model, x)}, folder / name / "golden.safetensors")
        for extra in ("run.lock", "run.owner"):
            (run.path / extra).unlink(missing_ok=True)


if __name__ == "__main__":
    sys.exit(main())

"""The lab exercise with pythae: trains a VAE with a test loss after every epoch, samples, and saves a sheet."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from pythae.models import VAE, VAEConfig
from pythae.pipelines import TrainingPipeline
from pythae.samplers import NormalSampler
from pythae.trainers import BaseTrainerConfig

SIDE = 20


def main(train: str, test: str, out: str, epochs: str, threads: str) -> None:
    torch.set_num_threads(int(threads))
    x, held = (torch.from_numpy(np.load(path)).float() / 255 for path in (train, test))
    model = VAE(VAEConfig(input_dim=(1, 28, 28), latent_dim=2, reconstruction_loss="bce"))
    config = BaseTrainerConfig(
        output_dir=out,
        num_epochs=int(epochs),
        per_device_train_batch_size=256,
        per_device_eval_batch_size=256,
        learning_rate=1e-3,
        no_cuda=True,
    )
    TrainingPipeline(model=model, training_config=config)(train_data=x, eval_data=held)
    with torch.no_grad():
        made = NormalSampler(model).sample(SIDE * SIDE)
    rows = made.reshape(SIDE, SIDE, 28, 28).transpose(1, 2).reshape(28 * SIDE, 28 * SIDE)
    Image.fromarray((rows * 255).byte().numpy()).save(Path(out) / "samples.png")


if __name__ == "__main__":
    main(*sys.argv[1:])

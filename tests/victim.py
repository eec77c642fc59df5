"""A training process for the tests that kill one: ``victim.py train FOLDER`` or ``victim.py finish FOLDER ...``.

``train`` saves after every step and prints its number; ``finish`` resumes each folder (or starts it) and prints the
hash of its weights and log. A folder whose name begins with the name of a model is of that model.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parent))

from helpers import digest, fresh, make_loop, pictures
from sandglass.engine.loop import Loop
from sandglass.runs.lock import hold
from sandglass.runs.run import Run

NET = {"name": "conv", "width": 4, "hidden": 8, "norm": "batch"}
OPTIONS = {"epochs": 12, "batch_size": 16, "log_every": 2, "save_steps": 1, "keep": 2, "ema": 0.9}
STAGED = {"net": NET, "codebook_size": 8, "code_dim": 2, "prior_width": 8, "prior_depth": 1}


def prepare(folder: Path, seed: int = 0) -> tuple[Loop, Run]:
    """The same small conv VAE every time, or a VQ-VAE of two stages."""
    data = pictures()
    if folder.name.startswith("vq-vae"):
        model = fresh("vq-vae", data, seed, **STAGED)
        return make_loop(model, data, folder, seed=seed, **OPTIONS | {"epochs": 2, "stage": {"prior": {"epochs": 8}}})
    return make_loop(fresh("vae", data, seed, latent_dim=2, net=NET), data, folder, seed=seed, **OPTIONS)


def finish(folder: Path) -> str:
    """Resumes and trains to the end."""
    with hold(folder):
        loop, run = prepare(folder)
        checkpoint, _ = run.latest_checkpoint()
        if checkpoint is None:
            run.rewind_log(0)
        loop.fit(checkpoint)
    return digest(loop.model, run)


def train(folder: Path) -> None:
    """Trains, and prints after each save which step is on disk."""
    with hold(folder):
        loop, run = prepare(folder)
        save = run.save_checkpoint

        def telling(step: int, *args: object) -> None:
            save(step, *args)  # type: ignore[arg-type]
            print(step, flush=True)

        run.save_checkpoint = telling  # type: ignore[method-assign, assignment]
        print("ready", flush=True)
        loop.fit()
    print("done", flush=True)


if __name__ == "__main__":
    torch.set_num_threads(1)
    command, *folders = sys.argv[1:]
    if command == "train":
        train(Path(folders[0]))
    else:
        for name in folders:
            print(finish(Path(name)), flush=True)

"""The importance-weighted log-likelihood of MNIST images compared with pythae's ``get_nll``.

A 784-512-16 VAE is trained for an epoch. Both libraries use its weights, the same images and the same number of
samples, and alternate between blocks of images. pythae runs in its own interpreter, without gradients; imports are not
timed. Run it as ``python benchmarks/log_prob.py --pythae /path/to/python [--images 1000] [--k 1000] [--device cuda]``,
where that interpreter has ``torch`` and ``pythae``.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

LATENT, HIDDEN = 16, 512

# names of layers here and in pythae; the last encoder layer here is two there, for means and log variances
SAME = {
    "posterior.trunk.1": "encoder.layers.0.0",
    "likelihood.trunk.0": "decoder.layers.0.0",
    "likelihood.trunk.2": "decoder.layers.1.0",
}
HEAD, HEADS = "posterior.trunk.3", ("encoder.embedding", "encoder.log_var")


def train(folder: Path) -> Any:
    """One epoch of the model."""
    import sandglass

    net = {"name": "mlp", "widths": [HIDDEN]}
    options = {"latent_dim": LATENT, "net": net, "likelihood": "bernoulli"}
    run = sandglass.train("vae", "mnist", out=folder, epochs=1, batch_size=100, seed=0, model_options=options)
    return sandglass.load(run).eval()


def hand_over(model: Any, folder: Path) -> None:
    """Saves the weights with pythae's names."""
    state = model.state_dict()
    for end in ("weight", "bias"):
        for ours, theirs in SAME.items():
            np.save(folder / f"{theirs}.{end}.npy", state[f"{ours}.{end}"].numpy())
        for name, half in zip(HEADS, state[f"{HEAD}.{end}"].chunk(2), strict=True):
            np.save(folder / f"{name}.{end}.npy", half.numpy())


def peer(folder: Path, k: int, batch: int, device: str) -> dict[str, Any]:
    """Evaluates pythae, in its own interpreter: nats of each image, and the time in seconds."""
    from pythae.models import VAE, VAEConfig

    model = VAE(VAEConfig(input_dim=(1, 28, 28), latent_dim=LATENT, reconstruction_loss="bce")).eval()
    weights = {name: torch.from_numpy(np.load(folder / f"{name}.npy")) for name in model.state_dict()}
    model.load_state_dict(weights)
    model.to(device)
    x = torch.from_numpy(np.load(folder / "images.npy")).to(device)
    with torch.no_grad():
        model.get_nll(x[:1], k, batch)  # warm-up
        start = time.perf_counter()
        values = [float(model.get_nll(x[i : i + 1], k, batch)) for i in range(len(x))]
    return {"values": values, "seconds": time.perf_counter() - start}


def ask_peer(python: str, folder: Path, k: int, batch: int, threads: int, device: str) -> dict[str, Any]:
    """Runs :func:`peer` in another interpreter."""
    options = {"peer": folder, "k": k, "batch": batch, "threads": threads, "device": device}
    command = [python, __file__, *(str(word) for name, value in options.items() for word in (f"--{name}", value))]
    # without PYTHONPATH, which is for this interpreter
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    if done.returncode:
        sys.exit(f"pythae did not run in {python}:\n{done.stderr}")
    return dict(json.loads(done.stdout.splitlines()[-1]))


@torch.no_grad()
def ours(model: Any, x: torch.Tensor, k: int) -> dict[str, Any]:
    """Evaluates Sandglass."""
    model.log_prob(x[:1], k)
    start = time.perf_counter()
    values = model.log_prob(x, k).tolist()
    return {"values": values, "seconds": time.perf_counter() - start}


def compare(python: str, images: int, k: int, batches: list[int], blocks: int, threads: int, device: str) -> None:
    """Trains a model, evaluates both libraries alternately, and prints the results."""
    import sandglass

    test = sandglass.load_data("mnist").splits["test"]
    own: dict[str, list[Any]] = {"values": [], "seconds": []}
    others: dict[int, dict[str, list[Any]]] = {batch: {"values": [], "seconds": []} for batch in batches}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model = train(folder / "run")
        hand_over(model, folder)
        model.to(device)
        torch.manual_seed(0)
        for index in torch.arange(images).chunk(blocks):
            x = test.batch(index).x
            np.save(folder / "images.npy", x.numpy())
            turns = [(own, ours(model, x.to(device), k))]
            turns += [(others[batch], ask_peer(python, folder, k, batch, threads, device)) for batch in batches]
            for kept, turn in turns:
                kept["values"] += turn["values"]
                kept["seconds"].append(turn["seconds"])
    print(f"{images} images, k = {k}, {device}, {threads} threads, torch {torch.__version__}")
    report("sandglass", own, own)
    for batch, other in others.items():
        report(f"pythae, batch_size={batch}", other, own)


def report(name: str, one: dict[str, list[Any]], own: dict[str, list[Any]]) -> None:
    """Prints a row: nats, difference from ours with its standard error over images, seconds, and time ratio to ours."""
    values, difference = np.array(one["values"]), np.array(one["values"]) - np.array(own["values"])
    times = [a / b for a, b in zip(one["seconds"], own["seconds"], strict=True)]
    error = difference.std(ddof=1) / len(difference) ** 0.5
    print(
        f"{name:26}{values.mean():10.3f} nats   minus ours {difference.mean():+.4f} +- {error:.4f}"
        f"   {sum(one['seconds']):8.2f} s   {sum(one['seconds']) / sum(own['seconds']):6.2f} times ours"
        f" (each block {', '.join(f'{t:.2f}' for t in times)})"
    )


def main() -> None:
    """Reads the arguments; ``--peer`` is how the script calls itself in the other interpreter."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pythae", metavar="PYTHON", help="an interpreter with torch and pythae")
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--k", type=int, default=1000, help="samples per image, a multiple of the batch sizes")
    parser.add_argument(
        "--batch", type=int, nargs="+", help="pythae's batch_size; its default (100) and k when not given"
    )
    parser.add_argument("--blocks", type=int, default=5, help="number of blocks of images")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", default="cpu", help="cpu, cuda or cuda:N")
    parser.add_argument("--peer", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    batches = args.batch or [100, args.k]
    if any(args.k % batch for batch in batches):
        parser.error("pythae draws whole batches: k must be a multiple of every batch size.")
    if args.peer:
        torch.manual_seed(1)
        print(json.dumps(peer(args.peer, args.k, batches[0], args.device)))
    elif args.pythae:
        compare(args.pythae, args.images, args.k, batches, args.blocks, args.threads, args.device)
    else:
        parser.error("--pythae must name an interpreter with torch and pythae.")


if __name__ == "__main__":
    main()

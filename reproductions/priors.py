"""Priors and posteriors of a VAE on dynamically binarised MNIST: log p(x), its parts, and samples.

Tomczak and Welling 2018, "VAE with a VampPrior" (arXiv 1705.07120), print 84.50 nats for the standard normal prior and
82.38 for theirs (two gated layers of 300 units, 40 latents, 500 pseudo-inputs, up to 2,000 epochs with early stopping,
5,000 draws). Here the same networks, of plain layers, for ``--epochs``; log p(x) is of 1,000 test pictures, binarised
once, by ``--draws`` importance-weighted draws: ``python reproductions/priors.py --epochs 40``.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from pathlib import Path
from typing import Any

import torch

import sandglass
from sandglass import rng
from sandglass.core import Batch
from sandglass.metrics.measure import context_of, measure

KINDS: dict[str, dict[str, Any]] = {
    "standard": {},
    "mixture of 10": {"prior": "mixture"},
    "mixture of 100": {"prior": {"name": "mixture", "components": 100}},
    "vamp": {"prior": "vamp"},
    "maf": {"prior": {"name": "maf", "transforms": 3}},
    "full-gaussian": {"posterior": "full-gaussian"},
    "planar": {"posterior": "planar"},
    "radial": {"posterior": "radial"},
    "iaf": {"posterior": "iaf"},
}


def main() -> None:
    """Trains and measures each."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", default="mnist", help="images of ink")
    parser.add_argument("--epochs", type=int, default=40)
    parser.add_argument("--seeds", type=int, nargs="+", default=[10, 11, 12], help="of trainings")
    parser.add_argument("--kinds", nargs="+", default=list(KINDS), help="of priors and posteriors")
    parser.add_argument("--widths", type=int, nargs="+", default=[300, 300], help="of the hidden layers")
    parser.add_argument("--latents", type=int, default=40, help="size of a code")
    parser.add_argument("--draws", type=int, default=500, help="of the estimate of log p(x)")
    options = parser.parse_args()
    data = sandglass.load_data(options.data)
    found: dict[str, list[tuple[float, ...]]] = {}
    for seed in options.seeds:
        for kind in options.kinds:
            values = measured(data, kind, seed, options)
            print(f"seed {seed}  {kind:20}" + "  ".join(f"{value:8.2f}" for value in values), flush=True)
            found.setdefault(kind, []).append(values)
    print(f"\n{'prior or posterior':20}{'-log p(x)':>26}{'-bound':>10}{'rate':>10}{'FID':>10}   medians, and the range")
    for kind, values in found.items():
        each = list(zip(*values, strict=True))
        middle = [statistics.median(v) for v in each]
        text = f"{middle[0]:.2f}, {min(each[0]):.2f} to {max(each[0]):.2f}"
        print(f"{kind:20}{text:>26}" + "".join(f"{v:10.2f}" for v in middle[1:]))


def measured(data: Any, kind: str, seed: int, options: argparse.Namespace) -> tuple[float, ...]:
    """``-log p(x)``, minus the bound, and the rate, in nats an image; and the FID of samples on features of our own."""
    net = {"name": "mlp", "widths": options.widths, "activation": "silu"}
    own: dict[str, Any] = {"net": net, "latent_dim": options.latents, "likelihood": "bernoulli", **KINDS[kind]}
    training: dict[str, Any] = {"epochs": options.epochs, "batch_size": 128, "lr": 1e-3, "schedule": "cosine"}
    with tempfile.TemporaryDirectory() as folder:
        run = sandglass.train(
            "vae", data, out=Path(folder) / "run", seed=seed, augment="binarise", sheets=0, **training, **own
        )
        model = run.load_model().eval()
    test = (data.splits.get("test") or data.splits["validation"]).batch(slice(0, 1000)).x
    with rng.forked("cpu", 0), torch.no_grad():
        ink = torch.bernoulli(test)
        log_p = torch.cat([model.log_prob(Batch(part), options.draws) for part in ink.split(50)])
        bounds = [model.bound(Batch(ink)) for _ in range(20)]
    split = data.splits.get("test") or data.splits["validation"]
    (fid,) = measure(model, split, names=["fid"], seed=seed, **context_of(data))
    elbo, rate = (statistics.fmean(float(getattr(b, part).mean()) for b in bounds) for part in ("elbo", "rate"))
    return -float(log_p.mean()), -elbo, rate, fid.value


if __name__ == "__main__":
    main()

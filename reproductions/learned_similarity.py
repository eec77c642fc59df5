"""VAE-GAN beside the VAE: sharpness and distance of samples, for as many updates and for as much processor time.

Larsen et al. 2016, "Autoencoding beyond pixels using a learned similarity metric" (arXiv 1512.09300); distances (FID)
are on the features of a small network of our own: ``python reproductions/learned_similarity.py --data mnist``.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from photos import chosen, limited, sheet

import sandglass
from sandglass.metrics.measure import context_of, measure

FIGURES = ("fid", "coverage", "sharpness", "mse")
NETS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "mlp": ({"name": "mlp", "widths": [512, 256], "activation": "silu"}, {"activation": "leaky-relu"}),
    "conv": ({"name": "conv", "width": 16}, {"norm": "none", "activation": "leaky-relu"}),
}
"""The networks of encoder and decoder, and what is otherwise in that of the critic."""


def main() -> None:
    """Trains and measures each, seed by seed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", default="mnist", help="images")
    parser.add_argument("--classes", nargs="+", help="only these classes of it")
    parser.add_argument("--pictures", type=int, default=10_000, help="to train on, at most")
    parser.add_argument("--net", choices=NETS, default="mlp")
    parser.add_argument("--updates", type=int, default=1000, help="of 32 images")
    parser.add_argument("--longer", type=int, default=6, help="times as many updates of the VAE in the last row")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="three updates of one seed, to see that it runs")
    parser.add_argument("--out", type=Path, help="folder for 64 samples of each with the first seed")
    options = parser.parse_args()
    if options.quick:
        options.updates, options.seeds = 3, 1
    data = limited(chosen(sandglass.load_data(options.data), options.classes), options.pictures)
    budgets = {
        "vae-gan": ("vae-gan", options.updates),
        "vae": ("vae", options.updates),
        f"vae, {options.longer} times as many": ("vae", options.longer * options.updates),
    }
    found: dict[str, dict[str, list[float]]] = {}
    for seed in range(options.seeds):
        for title, (name, updates) in budgets.items():
            figures, model = measured(name, data, options.net, updates, seed)
            for figure, value in figures.items():
                found.setdefault(title, {}).setdefault(figure, []).append(value)
            print(f"seed {seed}, {title}: {figures}", flush=True)
            if options.out and not seed:
                options.out.mkdir(parents=True, exist_ok=True)
                sheet(model, options.out / f"{title.replace(',', '').replace(' ', '-')}.png")
    print(f"\nmedian and range of {options.seeds}")
    for title, each in found.items():
        print(title)
        for figure, values in each.items():
            print(f"    {figure:10}{statistics.median(values):.3g}, {min(values):.3g} to {max(values):.3g}")


def measured(name: str, data: Any, net: str, updates: int, seed: int) -> tuple[dict[str, float], Any]:
    """Figures on unseen images after so many updates, with the seconds of processor time; and the model."""
    own, critic = NETS[net]
    model_options = {"net": own, **({"critic": {**own, **critic}} if name == "vae-gan" else {})}
    begun = time.process_time()
    with tempfile.TemporaryDirectory() as folder:
        training: dict[str, Any] = {"epochs": 1000, "max_steps": updates, "batch_size": 32, "sheets": 0, "seed": seed}
        run = sandglass.train(name, data, out=Path(folder) / "run", model_options=model_options, **training)
        model = run.load_model()
    seconds = time.process_time() - begun
    results = measure(model.eval(), data.splits["test"], names=FIGURES, **context_of(data))
    return {**{r.name: round(r.value, 4) for r in results if r.name in FIGURES}, "seconds": round(seconds)}, model


if __name__ == "__main__":
    main()

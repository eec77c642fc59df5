"""Which model for my pictures: several on the same photos for the same minutes, with sheets and figures.

    python reproductions/photos.py --data photos/ [--pictures 300 1500] [--size 32] [--minutes 5] [--out FOLDER]

Trains each model with its defaults by ``train(minutes=...)``, and beside them the two loops that a person finds on
the web (``plain.py``) and the defaults of Sandglass 0.1 (``OLD``) for the same time. Every run is measured by the same
figures on the same unseen pictures, and draws 64 samples with fixed noise. Two rows are there to read the figures by:
other real pictures, the best that can be, and a Gaussian in the space of 64 principal components, the least that a
model has to beat.

Written to the folder, and nothing is trained twice: a row that is in ``rows.json`` is kept.

    rows.json       all figures with their standard errors, the planned and the real minutes, the machine
    table.md        the table
    *.png           64 samples of each
    sheets.jpg      32 samples of each, beside one another
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import time
from collections.abc import Callable, Collection, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from PIL import Image, ImageDraw
from plain import LOOPS
from torch import Tensor

import sandglass
from sandglass.core import Batch, Model, Phase, Spec
from sandglass.data.dataset import Dataset
from sandglass.metrics.measure import context_of, measure
from sandglass.rng import permutation
from sandglass.running import sample

MODELS = ("ae", "vae", "vq-vae", "fsq-vae", "gan", "latent-flow", "flow-matching")
FIGURES = ("two_sample_auc", "coverage", "fid", "sharpness", "grid", "patches")
OLD: dict[str, dict[str, Any]] = {
    "vae": {"latent_dim": 16, "likelihood": "bernoulli", "beta_schedule": "constant"},
    "gan": {"latent_dim": 32, "adversary": "non-saturating", "r1": 1.0, "r2": 0.0, "penalised": 1.0, "ada": 0.0},
}
"""The defaults of Sandglass 0.1 for pictures: options of the models, and below the net and the training."""

OLD_NET: dict[str, Any] = {"name": "conv", "width": 32}
OLD_TRAINING: dict[str, Any] = {"ema": 0.0, "precision": "fp32"}

RIVALS = ("plain", "old")

UNSEEN = 500
"""At most so many pictures, which no model is trained on; as many samples of every model are compared with them."""


class Pool(Model):
    """Takes pictures from a fixed set, one after the other.

    Args:
        spec: the pictures.
        x: ``(N, C, H, W)`` in [0, 1].
    """

    def __init__(self, spec: Spec, x: Tensor) -> None:
        super().__init__()
        self.spec, self.x, self.place = spec, torch.nn.Parameter(x, requires_grad=False), 0

    def phases(self) -> tuple[Phase, ...]:
        """None."""
        return ()

    def sample(self, n: int, given: Batch | None = None, *, noise: bool = False) -> Tensor:
        """``(n, C, H, W)``; from the first again where there are fewer."""
        index = (self.place + torch.arange(n)) % len(self.x)
        self.place += n
        return self.x[index]


class Components(Model):
    """A Gaussian in the space of principal components.

    Args:
        spec: the pictures.
        x: ``(N, C, H, W)`` in [0, 1].
        count: number of components.
    """

    def __init__(self, spec: Spec, x: Tensor, count: int = 64) -> None:
        super().__init__()
        flat = x.flatten(1)
        self.spec, self.mean = spec, torch.nn.Parameter(flat.mean(0), requires_grad=False)
        _, scale, axes = torch.linalg.svd(flat - self.mean, full_matrices=False)
        count = min(count, len(x) - 1)
        self.axes = torch.nn.Parameter(axes[:count] * scale[:count, None] / len(x) ** 0.5, requires_grad=False)

    def phases(self) -> tuple[Phase, ...]:
        """None."""
        return ()

    def sample(self, n: int, given: Batch | None = None, *, noise: bool = False) -> Tensor:
        """``(n, C, H, W)``."""
        flat = self.mean + torch.randn(n, len(self.axes)) @ self.axes
        return flat.clamp(0, 1).unflatten(1, self.spec.shape)


def limited(data: Dataset, count: int) -> Dataset:
    """The data with ``count`` training pictures and at most :data:`UNSEEN` in the test split."""
    test = data.splits["test"]
    splits = {
        **data.splits,
        "train": data.train.take(permutation(len(data.train), 0, "photos")[:count].sort().values),
        "test": test.take(permutation(len(test), 0, "unseen")[:UNSEEN].sort().values),
    }
    return replace(data, splits=splits, fingerprint=f"{data.fingerprint}-{count}")


def stored(data: Dataset) -> Tensor:
    """The training pictures as uint8 ``(N, C, H, W)``."""
    parts = [data.train.batch(i).x for i in torch.arange(len(data.train)).split(500)]
    return (torch.cat(parts) * 255).round().to(torch.uint8)


def sheet(model: Model, path: Path) -> None:
    """64 samples from fixed noise, 8 by 8, at least 64 pixels each."""
    x = (sample(model, 64, key=(0, "photos")).clamp(0, 1) * 255).round().to(torch.uint8).cpu()
    c, h, w = x.shape[1:]
    grid = x.reshape(8, 8, c, h, w).permute(0, 3, 1, 4, 2).reshape(8 * h, 8 * w, c).numpy()
    zoom = max(1, 64 // h)
    image = Image.fromarray(grid[..., 0] if c == 1 else grid)
    image.resize((8 * w * zoom, 8 * h * zoom), Image.Resampling.NEAREST).save(path)


def montage(folder: Path, rows: dict[str, Any]) -> None:
    """``sheets.jpg``: the upper halves of all sheets in two columns, with names and AUCs above them."""
    width, height, line = 320, 160, 16
    canvas = Image.new("RGB", (2 * width + 8, -(-len(rows) // 2) * (height + line + 8)), "white")
    for place, (key, found) in enumerate(rows.items()):
        left, top = place % 2 * (width + 8), place // 2 * (height + line + 8)
        words = f"{found['model']}, {found['pictures']} pictures, {found['minutes']:g} minutes"
        if (area := found["figures"].get("two_sample_auc", {}).get("value")) is not None:
            words += f": AUC {area:.2f}"
        ImageDraw.Draw(canvas).text((left + 2, top + 2), words, "black")
        with Image.open(folder / f"{key}.png") as whole:
            half = whole.convert("RGB").crop((0, 0, whole.width, whole.height // 2))
        canvas.paste(half.resize((width, height), Image.Resampling.LANCZOS), (left, top + line))
    canvas.save(folder / "sheets.jpg", quality=88)


def unused(whole: Dataset, count: int) -> Tensor:
    """Real pictures ``(N, C, H, W)`` that :func:`limited` neither trains on nor tests with, at most 2,000."""
    rest = whole.train.take(permutation(len(whole.train), 0, "photos")[count:][:2000])
    parts = [s.batch(i).x for s in (rest, whole.splits["validation"]) for i in torch.arange(len(s)).split(500)]
    return torch.cat(parts)


def contenders(
    data: Dataset, other: Tensor, minutes: float, names: list[str], out: Path, rivals: Collection[str]
) -> Iterator[tuple[str, Callable[[], Model]]]:
    """Names, and what makes the model."""
    if len(other) >= len(data.splits["test"]):  # repeated ones would be told apart
        yield "other real pictures", lambda: Pool(data.spec, other)
    yield "Gaussian of 64 components", lambda: Components(data.spec, stored(data).float() / 255)
    for name, loop in LOOPS.items():
        if "plain" in rivals:
            yield name, lambda loop=loop: loop(stored(data), data.spec, 60 * minutes)
    for name in names:
        if name in OLD and "old" in rivals:
            old = {**OLD_TRAINING, "model_options": {"net": OLD_NET, **OLD[name]}}
            yield f"{name} of 0.1", partial(trained, name, data, minutes, out / f"run-old-{name}", **old)
        yield name, partial(trained, name, data, minutes, out / f"run-{name}")


def trained(name: str, data: Dataset, minutes: float, out: Path, **options: Any) -> Model:
    """A model trained with its defaults, except for some options."""
    number = 0
    while out.exists():
        number += 1
        out = out.with_name(f"{out.name.split('.')[0]}.{number}")
    run = sandglass.train(name, data, out=out, minutes=minutes, **options)
    return run.load_model()


def row(model: Model, data: Dataset) -> dict[str, Any]:
    """The default figures, with their standard errors."""
    results = measure(model, data.splits["test"], **context_of(data))
    return {r.name: {"value": r.value, "stderr": r.stderr, "note": r.note} for r in results}


def table(rows: dict[str, Any]) -> str:
    """Markdown."""
    head = ["pictures", "side", "minutes", "model", *(f.replace("_", " ") for f in FIGURES)]
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    for found in rows.values():
        cells = [str(found["pictures"]), str(found["side"]), f"{found['minutes']:g}", found["model"]]
        for figure in FIGURES:
            value = found["figures"].get(figure)
            cells.append("" if value is None or value["value"] is None else f"{value['value']:.3g}")
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Trains, measures, writes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="a folder or zip of photos")
    parser.add_argument("--classes", nargs="+", help="only these classes of it")
    parser.add_argument("--pictures", nargs="+", type=int, default=[1500])
    parser.add_argument("--size", nargs="+", type=int, default=[32])
    parser.add_argument("--minutes", nargs="+", type=float, default=[5])
    parser.add_argument("--models", nargs="*", default=list(MODELS))
    parser.add_argument(
        "--rivals", nargs="*", choices=RIVALS, default=RIVALS, help="the plain loops, the defaults of 0.1; may be empty"
    )
    parser.add_argument("--out", type=Path, default=Path("runs/photos"))
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    file = options.out / "rows.json"
    rows: dict[str, Any] = json.loads(file.read_text()) if file.exists() else {}
    machine = f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, torch {torch.__version__}"
    for side in options.size:
        whole = sandglass.load_data(options.data, size=side, test=0.2)
        whole = chosen(whole, options.classes)
        for count in options.pictures:
            if count > len(whole.train):
                print(f"skipped {count} pictures: there are {len(whole.train)} to train on")
                continue
            data = limited(whole, count)
            for minutes in options.minutes:
                for name, make in contenders(
                    data, unused(whole, count), minutes, options.models, options.out, options.rivals
                ):
                    key = f"{count}-{side}-{minutes:g}-{name}".replace(" ", "-")
                    if key in rows:
                        continue
                    begun = time.monotonic()
                    model = make()
                    took = (time.monotonic() - begun) / 60
                    sheet(model, options.out / f"{key}.png")
                    rows[key] = {
                        "model": name, "pictures": count, "side": side, "minutes": minutes, "took": took,
                        "machine": machine, "figures": row(model, data),
                    }  # fmt: skip
                    file.write_text(json.dumps(rows, indent=1))
                    (options.out / "table.md").write_text(table(rows))
                    shown = {f: round(v["value"], 3) for f in FIGURES if (v := rows[key]["figures"].get(f))}
                    print(f"{key}: {took:.1f} min, {shown}", flush=True)
    montage(options.out, rows)
    print(table(rows))


def chosen(data: Dataset, classes: list[str] | None) -> Dataset:
    """The data with the examples of some classes only."""
    if not classes:
        return data
    numbers = torch.tensor([data.classes.index(name) for name in classes])
    splits = {}
    for name, split in data.splits.items():
        assert split.y is not None
        splits[name] = split.take(torch.isin(split.y, numbers).nonzero()[:, 0])
    return replace(data, splits=splits, fingerprint=f"{data.fingerprint}-{'-'.join(classes)}")


if __name__ == "__main__":
    main()

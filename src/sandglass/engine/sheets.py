"""Sheets of pictures that show how a training comes along, all from the same noise and the same examples.

They are drawn from the weights that are validated and kept, under a random generator of their own, so that the training
has the same bits with and without them.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from sandglass import rng
from sandglass.core import Batch, Model
from sandglass.data.dataset import Dataset, Split
from sandglass.data.pixels import Pixels, enlarge, grid, png, to_images
from sandglass.data.transform import Transform
from sandglass.engine.precision import autocast
from sandglass.engine.step import Stepper
from sandglass.runs import storage
from sandglass.runs.run import Run

Kind = Literal["samples", "reconstructions", "translations"]

FOLDER = "figures/progress"
"""Where the sheets are, in the run folder: ``samples-XXXXXXXX.png`` by step."""

PAD = 2
"""Pixels between the pictures of a sheet."""

_MOST = 64  # pictures on a sheet
_FEW = 16  # where one takes many evaluations of a network
_LARGE = 96  # pixels; of larger pictures there are fewer
_ELEMENTS = 2**24  # largest number of values of a sheet
_TILE = 32  # pixels that smaller pictures are enlarged to
_SHARE = 0.05  # of the time since the last sheet; a slow one waits


class Sheets:
    """Writes the sheets of a run, ``count`` for every stage, evenly spread, the last at its end.

    A sheet that takes long is left out until it is a small part of the time again. One that cannot be drawn or written
    is reported, and there are no more: the training is worth more than its pictures.

    Args:
        run: its folder.
        model: that is trained.
        data: whose examples are shown.
        count: of a stage; 0 for none.
        split: name of the split of the fixed examples.
        seed: of their noise.
        say: shows a message.
        clock: tells the time.
    """

    def __init__(
        self,
        run: Run,
        model: Model,
        data: Dataset,
        count: int,
        *,
        split: str,
        seed: int,
        say: Callable[[str], None],
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self.run, self.model, self.data, self.count = run, model, data, count if model.spec.is_image else 0
        self.split, self.seed, self.say, self.clock = data.splits[split], seed, say, clock
        self.begun, self.took, self.last_takes = clock(), 0.0, 0.0  # seconds

    def is_due(self, step: int, total: int) -> bool:
        """Whether a sheet belongs to this step of a stage of ``total`` steps, and there is time for it."""
        if not due(step, total, self.count):
            return False
        return step >= total or self.clock() - self.begun >= self.took / _SHARE

    def write(self, stepper: Stepper, step: int, *, last: bool = False) -> Path | None:
        """Draws and writes the sheet of a step, from the average of the weights if there is one.

        Args:
            stepper: of the stage; the model is left in eval mode.
            step: counted through all stages.
            last: whether it is the last of this stage, which has all the pictures.

        Returns:
            Its path; None where this stage has nothing to show.
        """
        kind = kind_of(self.model, last=stepper.stage.name == self.model.stages()[-1].name)
        if kind is None or not self.count:
            return None
        begun = self.clock()
        path = self.run.path / FOLDER / f"{kind}-{step:08d}.png"
        try:
            precision = autocast(stepper.options, stepper.device)
            with (
                torch.no_grad(),
                stepper.average.in_place(),
                rng.forked(stepper.device, self.seed, "progress"),
                precision,
            ):
                self.model.eval()
                sheet = draw(self.model, self.data, self.split, kind, few=not last)
            with storage.saving(path.parent):
                path.parent.mkdir(parents=True, exist_ok=True)
            storage.write_file(path, png(sheet))
        except Exception as error:  # of a model of one's own, or of a full disk
            self.count = 0
            self.say(f"There will be no more sheets of {kind}: {str(error).splitlines()[0] or type(error).__name__}")
            return None
        self.begun = self.clock()
        self.took = self.begun - begun
        self.last_takes = self.took * (1 if last or self.model.evaluations == 1 else _MOST / _FEW)
        return path


def due(step: int, total: int, count: int) -> bool:
    """Whether one of ``count`` evenly spread steps, the last of which is ``total``.

    Example:
        >>> [step for step in range(1, 11) if due(step, 10, 4)]
        [3, 5, 8, 10]
    """
    return count > 0 and 0 < step <= total and step * count // total > (step - 1) * count // total


def kind_of(model: Model, *, last: bool) -> Kind | None:
    """What a sheet shows while a stage trains: samples in the last one, before that reconstructions.

    Example:
        >>> from sandglass import registry
        >>> [kind_of(registry.declared(name), last=False) for name in ("vq-vae", "cycle-gan")]
        ['reconstructions', 'translations']
        >>> kind_of(registry.declared("vq-vae"), last=True)
        'samples'
    """
    if "translate" in model.provides and not model.latents:
        return "translations"
    if last:
        return "samples"
    return "reconstructions" if "reconstruct" in model.provides else None


def draw(model: Model, data: Dataset, split: Split, kind: Kind, *, few: bool = False) -> Pixels:
    """One sheet ``(H, W, C)``, white between the pictures; reconstructions and translations below their originals.

    Args:
        model: in eval mode.
        data: whose transform is inverted.
        split: of the examples.
        kind: of the sheet.
        few: fewer pictures where one takes many evaluations of a network.
    """
    if kind == "samples":
        return samples(model, data, split, few=few)
    height, width = model.spec.shape[1:]
    columns = columns_of(height, width)
    examples = fixed(model, split, at_most(model, columns * columns, few=few) // 2 or 1)
    x, transform = examples.x, data.transform
    if kind == "reconstructions":
        made, other = model.reconstruct(examples), data.transform
    else:
        others = [need.partition(":")[2] for need in model.needs if need.startswith("beside:")]
        if others:
            made, other = (
                model.translate(replace(examples, beside={}), others[0]),
                transform.beside.get(others[0], transform),
            )
        else:
            source = next(name for name in model.conditions if name in model.spec.given)
            x, transform = examples.given[source], transform.given.get(source, transform)
            made, other = model.translate(examples), data.transform
    above, below = pixels(x, transform), pixels(made, other)
    if above.shape[1:3] != below.shape[1:3]:
        return laid(below, columns)
    above, below = alike(above, below)
    rows = [part[i : i + columns] for i in range(0, len(below), columns) for part in (above, below)]
    full = [np.concatenate([r, np.full((columns - len(r), *r.shape[1:]), 255, np.uint8)]) for r in rows]
    return laid(np.concatenate(full), columns)


def samples(model: Model, data: Dataset, split: Split, *, few: bool = False) -> Pixels:
    """Samples of a model, of a conditional one under fixed conditions: every class, or those of fixed examples."""
    height, width = model.spec.shape[1:]
    columns = columns_of(height, width)
    n, given = at_most(model, columns * columns, few=few), None
    if model.conditions == ("labels",):
        classes = model.spec.classes
        columns = classes if 2 <= classes <= 2 * columns else columns
        n = max(1, n // columns) * columns if n >= columns else n
        given = Batch(y=torch.arange(n, device=model.device) % classes)
    elif model.conditions:
        given = replace(fixed(model, split, n), x=None, mask=None, index=None)  # type: ignore[arg-type]
        n = len(given)
    return laid(pixels(model.sample(n, given), data.transform), columns)


def fixed(model: Model, split: Split, n: int) -> Batch:
    """Evenly chosen examples of a split, as many as there are up to ``n``, as the model takes them."""
    count = min(n, len(split))
    index = torch.arange(count) * len(split) // count
    beside = {name: s.batch((index % len(s)).to(s.x.device)) for name, s in split.beside.items()}
    batch = replace(split.batch(index.to(split.x.device)), beside=beside)
    return batch.map(lambda t: t.to(model.device, model.dtype if t.is_floating_point() else t.dtype))


def pixels(x: Tensor, transform: Transform) -> Pixels:
    """``(N, H, W, C)``, with 0 for what is not finite."""
    return to_images(torch.nan_to_num(x.detach().float().cpu()), transform)


def alike(a: Pixels, b: Pixels) -> tuple[Pixels, Pixels]:
    """Pictures with as many channels each: grey ones become coloured."""
    channels = max(a.shape[-1], b.shape[-1])
    both = (p if p.shape[-1] == channels else np.repeat(p[..., :1], channels, axis=-1) for p in (a, b))
    return tuple(both)  # type: ignore[return-value]


def laid(images: Pixels, columns: int) -> Pixels:
    """The pictures in a grid, small ones enlarged by a whole factor."""
    return grid(enlarge(images, times(*images.shape[1:3])), columns, PAD)


def times(height: int, width: int) -> int:
    """The factor that pictures are enlarged by."""
    return max(1, _TILE // max(height, width))


def columns_of(height: int, width: int) -> int:
    """Pictures in a row of a sheet."""
    return 8 if max(height, width) <= _LARGE else 4


def at_most(model: Model, n: int, *, few: bool = False) -> int:
    """Fewer than ``n`` of very large pictures, and if ``few`` of those that take many evaluations of a network."""
    most = _FEW if few and model.evaluations > 1 else _MOST
    return max(1, min(n, most, _ELEMENTS // model.spec.size))


def cut(sheet: Pixels, height: int, width: int) -> Pixels:
    """The pictures of a sheet, row by row: ``(N, H, W, C)``, enlarged as they are there; the inverse of :func:`laid`.

    Example:
        >>> cut(laid(np.zeros((6, 8, 8, 1), np.uint8), 3), 8, 8).shape
        (6, 32, 32, 1)
    """
    high, wide = (n * times(height, width) for n in (height, width))
    rows, columns = (n // (size + PAD) for n, size in zip(sheet.shape[:2], (high, wide), strict=True))
    tops, lefts = ([k * (size + PAD) + PAD for k in range(n)] for n, size in ((rows, high), (columns, wide)))
    return np.stack([sheet[top : top + high, left : left + wide] for top in tops for left in lefts])

"""Faults made on purpose: real examples with one thing wrong with them, at three strengths."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from helpers import Draws
from sandglass.core import Spec
from sandglass.data.dataset import Split
from sandglass.metrics.measure import measure
from sandglass.runs.result import Result

STRENGTHS = ("weak", "medium", "strong")

Fault = Callable[[Tensor, Tensor, torch.Generator], Tensor]
"""From images ``(N, C, H, W)`` in [0, 1], their classes ``(N,)`` and a generator to images with the fault."""


def checkerboard(amplitude: float, period: int = 4) -> Fault:
    """A grid of squares of half the period, lighter and darker by ``amplitude`` in turn."""

    def make(x: Tensor, y: Tensor, generator: torch.Generator) -> Tensor:
        rows, columns = (torch.arange(n) // (period // 2) % 2 for n in x.shape[2:])
        sign = 1 - 2 * (rows[:, None] ^ columns).float()
        return (x + amplitude * sign).clamp(0, 1)

    return make


def blur(sigma: float) -> Fault:
    """A Gaussian blur, ``sigma`` in pixels."""

    def make(x: Tensor, y: Tensor, generator: torch.Generator) -> Tensor:
        reach = max(1, round(3 * sigma))
        kernel = torch.exp(-0.5 * (torch.arange(-reach, reach + 1) / sigma) ** 2)
        kernel = (kernel / kernel.sum()).expand(x.shape[1], 1, -1)
        padded = F.pad(x, (reach, reach, reach, reach), mode="replicate")
        rows = F.conv2d(padded, kernel[:, :, None], groups=x.shape[1])
        return F.conv2d(rows, kernel[:, :, :, None], groups=x.shape[1])

    return make


def noise(deviation: float) -> Fault:
    """White noise."""
    return lambda x, y, generator: (x + deviation * torch.randn(x.shape, generator=generator)).clamp(0, 1)


def colour(shift: float) -> Fault:
    """The first channel lighter and the last darker; a grey image is lighter."""

    def make(x: Tensor, y: Tensor, generator: torch.Generator) -> Tensor:
        shifts = torch.zeros(x.shape[1])
        shifts[-1] -= shift
        shifts[0] = shift
        return (x + shifts.view(-1, 1, 1)).clamp(0, 1)

    return make


def dropped(share: float) -> Fault:
    """Of the images of the last half of the classes, this share are replaced by others of the first half."""

    def make(x: Tensor, y: Tensor, generator: torch.Generator) -> Tensor:
        half = (int(y.max()) + 1) // 2
        kept = torch.nonzero(y < half).flatten()
        gone = torch.nonzero(y >= half).flatten()
        gone = gone[torch.randperm(len(gone), generator=generator)[: round(share * len(gone))]]
        x = x.clone()
        x[gone] = x[kept[torch.randint(len(kept), (len(gone),), generator=generator)]]
        return x

    return make


def copies(count: int) -> Fault:
    """Only ``count`` different images."""
    return lambda x, y, generator: x[torch.randint(min(count, len(x)), (len(x),), generator=generator)]


def shuffled(cells: int) -> Fault:
    """Each image cut into ``cells`` x ``cells`` pieces in random order."""

    def make(x: Tensor, y: Tensor, generator: torch.Generator) -> Tensor:
        height, width = (n // cells for n in x.shape[2:])
        whole = x[:, :, : height * cells, : width * cells]
        pieces = whole.unflatten(3, (cells, width)).unflatten(2, (cells, height))  # (N, C, cells, h, cells, w)
        pieces = pieces.permute(0, 2, 4, 1, 3, 5).flatten(1, 2)
        order = torch.rand(len(x), cells**2, generator=generator).argsort(1)
        pieces = pieces[torch.arange(len(x))[:, None], order].unflatten(1, (cells, cells))
        mixed = x.clone()
        mixed[:, :, : height * cells, : width * cells] = pieces.permute(0, 3, 1, 4, 2, 5).flatten(4, 5).flatten(2, 3)
        return mixed

    return make


def soft(n: int, side: int = 32, channels: int = 1, seed: int = 0) -> Tensor:
    """Smoothed noise, whose power falls with the frequency as that of photographs does."""
    x = torch.randn(n, channels, side, side, generator=torch.Generator().manual_seed(seed))
    rows, columns = (torch.fft.fftfreq(side) * side for _ in range(2))
    fall = 1 / (1 + rows[:, None] ** 2 + columns**2).sqrt()
    x = torch.fft.ifft2(torch.fft.fft2(x) * fall).real
    return (0.5 + 0.15 * x / x.std()).clamp(0, 1)


PHOTOS: Mapping[str, tuple[Fault, Fault, Fault]] = {
    "checkerboard": (checkerboard(0.02), checkerboard(0.05), checkerboard(0.15)),
    "blur": (blur(0.6), blur(1.0), blur(2.0)),
    "noise": (noise(0.04), noise(0.08), noise(0.15)),
    "colour": (colour(0.05), colour(0.1), colour(0.25)),
    "dropped class": (dropped(0.5), dropped(0.75), dropped(1.0)),
    "copies": (copies(100), copies(30), copies(5)),
    "shuffled": (shuffled(2), shuffled(4), shuffled(8)),
}
"""For 32x32 photographs: the fault at three strengths, the weakest first."""

DIGITS: Mapping[str, tuple[Fault, Fault, Fault]] = {
    "checkerboard": (checkerboard(0.1, 2), checkerboard(0.2, 2), checkerboard(0.4, 2)),
    "blur": (blur(0.6), blur(0.9), blur(1.5)),
    "noise": (noise(0.1), noise(0.2), noise(0.4)),
    "brightness": (colour(0.1), colour(0.2), colour(0.4)),
    "dropped class": (dropped(0.5), dropped(0.75), dropped(1.0)),
    "copies": (copies(100), copies(30), copies(5)),
    "shuffled": (shuffled(2), shuffled(4), shuffled(8)),
}
"""For the 8x8 digits of 17 levels."""

BAD: Mapping[str, int] = {
    "two_sample_auc": 1,
    "coverage": -1,
    "precision": -1,
    "fid": 1,
    "patches": 1,
    "patches_fine": 1,
    "grid": 1,
    "sharpness": -1,
}
"""The default figures that see faults, and the direction in which each is bad."""


def figures(
    fake: Tensor, real: Split, train: Split, spec: Spec, names: Sequence[str] = (), **options: Any
) -> dict[str, Result]:
    """The default figures of a model that draws the images ``fake`` one after another."""
    given = [0]

    def draw(n: int) -> Tensor:
        given[0] += n
        return fake[torch.arange(given[0] - n, given[0]) % len(fake)]

    wanted = names or ("two_sample", "prdc", "class_shares", "fid", "patches", "spectrum", "sharpness")
    found = measure(Draws(spec, draw), real, names=wanted, train=train, quick=True, **options)
    return {r.name: r for r in found}


def seen(found: Mapping[str, Result], reference: Sequence[Mapping[str, Result]]) -> list[str]:
    """The figures that are worse than those of every set of real images, by more than three of their errors."""
    names = []
    for name, sign in BAD.items():
        if name not in found:
            continue
        worst = max(sign * real[name].value for real in reference)
        if sign * found[name].value - worst > 3 * (found[name].stderr or 0):
            names.append(name)
    return names

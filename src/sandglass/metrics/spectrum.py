"""A grid in the samples, found in their mean power spectrum."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from sandglass.metrics.evaluation import Better, Evaluation
from sandglass.metrics.images import Images, OfImages
from sandglass.registry import register
from sandglass.runs.result import Result

PERIODS = (2, 3, 4, 5, 6, 7, 8)
"""Periods in pixels that are looked for, where an image holds at least four of them."""

CLEAR = 6.0
"""Power in dB above which there is a grid; real images have at most about 1, and copies of five images 4.9."""

_REPEATS = 4
_BLOCKS = 10  # of images left out in turn, for the standard error


@register("spectrum", kind="metric")
class Spectrum(OfImages):
    """Grid in the samples: power at isolated peaks of their mean spectrum, relative to the examples, and its period.

    Upsampling layers leave such peaks at the frequencies of their stride: Odena, Dumoulin and Olah 2016,
    "Deconvolution and Checkerboard Artifacts" (Distill), and Durall, Keuper and Keuper 2020, "Watch your
    Up-Convolution" (arXiv 2003.01826).

    Args:
        samples: maximum number of samples and of examples; fewer of large images.
    """

    figures = ("grid", "grid_period")
    better: Mapping[str, Better] = {"grid": "lower"}

    def __init__(self, *, samples: int = 1_000) -> None:
        super().__init__(samples=samples)

    def results(self, sets: Images, evaluation: Evaluation) -> Sequence[Result]:
        """The excess in dB of the strongest period, with a jackknife error, and the period."""
        found = excess(sets.real, sets.fake)
        if not found:
            return []
        n = min(len(sets.real), len(sets.fake))
        strongest = max(found, key=lambda p: float(found[p][0]))
        # A grid of period 4 also has peaks of period 2, and these can be the stronger ones.
        period = max(p for p in found if p == strongest or (p % strongest == 0 and float(found[p][0]) > CLEAR))
        value, left = float(found[strongest][0]), found[strongest][1:]
        error = float(((len(left) - 1) * left.var(correction=0)).sqrt()) if len(left) > 1 else None
        note = f"at period {strongest}, the strongest; 0 without a grid"
        if sets.train is not None:
            best = excess(sets.real, sets.train)
            note += f"; training examples get {max(float(v[0]) for v in best.values()):.2f}"
        about = "pixels from one peak to the next; of no meaning where grid is about 0"
        return [Result("grid", value, error, n, "dB", note), Result("grid_period", period, 0.0, n, "pixels", about)]


def excess(real: Tensor, fake: Tensor) -> dict[int, Tensor]:
    """For each period the power of the grid in dB, ``(1 + blocks,)``: of all images, then without each block.

    It is ``10 log10(1 + e)``, where e is the power of the samples at the strongest frequency of that period above that
    of its neighbours, minus that of the examples, over the power of the examples at this frequency, or of the samples'
    neighbours where that is larger. 0 without a peak: samples that are merely blurred or noisy have a smooth spectrum.

    Args:
        real: ``(N, C, H, W)``.
        fake: ``(M, C, H, W)``.
    """
    found = {}
    for period in PERIODS:
        height, width = (n // period for n in real.shape[2:])
        if min(height, width) < _REPEATS:
            continue
        here = [powers(x[:, :, : height * period, : width * period]) for x in (real, fake)]
        blocks = min(_BLOCKS, len(real), len(fake))
        # (1 + blocks, H, W) mean powers
        means = [torch.stack([p.mean(0), *(p[keep].mean(0) for keep in _left(len(p), blocks))]) for p in here]
        of_real, of_fake = means
        peaks = []
        for a in range(period):
            for b in range(period):
                # One of each conjugate pair, and only frequencies of this period: (2/4, 2/4) is of period 2.
                if math.gcd(a, b, period) > 1 or (a, b) == (0, 0) or (a, b) > ((-a) % period, (-b) % period):
                    continue
                u, v = a * height, b * width
                smooth, smooth_real = around(of_fake, u, v), around(of_real, u, v)
                # Blurred samples are measured by the power of examples, noisy ones by their own.
                scale = torch.maximum(of_real[:, u, v], smooth).clamp(min=1e-20)
                peaks.append(((of_fake[:, u, v] - smooth) - (of_real[:, u, v] - smooth_real).clamp(min=0)) / scale)
        each = torch.stack(peaks)
        found[period] = 10 * (1 + each[each[:, 0].argmax()].clamp(min=0)).log10()
    return found


def _left(n: int, blocks: int) -> list[Tensor]:
    """Masks ``(N,)`` without each block in turn."""
    block = torch.arange(n) * blocks // n
    return [block != b for b in range(blocks)] if blocks > 1 else []


def powers(x: Tensor) -> Tensor:
    """Power spectra ``(N, H, W)`` of ``(N, C, H, W)`` images without their mean, averaged over channels."""
    x = x.double()
    return torch.fft.fft2(x - x.mean((2, 3), keepdim=True), norm="ortho").abs().square().mean(1)


def around(power: Tensor, u: int, v: int) -> Tensor:
    """The power that a smooth spectrum ``(B, H, W)`` would have at ``(u, v)``: ``(B,)``.

    The geometric mean of two opposite neighbours, which is exact along a power law to first order; the mean over
    directions, along an axis only those on it, since the edges of an image put much power there.
    """
    height, width = power.shape[1:]
    steps = [(1, 0), (2, 0)] if v == 0 else [(0, 1), (0, 2)] if u == 0 else [(1, 0), (0, 1), (1, 1), (1, -1)]
    pairs = [
        (power[:, (u + a) % height, (v + b) % width] * power[:, (u - a) % height, (v - b) % width]).sqrt()
        for a, b in steps
    ]
    return torch.stack(pairs).mean(0)

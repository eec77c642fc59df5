"""Distance between the patches of samples and of examples, at every scale."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from sandglass import rng
from sandglass.metrics.evaluation import Better, Evaluation
from sandglass.metrics.images import Images, OfImages
from sandglass.registry import register
from sandglass.runs.result import Result

_SIDE = 7  # pixels of a patch
_SMALLEST = 16  # pixels of the smaller side of the coarsest scale
_PATCHES = 32  # from each image
_LINES = 64  # random projections
_BLOCKS = 10  # of images left out in turn, for the standard error
_LEAST = 1e-4  # smallest deviation of a channel, so that a constant one is not amplified


@register("patches", kind="metric")
class Patches(OfImages):
    """Sliced Wasserstein distance between patches of samples and of examples, over the scales of a Laplacian pyramid.

    Karras et al. 2018, "Progressive Growing of GANs for Improved Quality, Stability, and Variation" (arXiv 1710.10196);
    the distance is that of Rabin et al. 2011, "Wasserstein Barycenter and its Application to Texture Mixing". It needs
    no features: it sees texture, blur, noise, grids and colour, and no arrangement wider than a patch.

    Args:
        samples: maximum number of samples and of examples; fewer of large images.
    """

    figures = ("patches", "patches_fine", "patches_coarse")
    better: Mapping[str, Better] = {"patches": "lower"}

    def __init__(self, *, samples: int = 500) -> None:
        super().__init__(samples=samples)

    def results(self, sets: Images, evaluation: Evaluation) -> Sequence[Result]:
        """The mean over the scales, the finest and the coarsest, with jackknife errors over the images."""
        n = min(len(sets.real), len(sets.fake))
        blocks = min(_BLOCKS, n)
        real, fake = descriptors(sets.real[:n]), descriptors(sets.fake[:n])
        found = [distances(a, b, blocks) for a, b in zip(real, fake, strict=True)]
        each = torch.stack([*found, torch.stack(found).mean(0)])  # (S + 1, blocks + 1)
        best: Tensor | None = None
        if sets.train is not None and len(sets.train) >= n:
            some = [distances(a, b)[0] for a, b in zip(real, descriptors(sets.train[:n]), strict=True)]
            best = torch.stack([*some, torch.stack(some).mean()])
        sides = [f"{side} pixels" for side in scales(sets.real.shape[2:])]
        names = {"patches": -1} if len(found) == 1 else {"patches": -1, "patches_fine": 0, "patches_coarse": -2}
        results = []
        for name, row in names.items():
            value, left = float(each[row, 0]), each[row, 1:]
            error = float(((blocks - 1) * left.var(correction=0)).sqrt()) if blocks > 1 else None
            note = (
                f"mean of scales {' and '.join(sides)}" if row == -1 else f"scale of {sides[row if row == 0 else -1]}"
            )
            if best is not None:
                note += f"; training examples get {float(best[row]):.3g}"
            results.append(Result(name, value, error, n, "deviations", note))
        return results


def scales(size: Sequence[int]) -> list[int]:
    """The smaller side at each scale, the finest first: halved while at least 16 pixels remain.

    Example:
        >>> scales((64, 48)), scales((28, 28)), scales((8, 8))
        ([48, 24], [28], [8])
    """
    found = [min(size)]
    while found[-1] // 2 >= _SMALLEST:
        found.append(-(-found[-1] // 2))
    return found


def pyramid(x: Tensor) -> list[Tensor]:
    """The Laplacian pyramid of ``(N, C, H, W)``, the finest band first; the last is the image at the coarsest scale.

    Burt and Adelson 1983, "The Laplacian Pyramid as a Compact Image Code".
    """
    bands = []
    for _ in scales(x.shape[2:])[1:]:
        small = _smooth(x)[:, :, ::2, ::2]
        bands.append(x - F.interpolate(small, size=x.shape[2:], mode="bilinear", align_corners=False))
        x = small
    return [*bands, x]


def _smooth(x: Tensor) -> Tensor:
    kernel = (torch.tensor([1.0, 4.0, 6.0, 4.0, 1.0]) / 16).to(x).expand(x.shape[1], 1, -1)
    x = F.conv2d(F.pad(x, (2, 2, 2, 2), mode="reflect"), kernel[:, :, None], groups=x.shape[1])
    return F.conv2d(x, kernel[:, :, :, None], groups=x.shape[1])


def descriptors(x: Tensor) -> list[Tensor]:
    """Patches ``(N, P, C, h * w)`` at random places of each image, at each scale; the same places for every set."""
    found = []
    for scale, band in enumerate(pyramid(x)):
        channels, height, width = band.shape[1:]
        h, w = min(_SIDE, height), min(_SIDE, width)
        generator = rng.generator(0, "patches", "places", scale)
        tops = torch.randint(height - h + 1, (len(x), _PATCHES), generator=generator)
        lefts = torch.randint(width - w + 1, (len(x), _PATCHES), generator=generator)
        windows = band.unfold(2, h, 1).unfold(3, w, 1)  # (N, C, H', W', h, w), a view
        taken = windows[torch.arange(len(x))[:, None], :, tops, lefts]  # (N, P, C, h, w)
        found.append(taken.reshape(len(x), _PATCHES, channels, h * w))
    return found


def distances(real: Tensor, fake: Tensor, blocks: int = 1) -> Tensor:
    """Mean Wasserstein-1 distance of the patches along random lines, in units of the examples' deviation per channel.

    Args:
        real: ``(N, P, C, K)`` patches of examples.
        fake: ``(N, P, C, K)`` of samples.
        blocks: of images to leave out in turn.

    Returns:
        ``(1 + blocks,)``: of all images, then without each block; ``(1,)`` for one block.
    """
    mean, scale = real.mean((0, 1, 3), keepdim=True), real.std((0, 1, 3), keepdim=True).clamp(min=_LEAST)
    n, patches = real.shape[:2]
    lines = torch.randn(real.shape[2] * real.shape[3], _LINES, generator=rng.generator(0, "patches", "lines"))
    lines = lines / lines.norm(dim=0)
    block = (torch.arange(n) * blocks // n).repeat_interleave(patches)
    # (L, N * P), each line sorted: a block is left out without sorting again
    values, labels = [], []
    for x in (real, fake):
        projected = (((x - mean) / scale).flatten(2).flatten(0, 1) @ lines.to(x)).T.contiguous()
        ordered, places = projected.sort(dim=1)
        values.append(ordered)
        labels.append(block[places])
    found = [(values[0] - values[1]).abs().mean()]
    for left in range(blocks if blocks > 1 else 0):
        one, other = (v[k != left].view(_LINES, -1) for v, k in zip(values, labels, strict=True))
        found.append((one - other).abs().mean())
    return torch.stack(found).double()

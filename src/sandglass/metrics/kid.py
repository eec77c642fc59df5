"""The kernel distance between features (KID)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from sandglass.metrics.evaluation import Better
from sandglass.metrics.samples import Compared, OfSamples
from sandglass.registry import register
from sandglass.runs.result import Result

_BLOCKS = 10  # minimum number of blocks, over which the mean and its standard error are computed
_SIZE = 1_000  # maximum examples per block


@register("kid", kind="metric")
class Kid(OfSamples):
    """Kernel distance (squared maximum mean discrepancy, cubic kernel) between features of samples and of examples.

    Binkowski et al. 2018, "Demystifying MMD GANs" (arXiv 1801.01401). Unbiased for any number of samples.

    Args:
        features: the feature extractor; auto is own for images and long rows, and pixels for short rows.
        samples: number of samples, and maximum number of examples; by default the number of examples.
    """

    figures = ("kid",)
    better: Mapping[str, Better] = {"kid": "lower"}
    texture = True
    least = 2 * _BLOCKS
    by_default = False  # it measures the same as the Fréchet distance

    def results(self, sets: Compared) -> Sequence[Result]:
        """The mean over disjoint blocks, with the standard error of independent values."""
        values = by_blocks(sets.real, sets.fake)
        note = f"{sets.about}; {len(values)} blocks; about 0, or slightly negative, without a difference"
        if sets.train is not None and len(sets.train) >= self.least:
            note += f"; training examples get {float(by_blocks(sets.real, sets.train).mean()):.2g}"
        error = float(values.std() / len(values) ** 0.5)
        return [Result("kid", float(values.mean()), error, min(len(sets.real), len(sets.fake)), "1", note)]


def by_blocks(one: Tensor, other: Tensor) -> Tensor:
    """``(K,)`` kernel distances between disjoint blocks of ``(N, D)`` and ``(M, D)`` features."""
    n = min(len(one), len(other))
    blocks = max(_BLOCKS, -(-n // _SIZE))
    size = n // blocks
    starts = range(0, blocks * size, size)
    return torch.stack([kernel_distance(one[i : i + size], other[i : i + size]) for i in starts])


def kernel_distance(x: Tensor, y: Tensor) -> Tensor:
    """The unbiased estimate of the squared maximum mean discrepancy under ``(x.y / D + 1)^3``.

    Args:
        x: ``(N, D)``, N >= 2.
        y: ``(M, D)``, M >= 2.

    Returns:
        ``()``; its expectation is 0 where both are from the same distribution.

    Example:
        >>> x = torch.tensor([[1.0], [-1.0]]).double()
        >>> float(kernel_distance(x, x))  # (1 - 1)^3 within x; the mean of (1 + 1)^3 and (1 - 1)^3 across
        -8.0
    """
    n, m, dim = len(x), len(y), x.shape[1]

    def kernel(a: Tensor, b: Tensor) -> Tensor:
        return (a @ b.T / dim + 1) ** 3

    xx, yy = kernel(x, x), kernel(y, y)
    within = (xx.sum() - xx.trace()) / (n * (n - 1)) + (yy.sum() - yy.trace()) / (m * (m - 1))
    return within - 2 * kernel(x, y).mean()

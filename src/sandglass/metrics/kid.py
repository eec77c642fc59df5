"""The kernel distance of features."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from sandglass.metrics.evaluation import Better
from sandglass.metrics.samples import Compared, OfSamples
from sandglass.registry import register
from sandglass.runs.result import Result

_BLOCKS = 10  # at least, whose distances give the mean and its standard error
_SIZE = 1_000  # examples in a block at most


@register("kid", kind="metric")
class Kid(OfSamples):
    """Kernel distance (squared maximum mean discrepancy, cubic kernel) between features of samples and of examples.

    Binkowski et al. 2018, "Demystifying MMD GANs" (arXiv 1801.01401). Without bias at any number of samples.

    Args:
        features: where the features come from; auto is own for pictures and pixels for rows of few numbers.
        samples: how many to draw, and of how many examples; as many as there are examples when not given.
    """

    figures = ("kid",)
    better: Mapping[str, Better] = {"kid": "lower"}
    least = 2 * _BLOCKS
    by_default = False  # it measures what the Fréchet distance measures

    def results(self, sets: Compared) -> Sequence[Result]:
        """The mean over blocks that share no example, so its standard error is that of independent values."""
        values = by_blocks(sets.real, sets.fake)
        note = f"{sets.extractor.about}; {len(values)} blocks; about 0 where there is no difference, also below"
        if sets.train is not None and len(sets.train) >= self.least:
            note += f"; training examples get {float(by_blocks(sets.real, sets.train).mean()):.2g}"
        error = float(values.std() / len(values) ** 0.5)
        return [Result("kid", float(values.mean()), error, min(len(sets.real), len(sets.fake)), "1", note)]


def by_blocks(one: Tensor, other: Tensor) -> Tensor:
    """``(K,)`` kernel distances of blocks of ``(N, D)`` and ``(M, D)``, each example in one block."""
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
        ``()``; its mean is 0 where both are of one distribution.

    Example:
        >>> x = torch.tensor([[1.0], [-1.0]]).double()
        >>> float(kernel_distance(x, x))  # the cubes of 1 - 1 apart, and of 1 + 1 and 1 - 1 across
        -8.0
    """
    n, m, dim = len(x), len(y), x.shape[1]

    def kernel(a: Tensor, b: Tensor) -> Tensor:
        return (a @ b.T / dim + 1) ** 3

    xx, yy = kernel(x, x), kernel(y, y)
    within = (xx.sum() - xx.trace()) / (n * (n - 1)) + (yy.sum() - yy.trace()) / (m * (m - 1))
    return within - 2 * kernel(x, y).mean()

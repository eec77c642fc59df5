"""The maximum mean discrepancy of two samples."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

WIDTHS = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)
"""Kernel widths that are averaged over: those of Tolstikhin et al. 2018, in the unit of a squared distance."""

KERNELS: dict[str, Callable[[Tensor], Tensor]] = {"imq": lambda d: 1 / (1 + d), "rbf": lambda d: torch.exp(-d)}
"""Kernels: from a squared distance in units of the width to a similarity in (0, 1]."""


def mmd(x: Tensor, y: Tensor, kernel: str = "imq", unit: Tensor | float = 1.0) -> Tensor:
    """``(*)`` unbiased squared MMD of the samples ``x`` and ``y``, ``(*, n, dim)`` each; its mean is 0 for equal ones.

    It is the mean over ``i != j`` of ``k(x_i, x_j) + k(y_i, y_j) - k(x_i, y_j) - k(x_j, y_i)``, so it can be negative:
    Gretton, Borgwardt, Rasch, Schoelkopf and Smola 2012, "A Kernel Two-Sample Test" (JMLR 13). The kernel is the mean
    over :data:`WIDTHS`, as in Tolstikhin, Bousquet, Gelly and Schoelkopf 2018, "Wasserstein Auto-Encoders" (arXiv
    1711.01558): ``imq``, the inverse multiquadratic ``1 / (1 + d)``, or ``rbf``, the Gaussian ``exp(-d)``, of the
    squared distance d over width and unit.

    Args:
        x: ``(*, n, dim)``, n at least 2; computed in its precision, also under autocast.
        y: as many.
        kernel: one of :data:`KERNELS`.
        unit: the squared distance that corresponds to a kernel width of 1; for codes, the mean squared distance of two
            draws from the prior.

    Example:
        >>> x, y = torch.randn(2, 1000, 3, generator=torch.Generator().manual_seed(0))
        >>> bool(mmd(x, y).abs() < 0.01), bool(mmd(x, y + 2) > 0.1)
        (True, True)
    """

    def similarity(a: Tensor, b: Tensor) -> Tensor:
        distance = squared_distances(a, b) / unit
        return torch.stack([KERNELS[kernel](distance / width) for width in WIDTHS]).mean(0)

    n = x.shape[-2]
    h = similarity(x, x) + similarity(y, y) - 2 * similarity(x, y)  # both cross terms have the same sum over i != j
    off_diagonal = h.sum((-2, -1)) - h.diagonal(dim1=-2, dim2=-1).sum(-1)
    return off_diagonal / (n * (n - 1))


def squared_distances(a: Tensor, b: Tensor) -> Tensor:
    """``(*, n, m)`` squared Euclidean distances of ``(*, n, dim)`` and ``(*, m, dim)``, with gradients also at 0.

    Example:
        >>> squared_distances(torch.tensor([[0.0, 0.0]]), torch.tensor([[3.0, 4.0], [0.0, 0.0]]))
        tensor([[25.,  0.]])
    """
    with torch.autocast(a.device.type, enabled=False):
        centre = b.detach().mean(-2, keepdim=True)  # against cancellation of large squares
        a, b = a - centre, b - centre
        squares = a.square().sum(-1)[..., :, None] + b.square().sum(-1)[..., None, :]
        return (squares - 2 * a @ b.transpose(-2, -1)).clamp(min=0)

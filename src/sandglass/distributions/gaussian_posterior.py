"""Gaussian posteriors: diagonal, of low rank, and with a full covariance."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.distributions import Distribution, Independent, LowRankMultivariateNormal, MultivariateNormal, Normal
from torch.distributions.kl import register_kl

from sandglass.distributions.location_scale import scale_from
from sandglass.distributions.posterior import Posterior
from sandglass.distributions.standard import Standard
from sandglass.errors import ConfigError
from sandglass.registry import register


@register("gaussian", kind="posterior")
class DiagonalPosterior(Posterior):
    """Independent normals.

    Args:
        dim: size of a code.

    Example:
        >>> DiagonalPosterior(2)(torch.zeros(5, 4)).rsample().shape
        torch.Size([5, 2])
    """

    def __init__(self, dim: int) -> None:
        super().__init__(dim)
        self.width = 2 * dim

    def forward(self, h: Tensor) -> Distribution:
        """From means and log variances."""
        mean, log_variance = h.chunk(2, -1)
        return Independent(Normal(mean, scale_from(0.5 * log_variance), validate_args=False), 1, validate_args=False)


@register("full-gaussian", kind="posterior")
class FullPosterior(Posterior):
    """A normal distribution with a full covariance, by its Cholesky factor.

    The encoder gives ``dim + dim (dim + 1) / 2`` numbers, so it is for small codes.

    Args:
        dim: size of a code.

    Example:
        >>> FullPosterior(3)(torch.zeros(5, 9)).covariance_matrix[0]
        tensor([[1., 0., 0.],
                [0., 1., 0.],
                [0., 0., 1.]])
    """

    rows: Tensor
    columns: Tensor

    def __init__(self, dim: int) -> None:
        super().__init__(dim)
        self.width = 2 * dim + dim * (dim - 1) // 2
        rows, columns = torch.tril_indices(dim, dim, -1)
        self.register_buffer("rows", rows, persistent=False)
        self.register_buffer("columns", columns, persistent=False)

    def forward(self, h: Tensor) -> Distribution:
        """From means, log variances given the numbers before, and the factor below its diagonal."""
        mean, log_variance, below = h.split([self.dim, self.dim, self.width - 2 * self.dim], -1)
        root = torch.diag_embed(scale_from(0.5 * log_variance))
        root = root.index_put((torch.arange(len(h), device=h.device)[:, None], self.rows, self.columns), below)
        return MultivariateNormal(mean, scale_tril=root, validate_args=False)


@register("low-rank-gaussian", kind="posterior")
class LowRankPosterior(Posterior):
    """A normal distribution whose covariance is diagonal but for a few directions.

    The covariance is ``D + U U^T`` with U of ``rank`` columns: Ong, Nott and Smith 2018, "Gaussian variational
    approximation with a factor covariance structure" (arXiv 1701.03208).

    Args:
        dim: size of a code.
        rank: number of directions, at most the size of a code.

    Raises:
        ConfigError: a rank below 1.

    Example:
        >>> LowRankPosterior(3, rank=1)(torch.zeros(5, 9)).covariance_matrix.shape
        torch.Size([5, 3, 3])
    """

    def __init__(self, dim: int, *, rank: int = 2) -> None:
        super().__init__(dim)
        if rank < 1:
            raise ConfigError(f"A low-rank posterior needs a rank of at least 1, not {rank}.")
        self.rank = min(rank, dim)
        self.width = dim * (2 + self.rank)

    def forward(self, h: Tensor) -> Distribution:
        """From means, logarithms of D, and U."""
        mean, log_variance, factor = h.split([self.dim, self.dim, self.dim * self.rank], -1)
        root = factor.unflatten(-1, (self.dim, self.rank))
        variance = scale_from(0.5 * log_variance).square()
        return LowRankMultivariateNormal(mean, root, variance, validate_args=False)


@register_kl(MultivariateNormal, Independent)  # type: ignore[untyped-decorator]
def _kl_full_standard(q: MultivariateNormal, p: Independent) -> Tensor:
    """``(tr C + mean^2 - dim - log det C) / 2``."""
    if not isinstance(p.base_dist, Standard):
        raise NotImplementedError
    squares = q.scale_tril.square().sum((-2, -1)) + q.loc.square().sum(-1)
    return 0.5 * (squares - q.loc.shape[-1]) - q.scale_tril.diagonal(dim1=-2, dim2=-1).log().sum(-1)


@register_kl(LowRankMultivariateNormal, Independent)  # type: ignore[untyped-decorator]
def _kl_low_rank_standard(q: LowRankMultivariateNormal, p: Independent) -> Tensor:
    """The same; the determinant is that of the capacitance, ``I + U^T D^-1 U``."""
    if not isinstance(p.base_dist, Standard):
        raise NotImplementedError
    squares = q.variance.sum(-1) + q.loc.square().sum(-1)
    root = q._capacitance_tril.diagonal(dim1=-2, dim2=-1)
    log_det = q._unbroadcasted_cov_diag.log().sum(-1) + 2 * root.log().sum(-1)
    return 0.5 * (squares - q.loc.shape[-1] - log_det)

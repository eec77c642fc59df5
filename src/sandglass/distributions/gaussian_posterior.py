"""Gaussian posteriors: diagonal, of low rank, and with a full covariance."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.distributions import Distribution, Independent, MultivariateNormal, Normal, constraints
from torch.distributions.kl import register_kl
from torch.types import _size

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


class FullGaussian(MultivariateNormal):
    """PyTorch's, in single precision at least: a product of matrices would be in half precision under autocast."""

    def rsample(self, sample_shape: _size = ()) -> Tensor:
        """``(*sample_shape, B, dim)``."""
        with torch.autocast(self.loc.device.type, enabled=False):
            return super().rsample(torch.Size(sample_shape))

    def log_prob(self, value: Tensor) -> Tensor:
        """``(..., B)``."""
        with torch.autocast(self.loc.device.type, enabled=False):
            return super().log_prob(value)


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
        rows, columns = torch.tril_indices(dim, dim, -1, device="cpu").to(torch.get_default_device())
        self.register_buffer("rows", rows, persistent=False)
        self.register_buffer("columns", columns, persistent=False)

    def forward(self, h: Tensor) -> Distribution:
        """From means, log variances given the numbers before, and the factor below its diagonal."""
        mean, log_variance, below = h.split([self.dim, self.dim, self.width - 2 * self.dim], -1)
        root = torch.diag_embed(scale_from(0.5 * log_variance))
        root[..., self.rows, self.columns] = below
        return FullGaussian(mean, scale_tril=root, validate_args=False)


class LowRankGaussian(Distribution):
    """The normal distribution with the covariance ``D + U U^T``.

    It differs from PyTorch's in that it is in single precision at least, and that numbers that are not finite stay what
    they are, where a Cholesky decomposition would raise an error.

    Args:
        loc: ``(B, dim)``.
        factor: U, ``(B, dim, rank)``.
        diagonal: D, ``(B, dim)``.
    """

    arg_constraints = {}  # noqa: RUF012 # as in every distribution of PyTorch
    has_rsample = True
    support = constraints.real_vector

    def __init__(self, loc: Tensor, factor: Tensor, diagonal: Tensor) -> None:
        self.loc, self.factor, self.diagonal = loc, factor, diagonal
        with torch.autocast(loc.device.type, enabled=False):
            capacitance = factor.mT @ (factor / diagonal[..., None])
            capacitance = capacitance + torch.eye(factor.shape[-1], device=loc.device, dtype=loc.dtype)
            self.root, _ = torch.linalg.cholesky_ex(capacitance)  # of I + U^T D^-1 U
        super().__init__(loc.shape[:-1], loc.shape[-1:], validate_args=False)

    @property
    def mean(self) -> Tensor:
        """``(B, dim)``."""
        return self.loc

    @property
    def variance(self) -> Tensor:
        """``(B, dim)``."""
        return self.diagonal + self.factor.square().sum(-1)

    @property
    def log_det(self) -> Tensor:
        """``(B,)`` of the covariance."""
        return self.diagonal.log().sum(-1) + 2 * self.root.diagonal(dim1=-2, dim2=-1).log().sum(-1)

    def rsample(self, sample_shape: _size = ()) -> Tensor:
        """``(*sample_shape, B, dim)``."""
        shape = torch.Size((*sample_shape, *self.loc.shape))
        noise = torch.randn(shape, device=self.loc.device, dtype=self.loc.dtype)
        along = torch.randn((*shape[:-1], self.factor.shape[-1]), device=self.loc.device, dtype=self.loc.dtype)
        return self.loc + self.diagonal.sqrt() * noise + (self.factor * along[..., None, :]).sum(-1)

    def log_prob(self, value: Tensor) -> Tensor:
        """``(..., B)``."""
        away = value - self.loc
        with torch.autocast(away.device.type, enabled=False):
            along = (self.factor * (away / self.diagonal)[..., None]).sum(-2)  # U^T D^-1 (z - mean)
            inner = torch.linalg.solve_triangular(self.root, along[..., None], upper=False).squeeze(-1)
        squares = (away.square() / self.diagonal).sum(-1) - inner.square().sum(-1)
        return -0.5 * (squares + self.log_det + away.shape[-1] * math.log(2 * math.pi))


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
        >>> LowRankPosterior(3, rank=1)(torch.zeros(5, 9)).variance[0]
        tensor([1., 1., 1.])
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
        variance = scale_from(0.5 * log_variance).square()
        return LowRankGaussian(mean, factor.unflatten(-1, (self.dim, self.rank)), variance)


@register_kl(MultivariateNormal, Independent)  # type: ignore[untyped-decorator]
def _kl_full_standard(q: MultivariateNormal, p: Independent) -> Tensor:
    """``(tr C + mean^2 - dim - log det C) / 2``."""
    if not isinstance(p.base_dist, Standard):
        raise NotImplementedError
    squares = q.scale_tril.square().sum((-2, -1)) + q.loc.square().sum(-1)
    return 0.5 * (squares - q.loc.shape[-1]) - q.scale_tril.diagonal(dim1=-2, dim2=-1).log().sum(-1)


@register_kl(LowRankGaussian, Independent)  # type: ignore[untyped-decorator]
def _kl_low_rank_standard(q: LowRankGaussian, p: Independent) -> Tensor:
    """The same."""
    if not isinstance(p.base_dist, Standard):
        raise NotImplementedError
    squares = q.variance.sum(-1) + q.loc.square().sum(-1)
    return 0.5 * (squares - q.loc.shape[-1] - q.log_det)

"""Gaussians and mixtures of Gaussians."""

from __future__ import annotations

import math
import threading
import warnings
from typing import Any

import torch
from torch import Tensor, nn

from sandglass.errors import ConfigError
from sandglass.registry import register
from sandglass.samplers.sampler import Sampler, some_of

_ROWS, _PRODUCTS = 50_000, 2**28  # codes, and squares of their size, that a mixture is at most fitted to
_WARNINGS = threading.Lock()  # filters of warnings are of the whole process


@register("gaussian", kind="sampler")
class Gaussian(Sampler):
    """A Gaussian with the mean and covariance of the codes it is fitted to; standard normal before.

    Args:
        dim: size of a code.

    Example:
        >>> sampler = Gaussian(2)
        >>> _ = sampler.fit(torch.tensor([[0.0, 1.0], [2.0, 1.0]]).double())
        >>> sampler.mean, sampler.sample(3)[:, 1]
        (tensor([1., 1.]), tensor([1., 1., 1.]))
    """

    mean: Tensor
    root: Tensor
    count: Tensor

    def __init__(self, dim: int) -> None:
        super().__init__(dim)
        self.register_buffer("mean", torch.zeros(dim))
        self.register_buffer("root", torch.zeros(dim, dim).fill_diagonal_(1.0))
        self.register_buffer("count", torch.zeros((), dtype=torch.int64))

    @torch.no_grad()
    def fit(self, codes: Tensor) -> dict[str, float]:
        """Fits mean and covariance; returns the mean log density of the codes in nats and their number."""
        each = self.follow(codes, codes.new_ones(len(codes)))
        return {"log_density": float(each.mean()), "codes": float(len(codes))}

    def follow(self, z: Tensor, shares: Tensor, floor: float = 0.0) -> Tensor:
        """Fits to codes of which each counts by its share, ``(N,)``; returns the log density ``(N,)`` of all codes.

        Args:
            z: ``(N, dim)``.
            shares: ``(N,)``.
            floor: added to the variances, against directions in which a few codes do not vary.
        """
        mean = (shares @ z) / shares.sum()
        values, vectors = torch.linalg.eigh(((z - mean) * shares[:, None]).T @ (z - mean) / shares.sum())
        values = values.clamp(min=0) + floor
        self.mean.copy_(mean)
        self.root.copy_(vectors * values.sqrt())
        self.count.fill_(len(z))
        width = values.clamp(min=1e-12)
        return -0.5 * (((z - mean) @ vectors).square() / width + (2 * math.pi * width).log()).sum(1)

    def sample(self, n: int) -> Tensor:
        """``(n, dim)`` draws."""
        return self.placed(torch.randn(n, self.dim, device=self.mean.device, dtype=self.mean.dtype))

    def placed(self, noise: Tensor) -> Tensor:
        """``(n, dim)`` draws of standard normal ones."""
        return self.mean + noise @ self.root.T


@register("gaussian-mixture", kind="sampler")
class GaussianMixture(Sampler):
    """A mixture of Gaussians with full covariances, fitted to codes by maximum likelihood; standard normal before.

    Ghosh et al. 2020, "From Variational to Deterministic Autoencoders" (arXiv 1903.12436).

    It is fitted by expectation-maximisation from k-means, on at most 50,000 codes, or fewer of more than 73 numbers.
    Where these are few there are fewer components, so that each has on average at least twice as many codes as a code
    has numbers: how many there are is a figure of the fit.

    Args:
        dim: size of a code.
        components: number of Gaussians.

    Raises:
        ConfigError: fewer than one component.

    Example:
        >>> sampler = GaussianMixture(1, components=2)
        >>> _ = sampler.fit(torch.tensor([[0.0], [2.0], [10.0], [10.0]]).double())
        >>> sampler.weight, [float(each.mean) for each in sampler.components]
        (tensor([0.5000, 0.5000]), [10.0, 1.0])
    """

    weight: Tensor

    def __init__(self, dim: int, *, components: int = 10) -> None:
        super().__init__(dim)
        if components < 1:
            raise ConfigError(f"A mixture of Gaussians needs components >= 1, not {components}.")
        self.components: Any = nn.ModuleList(Gaussian(dim) for _ in range(components))
        self.register_buffer("weight", torch.full((components,), 1 / components))

    @torch.no_grad()
    def fit(self, codes: Tensor) -> dict[str, float]:
        """Fits the mixture; returns the mean log density of the codes in nats, their number and the components used."""
        z = codes
        shares, floor = self._shares(z)
        weight = shares.mean(0)
        self.weight.zero_()
        self.weight[: len(weight)] = weight
        pairs = zip(self.components, shares.T, strict=False)
        each = [component.follow(z, share, floor) for component, share in pairs]
        log_density = float((torch.stack(each, 1) + weight.log()).logsumexp(1).mean())
        return {"log_density": log_density, "codes": float(len(z)), "components": float(len(weight))}

    def _shares(self, z: Tensor) -> tuple[Tensor, float]:
        """``(N, k)``: how much of each code belongs to each component; and what was added to the variances."""
        n, dim = z.shape
        rows = min(n, _ROWS, _PRODUCTS // dim**2)
        k = max(1, min(len(self.components), rows // (2 * dim)))
        if k == 1:
            return z.new_ones(n, 1), 0.0
        from sklearn import mixture
        from sklearn.exceptions import ConvergenceWarning

        some = some_of(z, rows, "mixture")
        floor = 1e-6 * float(z.var(0).mean()) + 1e-12
        found = mixture.GaussianMixture(k, reg_covar=floor, max_iter=30, random_state=0)
        with _WARNINGS, warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # near its maximum is near enough
            found.fit(some.numpy())
        shares = torch.from_numpy(found.predict_proba(z.numpy()))
        shares = shares[:, shares.sum(0) > 0.5]  # of equal codes only one component is left
        return shares / shares.sum(1, keepdim=True), floor

    def sample(self, n: int) -> Tensor:
        """``(n, dim)`` draws."""
        which = torch.multinomial(self.weight, n, replacement=True)
        z = torch.randn(n, self.dim, device=self.weight.device, dtype=self.weight.dtype)
        for i, component in enumerate(self.components):
            z[which == i] = component.placed(z[which == i])
        return z

"""A density fitted to codes after training, so that a model without a prior can be sampled."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class GaussianDensity(nn.Module):
    """A Gaussian with the mean and covariance of the codes it is fitted to; standard normal before.

    Args:
        dim: size of a code.

    Example:
        >>> density = GaussianDensity(2)
        >>> _ = density.fit(torch.tensor([[0.0, 1.0], [2.0, 1.0]]))
        >>> density.mean, density.sample(3)[:, 1]
        (tensor([1., 1.]), tensor([1., 1., 1.]))
    """

    mean: Tensor
    root: Tensor
    count: Tensor

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(dim))
        self.register_buffer("root", torch.zeros(dim, dim).fill_diagonal_(1.0))
        self.register_buffer("count", torch.zeros((), dtype=torch.int64))

    @torch.no_grad()
    def fit(self, codes: Tensor) -> dict[str, float]:
        """Fits mean and covariance to codes ``(N, dim)``; returns their mean log density in nats and their number."""
        z = codes.double()
        mean = z.mean(0)
        values, vectors = torch.linalg.eigh((z - mean).T @ (z - mean) / len(z))
        values = values.clamp(min=0)
        self.mean.copy_(mean)
        self.root.copy_(vectors * values.sqrt())
        self.count.fill_(len(z))
        width = values.clamp(min=1e-12)
        log_density = -0.5 * float((width.log() + values / width + torch.tensor(2 * torch.pi).log()).sum())
        return {"log_density": log_density, "codes": float(len(z))}

    def sample(self, n: int) -> Tensor:
        """``(n, dim)`` draws."""
        noise = torch.randn(n, len(self.mean), device=self.mean.device, dtype=self.mean.dtype)
        return self.mean + noise @ self.root.T

"""Directions that are uniform on a sphere."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from sandglass.registry import register
from sandglass.samplers.sampler import Sampler


@register("sphere", kind="sampler")
class Sphere(Sampler):
    """A sphere around the mean of the codes, with their root mean square distance from it as radius.

    All directions are equally likely. It suits codes whose norm is fixed or penalised; pythae has it as the hypersphere
    sampler. Before it is fitted, it is the unit sphere.

    Args:
        dim: size of a code.

    Example:
        >>> sampler = Sphere(2)
        >>> _ = sampler.fit(torch.tensor([[1.0, 3.0], [1.0, -3.0], [4.0, 0.0], [-2.0, 0.0]]).double())
        >>> (sampler.sample(5) - sampler.mean).norm(dim=1).round(decimals=3)
        tensor([3., 3., 3., 3., 3.])
    """

    mean: Tensor
    radius: Tensor

    def __init__(self, dim: int) -> None:
        super().__init__(dim)
        self.register_buffer("mean", torch.zeros(dim))
        self.register_buffer("radius", torch.ones(()))

    @torch.no_grad()
    def fit(self, codes: Tensor) -> Mapping[str, float]:
        """Fits centre and radius; returns the radius and the standard deviation of the distances, relative to it."""
        mean = codes.mean(0)
        away = (codes - mean).norm(dim=1)
        radius = away.square().mean().sqrt()
        self.mean.copy_(mean)
        self.radius.copy_(radius)
        spread = float(away.std(correction=0) / radius.clamp(min=1e-30))
        return {"radius": float(radius), "spread": spread, "codes": float(len(codes))}

    def sample(self, n: int) -> Tensor:
        """``(n, dim)`` draws."""
        z = torch.randn(n, self.dim, device=self.mean.device, dtype=self.mean.dtype)
        return self.mean + self.radius * z / z.norm(dim=1, keepdim=True).clamp(min=1e-30)

"""Kernel density estimates."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from sandglass.errors import ConfigError
from sandglass.registry import register
from sandglass.samplers.sampler import Sampler, some_of

_HELD_OUT = 1000  # codes by whose density the bandwidth is chosen
_CHOICES = [2.0 ** (power / 2) for power in range(-20, 3)]


@register("kernel-density", kind="sampler")
class KernelDensity(Sampler):
    """A Gaussian around each of some codes, with the covariance of all codes times the square of a bandwidth.

    Every draw is near the code of a training example: the less so, the wider the kernels. Look at the nearest training
    examples of the samples (`sandglass evaluate`, metric `nearest`) before samples are called new. Parzen 1962, "On
    Estimation of a Probability Density Function and Mode" (Annals of Mathematical Statistics 33).

    Args:
        dim: size of a code.
        codes: how many are kept, chosen at random; they are part of the model's file.
        bandwidth: in standard deviations of the codes; when not given, the one of highest density of other codes.

    Raises:
        ConfigError: fewer than one code, or a bandwidth that is not positive.

    Example:
        >>> sampler = KernelDensity(1, codes=4, bandwidth=0.01)
        >>> _ = sampler.fit(torch.tensor([[0.0], [0.0], [8.0], [8.0]]).double())
        >>> sorted({round(float(z) / 8) for z in sampler.sample(50)})
        [0, 1]
    """

    kept: Tensor
    count: Tensor
    root: Tensor

    def __init__(self, dim: int, *, codes: int = 5000, bandwidth: float | None = None) -> None:
        super().__init__(dim)
        if codes < 1:
            raise ConfigError(f"A kernel density needs codes >= 1, not {codes}.")
        if bandwidth is not None and not 0 < bandwidth < math.inf:
            raise ConfigError(f"A bandwidth must be a finite number above 0, not {bandwidth}.")
        self.bandwidth = bandwidth
        self.register_buffer("kept", torch.zeros(codes, dim))
        self.register_buffer("count", torch.ones((), dtype=torch.int64))
        self.register_buffer("root", torch.eye(dim))

    @torch.no_grad()
    def fit(self, codes: Tensor) -> Mapping[str, float]:
        """Keeps codes; returns the bandwidth, the mean log density in nats of codes not kept, and the number kept.

        The density of held-out codes is that by the kept ones without them.
        """
        some = some_of(codes, len(self.kept) + _HELD_OUT, "kernels")
        kept, others = some[: len(self.kept)], some[len(self.kept) :]
        values, vectors = torch.linalg.eigh(torch.cov(codes.T, correction=0).reshape(self.dim, self.dim))
        root = vectors * (values.clamp(min=0) + 1e-12 + 1e-6 * values.mean().clamp(min=0)).sqrt()
        alone = len(others) < min(_HELD_OUT, len(kept))  # too few are left: of the kept ones, each by all others
        whitened = [torch.linalg.solve(root, z.T).T for z in (kept[:_HELD_OUT] if alone else others, kept)]
        squares = torch.cdist(*whitened).square()
        if alone:
            squares[range(len(squares)), range(len(squares))] = math.inf
        logs = {h: self._log_density(squares, h, root, alone) for h in self._choices()}
        best = max(logs, key=lambda h: logs[h])
        self.kept[: len(kept)] = kept
        self.count.fill_(len(kept))
        self.root.copy_(root * best)
        return {"bandwidth": best, "log_density": logs[best], "codes": float(len(kept))}

    def _choices(self) -> list[float]:
        return _CHOICES if self.bandwidth is None else [self.bandwidth]

    def _log_density(self, squares: Tensor, width: float, root: Tensor, alone: bool) -> float:
        """Mean log density in nats of codes at squared distances ``(M, K)``, in whitened units, from the kept ones."""
        others = max(squares.shape[1] - alone, 1)
        volume = self.dim * math.log(width * math.sqrt(2 * math.pi)) + float(torch.linalg.slogdet(root)[1])
        return float((-squares / (2 * width**2)).logsumexp(1).mean()) - math.log(others) - volume

    def sample(self, n: int) -> Tensor:
        """``(n, dim)`` draws."""
        which = torch.rand(n, device=self.kept.device).mul(self.count).long().clamp(max=self.count - 1)
        noise = torch.randn(n, self.dim, device=self.kept.device, dtype=self.kept.dtype)
        return self.kept[which] + noise @ self.root.T

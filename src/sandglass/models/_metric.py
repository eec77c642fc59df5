"""A Riemannian metric of a latent space, learnt from examples: its volume, its Hamiltonian flow, and draws by it."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sandglass.distributions.conditional import at_least_single
from sandglass.errors import ConfigError
from sandglass.nets.mlp import MLP

Method = TypeVar("Method", bound=Callable[..., Tensor])

_UNIT = math.log(math.e - 1)  # softplus of it is 1


def in_full(method: Method) -> Method:
    """The method with products of matrices in the precision of the codes, also under autocast."""

    @functools.wraps(method)
    def precise(self: Metric, z: Tensor, *args: Tensor) -> Tensor:
        with torch.autocast(z.device.type, enabled=False):
            return method(self, z, *args)

    return cast(Method, precise)


@dataclass(frozen=True)
class Metric:
    """The metric G with ``G(z)^-1 = sum_i w_i(z) L_i L_i^T + floor I``, ``w_i(z) = share_i exp(-|z - c_i|^2 / T^2)``.

    Near the centroids c_i the volume ``sqrt(det G)`` is small, and far from all of them it is large. G^-1 is positive
    definite everywhere: no eigenvalue is below the floor. Chadebec, Mantoux and Allassonniere 2020, "Geometry-Aware
    Hamiltonian Variational Auto-Encoder" (arXiv 2010.11518).

    Args:
        centroids: c, ``(N, D)``.
        products: ``L_i L_i^T``, ``(N, D, D)``.
        shares: ``(N,)``, or one for all; 1 in the paper.
        temperature: T, a distance.
        floor: lambda, the smallest eigenvalue of G^-1.
    """

    centroids: Tensor
    products: Tensor
    shares: Tensor
    temperature: float
    floor: float

    def weights(self, z: Tensor) -> Tensor:
        """w, ``(B, N)``, of codes ``(B, D)``."""
        distances = (z[:, None] - self.centroids).square().sum(-1)
        return self.shares * (-distances / self.temperature**2).exp()

    @in_full
    def inverse(self, z: Tensor) -> Tensor:
        """G^-1, ``(B, D, D)``, of codes ``(B, D)``."""
        summed = (self.weights(z) @ self.products.flatten(1)).unflatten(1, self.products.shape[1:])
        return summed + self.floor * torch.eye(z.shape[1], device=z.device, dtype=z.dtype)

    def root(self, z: Tensor) -> Tensor:
        """C, ``(B, D, D)``, lower triangular with a positive diagonal: ``G^-1 = C C^T``."""
        return torch.linalg.cholesky_ex(self.inverse(z))[0]

    def log_volume(self, z: Tensor) -> Tensor:
        """``log sqrt(det G(z)^-1)``, ``(B,)``: of the volume of the *inverse* metric, which is large near centroids."""
        return self.root(z).diagonal(dim1=1, dim2=2).log().sum(1)

    @in_full
    def speed(self, z: Tensor, v: Tensor) -> Tensor:
        """``G(z)^-1 v``, ``(B, D)``: the velocity of a momentum."""
        return (self.inverse(z) @ v[..., None]).squeeze(-1)

    def kinetic(self, z: Tensor, v: Tensor) -> Tensor:
        """``v^T G(z)^-1 v / 2 + log det G(z) / 2``, ``(B,)``: minus the log density of a momentum, and a constant."""
        return (v * self.speed(z, v)).sum(1) / 2 - self.log_volume(z)

    @in_full
    def kinetic_slope(self, z: Tensor, v: Tensor) -> Tensor:
        """The gradient of :meth:`kinetic` by z, ``(B, D)``, in closed form.

        ``sum_i (v^T M_i v - tr(G M_i)) / 2 * grad w_i`` with ``M_i = L_i L_i^T`` and ``grad w_i = -2 w_i (z - c_i) /
        T^2``. With a momentum of 0 it is minus the gradient of :meth:`log_volume`.
        """
        g = torch.cholesky_inverse(self.root(z))
        pull = self.weights(z) * ((v[:, :, None] * v[:, None] - g).flatten(1) @ self.products.flatten(1).T)
        return (pull @ self.centroids - pull.sum(1, keepdim=True) * z) / self.temperature**2


class MetricNetwork(nn.Module):
    """The metric of examples: a network of their factors L_i, and centroids that are kept once they are fitted.

    Args:
        shape: of an example.
        dim: of a code.
        centroids: how many are kept at most.
        temperature: of the metric.
        floor: of the metric.
        width: units of the hidden layer of the network.

    Raises:
        ConfigError: an invalid value.

    Example:
        >>> network = MetricNetwork((6,), 2, centroids=4)
        >>> network.products(torch.zeros(5, 6)).shape, network.fitted().inverse(torch.zeros(1, 2))
        (torch.Size([5, 2, 2]), tensor([[[0.0100, 0.0000],
                 [0.0000, 0.0100]]]))
    """

    centroids: Tensor
    kept: Tensor
    shares: Tensor
    count: Tensor
    rows: Tensor
    columns: Tensor

    def __init__(
        self,
        shape: tuple[int, ...],
        dim: int,
        *,
        centroids: int = 200,
        temperature: float = 1.5,
        floor: float = 0.01,
        width: int = 64,
    ) -> None:
        super().__init__()
        if centroids < 1 or width < 1:
            raise ConfigError(f"A metric needs centroids and metric_width >= 1, not {centroids} and {width}.")
        for name, value in (("temperature", temperature), ("regularization", floor)):
            if not 0 < value < math.inf:
                raise ConfigError(f"The {name} of a metric must be finite and above 0, not {value}.")
        self.dim, self.temperature, self.floor = dim, temperature, floor
        self.network = MLP(widths=[width]).encoder(shape, dim * (dim + 1) // 2)
        rows, columns = torch.tril_indices(dim, dim, device="cpu").to(torch.get_default_device())
        self.register_buffer("rows", rows, persistent=False)
        self.register_buffer("columns", columns, persistent=False)
        self.register_buffer("centroids", torch.zeros(centroids, dim))
        self.register_buffer("kept", torch.zeros(centroids, dim, dim))
        self.register_buffer("shares", torch.zeros(centroids))
        self.register_buffer("count", torch.zeros((), dtype=torch.int64))

    def products(self, x: Tensor) -> Tensor:
        """``L L^T``, ``(B, D, D)``, of examples; L is lower triangular with a positive diagonal."""
        h = at_least_single(self.network(x))
        below = h.new_zeros(len(h), self.dim, self.dim)
        below[:, self.rows, self.columns] = h
        diagonal = F.softplus(below.diagonal(dim1=1, dim2=2) + _UNIT)
        factor = below.tril(-1) + torch.diag_embed(diagonal)
        with torch.autocast(x.device.type, enabled=False):
            return factor @ factor.mT

    def of(self, x: Tensor, codes: Tensor, shares: Tensor) -> Metric:
        """The metric with these examples' codes as centroids."""
        return Metric(codes, self.products(x), shares, self.temperature, self.floor)

    def fitted(self) -> Metric:
        """The metric of the kept centroids; before their fit, the floor alone."""
        return Metric(self.centroids, self.kept, self.shares, self.temperature, self.floor)

    @torch.no_grad()
    def keep(self, codes: Tensor, products: Tensor) -> None:
        """Keeps centroids and products of at most as many examples as there is room for."""
        n = len(codes)
        for buffer, values in ((self.centroids, codes), (self.kept, products), (self.shares, codes.new_ones(n))):
            buffer.zero_()
            buffer[:n] = values
        self.count.fill_(n)


def riemannian_leapfrog(
    metric: Metric, z: Tensor, v: Tensor, slope: Tensor, size: Tensor | float, iterations: int
) -> tuple[Tensor, Tensor]:
    """The implicit half of a generalised leapfrog step: new codes, and momenta in the middle of the step.

    With the kinetic energy k, ``v' = v - size / 2 (slope + grad k(z, v'))`` and ``z' = z + size / 2 (G(z)^-1 v' +
    G(z')^-1 v')`` are solved by fixed-point iteration: Girolami and Calderhead 2011, "Riemann Manifold Langevin and
    Hamiltonian Monte Carlo Methods" (arXiv 0907.1100). The step keeps volumes exactly where they are solved exactly.

    Args:
        metric: G.
        z: ``(B, D)``.
        v: ``(B, D)``.
        slope: the gradient of U at z.
        size: of the step.
        iterations: of each of the two equations.
    """
    middle = v
    for _ in range(iterations):
        middle = v - size / 2 * (slope + metric.kinetic_slope(z, middle))
    first, there = metric.speed(z, middle), z
    for _ in range(iterations):
        there = z + size / 2 * (first + metric.speed(there, middle))
    return there, middle


@torch.no_grad()
def drawn(metric: Metric, start: Tensor, radius: Tensor, transitions: int, steps: int, size: float) -> Tensor:
    """Codes by Hamiltonian Monte Carlo on the density ``sqrt(det G(z)^-1)``, within a ball about the centroids' mean.

    Chadebec, Thibeau-Sutre, Burgos and Allassonniere 2022, "Data Augmentation in High Dimensional Low Sample Size
    Setting Using a Geometry-Based Variational Autoencoder" (arXiv 2105.00026). The density has no finite integral over
    all codes, for det G^-1 does not fall below ``floor ** D``; hence the ball. A proposal outside is rejected.

    Args:
        metric: G, of centroids with a share above 0.
        start: ``(n, D)``.
        radius: of the ball.
        transitions: of each chain.
        steps: leapfrog steps of a transition.
        size: of a step.
    """
    known = (metric.shares > 0).to(start)[:, None]
    middle = (metric.centroids * known).sum(0) / known.sum()
    z, potential, zero = start, -metric.log_volume(start), torch.zeros_like(start)
    slope = metric.kinetic_slope(start, zero)
    for _ in range(transitions):
        v = torch.randn_like(z)
        energy = potential + v.square().sum(1) / 2
        there, pull = z, slope
        for _ in range(steps):
            v = v - size / 2 * pull
            there = there + size * v
            pull = metric.kinetic_slope(there, zero)
            v = v - size / 2 * pull
        proposed = -metric.log_volume(there)
        inside = (there - middle).square().sum(1) <= radius**2
        change = energy - proposed - v.square().sum(1) / 2
        taken = inside & (torch.rand_like(change).log() < change)
        z, slope = torch.where(taken[:, None], there, z), torch.where(taken[:, None], pull, slope)
        potential = torch.where(taken, proposed, potential)
    return z

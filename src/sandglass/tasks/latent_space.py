"""Latent-space geometry: principal directions of codes, planes through them, and t-SNE embeddings."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from sandglass import registry
from sandglass.core import Batch, Model
from sandglass.errors import ConfigError
from sandglass.running import decode, observing

REACH = 2.5
"""Extent of a plane of principal directions to either side, in standard deviations."""


@dataclass(frozen=True)
class Principal:
    """Principal directions of codes.

    Args:
        mean: ``(dim,)``.
        directions: ``(k, dim)`` unit vectors, by decreasing variance; the largest entry of each is positive.
        scale: ``(k,)`` standard deviation of the codes along each.
        share: ``(k,)`` share of explained variance.
    """

    mean: Tensor
    directions: Tensor
    scale: Tensor
    share: Tensor

    def project(self, codes: Tensor) -> Tensor:
        """``(N, k)`` coordinates of ``(N, dim)`` codes."""
        return (codes.double() - self.mean) @ self.directions.T


def principal(codes: Tensor, k: int = 2) -> Principal:
    """The first ``k`` principal directions of codes ``(N, dim)``.

    Example:
        >>> line = torch.linspace(-1, 1, 5)[:, None] * torch.tensor([[3.0, 4.0]])
        >>> [round(float(v), 1) for v in principal(line, 1).directions[0]]
        [0.6, 0.8]
    """
    codes = codes.double()
    mean = codes.mean(0)
    # The covariance is (dim, dim) regardless of the number of codes.
    values, vectors = torch.linalg.eigh((codes - mean).T @ (codes - mean) / max(1, len(codes) - 1))
    values, vectors = values.flip(0).clamp(min=0), vectors.flip(1).T
    top = vectors.gather(1, vectors.abs().argmax(1, keepdim=True))
    directions = (vectors * top.sign())[:k]
    return Principal(mean, directions, values[:k].sqrt(), values[:k] / values.sum().clamp(min=1e-300))


@dataclass(frozen=True)
class Plane:
    """A grid of latents in a plane.

    Args:
        z: ``(side * side, dim)``, row by row; the first row has the largest second coordinate.
        across, up: names of the two axes.
        marks: ticks of each axis as pairs of a position in [0, 1] and a coordinate: ``((position, value), ...)``.
    """

    z: Tensor
    across: str
    up: str
    marks: tuple[tuple[tuple[float, float], ...], tuple[tuple[float, float], ...]]


def plane(model: Model, side: int = 20, axes: tuple[int, int] | None = None, codes: Tensor | None = None) -> Plane:
    """Latents on a grid: at quantiles of two latent dimensions, or along two principal directions of codes.

    Args:
        model: a model with ``decode`` and at least two latent dimensions.
        side: latents per row and column.
        axes: two latent dimensions, from 0. By default both of a two-dimensional latent; for a larger one the first
            principal directions of ``codes``, up to 2.5 standard deviations, or the first two dimensions without codes.
        codes: ``(N, dim)``. The other coordinates are fixed at their mean, or at the prior's mean without codes. For a
            model without a prior the quantiles are those of a normal fitted to the codes.

    Raises:
        CapabilityError: the model cannot decode.
        ConfigError: there is only one latent dimension, or an axis does not exist.
    """
    for capability in ("decode", "codes"):
        registry.require(model, capability)
    dim = model.code_size
    if dim < 2:
        raise ConfigError("A plane needs a latent with two dimensions or more.")
    if axes is None and dim > 2 and codes is not None:
        found = principal(codes)
        steps = torch.linspace(-REACH, REACH, side, dtype=torch.float64)
        z = _spread(found.mean, found.directions, (steps * found.scale[0], steps * found.scale[1]))
        names = [f"principal direction {k + 1} (sd)" for k in (0, 1)]
        marks = tuple(((v / REACH + 1) / 2 * (side - 1) / side + 0.5 / side, float(v)) for v in (-2, -1, 0, 1, 2))
        return Plane(z, names[0], names[1], (marks, marks))
    i, j = axes or (0, 1)
    if not (0 <= i < dim and 0 <= j < dim and i != j):
        raise ConfigError(f"The axes must be two of the latent dimensions 0 to {dim - 1}, not {i} and {j}.")
    mean, scale = _centre(model, dim, codes)
    normal = torch.special.ndtri((torch.arange(side, dtype=torch.float64) + 0.5) / side)
    centre = mean if codes is None or dim == 2 else codes.double().mean(0)
    centre = centre.clone()
    centre[[i, j]] = 0.0
    units = torch.eye(dim, dtype=torch.float64)[[i, j]]
    z = _spread(centre, units, (mean[i] + normal * scale[i], mean[j] + normal * scale[j]))
    ticks = [
        tuple(
            (u, float(mean[k] + scale[k] * torch.special.ndtri(torch.tensor(u).double())))
            for u in (0.1, 0.3, 0.5, 0.7, 0.9)
        )
        for k in (i, j)
    ]
    return Plane(z, f"latent dimension {i + 1}", f"latent dimension {j + 1}", (ticks[0], ticks[1]))


def _spread(centre: Tensor, directions: Tensor, steps: tuple[Tensor, Tensor]) -> Tensor:
    """Grid of points around the centre, by decreasing second coordinate: ``(side * side, dim)``."""
    up, across = torch.meshgrid(steps[1].flip(0), steps[0], indexing="ij")
    return centre + across.reshape(-1, 1) * directions[0] + up.reshape(-1, 1) * directions[1]


def _centre(model: Model, dim: int, codes: Tensor | None) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of every latent dimension: from the prior, else from the codes, else 0 and 1."""
    if "prior" in model.provides:
        with observing(model, 0, "report", "prior"):
            try:
                p = model.prior()
                return p.mean.cpu().double().expand(dim), p.stddev.cpu().double().expand(dim)
            except (NotImplementedError, AttributeError):
                pass  # the prior has no closed-form moments
    if codes is not None:
        return codes.double().mean(0), codes.double().std(0, unbiased=False)
    return torch.zeros(dim, dtype=torch.float64), torch.ones(dim, dtype=torch.float64)


def manifold(
    model: Model,
    side: int = 20,
    axes: tuple[int, int] | None = None,
    codes: Tensor | None = None,
    given: Batch | None = None,
) -> Tensor:
    """Examples decoded on a plane through the latent space.

    Args:
        model: see :func:`plane`.
        side: see :func:`plane`.
        axes: see :func:`plane`.
        codes: see :func:`plane`.
        given: the condition of a conditional model, one for all examples.

    Returns:
        ``(side * side, *shape)``, row by row from the top.

    Example:
        >>> from sandglass.core import Spec
        >>> model = registry.build("vae", Spec((1, 8, 8), "unit"), latent_dim=2, net="mlp")
        >>> manifold(model, side=3).shape
        torch.Size([9, 1, 8, 8])
    """
    z = plane(model, side, axes, codes).z
    return decode(model, z, None if given is None else given.map(lambda t: t[:1].expand(len(z), *t.shape[1:])))


def has_plane(model: Model) -> bool:
    """Whether the latent space is unbounded and real with at least two dimensions, so that it has planes."""
    if "decode" not in model.provides or model.code_size < 2 or any(k.support != "real" for k in model.latents):
        return False
    if "prior" not in model.provides:
        return True
    with observing(model, 0, "report", "prior"):
        try:
            draws = model.prior().sample((64,))
        except ConfigError:
            return False  # the prior is conditional
    # A simplex or unit box has no negative draws; 64 draws from a normal practically always have some.
    return bool((draws < 0).any())


def embed(codes: Tensor, seed: int, limit: int = 500) -> Tensor | None:
    """``(N, 2)`` t-SNE of the first ``limit`` codes; None for fewer than 12 or constant codes. 500 take a second.

    Van der Maaten and Hinton 2008, "Visualizing Data using t-SNE". Deterministic, by one thread and a fixed seed.
    """
    codes = codes[:limit].double()
    n = len(codes)
    if n < 12 or not math.isfinite(float(codes.sum())) or float(codes.var(0).sum()) < 1e-10:
        return None
    from sklearn.manifold import TSNE
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

    start = principal(codes).project(codes)
    start = start / start[:, 0].std().clamp(min=1e-12) * 1e-4
    how = TSNE(perplexity=min(30.0, (n - 1) / 4), init=start.float().numpy(), random_state=seed % 2**32, n_jobs=1)
    with threadpool_limits(1):  # several threads would sum in a random order
        return torch.from_numpy(how.fit_transform(codes.float().numpy())).double()

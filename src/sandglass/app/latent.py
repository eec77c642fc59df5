"""Points of the latent space worth decoding."""

from __future__ import annotations

import torch
from torch import Tensor

from sandglass.app.trained import Trained, dataset, first, joined
from sandglass.errors import ConfigError

_MARGIN = 0.05  # share of probability left out at each end of an axis
_ENOUGH = 5000


def manifold_codes(trained: Trained, side: int, axes: tuple[int, int] | str | None = None) -> Tensor:
    """``(side * side, D)`` codes on a grid, rows from top to bottom, evenly spaced in probability.

    Along dimensions of a model with a standard prior they are quantiles of that prior, the other dimensions being 0.
    Along principal axes, and without a prior, they are those of a Gaussian with the mean and spread of the codes of the
    run's own examples.

    Raises:
        ConfigError: dimensions that there are not, or principal axes for a model that does not encode.
    """
    dim = trained.latent_dim
    encodes, prior = "encode" in trained.model.provides, "prior" in trained.model.provides
    if axes is None:
        axes = (0, 1) if dim == 2 or not encodes else "principal"
    if dim < 2:
        raise ConfigError(f"A manifold needs two latent dimensions; this model has {dim}.")
    if axes == "principal" and not encodes:
        raise ConfigError("Principal axes need a model that encodes; name two dimensions, such as --axes 0,1.")
    probabilities = torch.linspace(_MARGIN, 1 - _MARGIN, side, dtype=torch.float64) if side > 1 else torch.tensor([0.5])
    steps = torch.special.ndtri(probabilities.double())
    mean = torch.zeros(dim, dtype=torch.float64)
    if isinstance(axes, tuple):
        if not all(0 <= a < dim for a in axes) or axes[0] == axes[1]:
            raise ConfigError(f"--axes must be two different dimensions from 0 to {dim - 1}, not {axes[0]},{axes[1]}.")
        directions = torch.eye(dim, dtype=torch.float64)[list(axes)]
        if not prior:
            codes = own_codes(trained)
            mean, directions = codes.mean(0), directions * codes.std(0)
    else:
        codes = own_codes(trained)
        mean = codes.mean(0)
        _, spread, vectors = torch.linalg.svd(codes - mean, full_matrices=False)
        directions = vectors[:2] * spread[:2, None] / max(len(codes) - 1, 1) ** 0.5
    across = steps[None, :, None] * directions[0]
    down = -steps[:, None, None] * directions[1]  # upwards is larger, as on a figure's axes
    grid: Tensor = mean + across + down
    return grid.flatten(0, 1)


def own_codes(trained: Trained) -> Tensor:
    """``(N, D)`` codes of the run's own examples, at most 5,000 of them, in float64."""
    data = dataset(trained, None)
    split = data.splits.get("test") or data.splits["train"]
    return trained.encode(first(joined({"one": split}), _ENOUGH)).double()

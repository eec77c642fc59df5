"""Mixtures of Gaussians in the plane with known centres, for counting the modes that a model covers."""

from __future__ import annotations

import abc
import math
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from sandglass.data.dataset import Mixture
from sandglass.data.sets._options import whole
from sandglass.data.sources.raw import Part, Raw
from sandglass.data.transform import TableTransform
from sandglass.registry import register
from sandglass.rng import key

_OWN = TableTransform(
    tuple({"name": name, "kind": "numeric", "mean": 0.0, "scale": 1.0, "dtype": "float64"} for name in ("x", "y"))
)
"""The points stay in their own coordinates: they are not standardised."""


class _Mixture(abc.ABC):
    """A mixture of isotropic Gaussians with equal weights and variances."""

    size = "10,000 + 2,000"
    shape = (2,)
    licence = "Apache-2.0"
    name: ClassVar[str]
    deviation: ClassVar[float]

    def __init__(self, *, examples: int = 10_000, seed: int = 0) -> None:
        self.examples, self.seed = whole(self.name, "examples", examples, 5), whole(self.name, "seed", seed, 0)

    @staticmethod
    @abc.abstractmethod
    def centres() -> Tensor:
        """``(K, 2)``, in the order of the labels."""

    def read(self) -> Raw:
        """The two splits, drawn independently."""
        parts, centres = {}, self.centres()
        for split, n in (("train", self.examples), ("test", self.examples // 5)):
            # NumPy's draws are the same on every machine; PyTorch's normal draws depend on the processor.
            draws = np.random.default_rng(key(self.seed, self.name, split))
            y = torch.from_numpy(draws.integers(len(centres), size=n))
            noise = torch.from_numpy(draws.standard_normal((n, 2)))
            parts[split] = Part((centres[y] + self.deviation * noise).float(), y)
        classes = tuple(f"({a:.3g}, {b:.3g})" for a, b in centres.tolist())
        return Raw(parts, _OWN, classes=classes, mixture=Mixture(centres, self.deviation))


@register("ring", kind="dataset")
class Ring(_Mixture):
    """Points around eight centres on a circle of radius 2, standard deviation 0.02; needs no download.

    Like the grid, a common benchmark for mode collapse of GANs (L. Metz, B. Poole, D. Pfau and J. Sohl-Dickstein,
    Unrolled generative adversarial networks, 2017; A. Srivastava et al., VEEGAN, 2017). The label is the centre,
    anticlockwise from (2, 0).

    Args:
        examples: number of training points; there are a fifth as many test points.
        seed: random seed.

    Raises:
        ConfigError: an invalid value.

    Example:
        >>> Ring.centres().shape, Ring(examples=10).read().parts["train"].x.shape
        (torch.Size([8, 2]), torch.Size([10, 2]))
    """

    name = "ring"
    origin = "made by Sandglass, after L. Metz et al., Unrolled generative adversarial networks, 2017"
    deviation = 0.02

    @staticmethod
    def centres() -> Tensor:
        """``(8, 2)``, in the order of the labels."""
        angles = torch.arange(8, dtype=torch.float64) * (math.pi / 4)
        return (2 * torch.stack([angles.cos(), angles.sin()], 1)).round(decimals=12) + 0.0  # + 0.0: no -0


@register("grid", kind="dataset")
class Grid(_Mixture):
    """Points around the 25 centres of a 5x5 grid two apart, standard deviation 0.05; needs no download.

    The label is the centre, row by row from (-4, -4); otherwise as for the ring.

    Args:
        examples: number of training points; there are a fifth as many test points.
        seed: random seed.

    Raises:
        ConfigError: an invalid value.

    Example:
        >>> Grid.centres().shape, Grid(examples=10).read().parts["test"].x.shape
        (torch.Size([25, 2]), torch.Size([2, 2]))
    """

    name = "grid"
    origin = "made by Sandglass, after A. Srivastava et al., VEEGAN, 2017"
    deviation = 0.05

    @staticmethod
    def centres() -> Tensor:
        """``(25, 2)``, in the order of the labels."""
        line = torch.arange(-4, 5, 2, dtype=torch.float64)
        return torch.cartesian_prod(line, line).flip(1)

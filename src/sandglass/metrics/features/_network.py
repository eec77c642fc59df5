"""The network behind learnt and random features: small, for any shape, its output on a scale of its own."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sandglass import registry, rng
from sandglass.core import Spec
from sandglass.data.dataset import Split
from sandglass.errors import ConfigError

_BLOCK, _ELEMENTS = 512, 2**24  # examples taken at once, and numbers in them
_LEAST = 1e-6  # a column or feature that does not vary is not blown up


class Network(nn.Module):
    """An encoder whose features have mean 0 and an average variance of 1 over the data it was fitted to.

    That scale gives a Fréchet distance a meaning across data: of samples that are all one average example it is the
    number of features.

    Args:
        spec: the data.
        dim: features D.
        outputs: what the head puts out.
        size: sides in pixels that larger pictures are averaged down to.
        activation: of the encoder.

    Example:
        >>> net = Network(Spec((3, 64, 48), "unit"), dim=8, outputs=5, size=32)
        >>> x = net(torch.zeros(2, 3, 64, 48))
        >>> x.shape, net.logits(x).shape, net.sides
        (torch.Size([2, 8]), torch.Size([2, 5]), (32, 32))
    """

    def __init__(self, spec: Spec, *, dim: int, outputs: int, size: int, activation: str = "silu") -> None:
        super().__init__()
        if dim < 1 or size < 1:
            raise ConfigError(f"Features need dim >= 1 and size >= 1, not {dim} and {size}.")
        height, width = (min(n, size) for n in spec.shape[1:]) if spec.is_image else (0, 0)
        self.sides = (height, width) if spec.is_image else None
        shape = (spec.shape[0], *self.sides) if self.sides else (math.prod(spec.shape),)
        how = {"name": "conv", "width": 16, "hidden": 128} if self.sides else {"name": "mlp", "widths": [128, 128]}
        self.encoder = registry.resolve("net", {**how, "activation": activation}).encoder(shape, dim)
        self.head = nn.Sequential(nn.SiLU(), nn.Linear(dim, outputs))
        each = (shape[0], *[1] * (len(shape) - 1))
        self.mean, self.scale = nn.Buffer(torch.zeros(each)), nn.Buffer(torch.ones(each))
        self.centre, self.spread = nn.Buffer(torch.zeros(dim)), nn.Buffer(torch.ones(()))
        self.score = nn.Buffer(torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        """``(B, *shape) -> (B, D)`` features."""
        return (self.encode(self.shrink(x)) - self.centre) / self.spread

    def logits(self, features: Tensor) -> Tensor:
        """``(B, D) -> (B, outputs)``."""
        return self.head(features * self.spread + self.centre)

    def shrink(self, x: Tensor) -> Tensor:
        """Floats of single precision, rows flat, larger pictures averaged down."""
        x = x.float()
        if self.sides is None:
            return x.flatten(1)
        return x if x.shape[2:] == self.sides else F.adaptive_avg_pool2d(x, self.sides)

    def encode(self, x: Tensor) -> Tensor:
        """``(B, ...)`` as :meth:`shrink` leaves them to the encoder's own output."""
        return self.encoder((x - self.mean) / self.scale)

    def gather(self, split: Split, index: Tensor) -> Tensor:
        """The examples at ``index``, shrunk, so that large pictures are never all held at once."""
        block = min(_BLOCK, max(1, _ELEMENTS // math.prod(split.x.shape[1:])))
        return torch.cat([self.shrink(split.batch(part).x.cpu()) for part in index.split(block)])

    def fit_input(self, x: Tensor) -> None:
        """Takes the mean and scale of the input, a channel or column, from shrunk examples."""
        over = [0, *range(2, x.dim())]
        self.mean.copy_(x.double().mean(over, keepdim=True)[0])
        self.scale.copy_(x.double().std(over, correction=0, keepdim=True)[0].clamp(min=_LEAST))

    @torch.no_grad()
    def fit_output(self, x: Tensor) -> None:
        """Takes the centre and spread of the features from shrunk examples."""
        features = torch.cat([self.encode(part) for part in x.split(_BLOCK)]).double()
        self.centre.copy_(features.mean(0))
        self.spread.copy_(features.var(0, correction=0).mean().sqrt().clamp(min=_LEAST))


def some(split: Split, most: int) -> Tensor:
    """``(n,)`` positions of at most ``most`` examples, the same ones for the same size, in random order."""
    return rng.permutation(len(split), 0, "features", "examples")[:most]

"""The small network behind learnt and random features: for any input shape, with normalised output."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sandglass import registry, rng
from sandglass.core import Spec
from sandglass.data.dataset import Split
from sandglass.errors import ConfigError

_BLOCK, _ELEMENTS = 512, 2**24  # maximum examples and maximum values processed at once
_FAINT = 1e-4  # added to variances of standardised images before the logarithm
_THIN = 1e-4  # smallest variance of an axis that is scaled to 1, relative to the largest
_LEAST = 1e-6  # smallest scale, so that a constant column or feature is not amplified


class Network(nn.Module):
    """An encoder whose D features have mean 0 and an average variance of 1 over the data it was fitted to.

    This scale makes Fréchet distances comparable across data sets: when all samples equal one example with average
    features, the distance is the number of features.

    Args:
        spec: specification of the data.
        dim: number of features D.
        outputs: output width of the head.
        size: larger images are average-pooled to at most this many pixels a side.
        activation: of the encoder.
        texture: number T of features of texture after those of the encoder, for images: see :meth:`energies`.

    Example:
        >>> net = Network(Spec((3, 64, 48), "unit"), dim=8, outputs=5, size=32, texture=4)
        >>> x = net(torch.zeros(2, 3, 64, 48))
        >>> x.shape, net.logits(x[:, :8]).shape, net.sides
        (torch.Size([2, 12]), torch.Size([2, 5]), (32, 32))
    """

    def __init__(
        self, spec: Spec, *, dim: int, outputs: int, size: int, activation: str = "silu", texture: int = 0
    ) -> None:
        super().__init__()
        if dim < 1 or size < 1:
            raise ConfigError(f"Features need dim >= 1 and size >= 1, not {dim} and {size}.")
        height, width = (min(n, size) for n in spec.shape[1:]) if spec.is_image else (0, 0)
        self.sides = (height, width) if spec.is_image else None
        self.texture = 0
        shape = (spec.shape[0], *self.sides) if self.sides else (math.prod(spec.shape),)
        how = {"name": "conv", "width": 16, "hidden": 128} if self.sides else {"name": "mlp", "widths": [128, 128]}
        self.encoder = registry.resolve("net", {**how, "activation": activation}).encoder(shape, dim)
        self.head = nn.Sequential(nn.SiLU(), nn.Linear(dim, outputs))
        each = (shape[0], *[1] * (len(shape) - 1))
        self.mean, self.scale = nn.Buffer(torch.zeros(each)), nn.Buffer(torch.ones(each))
        self.centre, self.spread = nn.Buffer(torch.zeros(dim)), nn.Buffer(torch.ones(()))
        if texture and self.sides:
            width = shape[0] + self._first().out_channels
            self.texture = min(texture, width)
            self.middle, self.axes = nn.Buffer(torch.zeros(width)), nn.Buffer(torch.eye(width)[:, : self.texture])
        self.score = nn.Buffer(torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        """``(B, *shape) -> (B, D + T)`` features."""
        x = self.shrink(x)
        features = (self.encode(x) - self.centre) / self.spread
        if not self.texture:
            return features
        return torch.cat([features, (self.energies(x) - self.middle) @ self.axes], 1)

    def energies(self, x: Tensor) -> Tensor:
        """``(B, E)`` mean of each channel, and log deviation over the image of what each first filter returns.

        The last layers keep what matters for their task and ignore texture: blur, noise and grids are seen here.
        """
        x = (x - self.mean) / self.scale
        deviation = self._first()(x).var((2, 3), correction=0).add(_FAINT).log() / 2
        return torch.cat([x.mean((2, 3)), deviation], 1)

    def _first(self) -> nn.Conv2d:
        return next(module for module in self.encoder.modules() if isinstance(module, nn.Conv2d))

    def logits(self, features: Tensor) -> Tensor:
        """``(B, D) -> (B, outputs)``."""
        return self.head(features * self.spread + self.centre)

    def shrink(self, x: Tensor) -> Tensor:
        """Converts to float32, flattens rows and average-pools larger images."""
        x = x.float()
        if self.sides is None:
            return x.flatten(1)
        return x if x.shape[2:] == self.sides else F.adaptive_avg_pool2d(x, self.sides)

    def encode(self, x: Tensor) -> Tensor:
        """``(B, ...)`` output of :meth:`shrink` to unnormalised features ``(B, D)``."""
        return self.encoder((x - self.mean) / self.scale)

    def gather(self, split: Split, index: Tensor) -> Tensor:
        """The examples at ``index``, shrunk block by block so that large images never fill the memory."""
        block = min(_BLOCK, max(1, _ELEMENTS // math.prod(split.x.shape[1:])))
        return torch.cat([self.shrink(split.batch(part).x.cpu()) for part in index.split(block)])

    def fit_input(self, x: Tensor) -> None:
        """Sets the input mean and scale per channel or column from shrunk examples."""
        over = [0, *range(2, x.dim())]
        self.mean.copy_(x.double().mean(over, keepdim=True)[0])
        self.scale.copy_(x.double().std(over, correction=0, keepdim=True)[0].clamp(min=_LEAST))

    @torch.no_grad()
    def fit_output(self, x: Tensor) -> None:
        """Sets the centre and spread of the features from shrunk examples."""
        features = torch.cat([self.encode(part) for part in x.split(_BLOCK)]).double()
        self.centre.copy_(features.mean(0))
        self.spread.copy_(features.var(0, correction=0).mean().sqrt().clamp(min=_LEAST))
        if self.texture:
            energies = torch.cat([self.energies(part) for part in x.split(_BLOCK)]).double()
            self.middle.copy_(energies.mean(0))
            values, axes = torch.linalg.eigh(energies.T.cov(correction=0))
            values, axes = values.flip(0)[: self.texture], axes.flip(1)[:, : self.texture]
            # Each axis gets a variance of 1, so that weak filters count as much as strong ones.
            self.axes.copy_(axes / values.clamp(min=max(_THIN * float(values[0]), _LEAST**2)).sqrt())


def some(split: Split, most: int) -> Tensor:
    """``(n,)`` positions of at most ``most`` examples in random order; deterministic for a given split size."""
    return rng.permutation(len(split), 0, "features", "examples")[:most]

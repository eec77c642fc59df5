"""What all models with an encoder and a decoder share."""

from __future__ import annotations

import abc
import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.distributions import Distribution

from sandglass.core import Batch, FigureKind, Model, Spec
from sandglass.distributions import observed
from sandglass.distributions.conditional import ObservationModel
from sandglass.errors import ConfigError
from sandglass.models._condition import Given

_VALUES = 24  # of an image for each latent dimension
_WIDTH = 16  # channels of the largest map


def latent_size(spec: Spec) -> int:
    """The size of a latent where it is not given: 16 for rows; for images it grows with them, from 8 to 256.

    Example:
        >>> [latent_size(Spec(shape)) for shape in ((6,), (1, 8, 8), (1, 28, 28), (3, 32, 32), (3, 64, 64))]
        [16, 8, 32, 128, 256]
    """
    if not spec.is_image:
        return 16
    return min(max(2 ** round(math.log2(spec.size / _VALUES)), 8), 256)


def sized(spec: Spec) -> dict[str, Any]:
    """Options of an autoencoder that depend on the data: a larger latent for larger images, and the net.

    Residual blocks at the full size of the images, few channels wide, give better bounds than strided convolutions.
    """
    net = {"name": "resnet", "width": _WIDTH} if spec.is_image else {"name": "mlp"}
    return {"latent_dim": latent_size(spec), "net": net}


def decoded_between(
    model: Any, a: Batch | Tensor, b: Batch | Tensor, steps: int, between: Callable[[Tensor, Tensor, Tensor], Tensor]
) -> Tensor:
    """``(B, steps, *shape)``: decoded points between the codes of ``a`` and ``b``, under the condition of ``a``.

    Args:
        model: encodes and decodes.
        a: examples.
        b: as many.
        steps: points, both ends included.
        between: codes ``(B, T, D)`` between codes ``(B, D)``, at fractions ``(1, T, 1)`` of the way.

    Raises:
        ConfigError: fewer than 2 steps.
    """
    if steps < 2:
        raise ConfigError(f"An interpolation needs at least 2 steps, not {steps}.")
    start, end = model.encode(a), model.encode(b)
    dtype = start.dtype if start.is_floating_point() else model.dtype  # fractions of whole numbers would be 0 and 1
    t = torch.linspace(0, 1, steps, device=start.device, dtype=dtype)[None, :, None]
    z = between(start, end, t)
    given = a.map(lambda v: v.repeat_interleave(steps, 0)) if isinstance(a, Batch) else None
    decoded: Tensor = model.decode(z.flatten(0, 1), given).unflatten(0, z.shape[:2])
    return decoded


class LatentModel(Model):
    """A model with an encoder to a code and a likelihood ``p(x|z, c)``, and the capabilities that follow.

    Attributes:
        p: ``p(x|z, c)``.
        given: reads the condition c from a batch.
    """

    p: ObservationModel
    given: Given

    @abc.abstractmethod
    def encode(self, batch: Batch) -> Tensor:
        """``(B, D)`` codes; the same for the same examples in eval mode."""

    @abc.abstractmethod
    def draw(self, n: int, given: Batch | None = None) -> Tensor:
        """``(n, D)`` new codes."""

    @property
    def kind(self) -> FigureKind:  # type: ignore[override]
        """The kind of its likelihood."""
        return self.p.kind

    def decode(self, code: Tensor, given: Batch | None = None) -> Tensor:
        """``(B, D)`` to the means ``(B, *shape)``."""
        return self.observation(code, self.given(given, code.shape[0])).mean

    def observation(self, code: Tensor, c: Tensor | None) -> Distribution:
        """p(x|z, c) of ``(B, D)`` codes under the conditions c."""
        return self.p(code, c)

    def reconstruct(self, batch: Batch) -> Tensor:
        """``decode(encode(x))``."""
        return self.decode(self.encode(batch), batch)

    def embed(self, code: Tensor) -> Tensor:
        """``(B, D)`` points whose distances are meaningful: the codes themselves."""
        return code

    def complete(self, batch: Batch, draws: int = 0) -> Batch:
        """The examples with missing values filled in.

        Args:
            batch: the examples, with a mask.
            draws: 0 for the mean given the code; n for n random completions of all examples, concatenated.
        """
        return self._completed(batch, draws)[0]

    def _completed(self, batch: Batch, draws: int) -> tuple[Batch, Tensor]:
        """The examples with missing values filled in, and the codes that these were decoded from."""
        x = batch.x
        mask = torch.ones_like(x, dtype=torch.bool) if batch.mask is None else batch.mask
        if not draws:
            code = self.encode(batch)
            p = observed.given(self.observation(code, self.given(batch)), x, mask)
            return replace(batch, x=torch.where(mask, x, p.mean), mask=None), code
        many = batch.map(lambda t: t.repeat(draws, *[1] * (t.dim() - 1)))
        code, seen = self.infer(many), mask.repeat(draws, *[1] * (mask.dim() - 1))
        drawn = observed.given(self.observation(code, self.given(many)), many.x, seen).sample()
        return replace(many, x=torch.where(seen, many.x, drawn), mask=None), code

    def infer(self, batch: Batch) -> Tensor:
        """``(B, D)`` codes sampled for the examples; the code itself for a deterministic encoder."""
        return self.encode(batch)

    def interpolate(self, a: Batch | Tensor, b: Batch | Tensor, steps: int = 8) -> Tensor:
        """``(B, steps, *shape)``: decoded points on the straight line between the codes of ``a`` and ``b``.

        A conditional model uses the condition of ``a``.

        Raises:
            ConfigError: fewer than 2 steps.
        """
        return decoded_between(self, a, b, steps, self.between)

    def between(self, a: Tensor, b: Tensor, t: Tensor) -> Tensor:
        """``(B, T, D)`` codes between codes ``(B, D)``, at fractions ``(1, T, 1)`` of the way."""
        return a[:, None] * (1 - t) + b[:, None] * t

    @torch.no_grad()
    def sample(self, n: int, given: Batch | None = None, *, noise: bool = False) -> Tensor:
        """``(n, *shape)`` means at new codes, or draws of x around them with ``noise``."""
        p = self.observation(self.draw(n, given), self.given(given, n))
        return p.sample() if noise else p.mean

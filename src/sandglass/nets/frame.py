"""What networks of every family share: how a condition and gaps join an input, and the modules that take them."""

from __future__ import annotations

import abc
import math
from collections import OrderedDict

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sandglass.errors import ConfigError

Cond = int | tuple[int, ...]
"""The width of a vector condition, the shape ``(C, H, W)`` of a picture one, or 0 for none."""


def cond_shape(cond: Cond) -> tuple[int, ...]:
    """The shape of one condition; empty for none.

    Raises:
        ConfigError: no width and no shape.

    Example:
        >>> cond_shape(0), cond_shape(5), cond_shape((3, 8, 8))
        ((), (5,), (3, 8, 8))
    """
    shape = ((cond,) if cond else ()) if isinstance(cond, int) else tuple(cond)
    if any(n < 1 for n in shape):
        raise ConfigError(f"A condition has a width or a shape of numbers from 1 on, not {cond}.")
    return shape


def picture_shape(shape: tuple[int, ...], family: str) -> tuple[int, int, int]:
    """The shape as channels, height and width.

    Raises:
        ConfigError: it is not that of a picture.
    """
    if len(shape) != 3:
        raise ConfigError(
            f"A {family} net needs images (C, H, W), not examples of shape {tuple(shape)}; use the net 'mlp'."
        )
    return shape


def resize(x: Tensor, size: tuple[int, int]) -> Tensor:
    """Pictures ``(B, C, H, W)`` at another height and width, averaged where they shrink."""
    if x.shape[2:] == size:
        return x
    half = x.dtype in (torch.float16, torch.bfloat16)  # which it is not written for
    out = F.interpolate(x.float() if half else x, size, mode="bilinear", align_corners=False, antialias=True)
    return out.to(x.dtype)


def needed(c: Tensor | None, shape: tuple[int, ...]) -> Tensor:
    """The condition that a network was built for.

    Raises:
        ConfigError: there is none, or one of another shape.
    """
    if c is None:
        raise ConfigError(f"This network needs a condition (B, {', '.join(map(str, shape))}) and was given none.")
    if c.shape[1:] != shape:
        raise ConfigError(f"This network needs conditions of shape {shape}, not {tuple(c.shape[1:])}.")
    return c


def check_condition(c: Tensor | None, shape: tuple[int, ...]) -> None:
    """Refuses a condition that a network was not built for, and the lack of one that it was built for.

    Raises:
        ConfigError: either, or a condition of another shape.
    """
    if shape:
        needed(c, shape)
    elif c is not None:
        raise ConfigError("This network was given a condition and was built without one; build it with `cond`.")


def check_mask(mask: Tensor | None, shape: tuple[int, ...], masked: bool) -> None:
    """Refuses a mask that a network would not look at, or of another shape than its input.

    Raises:
        ConfigError: either.
    """
    if mask is None:
        return
    if not masked:
        raise ConfigError("This network was given a mask and does not read one; build it with `masked=True`.")
    if mask.shape[1:] != shape:
        raise ConfigError(f"This network needs masks of shape {shape}, not {tuple(mask.shape[1:])}.")


class Inputs(abc.ABC):
    """What a network reads: its input, where told the gaps in it, and a condition, as one tensor.

    It has no parameters. An input counts as 0 where the mask is False, whatever stands there.

    Args:
        shape: of one input.
        cond: of the condition.
        masked: whether gaps are told.

    Attributes:
        joined: shape of what the network reads.
    """

    joined: tuple[int, ...]

    def __init__(self, shape: tuple[int, ...], cond: Cond = 0, masked: bool = False) -> None:
        self.shape, self.cond, self.masked = tuple(shape), cond_shape(cond), masked
        self.plain = not (self.cond or masked)

    @abc.abstractmethod
    def fit(self, t: Tensor) -> Tensor:
        """Something ``(B, ...)`` in the form in which it can stand beside the others, along the second axis."""

    def __call__(self, x: Tensor, c: Tensor | None = None, mask: Tensor | None = None) -> Tensor:
        """``(B, *joined)`` from the input ``(B, *shape)``, a condition ``(B, *cond)`` and a mask ``(B, *shape)``.

        Raises:
            ConfigError: a condition or mask that it was not built for, or no condition where it needs one.
        """
        if self.plain and c is None and mask is None:
            return x
        check_condition(c, self.cond)
        check_mask(mask, self.shape, self.masked)
        parts = [self.fit(x if mask is None else torch.where(mask, x, torch.zeros_like(x)))]
        if self.masked:
            parts.append(self.fit(torch.ones_like(x) if mask is None else mask.to(x.dtype)))
        if c is not None:
            parts.append(self.fit(c.to(x.dtype)))
        return torch.cat(parts, 1)


class Flat(Inputs):
    """Everything flattened, one after another: for fully connected layers, and for codes.

    Example:
        >>> inputs = Flat((1, 2, 2), cond=3)
        >>> inputs.joined, inputs(torch.zeros(5, 1, 2, 2), torch.zeros(5, 3)).shape
        ((7,), torch.Size([5, 7]))
    """

    def __init__(self, shape: tuple[int, ...], cond: Cond = 0, masked: bool = False) -> None:
        super().__init__(shape, cond, masked)
        size = math.prod(self.shape)
        self.joined = (size + (size if masked else 0) + (math.prod(self.cond) if self.cond else 0),)

    def fit(self, t: Tensor) -> Tensor:
        """``(B, ...) -> (B, n)``."""
        return t.flatten(1)


class Channels(Inputs):
    """Everything as channels of one picture: a vector constant over it, another picture resized to it.

    Constant channels meet the picture before the first non-linearity, so every layer can use the two together; at the
    last layer a vector could only be added to what the picture says.

    Example:
        >>> inputs = Channels((3, 4, 6), cond=5, masked=True)
        >>> inputs.joined, inputs(torch.zeros(2, 3, 4, 6), torch.zeros(2, 5)).shape
        ((11, 4, 6), torch.Size([2, 11, 4, 6]))
    """

    def __init__(self, shape: tuple[int, ...], cond: Cond = 0, masked: bool = False) -> None:
        super().__init__(shape, cond, masked)
        if len(self.cond) not in (0, 1, 3):
            raise ConfigError(f"A condition beside pictures is a vector or a picture (C, H, W), not {self.cond}.")
        channels, height, width = self.shape
        self.size = (height, width)
        self.joined = (channels + (channels if masked else 0) + (self.cond[0] if self.cond else 0), height, width)

    def fit(self, t: Tensor) -> Tensor:
        """``(B, n)`` or ``(B, n, h, w)`` to ``(B, n, H, W)``."""
        return t[:, :, None, None].expand(-1, -1, *self.size) if t.dim() == 2 else resize(t, self.size)


class Layers(nn.Sequential):
    """Layers one after another, and what joins the input of the first.

    The layers stand in it under their numbers, so that it has the weights of a plain ``nn.Sequential`` by name.

    Args:
        layers: the layers, or an ordered mapping of their names to them.
        inputs: what they read.

    Example:
        >>> layers = Layers(nn.Linear(7, 4), nn.ReLU(), nn.Linear(4, 2), inputs=Flat((1, 2, 2), cond=3))
        >>> x, c = torch.rand(5, 1, 2, 2), torch.rand(5, 3)
        >>> bool((layers(x, c) == layers.head(layers.body(x, c))).all()), list(layers.state_dict())[-1]
        (True, '2.bias')
    """

    def __init__(self, *layers: nn.Module | OrderedDict[str, nn.Module], inputs: Inputs) -> None:
        super().__init__(*layers)  # type: ignore[arg-type]
        self.inputs = inputs

    def forward(self, x: Tensor, c: Tensor | None = None, mask: Tensor | None = None) -> Tensor:
        """What the layers make of the input ``(B, *shape)``, a condition ``(B, *cond)`` and a mask ``(B, *shape)``.

        Raises:
            ConfigError: a condition or mask that it was not built for, or no condition where it needs one.
        """
        return super().forward(self.inputs(x, c, mask))

    @property
    def body(self) -> Layers:
        """Everything before the last layer; the same modules, under the same names."""
        return Layers(OrderedDict(list(self._modules.items())[:-1]), inputs=self.inputs)

    @property
    def head(self) -> nn.Module:
        """The last layer, which in an encoder is linear."""
        return self[-1]


class Headed(nn.Module):
    """An encoder of a body that is no row of layers, and a linear head.

    Args:
        body: ``(B, *shape)``, a condition and a mask to ``(B, n)``.
        head: ``(B, n) -> (B, out)``.
    """

    def __init__(self, body: nn.Module, head: nn.Linear) -> None:
        super().__init__()
        self.body, self.head = body, head

    def forward(self, x: Tensor, c: Tensor | None = None, mask: Tensor | None = None) -> Tensor:
        """``(B, out)`` of inputs ``(B, *shape)``, conditions ``(B, *cond)`` and masks ``(B, *shape)``.

        Raises:
            ConfigError: a condition or mask that it was not built for, or no condition where it needs one.
        """
        return self.head(self.body(x, c, mask))


class Guided(nn.Module):
    """A decoder whose vector condition is what an encoder makes of the condition that is given.

    Args:
        cond: shape of the condition.
        guide: ``(B, *cond) -> (B, n)``.
        decoder: ``(B, dim), (B, n) -> (B, *shape)``.
    """

    def __init__(self, cond: Cond, guide: nn.Module, decoder: nn.Module) -> None:
        super().__init__()
        self.cond, self.guide, self.decoder = cond_shape(cond), guide, decoder

    def forward(self, z: Tensor, c: Tensor | None = None) -> Tensor:
        """``(B, *shape)`` from codes ``(B, dim)`` and conditions ``(B, *cond)``.

        Raises:
            ConfigError: no condition, or one of another shape.
        """
        return self.decoder(z, self.guide(needed(c, self.cond).to(z.dtype)))


class FromCode(nn.Module):
    """A decoder in two parts: from a code to a small map, and from the map to the example.

    Args:
        stem: ``(B, dim) -> (B, c, h, w)``.
        synthesis: a list of that map, and a condition, to ``(B, *shape)``.
    """

    def __init__(self, stem: nn.Module, synthesis: nn.Module) -> None:
        super().__init__()
        self.stem, self.synthesis = stem, synthesis

    def forward(self, z: Tensor, c: Tensor | None = None) -> Tensor:
        """``(B, *shape)`` from codes ``(B, dim)`` and conditions ``(B, *cond)``.

        Raises:
            ConfigError: a condition that it was not built for, or none where it needs one.
        """
        return self.synthesis([self.stem(z)], c)

"""Modules shared by all network families, and how conditions and masks are combined with an input."""

from __future__ import annotations

import abc
import math
from collections import OrderedDict

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sandglass.errors import ConfigError
from sandglass.nets._layout import channels_last

Cond = int | tuple[int, ...]
"""The width of a vector condition, the shape ``(C, H, W)`` of an image condition, or 0 for none."""


def cond_shape(cond: Cond) -> tuple[int, ...]:
    """The shape of a condition; empty for none.

    Raises:
        ConfigError: a size below 1.

    Example:
        >>> cond_shape(0), cond_shape(5), cond_shape((3, 8, 8))
        ((), (5,), (3, 8, 8))
    """
    shape = ((cond,) if cond else ()) if isinstance(cond, int) else tuple(cond)
    if any(n < 1 for n in shape):
        raise ConfigError(f"The width or shape of a condition must be at least 1, not {cond}.")
    return shape


def vector_width(cond: Cond) -> int:
    """The width of a vector condition; 0 for an image or no condition."""
    shape = cond_shape(cond)
    return shape[0] if len(shape) == 1 else 0


def image_shape(shape: tuple[int, ...], family: str) -> tuple[int, int, int]:
    """The shape as channels, height and width.

    Raises:
        ConfigError: it is not the shape of an image.
    """
    if len(shape) != 3:
        raise ConfigError(
            f"A {family} net needs images (C, H, W), not examples of shape {tuple(shape)}; use the net 'mlp'."
        )
    return shape


def resize(x: Tensor, size: tuple[int, int]) -> Tensor:
    """Images ``(B, C, H, W)`` resized bilinearly with antialiasing."""
    if x.shape[2:] == size:
        return x
    half = x.dtype in (torch.float16, torch.bfloat16)  # not supported by antialiasing
    out = F.interpolate(x.float() if half else x, size, mode="bilinear", align_corners=False, antialias=True)
    return out.to(x.dtype)


def needed(c: Tensor | None, shape: tuple[int, ...]) -> Tensor:
    """The condition, checked to have the shape that the network was built for.

    Raises:
        ConfigError: the condition is missing or has another shape.
    """
    if c is None:
        raise ConfigError(f"This network needs a condition (B, {', '.join(map(str, shape))}) but got none.")
    if c.shape[1:] != shape:
        raise ConfigError(f"This network needs conditions of shape {shape}, not {tuple(c.shape[1:])}.")
    return c


def check_condition(c: Tensor | None, shape: tuple[int, ...]) -> None:
    """Checks a condition against the shape that the network was built for; empty for no condition.

    Raises:
        ConfigError: the condition is missing, unexpected, or has another shape.
    """
    if shape:
        needed(c, shape)
    elif c is not None:
        raise ConfigError("This network was built without a condition but got one; build it with `cond`.")


def check_mask(mask: Tensor | None, shape: tuple[int, ...], masked: bool) -> None:
    """Checks that the network uses masks, and that the mask has the shape of the input.

    Raises:
        ConfigError: otherwise.
    """
    if mask is None:
        return
    if not masked:
        raise ConfigError("This network was built without a mask but got one; build it with `masked=True`.")
    if mask.shape[1:] != shape:
        raise ConfigError(f"This network needs masks of shape {shape}, not {tuple(mask.shape[1:])}.")


def normal(*shape: int, std: float = 1.0) -> Tensor:
    """Normal numbers to initialise a parameter with; on the device ``meta`` none are drawn, which is faster there."""
    t = torch.empty(*shape)
    return t if t.is_meta else t.normal_(std=std)


class Inputs(abc.ABC):
    """Concatenates the input, optionally its mask, and a condition to one tensor for a network.

    It has no parameters. The input is set to 0 where the mask is False.

    Args:
        shape: of one input.
        cond: shape of the condition.
        masked: whether the mask is concatenated.

    Attributes:
        joined: shape of the concatenated input.
        last: whether it is in channels-last memory.
    """

    joined: tuple[int, ...]
    last = False

    def __init__(self, shape: tuple[int, ...], cond: Cond = 0, masked: bool = False) -> None:
        self.shape, self.cond, self.masked = tuple(shape), cond_shape(cond), masked
        self.plain = not (self.cond or masked)

    @abc.abstractmethod
    def fit(self, t: Tensor) -> Tensor:
        """Reshapes a tensor ``(B, ...)`` so that it can be concatenated along the second axis."""

    def __call__(self, x: Tensor, c: Tensor | None = None, mask: Tensor | None = None) -> Tensor:
        """``(B, *joined)`` from the input ``(B, *shape)``, a condition ``(B, *cond)`` and a mask ``(B, *shape)``.

        Raises:
            ConfigError: a condition or mask is unexpected or missing, or has the wrong shape.
        """
        if self.plain and c is None and mask is None:
            return channels_last(x) if self.last else x
        check_condition(c, self.cond)
        check_mask(mask, self.shape, self.masked)
        parts = [self.fit(x if mask is None else torch.where(mask, x, torch.zeros_like(x)))]
        if self.masked:
            parts.append(self.fit(torch.ones_like(x) if mask is None else mask.to(x.dtype)))
        if c is not None:
            parts.append(self.fit(c.to(x.dtype)))
        joined = torch.cat(parts, 1)
        return channels_last(joined) if self.last else joined


class Flat(Inputs):
    """Flattens and concatenates everything, for fully connected layers.

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
    """Concatenates everything as channels of one image: a vector as constant channels, another image resized.

    Constant channels are combined with the image before the first non-linearity, so that every layer can model
    interactions of the two; at the last layer a condition could only be added.

    Args:
        shape: of one input.
        cond: shape of the condition.
        masked: whether the mask is concatenated.
        last: whether the image is put into channels-last memory.

    Example:
        >>> inputs = Channels((3, 4, 6), cond=5, masked=True)
        >>> inputs.joined, inputs(torch.zeros(2, 3, 4, 6), torch.zeros(2, 5)).shape
        ((11, 4, 6), torch.Size([2, 11, 4, 6]))
    """

    def __init__(self, shape: tuple[int, ...], cond: Cond = 0, masked: bool = False, *, last: bool = False) -> None:
        super().__init__(shape, cond, masked)
        self.last = last
        if len(self.cond) not in (0, 1, 3):
            raise ConfigError(f"A condition of images must be a vector or an image (C, H, W), not {self.cond}.")
        channels, height, width = self.shape
        self.size = (height, width)
        self.joined = (channels + (channels if masked else 0) + (self.cond[0] if self.cond else 0), height, width)

    def fit(self, t: Tensor) -> Tensor:
        """``(B, n)`` or ``(B, n, h, w)`` to ``(B, n, H, W)``."""
        return t[:, :, None, None].expand(-1, -1, *self.size) if t.dim() == 2 else resize(t, self.size)


class Layers(nn.Sequential):
    """A sequence of layers with a condition and a mask as additional inputs.

    The layers are named by number, so that weight names are those of a plain ``nn.Sequential``.

    Args:
        layers: the layers, or an ordered mapping of names to layers.
        inputs: combines the input, condition and mask.

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
        """Output for the input ``(B, *shape)``, a condition ``(B, *cond)`` and a mask ``(B, *shape)``.

        Raises:
            ConfigError: a condition or mask is unexpected or missing, or has the wrong shape.
        """
        return super().forward(self.inputs(x, c, mask))

    @property
    def body(self) -> Layers:
        """All layers but the last; the same modules, under the same names."""
        return Layers(OrderedDict(list(self._modules.items())[:-1]), inputs=self.inputs)

    @property
    def head(self) -> nn.Module:
        """The last layer, which is linear in an encoder."""
        return self[-1]


class Headed(nn.Module):
    """An encoder with an arbitrary body and a linear head.

    Args:
        body: maps ``(B, *shape)``, a condition and a mask to ``(B, n)``.
        head: ``(B, n) -> (B, out)``.
    """

    def __init__(self, body: nn.Module, head: nn.Linear) -> None:
        super().__init__()
        self.body, self.head = body, head

    def forward(self, x: Tensor, c: Tensor | None = None, mask: Tensor | None = None) -> Tensor:
        """``(B, out)`` of inputs ``(B, *shape)``, conditions ``(B, *cond)`` and masks ``(B, *shape)``.

        Raises:
            ConfigError: a condition or mask is unexpected or missing, or has the wrong shape.
        """
        return self.head(self.body(x, c, mask))


class Guided(nn.Module):
    """A decoder whose condition is first encoded to a vector.

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
            ConfigError: the condition is missing or has another shape.
        """
        return self.decoder(z, self.guide(needed(c, self.cond).to(z.dtype)))


class FromCode(nn.Module):
    """A decoder in two parts: from a code to a small feature map, and from the map to the example.

    Args:
        stem: ``(B, dim) -> (B, c, h, w)``.
        synthesis: maps a list of that feature map, and a condition, to ``(B, *shape)``.
    """

    def __init__(self, stem: nn.Module, synthesis: nn.Module) -> None:
        super().__init__()
        self.stem, self.synthesis = stem, synthesis

    def forward(self, z: Tensor, c: Tensor | None = None) -> Tensor:
        """``(B, *shape)`` from codes ``(B, dim)`` and conditions ``(B, *cond)``.

        Raises:
            ConfigError: a condition is unexpected or missing, or has the wrong shape.
        """
        return self.synthesis([self.stem(z)], c)

"""Companions derived from the picture itself: a grey version, edges, a downsampled copy.

They are computed for each batch after augmentation, so that a companion always matches its picture. The arithmetic is
on integer values from 0 to 255, so that results are the same on every machine.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from sandglass.errors import ConfigError

_LUMA = (19595, 38470, 7471)  # ITU-R BT.601 weights times 2^16, rounded as in Pillow's conversion to "L"


@dataclass(frozen=True)
class Derivation:
    """A way to derive a companion from a picture.

    Args:
        make: function of ``(B, C, H, W)`` integer values from 0 to 255 and a parameter that returns such values.
        shape: function of the picture's shape and the parameter that returns the companion's shape.
        about: description.
        strength: description of the parameter, with its unit; empty if there is none.
        usual: default of the parameter.
        least: its minimum.
        largest: its maximum.
        whole: whether it is an integer.
        levels: number of levels of an element.
    """

    make: Callable[[Tensor, float], Tensor]
    shape: Callable[[tuple[int, ...], float], tuple[int, ...]]
    about: str
    strength: str = ""
    usual: float = 0.0
    least: float = 0.0
    largest: float = 0.0
    whole: bool = False
    levels: int = 256


def grey(x: Tensor) -> Tensor:
    """``(B, C, H, W)`` integer values to ``(B, 1, H, W)``: ITU-R BT.601 luma; the first channel if there is no colour.

    Example:
        >>> grey(torch.tensor([255.0, 0.0, 0.0]).view(1, 3, 1, 1)).item()
        76.0
    """
    if x.shape[1] < 3:
        return x[:, :1]
    red, green, blue = x.long()[:, :3].unbind(1)
    return ((red * _LUMA[0] + green * _LUMA[1] + blue * _LUMA[2] + 2**15) >> 16)[:, None].to(x.dtype)


def edges(x: Tensor, least: float) -> Tensor:
    """Edges of ``(B, C, H, W)`` integer values as ``(B, 1, H, W)``: 255 on an edge, else 0.

    An edge is where the Sobel gradient magnitude of the grey picture exceeds ``least``. The magnitude is divided by 4,
    so that a step from black to white has 1. Borders are replicated.

    Example:
        >>> x = torch.zeros(1, 1, 3, 6)
        >>> x[..., 3:] = 255
        >>> edges(x, 0.2)[0, 0, 0].tolist()
        [0.0, 0.0, 255.0, 255.0, 0.0, 0.0]
    """
    smooth, slope = x.new_tensor([1.0, 2.0, 1.0]), x.new_tensor([-1.0, 0.0, 1.0])
    kernels = torch.stack([smooth[:, None] * slope, slope[:, None] * smooth])[:, None]
    gradient = F.conv2d(F.pad(grey(x), (1, 1, 1, 1), mode="replicate"), kernels)
    return (gradient.square().sum(1, keepdim=True) > (4 * 255 * least) ** 2).to(x.dtype) * 255


def small(x: Tensor, factor: float) -> Tensor:
    """Downsamples ``(B, C, H, W)`` integer values to ``(B, C, H // factor, W // factor)`` by rounded block means.

    Example:
        >>> small(torch.arange(16.0).view(1, 1, 4, 4), 2)[0, 0].tolist()
        [[2.0, 4.0], [10.0, 12.0]]
    """
    height, width = (max(1, int(n // factor)) for n in x.shape[2:])
    return F.adaptive_avg_pool2d(x, (height, width)).round()


DERIVED: Mapping[str, Derivation] = {
    "grey": Derivation(lambda x, _: grey(x), lambda shape, _: (1, *shape[1:]), "the grey version of a colour picture"),
    "edges": Derivation(
        edges,
        lambda shape, _: (1, *shape[1:]),
        "edges, 1 where the Sobel gradient of the grey picture exceeds a threshold",
        "the threshold; a step from black to white has 1",
        0.2,
        0.0,
        1.5,
        levels=2,
    ),
    "small": Derivation(
        small,
        lambda shape, factor: (shape[0], *(max(1, int(n // factor)) for n in shape[1:])),
        "a copy downsampled by a whole factor, by block means",
        "the factor",
        4,
        2,
        64,
        whole=True,
    ),
}
"""The derivations; ``small=4`` sets the parameter, ``small`` and ``small=`` use its default."""


def is_derived(word: object) -> bool:
    """Whether a string names a derivation, with or without a parameter.

    Example:
        >>> is_derived("small=4"), is_derived("grey"), is_derived("./grey"), is_derived("photos/")
        (True, True, False, False)
    """
    return isinstance(word, str) and word.partition("=")[0].strip() in DERIVED


def spelt(word: str) -> str:
    """A derivation in canonical spelling.

    Example:
        >>> spelt("edges="), spelt("small = 2")
        ('edges', 'small=2')
    """
    name, _, text = (part.strip() for part in word.partition("="))
    return f"{name}={text}" if text else name


def read(word: str) -> tuple[Derivation, float]:
    """Parses a derivation and its parameter.

    Raises:
        ConfigError: an unknown derivation, or an invalid parameter.

    Example:
        >>> read("small=2")[1], read("edges")[1]
        (2.0, 0.2)
    """
    name, _, text = (part.strip() for part in word.partition("="))
    if name not in DERIVED:
        raise ConfigError(f"There is no derivation '{name}'. Known: {', '.join(DERIVED)}.")
    found = DERIVED[name]
    if not text:
        return found, found.usual
    if not found.strength:
        raise ConfigError(f"The derivation '{name}' takes no number; write '{name}', not '{word}'.")
    try:
        strength = float(text)
    except ValueError:
        strength = float("nan")
    if not found.least <= strength <= found.largest or (found.whole and strength != int(strength)):
        kind = "a whole number" if found.whole else "a number"
        raise ConfigError(
            f"'{name}' must be {kind} from {found.least:g} to {found.largest:g} ({found.strength}), not '{text}'."
        )
    return found, strength


@torch.no_grad()
def make(word: str, x: Tensor) -> Tensor:
    """Computes the companions of pictures.

    Args:
        word: the derivation, such as ``"small=4"``.
        x: ``(B, C, H, W)`` in [0, 1].

    Returns:
        ``(B, C', H', W')`` in [0, 1], with the dtype of ``x``.

    Raises:
        ConfigError: as :func:`read`.

    Example:
        >>> make("small=4", torch.rand(2, 3, 16, 8)).shape, make("grey", torch.rand(2, 3, 16, 8)).shape
        (torch.Size([2, 3, 4, 2]), torch.Size([2, 1, 16, 8]))
    """
    found, strength = read(word)
    whole = torch.float64 if x.dtype == torch.float64 else torch.float32  # half precision overflows at 255 * 64 ** 2
    return (found.make((x.to(whole) * 255).round(), strength) / 255).to(x.dtype)

"""Companions that are made of a picture itself: its grey version, its edges, a small copy.

They are made batch by batch, after the changes of training pictures, so that a companion always fits its picture. The
arithmetic is on whole values from 0 to 255, so that a picture has the same companions on every machine.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from sandglass.errors import ConfigError

_LUMA = (19595, 38470, 7471)  # of 2^16: ITU-R BT.601, rounded as Pillow's conversion to "L" has it


@dataclass(frozen=True)
class Derivation:
    """One way to make a companion.

    Args:
        make: from ``(B, C, H, W)`` whole values in 0 to 255 and a strength to such values.
        shape: of the companion, from that of a picture and the strength.
        about: what it is.
        strength: what the number is, with its unit; empty where it takes none.
        usual: the strength where none is named.
        least: the least strength.
        largest: the largest.
        whole: whether the strength is a whole number.
        levels: how many values an element has.
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
    """``(B, C, H, W)`` whole values to ``(B, 1, H, W)``: the luma of ITU-R BT.601, of one channel itself.

    Example:
        >>> grey(torch.tensor([255.0, 0.0, 0.0]).view(1, 3, 1, 1)).item()
        76.0
    """
    if x.shape[1] < 3:
        return x[:, :1]
    red, green, blue = x.long()[:, :3].unbind(1)
    return ((red * _LUMA[0] + green * _LUMA[1] + blue * _LUMA[2] + 2**15) >> 16)[:, None].to(x.dtype)


def edges(x: Tensor, least: float) -> Tensor:
    """``(B, C, H, W)`` whole values to ``(B, 1, H, W)``: 255 where the grey picture changes quickly, else 0.

    The magnitude of its gradient by the filters of Sobel, divided by 4 so that a step from black to white has 1, is
    over ``least``; beyond the border it goes on as it ends.

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
    """``(B, C, H, W)`` whole values to ``(B, C, H // factor, W // factor)``: the mean of each block, rounded.

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
        "its edges, 1 where the gradient of the grey picture (Sobel) is over a threshold",
        "the threshold, a step from black to white having 1",
        0.2,
        0.0,
        1.5,
        levels=2,
    ),
    "small": Derivation(
        small,
        lambda shape, factor: (shape[0], *(max(1, int(n // factor)) for n in shape[1:])),
        "a copy that is smaller by a whole factor, the mean of each block",
        "the factor",
        4,
        2,
        64,
        whole=True,
    ),
}
"""What can be derived; ``small=4`` names a strength, ``small`` and ``small=`` take the usual one."""


def is_derived(word: object) -> bool:
    """Whether a text names a derivation, with or without a strength.

    Example:
        >>> is_derived("small=4"), is_derived("grey"), is_derived("./grey"), is_derived("photos/")
        (True, True, False, False)
    """
    return isinstance(word, str) and word.partition("=")[0].strip() in DERIVED


def spelt(word: str) -> str:
    """A derivation in one spelling.

    Example:
        >>> spelt("edges="), spelt("small = 2")
        ('edges', 'small=2')
    """
    name, _, text = (part.strip() for part in word.partition("="))
    return f"{name}={text}" if text else name


def read(word: str) -> tuple[Derivation, float]:
    """A derivation and its strength.

    Raises:
        ConfigError: no such derivation, or a strength that makes no sense.

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
    """The companions of pictures.

    Args:
        word: which, such as ``"small=4"``.
        x: ``(B, C, H, W)`` in [0, 1].

    Returns:
        ``(B, C', H', W')`` in [0, 1], of the type of ``x``.

    Raises:
        ConfigError: as :func:`read`.

    Example:
        >>> make("small=4", torch.rand(2, 3, 16, 8)).shape, make("grey", torch.rand(2, 3, 16, 8)).shape
        (torch.Size([2, 3, 4, 2]), torch.Size([2, 1, 16, 8]))
    """
    found, strength = read(word)
    whole = torch.float64 if x.dtype == torch.float64 else torch.float32  # half precision cannot count to 255 * 64 ** 2
    return (found.make((x.to(whole) * 255).round(), strength) / 255).to(x.dtype)

"""Damage to examples, for denoising and for testing robustness; an example's draw hangs on (seed, epoch, index) alone.

A denoising model sees the damaged example and is compared with the whole one: Vincent et al. 2010, "Stacked Denoising
Autoencoders" (JMLR 11), and Im et al. 2017, "Denoising Criterion for Variational Auto-Encoding Framework" (arXiv
1511.06406).
"""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from sandglass import rng
from sandglass.core import Spec
from sandglass.data.augment import keyed, window
from sandglass.data.strengths import Scale, Strengths, read
from sandglass.errors import ConfigError

_MASK_RATIO = 2.0  # a hidden rectangle is at most so much wider than high, or the other way round
_BLUR_REACH = 6.0  # standard deviations at which the kernel ends: what lies beyond is less than float32 can show


@dataclass(frozen=True)
class Draws:
    """The random numbers of one corruption of one batch.

    Args:
        index: ``(B,)`` the examples' positions in their split.
        key: what else they hang on: seed, epoch, name.
        widths: for rows of a table, how many numbers each of its columns fills; empty where every number is one.
    """

    index: Tensor
    key: tuple[int | str, ...]
    widths: tuple[int, ...] = ()

    def uniform(self, n: int, like: Tensor) -> Tensor:
        """``(B, n)`` in [0, 1), of the type of ``like``."""
        return rng.uniform(self.index, n, *self.key).to(like.dtype)

    def normal(self, like: Tensor) -> Tensor:
        """Standard normal, of the shape and type of ``like``."""
        return rng.normal(self.index, like[0].numel(), *self.key).to(like.dtype).view_as(like)


def gaussian(x: Tensor, sd: float, draws: Draws) -> Tensor:
    """``(B, ...)`` with normal noise on every number."""
    return x + sd * draws.normal(x)


def salt_pepper(x: Tensor, share: float, draws: Draws) -> Tensor:
    """``(B, C, H, W)`` with a share of the pixels black or white, in all channels and at equal chances."""
    u = draws.uniform(x[0, 0].numel(), x).view(len(x), 1, *x.shape[2:])
    return torch.where(u < share, (u < share / 2).to(x.dtype), x)


def blur(x: Tensor, sigma: float, draws: Draws | None = None) -> Tensor:
    """``(B, C, H, W)`` under a Gaussian kernel, mirrored at the borders; no sum over a picture changes.

    Example:
        >>> x = torch.zeros(1, 1, 9, 9)
        >>> x[..., 0, 4] = 1
        >>> round(float(blur(x, 2.0).sum()), 5)
        1.0
    """
    rows, columns = (_smoothing(n, sigma, x.dtype, x.device) for n in x.shape[2:])
    return rows @ x @ columns.T


def mask(x: Tensor, share: float, draws: Draws) -> tuple[Tensor, Tensor]:
    """Hides a share of each example behind zeros.

    Args:
        x: ``(B, C, H, W)``, where one random rectangle of that share of the area is hidden, to within whole pixels; or
            ``(B, D)``, where every cell is dropped with that probability, a category as a whole.
        share: in 0 to 1.
        draws: the random numbers.

    Returns:
        What is left, and ``(B, ...)`` booleans of the same shape, True where ``x`` is still to be seen.

    Example:
        >>> left, seen = mask(torch.ones(2, 3, 8, 8), 1.0, Draws(torch.arange(2), (0,)))
        >>> left.max(), seen.any()
        (tensor(0.), tensor(False))
    """
    if x.dim() == 2:
        widths = draws.widths or (1,) * x.shape[1]
        kept = draws.uniform(len(widths), x) >= share
        seen = kept.index_select(1, _columns(widths, x.device))
    else:
        height, width = x.shape[2:]
        sides = window(torch.full((len(x),), share, device=x.device, dtype=x.dtype), draws.uniform(3, x), _MASK_RATIO)
        left, top, wide, high = (side[:, None] for side in sides)
        across, down = (_inside(n, *edges) for n, edges in ((width, (left, wide)), (height, (top, high))))
        seen = ~(down[:, None, :, None] & across[:, None, None, :]).expand_as(x)
    return torch.where(seen, x, torch.zeros_like(x)), seen


def jpeg(x: Tensor, quality: float, draws: Draws | None = None) -> Tensor:
    """``(B, C, H, W)`` in [0, 1] after a JPEG file each, through the CPU; a fourth channel is left as it is.

    Raises:
        ConfigError: two channels, or more than four.
    """
    from PIL import Image

    if x.shape[1] not in (1, 3, 4):
        raise ConfigError(f"jpeg is for pictures of 1, 3 or 4 channels, not {x.shape[1]}.")
    colours = x[:, : 3 if x.shape[1] > 1 else 1]
    pixels = (colours.detach().clamp(0, 1) * 255).round().to("cpu", torch.uint8).movedim(1, -1).numpy()
    done = np.empty_like(pixels)
    for one, out in zip(pixels, done, strict=True):
        file = io.BytesIO()
        Image.fromarray(one[..., 0] if one.shape[-1] == 1 else one).save(file, "JPEG", quality=max(1, round(quality)))
        with Image.open(file) as image:
            out[...] = np.asarray(image).reshape(one.shape)
    back = (torch.from_numpy(done).movedim(-1, 1).to(x) / 255).contiguous()
    return torch.cat([back, x[:, 3:]], dim=1) if x.shape[1] == 4 else back


@dataclass(frozen=True)
class Kind:
    """One corruption.

    Args:
        change: from examples, strength and draws to examples.
        scale: of its strength. Gaussian noise, salt and pepper, and JPEG have the severities of Hendrycks and
            Dietterich 2019, "Benchmarking Neural Network Robustness to Common Corruptions and Perturbations" (arXiv
            1903.12261).
        rows: whether it is for rows as well.
        real: whether it is for numbers beyond [0, 1] as well.
    """

    change: Callable[[Tensor, float, Draws], Tensor]
    scale: Scale
    rows: bool = False
    real: bool = False


CORRUPTIONS: Mapping[str, Kind] = {
    "gaussian": Kind(
        gaussian,
        Scale(0.2, 10.0, "standard deviation of the noise", (0.08, 0.12, 0.18, 0.26, 0.38)),
        rows=True,
        real=True,
    ),
    "salt-pepper": Kind(salt_pepper, Scale(0.1, 1.0, "share of the pixels", (0.03, 0.06, 0.09, 0.17, 0.27))),
    "blur": Kind(blur, Scale(1.0, 100.0, "standard deviation in pixels", (0.5, 1.0, 1.5, 2.0, 3.0)), real=True),
    "mask": Kind(
        lambda x, share, draws: mask(x, share, draws)[0],
        Scale(0.25, 1.0, "share that is hidden", (0.1, 0.2, 0.3, 0.4, 0.5)),
        rows=True,
        real=True,
    ),
    "jpeg": Kind(jpeg, Scale(25.0, 100.0, "quality, 1 to 100; 0 for none", (25.0, 18.0, 15.0, 10.0, 7.0))),
}
"""What can be done, in which strength, and to what."""

SCALES = {name: kind.scale for name, kind in CORRUPTIONS.items()}


@dataclass(frozen=True)
class Corruption:
    """Several corruptions one after the other.

    Args:
        strengths: by name, in this order.
        unit: values lie in [0, 1] and are kept there.
        widths: of a table's columns, see :class:`Draws`.

    Example:
        >>> damage = make_corruption("gaussian=0.3,mask@2")
        >>> x = torch.rand(4, 1, 8, 8)
        >>> y = damage(x, torch.arange(4), seed=0, epoch=3)
        >>> bool(torch.allclose(damage(x[2:], torch.tensor([2, 3]), seed=0, epoch=3), y[2:], atol=1e-6))
        True
    """

    strengths: Mapping[str, float]
    unit: bool = True
    widths: tuple[int, ...] = ()

    @torch.no_grad()
    def __call__(self, x: Tensor, index: Tensor, seed: int, epoch: int, stream: str = "") -> Tensor:
        """Damaged examples; ``x`` itself is left as it is.

        Args:
            x: ``(B, C, H, W)`` or ``(B, D)`` floats.
            index: ``(B,)`` the examples' positions in their split.
            seed: of the run.
            epoch: whole epochs done.
            stream: of draws; another one for every stage of training.

        Returns:
            The shape of ``x``.

        Raises:
            ConfigError: a corruption of pictures, and rows.
        """
        index = index.to(x.device)
        for name, strength in self.strengths.items():
            if x.dim() != 4 and not CORRUPTIONS[name].rows:
                raise ConfigError(f"The corruption '{name}' is for pictures, not for rows. {_those('rows')}")
            if strength:
                draws = Draws(index, (*keyed(seed, epoch, stream), "corrupt", name), self.widths)
                x = CORRUPTIONS[name].change(x, strength, draws)
        return x.clamp(0, 1) if self.unit else x


def make_corruption(given: Strengths, spec: Spec | None = None) -> Corruption | None:
    """A corruption from names, with the usual strengths of :data:`CORRUPTIONS`, strengths of one's own or severities.

    Args:
        given: such as ``"gaussian=0.3,mask"``, ``["blur@2"]`` (severity 2 of 5) or ``{"gaussian": 0.3}``; they act in
            this order.
        spec: of the data; without it, pictures in [0, 1].

    Returns:
        None where nothing is to be done: no names, or no strength above 0.

    Raises:
        ConfigError: an unknown name, a strength that makes no sense, or a corruption that such data cannot have.

    Example:
        >>> make_corruption("gaussian,blur@2").strengths
        {'gaussian': 0.2, 'blur': 1.0}
        >>> make_corruption([]) is None
        True
    """
    strengths = read("corruption", SCALES, given)
    if not any(strengths.values()):
        return None
    if spec is None:
        return Corruption(strengths)
    for name in strengths:
        if not spec.is_image and not CORRUPTIONS[name].rows:
            raise ConfigError(f"The corruption '{name}' is for pictures, not for rows. {_those('rows')}")
        if spec.support == "real" and not CORRUPTIONS[name].real:
            raise ConfigError(f"The corruption '{name}' is for values in [0, 1], not for any number. {_those('real')}")
    widths = tuple(column.width for column in spec.columns)
    return Corruption(strengths, spec.support != "real", widths if sum(widths) == spec.size else ())


def possible(spec: Spec) -> dict[str, float]:
    """The corruptions that such data can have, at their usual strength.

    Example:
        >>> possible(Spec((5,)))
        {'gaussian': 0.2, 'mask': 0.25}
    """
    able = {n: k for n, k in CORRUPTIONS.items() if (k.rows or spec.is_image) and (k.real or spec.support != "real")}
    return {name: kind.scale.usual for name, kind in able.items()}


def _those(what: str) -> str:
    names = [name for name, kind in CORRUPTIONS.items() if getattr(kind, what)]
    return f"For such data: {', '.join(names)}."


@lru_cache(maxsize=64)  # for a training asks for the same ones at every step
def _smoothing(n: int, sigma: float, dtype: torch.dtype, device: torch.device) -> Tensor:
    """``(n, n)`` weights of a Gaussian kernel on a line that is mirrored at both ends; rows and columns sum to 1."""
    reach = math.ceil(_BLUR_REACH * sigma)
    steps = torch.arange(-reach, reach + 1)
    kernel = torch.exp(-0.5 * (steps.double() / sigma).square())
    place = (torch.arange(n)[:, None] + steps) % (2 * n)
    place = torch.minimum(place, 2 * n - 1 - place)
    weights = torch.zeros(n, n, dtype=torch.float64)
    weights.scatter_add_(1, place, (kernel / kernel.sum()).expand(n, -1))
    return weights.to(device, dtype)


@lru_cache(maxsize=64)
def _columns(widths: tuple[int, ...], device: torch.device) -> Tensor:
    """``(D,)`` the column that each number of a row belongs to."""
    return torch.arange(len(widths)).repeat_interleave(torch.tensor(widths)).to(device)


def _inside(n: int, start: Tensor, length: Tensor) -> Tensor:
    """``(B, n)`` which of n pixels have their centre in ``length`` from ``start`` on, both in shares of the side."""
    centres = (torch.arange(n, device=start.device, dtype=start.dtype) + 0.5) / n
    return (centres >= start) & (centres < start + length)

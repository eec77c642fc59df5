"""Corruptions, for denoising and robustness tests; the random draw of an example depends only on (seed, epoch, index).

A denoising model gets the corrupted example as input and the clean one as target: Vincent et al. 2010, "Stacked
Denoising Autoencoders" (JMLR 11), and Im et al. 2017, "Denoising Criterion for Variational Auto-Encoding Framework"
(arXiv 1511.06406).
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

_MASK_RATIO = 2.0  # largest aspect ratio of a masked rectangle, relative to that of the picture
_BLUR_REACH = 6.0  # radius of the kernel in standard deviations; weights beyond are below float32 precision


@dataclass(frozen=True)
class Draws:
    """The random numbers of one corruption of one batch.

    Args:
        index: ``(B,)`` positions of the examples in their split.
        key: the rest of the random key: seed, epoch, name.
        widths: number of encoded features of each column of a table; empty if every column has one.
    """

    index: Tensor
    key: tuple[int | str, ...]
    widths: tuple[int, ...] = ()

    def uniform(self, n: int, like: Tensor) -> Tensor:
        """``(B, n)`` uniform numbers in [0, 1), with the dtype of ``like``."""
        return rng.uniform(self.index, n, *self.key).to(like.dtype)

    def normal(self, like: Tensor) -> Tensor:
        """Standard normal numbers with the shape and dtype of ``like``."""
        return rng.normal(self.index, like[0].numel(), *self.key).to(like.dtype).view_as(like)


def gaussian(x: Tensor, sd: float, draws: Draws) -> Tensor:
    """Adds Gaussian noise to ``(B, ...)``."""
    return x + sd * draws.normal(x)


def salt_pepper(x: Tensor, share: float, draws: Draws) -> Tensor:
    """Sets a fraction of the pixels of ``(B, C, H, W)`` to black or white, equally likely, in all channels."""
    u = draws.uniform(x[0, 0].numel(), x).view(len(x), 1, *x.shape[2:])
    return torch.where(u < share, (u < share / 2).to(x.dtype), x)


def blur(x: Tensor, sigma: float, draws: Draws | None = None) -> Tensor:
    """Gaussian blur of ``(B, C, H, W)`` with mirrored borders, which preserves the sum over each picture.

    Example:
        >>> x = torch.zeros(1, 1, 9, 9)
        >>> x[..., 0, 4] = 1
        >>> round(float(blur(x, 2.0).sum()), 5)
        1.0
    """
    rows, columns = (_smoothing(n, sigma, x.dtype, x.device) for n in x.shape[2:])
    return rows @ x @ columns.T


def mask(x: Tensor, share: float, draws: Draws) -> tuple[Tensor, Tensor]:
    """Masks a fraction of each example with zeros.

    Args:
        x: ``(B, C, H, W)``, in which one random rectangle of that fraction of the area is masked, to within whole
            pixels; or ``(B, D)``, in which each cell is dropped with that probability, a one-hot category as a whole.
        share: the fraction, 0 to 1.
        draws: the random numbers.

    Returns:
        The masked examples, and the mask ``(B, ...)`` of the same shape, True where ``x`` is visible.

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
    """JPEG compression of ``(B, C, H, W)`` in [0, 1], on the CPU; an alpha channel is unchanged.

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
        change: function of examples, strength and random draws that returns corrupted examples.
        scale: range of its strength. Gaussian noise, salt and pepper, and JPEG have the severities of Hendrycks and
            Dietterich 2019, "Benchmarking Neural Network Robustness to Common Corruptions and Perturbations" (arXiv
            1903.12261).
        rows: whether it also applies to rows.
        real: whether it also applies to values outside [0, 1].
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
    "salt-pepper": Kind(salt_pepper, Scale(0.1, 1.0, "fraction of the pixels", (0.03, 0.06, 0.09, 0.17, 0.27))),
    "blur": Kind(blur, Scale(1.0, 100.0, "standard deviation in pixels", (0.5, 1.0, 1.5, 2.0, 3.0)), real=True),
    "mask": Kind(
        lambda x, share, draws: mask(x, share, draws)[0],
        Scale(0.25, 1.0, "fraction that is masked", (0.1, 0.2, 0.3, 0.4, 0.5)),
        rows=True,
        real=True,
    ),
    "jpeg": Kind(jpeg, Scale(25.0, 100.0, "quality, 1 to 100; 0 for none", (25.0, 18.0, 15.0, 10.0, 7.0))),
}
"""The corruptions, with the ranges of their strengths and the data they apply to."""

SCALES = {name: kind.scale for name, kind in CORRUPTIONS.items()}


@dataclass(frozen=True)
class Corruption:
    """A sequence of corruptions.

    Args:
        strengths: strengths by name, in the order of application.
        unit: whether values lie in [0, 1]; results are clipped to that range.
        widths: widths of a table's columns, see :class:`Draws`.

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
        """Corrupted examples; ``x`` is not modified.

        Args:
            x: ``(B, C, H, W)`` or ``(B, D)`` floats.
            index: ``(B,)`` positions of the examples in their split.
            seed: seed of the run.
            epoch: number of completed epochs.
            stream: random stream; each training stage has its own.

        Returns:
            A tensor of the shape of ``x``.

        Raises:
            ConfigError: a corruption for pictures applied to rows.
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
    """Builds a corruption from names, with the default strengths of :data:`CORRUPTIONS`, given strengths or severities.

    Args:
        given: such as ``"gaussian=0.3,mask"``, ``["blur@2"]`` (severity 2 of 5) or ``{"gaussian": 0.3}``; applied in
            this order.
        spec: specification of the data; pictures in [0, 1] when not given.

    Returns:
        The corruption, or None if there are no names or all strengths are 0.

    Raises:
        ConfigError: an unknown name, an invalid strength, or a corruption that does not apply to such data.

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
            raise ConfigError(f"The corruption '{name}' is for values in [0, 1], not real numbers. {_those('real')}")
    widths = tuple(column.width for column in spec.columns)
    return Corruption(strengths, spec.support != "real", widths if sum(widths) == spec.size else ())


def possible(spec: Spec) -> dict[str, float]:
    """The corruptions that apply to such data, with their default strengths.

    Example:
        >>> possible(Spec((5,)))
        {'gaussian': 0.2, 'mask': 0.25}
    """
    able = {n: k for n, k in CORRUPTIONS.items() if (k.rows or spec.is_image) and (k.real or spec.support != "real")}
    return {name: kind.scale.usual for name, kind in able.items()}


def _those(what: str) -> str:
    names = [name for name, kind in CORRUPTIONS.items() if getattr(kind, what)]
    return f"For such data: {', '.join(names)}."


@lru_cache(maxsize=64)  # the same ones are needed at every training step
def _smoothing(n: int, sigma: float, dtype: torch.dtype, device: torch.device) -> Tensor:
    """``(n, n)`` matrix of a Gaussian filter with mirrored borders; rows and columns sum to 1."""
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
    """``(D,)`` index of the column that each encoded feature belongs to."""
    return torch.arange(len(widths)).repeat_interleave(torch.tensor(widths)).to(device)


def _inside(n: int, start: Tensor, length: Tensor) -> Tensor:
    """``(B, n)`` True for pixels with centres in [start, start + length), given as fractions of the side."""
    centres = (torch.arange(n, device=start.device, dtype=start.dtype) + 0.5) / n
    return (centres >= start) & (centres < start + length)

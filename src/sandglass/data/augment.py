"""Data augmentation on the device; the random draw of an example depends only on (seed, epoch, index)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from sandglass.core import Batch, Spec
from sandglass.data.strengths import Scale, Strengths, read
from sandglass.errors import ConfigError
from sandglass.rng import uniform

AUGMENTATIONS: Mapping[str, Scale] = {
    "flip": Scale(0.5, 1.0, "probability of a mirror image, left for right"),
    "vflip": Scale(0.5, 1.0, "probability of a mirror image, top for bottom"),
    "shift": Scale(0.1, 1.0, "largest shift along each axis, of its side"),
    "rotate": Scale(15.0, 180.0, "largest angle in degrees"),
    "scale": Scale(0.1, 4.0, "largest enlargement or reduction, as a fraction"),
    "crop": Scale(0.8, 1.0, "smallest fraction of the area to crop and resize; 0 for none"),
    "brightness": Scale(0.2, 1.0, "largest change of all values"),
    "contrast": Scale(0.2, 1.0, "largest change of the distance from the mean, as a fraction"),
    "mixup": Scale(0.2, 8.0, "both parameters of the Beta distribution of the mixing weight"),
    "binarise": Scale(1.0, 1.0, "share of pictures whose values are drawn as 0 or 1, with the value as probability"),
}
"""The augmentations with the ranges of their strengths; :class:`Augmentation` documents each."""

# One column of random numbers each, whether used or not, so that enabling one does not change the others. Augmentations
# added later draw from their own stream: another column here would change the draws of existing runs.
_DRAWS = ("flip", "vflip", "shift_x", "shift_y", "rotate", "scale", "brightness", "contrast")
_CROP_RATIO = 4 / 3  # largest aspect ratio of a crop, relative to that of the picture


@dataclass(frozen=True)
class Augmentation:
    """Flips, one affine warp, brightness and contrast changes, mixup, and binarisation.

    All but ``mixup`` depend only on (seed, epoch, index). ``mixup`` takes the second picture from the same batch: the
    batch is put into a random order, and each picture is mixed with the next one.

    Args:
        flip: probability of a mirror image, left for right.
        vflip: probability of a mirror image, top for bottom.
        shift: largest shift along each axis, as a fraction of the side; rounded to whole pixels, with edge padding.
        rotate: largest angle in degrees.
        scale: largest enlargement, as a fraction (0.1: sides from 1 / 1.1 to 1.1 times).
        crop: smallest fraction of the area of a random crop, which is resized to the full size (Szegedy et al. 2015,
            "Going Deeper with Convolutions", arXiv 1409.4842); 0 and 1 for none.
        brightness: largest value added to or subtracted from all pixels, for values in [0, 1].
        contrast: largest change of the distance from the picture's mean, as a fraction.
        mixup: parameter a of the Beta(a, a) distribution of the mixing weight (Zhang et al. 2018, "mixup: Beyond
            Empirical Risk Minimization", arXiv 1710.09412). A picture keeps the larger weight, and so its label.
        binarise: share of pictures whose values become 0 or 1, anew in every epoch, with the value as the probability
            of 1: the dynamic binarisation of Salakhutdinov and Murray 2008, "On the Quantitative Analysis of Deep
            Belief Networks".
        unit: whether values lie in [0, 1]; results are clipped to that range.

    Example:
        >>> change = make_augmentation(["flip", "shift"])
        >>> x = torch.rand(4, 1, 8, 8)
        >>> y = change(x, torch.arange(4), seed=0, epoch=3)
        >>> bool((change(x[2:], torch.tensor([2, 3]), seed=0, epoch=3) == y[2:]).all())
        True
    """

    flip: float = 0.0
    vflip: float = 0.0
    shift: float = 0.0
    rotate: float = 0.0
    scale: float = 0.0
    crop: float = 0.0
    brightness: float = 0.0
    contrast: float = 0.0
    mixup: float = 0.0
    binarise: float = 0.0
    unit: bool = True

    def __post_init__(self) -> None:
        read("augmentation", AUGMENTATIONS, {name: getattr(self, name) for name in AUGMENTATIONS})

    @property
    def moves(self) -> bool:
        """Whether it moves pixels, so that companions must be moved with their picture."""
        return bool(self.flip or self.vflip or self.shift or self.rotate or self.scale or 0 < self.crop < 1)

    def __call__(self, x: Tensor, index: Tensor, seed: int, epoch: int, stream: str = "") -> Tensor:
        """Augmented pictures; ``x`` is not modified.

        Args:
            x: ``(B, C, H, W)`` floats, in [0, 1] where ``unit``.
            index: ``(B,)`` positions of the examples in their split.
            seed: seed of the run.
            epoch: number of completed epochs.
            stream: random stream; each training stage and each unpaired set has its own.

        Returns:
            ``(B, C, H, W)``.

        Raises:
            ConfigError: ``x`` holds rows, not pictures.
        """
        return self.together(Batch(x, index=index), seed, epoch, stream).x

    @torch.no_grad()
    def together(self, batch: Batch, seed: int, epoch: int, stream: str = "") -> Batch:
        """A batch with augmented pictures and companions.

        Companions that are pictures of the same height and width get the same geometric changes and mixup, from the
        same draw; brightness and contrast change only ``x``. Other companions are unchanged. A picture mixed with one
        whose companion is absent has that companion marked absent, too.

        Args:
            batch: ``x`` as for :meth:`__call__`, and ``index``.
            seed: seed of the run.
            epoch: number of completed epochs.
            stream: random stream.

        Raises:
            ConfigError: ``batch.x`` holds rows, not pictures.
        """
        x = batch.x
        if x.dim() != 4:
            raise ConfigError(f"Augmentation needs pictures (B, C, H, W), not examples of shape {tuple(x.shape[1:])}.")
        assert batch.index is not None
        index, key = batch.index.to(x.device), keyed(seed, epoch, stream)
        u = dict(zip(_DRAWS, uniform(index, len(_DRAWS), *key, "augment").to(x.dtype).unbind(1), strict=True))
        v = uniform(index, 4, *key, "augment", "crop").to(x.dtype) if 0 < self.crop < 1 else None
        given = {
            n: self._move(t, u, v).clamp(t.min(), t.max())  # rounding in a warp may leave [0, 1]
            for n, t in batch.given.items()
            if t.dim() == 4 and t.shape[2:] == x.shape[2:]
        }
        x, absent = self._light(self._move(x, u, v), u), dict(batch.absent)
        if self.mixup:
            w = uniform(index, 3, *key, "augment", "mixup").to(x.dtype)
            x, given = mix(x, self.mixup, w), {name: mix(t, self.mixup, w) for name, t in given.items()}
            absent |= {name: absent[name] | absent[name][partners(w)] for name in given if name in absent}
        if self.binarise:
            w = uniform(index, 1 + x[0].numel(), *key, "augment", "binarise").to(x.dtype)
            ink = (w[:, 1:].view_as(x) < x).to(x.dtype)
            x = torch.where((w[:, 0] < self.binarise)[:, None, None, None], ink, x)
        return replace(batch, x=x, given={**batch.given, **given}, absent=absent)

    def _move(self, x: Tensor, u: Mapping[str, Tensor], v: Tensor | None) -> Tensor:
        """Applies flips and the affine warp."""
        if self.flip:
            x = torch.where((u["flip"] < self.flip)[:, None, None, None], x.flip(-1), x)
        if self.vflip:
            x = torch.where((u["vflip"] < self.vflip)[:, None, None, None], x.flip(-2), x)
        if v is not None:
            x = self._warp(x, u, window(self.crop + (1 - self.crop) * v[:, 0], v[:, 1:], _CROP_RATIO))
        elif self.shift or self.rotate or self.scale:
            x = self._warp(x, u)
        return x

    def _light(self, x: Tensor, u: Mapping[str, Tensor]) -> Tensor:
        """Applies contrast and brightness."""
        if self.contrast:
            mean = x.mean((1, 2, 3), keepdim=True)
            x = mean + (x - mean) * (1 + self.contrast * _signed(u["contrast"]))
        if self.brightness:
            x = x + self.brightness * _signed(u["brightness"])
        return x.clamp(0, 1) if self.unit else x

    def _warp(self, x: Tensor, u: Mapping[str, Tensor], cut: tuple[Tensor, ...] | None = None) -> Tensor:
        """Rotates, scales and shifts about the centre, and crops, with one bilinear interpolation and square pixels."""
        from kornia.geometry.transform import get_affine_matrix2d, warp_affine

        h, w = x.shape[-2:]
        angle = (2 * u["rotate"] - 1) * self.rotate
        factor = torch.exp((2 * u["scale"] - 1) * math.log1p(self.scale))
        shift = torch.stack([((2 * u[f"shift_{a}"] - 1) * self.shift * n).round() for a, n in (("x", w), ("y", h))], 1)
        centre = torch.stack([x.new_full((len(x),), (n - 1) / 2) for n in (w, h)], 1)
        matrix = get_affine_matrix2d(shift, centre, factor[:, None].expand(-1, 2), angle)
        if cut is not None:  # the crop is resized after the warp; a pixel's centre lies half a pixel from its edge
            left, top, width, height = cut
            zero, one = torch.zeros_like(left), torch.ones_like(left)
            across = [1 / width, zero, (0.5 - left * w) / width - 0.5]
            down = [zero, 1 / height, (0.5 - top * h) / height - 0.5]
            matrix = torch.stack([*across, *down, zero, zero, one], 1).view(-1, 3, 3) @ matrix
        return warp_affine(x, matrix[:, :2], (h, w), padding_mode="border", align_corners=False)


def window(share: Tensor, u: Tensor, ratio: float) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """A random rectangle for each picture: left, top, width and height ``(B,)``, as fractions of the sides.

    Args:
        share: ``(B,)`` fraction of the area, above 0.
        u: ``(B, 3)`` uniform numbers in [0, 1), for aspect ratio and position.
        ratio: largest aspect ratio relative to that of the picture; reduced where the rectangle would not fit.

    Example:
        >>> left, top, width, height = window(torch.tensor([0.5]), torch.tensor([[0.9, 0.0, 1.0]]), 2.0)
        >>> round(float(width * height), 6), float(left), bool(top + height == 1)
        (0.5, 0.0, True)
    """
    form = torch.exp((2 * u[:, 0] - 1) * torch.minimum(-share.log(), torch.full_like(share, math.log(ratio))))
    width, height = (share * form).sqrt().clamp(max=1), (share / form).sqrt().clamp(max=1)
    return u[:, 1] * (1 - width), u[:, 2] * (1 - height), width, height


def mix(x: Tensor, strength: float, u: Tensor) -> Tensor:
    """Mixup: each picture blended with another one of the batch, whose weight is below one half.

    The larger of a Beta(a, a) draw and its complement is drawn in closed form, by the t-distribution with 2a degrees of
    freedom (Bailey 1994, "Polar Generation of Random Variates with the t-Distribution").

    Args:
        x: ``(B, ...)``; a batch of one is returned unchanged.
        strength: a.
        u: ``(B, 3)`` uniform numbers in [0, 1): one for the order of the batch, two for the weight.

    Example:
        >>> x = torch.tensor([[0.0], [1.0]])
        >>> y = mix(x, 1.0, torch.tensor([[0.1, 0.3, 0.7], [0.2, 0.6, 0.4]]))
        >>> bool(y[0] < 0.5 < y[1])
        True
    """
    w = (u[:, 1].clamp(min=2.0**-25) ** (-1 / strength) - 1) * torch.cos(2 * math.pi * u[:, 2]).square()
    kept = 0.5 + 0.5 * (1 + 1 / w).rsqrt()
    return torch.lerp(x[partners(u)], x, kept.view(-1, *[1] * (x.dim() - 1)))


def partners(u: Tensor) -> Tensor:
    """``(B,)`` index of the picture that each one is mixed with; ``u`` as for :func:`mix`."""
    order = u[:, 0].argsort(stable=True)
    return torch.empty_like(order).scatter_(0, order, order.roll(-1))


def keyed(seed: int, epoch: int, stream: str) -> tuple[int | str, ...]:
    """The random key of a stream, without the example's index.

    Example:
        >>> keyed(0, 3, ""), keyed(0, 3, "prior")
        ((0, 3), (0, 'prior', 3))
    """
    return (seed, stream, epoch) if stream else (seed, epoch)


def make_augmentation(given: Strengths, spec: Spec | None = None) -> Augmentation | None:
    """Builds an augmentation from names, with the default strengths of :data:`AUGMENTATIONS` or given ones.

    Args:
        given: such as ``"flip,rotate=5"``, ``["flip", "rotate=5"]`` or ``{"flip": 0.5, "rotate": 5}``.
        spec: specification of the data; pictures in [0, 1] when not given.

    Returns:
        The augmentation, or None if there are no names or all strengths are 0.

    Raises:
        ConfigError: an unknown name, an invalid strength, or data that is not pictures.

    Example:
        >>> make_augmentation("flip,rotate=5").rotate
        5.0
        >>> make_augmentation([]) is None
        True
    """
    strengths = read("augmentation", AUGMENTATIONS, given)
    if not any(strengths.values()):
        return None
    if spec is not None and not spec.is_image:
        raise ConfigError("Augmentation needs pictures, and this data is rows; leave out --augment.")
    unit = spec is None or spec.support != "real"
    if strengths.get("binarise") and not unit:
        raise ConfigError("The augmentation binarise needs values in [0, 1], and these are any real numbers.")
    return Augmentation(**strengths, unit=unit)


def _signed(u: Tensor) -> Tensor:
    return (2 * u - 1)[:, None, None, None]

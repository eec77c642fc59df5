"""Random changes of training pictures on their device; an example's draw hangs on (seed, epoch, index) alone."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from sandglass.errors import ConfigError
from sandglass.rng import uniform

DEFAULTS = {
    "flip": 0.5, "vflip": 0.5, "shift": 0.1, "rotate": 15.0, "scale": 0.1, "brightness": 0.2, "contrast": 0.2,
}  # fmt: skip
"""What can be done, and how strongly where nothing is said; :class:`Augmentation` has the units."""

_LARGEST = {"flip": 1.0, "vflip": 1.0, "shift": 1.0, "rotate": 180.0, "scale": 4.0, "brightness": 1.0, "contrast": 1.0}
# One column of the draws each, whichever are in use, so that switching one on does not change the others.
_DRAWS = ("flip", "vflip", "shift_x", "shift_y", "rotate", "scale", "brightness", "contrast")


@dataclass(frozen=True)
class Augmentation:
    """Flips, one affine warp, and changes of light.

    Args:
        flip: probability of a mirror image, left for right.
        vflip: probability of a mirror image, top for bottom.
        shift: largest shift along each axis, as a fraction of the side; whole pixels, the edge is repeated.
        rotate: largest angle, degrees.
        scale: largest enlargement, as a fraction (0.1: sides from 1 / 1.1 to 1.1 times).
        brightness: largest value added to or taken from all pixels, of 1.
        contrast: largest change of the distance from the picture's mean, as a fraction.

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
    brightness: float = 0.0
    contrast: float = 0.0

    def __post_init__(self) -> None:
        for name, largest in _LARGEST.items():
            strength = getattr(self, name)
            if isinstance(strength, bool) or not isinstance(strength, int | float) or not 0 <= strength <= largest:
                raise ConfigError(f"augmentation '{name}' must lie in 0 to {largest:g}, not {strength!r}.")

    @torch.no_grad()
    def __call__(self, x: Tensor, index: Tensor, seed: int, epoch: int) -> Tensor:
        """Changed pictures; ``x`` itself is left as it is.

        Args:
            x: ``(B, C, H, W)`` floats in [0, 1].
            index: ``(B,)`` the examples' positions in their split.
            seed: of the run.
            epoch: whole epochs done.

        Returns:
            ``(B, C, H, W)`` in [0, 1].

        Raises:
            ConfigError: rows.
        """
        if x.dim() != 4:
            raise ConfigError(
                f"Augmentation changes pictures (B, C, H, W), not examples of shape {tuple(x.shape[1:])}."
            )
        draws = uniform(index.to(x.device), len(_DRAWS), seed, epoch, "augment").to(x.dtype)
        u = dict(zip(_DRAWS, draws.unbind(1), strict=True))
        if self.flip:
            x = torch.where((u["flip"] < self.flip)[:, None, None, None], x.flip(-1), x)
        if self.vflip:
            x = torch.where((u["vflip"] < self.vflip)[:, None, None, None], x.flip(-2), x)
        if self.shift or self.rotate or self.scale:
            x = self._warp(x, u)
        if self.contrast:
            mean = x.mean((1, 2, 3), keepdim=True)
            x = mean + (x - mean) * (1 + self.contrast * _signed(u["contrast"]))
        if self.brightness:
            x = x + self.brightness * _signed(u["brightness"])
        return x.clamp(0, 1)

    def _warp(self, x: Tensor, u: Mapping[str, Tensor]) -> Tensor:
        """Turns, scales and shifts about the centre in one bilinear pass, in pixels that are square."""
        h, w = x.shape[-2:]
        angle = (2 * u["rotate"] - 1) * math.radians(self.rotate)
        factor = torch.exp((2 * u["scale"] - 1) * math.log1p(self.scale))
        dx = ((2 * u["shift_x"] - 1) * self.shift * w).round() * (2 / w)
        dy = ((2 * u["shift_y"] - 1) * self.shift * h).round() * (2 / h)
        # The matrix leads from a place in the output to its place in the input, so it holds the inverses; affine_grid
        # measures both axes from -1 to 1, hence the ratio of the sides off the diagonal.
        cos, sin = torch.cos(angle) / factor, torch.sin(angle) / factor
        a, b, c, d = cos, sin * (h / w), -sin * (w / h), cos
        theta = torch.stack([a, b, -(a * dx + b * dy), c, d, -(c * dx + d * dy)], dim=1).view(-1, 2, 3)
        grid = F.affine_grid(theta, list(x.shape), align_corners=False)
        return F.grid_sample(x, grid, mode="bilinear", padding_mode="border", align_corners=False)


def make_augmentation(names: Sequence[str] | Mapping[str, float]) -> Augmentation | None:
    """An augmentation from names, with the strengths of :data:`DEFAULTS`, or from names and strengths.

    Args:
        names: such as ``["flip", "shift"]`` or ``{"rotate": 5}``; a text is names with commas between.

    Returns:
        None where nothing is to be changed: no names, or no strength above 0.

    Raises:
        ConfigError: an unknown name, or a strength that makes no sense.

    Example:
        >>> make_augmentation({"rotate": 5.0}).rotate
        5.0
        >>> make_augmentation([]) is None
        True
    """
    if isinstance(names, str):
        names = [part.strip() for part in names.split(",") if part.strip()]
    strengths = dict(names) if isinstance(names, Mapping) else {name: DEFAULTS.get(name, 0.0) for name in names}
    for name in strengths:
        if name not in DEFAULTS:
            raise ConfigError(f"There is no augmentation '{name}'. Known: {', '.join(DEFAULTS)}.")
    augmentation = Augmentation(**strengths)
    return augmentation if any(strengths.values()) else None


def _signed(u: Tensor) -> Tensor:
    return (2 * u - 1)[:, None, None, None]

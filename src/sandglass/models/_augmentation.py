"""Augmentation of what a critic sees: of real and generated pictures alike, so that it leaves no trace in samples."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sandglass.core import Spec
from sandglass.errors import ConfigError

_STEP = 1 / 500_000  # of the probability an example: from 0 to 1 in no less than half a million, as in the paper
_LARGEST = 0.8  # with every change at 1, upside down would be as good as upright, and leak into samples


class Augmentation(nn.Module):
    """Adaptive discriminator augmentation of pictures, at any height, width and channel count.

    Karras et al. 2020, "Training Generative Adversarial Networks with Limited Data" (arXiv 2006.06676). Each of these
    is applied to each picture with probability ``p``, with the strengths of the paper: mirroring and quarter turns,
    shifts, scaling, rotation, stretching; brightness, contrast, inversion of lightness, and for colours hue and
    saturation. What moves is one bilinear warp with mirrored borders. All are differentiable.

    ``p`` follows how well the critic separates training examples from samples: with ``t = mean(sign(D(x) - m))``, m the
    middle of the mean scores of both (scores of a relativistic critic have no zero of their own), it rises while t is
    above the target and falls while it is below, so that on data that the critic cannot learn by heart it stays low. It
    is a buffer, changed on the device after an update.

    Args:
        spec: the data.
        target: of t; the paper's is 0.6.

    Attributes:
        p: ``()``, the probability, from 0 to 0.8.

    Example:
        >>> augment = Augmentation(Spec((3, 8, 12), "unit"), 0.6)
        >>> x = torch.rand(4, 3, 8, 12)
        >>> bool((augment(x) == x).all())
        True
        >>> statistics = augment.statistics(torch.ones(100), torch.zeros(100))
        >>> augment.follow({name: value[None] for name, value in statistics.items()})
        >>> float(augment.p)
        0.00019999999494757503
    """

    p: Tensor

    def __init__(self, spec: Spec, target: float) -> None:
        super().__init__()
        if not 0 < target < 1:
            raise ConfigError(f"The target of an augmentation must be between 0 and 1, not {target}.")
        self.target = target
        self.unit = 0.5 if spec.support != "real" else 1.0  # half the range; values in [0, 1] are half as far apart
        self.middle = 0.5 if spec.support != "real" else 0.0
        self.register_buffer("p", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        """``(B, C, H, W)``, changed in train mode; exactly ``x`` where nothing is applied."""
        if not self.training:
            return x
        with torch.autocast(x.device.type, enabled=False):
            return self.colour(self.move(x))

    def statistics(self, real: Tensor, fake: Tensor) -> dict[str, Tensor]:
        """How far scores ``(B,)`` of training examples and samples are separated, as a sum, and B; for ``follow``."""
        real, fake = real.detach(), fake.detach()
        separated = (real - (real.mean() + fake.mean()) / 2).sign().sum()
        return {"separated": separated, "examples": torch.full_like(separated, len(real))}

    @torch.no_grad()
    def follow(self, statistics: Mapping[str, Tensor]) -> None:
        """Moves p by the statistics ``(S,)`` of all shards of a batch."""
        examples = statistics["examples"].sum()
        step = (statistics["separated"].sum() / examples - self.target).sign() * examples * _STEP
        self.p.copy_((self.p + step.to(self.p.dtype)).clamp(0, _LARGEST))

    def move(self, x: Tensor) -> Tensor:
        """The geometric changes: the transform of each picture as one matrix, and one warp."""
        size = x.shape[2:]
        matrix, moved = self.geometry(x)
        grid = F.affine_grid(normalised(matrix, size).to(x.dtype), list(x.shape), align_corners=False)
        warped = F.grid_sample(x, grid, padding_mode="reflection", align_corners=False)
        return torch.where(moved.view(-1, 1, 1, 1), warped, x)

    def geometry(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Matrices ``(B, 3, 3)`` from a place in the result to one in ``x``, in pixels from the centre, and ``(B,)``
        whether there is a change.
        """
        n, (height, width) = len(x), x.shape[2:]
        draw = _Draws(x, self.p)
        one = x.new_ones(n)
        mirrored, mirror = draw.chosen(1 - 2 * draw.below(2), one)
        turned, quarter = draw.chosen(draw.below(4), 0 * one)
        if height != width:  # a quarter turn would leave the frame; a half turn does not
            quarter = 2 * (quarter / 2).round()
        shifted, across = draw.chosen((draw.between(0.125) * width).round(), 0 * one)
        down = (draw.between(0.125) * height).round() * shifted
        scaled, scale = draw.chosen((draw.normal() * 0.2).exp2(), one)
        rotated, angle = draw.chosen(draw.between(math.pi), 0 * one)
        stretched, stretch = draw.chosen((draw.normal() * 0.2).exp2(), one)
        slid, right = draw.chosen(draw.normal() * 0.125 * width, 0 * one)
        below = draw.normal() * 0.125 * height * slid
        turn = rotation(quarter * (math.pi / 2) + angle)
        size = diagonal(mirror * scale * stretch, scale / stretch)
        matrix = size @ turn @ translation(across + right, down + below)
        moved = (mirrored & (mirror < 0)) | (turned & (quarter > 0)) | shifted | scaled | rotated | stretched | slid
        return matrix, moved

    def colour(self, x: Tensor) -> Tensor:
        """The changes of brightness, contrast, lightness, saturation and hue."""
        draw, channels, one = _Draws(x, self.p), x.shape[1], x.new_ones(len(x))
        lit, brightness = draw.chosen(draw.normal() * 0.2 * self.unit, 0 * one)
        contrasted, contrast = draw.chosen((draw.normal() * 0.5).exp2(), one)
        flipped, flip = draw.chosen(1 - 2 * draw.below(2), one)
        changed = lit | contrasted | (flipped & (flip < 0))
        mean = x.mean(1, keepdim=True)
        grey, rest = mean - self.middle, x - mean
        if channels > 1:
            coloured, saturation = draw.chosen(draw.normal().exp2(), one)
            rest, changed = rest * (contrast * saturation).view(-1, 1, 1, 1), changed | coloured
        if channels == 3:
            hued, hue = draw.chosen(draw.between(math.pi), 0 * one)
            rest, changed = torch.einsum("bij,bjhw->bihw", about_grey(hue), rest), changed | hued
        grey = grey * (contrast * flip).view(-1, 1, 1, 1) + brightness.view(-1, 1, 1, 1)
        return torch.where(changed.view(-1, 1, 1, 1), grey + rest + self.middle, x)


class _Draws:
    """Random numbers ``(B,)``, of the type and on the device of ``x``, and choices with probability ``p``."""

    def __init__(self, x: Tensor, p: Tensor) -> None:
        self.x, self.n, self.p = x, len(x), p

    def uniform(self) -> Tensor:
        return torch.rand(self.n, device=self.x.device, dtype=self.x.dtype)

    def normal(self) -> Tensor:
        return torch.randn(self.n, device=self.x.device, dtype=self.x.dtype)

    def between(self, limit: float) -> Tensor:
        """In [-limit, limit)."""
        return (2 * self.uniform() - 1) * limit

    def below(self, n: int) -> Tensor:
        """Whole numbers below ``n``."""
        return (self.uniform() * n).floor()

    def chosen(self, value: Tensor, otherwise: Tensor) -> tuple[Tensor, Tensor]:
        """Where a change is applied, and the value there, elsewhere another."""
        chosen = self.uniform() < self.p
        return chosen, torch.where(chosen, value, otherwise)


def rotation(angle: Tensor) -> Tensor:
    """``(B, 3, 3)`` from angles ``(B,)``."""
    c, s, zero = angle.cos(), angle.sin(), torch.zeros_like(angle)
    return _matrix([c, -s, zero, s, c, zero, zero, zero, zero + 1])


def diagonal(across: Tensor, down: Tensor) -> Tensor:
    """``(B, 3, 3)`` scalings."""
    zero = torch.zeros_like(across)
    return _matrix([across, zero, zero, zero, down, zero, zero, zero, zero + 1])


def translation(across: Tensor, down: Tensor) -> Tensor:
    """``(B, 3, 3)`` shifts."""
    zero = torch.zeros_like(across)
    return _matrix([zero + 1, zero, across, zero, zero + 1, down, zero, zero, zero + 1])


def normalised(matrix: Tensor, size: torch.Size | tuple[int, int]) -> Tensor:
    """``(B, 2, 3)`` for coordinates in [-1, 1] from matrices ``(B, 3, 3)`` for pixels from the centre."""
    half = torch.cat([matrix.new_full((1,), n) for n in (size[1] / 2, size[0] / 2, 1.0)])
    return (matrix * half / half[:, None])[:, :2]


def about_grey(angle: Tensor) -> Tensor:
    """``(B, 3, 3)`` rotations about the axis of grey, by the formula of Rodrigues.

    Example:
        >>> turned = about_grey(torch.tensor([2 * math.pi / 3]))[0] @ torch.eye(3)[0]
        >>> bool(torch.allclose(turned, torch.eye(3)[1], atol=1e-6))
        True
    """
    c, s = angle.cos()[:, None, None], angle.sin()[:, None, None]
    third, root = 1 / 3, math.sqrt(1 / 3)
    unit = torch.eye(3, dtype=angle.dtype, device=angle.device)
    cross = root * (unit.roll(-1, 1) - unit.roll(1, 1))
    return c * unit + s * cross + (1 - c) * third


def _matrix(entries: list[Tensor]) -> Tensor:
    return torch.stack(entries, 1).unflatten(1, (3, 3))

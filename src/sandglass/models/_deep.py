"""The two passes of a very deep VAE: maps of an example on the way up, and blocks of latents on the way down."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.distributions import Distribution

from sandglass.core import Spec
from sandglass.distributions.chain import Chain, Parts
from sandglass.distributions.conditional import ObservationModel, at_least_single
from sandglass.distributions.likelihood import Likelihood
from sandglass.distributions.location_scale import scale_from
from sandglass.models._ladder import normal
from sandglass.nets.bottleneck import Bottleneck, Guide, Pyramid, enlarged, sizes_of
from sandglass.nets.conv import Size, Trim
from sandglass.nets.convolution import Conv2d
from sandglass.nets.frame import normal as scattered
from sandglass.nets.frame import resize
from sandglass.nets.net import Condition

_LARGEST = 16  # pixels of the longer side of the largest map, unless the option patch says otherwise
_LEAST = 16  # channels within a bottleneck, where the maps have as many


class Plan:
    """The sizes of a very deep VAE.

    Args:
        shape: of an example.
        blocks: of latents at every size.
        z_channels: channels of the latents of a block.
        width: channels of the maps.
        patch: side of the squares of pixels that are the channels of the largest map; None for the default.

    Attributes:
        sizes: of the maps, the largest first.
        at: the size of every block, from the top down.
        shapes: ``(h, w, z_channels)`` of the latents of every block.

    Example:
        >>> Plan((1, 28, 28), 2, 4, 64).shapes[::2]
        [(1, 1, 4), (4, 4, 4), (7, 7, 4), (14, 14, 4)]
    """

    def __init__(
        self, shape: tuple[int, ...], blocks: int, z_channels: int, width: int, patch: int | None = None
    ) -> None:
        self.patch = patch or self.usual(shape)
        self.blocks, self.z, self.width, self.middle = blocks, z_channels, width, max(width // 4, min(width, _LEAST))
        self.sizes = sizes_of(shape, self.patch)
        self.at = [size for size in reversed(self.sizes) for _ in range(blocks)]
        self.shapes = [(*size, z_channels) for size in self.at]
        self.parts = [math.prod(each) for each in self.shapes]
        self.names = [f"z{h}x{w}_{i % blocks + 1}" for i, (h, w) in enumerate(self.at)]

    @staticmethod
    def usual(shape: tuple[int, ...]) -> int:
        """The first power of 2 with which the longer side of the largest map is at most 16; 1 for rows."""
        return 2 ** max(0, math.ceil(math.log2(max(shape[1:]) / _LARGEST))) if len(shape) == 3 else 1


class Taking(nn.Module):
    """What the latents of a block do to the features on the way down.

    Args:
        plan: the sizes.
        size: of the map.
    """

    def __init__(self, plan: Plan, size: Size) -> None:
        super().__init__()
        gain = 1 / math.sqrt(len(plan.at))
        self.project = Conv2d(plan.z, plan.width, 1)
        self.residual = Bottleneck(plan.width, plan.width, plan.middle, size, gain)
        if not self.project.weight.is_meta:
            with torch.no_grad():
                self.project.weight.mul_(gain * math.sqrt(3))
                nn.init.zeros_(self.project.bias)  # type: ignore[arg-type]

    def forward(self, h: Tensor, z: Tensor) -> Tensor:
        """``(n, width, h, w)`` from features of that shape, and latents ``(n, z_channels, h, w)``."""
        h = h + self.project(z)
        return h + self.residual(h)


class TopDown(ObservationModel):
    """``p(x|code, c)``: from one pixel down through blocks of latents to x.

    The code is the noise of every block: ``z_i = mean_i(z_<i) + scale_i(z_<i) * code_i``, so that its prior is the
    standard normal whatever the blocks above are.

    Args:
        plan: the sizes.
        spec: the data.
        likelihood: the head.
        cond: what all of it is conditioned on.
    """

    def __init__(self, plan: Plan, spec: Spec, likelihood: Likelihood, cond: Condition = 0) -> None:
        super().__init__()
        self.plan, self.likelihood = plan, likelihood
        self.priors, self.takings = nn.ModuleList(), nn.ModuleList()
        for size in plan.at:
            self.priors.append(Bottleneck(plan.width, 2 * plan.z + plan.width, plan.middle, size, 0.0))
            self.takings.append(Taking(plan, size))
        top, *others = reversed(plan.sizes)  # at 0 the top would have no gradient in its first layers
        self.begin = nn.ParameterList([scattered(1, plan.width, *top)])
        self.begin.extend(torch.zeros(1, plan.width, *size) for size in others)
        self.guide = Guide(cond, spec.shape, plan.sizes, plan.patch, plan.width, plan.middle) if cond else None
        shape = torch.Size((likelihood.channels(spec), *spec.shape[1:]))
        self.shape, self.size, self.kind = shape, shape.numel(), likelihood.kind(spec)
        if len(spec.shape) == 3:
            last = Conv2d(plan.width, shape[0] * plan.patch**2, 3, padding=1)
            self.last = nn.Sequential(last, nn.PixelShuffle(plan.patch), Trim(*spec.shape[1:]))
        else:
            self.last = nn.Sequential(nn.Flatten(), nn.Linear(plan.width, self.size), nn.Unflatten(1, shape))

    def forward(self, h: Tensor | None = None, c: Tensor | None = None, mask: Tensor | None = None) -> Distribution:
        """p(x|code, c) given codes ``(B, D)``."""
        assert h is not None
        way = Descent(self, h.shape[0], c)
        for part in self.maps(h):
            way.open()
            way.close(part)
        return way.observe()

    def to_levels(self, code: Tensor, c: Tensor | None = None) -> list[Tensor]:
        """The latents ``(B, h, w, z_channels)`` of every block, from the top down, of codes ``(B, D)``."""
        way, z = Descent(self, code.shape[0], c), []
        for part in self.maps(code):
            way.open()
            z.append(way.close(part).permute(0, 2, 3, 1))
        return z

    def to_code(self, z: list[Tensor], c: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Codes ``(B, D)`` of latents, and ``(B,)`` the sum of the logarithms of the scales divided by."""
        way, parts, logs = Descent(self, z[0].shape[0], c), [], []
        for each in z:
            loc, scale = way.open()
            part = (each.permute(0, 3, 1, 2) - loc) / scale
            way.close(part)
            parts.append(flat(part))
            logs.append(scale.log().flatten(1).sum(1))
        return torch.cat(parts, 1), torch.stack(logs).sum(0)

    def maps(self, code: Tensor) -> list[Tensor]:
        """The parts ``(B, z_channels, h, w)`` of codes ``(B, D)``."""
        return [as_map(p, s) for p, s in zip(code.split(self.plan.parts, 1), self.plan.shapes, strict=True)]


class Descent:
    """One way down. Each block is opened, which gives its prior, and closed with its part of the code.

    Args:
        model: with the blocks.
        n: examples.
        c: the condition ``(n, ...)``.
    """

    def __init__(self, model: TopDown, n: int, c: Tensor | None) -> None:
        self.model, self.at = model, 0
        self.guide = model.guide(c)[::-1] if model.guide is not None else None
        self.h = model.begin[0].expand(n, -1, -1, -1)
        self.prior = (self.h, self.h)

    def open(self) -> tuple[Tensor, Tensor]:
        """Mean and scale of the prior of the next block, ``(n, z_channels, h, w)``."""
        level, place = divmod(self.at, self.model.plan.blocks)
        if not place:
            if level:
                self.h = enlarged(self.h, self.model.plan.at[self.at]) + self.model.begin[level]
            if self.guide is not None:
                self.h = self.h + self.guide[level]
        z = self.model.plan.z
        loc, log_scale, change = at_least_single(self.model.priors[self.at](self.h)).tensor_split((z, 2 * z), 1)
        self.h, self.prior = self.h + change, (loc, scale_from(log_scale))
        return self.prior

    def close(self, code: Tensor) -> Tensor:
        """The latents of the block opened last, at its part ``(n, z_channels, h, w)`` of the code.

        Of k draws for each example, ``(k n, ...)``, all that follows is for as many.
        """
        if code.shape[0] != self.h.shape[0]:
            times = code.shape[0] // self.h.shape[0]
            self.h = repeated(self.h, times)
            self.prior = repeated(self.prior[0], times), repeated(self.prior[1], times)
            self.guide = None if self.guide is None else [repeated(each, times) for each in self.guide]
        loc, scale = self.prior
        z = loc + scale * code
        self.h = self.model.takings[self.at](self.h, z)
        self.at += 1
        return z

    def observe(self) -> Distribution:
        """p(x|z, c), after the last block."""
        return self.model.likelihood(at_least_single(self.model.last(self.h)))


class Inference(nn.Module):
    """``q(code|x, c)``: maps of x at every size, and with the features on the way down a Gaussian for each block.

    The prior of a block is moved by so many of its scales, and its scale multiplied, as in Vahdat and Kautz 2020,
    "NVAE: A Deep Hierarchical Variational Autoencoder" (arXiv 2007.03898): in the coordinates of the code that is
    ``N(location, scale^2)`` against the standard normal, and no difference of large numbers is taken, which bf16 would
    lose.

    Args:
        plan: the sizes.
        shape: of what it sees.
        onto: of an example, to whose size a picture is resized.
        cond: what it is conditioned on.
    """

    def __init__(self, plan: Plan, shape: tuple[int, ...], onto: tuple[int, ...], cond: Condition = 0) -> None:
        super().__init__()
        self.plan, self.size = plan, (onto[1], onto[2]) if len(shape) == len(onto) == 3 else None
        shape = shape if self.size is None else (shape[0], *self.size)
        self.up = Pyramid(shape, plan.sizes, plan.patch, plan.width, plan.middle, plan.blocks, cond)
        self.heads = nn.ModuleList(Bottleneck(2 * plan.width, 2 * plan.z, plan.middle, size, 0.1) for size in plan.at)

    def forward(self, x: Tensor, c: Tensor | None, model: TopDown) -> tuple[Chain, Walk]:
        """The chain over the blocks from the top down, and its step, which has the features after a draw."""
        x = x if self.size is None else resize(x, self.size)
        walk = Walk(self, model, self.up(x, c)[::-1], c)
        return Chain(self.plan.parts, range(len(self.plan.at)), walk, torch.Size([x.shape[0]])), walk


class Walk:
    """The step of a chain that goes down once for all blocks, not once for each: it keeps the features reached.

    A chain visits its parts in order; the first visit begins anew.

    Args:
        q: the heads.
        model: with the blocks.
        maps: of the examples, the smallest first.
        c: the condition.
    """

    def __init__(self, q: Inference, model: TopDown, maps: list[Tensor], c: Tensor | None) -> None:
        self.q, self.model, self.maps, self.c = q, model, maps, c
        self.way: Descent | None = None

    def __call__(self, i: int, parts: Parts) -> Distribution:
        """q of a block over ``(*, B, size)`` given those above."""
        n = self.maps[0].shape[0]
        if not i:
            self.way = Descent(self.model, n, self.c)
        else:
            self._close(i - 1, parts)
        assert self.way is not None
        self.way.open()
        h, seen = self.way.h, self.maps[i // self.model.plan.blocks]
        found = at_least_single(self.q.heads[i](torch.cat([h, repeated(seen, h.shape[0] // n).to(h.dtype)], 1)))
        location, log_scale = found.chunk(2, 1)
        lead = torch.Size([n]) if not i else torch.broadcast_shapes(parts[i - 1].shape[:-1], (n,))
        return normal(flat(location).unflatten(0, lead), flat(scale_from(log_scale)).unflatten(0, lead))

    def observe(self, parts: Parts) -> Distribution:
        """p(x|z, c) of the parts of the last visit."""
        self._close(len(self.model.plan.at) - 1, parts)
        assert self.way is not None
        return self.way.observe()

    def _close(self, i: int, parts: Parts) -> None:
        assert self.way is not None
        lead = torch.broadcast_shapes(parts[i].shape[:-1], (self.maps[0].shape[0],))
        self.way.close(as_map(parts[i].expand(*lead, -1).flatten(0, -2), self.model.plan.shapes[i]))


def as_map(part: Tensor, shape: tuple[int, ...]) -> Tensor:
    """``(B, h w z) -> (B, z, h, w)``, for the shape ``(h, w, z)``."""
    return part.unflatten(1, shape).permute(0, 3, 1, 2)


def flat(part: Tensor) -> Tensor:
    """``(B, z, h, w) -> (B, h w z)``."""
    return part.permute(0, 2, 3, 1).flatten(1)


def repeated(h: Tensor, times: int) -> Tensor:
    """``(times * B, ...)``: the batch repeated."""
    return h if times == 1 else h.repeat(times, *[1] * (h.dim() - 1))

"""Residual convolutional networks at any height, width and channel count."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from sandglass.errors import ConfigError
from sandglass.nets._activation import activation as make_activation
from sandglass.nets._bf16 import doubled, pooled
from sandglass.nets._residual import Blocks, Cut, Flattened, Style, normalise, preserve
from sandglass.nets.conv import Size, Trim, halved
from sandglass.nets.frame import (
    Channels,
    Cond,
    FromCode,
    Headed,
    cond_shape,
    image_shape,
    needed,
    resize,
    vector_width,
)
from sandglass.registry import register

_SMALLEST = 4  # pixels of the shorter side of the smallest map
_LARGEST = 64  # pixels of the shorter side of the largest map, unless the option patch says otherwise


@register("resnet", kind="net")
class ResNet:
    """Residual blocks between average pooling and nearest-neighbour upsampling, at any height, width and channel count.

    The blocks are pre-activated as in He et al. 2016, "Identity Mappings in Deep Residual Networks" (arXiv 1603.05027);
    a vector condition scales and shifts the features of every block (Perez et al. 2018, "FiLM: Visual Reasoning with a
    General Conditioning Layer", arXiv 1709.07871). No kernel overlaps its neighbours unevenly, which is what puts a
    checkerboard into the output of transposed convolutions: Odena, Dumoulin and Olah 2016, "Deconvolution and
    Checkerboard Artifacts" (Distill).

    Height and width are halved, rounding up, until the shorter side is at most 4; the decoder doubles them and crops
    the excess. An image condition is resized: further input channels of an encoder; for a decoder it is encoded by an
    analysis of its own, whose maps are concatenated with the decoder's at every size.

    ``analysis`` and ``synthesis`` over all maps are the U-Net of Ho, Jain and Abbeel 2020, "Denoising Diffusion
    Probabilistic Models" (arXiv 2006.11239), with the skip connections concatenated once for each size.

    Args:
        width: channels at the largest map, doubled at every halving.
        max_width: maximum number of channels.
        blocks: residual blocks for each size.
        stages: number of halvings; by default until the shorter side is at most 4.
        patch: side of the squares of pixels that are the channels of the largest map: 1, 2, 4, ...; by default the
            first with which the shorter side of the map is at most 64.
        norm: ``group`` or ``none`` in every block.
        attention: self-attention in the blocks of maps whose shorter side is at most this; 0 for none.
        dropout: dropout probability in every block.
        activation: relu, leaky-relu, silu, gelu, elu, tanh or softplus.

    Example:
        >>> net = ResNet(width=8)
        >>> net.encoder((3, 37, 53), 6)(torch.zeros(2, 3, 37, 53)).shape
        torch.Size([2, 6])
        >>> net.decoder(6, (3, 37, 53))(torch.zeros(2, 6)).shape
        torch.Size([2, 3, 37, 53])
        >>> down = net.analysis((3, 37, 53), cond=5)
        >>> up, c = net.synthesis(down.shapes, (1, 37, 53), cond=5), torch.zeros(2, 5)
        >>> down.shapes[0], up(down(torch.zeros(2, 3, 37, 53), c), c).shape
        ((8, 37, 53), torch.Size([2, 1, 37, 53]))
    """

    def __init__(
        self,
        *,
        width: int = 32,
        max_width: int = 256,
        blocks: int = 1,
        stages: int | None = None,
        patch: int | None = None,
        norm: Literal["group", "none"] = "group",
        attention: int = 0,
        dropout: float = 0.0,
        activation: str = "silu",
    ) -> None:
        if width < 1 or max_width < width or blocks < 1:
            raise ConfigError(
                f"A resnet needs 1 <= width <= max_width and blocks >= 1, not {width}, {max_width}, {blocks}."
            )
        if stages is not None and not 1 <= stages <= 30:
            raise ConfigError(f"A resnet needs 1 to 30 stages, not {stages}.")
        if patch is not None and (patch < 1 or patch & (patch - 1)):
            raise ConfigError(f"The option patch must be 1, 2, 4 or another power of two, not {patch}.")
        if norm not in ("group", "none"):
            raise ConfigError(f"The option norm must be group or none, not '{norm}'.")
        if not 0 <= dropout < 1:
            raise ConfigError(f"The dropout must be in [0, 1), not {dropout}.")
        make_activation(activation)
        self.width, self.max_width, self.stages, self.patch = width, max_width, stages, patch
        self.style = Style(blocks, norm, attention, dropout, activation)

    def encoder(self, shape: tuple[int, ...], out: int, *, cond: Cond = 0, masked: bool = False) -> Headed:
        """``(B, C, H, W) -> (B, out)``, with a condition and, if ``masked``, a mask.

        Raises:
            ConfigError: the examples are not images, or the condition is neither a vector nor an image.
        """
        down = self._analysis(image_shape(shape, "resnet"), cond, masked)
        head = nn.Linear(math.prod(down.shapes[-1]), out)
        preserve(self.style, head)
        return Headed(Flattened(down, down.shapes[-1][0], self.style), head)

    def decoder(self, dim: int, shape: tuple[int, ...], *, cond: Cond = 0) -> FromCode:
        """``(B, dim) -> (B, C, H, W)``, with a condition.

        Raises:
            ConfigError: the examples are not images, or the condition is neither a vector nor an image.
        """
        plan = Plan.of(image_shape(shape, "resnet"), self)
        small = (plan.channels[-1], *plan.sizes[-1])
        stem = nn.Sequential(nn.Linear(dim, math.prod(small)), nn.Unflatten(-1, small))
        preserve(self.style, stem[0])  # type: ignore[arg-type]
        return FromCode(stem, self.synthesis([small], shape, cond=cond))

    def analysis(self, shape: tuple[int, ...], *, cond: Cond = 0) -> ResAnalysis:
        """``(B, C, H, W)`` and a condition to a list of feature maps, one for each size, the largest first.

        Raises:
            ConfigError: the examples are not images, or the condition is neither a vector nor an image.
        """
        return self._analysis(image_shape(shape, "resnet"), cond)

    def synthesis(self, shapes: Sequence[tuple[int, ...]], shape: tuple[int, ...], *, cond: Cond = 0) -> ResSynthesis:
        """Feature maps ``(B, *shapes[i])``, the largest first, and a condition to ``(B, C, H, W)``.

        Raises:
            ConfigError: a map has a size that repeated halving does not reach, the examples are not images, or the
                condition is neither a vector nor an image.
        """
        return ResSynthesis(self, shapes, image_shape(shape, "resnet"), cond)

    def _analysis(self, shape: tuple[int, int, int], cond: Cond, masked: bool = False) -> ResAnalysis:
        vector = vector_width(cond)
        plan = Plan.of(shape, self)
        inputs = Channels(shape, 0 if vector else cond, masked)
        stem = nn.Sequential(
            Cut(plan.patch), nn.Conv2d(inputs.joined[0] * plan.patch**2, plan.channels[0], 3, padding=1)
        )
        preserve(self.style, stem[1])  # type: ignore[arg-type]
        stages, before = [], plan.channels[0]
        for channels, size in zip(plan.channels, plan.sizes, strict=True):
            stages.append(Blocks(self.style, before, channels, size, vector))
            before = channels
        return ResAnalysis(inputs, vector, stem, stages, plan.shapes)


class Plan:
    """The sizes and channels of the maps of a picture, the largest first.

    Args:
        patch: side of the squares of pixels that are the channels of the largest map.
        sizes: of the maps.
        channels: of the maps.

    Example:
        >>> Plan.of((3, 37, 53), ResNet(width=8)).shapes
        [(8, 37, 53), (16, 19, 27), (32, 10, 14), (64, 5, 7), (128, 3, 4)]
    """

    def __init__(self, patch: int, sizes: Sequence[Size], channels: Sequence[int]) -> None:
        self.patch, self.sizes, self.channels = patch, list(sizes), list(channels)
        self.shapes: list[tuple[int, ...]] = [(c, *s) for c, s in zip(channels, sizes, strict=True)]

    @classmethod
    def of(cls, shape: tuple[int, ...], net: ResNet) -> Plan:
        """The plan of a family for one picture size."""
        size, patch = (shape[1], shape[2]), 1
        while (patch < net.patch) if net.patch else (min(size) > _LARGEST):
            size, patch = halved(size), 2 * patch
        sizes = [size]
        while (len(sizes) - 1 < net.stages) if net.stages else (min(sizes[-1]) > _SMALLEST or len(sizes) == 1):
            sizes.append(halved(sizes[-1]))
        return cls(patch, sizes, [min(net.width * 2**level, net.max_width) for level in range(len(sizes))])


class ResAnalysis(nn.Module):
    """Blocks from the largest map to the smallest, with average pooling between them; returns all maps.

    Args:
        inputs: combines image, image condition and mask for the first convolution.
        cond: width of a vector condition.
        stem: from the picture to the largest map.
        stages: the blocks of each size.
        shapes: of the maps.

    Attributes:
        shapes: ``(C, H, W)`` of each map, the largest first.
    """

    def __init__(
        self,
        inputs: Channels,
        cond: int,
        stem: nn.Module,
        stages: Sequence[nn.Module],
        shapes: Sequence[tuple[int, ...]],
    ) -> None:
        super().__init__()
        self.inputs, self.cond, self.stem = inputs, cond, stem
        self.stages, self.shapes = nn.ModuleList(stages), list(shapes)

    def forward(self, x: Tensor, c: Tensor | None = None, mask: Tensor | None = None) -> list[Tensor]:
        """The maps ``(B, *shapes[i])`` of images ``(B, C, H, W)``, conditions ``(B, *cond)`` and masks.

        Raises:
            ConfigError: a condition or mask is unexpected or missing, or has the wrong shape.
        """
        vector = needed(c, (self.cond,)).to(x.dtype) if self.cond else None
        h = self.stem(self.inputs(x, None if self.cond else c, mask))
        maps: list[Tensor] = []
        for stage in self.stages:
            maps.append(stage(pooled(maps[-1]) if maps else h, vector))
        return maps

    def first(self, count: int) -> ResAnalysis:
        """An analysis with the first ``count`` maps only, sharing their weights."""
        return ResAnalysis(self.inputs, self.cond, self.stem, list(self.stages)[:count], self.shapes[:count])


class ResSynthesis(nn.Module):
    """Blocks from the smallest map to the largest, with upsampling between them, concatenating the maps on the way.

    Args:
        net: the options.
        shapes: of the maps, the largest first.
        shape: of the picture.
        cond: shape of the condition.
    """

    def __init__(self, net: ResNet, shapes: Sequence[tuple[int, ...]], shape: tuple[int, int, int], cond: Cond) -> None:
        super().__init__()
        plan, self.cond = Plan.of(shape, net), vector_width(cond)
        sizes, self.levels = levels_of(plan.sizes[0], shapes)
        self.guide = None
        if len(cond_shape(cond)) > 1:
            self.guide = ImageGuide(cond_shape(cond), plan.sizes, net, len(sizes), shape)
        joined = [0] * len(sizes)
        for level, (channels, *_) in zip(self.levels, shapes, strict=True):
            joined[level] += channels
        for level, channels in enumerate(self.guide.channels if self.guide else ()):
            joined[level] += channels
        stages: list[nn.Module] = []
        before = 0
        for level in reversed(range(len(sizes))):
            b = min(net.width * 2**level, net.max_width)
            stages.append(Blocks(net.style, before + joined[level], b, sizes[level], self.cond))
            before = b
        last = nn.Conv2d(before, shape[0] * plan.patch**2, 3, padding=1)
        preserve(net.style, last)
        self.sizes, self.stages = sizes, nn.ModuleList(stages)
        self.out = nn.Sequential(
            normalise(net.style, before),
            make_activation(net.style.activation),
            last,
            nn.PixelShuffle(plan.patch),
            Trim(*shape[1:]),
        )

    def forward(self, maps: Sequence[Tensor], c: Tensor | None = None) -> Tensor:
        """Images ``(B, C, H, W)`` from maps, the largest first, and conditions ``(B, *cond)``.

        Raises:
            ConfigError: the number of maps is wrong, or a condition is unexpected, missing or has the wrong shape.
        """
        if len(maps) != len(self.levels):
            raise ConfigError(f"This network needs {len(self.levels)} maps but got {len(maps)}.")
        vector = needed(c, (self.cond,)).to(maps[-1].dtype) if self.cond else None
        joining: dict[int, list[Tensor]] = {level: [h] for level, h in zip(self.levels, maps, strict=True)}
        if self.guide is not None:
            for level, extra in enumerate(self.guide(c, maps[-1].dtype)):
                joining.setdefault(level, []).append(extra)
        elif c is not None and not self.cond:
            raise ConfigError("This network was built without a condition but got one; build it with `cond`.")
        h: Tensor | None = None
        for level, stage in zip(reversed(range(len(self.sizes))), self.stages, strict=True):
            parts = joining.get(level, [])
            if h is not None:
                h = doubled(h)[..., : self.sizes[level][0], : self.sizes[level][1]]
                parts = [h, *parts]
            h = stage(torch.cat(parts, 1) if len(parts) > 1 else parts[0], vector)
        return self.out(h)


class ImageGuide(nn.Module):
    """An image condition, resized to the size of the examples, and its maps.

    Args:
        cond: shape of the condition.
        sizes: of the maps of an example.
        net: the options.
        count: number of maps that are used.
        shape: of an example.
    """

    def __init__(
        self, cond: tuple[int, ...], sizes: Sequence[Size], net: ResNet, count: int, shape: tuple[int, int, int]
    ) -> None:
        super().__init__()
        channels = image_shape(cond, "resnet")[0]
        self.cond, self.size = cond, (shape[1], shape[2])
        whole = net.analysis((channels, *self.size))
        self.analysis = whole.first(min(count, len(sizes)))
        self.channels = [*(s[0] for s in self.analysis.shapes), *[0] * (count - len(self.analysis.shapes))]

    def forward(self, c: Tensor | None, dtype: torch.dtype) -> list[Tensor]:
        """The maps of conditions ``(B, *cond)``, the largest first, in this dtype.

        Raises:
            ConfigError: the condition is missing or has another shape.
        """
        return self.analysis(resize(needed(c, self.cond).to(dtype), self.size))


def levels_of(size: Size, shapes: Sequence[tuple[int, ...]]) -> tuple[list[Size], list[int]]:
    """Sizes from the largest map to the smallest, and the number of halvings of each map.

    Raises:
        ConfigError: there are no maps, or one has a size that repeated halving does not reach.

    Example:
        >>> levels_of((37, 53), [(8, 37, 53), (8, 10, 14)])
        ([(37, 53), (19, 27), (10, 14)], [0, 2])
    """
    sizes, levels = [size], []
    for _, *wanted in shapes:
        while sizes[-1] != tuple(wanted) or len(sizes) - 1 in levels:
            if sizes[-1] == (1, 1) != tuple(wanted):
                raise ConfigError(
                    f"Halving {size[0]}x{size[1]} repeatedly does not give a map of size {wanted[0]}x{wanted[1]}."
                )
            sizes.append(halved(sizes[-1]))
        levels.append(len(sizes) - 1)
    if not levels:
        raise ConfigError("A synthesis needs at least one map.")
    return sizes, levels

"""Convolutional networks at any height, width and channel count."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Literal, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sandglass.core import Spec
from sandglass.errors import ConfigError
from sandglass.nets._activation import activation as make_activation
from sandglass.nets._bf16 import GroupNorm
from sandglass.nets._layout import Flatten, Unflatten
from sandglass.nets.convolution import Conv2d, ConvTranspose2d
from sandglass.nets.frame import Channels, Cond, Flat, FromCode, Layers, cond_shape, image_shape, needed, resize
from sandglass.registry import register

_SMALLEST = 4

Size = tuple[int, int]
Module = TypeVar("Module", bound=nn.Module)


@register("conv", kind="net")
class Conv:
    """Strided convolutions and transposed convolutions, at any height, width and channel count.

    Each stage halves height and width, rounding up, until the shorter side is at most 4; the decoder doubles them and
    crops the excess, so that sizes such as 28x20, 37x53 and 1x90 are restored exactly.

    In the encoder a condition and the mask of missing values are additional input channels: a vector is expanded to
    constant channels, an image is resized. In the decoder a vector is concatenated with the code; an image is encoded
    by stages of its own, whose feature maps are concatenated with the decoder's at every size, including the input.

    ``analysis`` and ``synthesis`` are the encoder and decoder without a code between them. With all feature maps they
    are the U-Net of Ronneberger, Fischer and Brox 2015, "U-Net: Convolutional Networks for Biomedical Image
    Segmentation" (arXiv 1505.04597), strided as in Isola et al. 2017, "Image-to-Image Translation with Conditional
    Adversarial Networks" (arXiv 1611.07004).

    Args:
        width: channels of the first stage, doubled at every further stage.
        max_width: maximum number of channels.
        stages: number of halvings; by default until the shorter side is at most 4.
        hidden: width of the fully connected layer next to the latent, 0 for none.
        activation: relu, leaky-relu, silu, gelu, elu, tanh or softplus.
        norm: ``none``, ``batch``, ``group`` or ``instance`` normalisation in every stage. ``instance`` skips 1x1 maps
            and the first stage of encoder and decoder, where it would remove brightness and a vector condition.

    Example:
        >>> import torch
        >>> net = Conv(width=8)
        >>> net.encoder((3, 37, 53), 6)(torch.zeros(2, 3, 37, 53)).shape
        torch.Size([2, 6])
        >>> net.decoder(6, (3, 37, 53))(torch.zeros(2, 6)).shape
        torch.Size([2, 3, 37, 53])
        >>> down = net.analysis((3, 37, 53))
        >>> up = net.synthesis(down.shapes, (1, 37, 53))
        >>> down.shapes[0], up(down(torch.zeros(2, 3, 37, 53))).shape
        ((8, 19, 27), torch.Size([2, 1, 37, 53]))
    """

    def __init__(
        self,
        *,
        width: int = 32,
        max_width: int = 256,
        stages: int | None = None,
        hidden: int = 256,
        activation: str = "silu",
        norm: Literal["none", "batch", "group", "instance"] = "none",
    ) -> None:
        if width < 1 or max_width < width or hidden < 0:
            raise ConfigError(
                f"A conv net needs 1 <= width <= max_width and hidden >= 0, not {width}, {max_width}, {hidden}."
            )
        if norm not in ("none", "batch", "group", "instance"):
            raise ConfigError(f"The option norm must be one of none, batch, group, instance, not '{norm}'.")
        if stages is not None and not 1 <= stages <= 30:
            raise ConfigError(f"A conv net needs 1 to 30 stages, not {stages}.")
        make_activation(activation)
        self.width, self.max_width, self.stages, self.hidden = width, max_width, stages, hidden
        self.activation, self.norm = activation, norm
        self.last = norm != "group"  # PyTorch's group normalisation is ten times slower in channels-last memory

    @staticmethod
    def natural(spec: Spec) -> bool:
        """Whether ``"auto"`` selects this: for images."""
        return spec.is_image

    def encoder(self, shape: tuple[int, ...], out: int, *, cond: Cond = 0, masked: bool = False) -> Layers:
        """``(B, C, H, W) -> (B, out)``, with a condition and, if ``masked``, a mask.

        Raises:
            ConfigError: the examples are not images, or the condition is neither a vector nor an image.
        """
        sizes = self._plan(shape)
        inputs = Channels(shape, cond, masked, last=self.last)
        layers = [layer for stage in self._down(inputs.joined[0], sizes) for layer in stage]
        flat = self._channels(len(sizes) - 1) * math.prod(sizes[-1])
        layers.append(Flatten() if self.last else nn.Flatten())
        if self.hidden:
            layers += [nn.Linear(flat, self.hidden), make_activation(self.activation)]
        return self._laid(Layers(*layers, nn.Linear(self.hidden or flat, out), inputs=inputs))

    def decoder(self, dim: int, shape: tuple[int, ...], *, cond: Cond = 0) -> nn.Module:
        """``(B, dim) -> (B, C, H, W)``, with a condition.

        Raises:
            ConfigError: the examples are not images, or the condition is neither a vector nor an image.
        """
        sizes, condition = self._plan(shape), cond_shape(cond)
        deepest = len(sizes) - 1
        small = (self._channels(deepest), *sizes[-1])
        inputs = Flat((dim,), condition if len(condition) == 1 else 0)
        layers = self._stem(inputs.joined[0], small)
        if len(condition) > 1:
            stem = self._laid(Layers(*layers, inputs=inputs))
            return FromCode(stem, self.synthesis([small], shape, cond=condition))
        for level in range(deepest, 0, -1):
            layers += self._up(self._channels(level), level, sizes)
        return self._laid(Layers(*layers, Conv2d(self._channels(0), shape[0], 3, padding=1), inputs=inputs))

    def analysis(self, shape: tuple[int, ...], *, cond: Cond = 0) -> Analysis:
        """``(B, C, H, W)`` and a condition to a list of feature maps, one per stage, the largest first.

        Raises:
            ConfigError: the examples are not images, or the condition is neither a vector nor an image.
        """
        return self._analysis(Channels(image_shape(shape, "conv"), cond, last=self.last), self._plan(shape))

    def synthesis(self, shapes: Sequence[tuple[int, ...]], shape: tuple[int, ...], *, cond: Cond = 0) -> Synthesis:
        """Feature maps ``(B, *shapes[i])``, the largest first, and a condition to ``(B, C, H, W)``.

        Raises:
            ConfigError: a map has a size that repeated halving does not reach, the examples are not images, or the
                condition is neither a vector nor an image.
        """
        sizes, levels = levels_of(image_shape(shape, "conv"), shapes)
        condition = cond_shape(cond)
        inputs = Channels(tuple(shapes[-1]), condition if len(condition) == 1 else 0, last=self.last)
        joining = list(zip(levels, [*(s[0] for s in shapes[:-1]), inputs.joined[0]], strict=True))
        guide = None
        if len(condition) > 1:
            resized = Channels((image_shape(condition, "conv")[0], *sizes[0]), last=self.last)
            guide = Guide(condition, self._analysis(resized, sizes))
            joining += [(level, s[0]) for level, s in enumerate(guide.shapes)]
        return self._laid(Synthesis(inputs, levels, self._rise(sizes, joining, shape[0]), guide))

    def _rise(self, sizes: list[Size], joining: list[tuple[int, int]], out: int) -> list[nn.Module]:
        """A stage at the smallest map, one from each size to the next larger, and the last convolution.

        Args:
            sizes: from the image to the smallest map.
            joining: pairs of a level and the number of channels concatenated there.
            out: channels of the image.
        """
        extra = [sum(n for at, n in joining if at == level) for level in range(len(sizes))]
        deepest = len(sizes) - 1
        width = self._channels(deepest)
        stages = [
            nn.Sequential(Conv2d(extra[deepest], width, 3, padding=1), *self._finish(width, sizes[deepest], first=True))
        ]
        for level in range(deepest, 0, -1):
            joined = self._channels(level) + (extra[level] if level < deepest else 0)
            stages.append(nn.Sequential(*self._up(joined, level, sizes)))
        return [*stages, Conv2d(self._channels(0) + extra[0], out, 3, padding=1)]

    def _analysis(self, inputs: Channels, sizes: list[Size]) -> Analysis:
        stages = [nn.Sequential(*stage) for stage in self._down(inputs.joined[0], sizes)]
        return self._laid(Analysis(inputs, stages, [(self._channels(i), *size) for i, size in enumerate(sizes) if i]))

    def _stem(self, dim: int, small: tuple[int, ...]) -> list[nn.Module]:
        """Layers from a code to the smallest feature map."""
        layers: list[nn.Module] = []
        if self.hidden:
            layers += [nn.Linear(dim, self.hidden), make_activation(self.activation)]
        unflatten = Unflatten if self.last else nn.Unflatten
        layers += [nn.Linear(self.hidden or dim, math.prod(small)), unflatten(-1, small)]
        return [*layers, make_activation(self.activation)]

    def _down(self, channels: int, sizes: list[Size]) -> Iterable[list[nn.Module]]:
        """The layers of each downsampling stage, from an image with this number of channels."""
        for level in range(1, len(sizes)):
            a, b = channels if level == 1 else self._channels(level - 1), self._channels(level)
            yield [Conv2d(a, b, 3, stride=2, padding=1), *self._finish(b, sizes[level], first=level == 1)]

    def _up(self, channels: int, level: int, sizes: list[Size]) -> list[nn.Module]:
        """The layers of the upsampling stage from one level to the next larger."""
        b, size = self._channels(level - 1), sizes[level - 1]
        return [ConvTranspose2d(channels, b, 4, stride=2, padding=1), Trim(*size), *self._finish(b, size)]

    def _finish(self, channels: int, size: Size, *, first: bool = False) -> list[nn.Module]:
        """Normalisation and activation; ``first`` for the first stage of the encoder or decoder."""
        layers: list[nn.Module] = []
        groups = math.gcd(channels, 8)
        if self.norm == "batch":
            layers = [nn.BatchNorm2d(channels)]
        elif self.norm == "group" and (groups < channels or size != (1, 1)):  # a single value normalises to 0
            layers = [GroupNorm(groups, channels)]
        elif self.norm == "instance" and not first and size != (1, 1):
            layers = [nn.InstanceNorm2d(channels, affine=True)]
        return [*layers, make_activation(self.activation)]

    def _laid(self, module: Module) -> Module:
        """With weights in the memory format of the maps."""
        return module.to(memory_format=torch.channels_last) if self.last else module  # type: ignore[call-overload]

    def _plan(self, shape: tuple[int, ...]) -> list[Size]:
        """Heights and widths from the image to the smallest map."""
        sizes = [image_shape(shape, "conv")[1:]]
        while (len(sizes) - 1 < self.stages) if self.stages else (min(sizes[-1]) > _SMALLEST or len(sizes) == 1):
            sizes.append(halved(sizes[-1]))
        return sizes

    def _channels(self, level: int) -> int:
        """Channels after ``level`` halvings; for 0, those before the decoder's last convolution."""
        return min(self.width * 2 ** (level - 1), self.max_width) if level else max(self.width // 2, 1)


class Analysis(nn.Module):
    """Downsampling stages that return all feature maps.

    Args:
        inputs: combines image, condition and mask for the first stage.
        stages: from one map to the next smaller.
        shapes: of the maps.

    Attributes:
        shapes: ``(C, H, W)`` of each map, the largest first.
    """

    def __init__(self, inputs: Channels, stages: Iterable[nn.Module], shapes: list[tuple[int, ...]]) -> None:
        super().__init__()
        self.inputs, self.stages, self.shapes = inputs, nn.ModuleList(stages), shapes

    def forward(self, x: Tensor, c: Tensor | None = None) -> list[Tensor]:
        """The maps ``(B, *shapes[i])`` of images ``(B, C, H, W)`` and conditions ``(B, *cond)``.

        Raises:
            ConfigError: a condition is unexpected or missing, or has the wrong shape.
        """
        maps = [self.inputs(x, c)]
        for stage in self.stages:
            maps.append(stage(maps[-1]))
        return maps[1:]

    def first(self, count: int) -> Analysis:
        """An analysis with the first ``count`` stages only, sharing their weights."""
        return Analysis(self.inputs, list(self.stages)[:count], self.shapes[:count])


class Synthesis(nn.Module):
    """Upsampling stages from the smallest feature map, concatenating larger maps on the way.

    Args:
        inputs: combines the smallest map and a vector condition.
        levels: number of halvings of the image at each map.
        stages: one at the smallest map, one from each size to the next larger, and the last convolution.
        guide: feature maps of an image condition at every size; None without an image condition.
    """

    def __init__(
        self,
        inputs: Channels,
        levels: list[int],
        stages: Iterable[nn.Module],
        guide: Guide | None,
    ) -> None:
        super().__init__()
        self.inputs, self.levels, self.stages, self.guide = inputs, levels, nn.ModuleList(stages), guide

    def forward(self, maps: Sequence[Tensor], c: Tensor | None = None) -> Tensor:
        """Images ``(B, C, H, W)`` from maps, the largest first, and conditions ``(B, *cond)``.

        Raises:
            ConfigError: the number of maps is wrong, or a condition is unexpected, missing or has the wrong shape.
        """
        if len(maps) != len(self.levels):
            raise ConfigError(f"This network needs {len(self.levels)} maps but got {len(maps)}.")
        joining: dict[int, list[Tensor]] = {level: [h] for level, h in zip(self.levels, maps, strict=True)}
        if self.guide is None:
            joining[self.levels[-1]] = [self.inputs(maps[-1], c)]
        else:
            for level, h in enumerate(self.guide(c, maps[-1].dtype)):
                joining.setdefault(level, []).append(h)
        first, *stages = self.stages
        h = first(torch.cat(joining.pop(self.levels[-1]), 1))
        for level, stage in zip(range(self.levels[-1], -1, -1), stages, strict=True):
            h = stage(torch.cat([h, *joining[level]], 1) if level in joining else h)
        return h


class Guide(nn.Module):
    """An image condition, resized to the size of the examples, and its feature maps.

    Args:
        cond: shape of the condition.
        analysis: for images with the channels of the condition and the size of the examples.
    """

    def __init__(self, cond: tuple[int, ...], analysis: Analysis) -> None:
        super().__init__()
        self.cond, self.analysis = cond, analysis
        self.shapes = [analysis.inputs.shape, *analysis.shapes]

    def forward(self, c: Tensor | None, dtype: torch.dtype) -> list[Tensor]:
        """The resized conditions ``(B, *cond)`` and their feature maps, the largest first, in this dtype.

        Raises:
            ConfigError: the condition is missing or has another shape.
        """
        image = resize(needed(c, self.cond).to(dtype), self.analysis.inputs.size)
        return [image, *self.analysis(image)]


class Trim(nn.Module):
    """Keeps the first ``height`` rows and ``width`` columns of ``(B, C, H, W)``."""

    def __init__(self, height: int, width: int) -> None:
        super().__init__()
        self.height, self.width = height, width

    def forward(self, x: Tensor) -> Tensor:
        """``(B, C, H, W) -> (B, C, height, width)``."""
        down, right = self.height - x.shape[2], self.width - x.shape[3]
        return F.pad(x, (0, right, 0, down)) if down or right else x  # the gradient stays in channels-last memory


def halved(size: Size) -> Size:
    """Height and width after one downsampling stage.

    Example:
        >>> halved((37, 53))
        (19, 27)
    """
    return math.ceil(size[0] / 2), math.ceil(size[1] / 2)


def levels_of(shape: tuple[int, ...], shapes: Sequence[tuple[int, ...]]) -> tuple[list[Size], list[int]]:
    """Sizes from the image to the smallest map, and the number of halvings of each map.

    Raises:
        ConfigError: there are no maps, or one has a size that repeated halving of the image does not reach.

    Example:
        >>> levels_of((3, 37, 53), [(8, 10, 14)])
        ([(37, 53), (19, 27), (10, 14)], [2])
    """
    sizes: list[Size] = [(shape[1], shape[2])]
    levels = []
    for _, height, width in shapes:
        while True:
            sizes.append(halved(sizes[-1]))
            if sizes[-1] == (height, width):
                break
            if sizes[-1] == (1, 1):
                raise ConfigError(
                    f"Halving {shape[1]}x{shape[2]} repeatedly does not give a map of size {height}x{width}."
                )
        levels.append(len(sizes) - 1)
    if not levels:
        raise ConfigError("A synthesis needs at least one map.")
    return sizes, levels

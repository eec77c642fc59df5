"""Translation networks, and critics of patches."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sandglass.core import Spec
from sandglass.distributions.conditional import Network, at_least_single
from sandglass.errors import ConfigError
from sandglass.models._adversary import in_range
from sandglass.nets.net import Condition, Maps, Net

_LEAST = 1 / 64  # logits are clamped here, so that a network can undo those of black and white


class Translator(nn.Module):
    """A network from examples of one kind to examples of another, with outputs in the range of the second.

    Between pictures it is a U-Net, an analysis and a synthesis over all its maps (Ronneberger, Fischer and Brox 2015,
    arXiv 1505.04597), if the network family has them. A convolution of the source (of its logits if both are in [0, 1])
    is added to the output before the sigmoid, so that what the two pictures share need not pass through smaller maps. A
    source of another size is resized to that of the target. For rows the network is an encoder whose output is the
    example.

    Args:
        net: the family.
        source: spec of the input.
        target: spec of the output.
        dropout: probability of dropout in the smallest map (in the last hidden layer if there are no maps).

    Raises:
        ConfigError: a picture on one side only, or a dropout outside [0, 1).

    Example:
        >>> from sandglass.nets.conv import Conv
        >>> colour = Translator(Conv(width=4), Spec((1, 9, 7), "unit"), Spec((3, 12, 17), "unit"))
        >>> colour(torch.rand(2, 1, 9, 7)).shape
        torch.Size([2, 3, 12, 17])
    """

    def __init__(self, net: Net, source: Spec, target: Spec, dropout: float = 0.0) -> None:
        super().__init__()
        if source.is_image != target.is_image:
            raise ConfigError(
                f"A translation is between two pictures or two rows, not from {source.shape} to {target.shape}."
            )
        if not 0 <= dropout < 1:
            raise ConfigError(f"The dropout must be in [0, 1), not {dropout}.")
        self.target, self.dropout = target, dropout
        self.logits = "real" not in (source.support, target.support)
        self.maps = target.is_image and isinstance(net, Maps)
        if isinstance(net, Maps) and target.is_image:
            down: Any = net.analysis((source.shape[0], *target.shape[1:]))
            self.down, self.up = down, net.synthesis(down.shapes, target.shape)
            self.direct = nn.Conv2d(source.shape[0], target.shape[0], 3, padding=1)
            nn.init.zeros_(self.direct.weight)
        else:
            self.whole: Any = net.encoder(source.shape, target.size)

    def forward(self, x: Tensor, noise: bool = False) -> Tensor:
        """``(B, *target.shape)`` from ``(B, *source.shape)``; with ``noise`` the dropout is on in eval mode too."""
        if self.maps:
            source = resized(x, self.target.shape)
            *larger, smallest = self.down(source)
            h = self.up([*larger, self._dropped(smallest, noise)]) + self.direct(
                torch.logit(source, _LEAST) if self.logits else source
            )
        else:
            h = self.whole.head(self._dropped(self.whole.body(x), noise)).unflatten(-1, self.target.shape)
        return in_range(at_least_single(h).to(x.dtype), self.target)

    def _dropped(self, h: Tensor, noise: bool) -> Tensor:
        # The noise is drawn in the order of memory, which must not depend on who computed the map.
        return F.dropout(h.contiguous(), self.dropout, self.training or noise) if self.dropout else h


class PatchCritic(nn.Module):
    """Scores of how real an example is, or an example with its condition; of a picture, one for each patch.

    A patch is the receptive field of an element of the smallest map of an analysis: with k stages of the net ``conv``
    ``2^(k + 1) - 1`` pixels square. Isola et al. 2017, "Image-to-Image Translation with Conditional Adversarial
    Networks" (arXiv 1611.07004). A family of networks without maps gives one score.

    Args:
        net: the family.
        spec: the examples.
        cond: of the condition, which is concatenated as further channels.

    Example:
        >>> from sandglass.nets.conv import Conv
        >>> critic = PatchCritic(Conv(width=4, stages=2), Spec((3, 16, 16), "unit"), (1, 16, 16))
        >>> critic(torch.rand(5, 3, 16, 16), torch.rand(5, 1, 16, 16)).shape
        torch.Size([5, 1, 4, 4])
    """

    def __init__(self, net: Net, spec: Spec, cond: Condition = 0) -> None:
        super().__init__()
        self.maps = spec.is_image and isinstance(net, Maps)
        if isinstance(net, Maps) and spec.is_image:
            down: Any = net.analysis(spec.shape, cond=cond)
            self.down, self.head = down, nn.Conv2d(down.shapes[-1][0], 1, 1)
        else:
            self.whole = Network.encoder(net, spec.shape, 1, cond)

    def forward(self, x: Tensor, c: Tensor | None = None) -> Tensor:
        """``(B, 1, h, w)`` or ``(B, 1)`` scores of examples ``(B, *shape)`` under conditions ``(B, *cond)``."""
        scores = self.head(self.down(x, c)[-1]) if self.maps else self.whole(x, c)
        return at_least_single(scores).to(x.dtype)


def resized(x: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Pictures ``(B, C, H, W)`` resized to the height and width of ``shape``, with antialiasing."""
    size = tuple(shape[1:])
    return x if x.shape[2:] == size else F.interpolate(x, size, mode="bilinear", align_corners=False, antialias=True)


def each(t: Tensor) -> Tensor:
    """``(B,)`` the mean over each example."""
    return t.flatten(1).mean(1)


def error(made: Tensor, true: Tensor) -> Tensor:
    """``(B,)`` mean absolute differences, in the units of the examples: 1 is from black to white.

    Example:
        >>> error(torch.tensor([[0.0, 0.5]]), torch.tensor([[1.0, 0.5]]))
        tensor([0.5000])
    """
    return each((made - true).abs())


class History(nn.Module):
    """A buffer of generated examples of earlier steps, from which half of those shown to a critic are taken.

    Shrivastava et al. 2017, "Learning from Simulated and Unsupervised Images through Adversarial Training" (arXiv
    1612.07828), as in Zhu et al. 2017 (arXiv 1703.10593): until it is full it stores and returns its input; then each
    example is returned with probability 1/2, and otherwise exchanged with a stored one. The part of a batch that
    exceeds the buffer is returned. It acts in train mode only.

    Args:
        size: number of stored examples; 0 for none.
        shape: of an example.

    Example:
        >>> history = History(2, (1,))
        >>> history(torch.tensor([[1.0], [2.0]])).flatten().tolist(), sorted(history.kept.flatten().tolist())
        ([1.0, 2.0], [1.0, 2.0])
    """

    kept: Tensor
    filled: Tensor

    def __init__(self, size: int, shape: tuple[int, ...]) -> None:
        super().__init__()
        if size < 0:
            raise ConfigError(f"A history keeps 0 or more examples, not {size}.")
        self.size = size
        self.register_buffer("kept", torch.zeros(size, *shape))
        self.register_buffer("filled", torch.zeros(size))  # floats: a skipped step restores only those

    @torch.no_grad()
    def forward(self, x: Tensor) -> Tensor:
        """``(B, *shape)``, some of them from earlier steps."""
        if not (self.size and self.training):
            return x
        places = (self.filled + torch.rand(self.size, device=x.device)).argsort()[: len(x)]  # free ones first
        old, new = self.kept[places], x[: len(places)]
        known = self.filled[places] > 0
        swapped = known & (torch.rand(len(places), device=x.device) < 0.5)
        self.kept[places] = _where(swapped | ~known, new.to(old.dtype), old)
        self.filled[places] = 1.0
        return torch.cat([_where(swapped, old.to(x.dtype), new), x[len(places) :]])


def _where(rows: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """``(B, ...)`` from ``a`` where ``rows`` ``(B,)`` is True, else from ``b``."""
    return torch.where(rows.view(-1, *[1] * (a.dim() - 1)), a, b)

"""Multi-scale structural similarity in the place of a likelihood of images."""

from __future__ import annotations

import math
from typing import ClassVar

import torch
from torch import Tensor
from torch.distributions import Distribution, constraints
from torch.types import _size

from sandglass.core import FigureKind, Spec
from sandglass.distributions.likelihood import Likelihood
from sandglass.distributions.similarity import WINDOW, largest_window, multiscale, scales
from sandglass.errors import ConfigError
from sandglass.registry import register

_FLOOR = 1e-3  # of the similarity at a scale: below, its gradient is 0 and not beyond all bounds


class Dissimilar(Distribution):
    """Images with a cost for what they differ from one image: ``log_prob`` is minus that cost, without a normaliser.

    Args:
        mean: the image, ``(B, C, H, W)``.
        weight: of the cost, in nats.
        l1: share of the mean absolute error in the cost; the rest is ``1 - MS-SSIM``.
        count: number of scales.
        window: side of the window, in pixels.
        mask: where values are observed; others count as equal to the image. None for all.
    """

    arg_constraints: ClassVar = {}
    support = constraints.real

    def __init__(
        self, mean: Tensor, weight: float, l1: float, count: int, window: int, mask: Tensor | None = None
    ) -> None:
        self.image, self.weight, self.l1, self.count, self.window, self.mask = mean, weight, l1, count, window, mask
        super().__init__(mean.shape[:-3], mean.shape[-3:], validate_args=False)

    def observing(self, mask: Tensor) -> Dissimilar:
        """The same, told which values are observed."""
        return Dissimilar(self.image, self.weight, self.l1, self.count, self.window, mask)

    @property
    def mean(self) -> Tensor:
        """The image."""
        return self.image

    def log_prob(self, value: Tensor) -> Tensor:
        """``(B,)``, minus the cost; 0 at the image itself."""
        image, value = torch.broadcast_tensors(self.image, value)
        value = value if self.mask is None else torch.where(self.mask, value, image)
        dtype = torch.promote_types(image.dtype, torch.float32)
        similar = multiscale(value, image, self.count, self.window, dtype=dtype, floor=_FLOOR).mean(-1)
        apart = (value - image).abs().mean((-3, -2, -1)) if self.l1 else 0.0
        return -self.weight * ((1 - self.l1) * (1 - similar) + self.l1 * apart)

    def sample(self, sample_shape: _size = ()) -> Tensor:
        """The image: what has no density cannot be drawn from."""
        return self.image.detach().expand(self._extended_shape(torch.Size(sample_shape)))


@register("ms-ssim", kind="likelihood")
class MSSSIM(Likelihood):
    """Dissimilarity of images, ``1 - MS-SSIM``, as a cost in nats in the place of a likelihood: no bound on log p(x).

    ``-log_prob`` is ``weight`` nats for every value of an image times ``(1 - l1) * (1 - MS-SSIM) + l1 * (mean absolute
    error)``. Snell et al. 2017, "Learning to Generate Images with Perceptual Similarity Metrics" (arXiv 1511.06409);
    mixed with absolute errors as in Zhao, Gallo, Frosio and Kautz 2017, "Loss Functions for Image Restoration with
    Neural Networks" (arXiv 1511.08861). It is the similarity of the metric ``ms_ssim``, averaged over channels, with as
    many of the five scales as fit, and on images below 11 pixels a smaller window.

    Args:
        spec: specification of the data: images in [0, 1].
        weight: nats for every value of an image.
        l1: share of the mean absolute error in the cost, from 0 up to 1.
        window: side of the Gaussian window in pixels, odd.

    Raises:
        ConfigError: an invalid value, or data other than images in [0, 1].

    Example:
        >>> p = MSSSIM(Spec((1, 28, 28), "unit"))(torch.zeros(3, 1, 28, 28))
        >>> p.log_prob(torch.full((3, 1, 28, 28), 0.5)).abs()
        tensor([0., 0., 0.])
    """

    def __init__(self, spec: Spec, *, weight: float = 1.0, l1: float = 0.0, window: int = WINDOW) -> None:
        super().__init__()
        if spec.support == "real" or not spec.is_image:
            raise ConfigError("ms-ssim compares images with values in [0, 1]; use gaussian for other data.")
        if not 0 < weight < math.inf:
            raise ConfigError(f"The weight of ms-ssim must be a positive number, not {weight}.")
        if not 0 <= l1 < 1:
            raise ConfigError(f"The share l1 of ms-ssim must be at least 0 and below 1, not {l1}.")
        if window < 1 or window % 2 == 0:
            raise ConfigError(f"ms-ssim needs an odd window, not {window}.")
        self.window = min(window, largest_window(spec))
        self.weight, self.l1, self.count = weight * spec.size, l1, scales(spec, self.window)

    @staticmethod
    def kind(spec: Spec) -> FigureKind:
        """Neither a density nor a probability."""
        return "cost"

    def channels(self, spec: Spec) -> int:
        """One value per element."""
        return spec.shape[0]

    def forward(self, h: Tensor) -> Distribution:
        """Logits ``(B, *shape)`` to the distribution around their sigmoids."""
        return Dissimilar(h.sigmoid(), self.weight, self.l1, self.count, self.window)

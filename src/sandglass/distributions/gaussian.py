"""The Gaussian likelihood."""

from __future__ import annotations

from torch import Tensor
from torch.distributions import Distribution, Normal

from sandglass.core import Spec
from sandglass.distributions.location_scale import LocationScale
from sandglass.registry import register


@register("gaussian", kind="likelihood")
@register("mse", kind="likelihood", scale=2**-0.5, learn="none")
@register("optimal-gaussian", kind="likelihood", learn="optimal", bounded=True)
class Gaussian(LocationScale):
    """Independent normal distributions around the decoder's output; a density, so the bound can be positive.

    ``mse`` is the squared error as a likelihood: with the scale fixed at ``1/sqrt(2)``, ``-log p`` is the sum of
    squared errors plus a constant. ``optimal-gaussian`` has the variance at which each batch is most likely.

    Args:
        spec: specification of the data.
        scale: the standard deviation, in the unit of the data ([0, 1] for images); the initial value if it is learned.
        learn: ``none`` keeps it fixed; ``shared`` learns one for all elements by its gradient; ``optimal`` computes
            one for all elements, the root mean squared error of the batch (Rybkin, Daniilidis and Levine 2021, "Simple
            and Effective VAE Training with Calibrated Decoders", arXiv 2006.13202); ``pixel`` has the decoder output
            one for every element.
        bounded: whether on data in [0, 1] the location is a sigmoid of the decoder's output.

    Example:
        >>> import torch
        >>> p = Gaussian(Spec((2,)), learn="none")(torch.zeros(1, 2))
        >>> round(float(p.log_prob(torch.zeros(1, 2))), 4)  # -ln(2 pi)
        -1.8379
    """

    power = 2

    @staticmethod
    def natural(spec: Spec) -> bool:
        """Whether ``"auto"`` selects this: for real values without columns that need another likelihood."""
        return spec.support == "real" and all(c.real for c in spec.columns)

    def family(self, location: Tensor, scale: Tensor) -> Distribution:
        """Normals."""
        return Normal(location, scale, validate_args=False)

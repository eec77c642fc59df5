"""The Laplace likelihood."""

from __future__ import annotations

from torch import Tensor
from torch.distributions import Distribution
from torch.distributions import Laplace as TorchLaplace

from sandglass.distributions.location_scale import LocationScale
from sandglass.registry import register


@register("laplace", kind="likelihood")
@register("mae", kind="likelihood", scale=1.0, learn="none")
class Laplace(LocationScale):
    """Independent Laplace distributions around the decoder's output; a density, more robust to outliers than Gaussian.

    ``mae`` is the absolute error as a likelihood: with the scale fixed at 1, ``-log p`` is the sum of absolute errors
    plus a constant.

    Args:
        spec: specification of the data.
        scale: the mean absolute deviation, in the unit of the data; the initial value if it is learned.
        learn: ``none`` keeps it fixed; ``shared`` learns one for all elements by its gradient; ``optimal`` computes
            one for all elements, the mean absolute error of the batch; ``pixel`` learns one for every element.
        bounded: whether on data in [0, 1] the location is a sigmoid of the decoder's output.

    Example:
        >>> import torch
        >>> from sandglass.core import Spec
        >>> p = Laplace(Spec((1,)), learn="none")(torch.zeros(1, 1))
        >>> round(float(p.log_prob(torch.ones(1, 1))), 4)  # -ln 2 - 1
        -1.6931
    """

    power = 1

    def family(self, location: Tensor, scale: Tensor) -> Distribution:
        """Laplace densities."""
        return TorchLaplace(location, scale, validate_args=False)

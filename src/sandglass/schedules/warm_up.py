"""A warm-up over a share of the run."""

from __future__ import annotations

from torch import Tensor

from sandglass.registry import register
from sandglass.schedules._checks import check
from sandglass.schedules.schedule import Schedule


@register("warm-up", kind="schedule")
class WarmUp(Schedule):
    """Linear from 0 to 1 over the first part of the run, then constant; the same curve however long the run is.

    As a weight of the rate it is the deterministic warm-up of Sonderby et al. 2016, "Ladder Variational Autoencoders"
    (arXiv 1602.02282), without which a VAE of photographs switches most of its latent off in the first epochs.

    Args:
        share: of the run, above 0 and at most 1.

    Example:
        >>> [WarmUp(share=0.1)(t) for t in (0.0, 0.05, 0.1, 1.0)]
        [0.0, 0.5, 1.0, 1.0]
    """

    final = 1.0
    relative = True

    def __init__(self, *, share: float = 0.1) -> None:
        self.share = check("share", share, above=True, most=1)

    def at(self, t: Tensor) -> Tensor:
        """``min(t / share, 1)``."""
        return (t / self.share).clamp(max=1)

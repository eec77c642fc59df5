"""A warm-up over a number of updates."""

from __future__ import annotations

from torch import Tensor

from sandglass.registry import register
from sandglass.schedules._checks import check
from sandglass.schedules.schedule import Schedule


@register("warm-up", kind="schedule")
class WarmUp(Schedule):
    """Linear from 0 to 1 over the first updates, then constant; the same however large the data and long the run.

    As a weight of the rate it is the deterministic warm-up of Sonderby et al. 2016, "Ladder Variational Autoencoders"
    (arXiv 1602.02282), without which a VAE of photographs switches most of its latent off in the first epochs.

    Args:
        updates: duration.

    Example:
        >>> [WarmUp(updates=100)(t) for t in (0, 50, 100, 1000)]
        [0.0, 0.5, 1.0, 1.0]
    """

    final = 1.0
    by_updates = True

    def __init__(self, *, updates: float = 300.0) -> None:
        self.updates = check("updates", updates, above=True)

    def at(self, t: Tensor) -> Tensor:
        """``min(t / updates, 1)``."""
        return (t / self.updates).clamp(max=1)

"""The prior of the model itself."""

from __future__ import annotations

from sandglass.registry import register


@register("prior", kind="sampler")
def prior(dim: int) -> None:
    """The prior p(z) of the model itself: nothing is fitted after training.

    Args:
        dim: size of a code.
    """

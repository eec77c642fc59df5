"""Which latent dimensions carry anything."""

from __future__ import annotations

from collections.abc import Sequence

from sandglass.core import Model, Result
from sandglass.metrics.held import Held
from sandglass.metrics.measure import per_example
from sandglass.registry import register

ACTIVE = 0.01
"""A unit is active when the variance of its posterior mean over the data is above this."""


@register("active_units", kind="metric")
class ActiveUnits:
    """Latent dimensions whose posterior mean varies over the data by more than 0.01.

    Burda, Grosse and Salakhutdinov 2016, "Importance Weighted Autoencoders" (arXiv 1509.00519).
    """

    needs = ("posterior", "encode")
    figures = ("active_units",)

    def __call__(self, model: Model, held: Held) -> Sequence[Result]:
        """The count."""
        codes = per_example(model, held, "active_units", lambda batch: model.encode(batch.x))
        active = int((codes.var(0, unbiased=False) > ACTIVE).sum())
        return [Result("active_units", float(active), None, len(codes), f"of {codes.shape[1]} dimensions")]

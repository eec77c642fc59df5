"""A metric."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from sandglass import running
from sandglass.core import Model
from sandglass.metrics.evaluation import Better, Evaluation
from sandglass.metrics.measure import mean_result
from sandglass.registry import register
from sandglass.runs.result import Result


@register("brightness", kind="metric")
class Brightness:
    """Mean value of the elements of samples.

    Args:
        samples: how many to draw.
    """

    needs = ()
    figures = ("brightness",)
    quick = True
    better: Mapping[str, Better] = {}  # neither way is better

    def __init__(self, *, samples: int = 100) -> None:
        self.samples = samples

    def __call__(self, model: Model, evaluation: Evaluation) -> Sequence[Result]:
        """One figure."""
        x = running.sample(model, self.samples, key=(evaluation.seed, "brightness"))
        return [mean_result("brightness", x.flatten(1).mean(1), "[0, 1] scale")]

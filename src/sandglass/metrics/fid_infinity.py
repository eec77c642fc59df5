"""The bias-corrected Fréchet distance between features."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from sandglass.metrics.evaluation import Better
from sandglass.metrics.fid import estimate
from sandglass.metrics.samples import Compared, OfSamples
from sandglass.registry import register
from sandglass.runs.result import Result


@register("fid_infinity", kind="metric")
class FidInfinity(OfSamples):
    """Fréchet distance extrapolated to infinitely many samples, comparable across numbers of samples.

    Chong and Forsyth 2020, "Effectively Unbiased FID and Inception Score and Where to Find Them" (arXiv 1911.07023),
    with a jackknife instead of their line fit over random subsets.

    Args:
        features: the feature extractor; auto is own for images and long rows, and pixels for short rows.
        samples: number of samples, and maximum number of examples; by default the number of examples.
    """

    figures = ("fid_infinity",)
    better: Mapping[str, Better] = {"fid_infinity": "lower"}
    texture = True

    def results(self, sets: Compared) -> Sequence[Result]:
        """The limit with its standard error; unreliable where a covariance is singular."""
        _, limit, error = estimate(sets)
        n, dim = min(len(sets.real), len(sets.fake)), sets.real.shape[1]
        note = f"{sets.about}; can be negative where there is no difference"
        if n <= 2 * dim:
            note = f"unreliable: {n} are too few for {dim} features; " + note
        return [Result("fid_infinity", limit, error, n, "squared", note)]

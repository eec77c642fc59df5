"""The Fréchet distance of features without its bias."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from sandglass.metrics.evaluation import Better
from sandglass.metrics.fid import estimate
from sandglass.metrics.samples import Compared, OfSamples
from sandglass.registry import register
from sandglass.runs.result import Result


@register("fid_infinity", kind="metric")
class FidInfinity(OfSamples):
    """Fréchet distance extrapolated to infinitely many samples, so that different numbers of samples compare.

    Chong and Forsyth 2020, "Effectively Unbiased FID and Inception Score and Where to Find Them" (arXiv 1911.07023),
    with a jackknife for their line through random subsets.

    Args:
        features: where the features come from; auto is own for pictures and pixels for rows of few numbers.
        samples: how many to draw, and of how many examples; as many as there are examples when not given.
    """

    figures = ("fid_infinity",)
    better: Mapping[str, Better] = {"fid_infinity": "lower"}

    def results(self, sets: Compared) -> Sequence[Result]:
        """The limit with its standard error; what is singular has a limit that is far off."""
        _, limit, error = estimate(sets)
        n, dim = min(len(sets.real), len(sets.fake)), sets.real.shape[1]
        note = "can be below 0 where there is no difference"
        if n <= 2 * dim:
            note = f"not to be trusted: {n} are too few for {dim} features; " + note
        return [Result("fid_infinity", limit, error, n, "squared", note)]

"""Structural similarity (SSIM) of reconstructions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor

from sandglass.core import Batch, Model
from sandglass.distributions.similarity import WINDOW, largest_window, similarity
from sandglass.metrics._windows import data_range, range_note
from sandglass.metrics.evaluation import Better, Evaluation
from sandglass.metrics.measure import mean_result, per_example
from sandglass.registry import register
from sandglass.runs.result import Result


@register("ssim", kind="metric")
class SSIM:
    """Structural similarity of deterministic reconstructions, averaged over windows and channels; 1 is identical.

    Wang, Bovik, Sheikh and Simoncelli 2004, "Image Quality Assessment: From Error Visibility to Structural Similarity"
    (IEEE Transactions on Image Processing 13(4)).
    """

    needs = ("reconstruct",)
    requires = ("images", "complete")
    figures = ("ssim",)
    better: Mapping[str, Better] = {"ssim": "higher"}

    def __call__(self, model: Model, evaluation: Evaluation) -> Sequence[Result]:
        """The mean over images, each at most 1."""
        window, span = largest_window(model.spec), data_range(evaluation)

        def similar(batch: Batch) -> Tensor:
            return similarity(batch.x, model.reconstruct(batch), window, span)[0].mean(1)

        small = f"window {window}x{window}, for images smaller than {WINDOW}" if window < WINDOW else ""
        note = "; ".join(filter(None, (small, range_note(evaluation))))
        return [mean_result("ssim", per_example(model, evaluation, "ssim", similar), "1", note, by_example=True)]

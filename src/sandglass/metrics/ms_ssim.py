"""Multi-scale structural similarity."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor

from sandglass.core import Batch, Model
from sandglass.distributions.similarity import WEIGHTS, WINDOW, multiscale, scales
from sandglass.errors import ConfigError
from sandglass.metrics._windows import data_range, range_note
from sandglass.metrics.evaluation import Better, Evaluation, UnsuitableError
from sandglass.metrics.measure import mean_result, per_example
from sandglass.registry import register
from sandglass.runs.result import Result


@register("ms_ssim", kind="metric")
class MSSSIM:
    """Structural similarity of deterministic reconstructions at two to five scales; images of at least 22x22 pixels.

    Wang, Simoncelli and Bovik 2003, "Multi-Scale Structural Similarity for Image Quality Assessment" (37th Asilomar
    Conference on Signals, Systems and Computers).

    Args:
        window: side of the Gaussian window in pixels, odd; a smaller one than the paper's 11 admits smaller images.
    """

    needs = ("reconstruct",)
    requires = ("images", "complete")
    figures = ("ms_ssim",)
    better: Mapping[str, Better] = {"ms_ssim": "higher"}
    by_default = False  # small images are not supported

    def __init__(self, *, window: int = WINDOW) -> None:
        if window < 3 or window % 2 == 0:
            raise ConfigError(f"ms_ssim needs an odd window of at least 3, not {window}.")
        self.window = window

    def __call__(self, model: Model, evaluation: Evaluation) -> Sequence[Result]:
        """The mean over images, each in [0, 1]."""
        count = scales(model.spec, self.window)
        if count < 2:
            height, width = model.spec.shape[1:]
            raise UnsuitableError(
                f"The metric 'ms_ssim' needs images of at least {2 * self.window}x{2 * self.window} pixels for two "
                f"scales, and these have {height}x{width}; use 'ssim' or a smaller window."
            )
        span = data_range(evaluation)

        def similar(batch: Batch) -> Tensor:
            return multiscale(batch.x, model.reconstruct(batch), count, self.window, span).mean(1)

        fewer = f"{count} of {len(WEIGHTS)} scales, weights normalised to sum to 1" if count < len(WEIGHTS) else ""
        small = f"window {self.window}x{self.window}" if self.window != WINDOW else ""
        note = "; ".join(filter(None, (fewer, small, range_note(evaluation))))
        return [mean_result("ms_ssim", per_example(model, evaluation, "ms_ssim", similar), "1", note, by_example=True)]

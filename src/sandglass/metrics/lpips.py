"""Learned perceptual image patch similarity (LPIPS) of reconstructions."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sandglass.core import Batch, Model
from sandglass.errors import ConfigError, MissingPackageError, NotFoundError
from sandglass.metrics.evaluation import Better, Evaluation, UnsuitableError
from sandglass.metrics.measure import mean_result, per_example
from sandglass.registry import register
from sandglass.runs.result import Result

NETS = ("alex", "vgg", "squeeze")
SIDE = 64
"""Minimum side in pixels; on smaller images the deepest feature maps of these networks have one pixel or none."""
_AT_ONCE = 2**21  # values passed to the network at once


def prepared(x: Tensor) -> Tensor:
    """Images as these networks expect them: RGB in [-1, 1], at least 64 pixels a side.

    Greyscale images are repeated to three channels. Small images are enlarged bilinearly by an integer factor.

    Args:
        x: ``(B, 1 or 3, H, W)`` in [0, 1].

    Example:
        >>> prepared(torch.zeros(2, 1, 28, 30)).shape, float(prepared(torch.zeros(1, 3, 64, 64)).max())
        (torch.Size([2, 3, 84, 90]), -1.0)
    """
    x = 2 * x.float().expand(-1, 3, -1, -1) - 1
    factor = -(-SIDE // min(x.shape[2:]))
    return x if factor <= 1 else F.interpolate(x, scale_factor=factor, mode="bilinear", align_corners=False)


def network(name: str) -> nn.Module:
    """The network of the package ``lpips`` in eval mode.

    Raises:
        MissingPackageError: the package, or torchvision, is not installed.
        NotFoundError: its weights are not on this machine and could not be downloaded.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torchvision deprecates the argument by which lpips selects weights
        try:
            import lpips  # type: ignore[import-not-found, import-untyped, unused-ignore]
        except ImportError as error:
            raise MissingPackageError(
                "The metric 'lpips' needs lpips and torchvision: pip install 'sandglass-ml[lpips]'."
            ) from error
        try:
            made: Any = lpips.LPIPS(net=name, verbose=False)
        except OSError as error:
            reason = str(error).split("\n")[0][:200]
            raise NotFoundError(
                f"The weights of '{name}' for the metric 'lpips' could not be downloaded: {reason}. They are "
                "downloaded from torchvision once and then kept in PyTorch's cache."
            ) from error
    return made.eval().requires_grad_(False)


@register("lpips", kind="metric")
class LPIPS:
    """Perceptual distance of deterministic reconstructions in the features of a trained network; 0 is identical.

    Zhang, Isola, Efros, Shechtman and Wang 2018, "The Unreasonable Effectiveness of Deep Features as a Perceptual
    Metric" (arXiv 1801.03924), version 0.1 of its weights. Needs the extra ``lpips``.

    Args:
        net: the trained network: alex, vgg or squeeze.
    """

    needs = ("reconstruct",)
    requires = ("images", "complete")
    figures = ("lpips",)
    better: Mapping[str, Better] = {"lpips": "lower"}
    by_default = False

    def __init__(self, *, net: Literal["alex", "vgg", "squeeze"] = "alex") -> None:
        if net not in NETS:
            raise ConfigError(f"lpips needs a net that is one of {', '.join(NETS)}, not {net}.")
        self.net = net

    def __call__(self, model: Model, evaluation: Evaluation) -> Sequence[Result]:
        """The mean over images, each at least 0."""
        channels, *sides = model.spec.shape
        if channels not in (1, 3) or model.spec.support == "real":
            raise UnsuitableError(
                f"The metric 'lpips' needs grey or RGB images with values in [0, 1]; these have {channels} "
                f"channel(s) of {model.spec.support} values."
            )
        distance = network(self.net).to(model.device)

        def distances(batch: Batch) -> Tensor:
            x, reconstruction = batch.x, model.reconstruct(batch)
            rows = max(1, _AT_ONCE // prepared(x[:1]).numel())
            pairs = zip(x.split(rows), reconstruction.split(rows), strict=True)
            return torch.cat([distance(prepared(a), prepared(b)).flatten() for a, b in pairs])

        factor = -(-SIDE // min(sides))
        note = f"{self.net}, version 0.1" + (f"; images enlarged {factor} times" if factor > 1 else "")
        return [mean_result("lpips", per_example(model, evaluation, "lpips", distances), "1", note, by_example=True)]

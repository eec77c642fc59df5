"""How different a reconstruction looks to a network that was trained to see, calibrated on people's judgements."""

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
"""Pixels a side below which the deepest maps of these networks are a point or nothing."""
_AT_ONCE = 2**21  # numbers shown to the network at once


def shown(x: Tensor) -> Tensor:
    """Pictures as these networks want them: RGB in [-1, 1], of at least 64 pixels a side.

    Grey becomes three equal channels. Small pictures are enlarged by a whole factor, bilinearly.

    Args:
        x: ``(B, 1 or 3, H, W)`` in [0, 1].

    Example:
        >>> shown(torch.zeros(2, 1, 28, 30)).shape, float(shown(torch.zeros(1, 3, 64, 64)).max())
        (torch.Size([2, 3, 84, 90]), -1.0)
    """
    x = 2 * x.float().expand(-1, 3, -1, -1) - 1
    factor = -(-SIDE // min(x.shape[2:]))
    return x if factor <= 1 else F.interpolate(x, scale_factor=factor, mode="bilinear", align_corners=False)


def network(name: str) -> nn.Module:
    """The network of the package ``lpips`` in eval mode.

    Raises:
        MissingPackageError: the package, or torchvision, is not installed.
        NotFoundError: its weights are not on this machine and could not be fetched.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torchvision's, of the argument by which lpips names weights
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
                f"The weights of '{name}' for the metric 'lpips' could not be fetched: {reason}. They come from "
                "torchvision once, and are then kept in PyTorch's cache."
            ) from error
    return made.eval().requires_grad_(False)


@register("lpips", kind="metric")
class LPIPS:
    """Perceptual distance of deterministic reconstructions in the features of a trained network; 0 is the same.

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
        """The mean over pictures, each at least 0."""
        channels, *sides = model.spec.shape
        if channels not in (1, 3) or model.spec.support == "real":
            raise UnsuitableError(
                f"The metric 'lpips' needs grey or RGB pictures with values in [0, 1]; these have {channels} "
                f"channel(s) of {model.spec.support} values."
            )
        distance = network(self.net).to(model.device)

        def different(batch: Batch) -> Tensor:
            x, again = batch.x, model.reconstruct(batch)
            rows = max(1, _AT_ONCE // shown(x[:1]).numel())
            pairs = zip(x.split(rows), again.split(rows), strict=True)
            return torch.cat([distance(shown(a), shown(b)).flatten() for a, b in pairs])

        factor = -(-SIDE // min(sides))
        note = f"{self.net}, version 0.1" + (f"; pictures enlarged {factor} times" if factor > 1 else "")
        return [mean_result("lpips", per_example(model, evaluation, "lpips", different), "1", note)]

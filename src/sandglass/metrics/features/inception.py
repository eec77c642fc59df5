"""Features of the Inception network trained on ImageNet, for comparison with published results."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sandglass.core import Spec
from sandglass.errors import DataError, MissingPackageError, NotFoundError
from sandglass.metrics.evaluation import Evaluation
from sandglass.metrics.extractor import Extractor
from sandglass.registry import register


@register("inception", kind="features")
class Inception:
    """Inception-v3 of 2015, trained on ImageNet: 2,048 features, for comparison with published results.

    The network and its weights come from torch-fidelity, a conversion of the TensorFlow graph of Heusel et al. 2017
    (arXiv 1706.08500); the weights are downloaded once. Images are rounded to bytes and resized to 299x299 bilinearly,
    as in that graph; greyscale images are repeated to three channels. Needs ``pip install
    'sandglass-ml[inception]'``.

    Example:
        >>> from sandglass.data.dataset import Split
        >>> Inception()(Evaluation(split=Split(torch.zeros(3, 2)), spec=Spec((2,))), torch.device("cpu"))
        Traceback (most recent call last):
        sandglass.errors.DataError: The features 'inception' need images in [0, 1] with one or three channels.
    """

    @staticmethod
    def natural(spec: Spec) -> bool:
        """Never: the weights are a large download, and the network was trained on photographs."""
        return False

    def __call__(self, evaluation: Evaluation, device: torch.device) -> Extractor:
        """The pretrained network.

        Raises:
            DataError: the examples are not images in [0, 1] with one or three channels.
            MissingPackageError: torch-fidelity is not installed.
            NotFoundError: the weights could not be downloaded.
        """
        spec = evaluation.spec
        if not spec.is_image or spec.support == "real" or spec.shape[0] not in (1, 3):
            raise DataError("The features 'inception' need images in [0, 1] with one or three channels.")
        try:
            from torch_fidelity.feature_extractor_inceptionv3 import (  # type: ignore[import-not-found, unused-ignore]
                FeatureExtractorInceptionV3,
            )
        except ImportError as error:
            raise MissingPackageError(
                "The features 'inception' need torch-fidelity: pip install 'sandglass-ml[inception]'."
            ) from error
        try:
            with _tensors_only():
                body = FeatureExtractorInceptionV3("inception-v3-compat", ["2048"])
        except Exception as error:  # anything from a network failure to a damaged file
            why = str(error).strip().split("\n")[0]
            raise NotFoundError(f"The weights of the features 'inception' could not be loaded: {why[:200]}.") from error
        weight = body.fc.weight.detach().double().cpu()

        def classify(features: Tensor) -> Tensor:
            return F.log_softmax(features @ weight.T, 1)  # without the bias, as the graph does

        about = f"2048 Inception features of {spec.shape[1]}x{spec.shape[2]} images resized to 299x299"
        return Extractor(_AsBytes(body).to(device).eval(), about, classify, "the classes of ImageNet")


@contextmanager
def _tensors_only() -> Iterator[None]:
    """Context in which ``torch.load`` reads tensors only: torch-fidelity itself would let a weight file run code."""
    name = "TORCH_FORCE_WEIGHTS_ONLY_LOAD"
    before = os.environ.get(name)
    os.environ[name] = "1"
    try:
        yield
    finally:
        os.environ.pop(name)
        if before is not None:
            os.environ[name] = before


class _AsBytes(nn.Module):
    """Converts grey or RGB images in [0, 1] to RGB bytes for the network."""

    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.body = body

    def forward(self, x: Tensor) -> Tensor:
        """``(B, 1 or 3, H, W) -> (B, 2048)``."""
        levels = x.clamp(0, 1).mul(255).round().to(torch.uint8)
        return self.body(levels.expand(-1, 3, -1, -1))[0]

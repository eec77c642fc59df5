"""Features of an untrained network."""

from __future__ import annotations

import torch
from torch import nn

from sandglass import rng
from sandglass.core import Spec
from sandglass.errors import ConfigError
from sandglass.metrics.evaluation import Evaluation
from sandglass.metrics.extractor import Extractor
from sandglass.metrics.features._network import Network, some
from sandglass.registry import register

_FITTED = 5_000


@register("random", kind="features")
class Random:
    """A network with random weights, fixed by the seed; needs neither training nor labels.

    Naeem et al. 2020, "Reliable Fidelity and Diversity Metrics for Generative Models" (arXiv 2002.09797), find random
    embeddings more informative than pretrained ones on data unlike the pretraining data. Weights are initialised as in
    He et al. 2015 (arXiv 1502.01852).

    Args:
        dim: number of features.
        size: larger images are average-pooled to at most this many pixels a side.
        seed: of the weights.

    Example:
        >>> from sandglass.data.dataset import Split
        >>> evaluation = Evaluation(split=Split(torch.rand(20, 1, 8, 8)), spec=Spec((1, 8, 8), "unit"))
        >>> Random(dim=5)(evaluation, torch.device("cpu"))(evaluation.split.batch(slice(0, 3)).x).shape
        torch.Size([3, 5])
    """

    def __init__(self, *, dim: int = 32, size: int = 32, seed: int = 0) -> None:
        if dim < 1 or size < 1:
            raise ConfigError(f"The features 'random' need dim >= 1 and size >= 1, not {dim} and {size}.")
        self.dim, self.size, self.seed = dim, size, seed

    @staticmethod
    def natural(spec: Spec) -> bool:
        """Never."""
        return False

    def __call__(self, evaluation: Evaluation, device: torch.device) -> Extractor:
        """The network with seeded weights, normalised on the data."""
        with rng.forked("cpu", self.seed, "features", "random"):
            net = Network(evaluation.spec, dim=self.dim, outputs=1, size=self.size, activation="relu")
            for module in net.encoder.modules():
                if isinstance(module, nn.Conv2d | nn.Linear):
                    nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
                    nn.init.zeros_(module.bias)  # type: ignore[arg-type]
        source = evaluation.train if evaluation.train is not None else evaluation.split
        x = net.gather(source, some(source, _FITTED))
        net.fit_input(x)
        net.fit_output(x)
        return Extractor(net.to(device).eval().requires_grad_(False), f"{self.dim} features of a random network")

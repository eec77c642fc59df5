"""Inception score: confidence and diversity of a classifier's predictions on samples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from sandglass.metrics.evaluation import Better, UnsuitableError
from sandglass.metrics.extractor import FeaturesOption
from sandglass.metrics.samples import Compared, OfSamples
from sandglass.registry import register
from sandglass.runs.result import Result

_SPLITS = 10


@register("inception_score", kind="metric")
class InceptionScore(OfSamples):
    """Inception score: how confidently a classifier classifies samples, and how evenly over its classes.

    Salimans et al. 2016, "Improved Techniques for Training GANs" (arXiv 1606.03498), with a classifier of the data's
    own classes by default. From 1 to the number of classes.

    Args:
        features: the classifier: own, for labelled data, or inception.
        samples: number of samples, and maximum number of examples; by default the number of examples.
    """

    figures = ("inception_score",)
    better: Mapping[str, Better] = {"inception_score": "higher"}
    least = 2 * _SPLITS
    by_default = False  # it does not compare with real examples, so it is easily misread

    def __init__(self, *, features: FeaturesOption = "own", samples: int | None = None) -> None:
        super().__init__(features=features, samples=samples)

    def results(self, sets: Compared) -> Sequence[Result]:
        """The mean over ten parts of the samples; the note has the score of the examples.

        Raises:
            DataError: the features are not those of a classifier.
        """
        classify = sets.extractor.classify
        if classify is None:
            raise UnsuitableError(
                "The metric 'inception_score' needs a classifier: features 'own' on labelled data, or 'inception'."
            )
        values = scores(classify(sets.fake))
        real = float(scores(classify(sets.real)).mean())
        note = f"over {sets.extractor.classes}, {_SPLITS} parts; examples get {real:.2f}; {sets.extractor.about}"
        error = float(values.std() / len(values) ** 0.5)
        return [Result("inception_score", float(values.mean()), error, len(sets.fake), "1", note)]


def scores(log_probabilities: Tensor) -> Tensor:
    """``(10,)`` scores ``exp(E KL(p(y|x) || p(y)))`` of ten parts of ``(N, K)`` log probabilities.

    Example:
        >>> sure = torch.eye(5).double().log().repeat(10, 1)
        >>> [round(float(v), 6) for v in scores(sure)[:2]], round(float(scores(torch.full((10, 5), 0.2).log())[0]), 6)
        ([5.0, 5.0], 1.0)
    """
    return torch.stack([_score(part) for part in log_probabilities.tensor_split(_SPLITS)])


def _score(log_p: Tensor) -> Tensor:
    p = log_p.exp()
    marginal = p.mean(0)
    return torch.exp((torch.special.entr(marginal) - torch.special.entr(p).mean(0)).sum())

"""Shared by the metrics that compare samples with examples: the features of both, computed once per evaluation."""

from __future__ import annotations

import abc
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, TypeVar

import torch
from torch import Tensor

from sandglass import registry, rng
from sandglass.core import Batch, Model
from sandglass.data.dataset import Split
from sandglass.errors import ConfigError
from sandglass.metrics.evaluation import Evaluation, Requirement, UnsuitableError
from sandglass.metrics.extractor import Extractor, FeaturesOption
from sandglass.running import Key, borrowed, conditioned_on, sample
from sandglass.runs.result import Result

T = TypeVar("T")

_MOST = 10_000  # samples by default
_NUMBERS = 2**26  # maximum values in all samples together, so that fewer large images are drawn
_BATCH, _ELEMENTS = 256, 2**24  # maximum examples and maximum values per batch

QUICK = 1_000
"""Maximum number of samples by default where seconds count, at the end of training."""

COSTLY = 500
"""Maximum number of samples by default where one takes many evaluations of a network."""

LEAST = 100
"""Minimum number of examples for these metrics to run by default, and minimum number of samples of large images."""


@dataclass(frozen=True)
class Compared:
    """Features of examples and samples, each in random order.

    Args:
        real: ``(N, D)`` features of the evaluated examples: of content, and for some metrics of texture after these.
        fake: ``(M, D)`` features of samples.
        train: ``(N or fewer, D)`` features of training examples, the reference value of real data; None where there
            are none or the model is evaluated on them.
        extractor: the feature extractor.
        key: cache key of these features in the evaluation.
        evaluation: the evaluation.
    """

    real: Tensor
    fake: Tensor
    train: Tensor | None
    extractor: Extractor
    key: tuple[str, int]
    evaluation: Evaluation

    @property
    def about(self) -> str:
        """Description of the features."""
        content = self.extractor.content
        texture = 0 if content is None else self.real.shape[1] - content
        return self.extractor.about + (f", and {texture} of texture" if texture else "")

    def once(self, name: str, make: Callable[[], T]) -> T:
        """``make()``, computed once for these sets and shared by all metrics of one evaluation."""
        return self.evaluation.once((name, *self.key), make)


def worth_while(evaluation: Evaluation) -> bool:
    """Whether to compare samples by default: with fewer than 100 examples the figures are noise."""
    return len(evaluation.split) >= LEAST


class OfSamples(abc.ABC):
    """A metric that compares samples with examples in a feature space.

    Args:
        features: the feature extractor; auto is own for images and long rows, and pixels for short rows.
        samples: number of samples, and maximum number of examples; by default the number of examples.
    """

    needs: tuple[str, ...] = ()
    figures: tuple[str, ...]
    requires: tuple[Requirement, ...] = ("complete",)
    least = 2
    texture: ClassVar[bool] = False  # whether features of texture are compared, too
    by_default: ClassVar[bool | Callable[[Evaluation], bool]] = staticmethod(worth_while)

    def __init__(self, *, features: FeaturesOption = "auto", samples: int | None = None) -> None:
        if samples is not None and samples < self.least:
            raise ConfigError(f"The option samples must be at least {self.least}, not {samples}.")
        self.features, self.samples = features, samples

    def __call__(self, model: Model, evaluation: Evaluation) -> Sequence[Result]:
        """The figures; NaN where the samples are not finite."""
        if len(evaluation.split) < self.least:
            raise UnsuitableError(f"{type(self).__name__} compares samples with at least {self.least} examples.")
        sets = compare(model, evaluation, self.features, self.samples, texture=self.texture)
        if not bool(torch.isfinite(sets.fake).all()):
            note = "the model generates values that are not finite"
            return [Result(name, math.nan, None, len(sets.fake), "1", note) for name in self.figures]
        return with_conditions(model, self.results(sets))

    @abc.abstractmethod
    def results(self, sets: Compared) -> Sequence[Result]:
        """The figures, given finite features."""


def compare(
    model: Model,
    evaluation: Evaluation,
    features: FeaturesOption,
    samples: int | None = None,
    *,
    texture: bool = False,
) -> Compared:
    """Features of examples and samples, from the evaluation's cache where another metric has computed them.

    Samples of images are the likelihood's means given the latent, without observation noise, as in figures; samples
    of rows include the observation noise, as real rows do.

    Args:
        model: the model, on the device to compute on.
        evaluation: the examples.
        features: the feature extractor.
        samples: number of samples, and maximum number of examples.
        texture: whether to include features of texture, where the extractor has them.

    Example:
        >>> from sandglass.core import Spec
        >>> model = registry.build("gan", Spec((2,)), latent_dim=2)
        >>> sets = compare(model, Evaluation(split=Split(torch.randn(50, 2)), spec=model.spec), "auto")
        >>> sets.real.shape, sets.fake.shape
        (torch.Size([50, 2]), torch.Size([50, 2]))
    """
    key, extractor = extractor_of(model, evaluation, features)
    n = samples or min(len(evaluation.split), at_most(model, evaluation), max(LEAST, _NUMBERS // evaluation.spec.size))
    train = None if evaluation.train is None or same(evaluation.train, evaluation.split) else evaluation.train
    return Compared(
        of_examples(model, evaluation, key, extractor, "real", evaluation.split, n, texture=texture),
        of_samples(model, evaluation, key, extractor, n, texture=texture),
        None if train is None else of_examples(model, evaluation, key, extractor, "train", train, n, texture=texture),
        extractor,
        (key, n),
        evaluation,
    )


def extractor_of(model: Model, evaluation: Evaluation, features: FeaturesOption) -> tuple[str, Extractor]:
    """The extractor selected by an option, and a cache key for its features."""
    choice = registry.settle("features", registry.expand("features", features), evaluation.spec)
    key = json.dumps(choice, sort_keys=True)
    make: Callable[[], Extractor] = lambda: registry.resolve("features", choice)(evaluation, model.device)  # noqa: E731
    return key, evaluation.once(("extractor", key), make)


def of_examples(
    model: Model,
    evaluation: Evaluation,
    key: str,
    extractor: Extractor,
    name: str,
    split: Split,
    most: int,
    *,
    texture: bool = False,
) -> Tensor:
    """``(n, D)`` features of at most ``most`` examples, in random order since files are often sorted by class."""

    def make() -> Tensor:
        parts = order(split, name, most).split(batch_size(evaluation))
        return torch.cat([extractor(split.batch(part).x.to(model.device)) for part in parts])

    return evaluation.once(("features", key, name, most), make)[:, : None if texture else extractor.content]


def order(split: Split, name: str, most: int) -> Tensor:
    """``(n,)`` positions of the examples that :func:`of_examples` takes."""
    return rng.permutation(len(split), 0, "samples", name)[:most]


def of_samples(
    model: Model,
    evaluation: Evaluation,
    key: str,
    extractor: Extractor,
    n: int,
    given: Batch | None = None,
    *,
    texture: bool = False,
) -> Tensor:
    """``(n, D)`` features of :func:`drawn` samples; a larger ``n`` starts with the same samples."""

    def make() -> Tensor:
        parts = drawn(model, evaluation, n, given).split(batch_size(evaluation))
        return torch.cat([extractor(part.to(model.device)) for part in parts])

    other = given is not None and not conditioned_on(model)
    name = "samples given" if other else "samples"
    return evaluation.once(("features", key, name, n), make)[:, : None if texture else extractor.content]


def drawn(model: Model, evaluation: Evaluation, n: int, given: Batch | None = None) -> Tensor:
    """``(n, *shape)`` samples on the CPU; images without observation noise.

    Args:
        model: the model to sample from.
        evaluation: the examples.
        n: number of samples.
        given: conditions from :func:`given_to`, for a model that accepts labels but does not require them; a model
            that requires conditions always gets them.
    """
    key: Key = (evaluation.seed, "samples")
    if conditioned_on(model):
        given = given_to(evaluation, n)
    elif given is not None:
        return sample(model, n, key=key, given=given, noise=not evaluation.spec.is_image)
    # A larger number starts with the same samples, so that the largest so far serves every metric.
    known: Tensor | None = evaluation.memo.get("drawn")
    if known is None or len(known) < n:
        known = sample(model, n, key=key, given=given, noise=not evaluation.spec.is_image)
        evaluation.memo["drawn"] = known
    return known[:n]


def at_most(model: Model, evaluation: Evaluation) -> int:
    """Maximum number of samples of a model that no option asks for."""
    own = _MOST if model.evaluations == 1 else COSTLY
    return min(own, evaluation.most or _MOST, QUICK if evaluation.quick else _MOST)


def given_to(evaluation: Evaluation, n: int) -> Batch:
    """The labels and companions that ``n`` samples are conditioned on: those of examples in random order."""
    return borrowed(evaluation.split, n, evaluation.seed, "samples")


def with_conditions(model: Model, results: Sequence[Result]) -> list[Result]:
    """The results, with the conditions of the samples added to their notes."""
    names = conditioned_on(model)
    if not names:
        return list(results)
    condition = f"samples given the {names} of the examples"
    return [replace(result, note="; ".join(filter(None, (result.note, condition)))) for result in results]


def batch_size(evaluation: Evaluation) -> int:
    """Batch size, smaller for large images."""
    return min(_BATCH, max(1, _ELEMENTS // evaluation.spec.size))


def same(one: Split, other: Split) -> bool:
    """Whether two splits share the same tensor of examples."""
    return one.x is other.x


def squared_distances(a: Tensor, b: Tensor) -> Tensor:
    """Squared distances ``(A, B)`` of ``(A, D)`` and ``(B, D)`` points; exactly 0 for equal points despite rounding.

    Example:
        >>> a = torch.tensor([[1e4, 1.0]]).double()
        >>> squared_distances(a, torch.cat([a, a + 3]))
        tensor([[ 0., 18.]], dtype=torch.float64)
    """
    norms = a.square().sum(1)[:, None] + b.square().sum(1)
    distances = norms - 2 * (a @ b.T)
    return distances.masked_fill_(distances <= 1e-12 * norms, 0)

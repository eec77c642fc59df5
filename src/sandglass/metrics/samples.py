"""What measures of samples share: examples and samples as features, taken once for all of them."""

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
from sandglass.running import borrowed, conditioned_on, sample
from sandglass.runs.result import Result

T = TypeVar("T")

_MOST = 10_000  # samples, where nothing else is said
_NUMBERS = 2**26  # numbers in all those samples together: of large pictures there are fewer
_BATCH, _ELEMENTS = 256, 2**24  # examples in a batch at most, and numbers in it

LEAST = 100
"""Examples from which samples are compared with them by default, and samples at least of large pictures."""


@dataclass(frozen=True)
class Compared:
    """Examples and samples as features, each in random order.

    Args:
        real: ``(N, D)`` of examples the model is measured on.
        fake: ``(M, D)`` of samples.
        train: ``(N or fewer, D)`` of examples it was trained on, for what real data would get; None where there are
            none, or where they are those it is measured on.
        extractor: what made them.
        key: under which the memory of the evaluation has them.
        evaluation: the evaluation.
    """

    real: Tensor
    fake: Tensor
    train: Tensor | None
    extractor: Extractor
    key: tuple[str, int]
    evaluation: Evaluation

    def once(self, name: str, make: Callable[[], T]) -> T:
        """What is made of these sets, once for all measures of one evaluation."""
        return self.evaluation.once((name, *self.key), make)


def worth_while(evaluation: Evaluation) -> bool:
    """Whether samples are compared when no measure is named: below a hundred examples the figures are noise."""
    return len(evaluation.split) >= LEAST


class OfSamples(abc.ABC):
    """A measure that compares samples with examples in features.

    Args:
        features: where the features come from; auto is own for pictures and pixels for rows of few numbers.
        samples: how many to draw, and of how many examples; as many as there are examples when not given.
    """

    needs: tuple[str, ...] = ()
    figures: tuple[str, ...]
    requires: tuple[Requirement, ...] = ("complete",)
    least = 2
    by_default: ClassVar[bool | Callable[[Evaluation], bool]] = staticmethod(worth_while)

    def __init__(self, *, features: FeaturesOption = "auto", samples: int | None = None) -> None:
        if samples is not None and samples < self.least:
            raise ConfigError(f"The option samples must be at least {self.least}, not {samples}.")
        self.features, self.samples = features, samples

    def __call__(self, model: Model, evaluation: Evaluation) -> Sequence[Result]:
        """Figures of samples against examples; not finite where the samples are not."""
        if len(evaluation.split) < self.least:
            raise UnsuitableError(f"{type(self).__name__} compares samples with at least {self.least} examples.")
        sets = compare(model, evaluation, self.features, self.samples)
        if not bool(torch.isfinite(sets.fake).all()):
            note = "the model generates values that are not finite"
            return [Result(name, math.nan, None, len(sets.fake), "1", note) for name in self.figures]
        return with_conditions(model, self.results(sets))

    @abc.abstractmethod
    def results(self, sets: Compared) -> Sequence[Result]:
        """The figures of finite features."""


def compare(model: Model, evaluation: Evaluation, features: FeaturesOption, samples: int | None = None) -> Compared:
    """Examples and samples as features, from the memory of this evaluation where another measure made them.

    Samples of pictures are means given the latent, as they are shown; samples of rows are drawn with noise, as the
    rows themselves have it.

    Args:
        model: on the device to work on.
        evaluation: the examples.
        features: where the features come from.
        samples: how many to draw, and of how many examples.

    Example:
        >>> from sandglass.core import Spec
        >>> model = registry.build("gan", Spec((2,)), latent_dim=2)
        >>> sets = compare(model, Evaluation(split=Split(torch.randn(50, 2)), spec=model.spec), "auto")
        >>> sets.real.shape, sets.fake.shape
        (torch.Size([50, 2]), torch.Size([50, 2]))
    """
    key, extractor = extractor_of(model, evaluation, features)
    n = samples or min(len(evaluation.split), _MOST, max(LEAST, _NUMBERS // evaluation.spec.size))
    train = None if evaluation.train is None or same(evaluation.train, evaluation.split) else evaluation.train
    return Compared(
        of_examples(model, evaluation, key, extractor, "real", evaluation.split, n),
        of_samples(model, evaluation, key, extractor, n),
        None if train is None else of_examples(model, evaluation, key, extractor, "train", train, n),
        extractor,
        (key, n),
        evaluation,
    )


def extractor_of(model: Model, evaluation: Evaluation, features: FeaturesOption) -> tuple[str, Extractor]:
    """The extractor that an option names, and a key for what it makes."""
    choice = registry.settle("features", registry.expand("features", features), evaluation.spec)
    key = json.dumps(choice, sort_keys=True)
    make: Callable[[], Extractor] = lambda: registry.resolve("features", choice)(evaluation, model.device)  # noqa: E731
    return key, evaluation.once(("extractor", key), make)


def of_examples(
    model: Model, evaluation: Evaluation, key: str, extractor: Extractor, name: str, split: Split, most: int
) -> Tensor:
    """``(n, D)`` features of at most ``most`` examples, in random order: files often come class by class."""

    def make() -> Tensor:
        parts = order(split, name, most).split(batch_size(evaluation))
        return torch.cat([extractor(split.batch(part).x.to(model.device)) for part in parts])

    return evaluation.once(("features", key, name, most), make)


def order(split: Split, name: str, most: int) -> Tensor:
    """``(n,)`` positions of the examples that :func:`of_examples` takes."""
    return rng.permutation(len(split), 0, "samples", name)[:most]


def of_samples(
    model: Model, evaluation: Evaluation, key: str, extractor: Extractor, n: int, given: Batch | None = None
) -> Tensor:
    """``(n, D)`` features of :func:`drawn` samples; the first of more are the same."""

    def make() -> Tensor:
        parts = drawn(model, evaluation, n, given).split(batch_size(evaluation))
        return torch.cat([extractor(part.to(model.device)) for part in parts])

    other = given is not None and not conditioned_on(model)
    return evaluation.once(("features", key, "samples given" if other else "samples", n), make)


def drawn(model: Model, evaluation: Evaluation, n: int, given: Batch | None = None) -> Tensor:
    """``(n, *shape)`` samples on the CPU; pictures as means.

    Args:
        model: to draw from.
        evaluation: the examples.
        n: how many.
        given: :func:`given_to`, for a model that may be given labels and needs none; others always are.
    """
    given = given_to(evaluation, n) if conditioned_on(model) else given
    return sample(model, n, key=(evaluation.seed, "samples"), given=given, noise=not evaluation.spec.is_image)


def given_to(evaluation: Evaluation, n: int) -> Batch:
    """The labels and companions that ``n`` samples are drawn given: those of examples in random order."""
    return borrowed(evaluation.split, n, evaluation.seed, "samples")


def with_conditions(model: Model, results: Sequence[Result]) -> list[Result]:
    """The results, their notes saying what the samples were drawn given."""
    names = conditioned_on(model)
    if not names:
        return list(results)
    said = f"samples given the {names} of the examples"
    return [replace(result, note="; ".join(filter(None, (result.note, said)))) for result in results]


def batch_size(evaluation: Evaluation) -> int:
    """Examples in a batch, fewer of large pictures."""
    return min(_BATCH, max(1, _ELEMENTS // evaluation.spec.size))


def same(one: Split, other: Split) -> bool:
    """Whether two splits hold the very same examples."""
    return one.x is other.x


def squared_distances(a: Tensor, b: Tensor) -> Tensor:
    """``(A, D)`` and ``(B, D)`` to ``(A, B)``; of equal points exactly 0, as the sum of products alone would not be.

    Example:
        >>> a = torch.tensor([[1e4, 1.0]]).double()
        >>> squared_distances(a, torch.cat([a, a + 3]))
        tensor([[ 0., 18.]], dtype=torch.float64)
    """
    norms = a.square().sum(1)[:, None] + b.square().sum(1)
    distances = norms - 2 * (a @ b.T)
    return distances.masked_fill_(distances <= 1e-12 * norms, 0)

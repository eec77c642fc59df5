"""What measures of samples share: examples and samples as features, taken once for all of them."""

from __future__ import annotations

import abc
import json
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar, TypeVar

import torch
from torch import Tensor

from sandglass import registry, rng
from sandglass.core import Model, Result
from sandglass.data.dataset import Split
from sandglass.errors import ConfigError
from sandglass.metrics.extractor import Extractor, FeaturesOption
from sandglass.metrics.held import Ask, Held, UnsuitableError

T = TypeVar("T")

_MOST = 10_000  # samples, where nothing else is said
_NUMBERS = 2**26  # numbers in all those samples together: of large pictures there are fewer
_BATCH, _ELEMENTS = 256, 2**24  # examples in a batch at most, and numbers in it

LEAST = 100
"""Examples from which samples are compared with them unasked, and samples at least where pictures are large."""


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
        held: that memory.
    """

    real: Tensor
    fake: Tensor
    train: Tensor | None
    extractor: Extractor
    key: tuple[str, int]
    held: Held

    def once(self, name: str, make: Callable[[], T]) -> T:
        """What is made of these sets, once for all measures of one evaluation."""
        return self.held.once((name, *self.key), make)


def worth_while(held: Held) -> bool:
    """Whether samples are compared unasked: below a hundred examples the figures are noise."""
    return len(held.split) >= LEAST


class OfSamples(abc.ABC):
    """A measure that compares samples with examples in features.

    Args:
        features: where the features come from; auto is own for pictures and pixels for rows of few numbers.
        samples: how many to draw, and of how many examples; as many as there are examples when not given.
    """

    needs: tuple[str, ...] = ()
    figures: tuple[str, ...]
    asks: tuple[Ask, ...] = ("complete",)
    least = 2
    by_default: ClassVar[bool | Callable[[Held], bool]] = staticmethod(worth_while)

    def __init__(self, *, features: FeaturesOption = "auto", samples: int | None = None) -> None:
        if samples is not None and samples < self.least:
            raise ConfigError(f"The option samples must be at least {self.least}, not {samples}.")
        self.features, self.samples = features, samples

    def __call__(self, model: Model, held: Held) -> Sequence[Result]:
        """Figures of samples against examples; not finite where the samples are not."""
        if len(held.split) < self.least:
            raise UnsuitableError(f"{type(self).__name__} compares samples with at least {self.least} examples.")
        sets = compare(model, held, self.features, self.samples)
        if not bool(torch.isfinite(sets.fake).all()):
            note = "the model generates values that are not finite"
            return [Result(name, math.nan, None, len(sets.fake), "1", note) for name in self.figures]
        return self.results(sets)

    @abc.abstractmethod
    def results(self, sets: Compared) -> Sequence[Result]:
        """The figures of finite features."""


def compare(model: Model, held: Held, features: FeaturesOption, samples: int | None = None) -> Compared:
    """Examples and samples as features, from the memory of this evaluation where they were asked for before.

    Samples of pictures are means given the latent, as they are shown; samples of rows are drawn with noise, as the
    rows themselves have it.

    Args:
        model: on the device to work on.
        held: the examples.
        features: where the features come from.
        samples: how many to draw, and of how many examples.

    Example:
        >>> from sandglass.core import Spec
        >>> model = registry.build("gan", Spec((2,)), latent_dim=2)
        >>> sets = compare(model, Held(split=Split(torch.randn(50, 2)), spec=model.spec), "auto")
        >>> sets.real.shape, sets.fake.shape
        (torch.Size([50, 2]), torch.Size([50, 2]))
    """
    key, extractor = extractor_of(model, held, features)
    n = samples or min(len(held.split), _MOST, max(LEAST, _NUMBERS // held.spec.size))
    train = None if held.train is None or same(held.train, held.split) else held.train
    return Compared(
        of_examples(model, held, key, extractor, "real", held.split, n),
        of_samples(model, held, key, extractor, n),
        None if train is None else of_examples(model, held, key, extractor, "train", train, n),
        extractor,
        (key, n),
        held,
    )


def extractor_of(model: Model, held: Held, features: FeaturesOption) -> tuple[str, Extractor]:
    """The extractor that an option names, and a key for what it makes."""
    choice = registry.settle("features", registry.expand("features", features), held.spec)
    key = json.dumps(choice, sort_keys=True)
    make: Callable[[], Extractor] = lambda: registry.resolve("features", choice)(held, model.device)  # noqa: E731
    return key, held.once(("extractor", key), make)


def of_examples(model: Model, held: Held, key: str, extractor: Extractor, name: str, split: Split, most: int) -> Tensor:
    """``(n, D)`` features of at most ``most`` examples, in random order: files often come class by class."""

    def make() -> Tensor:
        index = rng.permutation(len(split), 0, "samples", name)[:most]
        return torch.cat([extractor(split.batch(part).x.to(model.device)) for part in index.split(batch_size(held))])

    return held.once(("features", key, name, most), make)


def of_samples(model: Model, held: Held, key: str, extractor: Extractor, n: int) -> Tensor:
    """``(n, D)`` features of samples; the first of more are the same."""

    def make() -> Tensor:
        return torch.cat([extractor(x) for x in drawn(model, held, n)])

    return held.once(("features", key, "samples", n), make)


def drawn(model: Model, held: Held, n: int) -> Iterator[Tensor]:
    """Samples batch by batch, ``(B, *shape)``, each under a key of its place."""
    size = batch_size(held)
    for place, start in enumerate(range(0, n, size)):
        rng.reseed(rng.key(held.seed, "samples", place), model.device)
        yield model.sample(size, noise=not held.spec.is_image)[: n - start]


def batch_size(held: Held) -> int:
    """Examples in a batch, fewer of large pictures."""
    return min(_BATCH, max(1, _ELEMENTS // held.spec.size))


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

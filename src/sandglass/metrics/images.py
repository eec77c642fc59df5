"""Shared by the metrics that compare the pixels of samples with those of examples, in the levels of the data."""

from __future__ import annotations

import abc
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from sandglass.core import Model, Spec
from sandglass.data.dataset import Split
from sandglass.errors import ConfigError
from sandglass.metrics.evaluation import Evaluation, Requirement, UnsuitableError
from sandglass.metrics.samples import at_most, drawn, order, same, with_conditions, worth_while
from sandglass.runs.result import Result

_NUMBERS = 2**24  # maximum values in each set, so that fewer large images are compared
_LEAST = 32  # images of any size


@dataclass(frozen=True)
class Images:
    """Images to compare, each set in random order, all rounded to the levels of the data.

    Args:
        real: ``(N, C, H, W)`` of the evaluated examples.
        fake: ``(M, C, H, W)`` samples.
        train: ``(K, C, H, W)`` training examples, the reference of real data; None where there are none or the model is
            evaluated on them.
    """

    real: Tensor
    fake: Tensor
    train: Tensor | None


class OfImages(abc.ABC):
    """A metric that compares the pixels of samples with those of examples.

    Args:
        samples: maximum number of samples and of examples; fewer of large images.
    """

    needs: tuple[str, ...] = ()
    figures: tuple[str, ...]
    requires: tuple[Requirement, ...] = ("images", "complete")
    least: ClassVar[int] = 2
    by_default = staticmethod(worth_while)
    quick = True

    def __init__(self, *, samples: int) -> None:
        if samples < self.least:
            raise ConfigError(f"The option samples must be at least {self.least}, not {samples}.")
        self.samples = samples

    def __call__(self, model: Model, evaluation: Evaluation) -> Sequence[Result]:
        """The figures; NaN where the samples are not finite."""
        if len(evaluation.split) < self.least:
            raise UnsuitableError(f"{type(self).__name__} compares samples with at least {self.least} examples.")
        sets = images_of(model, evaluation, self.samples)
        if not bool(torch.isfinite(sets.fake).all()):
            note = "the model generates values that are not finite"
            return [Result(name, math.nan, None, len(sets.fake), "1", note) for name in self.figures]
        return with_conditions(model, self.results(sets, evaluation))

    @abc.abstractmethod
    def results(self, sets: Images, evaluation: Evaluation) -> Sequence[Result]:
        """The figures, given finite images."""


def images_of(model: Model, evaluation: Evaluation, most: int) -> Images:
    """Examples, as many samples, and training examples; at most ``most`` of each, and fewer of large images."""
    n = min(len(evaluation.split), most, at_most(model, evaluation), max(_LEAST, _NUMBERS // evaluation.spec.size))

    def examples(split: Split, name: str) -> Tensor:
        chosen = order(split, name, n)
        return evaluation.once(("images", name, n), lambda: quantised(split.batch(chosen).x.cpu(), evaluation.spec))

    train = None if evaluation.train is None or same(evaluation.train, evaluation.split) else evaluation.train
    return Images(
        examples(evaluation.split, "real"),
        quantised(drawn(model, evaluation, n), evaluation.spec),
        None if train is None else examples(train, "train"),
    )


def quantised(x: Tensor, spec: Spec) -> Tensor:
    """``(N, *shape)`` in float32, rounded to the levels of data in [0, 1]; other data as it is.

    A sample is a mean with all the digits of a float, and an example is one of 256 levels: without rounding, the last
    digits alone tell them apart.

    Example:
        >>> quantised(torch.tensor([[0.3, 0.7, 1.2]]), Spec((3,), "unit", levels=3))
        tensor([[0.5000, 0.5000, 1.0000]])
    """
    if spec.support not in ("unit", "levels", "binary"):
        return x.float()
    top = 1 if spec.support == "binary" else max(spec.levels - 1, 1)
    return (x.float().clamp(0, 1) * top).round() / top

"""The examples a model is evaluated on, and what a metric may require of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, MutableMapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar

from sandglass.core import Spec
from sandglass.data.dataset import Mixture, Split
from sandglass.errors import DataError

T = TypeVar("T")


class UnsuitableError(DataError):
    """A metric cannot be computed on these examples; a metric that was not requested by name is then skipped."""


FEW = 30
"""With fewer examples, the standard error itself is too uncertain to rely on."""

Requirement = Literal["images", "labels", "factors", "train", "complete", "mixture"]
Better = Literal["higher", "lower"]

_MISSING: Mapping[Requirement, str] = {
    "images": "images, and these examples are rows",
    "labels": "class labels, and these examples have none",
    "factors": "examples with known generative factors, as in the data set 'shapes'",
    "train": "the training examples, which are not available",
    "complete": "complete examples, and these have missing values",
    "mixture": "examples from a mixture with known centres, as in the data set 'ring'",
}


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """The examples a model is evaluated on, and what metrics may compare them with.

    Args:
        split: the examples.
        spec: specification of one example.
        seed: of the noise.
        train: the training examples, None when unknown.
        factors: names of the columns of ``split.factors``.
        classes: names of the classes, empty where unknown.
        mixture: the mixture the examples were drawn from, None when unknown.
        fingerprint: of the data, the cache key of feature networks learnt from it; empty for no caching.
        most: maximum number of samples that no option asks for, so that models are compared with as many; None for that
            of the model.
        exact: whether nothing may be computed in bf16, as where models are compared.
        quick: whether what takes long is left out or measured on less, as at the end of training.
        memo: cache shared by the metrics; see :meth:`once`.
    """

    split: Split
    spec: Spec
    seed: int = 0
    train: Split | None = None
    factors: tuple[str, ...] = ()
    classes: tuple[str, ...] = ()
    mixture: Mixture | None = None
    fingerprint: str = ""
    most: int | None = None
    quick: bool = False
    exact: bool = False
    memo: MutableMapping[Any, Any] = field(default_factory=dict, repr=False)

    def once(self, key: object, make: Callable[[], T]) -> T:
        """``make()``, computed once and shared by all metrics of one evaluation.

        Example:
            >>> import torch
            >>> evaluation = Evaluation(split=Split(torch.zeros(3, 2)), spec=Spec((2,)))
            >>> evaluation.once("n", lambda: 3), evaluation.once("n", lambda: 4)
            (3, 3)
        """
        if key not in self.memo:
            self.memo[key] = make()
        return self.memo[key]

    def class_name(self, number: int) -> str:
        """The name of a class, or its number where it is unknown.

        Example:
            >>> import torch
            >>> evaluation = Evaluation(split=Split(torch.zeros(3, 2)), spec=Spec((2,)), classes=("car", "horse"))
            >>> evaluation.class_name(1), evaluation.class_name(2)
            ("class 'horse'", 'class 2')
        """
        return f"class '{self.classes[number]}'" if number < len(self.classes) else f"class {number}"

    def has(self, requirement: Requirement) -> bool:
        """Whether the examples meet a requirement."""
        return {
            "images": self.spec.is_image,
            "labels": self.split.y is not None,
            "factors": self.split.factors is not None,
            "train": self.train is not None,
            "complete": self.split.mask is None,
            "mixture": self.mixture is not None,
        }[requirement]

    def require(self, requirement: Requirement, measure: str) -> None:
        """Checks that the examples meet a requirement.

        Raises:
            UnsuitableError: they do not.
        """
        if not self.has(requirement):
            raise UnsuitableError(f"The metric '{measure}' needs {_MISSING[requirement]}.")

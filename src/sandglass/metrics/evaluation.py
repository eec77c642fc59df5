"""The examples that a model is measured on, and what a measure may require of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, MutableMapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar

from sandglass.core import Spec
from sandglass.data.dataset import Mixture, Split
from sandglass.errors import DataError

T = TypeVar("T")


class UnsuitableError(DataError):
    """A measure cannot be taken on these examples; one that was not named is then left out."""


FEW = 30
"""Examples under which a standard error is itself too uncertain to judge by."""

Requirement = Literal["images", "labels", "factors", "train", "complete", "mixture"]
Better = Literal["higher", "lower"]

_MISSING: Mapping[Requirement, str] = {
    "images": "pictures, and these examples are rows",
    "labels": "a class for every example, and these have none",
    "factors": "examples with known generative factors, as in the data set 'shapes'",
    "train": "the examples the model was trained on, and they are not at hand",
    "complete": "examples without gaps, and these have missing values",
    "mixture": "examples drawn around known centres, as in the data set 'ring'",
}


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """The examples a model is measured on, and what a measure may compare them with.

    Args:
        split: the examples.
        spec: what one of them looks like.
        seed: of the noise.
        train: what the model was trained on, None where that is not known.
        factors: names of the columns of ``split.factors``.
        mixture: the centres that the examples were drawn around, None where there are none known.
        fingerprint: of the data, for what is learnt from it once and kept; empty where it has none.
        memo: what one measure worked out and another can use; see :meth:`once`.
    """

    split: Split
    spec: Spec
    seed: int = 0
    train: Split | None = None
    factors: tuple[str, ...] = ()
    mixture: Mixture | None = None
    fingerprint: str = ""
    memo: MutableMapping[Any, Any] = field(default_factory=dict, repr=False)

    def once(self, key: object, make: Callable[[], T]) -> T:
        """``make()``, worked out once for all measures of one evaluation.

        Example:
            >>> import torch
            >>> evaluation = Evaluation(split=Split(torch.zeros(3, 2)), spec=Spec((2,)))
            >>> evaluation.once("n", lambda: 3), evaluation.once("n", lambda: 4)
            (3, 3)
        """
        if key not in self.memo:
            self.memo[key] = make()
        return self.memo[key]

    def has(self, requirement: Requirement) -> bool:
        """Whether the examples have what a measure requires."""
        return {
            "images": self.spec.is_image,
            "labels": self.split.y is not None,
            "factors": self.split.factors is not None,
            "train": self.train is not None,
            "complete": self.split.mask is None,
            "mixture": self.mixture is not None,
        }[requirement]

    def require(self, requirement: Requirement, measure: str) -> None:
        """Refuses examples that lack what a measure requires.

        Raises:
            UnsuitableError: they do.
        """
        if not self.has(requirement):
            raise UnsuitableError(f"The metric '{measure}' needs {_MISSING[requirement]}.")

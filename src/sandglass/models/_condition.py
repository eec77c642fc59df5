"""The condition of a model: the classes of its examples, or a companion."""

from __future__ import annotations

import torch
from torch import Tensor

from sandglass.core import Batch, Spec
from sandglass.distributions.observed import fill
from sandglass.errors import ConfigError, named_type
from sandglass.nets.net import Condition


class Given:
    """Reads the condition from a batch.

    Args:
        name: ``"labels"``, the name of a companion, or an empty text for no condition.
        spec: the data.

    Attributes:
        cond: width or shape of the condition, for the networks.
        needs: the ``needs`` of a model with this condition.

    Raises:
        ConfigError: the data has no labels or no such companion.

    Example:
        >>> Given("labels", Spec((2,), classes=3))(Batch(torch.zeros(2, 2), torch.tensor([2, -1])))
        tensor([[0., 0., 1.],
                [0., 0., 0.]])
    """

    def __init__(self, name: str, spec: Spec) -> None:
        self.name, self.classes, self.cond, self.needs = name, spec.classes, 0, ()
        if name == "labels":
            if not spec.classes:
                raise ConfigError(
                    "A model conditioned on labels needs data with classes; name their column with --labels."
                )
            self.cond, self.needs = spec.classes, ("labels",)
        elif name:
            companion = companion_of(spec, name)
            self.cond = companion.shape if companion.is_image else companion.size
            self.needs = (f"{name}:{companion.layout}",)

    cond: Condition
    needs: tuple[str, ...]

    def __call__(self, batch: Batch | None, n: int | None = None) -> Tensor | None:
        """``(B, classes)`` one-hot classes, 0 for unknown ones, or ``(B, ...)`` companions; None without a condition.

        Args:
            batch: the examples.
            n: the expected number, if there is one.

        Raises:
            ConfigError: the batch has no condition, or not ``n``.
        """
        if batch is not None and not isinstance(batch, Batch):
            raise ConfigError(f"Conditions are a Batch, such as Batch(y=labels), not {named_type(batch)}.")
        if not self.name:
            return None
        labelled = self.name == "labels"
        found = None if batch is None else batch.y if labelled else batch.given.get(self.name)
        if found is None:
            how = (
                "labels: give --label 3, or --label each"
                if labelled
                else f"'{self.name}': give --given {self.name}=FILE"
            )
            raise ConfigError(f"This model is conditioned on {how}.")
        if n is not None and found.shape[0] != n:  # len() would fix the size of an exported graph
            raise ConfigError(f"{n} examples were asked for, and {len(found)} conditions were given.")
        if not labelled:
            return found if isinstance(self.cond, tuple) else found.flatten(1)
        return one_hot(found, self.classes)


def one_hot(y: Tensor, classes: int) -> Tensor:
    """``(B, classes)`` floats from class numbers ``(B,)``, all 0 for unknown ones (-1).

    Without a synchronisation, unlike ``torch.nn.functional.one_hot``, which checks the values on the host.
    """
    return (y[:, None] == torch.arange(classes, device=y.device)).float()


class Sees:
    """Reads the input of an encoder from a batch: the example itself, or a companion such as a damaged copy.

    Args:
        name: of the companion, ``"x"``, or ``"auto"`` for the damaged copy where there is one.
        spec: the data.

    Attributes:
        spec: of the input.

    Raises:
        ConfigError: the data has no such companion.
    """

    def __init__(self, name: str, spec: Spec) -> None:
        self.name = ("damaged" if "damaged" in spec.given else "x") if name == "auto" else name
        self.spec = spec if self.name == "x" else companion_of(spec, self.name)
        self.needs = () if self.name in ("x", "damaged") else (f"{self.name}:{self.spec.layout}",)

    def __call__(self, batch: Batch) -> Tensor:
        """``(B, *shape)``, 0 where x is missing; without a damaged copy the example itself is used."""
        if self.name not in batch.given and self.name not in ("x", "damaged"):
            raise ConfigError(f"This model encodes the companion '{self.name}' of each example, which is missing.")
        x = batch.given.get(self.name, batch.x)
        return fill(x, batch.mask) if self.name in ("x", "damaged") else x


def companion_of(spec: Spec, name: str) -> Spec:
    """The companion of that name.

    Raises:
        ConfigError: there is none.
    """
    if name not in spec.given:
        known = ", ".join(spec.given) or "none"
        raise ConfigError(
            f"The data has no companion '{name}' of its examples; it has: {known}. Give one with --given {name}=SOURCE."
        )
    return spec.given[name]

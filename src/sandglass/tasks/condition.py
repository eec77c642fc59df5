"""Conditions of conditional models: a class, every class in turn, or companions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from sandglass import rng
from sandglass.core import Batch, Spec
from sandglass.data.dataset import Split
from sandglass.data.load import load_data
from sandglass.data.transform import Transform
from sandglass.errors import ConfigError, DataError
from sandglass.registry import nearest, require
from sandglass.tasks.trained import Trained, check_count

EACH = "each"
"""The label that stands for every class in turn."""


@dataclass(frozen=True)
class Given:
    """Conditions of a number of examples.

    Args:
        batch: the conditions, None for an unconditional model.
        n: number of examples.
        name: the common class, if they have one.
        note: a message for the user.
    """

    batch: Batch | None
    n: int
    name: str = ""
    note: str = ""

    @property
    def of(self) -> str:
        """`` of class ...``, or an empty string."""
        return f" of class {self.name}" if self.name else ""


class Condition:
    """The condition of a conditional model.

    Args:
        label: a class by name or number, or each for every class in turn; in Python also a list with a class for every
            example.
        given: companions or examples of a second set to condition on, as NAME=FILE or NAME=FOLDER, separated by commas.
    """

    def __init__(self, *, label: str | Sequence[str] = "", given: str | Mapping[str, Any] = "") -> None:
        self.label = "" if isinstance(label, list | tuple) else str(label)
        self.labels = [str(one) for one in label] if isinstance(label, list | tuple) else []
        self.given = dict(given) if isinstance(given, Mapping) else _named(given)

    @property
    def options(self) -> dict[str, Any]:
        """Its options again."""
        return {"label": self.labels or self.label, "given": self.given}

    @property
    def each(self) -> bool:
        """Whether every class is requested."""
        return self.label == EACH

    def __call__(self, trained: Trained, n: int | None, seed: int = 0, default: int = 1) -> list[Given]:
        """The conditions of ``n`` examples, or of ``n`` examples of every class.

        Args:
            trained: the model.
            n: number of examples; by default one per companion, or ``default`` without companions.
            seed: of randomly drawn classes, where the model needs labels and none is given.
            default: see ``n``.

        Raises:
            ConfigError: the model has no such class or companion.
        """
        found = self._companions(trained)
        count = max((len(t) for t in found.values()), default=0)
        n = n or count or len(self.labels) or default
        check_count("The number of examples", n)
        repeated = {name: t[torch.arange(n) % len(t)] for name, t in found.items()}
        companions = {name: t for name, t in repeated.items() if name in trained.model.spec.given}
        beside = {name: Batch(t) for name, t in repeated.items() if name not in companions}
        if self.labels:
            require(trained.model, "labels")
            if len(self.labels) != n:
                raise ConfigError(f"{n} examples were asked for, and {len(self.labels)} labels were given.")
            y = torch.tensor([number_of(label, trained) for label in self.labels])
            return [Given(Batch(y=y, given=companions, beside=beside), n)]
        if self.label:
            require(trained.model, "labels")
            chosen = range(trained.model.spec.classes) if self.each else [number_of(self.label, trained)]
            batches = {k: Batch(y=torch.full((n,), k), given=companions, beside=beside) for k in chosen}
            return [Given(batch, n, class_name(k, trained)) for k, batch in batches.items()]
        if "labels" in trained.model.conditions:
            y, note = self._in_proportion(trained, n, seed)
            return [Given(Batch(y=y, given=companions, beside=beside), n, note=note)]
        return [Given(Batch(given=companions, beside=beside) if found else None, n)]

    @staticmethod
    def columns(trained: Trained, given: Sequence[Given]) -> dict[str, list[str]]:
        """The class of every example, for class-conditional samples."""
        found = [g.batch.y for g in given if g.batch is not None and g.batch.y is not None]
        return {"class": [class_name(int(k), trained) for y in found for k in y]} if found else {}

    def _in_proportion(self, trained: Trained, n: int, seed: int) -> tuple[Tensor, str]:
        """``(n,)`` classes drawn in the proportions of the training data, and a note about it."""
        try:
            counts = class_counts(trained.own.train, trained.model.spec.classes)
        except (ConfigError, DataError, OSError):
            counts = torch.ones(trained.model.spec.classes)
            how = "all classes equally often, since the training data is not available"
        else:
            how = "classes in the proportions of the training data"
        y = torch.multinomial(counts.double(), n, replacement=True, generator=rng.generator(seed, "labels"))
        return y, f"{how}; choose a class with --label, or all with --label each"

    def _companions(self, trained: Trained) -> dict[str, Tensor]:
        """The given companions ``(N, *shape)`` by name."""
        known = {**trained.model.spec.given, **trained.model.spec.beside}
        for name in self.given:
            if name not in known:
                listed = ", ".join(known) or "none"
                hint = nearest(name, list(known))
                raise ConfigError(f"The model has no companion '{name}'.{hint} It has: {listed}.")
        how = {**trained.transform.given, **trained.transform.beside}
        splits = {name: read_companion(source, known[name], how.get(name)) for name, source in self.given.items()}
        return {name: split.batch(slice(0, len(split))).x for name, split in splits.items()}


def read_companion(source: Any, spec: Spec, transform: Transform | None) -> Split:
    """Companions ``(N, *shape)`` from a file or folder, with their names; a tensor or split is used as is.

    Args:
        source: a path, tensor or split.
        spec: specification of the companion.
        transform: its preprocessing in training.

    Raises:
        DataError: the shape does not match.
    """
    if isinstance(source, Tensor):
        source = Split(source)
    if not isinstance(source, Split):
        source = load_data(source, transform=transform, labels=False, validation=0.0, test=0.0).train
    found: Split = source
    if tuple(found.x.shape[1:]) != spec.shape:
        raise DataError(f"These examples have shape {tuple(found.x.shape[1:])}; the model needs {spec.shape}.")
    return found


def number_of(label: str, trained: Trained) -> int:
    """The index of a class given by name or number.

    Raises:
        ConfigError: there is no such class.
    """
    classes, count = trained.classes, trained.model.spec.classes
    if label in classes:
        return classes.index(label)
    if label.isdigit() and int(label) < count:
        return int(label)
    listed = ", ".join(classes[:20]) + (", ..." if len(classes) > 20 else "") if classes else f"0 to {count - 1}"
    raise ConfigError(f"There is no class '{label}'.{nearest(label, list(classes))} Known: {listed}.")


def class_name(k: int, trained: Trained) -> str:
    """The name of a class, or its number without a name; empty for no label (-1)."""
    return "" if k < 0 else trained.classes[k] if k < len(trained.classes) else str(k)


def class_counts(split: Split, classes: int) -> Tensor:
    """``(classes,)`` number of examples of each class.

    Raises:
        DataError: no example has a label.
    """
    known = torch.empty(0, dtype=torch.int64) if split.y is None else split.y.cpu()
    known = known[known >= 0]
    if not len(known):
        raise DataError("No example has a label.")
    return known.bincount(minlength=classes)[:classes]


def _named(text: str) -> dict[str, str]:
    """Parses ``source=a.png,grey=b/`` to a mapping.

    Raises:
        ConfigError: a part has no name.
    """
    found = {}
    for part in filter(None, (p.strip() for p in text.split(","))):
        name, equals, value = part.partition("=")
        if not (name and equals and value):
            raise ConfigError(f"--given must be NAME=FILE, such as source=sketch.png, not '{part}'.")
        found[name] = value
    return found

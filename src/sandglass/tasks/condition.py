"""What a conditional model is asked for: a class, every class in turn, or companions that a person gives."""

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
    """Conditions of some examples.

    Args:
        batch: the conditions, None for a model without.
        n: of how many examples.
        name: the class they are of, where they are all of one.
        note: what a person must know of them.
    """

    batch: Batch | None
    n: int
    name: str = ""
    note: str = ""

    @property
    def of(self) -> str:
        """`` of class ...``, or nothing."""
        return f" of class {self.name}" if self.name else ""


class Condition:
    """What a conditional model draws under.

    Args:
        label: a class by its name or number, or each for all of them, a row each.
        given: companions, or examples of a set beside, that the model draws from, as NAME=FILE or NAME=FOLDER, with
            commas between several.
    """

    def __init__(self, *, label: str = "", given: str | Mapping[str, Any] = "") -> None:
        self.label = str(label)
        self.given = dict(given) if isinstance(given, Mapping) else _named(given)

    @property
    def each(self) -> bool:
        """Whether every class is wanted."""
        return self.label == EACH

    def __call__(self, trained: Trained, n: int | None, seed: int = 0, usual: int = 1) -> list[Given]:
        """The conditions of ``n`` examples, once, or of ``n`` of every class.

        Args:
            trained: the model.
            n: how many are wanted; one for each companion where not given, ``usual`` without companions.
            seed: of the classes that are drawn where a model needs them and none was named.
            usual: see ``n``.

        Raises:
            ConfigError: a class or companion that the model does not know.
        """
        found = self._companions(trained)
        count = max((len(t) for t in found.values()), default=0)
        n = n or count or usual
        check_count("The number of examples", n)
        turned = {name: t[torch.arange(n) % len(t)] for name, t in found.items()}
        companions = {name: t for name, t in turned.items() if name in trained.model.spec.given}
        beside = {name: Batch(t) for name, t in turned.items() if name not in companions}
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
    def columns(trained: Trained, asked: Sequence[Given]) -> dict[str, list[str]]:
        """The class of every example, where they were drawn under one."""
        found = [g.batch.y for g in asked if g.batch is not None and g.batch.y is not None]
        return {"class": [class_name(int(k), trained) for y in found for k in y]} if found else {}

    def _in_proportion(self, trained: Trained, n: int, seed: int) -> tuple[Tensor, str]:
        """``(n,)`` classes drawn as often as the training data has them, and how to say so."""
        try:
            counts = class_counts(trained.own.train, trained.model.spec.classes)
        except (ConfigError, DataError, OSError):
            counts = torch.ones(trained.model.spec.classes)
            how = "all classes as often, for the training data is not at hand"
        else:
            how = "classes in the proportions of the training data"
        y = torch.multinomial(counts.double(), n, replacement=True, generator=rng.generator(seed, "labels"))
        return y, f"{how}; --label chooses one, --label each shows all"

    def _companions(self, trained: Trained) -> dict[str, Tensor]:
        """By name, ``(N, *shape)`` what was given."""
        known = {**trained.model.spec.given, **trained.model.spec.beside}
        for name in self.given:
            if name not in known:
                listed = ", ".join(known) or "none"
                hint = nearest(name, list(known))
                raise ConfigError(f"The model knows no companion '{name}'.{hint} It has: {listed}.")
        how = {**trained.transform.given, **trained.transform.beside}
        splits = {name: read_companion(source, known[name], how.get(name)) for name, source in self.given.items()}
        return {name: split.batch(slice(0, len(split))).x for name, split in splits.items()}


def read_companion(source: Any, spec: Spec, transform: Transform | None) -> Split:
    """Companions ``(N, *shape)`` from a file or folder, with their names; a tensor or split is taken as it is.

    Args:
        source: where they are.
        spec: what the model reads.
        transform: how they were prepared in training.

    Raises:
        DataError: they do not fit.
    """
    if isinstance(source, Tensor):
        source = Split(source)
    if not isinstance(source, Split):
        source = load_data(source, transform=transform, labels=False, validation=0.0, test=0.0).train
    found: Split = source
    if tuple(found.x.shape[1:]) != spec.shape:
        raise DataError(f"These examples have the shape {tuple(found.x.shape[1:])}; the model reads {spec.shape}.")
    return found


def number_of(label: str, trained: Trained) -> int:
    """A class by its name, else by its number.

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
    """The name of a class, its number where it has none."""
    return trained.classes[k] if k < len(trained.classes) else str(k)


def class_counts(split: Split, classes: int) -> Tensor:
    """``(classes,)`` how many examples of each there are.

    Raises:
        DataError: no example has a class.
    """
    known = torch.empty(0, dtype=torch.int64) if split.y is None else split.y.cpu()
    known = known[known >= 0]
    if not len(known):
        raise DataError("No example has a class.")
    return known.bincount(minlength=classes)[:classes]


def _named(text: str) -> dict[str, str]:
    """``source=a.png,grey=b/`` by name.

    Raises:
        ConfigError: a part without a name.
    """
    found = {}
    for part in filter(None, (p.strip() for p in text.split(","))):
        name, equals, value = part.partition("=")
        if not (name and equals and value):
            raise ConfigError(f"--given must be NAME=FILE, such as source=sketch.png, not '{part}'.")
        found[name] = value
    return found

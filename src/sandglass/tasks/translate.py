"""Examples of one kind into those of another."""

from __future__ import annotations

from typing import Annotated, Any

import numpy as np
from torch import Tensor

from sandglass import running
from sandglass.core import Batch, Model
from sandglass.data.dataset import Split
from sandglass.errors import ConfigError
from sandglass.registry import OptionsOf, nearest, register
from sandglass.tasks.condition import read_companion
from sandglass.tasks.task import Outcome, Task
from sandglass.tasks.trained import Source, Trained, check_count, positions

_SHOWN = 10


@register("translate", kind="task")
class Translate(Task):
    """Turn examples of one kind into those of another: sketches into pictures, one domain into the other.

    Into a folder it is a file each, under the names of the sources; else sources over what became of them. To labels,
    where a model has them, it is a table of classes and their probabilities.

    Args:
        to: which kind they become, where a model knows several: x for what it was trained on, or the name of a set
            beside or companion of it.
        reads: which kind the examples are of, by the same names; the one that the model cannot do without when not
            given.
        number: how many; all of --data, or 10 of the run's own, when not given.
        split: which of the examples: train, validation, test or all; test when not given.
    """

    needs = ("translate",)
    examples = ("translate runs/pix2pix-maps-1 --data sketches/ -o pictures/", "translate runs/cycle-gan-1 --to b")
    file = "translations"
    makes = "either"

    def __init__(
        self,
        *,
        to: str = "",
        reads: str = "",
        number: int | None = None,
        split: str | None = None,
        **source: Annotated[Any, OptionsOf(Source)],
    ) -> None:
        check_count("The number of examples", number)
        self.to, self.reads, self.number, self.split, self.source = to, reads, number, split, Source(**source)

    def __call__(self, trained: Trained) -> Outcome:
        """``x`` ``(N, *shape)``; what they were made from before them, where it has the same shape."""
        model = trained.model
        reads = self._reads(model)
        split = self._examples(trained, reads)
        own_companion = reads in model.spec.given and self.source.data is None

        def batch_of(batch: Batch) -> Batch:
            if reads not in model.spec.given or own_companion:
                return batch
            return Batch(y=batch.y, index=batch.index, given={reads: batch.x})

        sources = running.over(model, split, lambda b: batch_of(b).given[reads] if reads in model.spec.given else b.x)
        to = {"to": self.to} if self.to else {}
        x = running.over(model, split, lambda b: model.translate(batch_of(b), **to))
        if self.to == "labels":
            return self._labels(trained, x, split)
        before = {"source": sources} if sources.shape == x.shape else {}
        target = self.to or next(iter(model.spec.beside), "x")
        others = {**trained.transform.given, **trained.transform.beside}
        return Outcome(
            f"{len(x):,} translations" + (f" to {self.to}" if self.to else ""),
            x,
            "translation",
            before=before,
            width=min(len(x), _SHOWN),
            names=split.names,
            transform=others.get(target),
        )

    def _labels(self, trained: Trained, x: Tensor, split: Split) -> Outcome:
        """Classes as the model tells them, with their probabilities ``(N, classes)``."""
        arrays: dict[str, np.ndarray[Any, Any]] = {"labels": x.argmax(1).numpy(), "p": x.numpy()}
        if split.names:
            arrays["names"] = np.array(split.names)
        return Outcome(f"the classes of {len(x):,} examples", arrays=arrays, classes=trained.classes)

    def _reads(self, model: Model) -> str:
        """Which kind the examples are of.

        Raises:
            ConfigError: one that the model does not know.
        """
        known = ["x", *model.spec.given, *model.spec.beside]
        if self.reads and self.reads not in known:
            raise ConfigError(
                f"The model reads no '{self.reads}'.{nearest(self.reads, known)} It reads: {', '.join(known)}."
            )
        if self.reads:
            return self.reads
        if model.spec.beside:  # of two domains, the one that is not made
            return next(iter(model.spec.beside)) if self.to and self.to not in model.spec.beside else "x"
        return next((name for name in model.conditions if name in model.spec.given), "x")

    def _examples(self, trained: Trained, reads: str) -> Split:
        others = {**trained.transform.given, **trained.transform.beside}
        spec = {**trained.model.spec.given, **trained.model.spec.beside}.get(reads)
        if spec is not None and self.source.data is not None:
            found = read_companion(self.source.data, spec, others.get(reads))
        else:
            found = self.source.examples(trained, self.split)
            if reads in trained.model.spec.beside:
                found = found.beside[reads]
        n = self.number or (len(found) if self.source.data is not None else _SHOWN)
        return found.take(positions(len(found), n))

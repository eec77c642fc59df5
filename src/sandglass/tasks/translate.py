"""Examples of one kind into those of another."""

from __future__ import annotations

from typing import Annotated, Any

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

    Into a folder it is a file each, under the names of the sources; else sources over what became of them.

    Args:
        to: which kind they become, where a model knows several; its only other one when not given.
        reads: what the examples of --data are: x, or the name of a companion that the model translates from; the one it
            needs when not given.
        number: how many; all of --data, or 10 of the run's own, when not given.
        split: which of the examples: train, validation, test or all; test when not given.
    """

    needs = ("translate",)
    examples = ("translate runs/pix2pix-maps-1 --data sketches/ -o pictures/", "translate runs/cyclegan-1 --to b")
    file = "translations"

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
        reads = self.reads or next(iter(companions_needed(model)), "x")
        if reads != "x" and reads not in model.spec.given:
            known = ["x", *model.spec.given]
            raise ConfigError(f"The model reads no '{reads}'.{nearest(reads, known)} It reads: {', '.join(known)}.")
        to = self._direction(model)
        split = self._examples(trained, reads)

        def batch_of(batch: Batch) -> Batch:
            new = reads != "x" and self.source.data is not None
            return Batch(y=batch.y, index=batch.index, given={reads: batch.x}) if new else batch

        sources = running.over(model, split, lambda b: b.x if reads == "x" else batch_of(b).given[reads])
        x = running.over(model, split, lambda b: model.translate(batch_of(b), to))
        before = {"source": sources} if sources.shape == x.shape else {}
        said = f"{len(x):,} translations" + (f" to {to}" if to else "")
        return Outcome(said, x, "translation", before=before, width=min(len(x), _SHOWN), names=split.names)

    def _direction(self, model: Model) -> str:
        """Which kind they become.

        Raises:
            ConfigError: the model does not know it.
        """
        known = [*model.spec.beside, *(["x"] if model.spec.beside else [])]
        if self.to and known and self.to not in known:
            raise ConfigError(
                f"The model knows no '{self.to}' to translate to.{nearest(self.to, known)} It knows: "
                f"{', '.join(known)}."
            )
        return self.to or next(iter(known), "x")

    def _examples(self, trained: Trained, reads: str) -> Split:
        if reads != "x" and self.source.data is not None:
            found = read_companion(self.source.data, trained.model.spec.given[reads])
        else:
            found = self.source.examples(trained, self.split)
        n = self.number or (len(found) if self.source.data is not None else _SHOWN)
        return found.take(positions(len(found), n))


def companions_needed(model: Model) -> list[str]:
    """The companions that the model cannot do without."""
    needed = (need.partition(":")[0] for need in model.needs if ":" in need and not need.startswith("beside:"))
    return [name for name in needed if name in model.spec.given]

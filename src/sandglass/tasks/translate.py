"""Translation of examples from one domain to another."""

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
    """Translate examples from one domain to another, such as sketches to photos.

    A folder gets one file per example, named like its source; a grid shows sources above translations.

    Args:
        to: target domain, where the model has several: x for the examples it was trained on, or the name of a companion
            or second set.
        reads: source domain, by the same names; by default the one the model requires.
        number: number of examples; by default all of --data, or 10 of the run's own.
        split: train, validation, test or all; test by default.
    """

    needs = ("translate",)
    examples = ("translate runs/pix2pix-maps-1 --data sketches/ -o pictures/", "translate runs/cycle-gan-1 --to b")
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
        """Translations ``x`` ``(N, *shape)``, with the sources in ``before`` where they have the same shape."""
        model = trained.model
        reads = self._reads(model)
        split = self._examples(trained, reads)
        target = self.to or next(iter(model.spec.beside), "x")
        _check(model, reads, target, bool(self.to) and (split.y is not None or bool(split.given)))
        own_companion = reads in model.spec.given and self.source.data is None

        def batch_of(batch: Batch) -> Batch:
            if reads not in model.spec.given or own_companion:
                return batch
            return Batch(y=batch.y, index=batch.index, given={reads: batch.x})

        sources = running.over(model, split, lambda b: batch_of(b).given[reads] if reads in model.spec.given else b.x)
        to = {"to": self.to} if self.to else {}
        x = running.over(model, split, lambda b: model.translate(batch_of(b), **to))
        if sources.shape[1:2] == (1,) and sources.shape[2:] == x.shape[2:] and x.dim() == 4:
            sources = sources.expand_as(x)  # a grey source above its colour translation
        before = {"source": sources} if sources.shape == x.shape and reads != target else {}
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

    def _reads(self, model: Model) -> str:
        """The source domain.

        Raises:
            ConfigError: the model has no such domain.
        """
        known = ["x", *model.spec.given, *model.spec.beside]
        if self.reads and self.reads not in known:
            raise ConfigError(
                f"The model cannot read '{self.reads}'.{nearest(self.reads, known)} It reads: {', '.join(known)}."
            )
        if self.reads:
            return self.reads
        if model.spec.beside:  # of two domains, the one that is not the target
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


def _check(model: Model, reads: str, target: str, accompanied: bool) -> None:
    """Checks the target domain; examples are translated to their own only from what accompanies them.

    Raises:
        ConfigError: labels, or a target that must be chosen.
    """
    if target == "labels":
        raise ConfigError("Labels are not translated but predicted: `sandglass classify`.")
    if reads == target and not accompanied:
        others = [name for name in [*model.spec.given, *model.spec.beside] if name != target]
        choice = f"one of {', '.join(others)}" if others else "this model has only x"
        raise ConfigError(f"Choose what to translate to with --to: {choice}. `sandglass classify` predicts labels.")

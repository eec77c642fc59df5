"""Sampling of new examples."""

from __future__ import annotations

from typing import Annotated, Any

import torch
from torch import Tensor

from sandglass import running
from sandglass.registry import OptionsOf, register
from sandglass.tasks.condition import Condition, Given
from sandglass.tasks.spread import Spread, Work
from sandglass.tasks.task import Outcome
from sandglass.tasks.trained import Trained, check_count

_EACH = 10  # examples of each class


@register("generate", kind="task")
class Generate(Spread):
    """Sample new examples from a trained model.

    A conditional model takes a label or a companion. With --label each, every class is a row of the grid, and the
    examples in a column share the same noise.

    Args:
        number: number of examples; by default 64, one per companion, or 10 per class with --label each.
        seed: random seed.
        noise: sample x with observation noise instead of its mean given the latent; by default for tables only.
        workers: processes that share the work, each with a copy of the model; several need Ray (extra ray), and are on
            the machines of its cluster where RAY_ADDRESS names one.
    """

    name = "generate"
    examples = (
        "generate runs/vae-digits-1 -n 64 -o samples.png",
        "generate runs/vae-digits-1 -n 500 --separate -o samples/",
        "generate runs/cvae-digits-1 --label each",
        "generate runs/cvae-photos-1 --label cat -n 20",
    )
    file = "samples"

    def __init__(
        self,
        *,
        number: int | None = None,
        seed: int = 0,
        noise: bool | None = None,
        workers: int = 1,
        **condition: Annotated[Any, OptionsOf(Condition)],
    ) -> None:
        check_count("The number of examples", number)
        self.number, self.seed, self.noise, self.condition = number, seed, noise, Condition(**condition)
        self.workers = workers

    @property
    def options(self) -> dict[str, Any]:
        """See :class:`~sandglass.tasks.spread.Spread`."""
        return {"number": self.number, "seed": self.seed, "noise": self.noise, **self.condition.options}

    def settled(self, trained: Trained) -> dict[str, Any]:
        """See :class:`~sandglass.tasks.spread.Spread`; classes drawn in proportion to the data are named."""
        drawn = {} if self.condition.label else self.condition.columns(trained, self.conditions(trained))
        return {**self.options, **({"label": drawn["class"]} if drawn else {})}

    def conditions(self, trained: Trained) -> list[Given]:
        """Those of each group of samples."""
        return self.condition(trained, self.number, self.seed, _EACH if self.condition.each else 64)

    def work(self, trained: Trained) -> Work:
        """See :class:`~sandglass.tasks.spread.Spread`."""
        noise = trained.transform.kind == "table" if self.noise is None else self.noise
        size = running.at_once(trained.model)
        pieces = [(given, place) for given in self.conditions(trained) for place in range(-(-given.n // size))]

        def sample(given: Given, place: int) -> Tensor:
            key = (self.seed, "generate")
            return running.sample(trained.model, given.n, key=key, given=given.batch, noise=noise, places=[place])

        return Work(len(pieces), lambda places: torch.cat([sample(*pieces[place]) for place in places]))

    def __call__(self, trained: Trained) -> Outcome:
        """``x`` ``(n, *shape)``; for a conditional model, with a column of classes."""
        given, x = self.conditions(trained), self.computed(trained)
        several = len(given) > 1
        return Outcome(
            f"{len(x):,} samples" + (f", {given[0].n} of each class" if several else given[0].of),
            x,
            "sample",
            columns=self.condition.columns(trained, given),
            width=given[0].n if several else None,
            rows=[g.name for g in given] if several else (),
            notes=[g.note for g in given if g.note],
        )

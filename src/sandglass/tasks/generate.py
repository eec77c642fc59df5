"""Sampling of new examples."""

from __future__ import annotations

from typing import Annotated, Any

import torch

from sandglass import running
from sandglass.registry import OptionsOf, register
from sandglass.tasks.condition import Condition
from sandglass.tasks.task import Outcome, Task
from sandglass.tasks.trained import Trained, check_count

_EACH = 10  # examples of each class


@register("generate", kind="task")
class Generate(Task):
    """Sample new examples from a trained model.

    A conditional model takes a label or a companion. With --label each, every class is a row of the grid, and the
    examples in a column share the same noise.

    Args:
        number: number of examples; by default 64, one per companion, or 10 per class with --label each.
        seed: random seed.
        noise: sample x with observation noise instead of its mean given the latent; by default for tables only.
    """

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
        **condition: Annotated[Any, OptionsOf(Condition)],
    ) -> None:
        check_count("The number of examples", number)
        self.number, self.seed, self.noise, self.condition = number, seed, noise, Condition(**condition)

    def __call__(self, trained: Trained) -> Outcome:
        """``x`` ``(n, *shape)``; for a conditional model, with a column of classes."""
        noise = trained.transform.kind == "table" if self.noise is None else self.noise
        default = _EACH if self.condition.each else 64
        given = self.condition(trained, self.number, self.seed, default)
        x = torch.cat(
            [running.sample(trained.model, g.n, key=(self.seed, "generate"), given=g.batch, noise=noise) for g in given]
        )
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

"""Interpolations between examples."""

from __future__ import annotations

from typing import Annotated, Any

import torch

from sandglass import running
from sandglass.errors import DataError
from sandglass.registry import OptionsOf, register
from sandglass.tasks.task import Outcome, Task
from sandglass.tasks.trained import Source, Trained, check_count, positions


@register("interpolate", kind="task")
class Interpolate(Task):
    """Interpolate between pairs of examples in the latent space, one pair per row.

    Args:
        number: number of pairs.
        steps: examples per row, including both ends.
        split: train, validation, test or all; test by default.
    """

    needs = ("interpolate",)
    examples = ("interpolate runs/vae-digits-1 -n 8 --steps 12",)
    file = "interpolation"

    def __init__(
        self,
        *,
        number: int = 6,
        steps: int = 10,
        split: str | None = None,
        **source: Annotated[Any, OptionsOf(Source)],
    ) -> None:
        check_count("The number of pairs", number)
        check_count("The number of steps", steps)
        self.number, self.steps, self.split, self.source = number, steps, split, Source(**source)

    def __call__(self, trained: Trained) -> Outcome:
        """``x`` ``(pairs * steps, *shape)``, one interpolation after another."""
        model = trained.model
        every = self.source.examples(trained, self.split)
        place = positions(len(every), 2 * self.number)
        pairs = len(place) // 2
        if not pairs:
            raise DataError("An interpolation needs two examples; there is only one.")
        paths = []
        with running.observing(model, 0, "interpolate"):
            for row in range(pairs):
                ends = [every.batch(place[k : k + 1].to(every.x.device)) for k in (row, pairs + row)]
                a, b = (running.placed(model, end) for end in ends)
                paths.append(model.interpolate(a, b, self.steps)[0].cpu())
        columns = {
            "pair": [row for row in range(pairs) for _ in range(self.steps)],
            "step": [step for _ in range(pairs) for step in range(self.steps)],
        }
        said = f"{pairs} interpolations of {self.steps} steps"
        return Outcome(said, torch.cat(paths), "step", columns=columns, width=self.steps)

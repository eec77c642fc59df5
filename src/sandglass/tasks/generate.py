"""New examples."""

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
    """Draw new examples from a trained model.

    Under a label, or a companion that is given, where the model is conditional. With --label each the classes are rows,
    and the examples in a column are drawn from the same noise.

    Args:
        number: how many; 64 when not given, one for each companion where there are such, 10 of each class with --label
            each.
        seed: the same seed draws the same examples.
        noise: draw x itself, not its mean given the latent; rows of a table are drawn and pictures are means when not
            given.
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
        """``x`` ``(n, *shape)``; of a conditional model a column says the class of each."""
        noise = trained.transform.kind == "table" if self.noise is None else self.noise
        usual = _EACH if self.condition.each else 64
        asked = self.condition(trained, self.number, self.seed, usual)
        x = torch.cat(
            [running.sample(trained.model, g.n, key=(self.seed, "generate"), given=g.batch, noise=noise) for g in asked]
        )
        several = len(asked) > 1
        return Outcome(
            f"{len(x):,} samples" + (f", {asked[0].n} of each class" if several else asked[0].of),
            x,
            "sample",
            columns=self.condition.columns(trained, asked),
            width=asked[0].n if several else None,
            rows=[g.name for g in asked] if several else (),
            notes=[g.note for g in asked if g.note],
        )

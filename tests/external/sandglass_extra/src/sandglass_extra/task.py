"""A task."""

from __future__ import annotations

from sandglass import running
from sandglass.registry import register
from sandglass.tasks.task import Outcome, Task
from sandglass.tasks.trained import Trained


@register("average", kind="task")
class Average(Task):
    """Draw samples and average them.

    Args:
        number: how many samples.
    """

    examples = ("average runs/vae-digits-1 -n 500",)
    file = "average"

    def __init__(self, *, number: int = 100) -> None:
        self.number = number

    def __call__(self, trained: Trained) -> Outcome:
        """``x`` ``(1, *shape)``."""
        x = running.sample(trained.model, self.number, key=(0, "average"))
        return Outcome(f"the average of {self.number} samples", x.mean(0, keepdim=True), "average")

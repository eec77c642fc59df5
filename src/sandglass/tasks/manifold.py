"""A plane through the latent space, decoded."""

from __future__ import annotations

from typing import Annotated, Any

from sandglass.errors import ConfigError
from sandglass.registry import OptionsOf, register
from sandglass.tasks import latent_space
from sandglass.tasks.condition import Condition
from sandglass.tasks.task import Outcome, Task
from sandglass.tasks.trained import Trained, check_count


@register("manifold", kind="task")
class Manifold(Task):
    """Decode a grid over two latent directions, evenly spaced in probability.

    Args:
        side: examples along each side.
        axes: two latent dimensions as i,j (from 0), or principal for the principal directions of the codes (or both
            dimensions of a two-dimensional latent).
    """

    needs = ("decode", "codes")
    examples = ("manifold runs/vae-digits-1 --side 20", "manifold runs/vae-digits-1 --axes 0,3")
    file = "manifold"

    def __init__(
        self, *, side: int = 20, axes: str = "principal", **condition: Annotated[Any, OptionsOf(Condition)]
    ) -> None:
        check_count("The number of examples along a side", side)
        self.side, self.axes, self.condition = side, _axes(axes), Condition(**condition)
        if self.condition.each:
            raise ConfigError("A grid has a single label; name a class instead of 'each'.")

    def __call__(self, trained: Trained) -> Outcome:
        """``x`` ``(side * side, *shape)``, row by row."""
        (given,) = self.condition(trained, 1)
        x = latent_space.manifold(trained.model, self.side, self.axes, trained.codes, given.batch)
        side = range(self.side)
        columns = {"row": [i for i in side for _ in side], "column": [j for _ in side for j in side]}
        (name,) = self.condition.columns(trained, [given]).get("class", [""])
        said = f"a grid of {self.side}x{self.side}" + (f" of class {name}" if name else "")
        return Outcome(said, x, "decoded", columns=columns, width=self.side)


def _axes(text: str) -> tuple[int, int] | None:
    if text == "principal":
        return None
    try:
        i, j = (int(part) for part in text.split(","))
    except ValueError as error:
        raise ConfigError(f"--axes must be two dimensions such as 0,3, or 'principal', not '{text}'.") from error
    return i, j

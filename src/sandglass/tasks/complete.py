"""Imputation of missing values."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Annotated, Any, Literal

import torch
from torch import Tensor

from sandglass import running
from sandglass.core import Batch, Spec
from sandglass.errors import ConfigError, DataError
from sandglass.registry import OptionsOf, register
from sandglass.tasks.task import Outcome, Task
from sandglass.tasks.trained import Source, Trained, check_count, positions

Hidden = Literal["nothing", "left", "right", "top", "bottom", "centre"]


@register("complete", kind="task")
class Complete(Task):
    """Impute missing values: the empty cells of a table, or a hidden part of images.

    A table has all its rows, with observed values unchanged; images show the masked input above the completion.

    Args:
        hide: part of each image to mask: left, right, top, bottom, centre, or nothing.
        draws: number of random completions per example; 0 for the most likely values.
        number: number of examples; by default all rows of a table, or 10 images.
        seed: random seed of the draws.
        split: train, validation, test or all; test by default, all for other data.
    """

    needs = ("complete",)
    examples = (
        "complete runs/vae-people-1 --data gaps.csv -o filled.csv",
        "complete runs/vae-digits-1 --hide bottom --draws 3",
    )
    file = "completed"

    def __init__(
        self,
        *,
        hide: Hidden = "nothing",
        draws: int = 0,
        number: int | None = None,
        seed: int = 0,
        split: str | None = None,
        **source: Annotated[Any, OptionsOf(Source)],
    ) -> None:
        if hide not in Hidden.__args__:  # type: ignore[attr-defined]
            known = ", ".join(Hidden.__args__)  # type: ignore[attr-defined]
            raise ConfigError(f"--hide must be one of {known}, not '{hide}'.")
        check_count("The number of examples", number)
        check_count("The number of draws", draws, least=0)
        self.hide, self.draws, self.number, self.seed = hide, draws, number, seed
        self.split, self.source = split, Source(**source)

    def __call__(self, trained: Trained) -> Outcome:
        """``x`` ``(N * max(draws, 1), *shape)``, with all completions of an example consecutive."""
        model, spec = trained.model, trained.model.spec
        table = not spec.is_image
        every = self.source.examples(trained, self.split, in_order=table)
        place = positions(len(every), self.number or (len(every) if table else 10))
        split = every.take(place)
        hidden = hidden_part(self.hide, spec)
        if split.mask is None and hidden is None:
            hint = "" if table else "; --hide bottom masks the lower half of each image"
            raise DataError(f"Nothing is missing in these examples{hint}.")

        def masked(batch: Batch) -> Batch:
            mask = torch.ones_like(batch.x, dtype=torch.bool) if batch.mask is None else batch.mask
            if hidden is not None:
                mask = mask & ~hidden.to(mask.device)
            return replace(batch, x=batch.x.masked_fill(~mask, 0), mask=mask)

        def filled(batch: Batch) -> Tensor:
            x = model.complete(masked(batch), self.draws).x
            # From draw-major to example-major order.
            return x.unflatten(0, (max(1, self.draws), len(batch))).transpose(0, 1)

        def over(f: Callable[[Batch], Tensor]) -> Tensor:
            return running.over(model, split, f, key=(self.seed, "complete"))

        x = over(filled)
        n, draws = x.shape[:2]
        said = f"{n:,} examples completed" + (f", {draws} draws each" if self.draws else "")
        columns: dict[str, list[Any]] = {} if draws == 1 else {"draw": list(range(draws)) * n}
        if self.number is not None:
            columns["example"] = [i for i in place.tolist() for _ in range(draws)]
        if table or draws > 1:
            names = [name for name in split.names for _ in range(draws)]
            return Outcome(said, x.flatten(0, 1), "completion", columns=columns, width=draws, names=names)
        before = {"seen": over(lambda batch: masked(batch).x)}
        return Outcome(said, x[:, 0], "completion", before=before, columns=columns, width=min(n, 20), names=split.names)


def hidden_part(what: Hidden, spec: Spec) -> Tensor | None:
    """``(C, H, W)``, True where an image is masked; None for ``"nothing"``.

    Raises:
        ConfigError: the examples are not images.

    Example:
        >>> hidden_part("right", Spec((1, 2, 4))).int().tolist()
        [[[0, 0, 1, 1], [0, 0, 1, 1]]]
    """
    if what == "nothing":
        return None
    if not spec.is_image:
        raise ConfigError("--hide is for images; the empty cells of a table are imputed.")
    _, height, width = spec.shape
    rows, columns = slice(None), slice(None)
    if what in ("top", "bottom"):
        rows = slice(0, height // 2) if what == "top" else slice(height // 2, height)
    elif what in ("left", "right"):
        columns = slice(0, width // 2) if what == "left" else slice(width // 2, width)
    else:
        rows, columns = slice(height // 4, height - height // 4), slice(width // 4, width - width // 4)
    hidden = torch.zeros(spec.shape, dtype=torch.bool)
    hidden[:, rows, columns] = True
    return hidden

"""Reconstructions of examples."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Any

from torch import Tensor

from sandglass import running
from sandglass.core import Batch
from sandglass.data.corrupt import make_corruption
from sandglass.registry import OptionsOf, register
from sandglass.tasks.task import Outcome, Task
from sandglass.tasks.trained import Source, Trained, check_count, positions


@register("reconstruct", kind="task")
class Reconstruct(Task):
    """Reconstruct examples and show them below the originals.

    Examples are spread evenly over the split; a table has two rows for each, with its index in the split. With
    --corrupt, the rows are corrupted, denoised and original examples.

    Args:
        number: number of examples.
        corrupt: corrupt the examples first: gaussian, salt-pepper, blur, mask, jpeg; optionally with =strength,
            several separated by commas.
        split: train, validation, test or all; test by default.
    """

    needs = ("reconstruct",)
    examples = (
        "reconstruct runs/vae-digits-1 -n 10",
        "reconstruct runs/vae-photos-1 --data new-photos/ -o new.png",
        "reconstruct runs/vae-digits-1 --corrupt gaussian=0.3",
    )
    file = "reconstructions"

    def __init__(
        self,
        *,
        number: int = 10,
        corrupt: str = "",
        split: str | None = None,
        **source: Annotated[Any, OptionsOf(Source)],
    ) -> None:
        check_count("The number of examples", number)
        self.number, self.corrupt, self.split, self.source = number, corrupt, split, Source(**source)

    def __call__(self, trained: Trained) -> Outcome:
        """Reconstructions ``x`` ``(N, *shape)``, with originals in ``before`` and a column of indices in the split."""
        model = trained.model
        damage = make_corruption(self.corrupt, model.spec)
        every = self.source.examples(trained, self.split)
        place = positions(len(every), self.number)
        split = every.take(place)

        def damaged(batch: Batch) -> Batch:
            if damage is None or batch.index is None:
                return batch
            x = damage(batch.x, batch.index, 0, 0).to(batch.x.dtype)
            # A denoising model reads the companion "damaged", other models the example itself.
            return replace(batch, x=x, given={**batch.given, "damaged": x})

        def over(f: Any) -> Tensor:
            return running.over(model, split, f)

        original = over(lambda batch: batch.x)
        rebuilt = over(lambda batch: model.reconstruct(damaged(batch)))
        common: dict[str, Any] = {
            "paired": True,
            "columns": {"example": place.tolist()},
            "width": min(len(original), 20),
            "names": split.names,
            "masks": {} if split.mask is None else {"original": split.mask.cpu()},
        }
        if damage is None:
            said = f"{len(original)} originals over their reconstructions"
            return Outcome(said, rebuilt, "reconstruction", before={"original": original}, **common)
        corrupted = over(lambda batch: damaged(batch).x)
        errors = [
            f"{name} {float((x - original).square().mean()):.4g}"
            for name, x in (("corrupted", corrupted), ("denoised", rebuilt))
        ]
        said = f"{len(original)} corrupted, denoised and original; squared error: {', '.join(errors)}"
        before, after = {"corrupted": corrupted}, {"original": original}
        return Outcome(said, rebuilt, "denoised", before=before, after=after, **common)

"""Decoding of latent codes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import torch

from sandglass import running
from sandglass.core import Batch
from sandglass.registry import OptionsOf, register
from sandglass.tasks import code_files
from sandglass.tasks.condition import Condition, Given
from sandglass.tasks.task import Outcome, Task
from sandglass.tasks.trained import Trained


@register("decode", kind="task")
class Decode(Task):
    """Decode latent codes to examples.

    A conditional model uses the labels in the file of codes, or --label.

    Args:
        codes: a .npz, .npy, .csv or .parquet file, as written by `encode`.
    """

    needs = ("decode",)
    examples = (
        "decode runs/vae-digits-1 codes.npz -o decoded.png",
        "decode runs/vae-digits-1 codes.csv -o decoded/",
        "decode runs/cvae-digits-1 codes.npz --label 3",
    )
    file = "decoded"

    def __init__(self, *, codes: str | Path, **condition: Annotated[Any, OptionsOf(Condition)]) -> None:
        self.codes, self.condition = Path(codes), Condition(**condition)

    def __call__(self, trained: Trained) -> Outcome:
        """``x`` ``(N, *shape)``; with every class in turn, one row of the grid per class."""
        model = trained.model
        z = torch.from_numpy(code_files.read(self.codes, model.code_size))
        if model.latents and all(latent.support == "index" for latent in model.latents):
            z = z.round().long()
        labels = None if self.condition.label else code_files.read_labels(self.codes, trained.classes)
        if labels is not None and "labels" in model.conditions:
            given = [Given(Batch(y=labels), len(z))]
        else:
            given = self.condition(trained, len(z))
        x = torch.cat([running.decode(model, z, g.batch) for g in given])
        several = len(given) > 1
        return Outcome(
            f"{len(x):,} decoded{'' if several else given[0].of}",
            x,
            "decoded",
            columns=self.condition.columns(trained, given),
            width=len(z) if several else None,
            rows=[g.name for g in given] if several else (),
            notes=[g.note for g in given if g.note],
        )

"""Latent codes of examples."""

from __future__ import annotations

from typing import Any

import numpy as np

from sandglass.data.selecting import chosen
from sandglass.registry import register
from sandglass.tasks.spread import OfSplit, Work, over
from sandglass.tasks.task import Outcome
from sandglass.tasks.trained import Trained


@register("encode", kind="task")
class Encode(OfSplit):
    """Write the latent codes of examples, with their labels, file names and indices.

    Args:
        split: train, validation, test or all; all by default.
        workers: processes that share the work, each with a copy of the model; several need Ray (extra ray), and are on
            the machines of its cluster where RAY_ADDRESS names one.
    """

    name = "encode"
    needs = ("encode",)
    examples = (
        "encode runs/vae-digits-1 -o codes.csv",
        "encode runs/vae-photos-1 --data photos/ -o codes.parquet",
    )
    file = "codes"
    makes = "arrays"

    def work(self, trained: Trained) -> Work:
        """See :class:`~sandglass.tasks.spread.Spread`."""
        return over(trained.model, self.source.examples(trained, self.split, "all"), trained.model.encode)

    def __call__(self, trained: Trained) -> Outcome:
        """``codes`` ``(N, D)``, ``index`` in the split, and where available ``labels``, ``names`` and ``split``."""
        data = self.source.read(trained)
        splits = chosen(data, self.split, "all")
        whole = self.source.examples(trained, self.split, "all")
        z = self.computed(trained).numpy()
        arrays: dict[str, np.ndarray[Any, Any]] = {"codes": z}
        if whole.y is not None:
            arrays["labels"] = whole.y.cpu().numpy()
        if whole.names:
            arrays["names"] = np.array(whole.names)
        arrays["index"] = np.concatenate([np.arange(len(s)) for s in splits.values()])
        if len(data.splits) > 1:
            arrays["split"] = np.repeat(list(splits), [len(s) for s in splits.values()])
        size = f"{z.shape[1]} number{'s' * (z.shape[1] != 1)}"
        return Outcome(f"{len(z):,} codes of {size}", arrays=arrays, classes=data.classes)

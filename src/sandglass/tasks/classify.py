"""Classes of examples."""

from __future__ import annotations

from typing import Any

import numpy as np

from sandglass.registry import register
from sandglass.tasks.spread import OfSplit, Work, over
from sandglass.tasks.task import Outcome
from sandglass.tasks.trained import Trained


@register("classify", kind="task")
class Classify(OfSplit):
    """Predict the classes of examples, with their probabilities.

    Args:
        split: train, validation, test or all; all by default.
        workers: processes that share the work, each with a copy of the model; several need Ray (extra ray), and are on
            the machines of its cluster where RAY_ADDRESS names one.
    """

    name = "classify"
    needs = ("classify",)
    examples = ("classify runs/joint-vae-digits-1 --split test", "classify runs/joint-vae-photos-1 --data new/")
    file = "classes"
    makes = "arrays"

    def work(self, trained: Trained) -> Work:
        """See :class:`~sandglass.tasks.spread.Spread`."""
        return over(
            trained.model, self.source.examples(trained, self.split, "all", in_order=True), trained.model.classify
        )

    def __call__(self, trained: Trained) -> Outcome:
        """``labels`` ``(N,)``, the most probable classes, ``p`` ``(N, K)``, and ``names`` where available."""
        examples = self.source.examples(trained, self.split, "all", in_order=True)
        p = self.computed(trained)
        arrays: dict[str, np.ndarray[Any, Any]] = {"labels": p.argmax(1).numpy(), "p": p.numpy()}
        if examples.names:
            arrays["names"] = np.array(examples.names)
        return Outcome(f"the classes of {len(p):,} examples", arrays=arrays, classes=trained.classes)

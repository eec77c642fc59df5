"""Classes of examples."""

from __future__ import annotations

from typing import Annotated, Any

import numpy as np

from sandglass import running
from sandglass.registry import OptionsOf, register
from sandglass.tasks.task import Outcome, Task
from sandglass.tasks.trained import Source, Trained


@register("classify", kind="task")
class Classify(Task):
    """Predict the classes of examples, with their probabilities.

    Args:
        split: train, validation, test or all; all by default.
    """

    needs = ("classify",)
    examples = ("classify runs/joint-vae-digits-1 --split test", "classify runs/joint-vae-photos-1 --data new/")
    file = "classes"
    makes = "arrays"

    def __init__(self, *, split: str | None = None, **source: Annotated[Any, OptionsOf(Source)]) -> None:
        self.split, self.source = split, Source(**source)

    def __call__(self, trained: Trained) -> Outcome:
        """``labels`` ``(N,)``, the most probable classes, ``p`` ``(N, K)``, and ``names`` where available."""
        examples = self.source.examples(trained, self.split, "all")
        p = running.over(trained.model, examples, trained.model.classify)
        arrays: dict[str, np.ndarray[Any, Any]] = {"labels": p.argmax(1).numpy(), "p": p.numpy()}
        if examples.names:
            arrays["names"] = np.array(examples.names)
        return Outcome(f"the classes of {len(p):,} examples", arrays=arrays, classes=trained.classes)

"""Scores of how unusual examples are."""

from __future__ import annotations

from typing import Annotated, Any

import numpy as np

from sandglass import running
from sandglass.registry import OptionsOf, register
from sandglass.tasks.task import Outcome, Task
from sandglass.tasks.trained import Source, Trained, check_count, positions


@register("score", kind="task")
class Score(Task):
    """Score how unusual examples are: the higher, the less they fit the training data.

    The score is the negative evidence bound of a VAE, or the reconstruction loss of an autoencoder, in nats.

    Args:
        number: number of examples; all by default.
        split: train, validation, test or all; all by default.
        seed: the same seed gives the same scores.
    """

    needs = ("score",)
    examples = ("score runs/vae-photos-1 --data new/ -o scores.csv", "score runs/vae-table-1 --split test")
    file = "scores"
    makes = "arrays"

    def __init__(
        self,
        *,
        number: int | None = None,
        split: str | None = None,
        seed: int = 0,
        **source: Annotated[Any, OptionsOf(Source)],
    ) -> None:
        check_count("The number of examples", number)
        self.number, self.split, self.seed, self.source = number, split, seed, Source(**source)

    def __call__(self, trained: Trained) -> Outcome:
        """``scores`` ``(N,)`` in nats, and where available ``labels`` and ``names``."""
        whole = self.source.examples(trained, self.split, "all")
        examples = whole.take(positions(len(whole), self.number or len(whole)))
        scores = running.over(trained.model, examples, trained.model.score, key=(self.seed, "score")).numpy()
        arrays: dict[str, np.ndarray[Any, Any]] = {"scores": scores}
        if examples.y is not None:
            arrays["labels"] = examples.y.cpu().numpy()
        if examples.names:
            arrays["names"] = np.array(examples.names)
        most = int(scores.argmax())
        name = examples.names[most] if examples.names else f"number {most}"
        note = f"the most unusual is {name}, with {scores[most]:.1f} nats; the median is {float(np.median(scores)):.1f}"
        return Outcome(f"scores of {len(scores):,} examples", arrays=arrays, classes=trained.classes, notes=(note,))

"""Scores of how unusual examples are."""

from __future__ import annotations

from typing import Annotated, Any

import numpy as np

from sandglass.data.dataset import Split
from sandglass.registry import OptionsOf, register
from sandglass.tasks.spread import Spread, Work, over
from sandglass.tasks.task import Outcome
from sandglass.tasks.trained import Source, Trained, check_count, positions


@register("score", kind="task")
class Score(Spread):
    """Score how unusual examples are: the higher, the less they fit the training data.

    The score is the negative evidence bound of a VAE, or the reconstruction loss of an autoencoder, in nats.

    Args:
        number: number of examples; all by default.
        split: train, validation, test or all; all by default.
        seed: the same seed gives the same scores.
        workers: processes that share the work, each with a copy of the model; several need Ray (extra ray), and are on
            the machines of its cluster where RAY_ADDRESS names one.
    """

    name = "score"
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
        workers: int = 1,
        **source: Annotated[Any, OptionsOf(Source)],
    ) -> None:
        check_count("The number of examples", number)
        self.number, self.split, self.seed, self.source = number, split, seed, Source(**source)
        self.workers = workers

    @property
    def options(self) -> dict[str, Any]:
        """See :class:`~sandglass.tasks.spread.Spread`."""
        return {"number": self.number, "split": self.split, "seed": self.seed, **self.source.options}

    def scored(self, trained: Trained) -> Split:
        """Those that are scored."""
        whole = self.source.examples(trained, self.split, "all", in_order=True)
        return whole.take(positions(len(whole), self.number or len(whole)))

    def work(self, trained: Trained) -> Work:
        """See :class:`~sandglass.tasks.spread.Spread`."""
        return over(trained.model, self.scored(trained), trained.model.score, key=(self.seed, "score"))

    def __call__(self, trained: Trained) -> Outcome:
        """``scores`` ``(N,)`` in nats, and where available ``labels`` and ``names``."""
        examples, scores = self.scored(trained), self.computed(trained).numpy()
        arrays: dict[str, np.ndarray[Any, Any]] = {"scores": scores}
        if examples.y is not None:
            arrays["labels"] = examples.y.cpu().numpy()
        if examples.names:
            arrays["names"] = np.array(examples.names)
        most = int(scores.argmax())
        name = examples.names[most] if examples.names else f"number {most}"
        note = f"the most unusual is {name}, with {scores[most]:.1f} nats; the median is {float(np.median(scores)):.1f}"
        return Outcome(f"scores of {len(scores):,} examples", arrays=arrays, classes=trained.classes, notes=(note,))

"""The trials of a sweep and what they found together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sandglass.metrics.evaluation import Better


@dataclass(frozen=True)
class Trial:
    """One run of a sweep.

    Args:
        number: from 0, in the order in which they were begun.
        folder: its run.
        state: ``"finished"``, ``"pruned"``, ``"failed"`` or ``"unfinished"``.
        values: of the options that are varied, by dotted name.
        value: the figure on the validation split, None where it did not finish.
        stderr: its standard error, None where it has none.
        epochs: trained.
        seconds: of training.
        reason: why it failed or was pruned.
    """

    number: int
    folder: Path
    state: str
    values: Mapping[str, Any]
    value: float | None = None
    stderr: float | None = None
    epochs: float = 0.0
    seconds: float = 0.0
    reason: str = ""


@dataclass(frozen=True)
class Swept:
    """What a sweep found.

    Args:
        folder: of the sweep.
        model: its name.
        metric: the figure that was chosen by.
        better: whether a higher or a lower one is better.
        vary: the dotted options that were varied, each with its scale: ``"log"`` or ``"linear"`` for a range, or
            ``"list"``.
        trials: the best first, then those without a figure.
        importances: by option, the share of the spread it explains; empty where there are too few trials to say.
        planned: how many trials there are to be.
        epochs: of a whole trial.
        sampler: how settings were drawn.
        prune: how hopeless ones were stopped.
        ends: the options whose best value is at an end of what was searched, each with ``"lower"`` or ``"upper"``.
    """

    folder: Path
    model: str
    metric: str
    better: Better
    vary: Mapping[str, str]
    trials: Sequence[Trial]
    importances: Mapping[str, float]
    planned: int
    epochs: int
    sampler: str
    prune: str
    ends: Mapping[str, str]

    @property
    def best(self) -> Trial | None:
        """The best trial, None where none finished."""
        return next((t for t in self.trials if t.value is not None), None)

    @property
    def again(self) -> str:
        """The command that trains the best settings for longer."""
        assert self.best is not None
        epochs = 2 * max(1, round(self.best.epochs))
        return f"sandglass train --config {self.best.folder / 'config.yaml'} --epochs {epochs}"

    def count(self, state: str) -> int:
        """How many trials ended so."""
        return sum(t.state == state for t in self.trials)

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        trials = [{**vars(t), "folder": str(t.folder), "values": dict(t.values)} for t in self.trials]
        return {
            "folder": str(self.folder),
            "metric": self.metric,
            "better": self.better,
            "planned": self.planned,
            "best": None if self.best is None else self.best.number,
            "trials": trials,
            "importances": dict(self.importances),
        }

"""Results of a sweep and its trials."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sandglass.metrics.evaluation import Better
from sandglass.runs.result import figure
from sandglass.sweeps.folds import spread


@dataclass(frozen=True)
class Trial:
    """A trial of a sweep.

    Args:
        number: number from 0, in the order of start.
        folder: its run folder.
        state: ``"finished"``, ``"pruned"``, ``"failed"`` or ``"unfinished"``.
        values: values of the varied options, by dotted name.
        value: the figure on the validation split, None if it did not finish.
        stderr: its standard error, or None.
        epochs: number of trained epochs.
        seconds: training time.
        reason: why it failed or was pruned.
        folds: the figure on each fold, whose mean is ``value``; empty without a cross-validation.
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
    folds: tuple[float, ...] = ()


@dataclass(frozen=True)
class Swept:
    """The results of a sweep.

    Args:
        folder: the sweep folder.
        model: name of the model.
        metric: the figure by which trials are ranked.
        better: whether higher or lower values are better.
        vary: the varied options by dotted name, each with its scale: ``"log"`` or ``"linear"`` for a range, or
            ``"list"``.
        trials: the trials, the best first, those without a figure last.
        importances: fraction of variance explained by option; empty if there are too few trials.
        planned: total number of trials.
        epochs: number of epochs of a complete trial.
        sampler: the sampler.
        prune: the pruner.
        ends: options whose best value is at an end of its range, each with ``"lower"`` or ``"upper"``.
        folds: number of folds; 0 without a cross-validation.
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
    folds: int = 0

    def __repr__(self) -> str:
        best = self.best
        found = (
            f"best trial {best.number}, {self.metric} {figure(best.value, best.stderr)}" if best else "none finished"
        )
        return f"Swept('{self.folder}': {len(self.trials)} of {self.planned} trials, {found})"

    @property
    def best(self) -> Trial | None:
        """The best trial, None if none finished."""
        return next((t for t in self.trials if t.value is not None), None)

    @property
    def again(self) -> str:
        """The command to train the best settings for longer."""
        assert self.best is not None
        if self.folds:
            epochs = 2 * max(1, round(self.best.epochs / self.folds))
            return (
                f"sandglass train --config {self.best.folder / 'fold-1' / 'config.yaml'} --fold none --epochs {epochs}"
            )
        epochs = 2 * max(1, round(self.best.epochs))
        return f"sandglass train --config {self.best.folder / 'config.yaml'} --epochs {epochs}"

    @property
    def ties(self) -> list[Trial]:
        """Trials whose mean over the folds is within two standard errors of the best, paired fold by fold."""
        if self.best is None or not self.folds:
            return []
        found = []
        for trial in self.trials:
            if trial is not self.best and len(trial.folds) == self.folds:
                apart = [a - b for a, b in zip(trial.folds, self.best.folds, strict=True)]
                if abs(sum(apart) / len(apart)) <= 2 * spread(apart):
                    found.append(trial)
        return found

    def count(self, state: str) -> int:
        """The number of trials in a state."""
        return sum(t.state == state for t in self.trials)

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        trials = [{**vars(t), "folder": str(t.folder), "values": dict(t.values)} for t in self.trials]
        return {
            "folder": str(self.folder),
            "metric": self.metric,
            "better": self.better,
            "planned": self.planned,
            "folds": self.folds,
            "best": None if self.best is None else self.best.number,
            "trials": trials,
            "importances": dict(self.importances),
        }

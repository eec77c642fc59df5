"""A trial of a sweep: a normal run, pruned after any epoch, and evaluated on the validation split."""

from __future__ import annotations

import math
import os
import shutil
import signal
from collections.abc import Mapping, Sequence
from pathlib import Path

from sandglass import registry
from sandglass.data.dataset import Dataset
from sandglass.engine.progress import Silent
from sandglass.engine.resume import resume
from sandglass.engine.train import train
from sandglass.errors import CapabilityError, ConfigError, DivergedError
from sandglass.metrics.compared import kind_of, of_likelihood
from sandglass.metrics.measure import context_of, measure
from sandglass.runs.run import Run
from sandglass.sweeps.folds import spread
from sandglass.sweeps.space import laid
from sandglass.sweeps.study import OBJECTIVE, Claim, Study, deciding_stage

_SPLIT = "validation"


class Pruned(Exception):  # noqa: N818 (not an error)
    """The trial was pruned."""


class Watch(Silent):
    """Reports the objective to the pruner during training, and stops if the parent process dies.

    Args:
        claim: the trial.
        better: whether the sweep maximises or minimises its figure.
        stage: the stage whose objective is compared; other stages are not pruned.
        parent: process id of the parent; None for none.
    """

    def __init__(self, claim: Claim, better: str, stage: str | None, parent: int | None) -> None:
        self.claim, self.better, self.stage, self.parent = claim, better, stage, parent
        self.compared = False
        self.reported = set(claim.reported)
        self.epoch, self.per_epoch, self.hopeless = 0.0, 1, False
        self.last: float | None = None

    def start(self, step: int, total: int, steps_per_epoch: int, stage: str = "", seconds: float | None = None) -> None:
        """A stage starts or resumes; its name is empty if there is only one."""
        self.per_epoch, self.epoch = steps_per_epoch, step / steps_per_epoch
        self.compared = self.stage is not None and stage in ("", self.stage)
        self.hopeless = self.compared and bool(self.reported) and step < total and self.claim.trial.should_prune()

    def advance(self, step: int, examples: int) -> None:
        """A step is done. A trial to be pruned ends here, after the checkpoint of its last epoch.

        Raises:
            Pruned: the pruner stops the trial.
        """
        self.epoch = step / self.per_epoch
        if self.hopeless:
            raise Pruned
        if self.parent is not None and os.getppid() != self.parent:
            signal.raise_signal(signal.SIGTERM)  # handled at the next step boundary, with a checkpoint

    def show(self, split: str, terms: Mapping[str, float]) -> None:
        """Reports the objective to the pruner after an epoch."""
        value = watched(terms)
        epoch = round(self.epoch)
        if split != _SPLIT or value is None or not self.compared:
            return
        self.last = value
        if epoch not in self.reported and math.isfinite(value):
            self.reported.add(epoch)
            self.claim.trial.report(-value if self.better == "higher" else value, epoch)
            self.hopeless = self.claim.trial.should_prune()

    def say(self, text: str) -> None:
        """Prints a line with the trial number."""
        super().say(f"trial {self.claim.number}: {text}")


def watched(terms: Mapping[str, float]) -> float | None:
    """The value by which trials are compared during training: the objective at its final weights.

    A weighted sum of distortion and rate is replaced by the unweighted sum, so that a sweep over beta does not prune by
    the weight.

    Example:
        >>> watched({"loss": 9.0, "distortion": 5.0, "rate": 2.0, "objective": 13.0}), watched({"objective": 4.0})
        (7.0, 4.0)
    """
    if "distortion" in terms and "rate" in terms:
        return terms["distortion"] + terms["rate"]
    return terms.get("objective", terms.get("loss"))


def run_trial(study: Study, claim: Claim, folds: Sequence[Dataset], parent: int | None = None) -> None:
    """Trains or resumes a trial, evaluates it, and records how it ended.

    With several folds a run is trained on each, and the figure is their mean; the pruner sees the first one.

    A trial that cannot be built, diverges or runs out of memory is recorded as failed, with the reason. Other errors
    and interruptions leave it unfinished, to be resumed.

    Raises:
        KeyboardInterrupt, SystemExit: training was stopped by a signal.
        SandglassError: an error that affects other trials as well.
    """
    watch = Watch(claim, study.plan.better, _stage(study, claim, folds[0]), parent)
    paths = study.runs(claim.number)
    figures = []
    try:
        for path, data in zip(paths, folds, strict=True):
            run = _train(study, claim, data, path, watch)
            figures.append(_figure(study, run, data))
            watch.stage = None  # of the other folds nothing is reported
    except Pruned:
        epochs = round(watch.epoch)
        why = f"after {epochs} epoch{'s' * (epochs != 1)} its validation objective was {watch.last or math.nan:.4g}"
        study.finish(claim, "pruned", reason=why, **_length(paths))
    except (ConfigError, CapabilityError, DivergedError, MemoryError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and "memory" not in str(error):
            raise
        reason = " ".join(str(error).split()) or "There is not enough memory."
        study.finish(claim, "failed", reason=reason[:300], **_length(paths))
    else:
        values, errors = zip(*figures, strict=True)
        if not study.plan.folds:
            study.finish(claim, "finished", values[0], stderr=errors[0], **_length(paths))
        else:
            mean, stderr = sum(values) / len(values), spread(values)
            study.finish(claim, "finished", mean, stderr=stderr, folds=list(values), **_length(paths))


def _stage(study: Study, claim: Claim, data: Dataset) -> str | None:
    """The stage by which the trial is compared; None if the model cannot be built, which training reports."""
    model = laid({"model": study.plan.model, "training": {}}, study.values(claim))["model"]
    try:
        outline = registry.outline(model["name"], data.spec, **model["options"])
    except ConfigError:
        return None
    return deciding_stage(outline or registry.declared(model["name"]))


def _train(study: Study, claim: Claim, data: Dataset, path: Path, watch: Watch) -> Run:
    values = study.values(claim)
    if (path / "config.yaml").is_file():
        return resume(path, data=data, progress=watch)
    if path.exists():  # interrupted before its configuration was written
        shutil.rmtree(path)
    config = laid({"model": study.plan.model, "training": study.plan.training}, values)
    return train(
        config["model"]["name"], data, out=path, model_options=config["model"]["options"], progress=watch,
        **config["training"],
    )  # fmt: skip


def _figure(study: Study, run: Run, data: Dataset) -> tuple[float, float | None]:
    """The figure of the selected weights on the validation split.

    Raises:
        ConfigError: it is not finite, or of another kind than in other trials.
    """
    name = study.plan.metric
    if name == OBJECTIVE:
        stage = deciding_stage(run.load_model())
        records = [r for r in run.metrics() if (r["split"], r["stage"], r["term"]) == (_SPLIT, stage, OBJECTIVE)]
        found = [r["value"] for r in records if r["value"] is not None]
        if not found:
            raise ConfigError("Its validation objective is not finite.")
        return (found[-1] if run.config["training"]["select"] == "last" else min(found)), None
    model = run.load_model(device=run.config["training"]["device"])
    [result] = measure(model, data.splits[_SPLIT], names=[name], **context_of(data))
    if not math.isfinite(result.value):
        raise ConfigError(f"Its {name} is not finite.")
    if of_likelihood(name) and (usual := study.kind(kind_of(model))) != kind_of(model):
        raise ConfigError(
            f"Its {name} is of a {kind_of(model)}, in other trials of a {usual}: they cannot be compared."
        )
    return result.value, result.stderr


def _length(paths: Sequence[Path]) -> dict[str, float]:
    """The epochs and seconds of the runs of a trial, as far as they exist."""
    seconds, total = 0.0, 0.0
    for run in (Run(path) for path in paths if (path / "config.yaml").is_file()):
        seconds += sum(e.get("seconds", 0.0) for e in run.events() if e["event"] == "stop")
        epochs: dict[str, float] = {}
        for r in run.metrics():
            epochs[r["stage"]] = max(r["epoch"], epochs.get(r["stage"], 0.0))
        total += sum(epochs.values())
    return {"epochs": total, "seconds": round(seconds, 3)}

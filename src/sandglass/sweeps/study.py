"""The sweep folder: search space, trials, and their distribution to processes.

    sweeps/<name>/
      sweep.yaml     varied and fixed options, metric, sampler and pruner
      trials.db      all trials with their values, in Optuna's format (SQLite)
      0000/, ...     a run folder for each trial, or with folds one for each fold: 0000/fold-1/, ...
      sweep.html     the page

A trial belongs to the process that holds its lock, which the system releases when the process dies. A trial that is
running according to the database, but not locked, is resumed from its newest checkpoint.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from sandglass import rng
from sandglass.core import Model
from sandglass.errors import ConfigError, MissingPackageError, NotFoundError
from sandglass.metrics.evaluation import Better
from sandglass.runs import storage
from sandglass.runs.plain import read_yaml, to_yaml
from sandglass.sweeps.space import Dimension, checked, product
from sandglass.sweeps.trials import Trial

SAMPLERS = ("tpe", "random", "grid")
PRUNERS = ("none", "median", "halving")
OBJECTIVE = "objective"
"""The metric name of the validation objective."""


def deciding_stage(model: Model) -> str | None:
    """The stage by whose objective trials are compared: the last that has one of examples; None if there is none.

    Example:
        >>> from sandglass import registry
        >>> deciding_stage(registry.declared("ae")), deciding_stage(registry.declared("gan"))
        ('train', None)
    """
    judged = (stage for stage in reversed(model.stages()) if not stage.of_codes)
    return next((stage.name for stage in judged if stage.objective is not None), None)


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The settings of a sweep.

    Args:
        model: ``{"name", "options"}`` with the fixed options.
        training: fixed options of the training.
        data: source and options of ``load_data``; None for data passed as Python objects.
        fingerprint: fingerprint of the data.
        vary: the varied options.
        trials: total number of trials.
        metric: the figure by which trials are ranked, on the validation split.
        better: whether higher or lower values are better.
        sampler: tpe, random or grid.
        prune: none, median or halving.
        seed: seed of the sampler.
        folds: number of folds of a cross-validation, each trained in every trial; 0 for the validation split alone.
    """

    model: Mapping[str, Any]
    training: Mapping[str, Any]
    data: Mapping[str, Any] | None
    fingerprint: str
    vary: tuple[Dimension, ...]
    trials: int
    metric: str
    better: Better
    sampler: str = "tpe"
    prune: str = "none"
    seed: int = 0
    folds: int = 0

    def __post_init__(self) -> None:
        for name, value, known in (("sampler", self.sampler, SAMPLERS), ("pruner", self.prune, PRUNERS)):
            if value not in known:
                raise ConfigError(f"There is no {name} '{value}'; it is one of: {', '.join(known)}.")
        if self.trials < 1:
            raise ConfigError(f"A sweep needs at least 1 trial, not {self.trials}.")
        checked(self.vary)
        if self.sampler == "grid":
            list(product(self.vary))

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        return {**vars(self), "vary": {d.name: d.to_dict() for d in self.vary}, "format": 1}

    @classmethod
    def read(cls, path: Path) -> Plan:
        """Reads ``sweep.yaml``.

        Raises:
            NotFoundError: there is none.
            ConfigError: it is damaged.
        """
        if not path.is_file():
            raise NotFoundError(f"{path.parent} is not a sweep: it has no {path.name}.")
        values = read_yaml(path)
        try:
            vary = tuple(Dimension.of(name, one) for name, one in values.pop("vary").items())
            if values.pop("format") != 1:
                raise ConfigError(f"{path} was written by a newer Sandglass; upgrade to read it.")
            return cls(vary=vary, **values)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            if isinstance(error, ConfigError):
                raise
            raise ConfigError(f"{path} is damaged: {error}.") from error


@dataclass
class Claim:
    """A trial locked by this process."""

    number: int
    trial: Any
    lock: FileLock
    reported: frozenset[int] = field(default_factory=frozenset)


class Study:
    """A sweep folder.

    Args:
        folder: the folder, with a ``sweep.yaml``.

    Raises:
        MissingPackageError: Optuna is not installed.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.plan = Plan.read(folder / "sweep.yaml")
        optuna = _optuna()
        self._storage = optuna.storages.RDBStorage(
            f"sqlite:///{(folder / 'trials.db').absolute()}", engine_kwargs={"connect_args": {"timeout": 60}}
        )
        direction = "maximize" if self.plan.better == "higher" else "minimize"
        with self._alone():
            self.study = optuna.create_study(
                storage=self._storage,
                study_name="sweep",
                direction=direction,
                load_if_exists=True,
                pruner=self._pruner(),
            )
            if self.plan.sampler == "grid":
                grid = list(product(self.plan.vary))[: self.plan.trials]
                for values in grid[len(self.study.get_trials(deepcopy=False)) :]:
                    self.study.enqueue_trial({d.name: d.stored(values[d.name]) for d in self.plan.vary})

    @classmethod
    def create(cls, folder: Path, plan: Plan) -> Study:
        """Creates the folder.

        Raises:
            ConfigError: the path already exists and is not empty.
            SaveError: it could not be created.
        """
        _optuna()
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise ConfigError(
                f"{folder} already exists and is not empty; name another folder, or use --resume {folder}."
            )
        with storage.saving(folder):
            folder.mkdir(parents=True, exist_ok=True)
        storage.write_file(folder / "sweep.yaml", to_yaml(plan.to_dict()))
        return cls(folder)

    def close(self) -> None:
        """Closes the database."""
        self._storage.remove_session()
        self._storage.engine.dispose()

    @cached_property
    def _states(self) -> Any:
        return _optuna().trial.TrialState

    def _alone(self) -> FileLock:
        """The lock of the folder, held briefly while a trial is claimed."""
        return FileLock(self.folder / ".sweep.lock")

    def path(self, number: int) -> Path:
        """The folder of a trial."""
        return self.folder / f"{number:04d}"

    def runs(self, number: int) -> list[Path]:
        """The run folders of a trial: its folder itself, or one for each fold."""
        path = self.path(number)
        return [path / f"fold-{k}" for k in range(1, self.plan.folds + 1)] or [path]

    def claim(self) -> Claim | None:
        """Claims the next trial: an interrupted one, else a new one; None if there are none left."""
        with self._alone():
            frozen = self.study.get_trials(deepcopy=False)
            for one in frozen:
                if one.state == self._states.RUNNING and (lock := self._take(one.number)) is not None:
                    # It may have ended, and released its lock, since the trials were read.
                    if self.study.get_trials(deepcopy=False)[one.number].state != self._states.RUNNING:
                        lock.release()
                        continue
                    study = self._storage.get_study_id_from_name("sweep")
                    self._seed(one.number)
                    key = self._storage.get_trial_id_from_study_id_trial_number(study, one.number)
                    trial = _optuna().trial.Trial(self.study, key)
                    return Claim(one.number, trial, lock, frozenset(one.intermediate_values))
            waiting = [one for one in frozen if one.state == self._states.WAITING]
            if len(frozen) - len(waiting) >= self.plan.trials or (self.plan.sampler == "grid" and not waiting):
                return None
            self._seed(waiting[0].number if waiting else len(frozen))
            trial = self.study.ask()
            taken = self._take(trial.number)
            assert taken is not None
            return Claim(trial.number, trial, taken)

    def _take(self, number: int) -> FileLock | None:
        lock = FileLock(self.folder / f".{number:04d}.lock")
        try:
            lock.acquire(timeout=0)
        except Timeout:
            return None
        return lock

    def _seed(self, number: int) -> None:
        """Sets a sampler that depends only on the seed and the trial, so that resuming does not change the draws."""
        samplers, seed = _optuna().samplers, rng.key(self.plan.seed, "sweep", number) % 2**32
        kinds = {"tpe": samplers.TPESampler, "random": samplers.RandomSampler, "grid": samplers.RandomSampler}
        self.study.sampler = kinds[self.plan.sampler](seed=seed)

    def _pruner(self) -> Any:
        pruners, epochs = _optuna().pruners, int(self.plan.training["epochs"])
        if self.plan.prune == "median":
            return pruners.MedianPruner(n_startup_trials=4, n_warmup_steps=max(1, epochs // 5))
        if self.plan.prune == "halving":
            return pruners.SuccessiveHalvingPruner(min_resource=max(1, epochs // 9), reduction_factor=3)
        return pruners.NopPruner()

    def values(self, claim: Claim) -> dict[str, Any]:
        """The sampled values of a trial by option."""
        return {d.name: d.suggest(claim.trial) for d in self.plan.vary}

    def finish(self, claim: Claim, state: str, value: float | None = None, **about: Any) -> None:
        """Records the state of a trial that ended, ``"finished"``, ``"pruned"`` or ``"failed"``, with attributes."""
        for key, one in about.items():
            claim.trial.set_user_attr(key, one)
        states = {"finished": self._states.COMPLETE, "pruned": self._states.PRUNED, "failed": self._states.FAIL}
        self.study.tell(claim.trial, value, state=states[state])

    def kind(self, found: str) -> str:
        """The kind of likelihood of the first finished trial; ``found`` if this is the first."""
        with self._alone():
            if "kind" not in self.study.user_attrs:
                self.study.set_user_attr("kind", found)
            return str(self.study.user_attrs["kind"])

    def trials(self) -> list[Trial]:
        """All trials that were started, the best first, those without a figure last."""
        ended = {self._states.COMPLETE: "finished", self._states.PRUNED: "pruned", self._states.FAIL: "failed"}
        made = []
        for one in self.study.get_trials(deepcopy=False):
            if one.state == self._states.WAITING:
                continue
            state = ended.get(one.state, "unfinished")
            values = {d.name: _value(d, one.params[d.name]) for d in self.plan.vary if d.name in one.params}
            value = one.value if state == "finished" else None
            attrs = one.user_attrs
            made.append(
                Trial(
                    one.number, self.path(one.number), state, values, value, attrs.get("stderr"),
                    attrs.get("epochs", 0.0), attrs.get("seconds", 0.0), attrs.get("reason", ""),
                    tuple(attrs.get("folds", ())),
                )
            )  # fmt: skip
        sign = -1 if self.plan.better == "higher" else 1
        return sorted(made, key=lambda t: (math.inf if t.value is None else sign * t.value, t.number))

    def importances(self) -> dict[str, float]:
        """The fraction of variance that each option explains (functional ANOVA); empty if there are too few trials.

        Hutter, Hoos and Leyton-Brown 2014, "An Efficient Approach for Assessing Hyperparameter Importance" (ICML).
        """
        finished = [t.value for t in self.trials() if t.value is not None]
        if len(self.plan.vary) < 2 or len(finished) < 4 or max(finished) == min(finished):
            return {}
        importance = _optuna().importance
        evaluator = importance.FanovaImportanceEvaluator(seed=0)
        found = importance.get_param_importances(self.study, evaluator=evaluator)
        return {name: float(share) for name, share in found.items()}


def _value(dimension: Dimension, stored: Any) -> Any:
    if not dimension.choices:
        return stored
    return next(choice for choice in dimension.choices if dimension.stored(choice) == stored)


def _optuna() -> Any:
    """The module Optuna, with logging reduced to errors.

    Raises:
        MissingPackageError: it is not installed.
    """
    try:
        import optuna
    except ImportError as error:
        raise MissingPackageError("A sweep needs Optuna: pip install 'sandglass-ml[sweep]'.") from error
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    return optuna

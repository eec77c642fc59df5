"""A sweep from beginning to end: one process or several, and the page at the end."""

from __future__ import annotations

import math
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from sandglass import registry
from sandglass.data.dataset import Dataset
from sandglass.data.load import load_data
from sandglass.data.trained_on import as_dataset
from sandglass.engine.options import Training
from sandglass.engine.train import next_folder
from sandglass.errors import ConfigError, DataError, SandglassError
from sandglass.metrics.compared import better, can
from sandglass.metrics.evaluation import Better
from sandglass.metrics.measure import wanted
from sandglass.registry.limits import is_own
from sandglass.runs import storage
from sandglass.runs.plain import to_yaml
from sandglass.sweeps.page import page
from sandglass.sweeps.space import Dimension, space_of
from sandglass.sweeps.study import OBJECTIVE, Plan, Study, deciding_stage
from sandglass.sweeps.trials import Swept, Trial
from sandglass.sweeps.worker import work

_TRIALS = 20  # where no number is given

OnTrial = Callable[[Trial, "Study"], None]
"""Called with every trial that ended, and its sweep."""


def sweep(
    model: str = "vae",
    data: Any = None,
    *,
    vary: Mapping[str, Any] | None = None,
    trials: int | None = None,
    metric: str | None = None,
    sampler: str = "tpe",
    prune: str = "none",
    jobs: int = 1,
    out: str | Path | None = None,
    resume: str | Path | None = None,
    model_options: Mapping[str, Any] | None = None,
    data_options: Mapping[str, Any] | None = None,
    on_trial: OnTrial | None = None,
    **options: Any,
) -> Swept:
    """Trains a model with many settings, and says which is best on the validation split.

    Every trial is a run folder of its own inside the sweep folder. The test split is never looked at. A sweep that was
    stopped or killed goes on with ``resume``: trials that were broken off are finished, none is lost.

    Args:
        model: a registered name.
        data: as for :func:`sandglass.train`; it needs a validation split.
        vary: by option a list of values, a ``(low, high)`` pair, or a text such as ``"1e-4..1e-2"`` or ``"2,8,32"``.
        trials: how many in all; 20 when not given, and with a grid every combination.
        metric: the figure to choose by; the evidence bound where the model has one, else the squared error of
            reconstruction. ``"objective"`` is the validation objective itself.
        sampler: tpe (a model of what was good so far), random or grid.
        prune: none, median (stops what is worse than the median of earlier trials at the same epoch) or halving.
        jobs: trials at once, each in a process of its own with its share of the threads.
        out: the sweep folder; the next free ``sweeps/<model>-<data>-<number>`` when not given.
        resume: a sweep folder to go on with; of all else only ``trials``, ``jobs`` and ``data`` can be given.
        model_options: of the model, for every trial.
        data_options: of :func:`sandglass.load_data`.
        on_trial: called with every trial that ended.
        options: of the training, for every trial.

    Raises:
        ConfigError: an unknown option, or values that make no sense.
        DataError: there is no validation split, or the data has changed.
        MissingPackageError: Optuna is not installed.
        SandglassError: no trial finished.

    Example:
        >>> import tempfile
        >>> small = {"net": {"name": "mlp", "widths": [8]}, "latent_dim": 2}
        >>> found = sweep("vae", "digits", vary={"lr": [1e-5, 1e-2]}, sampler="grid", epochs=1, model_options=small,
        ...               data_options={"limit": 200}, out=tempfile.mkdtemp() + "/s")
        >>> found.best.values, [t.state for t in found.trials]
        ({'training.lr': 0.01}, ['finished', 'finished'])
    """
    if jobs < 1:
        raise ConfigError(f"A sweep needs 1 job or more, not {jobs}.")
    if resume is not None:
        if vary or out or model_options or data_options or options or metric:
            raise ConfigError("A sweep that goes on keeps its settings: only trials, jobs and data can be given.")
        study, found = _again(Path(resume), data, trials)
    else:
        found = as_dataset(data, data_options)
        plan = plan_of(
            model, found, space_of(model, vary or {}), trials=trials, metric=metric, sampler=sampler, prune=prune,
            jobs=jobs, model_options=model_options or {}, options=options,
        )  # fmt: skip
        study = Study.create(Path(out) if out is not None else next_folder(model, found.name, "sweeps"), plan)
    return conduct(study, found, jobs, on_trial or (lambda trial, study: None))


def plan_of(
    model: str,
    data: Dataset,
    vary: tuple[Dimension, ...],
    *,
    trials: int | None,
    metric: str | None,
    sampler: str,
    prune: str,
    jobs: int,
    model_options: Mapping[str, Any],
    options: Mapping[str, Any],
) -> Plan:
    """All that decides a sweep, checked before anything is written.

    Raises:
        ConfigError: something does not fit.
        DataError: there is no validation split.
    """
    if "validation" not in data.splits:
        raise DataError(
            f"A sweep chooses by the validation split, and '{data.name}' has none; give it one: validation=0.1."
        )
    if is_own(model_options):
        raise ConfigError(
            "A sweep keeps its settings in a file, which cannot hold an object of your own; name it instead."
        )
    if jobs > 1 and not data.source:
        raise ConfigError("Data that was handed over in Python is there for one job alone; save it to a file for more.")
    training = Training.of(options)
    if training.watch not in ("auto", "validation"):
        raise ConfigError(f"A sweep watches the validation split, not {training.watch}.")
    settled = training.settled([s for s in data.splits if s != "train"], len(data.train))
    given = training.to_dict() | {"epochs": settled.epochs, "threads": max(1, (settled.threads or 1) // jobs)}
    name, direction = figure_of(model, metric)
    whole = math.prod(len(dimension.grid()) for dimension in vary) if sampler == "grid" else None
    return Plan(
        model={"name": model, "options": registry.merged("model", model, model_options)}, training=given,
        data=dict(data.source) if data.source else None, fingerprint=data.fingerprint, vary=vary,
        trials=min(whole or _TRIALS if trials is None else trials, whole or sys.maxsize),
        metric=name, better=direction, sampler=sampler, prune=prune, seed=training.seed,
    )  # fmt: skip


def figure_of(model: str, metric: str | None) -> tuple[str, Better]:
    """The figure to choose by, and which way it is better.

    Raises:
        ConfigError: several figures, one that ranks nothing, or one that the model does not have.

    Example:
        >>> figure_of("vae", None), figure_of("ae", "mse")
        (('elbo', 'higher'), ('mse', 'lower'))
    """
    able = registry.declared(model)
    if metric is None:
        metric = "elbo" if "bound" in able.provides else "mse" if "reconstruct" in able.provides else ""
        if not metric:
            raise ConfigError(
                f"Say what to choose by: nothing ranks a '{model}' by itself. `sandglass metrics` lists all."
            )
    if metric == OBJECTIVE:
        if deciding_stage(able) is None:
            raise ConfigError(f"The model '{model}' has no objective to choose by; name a metric.")
        return metric, "lower"
    [(measure, figures)] = wanted([metric]).items()
    if len(figures) > 1:
        raise ConfigError(f"The metric '{metric}' has several figures; choose by one of: {', '.join(sorted(figures))}.")
    [name] = figures
    direction = better(name)
    if direction is None:
        raise ConfigError(f"Of {name} neither more nor less is better; choose by another figure.")
    if not can(able, measure):
        raise ConfigError(f"The model '{model}' has no {name}; choose by another figure.")
    return name, direction


def _again(folder: Path, data: Any, trials: int | None) -> tuple[Study, Dataset]:
    plan = Plan.read(folder / "sweep.yaml")
    if trials is not None and plan.sampler == "grid" and trials != plan.trials:
        raise ConfigError(f"The grid of {folder} has {plan.trials} trials; it cannot be given {trials}.")
    if trials is not None and trials < plan.trials:
        raise ConfigError(f"{folder} is set to {plan.trials} trials; it can be given more, not {trials}.")
    if trials is not None and trials != plan.trials:
        plan = Plan(**{**vars(plan), "trials": trials})
        storage.write_file(folder / "sweep.yaml", to_yaml(plan.to_dict()))
    if data is None and plan.data is None:
        raise DataError(f"The data of {folder} was handed over in Python; pass it again as data=...")
    source = dict(plan.data or {})
    dataset = load_data(source.pop("source"), **source) if data is None else as_dataset(data, None)
    return Study(folder), dataset


def conduct(study: Study, data: Dataset, jobs: int, on_trial: OnTrial) -> Swept:
    """Runs all trials that are left, and writes the page; also when it is stopped, of what there is.

    Raises:
        SandglassError: no trial finished, or a process ended with an error.
    """
    known = {t.number for t in study.trials() if t.state != "unfinished"}

    def report() -> None:
        for trial in sorted(study.trials(), key=lambda t: t.number):
            if trial.state != "unfinished" and trial.number not in known:
                known.add(trial.number)
                on_trial(trial, study)

    try:
        if jobs == 1:
            work(study, data, after=report)
        else:
            _parallel(study, jobs, report)
    finally:
        found = swept(study)
        study.close()
        storage.write_file(study.folder / "sweep.html", page(found).encode())
    if found.best is None:
        reason = next((t.reason for t in found.trials if t.reason), "")
        raise SandglassError(f"No trial of {study.folder} finished. {reason}".strip())
    return found


def swept(study: Study) -> Swept:
    """What a sweep found so far."""
    plan = study.plan
    scales, trials = {d.name: d.scale for d in plan.vary}, study.trials()
    best = trials[0].values if trials and trials[0].value is not None else {}
    ends = {d.name: end for d in plan.vary if d.name in best and (end := d.end(best[d.name]))}
    return Swept(
        study.folder, plan.model["name"], plan.metric, plan.better, scales, trials,
        study.importances(), plan.trials, int(plan.training["epochs"]), plan.sampler, plan.prune, ends,
    )  # fmt: skip


def _parallel(study: Study, jobs: int, report: Callable[[], None]) -> None:
    """Several processes that each take trials; a stop is passed on to them, and waited for."""
    command = [sys.executable, "-m", "sandglass.sweeps.worker", str(study.folder)]
    # In sessions of their own, so that a Ctrl-C reaches them once, through this process.
    workers = [subprocess.Popen(command, stdin=subprocess.DEVNULL, start_new_session=True) for _ in range(jobs)]
    try:
        while any(worker.poll() is None for worker in workers):
            time.sleep(0.2)
            report()
    except BaseException:
        for worker in workers:
            if worker.poll() is None:
                worker.send_signal(signal.SIGINT)
        for worker in workers:
            worker.wait()
        raise
    finally:
        report()
    codes = [worker.returncode for worker in workers if worker.returncode]
    if codes:
        raise SandglassError(
            f"A process of the sweep ended with code {codes[0]}; what was finished is kept. "
            f"Go on with: sandglass sweep --resume {study.folder}"
        )

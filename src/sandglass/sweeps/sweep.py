"""Runs a sweep, in one process or several, and writes its page."""

from __future__ import annotations

import math
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from sandglass import registry
from sandglass.data.dataset import Dataset
from sandglass.engine.options import Training
from sandglass.engine.processes import check_alone
from sandglass.engine.train import next_folder
from sandglass.errors import ConfigError, DataError, NotFoundError, SandglassError
from sandglass.metrics.compared import can
from sandglass.metrics.evaluation import Better
from sandglass.metrics.measure import wanted
from sandglass.registry import imported_files
from sandglass.registry.limits import is_own
from sandglass.runs import storage
from sandglass.runs.plain import to_yaml
from sandglass.runs.result import better
from sandglass.sweeps.folds import folds_of
from sandglass.sweeps.page import page
from sandglass.sweeps.space import Dimension, space_of
from sandglass.sweeps.study import OBJECTIVE, Plan, Study, deciding_stage
from sandglass.sweeps.trials import Swept, Trial
from sandglass.sweeps.worker import work

_TRIALS = 20  # default number of trials

OnTrial = Callable[[Trial, "Study"], None]
"""A callback for every trial that ended, with the trial and its study."""


def sweep(
    model: str = "vae",
    data: Any = None,
    *,
    vary: Mapping[str, Any] | None = None,
    trials: int | None = None,
    metric: str | None = None,
    sampler: str = "auto",
    prune: str = "none",
    folds: int = 0,
    jobs: int = 1,
    out: str | Path | None = None,
    resume: str | Path | None = None,
    model_options: Mapping[str, Any] | None = None,
    data_options: Mapping[str, Any] | None = None,
    on_trial: OnTrial | None = None,
    **options: Any,
) -> Swept:
    """Trains a model with many settings, and finds the best on the validation split.

    Every trial is a run folder inside the sweep folder. The test split is never used. An interrupted sweep continues
    with ``resume``, including interrupted trials.

    Args:
        model: a registered name.
        data: as for :func:`sandglass.train`; it needs a validation split.
        vary: for each option a list of values, a ``(low, high)`` pair, or a string such as ``"1e-4..1e-2"`` or
            ``"2,8,32"``.
        trials: total number of trials; by default 20, or every combination of a grid.
        metric: the figure by which trials are ranked; by default the evidence lower bound if the model has one, else
            the squared error of reconstruction. ``"objective"`` is the validation objective.
        sampler: tpe (tree-structured Parzen estimator), random or grid; auto is grid where all combinations are no more
            than the trials, else tpe.
        prune: none, median (stops trials worse than the median of earlier ones at the same epoch) or halving.
        folds: trains every trial on so many folds of the examples that are not held out for testing, and ranks by the
            mean (cross-validation); 0 for one validation split.
        jobs: number of parallel trials, each in its own process with a share of the threads.
        out: the sweep folder; by default the next free ``sweeps/<model>-<data>-<number>``.
        resume: a sweep folder to continue; only ``trials``, ``jobs`` and ``data`` can be given with it.
        model_options: options of the model for every trial.
        data_options: options of :func:`sandglass.load_data`.
        on_trial: called with every trial that ended.
        options: options of the training for every trial.

    Raises:
        ConfigError: an unknown option, or invalid values.
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
    check_alone("A sweep")
    if jobs < 1:
        raise ConfigError(f"A sweep needs at least 1 job, not {jobs}.")
    if resume is not None:
        if vary or out or model_options or data_options or options or metric or folds:
            raise ConfigError("A resumed sweep keeps its settings: only trials, jobs and data can be given.")
        study, found = _again(Path(resume), data, trials)
    else:
        found = folds_of(data, data_options, folds)
        plan = plan_of(
            model, found, space_of(model, vary or {}), trials=trials, metric=metric, sampler=sampler, prune=prune,
            jobs=jobs, model_options=model_options or {}, options=options,
        )  # fmt: skip
        study = Study.create(Path(out) if out is not None else next_folder(model, found[0].name, "sweeps"), plan)
    return conduct(study, found, jobs, on_trial or (lambda trial, study: None))


def plan_of(
    model: str,
    folds: Sequence[Dataset],
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
    """The settings of a sweep, checked before anything is written.

    Raises:
        ConfigError: an invalid setting.
        DataError: there is no validation split.
    """
    data = folds[0]
    if "validation" not in data.splits:
        raise DataError(f"A sweep needs a validation split, and '{data.name}' has none; give it one: validation=0.1.")
    if is_own(model_options):
        raise ConfigError(
            "A sweep stores its settings in a file, which cannot hold a custom object; register it and give its name."
        )
    if jobs > 1 and not data.source:
        raise ConfigError("Data passed as a Python object works with one job only; save it to a file for more.")
    training = Training.of(options)
    if training.watch not in ("auto", "validation"):
        raise ConfigError(f"A sweep uses the validation split, not {training.watch}.")
    if training.minutes is not None:
        raise ConfigError("The runs of a sweep are compared after the same epochs; give it epochs instead of minutes.")
    settled = training.settled([s for s in data.splits if s != "train"], len(data.train))
    given = training.to_dict() | {
        "epochs": settled.epochs,
        "sheets": 0,
        "threads": max(1, (settled.threads or 1) // jobs),
    }
    name, direction = figure_of(model, metric)
    if sampler == "auto":
        sampler = "grid" if all(d.is_finite for d in vary) and combinations(vary) <= (trials or _TRIALS) else "tpe"
    whole = combinations(vary) if sampler == "grid" else None
    return Plan(
        model={"name": model, "options": registry.merged("model", model, model_options)}, training=given,
        data=_source(data, len(folds) > 1), fingerprint=data.fingerprint, vary=vary,
        trials=min(whole or _TRIALS if trials is None else trials, whole or sys.maxsize),
        metric=name, better=direction, sampler=sampler, prune=prune, seed=training.seed,
        folds=len(folds) if len(folds) > 1 else 0,
    )  # fmt: skip


def combinations(vary: Sequence[Dimension]) -> int:
    """The number of combinations of all values.

    Raises:
        ConfigError: there are too many.
    """
    return math.prod(len(dimension.grid()) for dimension in vary)


def _source(data: Dataset, folded: bool) -> dict[str, Any] | None:
    """What to read the data from, without the fold."""
    if not data.source:
        return None
    return {name: value for name, value in data.source.items() if name != "fold" or not folded}


def figure_of(model: str, metric: str | None) -> tuple[str, Better]:
    """The figure by which trials are ranked, and whether higher or lower is better.

    Raises:
        ConfigError: several figures, one without a better direction, or one that the model does not support.

    Example:
        >>> figure_of("vae", None), figure_of("ae", "mse")
        (('elbo', 'higher'), ('mse', 'lower'))
    """
    able = registry.declared(model)
    if metric is None:
        metric = "elbo" if "bound" in able.provides else "mse" if "reconstruct" in able.provides else ""
        if not metric:
            raise ConfigError(
                f"Give a metric to rank trials by: '{model}' has no default. `sandglass metrics` lists all."
            )
    if metric == OBJECTIVE:
        if deciding_stage(able) is None:
            raise ConfigError(f"The model '{model}' has no objective; give a metric.")
        return metric, "lower"
    [(measure, figures)] = wanted([metric]).items()
    if len(figures) > 1:
        raise ConfigError(f"The metric '{metric}' has several figures; choose one of: {', '.join(sorted(figures))}.")
    [name] = figures
    direction = better(name)
    if direction is None:
        raise ConfigError(f"{name} cannot rank trials: neither higher nor lower is better; choose another figure.")
    if not can(able, measure):
        raise ConfigError(f"The model '{model}' has no {name}; choose another figure.")
    return name, direction


def _again(folder: Path, data: Any, trials: int | None) -> tuple[Study, list[Dataset]]:
    plan = Plan.read(folder / "sweep.yaml")
    if trials is not None and plan.sampler == "grid" and trials != plan.trials:
        raise ConfigError(f"The grid of {folder} has {plan.trials} trials; the number cannot be changed to {trials}.")
    if trials is not None and trials < plan.trials:
        raise ConfigError(f"{folder} has {plan.trials} trials; the number can only be increased, not set to {trials}.")
    if data is None and plan.data is None:
        raise DataError(f"The data of {folder} was passed as a Python object; pass it again as data=...")
    source = dict(plan.data or {})
    place = source.pop("source", None)
    try:
        found = folds_of(place if data is None else data, source, plan.folds)
    except NotFoundError as error:
        raise NotFoundError(
            f"{str(error).split(' Known datasets')[0]} If the data of {folder} moved, name its new place: --data PLACE "
            "(in Python, data=PLACE)."
        ) from error
    now = {"trials": plan.trials if trials is None else trials, "data": plan.data}
    if found[0].source and found[0].fingerprint == plan.fingerprint:
        now["data"] = _source(found[0], plan.folds > 1)  # it may have moved
    if any(getattr(plan, name) != value for name, value in now.items()):
        storage.write_file(folder / "sweep.yaml", to_yaml(Plan(**{**vars(plan), **now}).to_dict()))
    return Study(folder), found


def conduct(study: Study, folds: Sequence[Dataset], jobs: int, on_trial: OnTrial) -> Swept:
    """Runs all remaining trials and writes the page, even if interrupted.

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
            work(study, folds, after=report)
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
    """The results of a sweep so far."""
    plan = study.plan
    scales, trials = {d.name: d.scale for d in plan.vary}, study.trials()
    best = trials[0].values if trials and trials[0].value is not None else {}
    ends = {d.name: end for d in plan.vary if d.name in best and (end := d.end(best[d.name]))}
    return Swept(
        study.folder, plan.model["name"], plan.metric, plan.better, scales, trials,
        study.importances(), plan.trials, int(plan.training["epochs"]), plan.sampler, plan.prune, ends,
        plan.folds,
    )  # fmt: skip


def _parallel(study: Study, jobs: int, report: Callable[[], None]) -> None:
    """Runs trials in several processes; on interruption, signals them to stop and waits for them."""
    command = [sys.executable, "-m", "sandglass.sweeps.worker", str(study.folder), *imported_files()]
    # In separate sessions, so that Ctrl-C reaches them once, through this process.
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
            f"A process of the sweep ended with code {codes[0]}; finished trials are kept. "
            f"Continue with: sandglass sweep --resume {study.folder}"
        )

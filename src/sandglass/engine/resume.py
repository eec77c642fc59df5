"""Resuming a run: exactly as it would have gone on, or longer than was planned."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from sandglass import registry
from sandglass.core import Stage
from sandglass.data.dataset import Dataset
from sandglass.data.trained_on import difference, run_data
from sandglass.engine.batches import updates_per_epoch
from sandglass.engine.budget import Budget
from sandglass.engine.checking import plain_number
from sandglass.engine.extending import lasting, more_minutes
from sandglass.engine.loop import Loop
from sandglass.engine.options import Settled
from sandglass.engine.processes import check_shards, joined, lines
from sandglass.engine.progress import Progress
from sandglass.engine.record import differences, environment
from sandglass.engine.state import is_stale
from sandglass.engine.train import build, shown, spec_of
from sandglass.errors import CheckpointError, ConfigError, DataError, NotFoundError
from sandglass.runs.card import model_card
from sandglass.runs.lock import hold
from sandglass.runs.model_folder import read_model_config
from sandglass.runs.needed import check_needed
from sandglass.runs.run import Checkpoint, Run
from sandglass.runs.specification import from_plain

LENGTHS = ("epochs", "early_stopping")
"""Training options that may change on resume: they say how long a stage is trained."""


def resume(
    path: str | Path | Run,
    *,
    data: Any = None,
    epochs: int | None = None,
    early_stopping: int | None = None,
    stage: Mapping[str, Mapping[str, Any]] | None = None,
    minutes: float | None = None,
    progress: Progress | None = None,
    **parts: Any,
) -> Run:
    """Resumes a run from its newest intact checkpoint; the result has the same bits as without the interruption.

    A stage that stopped early goes on if it is given epochs, and then counts the epochs without improvement anew. With
    a larger ``early_stopping`` it has the same bits as if that had been given from the start.

    Args:
        path: the run or its folder.
        data: the data, if it was given in Python and the run cannot load it by itself; or the place it has moved to.
        epochs: a new, larger number of epochs of the first stage; all other options stay.
        early_stopping: a larger number of epochs without improvement, or 0 to no longer stop early, for the stage that
            the run is in and those that follow.
        stage: the same of single stages: ``{"prior": {"epochs": 60, "early_stopping": 0}}``.
        minutes: further minutes to train for, in place of epochs, in the stage that the run is in and those that
            follow.
        progress: as for :func:`train`.
        parts: your own objects that the model was built with, such as ``net=...``.

    Raises:
        CheckpointError: no checkpoint can be read.
        DataError: the data differs from what the run was trained on.
        LockedError: another process trains in that folder.
        ConfigError: an option would change what was trained already, or the shards of its batches cannot be dealt to
            the processes that were started.
        ProcessError: another process that trains the same model ended.
    """
    with joined() as processes:
        run = Run(path.path if isinstance(path, Run) else path, writes=processes.writes)
        if isinstance(path, Run):
            run.data, parts = path.data, {**path.parts, **parts}
        progress = shown(progress, processes)
        with hold(run.path) if processes.writes else nullcontext():
            config = run.config
            dataset = data if isinstance(data, Dataset) else run_data(run, data)
            check_same(dataset, run)
            if dataset.source and dict(dataset.source) != config["data"].get("source"):  # it has moved
                config = {**config, "data": {**config["data"], "source": dict(dataset.source)}}
                run.rewrite(config)
            training = Settled.of(config["training"])
            spec = spec_of(dataset, training)
            check_needed(config, parts, run.path)
            options = registry.completed(config["model"]["name"], config["model"]["options"])
            model = build(config["model"]["name"], spec, seed=training.seed, **{**options, **parts})
            stages = training.stages_of(model)
            check_shards(training, [s.name for s in stages if s.phases], processes)
            for line in lines(model, training, processes):
                progress.say(line)
            now = reached(run, stages) if early_stopping is not None or minutes is not None else ""
            asked = asked_for(stages, epochs, stage or {}, early_stopping, now, training, minutes)
            plan = None
            if minutes is not None:
                newest, _ = run.latest_checkpoint(upto(stages, now))
                plan, more = more_minutes(minutes, model, dataset, training, now, newest, processes=processes)
                progress.say(plan.line())
                for name, n in more.items():
                    asked.setdefault(name, {})["epochs"] = n
            longer, last = lengthened(training, stages, asked)
            checkpoint, problems = run.latest_checkpoint(last)
            found = -1 if checkpoint is None else checkpoint.step
            if any(processes.most(found != processes.first(lambda: found))):  # this also waits until all have read it
                raise CheckpointError(f"The processes do not find the same checkpoint in {run.path}.")
            for problem in problems:
                progress.say(f"Skipped a damaged checkpoint: {problem}")
            if checkpoint is None and problems:
                raise CheckpointError(f"No checkpoint of {run.path} can be read: {problems[0]}")
            anew = checkpoint is not None and counts_anew(checkpoint, longer, asked)
            if longer != training:
                run.drop_after(checkpoint, keep_trained=last)
                config = {**config, "training": longer.to_dict()}
                if any("epochs" in own for own in asked.values()):
                    config.pop("plan", None)  # they were asked for, however long they take
            if plan is not None:
                config = {**config, "plan": plan.to_dict()}
            if config != run.config:
                run.rewrite(config)
            for line in changes([s.name for s in stages if s.phases], training, longer, checkpoint, anew):
                progress.say(line)
            changed = [
                *(run.changes(checkpoint) if checkpoint else ()),
                *differences(config["environment"], environment()),
            ]
            for difference in changed:
                progress.say(f"Changed since the run began, so bits may differ: {difference}")
            if changed:
                run.event("changed", what=changed)
            if checkpoint is None:
                run.rewind_log(0)
            budget = Budget.of(config.get("plan"))
            if budget is not None and checkpoint is not None and plan is None:
                left = budget.seconds - budget.used(checkpoint.state["loop"]["seconds"])
                progress.say(f"{max(left, 0) / 60:.2f} of {budget.text} are left.")
            loop = Loop(model, dataset, run, longer, card=model_card, progress=progress, processes=processes)
            loop.fit(checkpoint, anew=anew)
        run.data, run.parts = None if dataset.source else dataset, model.custom
        return run


def check_same(data: Dataset, run: Run) -> None:
    """Refuses other data than that of a run.

    Raises:
        DataError: its fingerprint is another.
    """
    if why := difference(data, run):
        raise DataError(
            f"The data differs from what {run.path} was trained on: {why}. Restore it, name the place that it moved "
            "to with --data (in Python, data=...), or start a new run with --init-from."
        )


def finished(run: Run) -> bool:
    """Whether a run is at its end, its model written; False if that cannot be told."""
    checkpoint, problems = run.latest_checkpoint()
    training = Settled.of(run.config["training"])
    settings = run.config["model"]
    try:
        model = registry.outline(settings["name"], from_plain(run.config["spec"]), **settings["options"])
        written = read_model_config(run.path / "model").get("step")
    except (ConfigError, NotFoundError):
        return False
    if model is None or checkpoint is None or problems:
        return False
    now, stage = checkpoint.state["loop"], training.stages_of(model)[-1]
    if now["stage"] != stage.name:
        return False
    own = training.of_stage(stage.name)
    steps = updates_per_epoch(stage, own.batch_size, own.accumulate, run.config["data"]["examples"]["train"])
    total = own.epochs * steps if stage.phases else 0
    over = now["step"] >= min(total, own.max_steps or total) or stopped_early(checkpoint, training)
    kept = now["best_step"] if own.select == "best" and now["best_step"] is not None else checkpoint.step
    return bool(over and (now["fitted"] or stage.fit is None) and written == kept)


def stopped_early(checkpoint: Checkpoint, training: Settled) -> bool:
    """Whether the stage of a checkpoint has ended for lack of improvement, by these options."""
    now = checkpoint.state["loop"]
    return is_stale(now["stale"], training.of_stage(now["stage"]).early_stopping)


def ended_early(run: Run) -> bool:
    """Whether the newest checkpoint of a run is of a stage that stopped early."""
    checkpoint, _ = run.latest_checkpoint()
    return checkpoint is not None and stopped_early(checkpoint, Settled.of(run.config["training"]))


# longer than planned


def reached(run: Run, stages: Sequence[Stage]) -> str:
    """The trained stage that the newest checkpoint of a run is in, or that a fit has followed."""
    checkpoint, _ = run.latest_checkpoint()
    names = [s.name for s in stages]
    place = names.index(checkpoint.state["loop"]["stage"]) if checkpoint is not None else 0
    trained = [s.name for s in stages[: place + 1] if s.phases]
    return trained[-1] if trained else next((s.name for s in stages if s.phases), names[0])


def upto(stages: Sequence[Stage], name: str) -> list[str]:
    """The names of the stages, up to and with this one."""
    names = [s.name for s in stages]
    return names[: names.index(name) + 1]


def asked_for(
    stages: Sequence[Stage],
    epochs: int | None,
    stage: Mapping[str, Mapping[str, Any]],
    early_stopping: int | None = None,
    reached: str = "",
    training: Settled | None = None,
    minutes: float | None = None,
) -> dict[str, dict[str, int]]:
    """The new lengths by stage.

    Args:
        stages: of the model.
        epochs: of the first stage that is trained.
        stage: lengths of single stages.
        early_stopping: of the stage that was reached, and of those that follow for which it is longer.
        reached: that stage.
        training: the options so far, by which it is longer.
        minutes: that choose the epochs.

    Raises:
        ConfigError: an unknown stage, or an option that cannot change.
    """
    _check_types({"epochs": epochs, "early_stopping": early_stopping, "minutes": minutes}, stage)
    trained = [s.name for s in stages if s.phases]
    asked: dict[str, dict[str, int]] = {}
    if not trained and any(given is not None for given in (epochs, early_stopping, minutes)):
        raise ConfigError("This model is fitted in closed form: it cannot be trained longer.")
    if minutes is not None and (epochs is not None or any("epochs" in own for own in stage.values())):
        raise ConfigError("Give the length of training once: minutes chooses the epochs.")
    if epochs is not None:
        asked[trained[0]] = {"epochs": epochs}
    if early_stopping is not None:
        for name in trained[trained.index(reached) :]:
            now = training.of_stage(name).early_stopping if training is not None else 0
            longer = now > 0 and (early_stopping == 0 or early_stopping > now)
            if name == reached or longer or training is None:
                asked.setdefault(name, {})["early_stopping"] = early_stopping
    for name, options in stage.items():
        if name not in trained:
            raise ConfigError(f"The model trains no stage '{name}'. It trains: {', '.join(trained) or 'none'}.")
        if unknown := sorted(set(options) - {*LENGTHS}):
            raise ConfigError(
                f"A resumed run keeps its options: of the stage '{name}' only {' and '.join(LENGTHS)} can be given, "
                f"not {unknown[0]}."
            )
        asked.setdefault(name, {}).update(options)
    return asked


def _check_types(given: Mapping[str, Any], stage: Any) -> None:
    """Checks that lengths are numbers, and those of stages by stage and option.

    Raises:
        ConfigError: they are not.
    """
    if not isinstance(stage, Mapping) or not all(isinstance(own, Mapping) for own in stage.values()):
        raise ConfigError(f"stage maps stages to options, such as {{'prior': {{'epochs': 60}}}}, not {stage!r:.80}.")
    kinds = {field.name: str(field.type) for field in dataclasses.fields(Settled)}
    for options in (given, *stage.values()):
        for name, value in options.items():
            plain_number(name, value, kinds.get(name, ""))


def lengthened(
    training: Settled, stages: Sequence[Stage], asked: Mapping[str, Mapping[str, int]]
) -> tuple[Settled, Sequence[str]]:
    """The options with longer stages, and the names of the stages up to the first one that is longer (else all).

    Raises:
        ConfigError: a stage would be shorter than before.
    """
    trained = [s.name for s in stages if s.phases]
    before = {name: training.of_stage(name) for name in trained}
    changed = {name: own for name, own in asked.items() if _is_longer(name, before[name], own)}
    if not changed:
        return training, [s.name for s in stages]
    kept = {name: {option: getattr(before[name], option) for option in LENGTHS} for name in trained}
    longer = {name: {**own, **changed.get(name, {})} for name, own in kept.items()}
    training = lasting(training, [name for name, own in changed.items() if "epochs" in own], trained)
    options = {option: longer[trained[0]][option] for option in LENGTHS}
    stage = {name: dict(own) for name, own in training.stage.items()}
    for name in trained:
        own = stage.get(name, {})
        for option, value in longer[name].items():
            if option in own or value != options[option]:
                stage.setdefault(name, own)[option] = value
    return dataclasses.replace(training, **options, stage=stage), upto(stages, min(changed, key=trained.index))


def _is_longer(name: str, before: Settled, own: Mapping[str, int]) -> bool:
    """Whether a stage is trained longer with its new lengths.

    Raises:
        ConfigError: it would be shorter.
    """
    epochs, patience = own.get("epochs", before.epochs), own.get("early_stopping", before.early_stopping)
    if epochs < before.epochs:
        hint = "; one that stopped early goes on with --early-stopping 0" * bool(before.early_stopping)
        raise ConfigError(
            f"The stage '{name}' has {before.epochs} epochs: a resumed run can only have more, not {epochs}{hint}."
        )
    if patience and (not before.early_stopping or patience < before.early_stopping):
        n = before.early_stopping
        now = f"stops after {_epochs(n)} without improvement" if n else "does not stop early"
        raise ConfigError(
            f"The stage '{name}' {now}: in a resumed run, early stopping can only be raised, or switched off with 0; "
            f"it cannot be {patience}."
        )
    cut = "epochs" in own and before.max_steps is not None
    return cut or epochs != before.epochs or patience != before.early_stopping


def counts_anew(checkpoint: Checkpoint, longer: Settled, asked: Mapping[str, Mapping[str, int]]) -> bool:
    """Whether the stage of a checkpoint had stopped early, and goes on because it was given epochs."""
    return "epochs" in asked.get(checkpoint.state["loop"]["stage"], {}) and stopped_early(checkpoint, longer)


def changes(
    stages: Sequence[str], before: Settled, after: Settled, checkpoint: Checkpoint | None, anew: bool
) -> list[str]:
    """What is said of the lengths that changed.

    Args:
        stages: names of all.
        before: the options that the run had.
        after: those that it has now.
        checkpoint: that it goes on from.
        anew: whether epochs without improvement are counted anew.
    """
    said = []
    for name in stages:
        old, new = before.of_stage(name), after.of_stage(name)
        if old.epochs != new.epochs:
            said.append(f"The stage '{name}' is given {new.epochs} epochs instead of {old.epochs}.")
        elif old.max_steps != new.max_steps:
            said.append(f"The stage '{name}' is trained to the end of its {new.epochs} epochs.")
        if old.early_stopping != new.early_stopping:
            now = f"stops early after {_epochs(new.early_stopping)} without improvement instead of {old.early_stopping}"
            never = f"no longer stops early; it did after {_epochs(old.early_stopping)} without improvement"
            said.append(f"The stage '{name}' {now if new.early_stopping else never}.")
    if checkpoint is not None and stopped_early(checkpoint, before) and (anew or not stopped_early(checkpoint, after)):
        patience = after.of_stage(checkpoint.state["loop"]["stage"]).early_stopping
        again = f", and stops again after {_epochs(patience)} without improvement" if anew else ""
        said.append(f"It had stopped early, and goes on{again}.")
    return said


def _epochs(n: int) -> str:
    return f"{n} epoch{'s' * (n != 1)}"

"""Training a model into a run folder, and resuming a run."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from sandglass import registry, rng
from sandglass.core import Model, Spec, Stage
from sandglass.data.augment import make_augmentation
from sandglass.data.corrupt import make_corruption
from sandglass.data.dataset import Dataset
from sandglass.data.trained_on import as_dataset, difference, run_data
from sandglass.engine.budget import Budget, minutes
from sandglass.engine.copying import start_from
from sandglass.engine.loop import Loop
from sandglass.engine.options import Settled, Training
from sandglass.engine.planning import Plan, free_width, make_plan, of_width, width_of
from sandglass.engine.processes import ALONE, Processes, agreed, check_shards, joined, lines, shared
from sandglass.engine.progress import Mute, Progress, default_progress
from sandglass.engine.record import describe, differences, environment, write_bad_files
from sandglass.errors import CheckpointError, ConfigError, DataError, NotFoundError
from sandglass.runs.card import model_card
from sandglass.runs.load import load
from sandglass.runs.run import Run, find_run, hold, read_model_config
from sandglass.runs.specification import from_plain
from sandglass.schedules.weight import Weight, Weights


def build(name: str, spec: Spec, *, seed: int | None = None, **options: Any) -> Model:
    """A model for this kind of data, with fresh weights; see :func:`sandglass.registry.build`.

    Args:
        name: see ``sandglass models``.
        spec: ``load_data(...).spec``.
        seed: decides the initial weights and leaves the global generator alone; without it the global one is used.
        options: of that model.

    Example:
        >>> build("vae", Spec((1, 28, 28), "unit"), latent_dim=2, seed=0).code_size
        2
    """
    if seed is None:
        return registry.build(name, spec, **options)
    with rng.forked("cpu", seed, "weights"):
        return registry.build(name, spec, **options)


def train(
    model: str | Model = registry.AUTO,
    data: Any = None,
    *,
    out: str | Path | None = None,
    model_options: Mapping[str, Any] | None = None,
    data_options: Mapping[str, Any] | None = None,
    init_from: str | Path | None = None,
    progress: Progress | None = None,
    recipe: str | None = None,
    plan: Plan | None = None,
    **options: Any,
) -> Run:
    """Trains a model into a run folder: what :func:`sandglass.train` does with all options sorted.

    Args:
        model: a registered name, or a model already built; auto is the one that suits the data.
        data: a :class:`~sandglass.data.dataset.Dataset`, or anything :func:`load_data` reads.
        out: the run folder; see :func:`next_folder`.
        model_options: of the named model.
        data_options: of :func:`load_data`.
        init_from: a run or model folder whose weights to start from.
        progress: shows the progress.
        recipe: name of the recipe that these options are from, for the configuration.
        plan: of :func:`plan_minutes`, whose epochs are in the options; ``minutes`` makes one.
        options: of :class:`~sandglass.engine.options.Training`.

    Returns:
        The finished run.

    Raises:
        ConfigError, DataError, LockedError, DivergedError, ProcessError: as :func:`sandglass.train`.

    Example:
        >>> import tempfile
        >>> folder = tempfile.mkdtemp() + "/run"
        >>> train("vae", "digits", out=folder, epochs=1, model_options={"net": "mlp"}).steps()
        [21]
    """
    with joined() as processes:
        given = shared(Training.of(options), processes)
        dataset = as_dataset(data, data_options)
        agreed(dataset, processes)
        if init_from is not None:  # the newest run is this one as soon as its folder is there
            init_from = processes.first(lambda: str(find_run(str(init_from))))
        named = isinstance(model, str)
        progress = shown(progress, processes)
        if model == registry.AUTO:
            model, why = choose(dataset, given, model_options or {}, init_from)
            progress.say(f"No model is named: {model}, because {why}.")
        if isinstance(model, str):
            model = build(model, spec_of(dataset, given), seed=given.seed, **(model_options or {}))
        elif model_options:
            raise ConfigError("model_options go with a model's name; this model is built already.")
        if given.minutes is not None:
            check_fit(model, dataset)
            free = named and init_from is None and free_width(model.config["name"], model_options or {})
            plan, model = plan_minutes(model, dataset, given, width=free, processes=processes)
            given = plan.applied(given)
            progress.say(plan.line())
        check_fit(model, dataset)
        check_changes(model, dataset, given)
        watchable = [s for s in dataset.splits if s != "train"]
        training = given.settled(watchable, len(dataset.train), model.stages())
        for line in lines(model, training, processes):
            progress.say(line)
        for weight in weights_of(model):
            if warning := weight.unreached(training.epochs):
                progress.say(warning)
        if init_from is not None and (copied := start_from(model, init_from)):
            progress.say(f"Not all weights of {init_from} fit: started from the bodies of {', '.join(copied)} alone.")
        config = describe(model, dataset, training, recipe)
        if plan is not None:
            config["plan"] = plan.to_dict()
        name = model.config["name"]
        path = Path(out) if out is not None else Path(processes.first(lambda: str(next_folder(name, dataset.name))))
        with hold(path) if processes.writes else nullcontext():
            if processes.writes:
                write_bad_files(Run.create(path, config), dataset)
            processes.wait()
            run = Run(path, writes=processes.writes)
            loop = Loop(model, dataset, run, training, card=model_card, progress=progress, processes=processes)
            loop.fit()
        run.data = None if dataset.source else dataset
        return run


def shown(progress: Progress | None, processes: Processes) -> Progress:
    """Where progress is shown: by the first process."""
    return progress or default_progress() if processes.writes else Mute()


def choose(
    data: Dataset, training: Training, options: Iterable[str] = (), init_from: str | Path | None = None
) -> tuple[str, str]:
    """The model that is trained where none is named, and why, as the end of a sentence.

    Args:
        data: to train on.
        training: its options; corrupted inputs need a model that reconstructs.
        options: names of the model's options that were given.
        init_from: run or model folder whose weights it starts from.
    """
    if init_from is not None:
        return str(load(init_from).config["name"]), f"{init_from} is one"
    needed = {}
    if training.corrupt:
        needed["sees"] = "it learns to undo damage"
    if any(split.mask is not None for split in data.splits.values()):
        needed["masked"] = "it learns from examples with gaps"
    name, why = registry.model_for(data.spec, *options)
    able, _ = registry.model_for(data.spec, *options, *needed)
    return able, why if able == name else " and ".join(needed.values())


def plan_minutes(
    model: Model, data: Dataset, training: Training, *, width: bool, processes: Processes = ALONE
) -> tuple[Plan, Model]:
    """Chooses epochs, batch size and perhaps the width of the net for a training of some minutes, by timing steps.

    Args:
        model: built by :func:`build` with the seed of the training.
        data: to train on.
        training: its options, with minutes.
        width: whether the width of the net may be chosen.
        processes: that will train the model together.

    Returns:
        The plan, and the model with the chosen width and fresh weights.

    Raises:
        ConfigError: the options do not fit the model or the data.
    """
    check_changes(model, data, training)

    def make(wide: int) -> Model:
        return build(model.config["name"], model.spec, seed=training.seed, **of_width(model, wide))

    free = make if width and width_of(model) is not None else None
    plan = make_plan(model, data, training, free, processes=processes)
    if plan.width is None or plan.width == width_of(model):
        return plan, model
    return plan, make(plan.width)


def resume(
    path: str | Path,
    *,
    data: Any = None,
    epochs: int | None = None,
    stage: Mapping[str, Mapping[str, Any]] | None = None,
    progress: Progress | None = None,
    **parts: Any,
) -> Run:
    """Resumes a run from its newest intact checkpoint; the result has the same bits as without the interruption.

    Args:
        path: the run folder.
        data: the data, if it was given in Python and the run cannot load it by itself; or the place it has moved to.
        epochs: a new, larger number of epochs of the first stage; all other options stay.
        stage: new numbers of epochs of later stages: ``{"prior": {"epochs": 60}}``.
        progress: as for :func:`train`.
        parts: your own objects that the model was built with, such as ``net=...``.

    Raises:
        CheckpointError: no checkpoint can be read.
        DataError: the data differs from what the run was trained on.
        LockedError: another process trains in that folder.
        ConfigError: the shards of its batches cannot be dealt to the processes that were started.
        ProcessError: another process that trains the same model ended.
    """
    with joined() as processes:
        run = Run(path, writes=processes.writes)
        progress = shown(progress, processes)
        with hold(run.path) if processes.writes else nullcontext():
            config = run.config
            dataset = data if isinstance(data, Dataset) else run_data(run, data)
            check_same(dataset, run)
            if dataset.source and dict(dataset.source) != config["data"]["source"]:  # it has moved
                config = {**config, "data": {**config["data"], "source": dict(dataset.source)}}
                run.rewrite(config)
            training = Settled.of(config["training"])
            spec = spec_of(dataset, training)
            options = registry.completed(config["model"]["name"], config["model"]["options"])
            model = build(config["model"]["name"], spec, seed=training.seed, **{**options, **parts})
            check_shards(training, [s.name for s in model.stages() if s.phases], processes)
            for line in lines(model, training, processes):
                progress.say(line)
            longer, last = lengthened(training, model.stages(), epochs, stage or {})
            checkpoint, problems = run.latest_checkpoint(last)
            found = -1 if checkpoint is None else checkpoint.step
            if any(processes.most(found != processes.first(lambda: found))):  # this also waits until all have read it
                raise CheckpointError(f"The processes do not find the same checkpoint in {run.path}.")
            for problem in problems:
                progress.say(f"Skipped a damaged checkpoint: {problem}")
            if checkpoint is None and problems:
                raise CheckpointError(f"No checkpoint of {run.path} can be read: {problems[0]}")
            if longer != training:
                run.drop_after(checkpoint, keep_trained=last)
                for name in (s.name for s in model.stages() if s.phases):
                    before, after = training.of_stage(name).epochs, longer.of_stage(name).epochs
                    if before == after and training.of_stage(name).max_steps != longer.of_stage(name).max_steps:
                        progress.say(f"The stage '{name}' is trained to the end of its {after} epochs.")
                    if before != after:
                        progress.say(f"The stage '{name}' is given {after} epochs instead of {before}.")
                training, config = longer, {**config, "training": longer.to_dict()}
                config.pop("plan", None)  # epochs were asked for, however long they take
                run.rewrite(config)
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
            if budget is not None and checkpoint is not None:
                left = budget.seconds - budget.spent - checkpoint.state["loop"]["seconds"]
                progress.say(f"{max(left, 0) / 60:.2f} of {minutes(budget.seconds)} are left.")
            loop = Loop(model, dataset, run, training, card=model_card, progress=progress, processes=processes)
            loop.fit(checkpoint)
        run.data = None if dataset.source else dataset
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
    now, stage = checkpoint.state["loop"], model.stages()[-1]
    if now["stage"] != stage.name:
        return False
    own = training.of_stage(stage.name)
    total = own.epochs * math.ceil(run.config["data"]["examples"]["train"] / own.batch_size) if stage.phases else 0
    over = now["step"] >= min(total, own.max_steps or total) or now["stopped_early"]
    kept = now["best_step"] if own.select == "best" and now["best_step"] is not None else checkpoint.step
    return bool(over and (now["fitted"] or stage.fit is None) and written == kept)


def lengthened(
    training: Settled, stages: Sequence[Stage], epochs: int | None, stage: Mapping[str, Mapping[str, Any]]
) -> tuple[Settled, Sequence[str]]:
    """The options with more epochs, and the names of the stages up to the first one that gets more (all if none does).

    Raises:
        ConfigError: fewer epochs than before, an unknown stage, or an option other than its epochs.
    """
    trained = [s.name for s in stages if s.phases]
    wanted = {trained[0]: epochs} if epochs is not None else {}
    for name, options in stage.items():
        if name not in trained or set(options) != {"epochs"}:
            raise ConfigError(f"Only the epochs of a resumed run can be raised, in its stages: {', '.join(trained)}.")
        wanted[name] = options["epochs"]
    before = {name: training.of_stage(name).epochs for name in trained}
    cut = {name for name in trained if training.of_stage(name).max_steps}
    changed = {name: n for name, n in wanted.items() if n != before[name] or name in cut}
    for name, n in changed.items():
        if n < before[name]:
            raise ConfigError(
                f"The stage '{name}' has {before[name]} epochs: a resumed run can only have more, not {n}."
            )
    if not changed:
        return training, [s.name for s in stages]
    own = {name: dict(options) for name, options in training.stage.items()}
    for name in changed.keys() & own.keys():
        own[name].pop("max_steps", None)
        if name != trained[0] or "epochs" in own[name]:
            own[name]["epochs"] = changed[name]
    first = min(changed, key=trained.index)
    names = [s.name for s in stages]
    most = None if cut & changed.keys() else training.max_steps
    longer = dataclasses.replace(training, epochs=changed.get(trained[0], training.epochs), max_steps=most, stage=own)
    return longer, names[: names.index(first) + 1]


def spec_of(data: Dataset, training: Training) -> Spec:
    """The spec of the data; if training inputs are damaged, each example also has a damaged copy."""
    if make_corruption(training.corrupt, data.spec) is None:
        return data.spec
    damaged = dataclasses.replace(data.spec, classes=0, given={}, beside={})
    return dataclasses.replace(data.spec, given={**data.spec.given, "damaged": damaged})


def weights_of(model: Model) -> list[Weight]:
    """All weights in a model's objectives that can follow a schedule."""
    values = list(vars(model).values())
    return [w for v in values for w in (v.weights if isinstance(v, Weights) else (v,)) if isinstance(w, Weight)]


def check_fit(model: Model, data: Dataset) -> None:
    """Refuses a model built for other data.

    Raises:
        ConfigError: shapes, supports or classes differ.
        CapabilityError: the data lacks what the model needs.
    """
    if not hasattr(model, "config"):
        raise ConfigError("Build the model with sandglass.build(name, spec, ...), which sets its configuration.")
    if model.spec.shape != data.spec.shape or model.spec.support != data.spec.support:
        raise ConfigError(
            f"The model was built for {model.spec.support} examples of shape {model.spec.shape}; "
            f"'{data.name}' has {data.spec.support} ones of shape {data.spec.shape}."
        )
    for kind in ("given", "beside"):
        own, other = getattr(model.spec, kind), getattr(data.spec, kind)
        for name in own.keys() & other.keys():
            if own[name].shape != other[name].shape:
                raise ConfigError(
                    f"The model was built for '{name}' of shape {own[name].shape}; '{data.name}' has it of shape "
                    f"{other[name].shape}."
                )
    registry.check_needs(model, data.spec, gaps=any(split.mask is not None for split in data.splits.values()))
    if "labels" in model.needs and model.spec.classes != data.spec.classes:
        raise ConfigError(
            f"The model was built for {model.spec.classes} classes; '{data.name}' has {data.spec.classes}."
        )


def check_changes(model: Model, data: Dataset, training: Training) -> None:
    """Refuses augmentations and corruptions that do not suit this data or model.

    Raises:
        ConfigError: an augmentation that is not for such data, or corrupted inputs for a model that does not
            reconstruct.
    """
    make_augmentation(training.augment, data.spec)
    sees = model.config["options"].get("sees")
    if make_corruption(training.corrupt, data.spec) is not None and sees not in ("auto", "damaged"):
        able = [n for n in registry.names("model") if "sees" in registry.declared(n).config["options"]]
        raise ConfigError(
            f"The model '{model.config['name']}' does not reconstruct its input, so it cannot learn to undo --corrupt. "
            f"Models that can: {', '.join(able)}."
        )


def next_folder(model: str, data: str, within: str = "runs") -> Path:
    """The next free ``<model>-<data>-<number>`` in a folder."""
    stem = re.sub(r"[^\w.-]+", "-", f"{model}-{data}").strip("-") or "run"
    taken = [
        int(m[1]) for p in Path(within).glob(f"{stem}-*") if (m := re.fullmatch(rf"{re.escape(stem)}-(\d+)", p.name))
    ]
    return Path(within) / f"{stem}-{max(taken, default=0) + 1}"

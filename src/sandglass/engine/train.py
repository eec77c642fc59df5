"""Training a model into a run folder."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable, Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from sandglass import registry, rng
from sandglass.core import Model, Spec, Stage
from sandglass.data.augment import make_augmentation
from sandglass.data.corrupt import make_corruption
from sandglass.data.dataset import Dataset
from sandglass.data.trained_on import as_dataset
from sandglass.engine.copying import start_after, start_from
from sandglass.engine.loop import Loop
from sandglass.engine.options import Training
from sandglass.engine.planning import Plan, free_width, make_plan, of_width, width_of
from sandglass.engine.processes import ALONE, Processes, agreed, joined, lines, shared
from sandglass.engine.progress import Mute, Progress, default_progress
from sandglass.engine.record import describe, write_bad_files
from sandglass.errors import ConfigError
from sandglass.runs.card import model_card
from sandglass.runs.load import load
from sandglass.runs.lock import hold
from sandglass.runs.run import Run, find_run
from sandglass.schedules.weight import Weight, Weights

_STEM = 160  # bytes of a folder's name before its number; a file system allows about 255


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
        for note in dataset.notes if dataset is not data else ():
            progress.say(f"note: {note}")
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
        training = given.settled(watchable, len(dataset.train), stages_for(model, dataset, given))
        before = model.stages()[: -len(training.stages_of(model))]
        if before and init_from is None:
            raise ConfigError(
                f"from_stage={given.from_stage} begins after other stages; name the run with their weights: init_from "
                "(--init-from RUN)."
            )
        for line in lines(model, training, processes):
            progress.say(line)
        for weight in weights_of(model):
            if warning := weight.unreached(training.epochs):
                progress.say(warning)
        if before:
            start_after(before, model, str(init_from))
        elif init_from is not None and (copied := start_from(model, init_from)):
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
            loop.fit(copied=init_from is not None)
        run.data, run.parts = None if dataset.source else dataset, model.custom
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


def has_few_labels(data: Dataset) -> bool:
    """Whether some training examples have a label and others none."""
    y = data.train.y
    return y is not None and bool((y >= 0).any()) and bool((y < 0).any())


def stages_for(model: Model, data: Dataset, training: Training) -> tuple[Stage, ...]:
    """The stages that are trained; none has a share of labelled examples where all or none have a label."""
    stages = training.stages_of(model)
    return stages if has_few_labels(data) else tuple(dataclasses.replace(s, labelled_share=0.0) for s in stages)


def check_changes(model: Model, data: Dataset, training: Training) -> None:
    """Refuses augmentations, corruptions and a share of labelled examples that do not suit this data or model.

    Raises:
        ConfigError: an augmentation that is not for such data, corrupted inputs for a model that does not reconstruct,
            or a share of labelled examples where all or none are.
    """
    y = data.train.y
    shares = [training.labelled_share, *(own.get("labelled_share") for own in training.stage.values())]
    if any(shares) and not has_few_labels(data):
        raise ConfigError(
            f"labelled_share is for data of which some examples have a label and others none, and in '{data.name}' "
            f"{'none has one' if y is None or not len(y) or int(y.max()) < 0 else 'all have one'}; leave it out, or "
            "hide labels: labelled=100 (--labelled 100)."
        )
    make_augmentation(training.augment, data.spec)
    sees = model.config["options"].get("sees")
    if make_corruption(training.corrupt, data.spec) is not None and sees not in ("auto", "damaged"):
        able = [n for n in registry.names("model") if "sees" in registry.declared(n).config["options"]]
        raise ConfigError(
            f"The model '{model.config['name']}' does not reconstruct its input, so it cannot learn to undo --corrupt. "
            f"Models that can: {', '.join(able)}."
        )


def next_folder(model: str, data: str, within: str = "runs") -> Path:
    """The next free ``<model>-<data>-<number>`` in a folder; the name of the data is cut if it is long."""
    stem = re.sub(r"[^\w.-]+", "-", f"{model}-{data}").encode()[:_STEM].decode(errors="ignore").strip("-") or "run"
    taken = [
        int(m[1]) for p in Path(within).glob(f"{stem}-*") if (m := re.fullmatch(rf"{re.escape(stem)}-(\d+)", p.name))
    ]
    return Path(within) / f"{stem}-{max(taken, default=0) + 1}"

"""Training a model into a run folder, and going on with a run."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sandglass import registry, rng
from sandglass.core import Model, Spec
from sandglass.data.augment import make_augmentation
from sandglass.data.corrupt import make_corruption
from sandglass.data.dataset import Dataset
from sandglass.data.trained_on import as_dataset, run_data
from sandglass.engine.loop import Loop
from sandglass.engine.options import Settled, Training
from sandglass.engine.progress import Progress, default_progress
from sandglass.engine.record import describe, differences, environment, write_bad_files
from sandglass.errors import CheckpointError, ConfigError, DataError
from sandglass.runs.card import model_card
from sandglass.runs.load import load
from sandglass.runs.run import Run, hold
from sandglass.schedules.weight import Weight


def build(name: str, spec: Spec, *, seed: int | None = None, **options: Any) -> Model:
    """A model for this kind of data, with fresh weights; see :func:`sandglass.registry.build`.

    Args:
        name: see ``sandglass models``.
        spec: ``load_data(...).spec``.
        seed: decides the initial weights and leaves the global generator alone; without it the global one is used.
        options: of that model.

    Example:
        >>> build("vae", Spec((1, 28, 28), "unit"), latent_dim=2, seed=0).latent_dim
        2
    """
    if seed is None:
        return registry.build(name, spec, **options)
    with rng.forked("cpu", seed, "weights"):
        return registry.build(name, spec, **options)


def train(
    model: str | Model = "vae",
    data: Any = None,
    *,
    out: str | Path | None = None,
    model_options: Mapping[str, Any] | None = None,
    data_options: Mapping[str, Any] | None = None,
    init_from: str | Path | None = None,
    progress: Progress | None = None,
    recipe: str | None = None,
    **options: Any,
) -> Run:
    """Trains a model into a run folder.

    Args:
        model: a registered name, or a model already built.
        data: a :class:`~sandglass.data.dataset.Dataset`, or anything :func:`load_data` reads.
        out: the run folder; the next free ``runs/<model>-<data>-<number>`` when not given.
        model_options: of the named model.
        data_options: of :func:`load_data`.
        init_from: a run or model folder whose weights to start from.
        progress: what shows it; a bar in a terminal or notebook, nothing in a pipe when not given.
        recipe: the name of the recipe these options came from, for the record.
        options: of :class:`~sandglass.engine.options.Training`.

    Returns:
        The finished run.

    Raises:
        ConfigError, DataError: before anything is written, when something does not fit.
        LockedError: another process trains in that folder.
        DivergedError: the numbers stopped being finite.

    Example:
        >>> import tempfile
        >>> folder = tempfile.mkdtemp() + "/run"
        >>> run = train("vae", "digits", out=folder, epochs=1, model_options={"latent_dim": 2, "net": "mlp"})
        >>> sorted(f.name for f in run.path.iterdir() if f.name in ("model", "metrics.jsonl"))
        ['metrics.jsonl', 'model']
    """
    training = Training.of(options)
    dataset = as_dataset(data, data_options)
    training = training.settled([s for s in dataset.splits if s != "train"], len(dataset.train))
    if isinstance(model, str):
        model = build(model, dataset.spec, seed=training.seed, **(model_options or {}))
    elif model_options:
        raise ConfigError("model_options go with a model's name; this model is built already.")
    check_fit(model, dataset)
    check_changes(model, dataset, training)
    progress = progress or default_progress()
    for weight in (value for value in vars(model).values() if isinstance(value, Weight)):
        if told := weight.unreached(training.epochs):
            progress.say(told)
    if init_from is not None:
        start_from(model, init_from)
    config = describe(model, dataset, training, recipe)
    path = Path(out) if out is not None else next_folder(model.config["name"], dataset.name)
    with hold(path):
        run = Run.create(path, config)
        write_bad_files(run, dataset)
        loop = Loop(model, dataset, run, training, card=model_card, progress=progress)
        loop.fit()
    return run


def resume(
    path: str | Path,
    *,
    data: Any = None,
    epochs: int | None = None,
    progress: Progress | None = None,
    **parts: Any,
) -> Run:
    """Goes on with a run from its newest checkpoint that verifies, to the same bits as never stopping.

    Args:
        path: the run folder.
        data: the data again, where the run cannot load it by itself because it was handed over in Python.
        epochs: a new, larger total; everything else stays as it was.
        progress: as for :func:`train`.
        parts: objects of your own that the model was built with, such as ``net=...``.

    Raises:
        CheckpointError: no checkpoint can be read.
        DataError: the data is not what the run was trained on.
        LockedError: another process trains in that folder.
    """
    run = Run(path)
    progress = progress or default_progress()
    with hold(run.path):
        config = run.config
        dataset = as_dataset(data, None) if data is not None else run_data(run)
        if dataset.fingerprint != config["data"]["fingerprint"]:
            raise DataError(
                f"The data is not what {run.path} was trained on: its fingerprint is {dataset.fingerprint[:12]}, "
                f"the run's {config['data']['fingerprint'][:12]}. Restore the data, or start anew with --init-from."
            )
        checkpoint, problems = run.latest_checkpoint()
        for problem in problems:
            progress.say(f"Passed over a damaged checkpoint: {problem}")
        training = Settled.of(config["training"])
        if epochs is not None and epochs != training.epochs:
            if epochs < training.epochs:
                raise ConfigError(f"{run.path} is set to {training.epochs} epochs; it can be given more, not {epochs}.")
            progress.say(f"The run is given {epochs} epochs instead of {training.epochs}.")
            config = {**config, "training": {**config["training"], "epochs": epochs}}
            training = Settled.of(config["training"])
            run.rewrite(config)
        if checkpoint is None and problems:
            raise CheckpointError(f"No checkpoint of {run.path} can be read: {problems[0]}")
        changed = [*(run.changes(checkpoint) if checkpoint else ()), *differences(config["environment"], environment())]
        for difference in changed:
            progress.say(f"Not as when the run began, so bits may differ: {difference}")
        if changed:
            run.event("changed", what=changed)
        model = build(
            config["model"]["name"], dataset.spec, seed=training.seed, **{**config["model"]["options"], **parts}
        )
        if checkpoint is None:
            run.rewind_log(0)
        loop = Loop(model, dataset, run, training, card=model_card, progress=progress)
        loop.fit(checkpoint)
    return run


def check_fit(model: Model, data: Dataset) -> None:
    """Refuses a model built for other data.

    Raises:
        ConfigError: shapes or supports differ.
        CapabilityError: values are missing, and the model's losses cannot leave them out.
    """
    if not hasattr(model, "config"):
        raise ConfigError("Build the model with sandglass.build(name, spec, ...), so that it knows its configuration.")
    if model.spec.shape != data.spec.shape or model.spec.support != data.spec.support:
        raise ConfigError(
            f"The model was built for {model.spec.support} examples of shape {model.spec.shape}; "
            f"'{data.name}' has {data.spec.support} ones of shape {data.spec.shape}."
        )
    if any(split.mask is not None for split in data.splits.values()):
        registry.require_masks(model)


def check_changes(model: Model, data: Dataset, training: Training) -> None:
    """Refuses changes of the training examples that this data or this model cannot have.

    Raises:
        ConfigError: pictures are changed in a way that is not for such data, or inputs are damaged for a model that
            compares nothing with the whole ones.
    """
    make_augmentation(training.augment, data.spec)
    if make_corruption(training.corrupt, data.spec) is not None and not model.denoises:
        able = [n for n in registry.names("model") if registry.entry("model", n).make.denoises]  # type: ignore[attr-defined]
        raise ConfigError(
            f"The model '{model.config['name']}' does not rebuild its input, so it cannot learn to undo --corrupt. "
            f"Models that can: {', '.join(able)}."
        )


def start_from(model: Model, source: str | Path) -> None:
    """Copies the weights of another run or model folder into ``model``.

    Raises:
        ConfigError: they do not fit.
    """
    try:
        model.load_state_dict(load(source).state_dict())
    except RuntimeError as error:
        first = str(error).split("\n\t")[-1]
        raise ConfigError(f"The weights of {source} do not fit this model: {first}") from error


def next_folder(model: str, data: str, within: str = "runs") -> Path:
    """The next free ``runs/<model>-<data>-<number>``, or so in another folder."""
    stem = re.sub(r"[^\w.-]+", "-", f"{model}-{data}").strip("-") or "run"
    taken = [
        int(m[1]) for p in Path(within).glob(f"{stem}-*") if (m := re.fullmatch(rf"{re.escape(stem)}-(\d+)", p.name))
    ]
    return Path(within) / f"{stem}-{max(taken, default=0) + 1}"

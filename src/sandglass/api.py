"""The library's face: read data, build, train, load, evaluate."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sandglass import registry, rng
from sandglass.core import Model, Result, Spec
from sandglass.data.augment import make_augmentation
from sandglass.data.corrupt import make_corruption
from sandglass.data.dataset import Dataset
from sandglass.data.load import load_data
from sandglass.data.transform import Transform
from sandglass.engine.loop import Loop
from sandglass.engine.mirror import copy_results
from sandglass.engine.options import Settled, Training
from sandglass.engine.progress import Progress, Silent, default_progress
from sandglass.errors import CheckpointError, ConfigError, DataError, MissingPackageError, NotFoundError
from sandglass.metrics.measure import beside, measure
from sandglass.record import describe, differences, environment, write_bad_files
from sandglass.report.card import model_card
from sandglass.run import Run, hold, load_model, read_model_config
from sandglass.schedules.weight import Weight

__all__ = ["build", "evaluate", "load", "load_data", "resume", "run_data", "train", "transform_of"]


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


def load(source: str | Path | Run, *, device: str = "cpu", allow_nonfinite: bool = False, **parts: Any) -> Model:
    """A trained model in eval mode, from a run, a model folder or a Hugging Face hub id (``owner/name``).

    Args:
        source: where it is.
        device: where to put it.
        allow_nonfinite: warn of weights that are not finite in place of refusing them.
        parts: objects of your own that it was built with, such as ``net=...``.

    Raises:
        NotFoundError: there is nothing of the kind.
        CheckpointError: it is damaged.
        MissingPackageError: a hub id needs ``pip install sandglass-ml[hub]``.
    """
    parts = {"allow_nonfinite": allow_nonfinite, **parts}
    if isinstance(source, Run):
        return source.load_model(device=device, **parts)
    path = Path(source)
    if (path / "config.yaml").is_file():
        return Run(path).load_model(device=device, **parts)
    if (path / "config.json").is_file():
        return load_model(path, device=device, **parts)
    return load_model(fetch(str(source)), device=device, **parts)


def fetch(name: str) -> Path:
    """Downloads a model folder from the Hugging Face hub.

    Raises:
        NotFoundError: it is neither a folder here nor on the hub.
        MissingPackageError: huggingface_hub is not installed.
    """
    owner = name.split("/")[0]
    if Path(name).exists():
        raise NotFoundError(f"{name} is neither a run (config.yaml) nor a model folder (config.json).")
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", name) or owner == "runs" or Path(owner).exists():
        raise NotFoundError(f"There is no folder {name}. `sandglass runs` lists the runs there are.")
    try:
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError
    except ImportError as error:
        raise MissingPackageError(
            f"There is no folder {name}; to fetch it from the hub: pip install 'sandglass-ml[hub]'."
        ) from error
    try:
        patterns = ["config.json", "model.safetensors", "README.md", "MANIFEST.json"]
        return Path(snapshot_download(name, allow_patterns=patterns))
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        why = str(error).strip().split("\n")[0]
        raise NotFoundError(f"There is no folder {name}, and the hub did not give it: {why[:200]}") from error


def evaluate(
    run: Run | str | Path,
    *,
    split: str = "test",
    data: Any = None,
    metrics: Sequence[str] = (),
    seed: int = 0,
    device: str = "cpu",
    **options: Any,
) -> dict[str, Any]:
    """Measures a run's kept weights on a split and writes ``results.json``.

    Args:
        run: the run or its folder.
        split: which examples.
        data: other data than the run's own; prepared as the run's was, and not written to ``results.json``.
        metrics: which measures, or figures of theirs; all that apply, but for the slow ones, when empty.
        seed: of the noise.
        device: where to measure.
        options: by measure, such as ``log_prob={"k": 1000}``.

    Returns:
        ``{"model", "data", "split", "step", "metrics": {name: {"value", "stderr", "n", "unit"}}}``.

    Raises:
        DataError: there is no such split.
    """
    run = run if isinstance(run, Run) else Run(run)
    own = data is None
    dataset = run_data(run) if own else as_dataset(data, reading_of(run))
    if split not in dataset.splits:
        raise DataError(f"There is no split '{split}' in '{dataset.name}'; it has: {', '.join(dataset.splits)}.")
    model = run.load_model(device=device)
    about = beside(dataset) if own else {**beside(dataset), "train": None}
    results: list[Result] = measure(model, dataset.splits[split], names=metrics, seed=seed, **about, **options)
    step = kept_step(run)
    report = {
        "model": model.config["name"],
        "data": dataset.name,
        "split": split,
        "step": step,
        "metrics": {r.name: r.to_dict() for r in results},
    }
    if own:
        known = run.results()
        earlier = known.get(split, {})
        if earlier.get("step") == step:
            report["metrics"] = {**earlier.get("metrics", {}), **report["metrics"]}
        run.write_results({**known, split: report})
        copy_results(run, report, Silent().say)
    return report


def kept_step(run: Run) -> int:
    """The step of the weights that a run kept."""
    return read_model_config(run.path / "model")["step"] if (run.path / "model").is_dir() else run.steps()[-1]


def run_data(run: Run) -> Dataset:
    """The data a run was trained on, read again from where it came.

    Raises:
        DataError: it was handed over in Python; pass it again.
        ConfigError: its options make no sense.
    """
    source = run.config["data"].get("source")
    if not source:
        raise DataError(f"The data of {run.path} was handed over in Python; pass it again as data=...")
    options = {k: v for k, v in source.items() if k != "source"}
    try:
        return load_data(source["source"], **options)
    except (KeyError, TypeError, AttributeError) as error:
        raise ConfigError(f"The data options in {run.path / 'config.yaml'} make no sense: {error}.") from error


def transform_of(source: Run | str | Path) -> Transform:
    """How a run or model folder prepares a picture or row, and the way back."""
    config = _config_of(source)
    path = source.path if isinstance(source, Run) else Path(source)
    try:
        transform, spec = Transform.from_dict(config["transform"]), Spec.from_dict(config["spec"])
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise CheckpointError(f"{path}: the configuration has no good transform ({error}).") from error
    if transform.spec().shape != spec.shape:
        raise CheckpointError(f"{path}: the transform makes {transform.spec().shape}, the model reads {spec.shape}.")
    return transform


def reading_of(source: Run | str | Path) -> dict[str, Any]:
    """The options of :func:`load_data` that read new data as a run or model folder does: transform and classes."""
    return {"transform": transform_of(source), "classes": _config_of(source).get("classes") or None}


def _config_of(source: Run | str | Path) -> dict[str, Any]:
    if isinstance(source, Run):
        return source.config
    path = Path(source)
    if (path / "config.yaml").is_file():
        return Run(path).config
    return read_model_config(path if path.exists() else fetch(str(source)))


def as_dataset(data: Any, options: Mapping[str, Any] | None) -> Dataset:
    """A dataset as it is, or whatever :func:`load_data` makes of the source."""
    if isinstance(data, Dataset):
        return data
    if data is None:
        raise ConfigError("Say what to train on: a name from `sandglass datasets`, a folder, a file or an array.")
    return load_data(data, **(options or {}))


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

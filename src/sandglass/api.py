"""The library's face: read data, build, train, load, evaluate, use, and report."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sandglass import recipes, registry
from sandglass.core import Model
from sandglass.data.load import load_data
from sandglass.data.trained_on import reading_of, run_data, transform_of
from sandglass.engine import train as engine
from sandglass.engine.options import Training
from sandglass.engine.progress import Progress
from sandglass.engine.resume import resume
from sandglass.engine.sampler import fit_sampler
from sandglass.engine.train import build
from sandglass.errors import ConfigError
from sandglass.metrics.evaluate import evaluate
from sandglass.runs.load import load, parts_of
from sandglass.runs.run import Run

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from sandglass.tasks.outcome import Outcome
    from sandglass.tasks.trained import Trained

__all__ = [
    "build",
    "evaluate",
    "figures",
    "fit_sampler",
    "generate",
    "load",
    "load_data",
    "reading_of",
    "reconstruct",
    "report",
    "resume",
    "run_data",
    "train",
    "transform_of",
    "use",
]


def train(
    model: str | Model = registry.AUTO,
    data: Any = None,
    *,
    recipe: str | None = None,
    out: str | Path | None = None,
    model_options: Mapping[str, Any] | None = None,
    data_options: Mapping[str, Any] | None = None,
    init_from: str | Path | None = None,
    progress: Progress | None = None,
    **options: Any,
) -> Run:
    """Trains a model into a run folder.

    Several processes that were started by ``torchrun`` train it together; the first one writes the folder, and each
    returns the run.

    Args:
        model: a registered name, or a model already built; auto is the one that suits the data.
        data: a :class:`~sandglass.data.dataset.Dataset`, or anything :func:`load_data` reads.
        recipe: name of a recipe, whose model, data and options are taken where none are given.
        out: the run folder; the next free ``runs/<model>-<data>-<number>`` when not given.
        model_options: of the named model; needed only for those that training has, too.
        data_options: of :func:`load_data`.
        init_from: a run or model folder whose weights to start from: all of them, or the network bodies that fit.
        progress: shows the progress; by default a bar in a terminal, one line in a notebook, a line now and then in a
            pipe.
        options: of :class:`~sandglass.engine.options.Training`, and of the named model.

    Returns:
        The finished run.

    Raises:
        ConfigError, DataError: before anything is written, if options, model and data do not fit.
        LockedError: another process trains in that folder.
        DivergedError: training produced values that are not finite.
        ProcessError: another process that trains the same model ended.

    Example:
        >>> import tempfile
        >>> folder = tempfile.mkdtemp() + "/run"
        >>> run = train("vae", "digits", out=folder, epochs=1, latent_dim=2, net="mlp")
        >>> sorted(f.name for f in run.path.iterdir() if f.name in ("model", "metrics.jsonl"))
        ['metrics.jsonl', 'model']
    """
    if not all(isinstance(given, Mapping | None) for given in (model_options, data_options)):
        raise ConfigError("model_options and data_options must be mappings, such as {'latent_dim': 2}.")
    training, own = divided(options)
    if own and not isinstance(model, str):
        raise ConfigError(f"'{min(own)}' is not a training option, and this model is already built.")
    own = {**own, **(model_options or {})}
    if recipe is not None:
        model, data, own, data_options, training = filled(recipe, model, data, own, data_options, training)
    if isinstance(model, str) and model != registry.AUTO:
        check_names(model, own)
    return engine.train(
        model, data, out=out, model_options=own, data_options=data_options, init_from=init_from, progress=progress,
        recipe=recipe, **training,
    )  # fmt: skip


def divided(options: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Options of training, and all others, which are the model's.

    Example:
        >>> divided({"epochs": 3, "beta": 4.0})
        ({'epochs': 3}, {'beta': 4.0})
    """
    names = {field.name for field in dataclasses.fields(Training)}
    training = {name: value for name, value in options.items() if name in names}
    return training, {name: value for name, value in options.items() if name not in names}


def check_names(model: str, options: Mapping[str, Any]) -> None:
    """Checks that a model has options of these names.

    Raises:
        ConfigError: neither training nor the model has one of them.
    """
    known = [option.name for option in registry.schema("model", model)] + [*registry.moved_options("model", model)]
    trained = [field.name for field in dataclasses.fields(Training)]
    for name in sorted(set(options) - set(known)):
        hint = registry.nearest(name, sorted({*known, *trained}))
        raise ConfigError(f"Neither training nor the model '{model}' has an option '{name}'.{hint}")


def filled(
    recipe: str,
    model: str | Model,
    data: Any,
    own: dict[str, Any],
    data_options: Mapping[str, Any] | None,
    training: dict[str, Any],
) -> tuple[str, Any, dict[str, Any], dict[str, Any], dict[str, Any]]:
    """What is given, and what a recipe says of the rest: model, data, the options of both, and those of training.

    Raises:
        ConfigError: there is no such recipe, or another model is given.
    """
    found = recipes.read(recipe)
    name, source = found["model"]["name"], found["data"]["source"]
    if not isinstance(model, str):
        raise ConfigError(f"The recipe '{recipe}' builds its own model; leave one of the two out.")
    if model not in (registry.AUTO, name):
        raise ConfigError(f"The recipe '{recipe}' is for the model '{name}'; leave one of the two out.")
    if data is None or (isinstance(data, str) and data == source):
        known = {option: value for option, value in found["data"].items() if option != "source"}
        data, data_options = source, {**known, **(data_options or {})}
    if "minutes" in training:
        found["training"].pop("epochs", None)
    options = {**found["model"].get("options", {}), **own}
    return name, data, options, dict(data_options or {}), {**found["training"], **training}


def use(
    task: str, run: Run | str | Path, *, out: str | Path | None = None, device: str = "cpu", **options: Any
) -> Outcome:
    """Puts a trained model to use: what the command of that name does, in Python.

    Args:
        task: its name, see ``sandglass tasks``.
        run: the run or its folder, a model folder, or a hub id.
        out: file or folder to write to, in the format of its suffix; nothing is written without it.
        device: to compute on.
        options: of the task, and the objects that the model was built with, such as ``net=...``. ``from_`` and the like
            stand for options named like a keyword of Python. ``data`` names other data, or where the run's own is now.

    Returns:
        The outcome: ``x``, the examples in the scale of the model, ``examples`` in that of the data, and ``arrays``.

    Raises:
        ConfigError, DataError: the options or examples do not match the model.
        CapabilityError: the model lacks what the task needs.

    Example:
        >>> import tempfile
        >>> run = train("vae", "digits", out=tempfile.mkdtemp() + "/run", epochs=1, latent_dim=2, net="mlp")
        >>> use("encode", run, split="test").arrays["codes"].shape
        (359, 2)
    """
    from sandglass.tasks.task import perform, reads_data, written
    from sandglass.tasks.trained import opened

    parts, options = parts_of(run, options)
    place = None if reads_data(task) else options.pop("data", None)
    made = registry.resolve("task", {"name": task, **options})
    trained = opened(run, device, data=place, **parts)
    return perform(made, trained) if out is None else written(made, trained, out)[0]


def generate(run: Run | str | Path, number: int | None = None, **options: Any) -> Outcome:
    """Draws new examples from a trained model; see :func:`use`.

    Args:
        run: the run or its folder, a model folder, or a hub id.
        number: how many; by default 64, or what the condition says.
        options: of ``sandglass generate`` and of :func:`use`, such as ``label="each"`` or ``out="samples.png"``.

    Example:
        >>> import tempfile
        >>> run = train("vae", "digits", out=tempfile.mkdtemp() + "/run", epochs=1, latent_dim=2, net="mlp")
        >>> samples = generate(run, 16)
        >>> samples.x.shape, samples.examples.shape
        (torch.Size([16, 1, 8, 8]), (16, 8, 8))
    """
    return use("generate", run, number=number, **options)


def reconstruct(run: Run | str | Path, **options: Any) -> Outcome:
    """Reconstructs examples by a trained model; see :func:`use`.

    Args:
        run: the run or its folder, a model folder, or a hub id.
        options: of ``sandglass reconstruct`` and of :func:`use`, such as ``number=10`` or ``data="new/"``.

    Example:
        >>> import tempfile
        >>> run = train("vae", "digits", out=tempfile.mkdtemp() + "/run", epochs=1, latent_dim=2, net="mlp")
        >>> sorted(reconstruct(run, number=3).parts)
        ['original', 'reconstruction']
    """
    return use("reconstruct", run, **options)


def report(
    run: Run | str | Path,
    *,
    data: Any = None,
    device: str = "cpu",
    progress: Callable[[str], None] | None = None,
    **parts: Any,
) -> Path:
    """Writes ``report.html`` of a run, after an evaluation if there was none; returns its path.

    Args:
        run: the run or its folder.
        data: the run's data, or its place, where it moved or was passed as a Python object.
        device: to compute on.
        progress: is told which metric is being computed.
        parts: the objects that the model was built with, such as ``net=...``.

    Raises:
        DataError: the data is no longer available.
        SaveError: the page could not be written.

    Example:
        >>> import tempfile
        >>> run = train("vae", "digits", out=tempfile.mkdtemp() + "/run", epochs=1, latent_dim=2, net="mlp")
        >>> found = evaluate(run, metrics=["elbo"])
        >>> report(run).name
        'report.html'
    """
    from sandglass.reports.page import write_report

    trained = _whole(run, data, device, parts)
    assert trained.run is not None
    results = trained.run.results()
    if not results:
        found = evaluate(trained.run, data=trained.own, model=trained.model, progress=progress)
        results = trained.run.results() or {found["split"]: found}  # of changed data nothing was stored
    return write_report(trained.run, trained.model, trained.own, results)


def figures(run: Run | str | Path, *, data: Any = None, device: str = "cpu", **parts: Any) -> dict[str, Figure]:
    """The charts and pictures of the report as figures of matplotlib, by name; see :func:`report`.

    Example:
        >>> import tempfile
        >>> run = train("vae", "digits", out=tempfile.mkdtemp() + "/run", epochs=1, latent_dim=2, net="mlp")
        >>> found = figures(run)
        >>> "samples" in found, type(found["curve-elbo-loss"]).__name__
        (True, 'Figure')
    """
    from sandglass.reports import page
    from sandglass.reports.section import Material

    trained = _whole(run, data, device, parts)
    assert trained.run is not None
    return page.figures(Material(trained.run, trained.model, trained.own, page.reports(trained.run.results())))


def _whole(run: Run | str | Path, data: Any, device: str, parts: Mapping[str, Any]) -> Trained:
    """A run with its model and its data."""
    from sandglass.tasks.trained import opened

    return opened(run if isinstance(run, Run) else Run(run), device, data=data, **parts)

"""Evaluation of a run, saved to its folder."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any

from sandglass.core import Model
from sandglass.data.dataset import Dataset
from sandglass.data.trained_on import as_dataset, reading_of, run_data
from sandglass.engine.mirror import copy_results
from sandglass.engine.progress import Silent
from sandglass.errors import DataError
from sandglass.metrics.measure import check_found, context_of, measure
from sandglass.runs.load import kept_step, parts_of
from sandglass.runs.result import Result, Results
from sandglass.runs.run import Run


def evaluate(
    run: Run | str | Path,
    *,
    split: str | None = None,
    data: Any = None,
    metrics: Sequence[str] = (),
    seed: int = 0,
    device: str = "cpu",
    model: Model | None = None,
    quick: bool = False,
    progress: Callable[[str], None] | None = None,
    **options: Any,
) -> Results:
    """Evaluates a run's saved weights on a split and writes ``results.json``.

    Args:
        run: the run or its folder.
        split: name of the split; by default test, else validation, else train.
        data: the run's own data where it is already loaded; or other data, preprocessed like the run's, whose figures
            are not written to ``results.json``.
        metrics: names of metrics or of single figures; when empty, all that apply except the slow ones.
        seed: of the noise.
        device: to compute on.
        model: the run's model where it is already loaded.
        quick: whether what takes long is left out or measured on less, as at the end of ``sandglass train``.
        progress: is told which metric is being computed.
        options: options per metric, such as ``log_prob={"k": 1000}``, and the objects that the model was built with,
            such as ``net=...``.

    Returns:
        ``{"model", "data", "split", "step", "quick", "metrics": {name: {"value", "stderr", "n", "unit"}}}``, with the
        figures that were asked for; its ``each`` has those of every example.

    Raises:
        DataError: there is no such split, or a figure that was asked for does not apply.

    Example:
        >>> import tempfile
        >>> from sandglass.engine.train import train
        >>> options = {"epochs": 1, "model_options": {"net": "mlp"}, "sheets": 0}
        >>> found = evaluate(train("vae", "digits", out=tempfile.mkdtemp() + "/run", **options), metrics=["elbo"])
        >>> list(found["metrics"]), list(found.each), len(found.each["elbo"])
        (['elbo'], ['index', 'class', 'elbo'], 359)
    """
    run = run if isinstance(run, Run) else Run(run)
    parts, options = parts_of(run, options)
    dataset = run_data(run) if data is None else as_dataset(data, reading_of(run))
    own = data is None or (isinstance(data, Dataset) and data.fingerprint == run.config["data"]["fingerprint"])
    split = default_split(dataset.splits) if split is None else split
    if split not in dataset.splits:
        raise DataError(f"There is no split '{split}' in '{dataset.name}'; it has: {', '.join(dataset.splits)}.")
    model = run.load_model(device=device, **parts) if model is None else model
    about = context_of(dataset) if own else {**context_of(dataset), "train": None}
    results: list[Result] = measure(
        model, dataset.splits[split], names=metrics, seed=seed, quick=quick, progress=progress, **about, **options
    )
    step = kept_step(run)
    about = {"model": model.config["name"], "data": dataset.name, "split": split, "step": step}
    found = {r.name: r.to_dict() for r in results}
    if own:
        known = run.results()
        earlier = known.get(split, {}) if known.get(split, {}).get("step") == step else {}
        quicker = quick or (bool(metrics) and earlier.get("quick", False))
        report = {**about, "quick": quicker, "metrics": {**earlier.get("metrics", {}), **found}}
        run.write_results({**known, split: report})
        copy_results(run, report, Silent().say)
    for asked in metrics:  # at the end, so that no other figure is lost
        check_found(asked, found)
    return Results({**about, "quick": quick, "metrics": found}, each_of(dataset, split, results))


def default_split(available: Collection[str]) -> str:
    """The split to evaluate on: test, else validation, else train.

    Example:
        >>> default_split(["train", "validation"])
        'validation'
    """
    return next((s for s in ("test", "validation") if s in available), "train")


def each_of(data: Dataset, split: str, results: Sequence[Result]) -> dict[str, Sequence[Any]]:
    """The columns of :attr:`~sandglass.runs.result.Results.each`."""
    own = data.splits[split]
    columns: dict[str, Sequence[Any]] = {"index": list(range(len(own)))}
    if own.names:
        columns["name"] = list(own.names)
    if own.y is not None:
        names = dict(enumerate(data.classes))
        columns["class"] = [names.get(k, str(k)) if k >= 0 else "" for k in own.y.tolist()]
    return columns | {r.name: r.each.tolist() for r in results if r.each is not None and r.by_example}

"""Evaluation of a run, saved to its folder."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from sandglass.core import Model
from sandglass.data.dataset import Dataset, Split
from sandglass.data.selecting import chosen, held_out, joined
from sandglass.data.trained_on import find_data
from sandglass.engine.mirror import copy_results
from sandglass.engine.progress import Silent
from sandglass.metrics.measure import check_found, context_of, listed, measure
from sandglass.runs.load import kept_step, parts_of
from sandglass.runs.result import Result, Results
from sandglass.runs.run import Run


def evaluate(
    run: Run | str | Path,
    *,
    split: str | None = None,
    data: Any = None,
    metrics: str | Sequence[str] = (),
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
        split: train, validation, test or all; by default the first of test, validation and train that the
            run's own data has; all of other data that has no test split.
        data: the run's own data, loaded or at a new place; or other data, preprocessed like the run's, whose figures
            are not written to ``results.json``. The fingerprint decides which it is.
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
    metrics = listed(metrics)
    where = find_data(run, data)
    if where.remark:
        warnings.warn(where.remark, stacklevel=2)
    dataset, own = where.data, where.own
    split = split or (held_out(dataset.splits) if own or "test" in dataset.splits else "all")
    splits = chosen(dataset, split)
    model = run.load_model(device=device, **parts) if model is None else model
    context = context_of(dataset) if own else {**context_of(dataset), "train": None}
    results: list[Result] = measure(
        model, joined(splits), names=metrics, seed=seed, quick=quick, progress=progress, **context, **options
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
    return Results({**about, "quick": quick, "metrics": found}, each_of(dataset, splits, results))


def each_of(data: Dataset, splits: Mapping[str, Split], results: Sequence[Result]) -> dict[str, Sequence[Any]]:
    """The columns of :attr:`~sandglass.runs.result.Results.each`, for the examples of some splits."""
    own = joined(splits)
    columns: dict[str, Sequence[Any]] = {"index": [i for split in splits.values() for i in range(len(split))]}
    if len(splits) > 1:
        columns["split"] = [name for name, split in splits.items() for _ in range(len(split))]
    if own.names:
        columns["name"] = list(own.names)
    if own.y is not None:
        names = dict(enumerate(data.classes))
        columns["class"] = [names.get(k, str(k)) if k >= 0 else "" for k in own.y.tolist()]
    return columns | {r.name: r.each.tolist() for r in results if r.each is not None and r.by_example}

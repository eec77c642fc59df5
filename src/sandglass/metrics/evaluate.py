"""Evaluation of a run, saved to its folder."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sandglass.core import Model
from sandglass.data.selecting import chosen, held_out, joined
from sandglass.data.trained_on import find_data
from sandglass.engine.mirror import copy_results
from sandglass.engine.progress import Silent
from sandglass.metrics.measure import context_of, measure
from sandglass.runs.load import kept_step
from sandglass.runs.result import Result
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
    **options: Any,
) -> dict[str, Any]:
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
        options: options per metric, such as ``log_prob={"k": 1000}``.

    Returns:
        ``{"model", "data", "split", "step", "quick", "metrics": {name: {"value", "stderr", "n", "unit"}}}``.

    Raises:
        DataError: there is no such split.
    """
    run = run if isinstance(run, Run) else Run(run)
    found = find_data(run, data)
    dataset, own = found.data, found.own
    split = split or (held_out(dataset.splits) if own or "test" in dataset.splits else "all")
    examples = joined(chosen(dataset, split))
    model = run.load_model(device=device) if model is None else model
    about = context_of(dataset) if own else {**context_of(dataset), "train": None}
    results: list[Result] = measure(model, examples, names=metrics, seed=seed, quick=quick, **about, **options)
    step = kept_step(run)
    report = {
        "model": model.config["name"],
        "data": dataset.name,
        "split": split,
        "step": step,
        "quick": quick,
        "metrics": {r.name: r.to_dict() for r in results},
    }
    if own:
        known = run.results()
        earlier = known.get(split, {})
        if earlier.get("step") == step:
            report["metrics"] = {**earlier.get("metrics", {}), **report["metrics"]}
            report["quick"] = quick or (bool(metrics) and earlier.get("quick", False))
        run.write_results({**known, split: report})
        copy_results(run, report, Silent().say)
    return report

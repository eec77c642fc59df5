"""Measuring a run and writing down what was found."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sandglass.core import Model
from sandglass.data.dataset import Dataset
from sandglass.data.trained_on import as_dataset, reading_of, run_data
from sandglass.engine.mirror import copy_results
from sandglass.engine.progress import Silent
from sandglass.errors import DataError
from sandglass.metrics.measure import beside, measure
from sandglass.runs.load import kept_step
from sandglass.runs.result import Result
from sandglass.runs.run import Run


def evaluate(
    run: Run | str | Path,
    *,
    split: str = "test",
    data: Any = None,
    metrics: Sequence[str] = (),
    seed: int = 0,
    device: str = "cpu",
    model: Model | None = None,
    **options: Any,
) -> dict[str, Any]:
    """Measures a run's kept weights on a split and writes ``results.json``.

    Args:
        run: the run or its folder.
        split: which examples.
        data: the run's own data where it is at hand; or other data, prepared as the run's was, whose figures are not
            written to ``results.json``.
        metrics: which measures, or figures of theirs; all that apply, but for the slow ones, when empty.
        seed: of the noise.
        device: where to measure.
        model: the run's kept weights where they are loaded already.
        options: by measure, such as ``log_prob={"k": 1000}``.

    Returns:
        ``{"model", "data", "split", "step", "metrics": {name: {"value", "stderr", "n", "unit"}}}``.

    Raises:
        DataError: there is no such split.
    """
    run = run if isinstance(run, Run) else Run(run)
    dataset = run_data(run) if data is None else as_dataset(data, reading_of(run))
    own = data is None or (isinstance(data, Dataset) and data.fingerprint == run.config["data"]["fingerprint"])
    if split not in dataset.splits:
        raise DataError(f"There is no split '{split}' in '{dataset.name}'; it has: {', '.join(dataset.splits)}.")
    model = run.load_model(device=device) if model is None else model
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

"""Errors of translations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from torch import Tensor

from sandglass import running
from sandglass.core import Batch, Model
from sandglass.metrics.evaluation import Better, Evaluation
from sandglass.metrics.measure import mean_result, per_example
from sandglass.registry import register
from sandglass.runs.result import Result


@register("translation", kind="metric")
class Translation:
    """Mean absolute error of translations: to the paired example, or after a cycle between unpaired domains."""

    needs = ("translate",)
    figures = ("translation_mae", "cycle_mae", "cycle_mae_back")
    quick = True
    limits: Mapping[str, str] = {
        "translation_mae": "pairs of examples",
        "cycle_mae": "a model of two unpaired sets",
        "cycle_mae_back": "a model of two unpaired sets",
    }
    better: Mapping[str, Better] = {"translation_mae": "lower", "cycle_mae": "lower", "cycle_mae_back": "lower"}

    def __call__(self, model: Model, evaluation: Evaluation) -> Sequence[Result]:
        """``translation_mae`` of paired models; of unpaired ones the error after a cycle from each domain."""
        unit = "[0, 1] scale" if model.spec.support != "real" else "scale of the model's input"
        others = [need.removeprefix("beside:") for need in model.needs if need.startswith("beside:")]
        if not others:
            made = per_example(model, evaluation, "translation", lambda b: _error(model.translate(b, "x"), b))
            return [mean_result("translation_mae", made, unit, by_example=True)]
        other = others[0]

        def there(batch: Batch) -> Tensor:
            return _error(model.translate(replace(batch, x=model.translate(batch, other)), "x"), batch)

        def back(batch: Batch) -> Tensor:
            return _error(model.translate(replace(batch, x=model.translate(batch, "x")), other), batch)

        results = [mean_result("cycle_mae", per_example(model, evaluation, "cycle", there), unit, by_example=True)]
        key = (evaluation.seed, "measure", "cycle back")
        values = running.over(model, evaluation.split.beside[other], back, key=key).double()
        return [*results, mean_result("cycle_mae_back", values, unit, f"from '{other}' and back")]


def _error(made: Tensor, batch: Batch) -> Tensor:
    """``(B,)`` mean absolute differences from x, of its observed values."""
    difference = (made - batch.x).abs().flatten(1)
    if batch.mask is None:
        return difference.mean(1)
    mask = batch.mask.flatten(1)
    return difference.masked_fill(~mask, 0).sum(1) / mask.sum(1).clamp(min=1)

"""Reconstruction errors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from sandglass.core import Batch, Model
from sandglass.metrics.bound import OBSERVED
from sandglass.metrics.evaluation import Better, Evaluation
from sandglass.metrics.measure import mean_result, per_example
from sandglass.registry import register
from sandglass.runs.result import Result


@register("reconstruction", kind="metric")
class Reconstruction:
    """Mean squared and absolute error of deterministic reconstructions, and for images the signal-to-noise ratio."""

    needs = ("reconstruct",)
    figures = ("mse", "mae", "psnr")
    quick = True
    limits: Mapping[str, str] = {"psnr": "values in [0, 1], as of images"}
    better: Mapping[str, Better] = {"mse": "lower", "mae": "lower", "psnr": "higher"}

    def __call__(self, model: Model, evaluation: Evaluation) -> Sequence[Result]:
        """MSE and MAE per observed value, PSNR in dB averaged over images; skips examples with no observed value."""

        def errors(batch: Batch) -> Tensor:
            difference = (model.reconstruct(batch) - batch.x).flatten(1)
            if batch.mask is None:
                return torch.stack([difference.square().mean(1), difference.abs().mean(1)], 1)
            mask = batch.mask.flatten(1)
            difference = difference.masked_fill(~mask, 0)
            return torch.stack([difference.square().sum(1), difference.abs().sum(1)], 1) / mask.sum(1, keepdim=True)

        values = per_example(model, evaluation, "reconstruction", errors)
        whole = values.unbind(1)
        mse, mae = values[~values[:, 0].isnan()].unbind(1) if evaluation.split.mask is not None else whole
        note = OBSERVED if evaluation.split.mask is not None else ""
        unit = "[0, 1] scale" if model.spec.support != "real" else "scale of the model's input"
        results = [mean_result("mse", mse, f"squared, {unit}", note), mean_result("mae", mae, unit, note)]
        if model.spec.support != "real":
            results.append(mean_result("psnr", _psnr(mse), "dB"))
            whole = (*whole, _psnr(whole[0]))
        return [replace(result, each=each, by_example=True) for result, each in zip(results, whole, strict=True)]


def _psnr(mse: Tensor) -> Tensor:
    return -10 * torch.log10(mse.clamp(min=1e-12))

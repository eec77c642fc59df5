"""Figures of many network evaluations in bf16, where a sample shows that it does not change them."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from sandglass import rng
from sandglass.core import Batch, Model
from sandglass.engine.device import gains_by_bf16, has_bf16
from sandglass.metrics.evaluation import Evaluation
from sandglass.metrics.measure import per_example
from sandglass.running import over

SAMPLE, FEWEST = 50, 500
"""Examples that are compared, and the fewest of a figure for which that pays."""

TOLERANCE = 0.05
"""Nats by which the mean may differ, two standard errors of the difference included."""


def in_half(
    model: Model, evaluation: Evaluation, name: str, f: Callable[[Batch], Tensor], draws: int
) -> tuple[Tensor, str]:
    """``f`` of every example, in bf16 products where the processor has them and a sample allows it, else in float32.

    On the sample both are computed with the same random numbers. Sums and likelihoods are float32 in both.

    Args:
        model: to run.
        evaluation: the examples.
        name: of the figure, the key of its noise.
        f: from a batch to ``(B,)`` nats.
        draws: network evaluations an example.

    Returns:
        ``(N,)`` values, and a note that says how far they are from those in float32; empty for float32.
    """
    n = len(evaluation.split)
    single = model.device.type == "cpu" and model.dtype == torch.float32
    worth = single and not evaluation.exact and n >= FEWEST and n * draws >= 100 * FEWEST
    if not (worth and has_bf16() and gains_by_bf16(model.modules())):
        return per_example(model, evaluation, name, f), ""

    def half(batch: Batch) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            return f(batch).float()

    some = evaluation.split.take(rng.permutation(n, evaluation.seed, "in half")[:SAMPLE])
    key = (evaluation.seed, "in half", name)
    difference = (over(model, some, half, key=key) - over(model, some, f, key=key)).double()
    mean, error = float(difference.mean()), float(difference.std()) / SAMPLE**0.5
    if not abs(mean) + 2 * error < TOLERANCE:
        return per_example(model, evaluation, name, f), ""
    note = f"bf16 products, {mean:+.3f} +- {error:.3f} nats from float32 on {SAMPLE} examples"
    return per_example(model, evaluation, name, half), note

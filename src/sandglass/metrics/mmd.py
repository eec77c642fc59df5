"""Maximum mean discrepancy between the codes of the examples and the prior."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

import torch
from torch import Tensor

from sandglass.core import Batch, Model
from sandglass.distributions.discrepancy import KERNELS, mmd
from sandglass.errors import ConfigError
from sandglass.metrics.aggregate import at_random
from sandglass.metrics.evaluation import Evaluation
from sandglass.metrics.measure import mean_result, per_example
from sandglass.registry import register
from sandglass.running import conditions, placed
from sandglass.runs.result import Result

_FEW = 20  # with fewer blocks the standard error is unreliable


@register("mmd", kind="metric")
class MMD:
    """Squared maximum mean discrepancy between draws from q(z) and from the prior; its mean is 0 where they agree.

    Gretton, Borgwardt, Rasch, Schoelkopf and Smola 2012, "A Kernel Two-Sample Test" (JMLR 13); the average over blocks
    is Zaremba, Gretton and Blaschko 2013, "B-tests" (arXiv 1307.1954).

    Args:
        kernel: ``imq`` (inverse multiquadratic) or ``rbf`` (Gaussian).
        examples: maximum number of examples, drawn at random.
    """

    needs = ("encode", "prior", "codes")
    figures = ("mmd",)

    def __init__(self, *, kernel: Literal["imq", "rbf"] = "imq", examples: int = 10_000) -> None:
        if kernel not in KERNELS:
            raise ConfigError(f"The kernel of mmd is one of {', '.join(KERNELS)}, not '{kernel}'.")
        if examples < 2:
            raise ConfigError(f"mmd needs at least 2 examples, not {examples}.")
        self.kernel, self.examples = kernel, examples

    def __call__(self, model: Model, evaluation: Evaluation) -> Sequence[Result]:
        """The mean over blocks of about ``sqrt(N)`` examples, with its standard error; empty for a single example."""
        some = replace(evaluation, split=at_random(evaluation, self.examples))
        if len(some.split) < 2:
            return []
        draws = "posterior" in model.provides

        def codes(batch: Batch) -> Tensor:
            return model.posterior(batch).sample() if draws else model.encode(batch)

        z = per_example(model, some, "mmd", codes)
        others, scale = (prior_draws(model, some, n) for n in (len(z), 1000))
        unit = 2 * float(scale.var(0).sum())  # mean squared distance of two draws, estimated from separate draws
        blocks = mmd_blocks(z, others, self.kernel, unit)
        note = f"{self.kernel} kernel, {len(blocks)} blocks of {block_size(len(z))}; 0 where q(z) is the prior"
        if len(blocks) < _FEW:
            note += "; too few examples for a reliable standard error"
        return [replace(mean_result("mmd", blocks, "1", note), n=len(z))]


def prior_draws(model: Model, evaluation: Evaluation, n: int) -> Tensor:
    """``(n, D)`` draws from p(z), or from p(z|c) with the conditions of the examples; float64 on the CPU."""
    given = conditions(model, evaluation.split, n, evaluation.seed, "mmd")
    prior = model.prior(placed(model, given))
    return prior.sample(torch.Size([] if prior.batch_shape else [n])).double().cpu()


def block_size(n: int) -> int:
    """Block size for ``n`` examples: ``floor(sqrt(n))``, at least 2."""
    return max(2, math.isqrt(n))


def mmd_blocks(x: Tensor, y: Tensor, kernel: str = "imq", unit: float = 1.0) -> Tensor:
    """Unbiased squared MMD of each block of :func:`block_size` examples; an incomplete last block is dropped.

    See :func:`~sandglass.distributions.discrepancy.mmd`.

    Args:
        x: ``(n, dim)``, in random order.
        y: ``(n, dim)``.
        kernel: one of :data:`~sandglass.distributions.discrepancy.KERNELS`.
        unit: the squared distance that corresponds to a kernel width of 1.

    Example:
        >>> x, y = torch.randn(2, 400, 3, generator=torch.Generator().manual_seed(0)).double()
        >>> same, far = mmd_blocks(x, y), mmd_blocks(x, y + 2)
        >>> len(same), bool(same.mean().abs() < 0.01), bool(far.mean() > 0.1)
        (20, True, True)
    """
    size = block_size(len(x))
    x, y = (t[: len(t) // size * size].unflatten(0, (-1, size)) for t in (x, y))
    return mmd(x, y, kernel, unit)

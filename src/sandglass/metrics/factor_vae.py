"""The score of the FactorVAE paper."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from sandglass import rng
from sandglass.core import Model
from sandglass.errors import ConfigError
from sandglass.metrics._bootstrap import bootstrap
from sandglass.metrics._factors import Factored, factored
from sandglass.metrics.evaluation import Better, Evaluation
from sandglass.registry import register
from sandglass.runs.result import Result

_RESAMPLES = 20


@register("factor_vae", kind="metric")
class FactorVAEScore:
    """FactorVAE score: how well the dimension that varies least predicts which factor was held fixed.

    Kim and Mnih 2018, "Disentangling by Factorising" (arXiv 1802.05983).

    Args:
        votes: number of votes, each with one factor held fixed; half of them fit the majority-vote classifier, the
            other half test it.
        examples: number of examples per vote.

    Raises:
        ConfigError: fewer than 100 votes or 2 examples.
    """

    needs = ("encode", "codes")
    requires = ("factors",)
    figures = ("factor_vae",)
    better: Mapping[str, Better] = {"factor_vae": "higher"}

    def __init__(self, *, votes: int = 2000, examples: int = 64) -> None:
        if votes < 100 or examples < 2:
            raise ConfigError(f"factor_vae needs votes >= 100 and examples >= 2, not {votes} and {examples}.")
        self.votes, self.examples = votes, examples

    def __call__(self, model: Model, evaluation: Evaluation) -> Sequence[Result]:
        """The accuracy on the test votes; the bootstrap error draws new votes on each resample."""
        data = factored(model, evaluation, "factor_vae", least=2)
        generator = np.random.default_rng(rng.key(evaluation.seed, "factor_vae"))

        def score(weights: np.ndarray) -> np.ndarray:
            pool = np.repeat(np.arange(len(weights)), weights.astype(np.int64))
            fitted, tested = (self.poll(data, pool, generator) for _ in range(2))
            factor_of = fitted.argmax(0)
            return np.array([tested[factor_of, np.arange(tested.shape[1])].sum() / tested.sum()])

        value, error = bootstrap(score, len(data.codes), evaluation.seed, "factor_vae", times=_RESAMPLES)
        fewest = min(int(np.bincount(column).min()) for column in data.factors.T)
        few = f"few examples: a vote is over {self.examples}, drawn with replacement from as few as {fewest}"
        note = data.note(f"by chance {1 / len(data.names):.2f}", few if fewest < self.examples else "")
        return [Result("factor_vae", float(value[0]), float(error[0]), len(data.codes), "1", note)]

    def poll(self, data: Factored, pool: np.ndarray, generator: np.random.Generator) -> np.ndarray:
        """``(F, D)`` counts of half the votes, by fixed factor and by the dimension with the least variance."""
        codes = data.codes[pool]
        spread = codes.var(0)
        each = -(-self.votes // (2 * len(data.names)))
        votes = np.zeros((len(data.names), codes.shape[1]))
        for k, values in enumerate(data.values):
            factor = data.factors[pool, k]
            order, counts = factor.argsort(kind="stable"), np.bincount(factor, minlength=values)
            fixed = factor[generator.integers(len(factor), size=each)]  # values drawn by their frequency
            place = (generator.random((each, self.examples)) * counts[fixed][:, None]).astype(np.int64)
            drawn = codes[order[(counts.cumsum() - counts)[fixed][:, None] + place]]
            share = drawn.var(1) / np.where(spread > 0, spread, 1)
            votes[k] = np.bincount(share.argmin(1), minlength=codes.shape[1])
        return votes

"""The evidence bound with its two parts, and the importance-weighted bound."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from sandglass.core import Batch, Model, Result
from sandglass.data.dataset import Split
from sandglass.errors import ConfigError
from sandglass.metrics.measure import mean_result, observed_only, per_example
from sandglass.registry import register


def kind_of_bound(model: Model, split: Split | None = None) -> str:
    """What sort of figure a bound on this data is, for the reader."""
    gaps = OBSERVED if split is not None and split.mask is not None else ""
    return "; ".join(note for note in (_of_likelihood(model), gaps) if note)


OBSERVED = "of the observed values alone"


def _of_likelihood(model: Model) -> str:
    name = model.config["options"].get("likelihood", {}).get("name", "") if hasattr(model, "config") else ""
    if name == "bernoulli" and model.spec.support != "binary":
        return "grey values in a Bernoulli: a cross-entropy, comparable among such figures only"
    if name == "gaussian":
        return "a density, which can be positive"
    return ""


@register("bound", kind="metric")
class Bound:
    """Evidence lower bound (rate weighted by 1), its rate and its distortion; one draw of z an example."""

    needs = ("bound_parts",)
    figures = ("elbo", "rate", "distortion")

    def __call__(self, model: Model, split: Split, seed: int) -> Sequence[Result]:
        """ELBO, rate and distortion in nats an example."""

        def parts(batch: Batch) -> Tensor:
            return torch.stack(model.bound_parts(batch.x, **observed_only(batch)), 1)

        distortion, rate = per_example(model, split, seed, "bound", parts).unbind(1)
        elbo = -(distortion + rate)
        return [
            mean_result("elbo", elbo, "nats", kind_of_bound(model, split)),
            mean_result("rate", rate, "nats"),
            mean_result("distortion", distortion, "nats"),
        ]


@register("log_prob", kind="metric")
class LogProb:
    """Importance-weighted estimate of log p(x) from k draws an example.

    Args:
        k: draws.
    """

    needs = ("log_prob",)
    figures = ("log_prob",)
    by_default = False

    def __init__(self, *, k: int = 100) -> None:
        if k < 1:
            raise ConfigError(f"log_prob needs k >= 1 draws, not {k}.")
        self.k = k

    def __call__(self, model: Model, split: Split, seed: int) -> Sequence[Result]:
        """log p(x) in nats an example, a lower bound in expectation."""

        def bound(batch: Batch) -> Tensor:
            return model.log_prob(batch.x, self.k, **observed_only(batch))

        values = per_example(model, split, seed, "log_prob", bound)
        note = f"importance-weighted, k={self.k}; " + kind_of_bound(model, split)
        return [mean_result("log_prob", values, "nats", note.rstrip("; "))]

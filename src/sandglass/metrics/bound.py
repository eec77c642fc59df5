"""The evidence lower bound with its rate and distortion, and the importance-weighted bound."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from sandglass.core import Batch, Model, Spec
from sandglass.data.dataset import Split
from sandglass.errors import ConfigError
from sandglass.metrics._half import in_half
from sandglass.metrics.evaluation import Better, Evaluation, UnsuitableError
from sandglass.metrics.measure import mean_result, per_example
from sandglass.registry import register
from sandglass.runs.result import Result

_DISCRETE = "a likelihood that gives discrete values probabilities, such as logistic-mixture"
_LIKELIHOOD = "a likelihood; minus a cost, such as ms-ssim, is none, and gives no bound on log p(x)"
OBSERVED = "of the observed values only"
_LABELS = "of the examples and their known labels"


def kind_of_bound(model: Model, split: Split | None = None) -> str:
    """Note on the kind of likelihood a bound is of."""
    observed = OBSERVED if split is not None and split.mask is not None else ""
    notes = {
        "cross-entropy": "grey values under a Bernoulli: a cross-entropy, comparable with other cross-entropies only",
        "density": "a log density, which can be positive",
        "cost": "of a weighted cost, no likelihood: comparable at the same weight only",
    }
    y = None if split is None or class_is_latent(model) or "labels" not in model.modelled else split.y
    labels = _LABELS if y is not None and bool((y >= 0).any()) else ""
    return "; ".join(note for note in (notes.get(model.kind or "", ""), labels, observed) if note)


def class_is_latent(model: Model) -> bool:
    """Whether the class is a part of the code of a model, as of m2, and not one of the things that it describes.

    Example:
        >>> from sandglass import registry
        >>> spec = Spec((3,), classes=2)
        >>> [class_is_latent(registry.build(name, spec)) for name in ("m2", "joint-vae", "cvae")]
        [True, False, False]
    """
    return "labels" in model.modelled and any(k.name == "y" and k.support == "simplex" for k in model.latents)


def of_examples(model: Model, batch: Batch) -> Batch:
    """The batch whose bound is on log p(x) whatever labels are known: without them where the class is a latent."""
    return replace(batch, y=None) if class_is_latent(model) else batch


def check_likelihood(model: Model, metric: str) -> None:
    """Checks that a model has a likelihood.

    Raises:
        UnsuitableError: it has a cost in its place.
    """
    if model.kind == "cost":
        raise UnsuitableError(f"The metric '{metric}' needs {_LIKELIHOOD}.")


def dimensions(spec: Spec, mask: Tensor | None = None) -> float:
    """Values per example, or the mean number of observed values; a categorical column counts once despite one-hot.

    Example:
        >>> from sandglass.core import Column
        >>> spec = Spec((4,), columns=(Column("a", "categorical", 3, ("x", "y", "z")), Column("b", "ordinal")))
        >>> dimensions(spec), dimensions(spec, torch.tensor([[True, True, True, False], [True, True, True, True]]))
        (2.0, 1.5)
    """
    own: list[int] = []
    place = 0
    for column in spec.columns:
        own += range(place, place + (1 if column.kind == "categorical" else column.width))
        place += column.width
    if mask is None:
        return float(len(own) or spec.size)
    observed = mask.flatten(1)
    return float((observed[:, own] if own else observed).double().sum(1).mean())


def bits_per_dim(name: str, bound: Tensor, model: Model, split: Split) -> list[Result]:
    """A bound on log p(x) in bits per (observed) dimension for discrete data; empty for other likelihoods.

    Args:
        name: of the figure.
        bound: ``(N,)`` nats per example.
        model: the evaluated model.
        split: the examples.
    """
    if model.kind != "mass":
        return []
    size = dimensions(model.spec, split.mask)
    note = "; ".join(["an upper bound", *([OBSERVED] if split.mask is not None else [])])
    return [mean_result(name, -bound / (size * math.log(2)), "bits/dim", note, by_example=True)]


@register("bound", kind="metric")
class Bound:
    """Evidence lower bound (rate weighted by 1), its rate and its distortion; one draw of z per example.

    A class that is a latent, as in m2, is summed over whether or not it is known, so that all splits have the same
    figure. Labels that a model describes beside x, as joint-vae does, are part of the figure, which its note says.
    """

    needs = ("bound",)
    figures = ("elbo", "rate", "distortion", "bits_per_dim")
    quick = True
    limits: Mapping[str, str] = {"elbo": _LIKELIHOOD, "bits_per_dim": _DISCRETE}
    better: Mapping[str, Better] = {"elbo": "higher", "bits_per_dim": "lower"}

    def __call__(self, model: Model, evaluation: Evaluation) -> Sequence[Result]:
        """ELBO, rate and distortion in nats per example, and bits/dim for discrete data.

        With several latents or several distortions, the note has the mean of each. A cost in the place of a likelihood
        has a rate and a distortion, and no ELBO.
        """
        names: dict[str, list[str]] = {}

        def parts(batch: Batch) -> Tensor:
            bound = model.bound(of_examples(model, batch))
            names.update(distortion=list(bound.distortions), rate=list(bound.rates))
            return torch.stack([*bound.distortions.values(), *bound.rates.values()], 1)

        distortions, rates = per_example(model, evaluation, "bound", parts).tensor_split([len(names["distortion"])], 1)
        rate, distortion = rates.sum(1), distortions.sum(1)
        elbo = -(distortion + rate)
        results = [
            mean_result("elbo", elbo, "nats", kind_of_bound(model, evaluation.split), by_example=True),
            mean_result("rate", rate, "nats", apart(names["rate"], rates), by_example=True),
            mean_result("distortion", distortion, "nats", apart(names["distortion"], distortions), by_example=True),
        ]
        if model.kind == "cost":
            results = [results[1], replace(results[2], note=kind_of_bound(model, evaluation.split))]
        return results + bits_per_dim("bits_per_dim", elbo, model, evaluation.split)


def apart(names: Sequence[str], values: Tensor) -> str:
    """The mean of each of several parts; empty for a single part.

    Args:
        names: of the parts.
        values: ``(N, len(names))`` nats.

    Example:
        >>> apart(["z1", "z2"], torch.tensor([[1.0, 5.0], [2.0, 5.0]])), apart(["z"], torch.ones(3, 1))
        ('z1 1.5, z2 5', '')
    """
    means = zip(names, values.mean(0).tolist(), strict=True)
    return ", ".join(f"{name} {mean:.4g}" for name, mean in means) if len(names) > 1 else ""


@register("log_prob", kind="metric")
class LogProb:
    """Importance-weighted estimate of log p(x) from k draws per example.

    Of 500 examples or more, wide networks on a CPU are evaluated in bf16 products where that changes the mean of 50
    examples by less than 0.05 nats, which the note says; not where models are compared.

    Args:
        k: number of draws.
    """

    needs = ("log_prob",)
    figures = ("log_prob", "log_prob_bits_per_dim")
    limits: Mapping[str, str] = {"log_prob_bits_per_dim": _DISCRETE}
    better: Mapping[str, Better] = {"log_prob": "higher", "log_prob_bits_per_dim": "lower"}
    by_default = False

    def __init__(self, *, k: int = 100) -> None:
        if k < 1:
            raise ConfigError(f"log_prob needs k >= 1 draws, not {k}.")
        self.k = k

    def __call__(self, model: Model, evaluation: Evaluation) -> Sequence[Result]:
        """log p(x) in nats per example, a lower bound in expectation, and bits/dim for discrete data.

        Raises:
            UnsuitableError: the model has a cost in the place of a likelihood.
        """
        check_likelihood(model, "log_prob")

        def bound(batch: Batch) -> Tensor:
            return model.log_prob(of_examples(model, batch), self.k)

        values, precision = in_half(model, evaluation, "log_prob", bound, self.k)
        drawn = f"importance-weighted, k={self.k}" if "posterior" in model.provides else ""
        note = "; ".join(filter(None, (drawn, kind_of_bound(model, evaluation.split), precision)))
        result = mean_result("log_prob", values, "nats", note, by_example=True)
        dimensional = bits_per_dim("log_prob_bits_per_dim", values, model, evaluation.split)
        return [result, *(replace(each, note="; ".join(filter(None, (each.note, precision)))) for each in dimensional)]

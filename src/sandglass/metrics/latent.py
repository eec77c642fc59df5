"""Active latent dimensions, and codes shared by the metrics of the latent space."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from torch import Tensor

from sandglass import registry
from sandglass.core import Batch, Model
from sandglass.metrics._bootstrap import bootstrap
from sandglass.metrics.evaluation import FEW, Evaluation, UnsuitableError
from sandglass.metrics.measure import per_example
from sandglass.registry import register
from sandglass.running import unlabelled
from sandglass.runs.result import Result

ACTIVE = 0.01
"""A unit is active when the variance of its posterior mean over the data is above this."""

COLLAPSED = "posterior collapse, the codes carry no information about the examples"
"""Note for a model without any active unit."""

_ADVICE = "try a smaller beta, a beta that warms up (beta_schedule=linear), or free_bits"


def codes_of(model: Model, evaluation: Evaluation) -> Tensor:
    """``(N, D)`` codes of the examples (posterior means for a VAE), in float64 on the CPU; cached.

    Labels that the model would put into its codes are not looked at: see :func:`~sandglass.running.unlabelled`.
    """
    return evaluation.once(
        "codes", lambda: per_example(model, evaluation, "codes", lambda batch: model.encode(unlabelled(model, batch)))
    )


def points_of(model: Model, evaluation: Evaluation) -> Tensor:
    """``(N, E)`` codes as points with meaningful distances: embedded where the model has ``embed``, raw otherwise.

    Raises:
        UnsuitableError: the codes are indices and the model has no embedding for them.
    """
    if "embed" in model.provides:

        def points(batch: Batch) -> Tensor:
            return model.embed(model.encode(unlabelled(model, batch)))

        return evaluation.once("points", lambda: per_example(model, evaluation, "codes", points))
    if not registry.can(model, "codes"):
        raise UnsuitableError(
            f"The model '{registry.name_of(model)}' has no codes between which distances mean anything."
        )
    return codes_of(model, evaluation)


@register("active_units", kind="metric")
class ActiveUnits:
    """Number of latent dimensions whose posterior mean has a variance above 0.01 over the data.

    Burda, Grosse and Salakhutdinov 2016, "Importance Weighted Autoencoders" (arXiv 1509.00519).
    """

    needs = ("posterior", "encode", "codes")
    figures = ("active_units",)
    quick = True

    def __call__(self, model: Model, evaluation: Evaluation) -> Sequence[Result]:
        """The count, with a bootstrap standard error."""
        codes = codes_of(model, evaluation)
        centred = (codes - codes.mean(0)).numpy()
        squares = centred**2

        def active(weights: np.ndarray) -> np.ndarray:
            mean, square = (np.average(v, axis=0, weights=weights) for v in (centred, squares))
            return np.array([np.count_nonzero(square - mean**2 > ACTIVE)], float)

        (value,), (error,) = bootstrap(active, len(codes), evaluation.seed, "active_units")
        note = "" if value or len(codes) < FEW else f"{COLLAPSED}; {_ADVICE}"
        unit = f"of {codes.shape[1]} dimensions"
        return [Result("active_units", float(value), float(error), len(codes), unit, note)]

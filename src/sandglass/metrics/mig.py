"""The mutual information gap."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from torch import Tensor

from sandglass.core import Model
from sandglass.errors import ConfigError
from sandglass.metrics._bootstrap import bootstrap
from sandglass.metrics._factors import Factored, binned, by_chance, entropies, factored, gap, information, numbered
from sandglass.metrics.evaluation import Better, Evaluation
from sandglass.registry import register
from sandglass.runs.result import Result

BINS = 20


def shares(cells: np.ndarray, bins: int, data: Factored, weights: np.ndarray | None = None) -> np.ndarray:
    """``(D, F)`` mutual information of each dimension and factor, as a share of the factor's entropy."""
    whole = entropies(data, weights)  # 0 where a resample has a single value of a factor
    return information(cells, bins, data, weights) / np.where(whole > 0, whole, 1)


def information_shares(codes: Tensor, factors: Tensor, names: Sequence[str]) -> tuple[np.ndarray, tuple[str, ...]]:
    """Normalised mutual information ``(D, F)`` of latent dimensions and varying factors, and these factors' names.

    Args:
        codes: ``(N, D)``, discretised into 20 bins of equal width.
        factors: ``(N, F)``.
        names: of all F factors.

    Example:
        >>> import torch
        >>> factors = torch.tensor([[0, 3], [0, 4], [1, 3], [1, 4]])
        >>> information_shares(factors.double(), factors, ("a", "b"))
        (array([[1., 0.],
               [0., 1.]]), ('a', 'b'))
    """
    numbers, varying, values = numbered(factors.cpu().numpy(), names)
    data = Factored(codes.cpu().double().numpy(), numbers, varying, values, ())
    return shares(binned(data.codes, BINS), BINS, data), varying


@register("mig", kind="metric")
class MutualInformationGap:
    """Mutual information gap (MIG) between the two dimensions most informative about each factor.

    Chen, Li, Grosse and Duvenaud 2018, "Isolating Sources of Disentanglement in VAEs" (arXiv 1802.04942), on codes in
    bins of equal width, as Locatello et al. 2019 (arXiv 1811.12359).

    Args:
        bins: number of bins per latent dimension.

    Raises:
        ConfigError: fewer than 2 bins.
    """

    needs = ("encode", "codes")
    requires = ("factors",)
    figures = ("mig",)
    better: Mapping[str, Better] = {"mig": "higher"}

    def __init__(self, *, bins: int = BINS) -> None:
        if bins < 2:
            raise ConfigError(f"mig needs bins >= 2, not {bins}.")
        self.bins = bins

    def __call__(self, model: Model, evaluation: Evaluation) -> Sequence[Result]:
        """The mean over factors with a bootstrap standard error; the note has each factor's gap."""
        data = factored(model, evaluation, "mig")
        cells = binned(data.codes, self.bins)

        def gaps(weights: np.ndarray) -> np.ndarray:
            each = gap(shares(cells, self.bins, data, weights))
            return np.append(each, each.mean())

        values, errors = bootstrap(gaps, len(cells), evaluation.seed, "mig")
        finer = [name for name, n in zip(data.names, data.values, strict=True) if n > self.bins]
        coarse = f"more values than the {self.bins} bins: {', '.join(finer)}" if finer else ""
        note = data.note(data.each(values[:-1]), coarse, by_chance(cells, data))
        return [Result("mig", float(values[-1]), float(errors[-1]), len(cells), "1", note)]

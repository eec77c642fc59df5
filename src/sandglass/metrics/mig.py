"""The mutual information gap."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from torch import Tensor

from sandglass.core import Model
from sandglass.errors import ConfigError
from sandglass.metrics._bootstrap import bootstrap
from sandglass.metrics._factors import Known, binned, by_chance, entropies, gap, information, known, numbered
from sandglass.metrics.evaluation import Better, Evaluation
from sandglass.registry import register
from sandglass.runs.result import Result

BINS = 20


def shares(cells: np.ndarray, bins: int, seen: Known, weights: np.ndarray | None = None) -> np.ndarray:
    """``(D, F)`` what each dimension knows of each factor, as a share of the factor's entropy."""
    whole = entropies(seen, weights)  # 0 where a resample has one value of a factor, of which 0 is known
    return information(cells, bins, seen, weights) / np.where(whole > 0, whole, 1)


def known_shares(codes: Tensor, factors: Tensor, names: Sequence[str]) -> tuple[np.ndarray, tuple[str, ...]]:
    """What each latent dimension knows of each factor that varies, as a share of its entropy, and these factors' names.

    Args:
        codes: ``(N, D)``, counted in 20 bins of equal width.
        factors: ``(N, F)``.
        names: of all F.

    Example:
        >>> import torch
        >>> factors = torch.tensor([[0, 3], [0, 4], [1, 3], [1, 4]])
        >>> known_shares(factors.double(), factors, ("a", "b"))
        (array([[1., 0.],
               [0., 1.]]), ('a', 'b'))
    """
    numbers, varying, values = numbered(factors.cpu().numpy(), names)
    seen = Known(codes.cpu().double().numpy(), numbers, varying, values, ())
    return shares(binned(seen.codes, BINS), BINS, seen), varying


@register("mig", kind="metric")
class MutualInformationGap:
    """Mutual information gap: by how much the dimension that knows a factor best is ahead of the second-best.

    Chen, Li, Grosse and Duvenaud 2018, "Isolating Sources of Disentanglement in VAEs" (arXiv 1802.04942), on codes in
    bins of equal width, as Locatello et al. 2019 (arXiv 1811.12359).

    Args:
        bins: of each latent dimension.

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
        """The mean over factors, and in the note each factor's gap; the error is over resampled examples."""
        seen = known(model, evaluation, "mig")
        cells = binned(seen.codes, self.bins)

        def gaps(weights: np.ndarray) -> np.ndarray:
            each = gap(shares(cells, self.bins, seen, weights))
            return np.append(each, each.mean())

        values, errors = bootstrap(gaps, len(cells), evaluation.seed, "mig")
        finer = [name for name, n in zip(seen.names, seen.values, strict=True) if n > self.bins]
        coarse = f"more values than the {self.bins} bins: {', '.join(finer)}" if finer else ""
        note = seen.note(seen.each(values[:-1]), coarse, by_chance(cells, seen))
        return [Result("mig", float(values[-1]), float(errors[-1]), len(cells), "1", note)]

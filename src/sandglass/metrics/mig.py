"""The mutual information gap."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from sandglass.core import Model, Result
from sandglass.errors import ConfigError
from sandglass.metrics._bootstrap import bootstrap
from sandglass.metrics._factors import binned, by_chance, entropies, gap, information, known
from sandglass.metrics.held import Held
from sandglass.registry import register


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

    needs = ("encode",)
    asks = ("factors",)
    figures = ("mig",)

    def __init__(self, *, bins: int = 20) -> None:
        if bins < 2:
            raise ConfigError(f"mig needs bins >= 2, not {bins}.")
        self.bins = bins

    def __call__(self, model: Model, held: Held) -> Sequence[Result]:
        """The mean over factors, and in the note each factor's gap; the error is over resampled examples."""
        seen = known(model, held, "mig")
        cells = binned(seen.codes, self.bins)

        def gaps(weights: np.ndarray) -> np.ndarray:
            share = entropies(seen, weights)  # 0 where a resample has one value of a factor; the gap is then 0, too
            each = gap(information(cells, self.bins, seen, weights)) / np.where(share > 0, share, 1)
            return np.append(each, each.mean())

        values, errors = bootstrap(gaps, len(cells), held.seed, "mig")
        finer = [name for name, n in zip(seen.names, seen.values, strict=True) if n > self.bins]
        coarse = f"more values than the {self.bins} bins: {', '.join(finer)}" if finer else ""
        note = seen.note(seen.each(values[:-1]), coarse, by_chance(cells, seen))
        return [Result("mig", float(values[-1]), float(errors[-1]), len(cells), "1", note)]

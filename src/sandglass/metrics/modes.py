"""Mode coverage on mixtures with known modes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from sandglass.core import Model
from sandglass.errors import ConfigError
from sandglass.metrics.evaluation import Better, Evaluation
from sandglass.metrics.measure import share_result
from sandglass.metrics.samples import drawn, with_conditions
from sandglass.registry import register
from sandglass.runs.result import Result

_NEAR = 3.0  # a sample within this many standard deviations of a centre is of high quality


@register("modes", kind="metric")
class Modes:
    """Modes of a known mixture that samples reach, share of samples within 3 deviations, and reverse KL over modes.

    Srivastava et al. 2017, "VEEGAN: Reducing Mode Collapse in GANs using Implicit Variational Learning" (arXiv
    1705.07761), whose 2,500 samples these are; the KL as in Lin et al. 2018, "PacGAN: The power of two samples in
    generative adversarial networks" (arXiv 1712.04086).

    Args:
        samples: number of samples.
    """

    needs = ()
    figures = ("modes_reached", "high_quality", "modes_kl")
    quick = True
    better: Mapping[str, Better] = {"modes_reached": "higher", "high_quality": "higher", "modes_kl": "lower"}
    requires = ("mixture",)

    def __init__(self, *, samples: int = 2_500) -> None:
        if samples < 2:
            raise ConfigError(f"modes needs at least 2 samples, not {samples}.")
        self.samples = samples

    def __call__(self, model: Model, evaluation: Evaluation) -> Sequence[Result]:
        """The count, the share and the divergence in nats.

        The jackknife error of the count is conservative: Efron and Stein 1981, "The Jackknife Estimate of Variance".
        """
        assert evaluation.mixture is not None  # it is required
        x = drawn(model, evaluation, self.samples).flatten(1).double()
        nearest, good = assign(x, evaluation.mixture.centres.double().flatten(1), evaluation.mixture.deviation)
        total = len(evaluation.mixture.centres)
        counts = torch.bincount(nearest[good], minlength=total)
        # Jackknife: leaving out a sample lowers the count by one where it is the only one to reach its mode.
        reached, error = float((counts > 0).sum()), float((counts == 1).sum()) ** 0.5
        share = float(torch.special.gammainc(torch.tensor(x.shape[1] / 2), torch.tensor(_NEAR**2 / 2)))
        divergence, spread = reverse_kl(nearest, total)
        floor = (total - 1) / (2 * len(x))
        results = [
            Result("modes_reached", reached, error, len(x), "modes", f"of {total}, with a sample within 3 deviations"),
            share_result("high_quality", good, f"{share:.3f} at best"),
            Result("modes_kl", divergence, spread, len(x), "nats", f"{floor:.2g} by chance where all are drawn evenly"),
        ]
        return with_conditions(model, results)


def assign(x: Tensor, centres: Tensor, deviation: float) -> tuple[Tensor, Tensor]:
    """The nearest centre of each point, ``(N,)``, and whether the point is within 3 deviations of it, ``(N,)``.

    Points that are not finite are near no centre.

    Args:
        x: ``(N, D)``.
        centres: ``(K, D)``.
        deviation: standard deviation of a mode, the same in every direction.
    """
    distance, nearest = (
        torch.cdist(x, centres, compute_mode="donot_use_mm_for_euclid_dist").nan_to_num(torch.inf).min(1)
    )
    return nearest, distance <= _NEAR * deviation


def reverse_kl(mode: Tensor, total: int) -> tuple[float, float]:
    """``KL(q || uniform)`` in nats, q being the shares of ``total`` modes, and its delta-method standard error.

    Example:
        >>> value, error = reverse_kl(torch.tensor([0, 0, 1, 1]), 4)
        >>> round(value, 6), error  # log 2: half of the modes
        (0.693147, 0.0)
    """
    shares = torch.bincount(mode, minlength=total).double() / len(mode)
    logs = (shares[mode] * total).log()
    return float(logs.mean()), float(logs.std(correction=0) / len(mode) ** 0.5)

"""One posterior of a latent from what several modalities say of it, any of which may be absent."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Literal

import torch
from torch import Tensor, nn
from torch.distributions import Normal

from sandglass.core import Spec
from sandglass.distributions.conditional import Network
from sandglass.distributions.location_scale import scale_from
from sandglass.nets.net import Net
from sandglass.registry import resolve

Form = Literal["product", "mixture", "mixture-of-products", "joint"]
"""How the posterior of several modalities is made."""

FEATURES = 128
"""What a joint encoder keeps of each modality, and the width of its only layer of them all."""

MOST = 6
"""Modalities of a mixture of products, which has 63 components of them; every one is decoded in a step."""


@dataclass(frozen=True)
class Expert:
    """A Gaussian factor over a part of a latent, by its natural parameters; where it is absent it is constant.

    Args:
        precision: ``(B, d)``, one over the variance; 0 where absent.
        shift: ``(B, d)``, precision times mean; 0 where absent.
    """

    precision: Tensor
    shift: Tensor

    @classmethod
    def of(cls, h: Tensor) -> Expert:
        """From the output ``(B, 2 d)`` of a network: the mean with the prior, and the logarithm of the precision."""
        mean, log_precision = h.chunk(2, -1)
        precision = scale_from(log_precision)
        return cls(precision, mean * (1 + precision))

    def where(self, present: Tensor) -> Expert:
        """The factor, constant in the examples where ``present`` ``(B,)`` is False."""
        gone = ~present[:, None]
        return Expert(self.precision.masked_fill(gone, 0), self.shift.masked_fill(gone, 0))


def product_of_experts(experts: Sequence[Expert]) -> Normal:
    """The normalised product of Gaussian factors and of a standard normal prior, which is what is left without any.

    Precisions add up, and so do precisions times means: Hinton 2002, "Training Products of Experts by Minimizing
    Contrastive Divergence" (Neural Computation 14). With the prior as an expert: Wu and Goodman 2018, "Multimodal
    Generative Models for Scalable Weakly-Supervised Learning" (arXiv 1802.05335).

    Args:
        experts: at least one; all ``(B, d)``.

    Example:
        >>> one = Expert(torch.tensor([[3.0]]), torch.tensor([[3.0]]))  # mean 1, variance 1/3
        >>> q = product_of_experts([one])
        >>> q.mean, q.variance
        (tensor([[0.7500]]), tensor([[0.2500]]))
    """
    precision, shift = experts[0].precision + 1, experts[0].shift
    for expert in experts[1:]:
        precision, shift = precision + expert.precision, shift + expert.shift
    return Normal(shift / precision, precision.rsqrt(), validate_args=False)


def mixed(form: Form, count: int) -> list[tuple[int, ...]]:
    """The sets of modalities whose products are the components of a mixture; none where the posterior is not one.

    Example:
        >>> mixed("mixture", 3), mixed("mixture-of-products", 2)
        ([(0,), (1,), (2,)], [(0,), (1,), (0, 1)])
    """
    sizes = {"mixture": [1], "mixture-of-products": range(1, count + 1)}.get(form, [])
    return [chosen for size in sizes for chosen in combinations(range(count), size)]


def weights_of(sets: Sequence[tuple[int, ...]], present: Sequence[Tensor]) -> Tensor:
    """``(B, S)``, the same for each set all of whose modalities are present, 0 for others.

    Without any modality the first has all of it: then every product is the prior.

    Args:
        sets: of modalities.
        present: ``(B,)`` of each modality.

    Example:
        >>> weights_of(mixed("mixture-of-products", 2), [torch.tensor([True, False]), torch.tensor([True, True])])
        tensor([[0.3333, 0.3333, 0.3333],
                [0.0000, 1.0000, 0.0000]])
    """
    used = torch.stack([functools.reduce(torch.logical_and, (present[m] for m in chosen)) for chosen in sets], 1)
    used[:, 0] |= ~used.any(1)
    return used / used.sum(1, keepdim=True)


class Subsets(nn.Module):
    """Draws of subsets of the modalities that are present: of two or more of them, and not of all.

    Each such subset is as likely as another; an example of fewer than three modalities has none.

    Args:
        count: of all modalities.

    Example:
        >>> Subsets(3)(torch.tensor([[True, True], [True, True], [True, False]])).sum(0)
        tensor([2, 0])
    """

    below: Tensor

    def __init__(self, count: int) -> None:
        super().__init__()
        rows = [[math.comb(n, size) if 2 <= size < n else 0 for size in range(count + 1)] for n in range(count + 1)]
        shares = [[sum(row[: size + 1]) / max(1, sum(row)) for size in range(count + 1)] for row in rows]
        self.register_buffer("below", torch.tensor(shares), persistent=False)

    def forward(self, present: Tensor) -> Tensor:
        """``(M, B)``, True for those of the drawn subset, from ``present`` ``(M, B)``."""
        count = present.sum(0)
        below = self.below[count]
        size = (torch.rand(len(count), 1, dtype=below.dtype, device=below.device) >= below).sum(1)
        order = torch.rand(*present.shape, dtype=below.dtype, device=below.device).masked_fill(~present, 2)
        return (order.argsort(0).argsort(0) < size) & present & (count > 2)


class JointEncoder(nn.Module):
    """q(z | all modalities) as one expert: features of each modality, and a hidden layer of them all.

    Args:
        nets: of each modality.
        specs: of each modality.
        dim: size of z.
    """

    def __init__(self, nets: Sequence[Net], specs: Sequence[Spec], dim: int) -> None:
        super().__init__()
        each = [Network.encoder(net, spec.shape, FEATURES) for net, spec in zip(nets, specs, strict=True)]
        self.features = nn.ModuleList(each)
        merging = resolve("net", {"name": "mlp", "widths": [FEATURES]})
        self.merge = Network.encoder(merging, (len(each) * FEATURES,), 2 * dim)

    def forward(self, values: Sequence[Tensor]) -> Expert:
        """From the values ``(B, *shape)`` of every modality."""
        found = [features(value).relu() for features, value in zip(self.features, values, strict=True)]
        return Expert.of(self.merge(torch.cat(found, -1)))

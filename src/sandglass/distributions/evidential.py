"""A Dirichlet distribution over the output of a classifier, which says how much it knows of an example."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.distributions import Dirichlet, kl_divergence

from sandglass.distributions.conditional import at_least_single


def evidential(h: Tensor) -> Dirichlet:
    """``(B, K)`` outputs of a network to Dirichlet distributions over the probabilities of K classes.

    The concentrations are 1 and the evidence for each class, ``1 + softplus(h)``; without evidence all probabilities
    are equally likely. The mean is the prediction. Sensoy, Kaplan and Kandemir 2018, "Evidential Deep Learning to
    Quantify Classification Uncertainty" (arXiv 1806.01768).

    Args:
        h: ``(B, K)``.

    Example:
        >>> evidential(torch.tensor([[-50.0, -50.0, 7.0]])).mean.round(decimals=2)
        tensor([[0.1000, 0.1000, 0.8000]])
    """
    return Dirichlet(1 + F.softplus(at_least_single(h)), validate_args=False)


def vacuity(p: Dirichlet) -> Tensor:
    """``(B,)`` the share of the uncertainty that is from a lack of evidence, K over the sum of the concentrations.

    It is 1 without any evidence, and falls towards 0 with it. To be compared between examples of one model.

    Example:
        >>> vacuity(Dirichlet(torch.tensor([[1.0, 1.0], [1.0, 19.0]])))
        tensor([1.0000, 0.1000])
    """
    return p.event_shape[0] / p.concentration.sum(-1)


def evidential_loss(p: Dirichlet, y: Tensor, weight: float | Tensor = 1.0) -> Tensor:
    """``(B,)`` expected squared error of the probabilities, and the evidence for wrong classes.

    ``sum_k E[(1[y = k] - p_k)^2] + weight * KL(Dir(a') || Dir(1))``, where a' are the concentrations with that of the
    right class set to 1: equation 5 and its regulariser in the paper, whose weight rises from 0 to 1 over the first ten
    epochs, so that the evidence is not lost before there is any.

    Args:
        p: over K classes.
        y: ``(B,)`` whole numbers below K; an example of an unknown class, -1, has no loss.
        weight: of the KL.

    Example:
        >>> p = Dirichlet(torch.ones(1, 2))
        >>> evidential_loss(p, torch.tensor([0]))  # twice (1 / 4 + 1 / 12)
        tensor([0.6667])
    """
    classes = torch.arange(p.concentration.shape[-1], device=y.device)
    right = (y[:, None] == classes).to(p.concentration.dtype)
    errors = (right - p.mean).square() + p.variance
    others = Dirichlet(right + (1 - right) * p.concentration, validate_args=False)
    flat = Dirichlet(torch.ones_like(p.concentration), validate_args=False)
    penalty: Tensor = kl_divergence(others, flat)
    return (errors.sum(-1) + weight * penalty).masked_fill(y < 0, 0)

"""Likelihoods with missing values: they are imputed by 0 in the network's input and excluded from the likelihood.

Zero imputation as in Nazabal, Olmos, Ghahramani and Valera 2020, "Handling incomplete heterogeneous data using VAEs"
(arXiv 1807.03653). Where elements are independent given the latent, the sum over the observed ones is their marginal
log-likelihood: the missing ones are integrated out.
"""

from __future__ import annotations

from torch import Tensor
from torch.distributions import Distribution, Independent

from sandglass.errors import CapabilityError


def fill(x: Tensor, mask: Tensor | None) -> Tensor:
    """``x`` with missing values set to 0.

    Example:
        >>> import torch
        >>> fill(torch.tensor([[1.0, 1e30]]), torch.tensor([[True, False]])).tolist()
        [[1.0, 0.0]]
    """
    return x if mask is None else x.masked_fill(~mask, 0)


def log_prob(p: Distribution, x: Tensor, mask: Tensor | None = None) -> Tensor:
    """``(B,)`` log p of the observed entries of ``x``, in nats.

    Args:
        p: distribution over ``(B, *shape)`` with independent elements, or one that is told which are observed.
        x: ``(B, *shape)``; missing entries affect neither the result nor its gradients.
        mask: ``(B, *shape)``, True where observed; None if all values are observed.

    Raises:
        CapabilityError: a mask is given and the elements of the distribution are not independent.

    Example:
        >>> import torch
        >>> from torch.distributions import Normal
        >>> p = Independent(Normal(torch.zeros(1, 2), torch.ones(1, 2)), 1)
        >>> round(float(log_prob(p, torch.zeros(1, 2), torch.tensor([[True, False]]))), 4)  # -ln(2 pi) / 2
        -0.9189
    """
    if mask is None:
        return p.log_prob(x)
    if hasattr(p, "observing"):
        found: Tensor = observing(p, mask).log_prob(fill(x, mask))
        return found
    if not isinstance(p, Independent):
        raise CapabilityError("This likelihood does not support missing values; impute them or choose another one.")
    each = observing(p.base_dist, mask).log_prob(fill(x, mask))
    return fill(each, mask).flatten(-p.reinterpreted_batch_ndims).sum(-1)


def given(p: Distribution, x: Tensor, mask: Tensor) -> Distribution:
    """``p`` of the elements that are missing, given those that are observed; ``p`` itself where these say nothing."""
    told: Distribution = p.given(x, mask) if hasattr(p, "given") else p
    return told


def observing(p: Distribution, mask: Tensor) -> Distribution:
    """``p`` told which elements are observed, if its ``log_prob`` of each depends on others; else ``p`` itself."""
    told: Distribution = p.observing(mask) if hasattr(p, "observing") else p
    return told

"""The rate: KL divergence of the posterior from the prior, in nats."""

from __future__ import annotations

from torch import Tensor
from torch.distributions import Distribution, Independent, kl_divergence


def rate(q: Distribution, p: Distribution, z: Tensor, each: Tensor | None = None) -> Tensor:
    """``KL(q || p)`` for each example, ``(B,)``: in closed form where PyTorch has one, else estimated from ``z``.

    Args:
        q: posterior over ``(B, dim)``.
        p: prior over ``(dim,)``.
        z: a draw from ``q``, ``(B, dim)``, used only without a closed form.
        each: the result of :func:`rate_per_dimension`, if already computed.

    Example:
        >>> import torch
        >>> from torch.distributions import Normal
        >>> q = Independent(Normal(torch.ones(2, 3), torch.ones(2, 3)), 1)
        >>> p = Independent(Normal(torch.zeros(3), torch.ones(3)), 1)
        >>> rate(q, p, q.sample())
        tensor([1.5000, 1.5000])
    """
    each = rate_per_dimension(q, p) if each is None else each
    if each is not None:
        return each.sum(-1)
    try:
        return kl_divergence(q, p)
    except NotImplementedError:
        return q.log_prob(z) - p.log_prob(z)


def rate_per_dimension(q: Distribution, p: Distribution) -> Tensor | None:
    """``(B, dim)`` closed-form rates per latent dimension; None without a closed form or factorised distributions."""
    if not (isinstance(q, Independent) and isinstance(p, Independent)):
        return None
    try:
        return kl_divergence(q.base_dist, p.base_dist)
    except NotImplementedError:
        return None

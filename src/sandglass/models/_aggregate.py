"""Measures of the aggregate posterior q(z) = E_x q(z|x) from a batch: parts of the rate, covariance, MMD."""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
from torch import Tensor
from torch.distributions import Distribution, Independent

from sandglass.distributions.discrepancy import mmd

Sampling = Literal["stratified", "weighted"]
"""How q(z) of all training examples is estimated from a batch, see :func:`log_weights`."""


class RateParts(NamedTuple):
    """The rate of each example in three parts, ``(B,)`` each, in nats: their sum is ``log q(z|x) - log p(z)``.

    Chen, Li, Grosse and Duvenaud 2018, "Isolating Sources of Disentanglement in VAEs" (arXiv 1802.04942).

    Args:
        information: ``log q(z|x) - log q(z)``; its mean is the mutual information of example and code.
        total_correlation: ``log q(z) - sum_j log q(z_j)``; its mean is ``KL(q(z) || prod_j q(z_j))``.
        dimension_kl: ``sum_j log q(z_j) - log p(z)``; its mean is the sum of the ``KL(q(z_j) || p(z_j))``.
    """

    information: Tensor
    total_correlation: Tensor
    dimension_kl: Tensor


def rate_parts(q: Distribution, p: Distribution, z: Tensor, examples: Tensor, sampling: Sampling) -> RateParts:
    """The rate of a batch by its parts, with q(z) and its marginals estimated from the batch.

    Args:
        q: q(z|x), over ``(B, dim)``, independent over the dimensions.
        p: p(z), over ``(dim,)``.
        z: ``(B, dim)``, a draw from each q(z|x).
        examples: ``()``, the number N of training examples; a larger batch counts as all of them.
        sampling: see :func:`log_weights`.

    Example:
        >>> from torch.distributions import Normal
        >>> q = Independent(Normal(torch.zeros(4, 2), torch.ones(4, 2)), 1)
        >>> p = Independent(Normal(torch.zeros(2), torch.ones(2)), 1)
        >>> parts = rate_parts(q, p, q.sample(), torch.tensor(100), "stratified")
        >>> [bool(part.abs().max() < 1e-5) for part in parts]
        [True, True, True]
    """
    assert isinstance(q, Independent)
    each = q.base_dist.log_prob(z[:, None])  # (B, B, dim): of draw i under the posterior of example j
    own = each.sum(-1).diagonal()
    weights = log_weights(len(z), examples.to(each.dtype), sampling)
    joint = (each.sum(-1) + weights).logsumexp(1)
    marginals = (each + weights[..., None]).logsumexp(1).sum(-1)
    return RateParts(own - joint, joint - marginals, marginals - p.log_prob(z))


def log_weights(n: int, examples: Tensor, sampling: Sampling) -> Tensor:
    """``(n, n)`` logarithms of weights w, for ``q(z_i) = sum_j w_ij q(z_i|x_j)`` from n of N examples.

    ``stratified``: 1/N for the example that z_i is drawn from, the rest evenly for the others. It is an unbiased
    estimate of q(z): the minibatch stratified sampling of Chen et al. 2018, appendix C.2, averaged over which of the
    other examples has the odd weight there. ``weighted``: 1/(nN) for all, their minibatch weighted sampling (appendix
    C.1). It underestimates q(z) by a factor between n, where posteriors do not overlap, and N, where all are equal:
    log q(z) by log n to log N. So it overestimates the information by as much and the total correlation of D
    dimensions by D - 1 times that, and underestimates dimension_kl by D times that. Gradients do not depend on N.

    Example:
        >>> log_weights(3, torch.tensor(9.0), "stratified").exp()
        tensor([[0.1111, 0.4444, 0.4444],
                [0.4444, 0.1111, 0.4444],
                [0.4444, 0.4444, 0.1111]])
    """
    examples = examples.clamp(min=n)
    if sampling == "weighted":
        return -(n * examples).log().expand(n, n)
    if n == 1:
        return torch.zeros_like(examples).expand(1, 1)
    own = torch.eye(n, dtype=torch.bool, device=examples.device)
    return torch.where(own, -examples.log(), ((examples - 1) / (examples * (n - 1))).log())


def covariance(q: Distribution, of: Literal["means", "codes"], rows: slice = slice(None)) -> Tensor:
    """``(dim, dim)`` covariance over some examples of the means of q(z|x), or of the codes z with the noise of q(z|x).

    The second is ``Cov[mean] + E[Var]``. Both are unbiased; of a single example the first is taken to be 0.
    """
    mean = q.mean[rows]
    with torch.autocast(mean.device.type, enabled=False):
        away = mean - mean.mean(0)
        found = away.T @ away / max(len(mean) - 1, 1)
    return found + q.variance[rows].mean(0).diag() if of == "codes" else found


def off_whiteness(q: Distribution, of: Literal["means", "codes"]) -> tuple[Tensor, Tensor]:
    """``()`` each: ``sum_(i != j) C_ij^2`` and ``sum_i (C_ii - 1)^2`` of the covariance C, without bias.

    The square of a sample covariance is too large on average, by ``(C_ii C_jj + C_ij^2) / (n - 1)`` for normal means of
    n examples. So the factors of a square are the covariances of two halves of the batch, every second example, which
    are independent as long as the batch is in random order. The products can be below 0. Of fewer than 4 examples both
    are 0.
    """
    if len(q.mean) < 4:
        return 0 * q.mean.sum(), 0 * q.mean.sum()
    a, b = (covariance(q, of, slice(first, None, 2)) for first in (0, 1))
    diagonal = (a * b).diagonal().sum()
    return (a * b).sum() - diagonal, ((a.diagonal() - 1) * (b.diagonal() - 1)).sum()


def discrepancy(z: Tensor, p: Distribution, kernel: str) -> Tensor:
    """``()`` unbiased squared MMD of codes ``(B, dim)`` and as many draws from p(z); 0 for a single code.

    The unit of the kernel is the mean squared distance of two draws from p(z), see :func:`distance`. It is a constant
    for the gradient: the kernel does not widen because a learnt prior does.
    """
    if len(z) < 2:
        return 0 * z.sum()
    shape = torch.Size([len(z)])
    prior = p.rsample(shape) if p.has_rsample else p.sample(shape)
    return mmd(z, prior.to(z.dtype), kernel, distance(p).to(z.dtype))


@torch.no_grad()
def distance(p: Distribution) -> Tensor:
    """``()`` the mean squared distance of two draws from p: twice the sum of its variances.

    Where these are not known, as for a flow, they are estimated from 1,000 draws.

    Example:
        >>> from torch.distributions import Normal
        >>> distance(Independent(Normal(torch.zeros(2), torch.tensor([2.0, 3.0])), 1))
        tensor(26.)
    """
    try:
        return 2 * p.variance.sum()
    except NotImplementedError:
        return 2 * p.sample(torch.Size([1000])).var(0).sum()

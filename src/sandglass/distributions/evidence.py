"""The importance-weighted bound on log p(x), with memory independent of the number of draws."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import torch
from torch import Tensor
from torch.distributions import Distribution

from sandglass.distributions.observed import log_prob

_IN_CACHE = 2**20  # values of decoder output in memory at once on a CPU, so that they stay in its cache
_ON_DEVICE = 2**24  # the same on other devices, where large kernels amortise the launch overhead
_LATENTS = 2**22  # latent values drawn at once; the same on every device, so that the draws are, too


def importance_weighted(
    q: Distribution,
    p: Distribution,
    likelihood: Callable[..., Distribution],
    x: Tensor,
    k: int,
    mask: Tensor | None = None,
    *,
    c: Tensor | None = None,
    size: int | None = None,
) -> Tensor:
    """``(B,)`` estimates ``log (1/k) sum_i p(x|z_i) p(z_i) / q(z_i|x)`` in nats, from ``k`` draws z_i from q(z|x).

    Latents are drawn in blocks whose size depends on the shape of ``x`` only, and decoded in chunks. The chunk size
    does not change the draws, and changes the estimates only by rounding.

    Burda, Grosse and Salakhutdinov 2016, "Importance Weighted Autoencoders" (arXiv 1509.00519).

    Args:
        q: q(z|x) over ``(B, dim)``.
        p: p(z) over ``(dim,)``.
        likelihood: maps latents ``(n, dim)``, and conditions where there are any, to p(x|z, c) over ``(n, *shape)``.
        x: ``(B, *shape)``.
        k: draws per example.
        mask: ``(B, *shape)``, True where observed; None if all values are observed.
        c: ``(B, ...)`` conditions, or None.
        size: decoder output values per example; by default the size of an example.

    Example:
        >>> from torch.distributions import Independent, Normal
        >>> p, q = (Independent(Normal(torch.zeros(*s), torch.ones(*s)), 1) for s in [(2,), (5, 2)])
        >>> importance_weighted(q, p, lambda z: Independent(Normal(0 * z, 1), 1), torch.zeros(5, 2), 7)[0]
        tensor(-1.8379)
    """
    rows = decoded_at_once(size or math.prod(x.shape[1:]), x.device)
    dim = max(1, q.event_shape.numel())
    block = max(1, min(k, _LATENTS // (len(x) * dim)))
    total: Tensor | None = None
    for start in range(0, k, block):
        z = (q.rsample if q.has_rsample else q.sample)(torch.Size([min(block, k - start)]))
        log_px = log_likelihoods(z, likelihood, x, mask, c, rows)
        weight = (log_px + p.log_prob(z) - q.log_prob(z)).logsumexp(0)
        total = weight if total is None else torch.logaddexp(total, weight)
    assert total is not None
    return total - math.log(k)


def decoded_at_once(size: int, device: torch.device) -> int:
    """Number of latents to decode at once, for ``size`` output values each.

    Example:
        >>> decoded_at_once(2**10, torch.device("cpu"))
        1024
    """
    return max(1, (_IN_CACHE if device.type == "cpu" else _ON_DEVICE) // max(1, size))


def log_likelihoods(
    z: Tensor,
    likelihood: Callable[..., Distribution],
    x: Tensor,
    mask: Tensor | None = None,
    c: Tensor | None = None,
    rows: int | None = None,
) -> Tensor:
    """``(k, B)`` log p(x|z) in nats of latents ``(k, B, dim)``, decoding at most ``rows`` at once; by default all.

    The other arguments are those of :func:`importance_weighted`.

    Example:
        >>> from torch.distributions import Independent, Normal
        >>> log_likelihoods(torch.zeros(7, 5, 2), lambda z: Independent(Normal(z, 1), 1), torch.zeros(5, 2)).shape
        torch.Size([7, 5])
    """
    rows = z.shape[0] * z.shape[1] if rows is None else rows
    columns = []
    for some in _slices(z.shape[1], max(1, rows // len(z))):
        pieces = []
        for draws in _slices(len(z), rows):
            part = z[draws, some]
            observed = None if mask is None else _repeated(mask[some], len(part))
            condition = () if c is None else (_repeated(c[some], len(part)),)
            each = log_prob(likelihood(part.flatten(0, 1), *condition), _repeated(x[some], len(part)), observed)
            pieces.append(each.unflatten(0, part.shape[:2]))
        columns.append(torch.cat(pieces))
    return torch.cat(columns, 1)


def _slices(n: int, size: int) -> Iterator[slice]:
    return (slice(start, start + size) for start in range(0, n, size))


def _repeated(x: Tensor, times: int) -> Tensor:
    """``(times * B, ...)``: the batch repeated; a view for a single example."""
    return x.expand(times, *x.shape[1:]) if len(x) == 1 else x.repeat(times, *[1] * (x.dim() - 1))

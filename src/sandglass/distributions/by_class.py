"""Codes with a class in them: a class, and what depends on it."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.distributions import Distribution, OneHotCategoricalStraightThrough, constraints


class ByClass(Distribution):
    """``q(y) q(z|y)`` over codes ``(B, d + K)``: z, and then the class y as one of K corners of the simplex.

    Args:
        log_p: ``(B, K)`` log-probabilities of the classes; minus infinity where one is impossible.
        z: q(z|y) over ``(K * B, d)``, all examples under the first class, then all under the second, and so on.

    Example:
        >>> from torch.distributions import Independent, Normal
        >>> z = Independent(Normal(torch.tensor([[0.0], [1.0]]), 0.5), 1)  # one example, two classes
        >>> q = ByClass(torch.tensor([[0.75, 0.25]]).log(), z)
        >>> q.mean, q.rsample((7,)).shape, q.log_prob(torch.tensor([[1.0, 0.0, 1.0]]))
        (tensor([[0.2500, 0.7500, 0.2500]]), torch.Size([7, 1, 3]), tensor([-1.6121]))
    """

    arg_constraints: dict[str, constraints.Constraint] = {}  # noqa: RUF012  # as torch.distributions declares it
    support = constraints.real_vector
    has_rsample = True

    def __init__(self, log_p: Tensor, z: Distribution) -> None:
        self.log_p, self.z = log_p, z
        dim = z.event_shape.numel() + log_p.shape[-1]
        super().__init__(log_p.shape[:1], torch.Size([dim]), validate_args=False)

    @property
    def classes(self) -> int:
        """K."""
        return self.log_p.shape[-1]

    @property
    def mean(self) -> Tensor:
        """``(B, d + K)``: the mean of z over the classes, and their probabilities."""
        p = self.log_p.exp()
        each = self.z.mean.unflatten(0, (self.classes, -1))
        return torch.cat([(p.T[..., None] * each).sum(0), p], -1)

    def rsample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        """Draws ``(*sample_shape, B, d + K)``; the gradient of the class is the straight-through one."""
        shape = torch.Size(sample_shape)
        y = OneHotCategoricalStraightThrough(logits=self.log_p, validate_args=False).rsample(shape)
        each = self.z.rsample(shape).unflatten(-2, (self.classes, -1))
        return torch.cat([(y.transpose(-1, -2)[..., None] * each).sum(-3), y], -1)

    def log_prob(self, value: Tensor) -> Tensor:
        """In nats, of values ``(*, d + K)`` that are broadcast against ``(B,)``; the class of one is its likeliest."""
        shape = torch.broadcast_shapes(value.shape[:-1], self.batch_shape)
        if shape[-1] != self.batch_shape[-1]:  # many values, and a single example
            return self.log_prob(value[..., None, :])[..., 0]
        value = value.expand(*shape, value.shape[-1])
        z, y = value.split([value.shape[-1] - self.classes, self.classes], -1)
        many = z[..., None, :, :].expand(*z.shape[:-2], self.classes, *z.shape[-2:])
        each = self.z.log_prob(many.flatten(-3, -2)).unflatten(-1, (self.classes, -1)).transpose(-1, -2)
        joint = each + self.log_p
        return joint.gather(-1, y.argmax(-1, keepdim=True))[..., 0]


class WithClass(Distribution):
    """``p(z) p(y)`` over codes ``(d + K,)``, all of K classes equally likely.

    Args:
        z: p(z) over ``(d,)``.
        like: ``(K,)``, any tensor of the number of classes, with the device and type of the codes.

    Example:
        >>> from torch.distributions import Independent, Normal
        >>> p = WithClass(Independent(Normal(torch.zeros(2), 1.0), 1), torch.zeros(3))
        >>> p.sample((5,)).shape, p.log_prob(torch.eye(5)[:, :5])
        (torch.Size([5, 5]), tensor([-3.4365, -3.4365, -2.9365, -2.9365, -2.9365]))
    """

    arg_constraints: dict[str, constraints.Constraint] = {}  # noqa: RUF012  # as torch.distributions declares it
    support = constraints.real_vector

    def __init__(self, z: Distribution, like: Tensor) -> None:
        self.z, self.log_p = z, torch.zeros_like(like) - torch.log(torch.full_like(like, len(like)))
        super().__init__(torch.Size(), torch.Size([z.event_shape.numel() + len(like)]), validate_args=False)

    def sample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        """Draws ``(*sample_shape, d + K)``."""
        shape = torch.Size(sample_shape)
        y = OneHotCategoricalStraightThrough(logits=self.log_p, validate_args=False).sample(shape)
        return torch.cat([self.z.sample(shape), y], -1)

    def log_prob(self, value: Tensor) -> Tensor:
        """``(*,)``, in nats."""
        k = self.log_p.shape[-1]
        log_p: Tensor = self.z.log_prob(value[..., :-k]) + self.log_p[0]
        return log_p

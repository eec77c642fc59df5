"""The two passes of a ladder: inference over its levels from an example, and generation from the top level down."""

from __future__ import annotations

import abc
from collections.abc import Sequence
from itertools import pairwise
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.distributions import Distribution, Independent, Normal, constraints
from torch.distributions.transforms import Transform

from sandglass.core import Spec
from sandglass.distributions.chain import Chain, Parts, joined
from sandglass.distributions.conditional import (
    DiagonalGaussian,
    Network,
    Observation,
    ObservationModel,
    at_least_single,
)
from sandglass.distributions.likelihood import Likelihood
from sandglass.distributions.location_scale import scale_from
from sandglass.distributions.standard import StandardNormal
from sandglass.nets.mlp import MLP, Residual
from sandglass.nets.net import Condition, Net

_ACTIVATION = "silu"
_LOG_PRECISION = -2.0  # of a refinement at the start: a level begins near its prior, with next to no rate


class Between(nn.Module):
    """A diagonal Gaussian over one level given others: a hidden layer, then means and log variances.

    Args:
        dim: numbers it is given.
        out: size of the level.
        width: of the hidden layer.
        cond: what it is conditioned on beside.
        standard: whether it starts as the standard normal, its last layer at 0.

    Example:
        >>> Between(3, 2, 8)(torch.zeros(7, 5, 3)).rsample().shape
        torch.Size([7, 5, 2])
    """

    def __init__(self, dim: int, out: int, width: int, cond: Condition = 0, standard: bool = False) -> None:
        super().__init__()
        net = MLP(widths=(width,), activation=_ACTIVATION).encoder((dim,), 2 * out, cond=cond)
        if standard:
            for weights in net.head.parameters():
                nn.init.zeros_(weights)
        self.gaussian = DiagonalGaussian(Network(net))

    def forward(self, z: Tensor, c: Tensor | None = None) -> Distribution:
        """Over ``(*, B, out)`` given ``(*, B, dim)``, under conditions ``(B, ...)``."""
        if c is not None:
            z = z.expand(*z.shape[:-2], c.shape[0], z.shape[-1])
            c = c.expand(*z.shape[:-2], *c.shape).flatten(0, z.dim() - 2)
        flat = self.gaussian(z.flatten(0, -2), c).base_dist
        return normal(*(t.unflatten(0, z.shape[:-1]) for t in (flat.loc, flat.scale)))


class TopDown(ObservationModel):
    """``p(x|code, c)``: from the top level down to x.

    The code is the noise of every level: ``z_i = mean_i(z_>i) + scale_i(z_>i) * code_i``, so that its prior is the
    standard normal whatever the levels above are.

    Args:
        net: the family the decoder is of.
        dims: sizes of the levels, the lowest first.
        spec: the data.
        likelihood: the head.
        width: of the hidden layers between levels.
        skips: whether a level, and x, is given all levels above it, or the next one alone.
        cond: what all of it is conditioned on.

    Attributes:
        x: p(x|z, c).
    """

    def __init__(
        self,
        net: Net,
        dims: Sequence[int],
        spec: Spec,
        likelihood: Likelihood,
        *,
        width: int,
        skips: bool,
        cond: Condition = 0,
    ) -> None:
        super().__init__()
        self.dims, self.skips = tuple(dims), skips
        above = [sum(dims[i:]) if skips else dims[i] for i in range(len(dims))]
        self.levels = nn.ModuleList(Between(n, d, width, cond, True) for n, d in zip(above[1:], dims, strict=False))
        self.top = StandardNormal(dims[-1])
        self.x = Observation(net, above[0], spec, likelihood, cond)
        self.size, self.kind = self.x.size, self.x.kind

    def prior(self, i: int, z: Parts, c: Tensor | None = None) -> Distribution:
        """p(z_i | z_>i, c) over ``(*, B, dims[i])``; of the top level over ``(dims[i],)``."""
        top: Distribution = self.top()
        return self.levels[i](self._seen(i + 1, z), c) if i < len(self.levels) else top

    def observe(self, z: Parts, c: Tensor | None = None) -> Distribution:
        """p(x|z, c) given levels ``(B, size)``."""
        return self.x(self._seen(0, z), c)

    def forward(self, h: Tensor | None = None, c: Tensor | None = None, mask: Tensor | None = None) -> Distribution:
        """p(x|code, c) given codes ``(B, D)``."""
        assert h is not None
        return self.observe(self.to_levels(h, c), c)

    def to_levels(self, code: Tensor, c: Tensor | None = None) -> Parts:
        """The levels ``(*, B, size)`` of codes ``(*, B, D)``."""
        parts = code.split(self.dims, -1)
        z: Parts = {}
        for i in reversed(range(len(self.dims))):
            loc, scale = moments(self.prior(i, z, c))
            z[i] = loc + scale * parts[i]
        return z

    def to_code(self, z: Parts, c: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Codes ``(*, B, D)`` of levels, and ``(*, B)`` the sum of the logarithms of the scales divided by."""
        priors = [moments(self.prior(i, z, c)) for i in range(len(self.dims))]
        code = joined({i: (z[i] - loc) / scale for i, (loc, scale) in enumerate(priors)})
        first, *rest = (scale.log().sum(-1) for _, scale in priors)
        return code, sum(rest, first)

    def _seen(self, i: int, z: Parts) -> Tensor:
        """What level i - 1 is given (x where i is 0): level i, and with skips those above it."""
        return torch.cat([z[k] for k in range(i, len(self.dims))], -1) if self.skips else z[i]


class Whitening(Transform):
    """From the levels, one after the other in ``(*, B, D)``, to the code: what each differs from its prior's mean by.

    Args:
        model: with the priors.
        c: the condition, ``(B, ...)``.
    """

    domain = codomain = constraints.real_vector
    bijective = True

    def __init__(self, model: TopDown, c: Tensor | None = None) -> None:
        super().__init__()
        self.model, self.c = model, c

    def _call(self, x: Tensor) -> Tensor:
        return self.model.to_code(self._parts(x), self.c)[0]

    def _inverse(self, y: Tensor) -> Tensor:
        return joined(self.model.to_levels(y, self.c))

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        """``(*, B)``: each level was divided by its prior's scale."""
        return -self.model.to_code(self._parts(x), self.c)[1]

    def _parts(self, z: Tensor) -> Parts:
        return dict(enumerate(z.split(self.model.dims, -1)))


class Refinement(NamedTuple):
    """What the pass up says of a level: a Gaussian in natural parameters, in the unit of the prior's scale.

    With the prior ``N(loc, scale^2)`` it is ``N(scale * location / precision, scale^2 / precision)``. In the unit of z,
    q would be narrower than p by a fixed amount; p, fitted to q, would become as narrow, and so on: both shrink, and
    the gradient of the level with them, until it is unused.

    Args:
        location: ``(B, size)``, the mean times the precision; it counts also where the precision is near 0.
        precision: ``(B, size)``, 1 for the prior's own.
    """

    location: Tensor
    precision: Tensor


class Head(nn.Module):
    """Two numbers for each dimension of a level, from features.

    Args:
        width: of the features.
        dim: size of the level.
        start: what is added to the biases of the second ones at the start.
        normalise: whether the features go through layer normalisation first.
    """

    def __init__(self, width: int, dim: int, start: float = 0.0, normalise: bool = False) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width) if normalise else nn.Identity()
        self.linear = nn.Linear(width, 2 * dim)
        with torch.no_grad():
            self.linear.bias[dim:] += start

    def forward(self, h: Tensor) -> Tensor:
        """``(B, width) -> (B, 2 dim)``."""
        return self.linear(F.silu(self.norm(h)))


class Inference(nn.Module, abc.ABC):
    """``q(z|x, c)`` over all levels."""

    @abc.abstractmethod
    def forward(self, x: Tensor, c: Tensor | None, model: TopDown) -> Chain:
        """The chain over the levels, the lowest first, for examples ``(B, *shape)``."""


class TopDownInference(Inference):
    """A deterministic pass up, and draws from the top level down.

    The pass up gives two numbers for each dimension of each level. The top level is drawn from the Gaussian that they
    are of; of each other one, they change the prior p(z_i | z_>i, c) into q, by one of

    * :func:`residual`: Vahdat and Kautz 2020, "NVAE: A Deep Hierarchical Variational Autoencoder" (arXiv 2007.03898);
    * :func:`product`: the ladder VAE of Sonderby et al. 2016. Its precision starts low, so that q starts near p.

    Args:
        net: the family the encoder is of.
        shape: of what it sees.
        dims: sizes of the levels, the lowest first.
        width: of the features of a level.
        cond: what it is conditioned on.
        merge: ``residual`` or ``product``.
    """

    def __init__(
        self,
        net: Net,
        shape: tuple[int, ...],
        dims: Sequence[int],
        width: int,
        cond: Condition = 0,
        merge: Literal["residual", "product"] = "residual",
    ) -> None:
        super().__init__()
        self.dims, self.merge = tuple(dims), merge
        self.encoder = Network.encoder(net, shape, width, cond)
        self.up = nn.ModuleList(Residual(width, width, _ACTIVATION) for _ in dims[1:])
        start = _LOG_PRECISION if merge == "product" else 0.0
        # The levels above read the output of normalised blocks. Without normalisation here too, those train faster, and
        # the lower levels stay unused: on the digits 0.15 nats in z1 and 5.6 in z2, with it 5.7 and 0.8.
        self.heads = nn.ModuleList(Head(width, d, start, normalise=True) for d in dims[:-1])
        self.top = DiagonalGaussian(Head(width, dims[-1]))

    def forward(self, x: Tensor, c: Tensor | None, model: TopDown) -> Chain:
        """The chain from the top level down."""
        h, seen = self.encoder(x, c), []
        for head, up in zip(self.heads, self.up, strict=True):
            location, log_second = at_least_single(head(h)).chunk(2, -1)
            seen.append((location, scale_from(0.5 * log_second)))
            h = up(h)
        top: Distribution = self.top(h)

        def step(i: int, z: Parts) -> Distribution:
            if i == len(seen):
                return top
            location, second = seen[i]
            p = model.prior(i, z, c)
            return (
                residual(location, second, p)
                if self.merge == "residual"
                else product(Refinement(location, second.square()), p)
            )

        return Chain(self.dims, range(len(seen), -1, -1), step, torch.Size([x.shape[0]]))


class BottomUpInference(Inference):
    """Draws from the lowest level up, ``q(z_1|x, c) q(z_2|z_1, c) ...``: the hierarchical VAE.

    Args:
        net: the family the encoder is of.
        shape: of what it sees.
        dims: sizes of the levels, the lowest first.
        width: of the hidden layers between levels.
        cond: what it is conditioned on.
    """

    def __init__(self, net: Net, shape: tuple[int, ...], dims: Sequence[int], width: int, cond: Condition = 0) -> None:
        super().__init__()
        self.dims = tuple(dims)
        self.encoder = Network.encoder(net, shape, width, cond)
        self.head = DiagonalGaussian(Head(width, dims[0]))
        self.levels = nn.ModuleList(Between(n, d, width, cond) for n, d in pairwise(dims))

    def forward(self, x: Tensor, c: Tensor | None, model: TopDown) -> Chain:
        """The chain from the lowest level up."""
        first = self.head(self.encoder(x, c))

        def step(i: int, z: Parts) -> Distribution:
            found: Distribution = self.levels[i - 1](z[i - 1], c) if i else first
            return found

        return Chain(self.dims, range(len(self.dims)), step, torch.Size([x.shape[0]]))


def normal(loc: Tensor, scale: Tensor) -> Distribution:
    """Independent normals over the last axis."""
    return Independent(Normal(loc, scale, validate_args=False), 1, validate_args=False)


def moments(p: Distribution) -> tuple[Tensor, Tensor]:
    """Means and standard deviations of independent normals."""
    assert isinstance(p, Independent)
    return p.base_dist.loc, p.base_dist.scale


def product(refinement: Refinement, p: Distribution) -> Distribution:
    """The normalised product of the prior of a level and the Gaussian of the pass up: means weighted by precision.

    Example:
        >>> p = normal(torch.tensor([1.0]), torch.tensor([0.5]))
        >>> q = product(Refinement(torch.tensor([6.0]), torch.tensor([3.0])), p)  # p times N(1, 0.5^2 / 3)
        >>> q.mean, q.variance
        (tensor([1.]), tensor([0.0625]))
    """
    loc, scale = moments(p)
    narrower = 1 + refinement.precision
    return normal((loc + scale * refinement.location) / narrower, scale * narrower.rsqrt())


def residual(location: Tensor, scale: Tensor, p: Distribution) -> Distribution:
    """The prior of a level moved by ``location`` of its scales, its scale multiplied by ``scale``.

    Its rate is that of ``N(location, scale^2)`` against the standard normal, whatever the prior is.

    Example:
        >>> p = normal(torch.tensor([1.0]), torch.tensor([0.5]))
        >>> q = residual(torch.tensor([6.0]), torch.tensor([3.0]), p)
        >>> q.mean, q.variance
        (tensor([4.]), tensor([2.2500]))
    """
    loc, spread = moments(p)
    return normal(loc + spread * location, spread * scale)

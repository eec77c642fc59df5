"""Flows along straight paths from noise to data: their loss, the network of their velocity, and their equation."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from sandglass.distributions.conditional import at_least_single
from sandglass.errors import ConfigError
from sandglass.nets.frame import Channels
from sandglass.nets.net import Condition, Maps, Net

Field = Callable[[Tensor, Tensor], Tensor]
"""A velocity ``(B, *shape)`` of points ``(B, *shape)`` at times ``(B,)``."""

SolverName = Literal["midpoint", "heun", "euler"]
TimesName = Literal["auto", "logit-normal", "uniform"]

_WAVES, _SLOWEST, _FASTEST = 32, 1.0, 100.0  # time features turn by so many radians from noise to data
_TIME = 128  # width of what the network is told about the time


class Flow(nn.Module):
    """A flow from standard normal noise to data, in coordinates in which the data has mean 0 and variance 1.

    Time goes from 0, noise e, to 1, data x. On the straight path ``x_t = (1 - t) e + t x`` the velocity is ``x - e``,
    and the network learns its mean given ``x_t``, which carries the distribution of noise to that of the data: Lipman
    et al. 2023, "Flow Matching for Generative Modeling" (arXiv 2210.02747); Liu, Gong and Liu 2023, "Flow Straight and
    Fast" (arXiv 2209.03003).

    Args:
        net: family of the network.
        shape: of an example.
        cond: of the condition.
        tagged: whether a condition of zeros could be a real one, so that a further channel says that there is one.
        steps: steps of the solver from noise to data; midpoint and heun evaluate the network twice in each.
        solver: ``midpoint`` and ``heun`` are of second order, ``euler`` of first.
        times: distribution of t in training: ``logit-normal`` prefers the middle, where the direction is hardest to
            tell (Esser et al. 2024, "Scaling Rectified Flow Transformers", arXiv 2403.03206), ``uniform`` learns fine
            detail better; auto is logit-normal for pictures and uniform for rows.
        drop: share of the examples whose condition is left out in training, so that the model also learns samples
            without one, for guidance; not used without a condition.
        guidance: factor of what a condition changes in the velocity (classifier-free guidance: Ho and Salimans 2022,
            arXiv 2207.12598). 1 samples from the distribution that was learnt; above 1 samples are more typical of
            their condition, and less varied.

    Raises:
        ConfigError: a value that makes no sense, or guidance without a condition or without ``drop``.

    Example:
        >>> from sandglass.nets.mlp import MLP
        >>> flow = Flow(MLP(widths=(8,)), (2,))
        >>> _ = flow.fit([torch.tensor([[1.0, 5.0], [3.0, 5.0]])])
        >>> flow.mean, flow.scale
        (tensor([2., 5.]), tensor([1., 1.]))
        >>> flow.loss(torch.zeros(4, 2)).shape, flow.forwards(torch.zeros(4, 2)).shape
        (torch.Size([4]), torch.Size([4, 2]))
    """

    mean: Tensor
    scale: Tensor

    def __init__(
        self,
        net: Net,
        shape: tuple[int, ...],
        cond: Condition = 0,
        tagged: bool = False,
        *,
        steps: int = 16,
        solver: SolverName = "midpoint",
        times: TimesName = "auto",
        drop: float = 0.1,
        guidance: float = 1.0,
    ) -> None:
        super().__init__()
        if steps < 1:
            raise ConfigError(f"A flow needs steps >= 1, not {steps}.")
        for name, value, known in (("solver", solver, SolverName), ("times", times, TimesName)):
            if value not in get_args(known):
                raise ConfigError(f"The option {name} is one of {', '.join(get_args(known))}, not '{value}'.")
        if not 0 <= drop < 1:
            raise ConfigError(f"The option drop must be in [0, 1), not {drop}.")
        if not 0 <= guidance < math.inf:
            raise ConfigError(f"The guidance must be finite and at least 0, not {guidance}.")
        if guidance != 1 and not (cond and drop):
            raise ConfigError(
                "Guidance needs a condition, and a share of examples to drop it from; set both, or omit it."
            )
        self.evaluations = steps * (1 if solver == "euler" else 2)
        self.shape, self.steps, self.solver = tuple(shape), steps, solver
        self.times = times if times != "auto" else "logit-normal" if len(shape) == 3 else "uniform"
        self.tagged, self.drop, self.guidance = tagged, drop if cond else 0.0, guidance
        self.velocity = Velocity(net, self.shape, _tagged(cond) if tagged else cond)
        each = (shape[0], *[1] * (len(shape) - 1))
        self.register_buffer("mean", torch.zeros(each))
        self.register_buffer("scale", torch.zeros(each).fill_(1.0))

    @torch.no_grad()
    def fit(self, batches: Iterable[Tensor]) -> dict[str, float]:
        """Sets ``mean`` and ``scale`` to those of examples ``(B, *shape)``, by channel of a picture or column of a row.

        A column that does not vary keeps the scale 1.

        Raises:
            ConfigError: no examples.
        """
        count, total, squares = 0, torch.zeros(()), torch.zeros(())
        where = [i for i in range(len(self.shape) + 1) if i != 1]
        origin = None
        for x in batches:
            if origin is None:  # subtracted first, so that a large mean does not cost the variance its digits
                origin = x.double().mean(where, keepdim=True)[0]
            far = x.double() - origin
            count, total = count + x.numel() // x.shape[1], total.to(x.device) + far.sum(where)
            squares = squares.to(x.device) + far.square().sum(where)
        if origin is None:
            raise ConfigError("There are no examples to find the scale of.")
        mean, variance = total / count, squares / count - (total / count).square()
        scale = variance.clamp(min=0).sqrt()
        self.mean.copy_(origin + mean.view(self.mean.shape))
        self.scale.copy_(torch.where(scale > 1e-6, scale, torch.ones_like(scale)).view(self.scale.shape))
        return {"mean": float(self.mean.mean()), "scale": float(self.scale.mean())}

    def loss(self, x: Tensor, c: Tensor | None = None, there: Tensor | None = None) -> Tensor:
        """``(B,)`` squared errors of the velocity at a time and a noise for each example, summed over its values.

        Args:
            x: ``(B, *shape)``.
            c: ``(B, ...)`` conditions, or None.
            there: ``(B,)`` bool, False where an example has no condition.
        """
        x = (x - self.mean) / self.scale
        t, noise = draw_times(len(x), x, self.times), torch.randn_like(x)
        if c is not None and self.drop:
            kept = torch.rand(len(x), device=x.device) >= self.drop
            there = kept if there is None else there & kept
        point, velocity = on_path(noise, x, t)
        return (self.velocity(point, t, self.told(c, there)) - velocity).square().flatten(1).sum(1)

    def told(self, c: Tensor | None, there: Tensor | None = None) -> Tensor | None:
        """The condition as the network reads it: 0 where there is none, and tagged if 0 could also be a condition."""
        if c is None:
            return None
        if self.tagged:
            c = torch.cat([c, torch.ones_like(c[:, :1])], 1)
        return c if there is None else c * there.to(c.dtype).view(-1, *[1] * (c.dim() - 1))

    def field(self, c: Tensor | None = None) -> Field:
        """The velocity under conditions ``(B, ...)``, with guidance."""
        if c is None or self.guidance == 1:
            told = self.told(c)
            return lambda x, t: self.velocity(x, t, told)
        both = torch.cat([self.told(c), torch.zeros_like(self.told(c))])  # type: ignore[list-item,arg-type]

        def guided(x: Tensor, t: Tensor) -> Tensor:
            told, free = self.velocity(torch.cat([x, x]), torch.cat([t, t]), both).chunk(2)
            return free + self.guidance * (told - free)

        return guided

    def forwards(self, noise: Tensor, c: Tensor | None = None) -> Tensor:
        """Noise ``(B, *shape)`` to examples."""
        return integrate(self.field(c), noise, 0.0, 1.0, self.steps, self.solver) * self.scale + self.mean

    def backwards(self, x: Tensor, c: Tensor | None = None) -> Tensor:
        """Examples ``(B, *shape)`` to the noise that they come from."""
        return integrate(self.field(c), (x - self.mean) / self.scale, 1.0, 0.0, self.steps, self.solver)

    def log_prob(self, x: Tensor, c: Tensor | None = None, probes: int = 0) -> Tensor:
        """``(B,)`` log densities of examples ``(B, *shape)`` under the equation, in nats.

        The instantaneous change of variables: ``d log p / dt = -div v``, integrated by the steps of the solver. Chen et
        al. 2018, "Neural Ordinary Differential Equations" (arXiv 1806.07366).

        Args:
            x: the examples.
            c: their conditions.
            probes: random directions in which the divergence is estimated, without bias (Grathwohl et al. 2019,
                "FFJORD", arXiv 1810.01367); 0 for all directions, which is exact.
        """
        start = ((x - self.mean) / self.scale).detach()
        signs = torch.randn(probes, *start.shape, device=x.device, dtype=x.dtype).sign()
        noise, gained = integrate_density(self.field(c), start, self.steps, self.solver, signs if probes else None)
        normal = -0.5 * (noise.square() + math.log(2 * math.pi)).flatten(1).sum(1)
        return normal - gained - self.scale.log().expand(self.shape).sum()


def _tagged(cond: Condition) -> Condition:
    """The shape of a condition with a further channel."""
    return cond + 1 if isinstance(cond, int) else (cond[0] + 1, *cond[1:])


def on_path(noise: Tensor, x: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
    """The points at times ``(B,)`` of straight paths from noise to examples, and their velocities.

    Example:
        >>> on_path(torch.zeros(1, 2), torch.tensor([[4.0, 8.0]]), torch.tensor([0.25]))
        (tensor([[1., 2.]]), tensor([[4., 8.]]))
    """
    t = _beside(t, x)
    return (1 - t) * noise + t * x, x - noise


def draw_times(n: int, like: Tensor, how: str) -> Tensor:
    """``(n,)`` times in [0, 1), one in each n-th of their distribution, so that a batch's loss varies less.

    Example:
        >>> _ = torch.manual_seed(0)
        >>> draw_times(1000, torch.zeros(1), "logit-normal").median().round(decimals=1)
        tensor(0.5000)
    """
    places = torch.arange(n, device=like.device, dtype=like.dtype) / n
    u = (places + torch.rand(1, device=like.device, dtype=like.dtype)) % 1
    return torch.special.ndtri(u).sigmoid() if how == "logit-normal" else u


def integrate(field: Field, x: Tensor, start: float, end: float, steps: int, solver: str) -> Tensor:
    """Where the field carries points ``(B, *shape)`` from one time to another, in steps of equal length.

    Example:
        >>> integrate(lambda x, t: x, torch.ones(1, 1), 0.0, 1.0, 100, "midpoint")  # e
        tensor([[2.7182]])
    """
    h = (end - start) / steps
    for i in range(steps):
        x = x + h * _slope(field, x, start + i * h, h, solver)
    return x


def _slope(field: Field, x: Tensor, t: float, h: float, solver: str) -> Tensor:
    """The velocity by which a step of length h moves on."""
    first = field(x, x.new_full((len(x),), t))
    if solver == "euler":
        return first
    if solver == "midpoint":
        return field(x + h / 2 * first, x.new_full((len(x),), t + h / 2))
    return (first + field(x + h * first, x.new_full((len(x),), t + h))) / 2


def integrate_density(field: Field, x: Tensor, steps: int, solver: str, signs: Tensor | None) -> tuple[Tensor, Tensor]:
    """Points ``(B, *shape)`` carried back to noise, and ``(B,)`` the integral of the divergence on their way.

    Args:
        field: the velocity.
        x: at time 1.
        steps: of the solver.
        solver: by name.
        signs: ``(K, B, *shape)`` random directions for the divergence; None for all directions.
    """
    total = x.new_zeros(len(x))

    def both(x: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            v = field(x, t)
            return v.detach(), divergence(v, x, signs)

    def joint(state: Tensor, t: Tensor) -> Tensor:
        v, spread = both(state[:, :-1].view_as(x), t)
        return torch.cat([v.flatten(1), spread[:, None]], 1)

    state = torch.cat([x.flatten(1), total[:, None]], 1)
    end = integrate(joint, state, 1.0, 0.0, steps, solver)
    return end[:, :-1].view_as(x), -end[:, -1]


def divergence(v: Tensor, x: Tensor, signs: Tensor | None = None) -> Tensor:
    """``(B,)`` the divergence of v, a function of x ``(B, *shape)`` by example, or its mean estimate along signs.

    Example:
        >>> x = torch.tensor([[1.0, 2.0]], requires_grad=True)
        >>> divergence(x ** 2, x)
        tensor([6.])
    """
    if signs is None:
        flat = v.flatten(1)
        rows = [torch.autograd.grad(flat[:, i].sum(), x, retain_graph=True)[0] for i in range(flat.shape[1])]
        return torch.stack([row.flatten(1)[:, i] for i, row in enumerate(rows)]).sum(0)
    found = [(torch.autograd.grad(v, x, s, retain_graph=True)[0] * s).flatten(1).sum(1) for s in signs]
    return torch.stack(found).mean(0)


class Velocity(nn.Module):
    """The velocity ``v(x, t, c)`` of a flow between standard normal noise and data of variance 1.

    Were all values independent and normal, the best velocity would be linear in x, ``(2t - 1) / d x`` with ``d = (1 -
    t)^2 + t^2``, and have a remainder of variance ``1 / d``. The network learns the rest, scaled to variance 1:

        v = (2t - 1) / d x + F(x / sqrt(d), t, c) / sqrt(d)

    so that in- and outputs of F have the same size at all times (Karras et al. 2022, "Elucidating the Design Space of
    Diffusion-Based Generative Models", arXiv 2206.00364), and a net whose maps begin at half the size still passes
    the noise on unchanged. F is the v-prediction of Salimans and Ho 2022 (arXiv 2202.00512). On pictures F is a
    U-Net of all maps of a net that has maps; the condition of the time goes to all of its stages.

    Args:
        net: family of the network.
        shape: of an example.
        cond: of the condition: a vector stands beside the time, a picture beside x.

    Example:
        >>> from sandglass.nets.conv import Conv
        >>> velocity = Velocity(Conv(width=4), (1, 28, 20), cond=3)
        >>> velocity(torch.zeros(2, 1, 28, 20), torch.rand(2), torch.eye(3)[:2]).shape
        torch.Size([2, 1, 28, 20])
    """

    def __init__(self, net: Net, shape: tuple[int, ...], cond: Condition = 0) -> None:
        super().__init__()
        self.shape, size = tuple(shape), math.prod(shape)
        maps = isinstance(net, Maps) and len(shape) == 3
        self.beside = maps and not isinstance(cond, int)  # whether a picture is further channels of x
        vector = 0 if self.beside else cond if isinstance(cond, int) else math.prod(cond)
        self.time = Times(_TIME)
        if maps:
            self.inputs = Channels(self.shape, cond if self.beside else 0)
            down: Any = net.analysis(self.inputs.joined, cond=_TIME + vector)  # type: ignore[attr-defined]
            self.down, self.up = down, net.synthesis(down.shapes, self.shape, cond=_TIME + vector)  # type: ignore[attr-defined]
        else:
            self.lift = Lift(size, _TIME) if size < _TIME else None
            self.whole = net.encoder(self.shape if self.lift is None else (_TIME,), size, cond=_TIME + vector)

    def forward(self, x: Tensor, t: Tensor, c: Tensor | None = None) -> Tensor:
        """``(B, *shape)`` of points ``(B, *shape)``, times ``(B,)`` and conditions ``(B, *cond)``."""
        at = _beside(t, x)
        d = (1 - at).square() + at.square()
        h = self.network(x / d.sqrt(), t, c)
        return (2 * at - 1) / d * x + at_least_single(h).to(x.dtype) / d.sqrt()

    def network(self, x: Tensor, t: Tensor, c: Tensor | None) -> Tensor:
        """F, the network alone."""
        told = self.time(t)
        if c is not None and not self.beside:
            told = torch.cat([told, c.flatten(1).to(told.dtype)], 1)
        if not hasattr(self, "down"):
            return self.whole(x if self.lift is None else self.lift(x), told).view(-1, *self.shape)
        joined = self.inputs(x, c if self.beside else None)
        return self.up(self.down(joined, told), told)


class Lift(nn.Linear):
    """Few numbers as more of the same variance, lest a network overlook them beside the many that say the time.

    Args:
        size: how many.
        width: of the result.

    Example:
        >>> _ = torch.manual_seed(0)
        >>> Lift(2, 1000)(torch.randn(1000, 2)).std().round(decimals=1)
        tensor(1., grad_fn=<RoundBackward1>)
    """

    def __init__(self, size: int, width: int) -> None:
        super().__init__(size, width)
        if not self.weight.is_meta:
            nn.init.normal_(self.weight, std=size**-0.5)
            nn.init.zeros_(self.bias)

    def forward(self, x: Tensor) -> Tensor:
        """``(B, *shape) -> (B, width)``."""
        return super().forward(x.flatten(1))


class Times(nn.Module):
    """Vectors that say the time: sines and cosines of many periods, and two layers.

    Args:
        width: of the vectors.

    Example:
        >>> Times(8)(torch.rand(5)).shape
        torch.Size([5, 8])
    """

    waves: Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        waves = [_SLOWEST * (_FASTEST / _SLOWEST) ** (i / (_WAVES - 1)) for i in range(_WAVES)]
        self.register_buffer("waves", torch.tensor(waves), persistent=False)
        self.layers = nn.Sequential(nn.Linear(2 * _WAVES, width), nn.SiLU(), nn.Linear(width, width), nn.SiLU())

    def forward(self, t: Tensor) -> Tensor:
        """``(B,) -> (B, width)``."""
        angle = t[:, None] * self.waves
        return self.layers(torch.cat([angle.sin(), angle.cos()], 1))


def _beside(t: Tensor, x: Tensor) -> Tensor:
    """Times ``(B,)`` with the axes of examples."""
    return t.view(-1, *[1] * (x.dim() - 1))

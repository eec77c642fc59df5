"""Flow matching: a flow from noise to examples, learnt along straight paths."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import torch
from torch import Tensor
from torch.distributions import Distribution

from sandglass.core import Batch, Batches, Clock, Latent, Model, Phase, Spec, Stage, Terms
from sandglass.distributions.standard import StandardNormal
from sandglass.errors import CapabilityError
from sandglass.models._condition import Given
from sandglass.models._flow import Flow
from sandglass.models._latent import decoded_between
from sandglass.registry import NetOption, OptionsOf, register, resolve

OPTIM: Mapping[str, Any] = {"lr": 1e-3, "betas": (0.9, 0.99)}
EMA = 0.999
"""Decay of the average of the weights: a velocity is a mean over noise that a batch knows little of."""

ROWS: Mapping[str, Any] = {"name": "mlp", "widths": [256, 256, 256], "activation": "silu"}
_WIDTH, _WIDTH_INK = 32, 48
_LEAST = 16  # pixels of the shorter side of pictures that it suits best
_MOST, _MOST_INK = 32, 16  # pixels of the shorter side of a picture's largest map

_EXACT = 32  # values of an example up to which the divergence is exact


@register("flow-matching")
class FlowMatching(Model):
    """Flow matching: a velocity that carries noise to examples, learnt along straight paths between the two.

    The loss is the squared error of the velocity ``x - e`` at a random point of the path from noise e to an example
    x: Lipman et al. 2023, "Flow Matching for Generative Modeling" (arXiv 2210.02747), as the rectified flow of Liu,
    Gong and Liu 2023 (arXiv 2209.03003). Before training the examples are shifted and scaled to mean 0 and variance 1.
    Samples solve ``dx / dt = v(x, t)`` from noise at t = 0 to t = 1; the other way round the same equation finds the
    noise of an example, which is its code.

    The weights that are kept are a moving average (``ema`` 0.999 unless the run sets another), chosen by the loss on
    validation examples at the same times and noise in every epoch.

    Of rows of real numbers the same equation gives the density (``log_prob``, ``score``), by the change of variables;
    not of pictures and of tables with categories or counts, whose values repeat: the better the model, the more
    its density there grows without limit. The data must have no missing values.

    Args:
        spec: the data.
        net: network family of the velocity; auto is resnet for images and three layers of mlp for rows.
        condition: ``"labels"`` or the name of a companion; empty for an unconditional model.
        flow: times, solver and guidance.

    Example:
        >>> _ = torch.manual_seed(0)
        >>> model = FlowMatching(Spec((1, 8, 8), "unit"), net={"name": "conv", "width": 4})
        >>> x = torch.rand(5, 1, 8, 8)
        >>> model.flow_matching(Batch(x), Clock()).parts["error"].shape, model.encode(x).shape, model.sample(3).shape
        (torch.Size([5]), torch.Size([5, 64]), torch.Size([3, 1, 8, 8]))
    """

    provides: tuple[str, ...] = ("encode", "decode", "prior", "interpolate")
    priority = 1
    evaluations = 32
    because = "after the same minutes its pictures are the hardest to tell from real ones"

    @staticmethod
    def natural(spec: Spec) -> bool:
        """Whether it is trained where no model is named: for pictures of 16 pixels a side or more, if no other is."""
        return spec.is_image and min(spec.shape[1:]) >= _LEAST

    def __init__(
        self,
        spec: Spec,
        *,
        net: NetOption = "auto",
        condition: str = "",
        **flow: Annotated[Any, OptionsOf(Flow)],
    ) -> None:
        super().__init__()
        self.spec, self.latents = spec, (Latent("z", (spec.size,)),)
        self.given = Given(condition, spec)
        self.needs = ("complete", *self.given.needs)
        nets = resolve("net", net, spec=spec, own=self.defaults(spec)["net"])
        self.flow = Flow(nets, spec.shape, self.given.cond, condition not in ("", "labels"), **flow)
        self.pz, self.evaluations = StandardNormal(spec.size), self.flow.evaluations
        if spec.layout == "row" and spec.support == "real" and not any(column.discrete for column in spec.columns):
            self.provides, self.kind = (*self.provides, "log_prob", "score"), "density"

    @staticmethod
    def defaults(spec: Spec) -> dict[str, Any]:
        """The net: a velocity takes more layers than an encoder, and photographs are seen by the pixel up to 32 a side.

        Squares of 2x2 cost less, and after five minutes drew better shapes at 32x32, but with a grid of their size in
        the texture of photographs. Ink has no texture, and is seen in squares from 17 pixels a side.
        """
        if not spec.is_image:
            return {"net": ROWS}
        ink = spec.support in ("unit", "binary")
        most, width = (_MOST_INK, _WIDTH_INK) if ink else (_MOST, _WIDTH)
        side, patch = min(spec.shape[1:]), 1
        while side / patch > most:
            patch *= 2
        return {"net": {"name": "resnet", "width": width, "patch": patch}}

    def stages(self) -> Sequence[Stage]:
        """One: the mean and scale of the data, then the velocity."""
        phase = Phase("flow", (self.flow,), self.flow_matching, optim=OPTIM, scheduled=False)
        return (Stage("train", (phase,), self.fit_scale, "flow", ema=EMA),)

    def fit_scale(self, train: Batches, validation: Batches | None) -> Mapping[str, float]:
        """Mean and scale of the training examples."""
        return self.flow.fit(batch.x for batch in train())

    def flow_matching(self, batch: Batch, clock: Clock) -> Terms:
        """The squared error of the velocity, summed over the values of an example and averaged over the batch."""
        error = self.flow.loss(batch.x, self.given(batch), self.there(batch))
        return Terms(error.mean(), {"error": error.detach()})

    def there(self, batch: Batch) -> Tensor | None:
        """``(B,)``, False where the companion it is conditioned on is absent; None where all have it."""
        absent = batch.absent.get(self.given.name)
        return None if absent is None else ~absent

    def prior(self, given: Batch | None = None) -> Distribution:
        """Standard normal noise over ``(spec.size,)``."""
        return self.pz()

    def decode(self, code: Tensor, given: Batch | None = None) -> Tensor:
        """``(B, D)`` noise to ``(B, *shape)``, cut to [0, 1] where the data is."""
        x = self.flow.forwards(code.unflatten(1, self.spec.shape), self.given(given, code.shape[0]))
        return x if self.spec.support == "real" else x.clamp(0, 1)

    def encode(self, batch: Batch) -> Tensor:
        """``(B, D)`` the noise of which the examples are made."""
        return self.flow.backwards(batch.x, self.given(batch)).flatten(1)

    def log_prob(self, batch: Batch, k: int = 1) -> Tensor:
        """``(B,)`` log densities in nats; of more than 32 values an unbiased estimate from ``k`` random directions.

        It is the density of the samples as the solver makes them, up to the error of its steps.

        Raises:
            CapabilityError: the data has values that repeat.
        """
        if "log_prob" not in self.provides:
            raise CapabilityError("This model has no 'log_prob' and no 'score': only that of rows of real numbers has.")
        return self.flow.log_prob(batch.x, self.given(batch), 0 if self.spec.size <= _EXACT else k)

    def score(self, batch: Batch) -> Tensor:
        """``(B,)`` how unusual each example is: the negative log density, in nats."""
        return -self.log_prob(batch)

    def interpolate(self, a: Batch | Tensor, b: Batch | Tensor, steps: int = 8) -> Tensor:
        """``(B, steps, *shape)``: decoded points on the arc between the noises of ``a`` and ``b``.

        On the straight line the noise would be too small in the middle. A conditional model uses the condition of
        ``a``.

        Raises:
            ConfigError: fewer than 2 steps.
        """
        return decoded_between(self, a, b, steps, lambda start, end, t: arc(start[:, None], end[:, None], t))

    @torch.no_grad()
    def sample(self, n: int, given: Batch | None = None, *, noise: bool = False) -> Tensor:
        """``(n, *shape)`` examples made of new noise; ``noise`` changes nothing."""
        return self.decode(self.prior().sample((n,)), given)


def arc(a: Tensor, b: Tensor, t: Tensor) -> Tensor:
    """Points at fractions t of the way from a to b ``(..., D)``, along the circle if both are equally long.

    Example:
        >>> arc(torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1.0]), torch.tensor([0.5])).square()
        tensor([0.5000, 0.5000])
    """
    cosine = (a * b).sum(-1, keepdim=True) / (a.norm(dim=-1, keepdim=True) * b.norm(dim=-1, keepdim=True)).clamp(1e-12)
    angle = cosine.clamp(-1, 1).acos()
    sine = angle.sin()
    near = sine < 1e-4  # the arc is a straight line then, or no single one
    safe = torch.where(near, torch.ones_like(sine), sine)
    round_ = ((1 - t) * angle).sin() / safe * a + (t * angle).sin() / safe * b
    return torch.where(near, (1 - t) * a + t * b, round_)

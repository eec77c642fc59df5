"""A flow on the codes of an autoencoder."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any

import torch
from torch import Tensor
from torch.distributions import Distribution

from sandglass.core import Batch, Batches, Clock, Latent, Phase, Spec, Stage, Terms
from sandglass.distributions.conditional import DiagonalGaussian, Observation
from sandglass.distributions.observed import log_prob
from sandglass.distributions.rate import rate
from sandglass.distributions.standard import StandardNormal
from sandglass.errors import ConfigError
from sandglass.models._code_map import CodeMap
from sandglass.models._condition import Given, Sees
from sandglass.models._flow import Flow
from sandglass.models._latent import LatentModel
from sandglass.models.flow_matching import EMA, OPTIM
from sandglass.nets.mlp import MLP
from sandglass.nets.resnet import ResNet
from sandglass.registry import LikelihoodOption, NetOption, OptionsOf, register, resolve

_LEAST = 48  # pixels of the shorter side of pictures for which a flow on pixels has too little time


@register("latent-flow")
class LatentFlow(LatentModel):
    """Latent flow: an autoencoder with a map of real numbers as the code, and a flow from noise to such maps.

    The first stage minimises ``distortion + beta * rate`` in nats, as a VAE with a small beta, which keeps codes
    bounded and smooth but hardly compresses them. The second fits a flow to the codes of the training examples, by flow
    matching (Lipman et al. 2023, arXiv 2210.02747). Rombach et al. 2022, "High-Resolution Image Synthesis with Latent
    Diffusion Models" (arXiv 2112.10752), with a flow in the place of diffusion. The flow learns on few numbers, so its
    updates cost little: what the decoder cannot draw, however, no sample has.

    Args:
        spec: the data.
        codes: vectors of a code: at most so many for a net with maps, the largest of which is taken, and exactly so
            many for another. When not given, one for every 48 values of a picture, from 4 to 64, and 8 of a row.
        code_dim: size of each vector.
        beta: weight of the rate in the first stage.
        net: network family of encoder and decoder; auto is resnet for images and mlp for rows.
        likelihood: p(x|z); auto is logistic-mixture for photographs, bernoulli for other values in [0, 1], gaussian
            for real ones, and mixed for tables with columns of other kinds.
        condition: what flow and decoder are conditioned on: labels, or a companion of each example; nothing if empty.
        sees: what the encoder reads: x or a companion of it; auto is the damaged copy where there is one.
        flow_width: channels of the flow's network.
        flow_depth: its residual blocks for each size of map, or its layers where codes are rows.
        flow: times, solver and guidance.

    Raises:
        ConfigError: a value that makes no sense.

    Example:
        >>> model = LatentFlow(Spec((1, 28, 28), "unit"), code_dim=4, flow_width=8)
        >>> model.encode(torch.rand(5, 1, 28, 28)).shape, [stage.name for stage in model.stages()]
        (torch.Size([5, 64]), ['codes', 'flow'])
    """

    provides = ("encode", "decode", "reconstruct", "posterior", "interpolate", "score", "embed", "complete")
    priority = 2
    because = "at this size its pictures are cleaner than those of others after the same minutes"

    @staticmethod
    def natural(spec: Spec) -> bool:
        """Whether it is trained where no model is named: for pictures of 48 pixels a side or more."""
        return spec.is_image and min(spec.shape[1:]) >= _LEAST

    def __init__(
        self,
        spec: Spec,
        *,
        codes: int | None = None,
        code_dim: int = 8,
        beta: float = 0.1,
        net: NetOption = "auto",
        likelihood: LikelihoodOption = "auto",
        condition: str = "",
        sees: str = "auto",
        flow_width: int = 128,
        flow_depth: int = 2,
        **flow: Annotated[Any, OptionsOf(Flow)],
    ) -> None:
        super().__init__()
        if code_dim < 1:
            raise ConfigError(f"A code needs code_dim >= 1, not {code_dim}.")
        if flow_width < 1 or flow_depth < 1:
            raise ConfigError(f"A flow needs flow_width and flow_depth >= 1, not {flow_width} and {flow_depth}.")
        if not 0 <= beta < float("inf"):
            raise ConfigError(f"The beta must be finite and at least 0, not {beta}.")
        self.spec, self.beta = spec, beta
        self.given, self.sees = Given(condition, spec), Sees(sees, spec)
        self.needs = (*self.given.needs, *self.sees.needs)
        nets = resolve("net", net, spec=spec, own=self.defaults(spec)["net"])
        maps, twice = (CodeMap(nets, self.sees.spec.shape, codes, n * code_dim) for n in (1, 2))
        self.latents = (Latent("z", (*maps.size, code_dim)),)
        self.q = DiagonalGaussian(Paired(twice.encoder(self.sees.spec.shape, 2 * self.code_size), code_dim))
        head = resolve("likelihood", likelihood, spec, spec=spec)
        self.p = Observation(maps, self.code_size, spec, head, self.given.cond)
        self.pz = StandardNormal(self.code_size)
        self.code_shape = (code_dim, *maps.size) if len(maps.size) == 2 else (self.code_size,)
        family: Any = (
            ResNet(width=flow_width, blocks=flow_depth, patch=1)
            if len(self.code_shape) == 3
            else MLP(widths=[2 * flow_width] * (flow_depth + 1), activation="silu")
        )
        self.flow = Flow(family, self.code_shape, self.given.cond, condition not in ("", "labels"), **flow)

    @staticmethod
    def defaults(spec: Spec) -> dict[str, Any]:
        """The net: kernels that leave no checkerboard, in the decoder of pictures."""
        return {"net": {"name": "resnet" if spec.is_image else "mlp"}}

    def stages(self) -> Sequence[Stage]:
        """Encoder and decoder; then the mean and scale of the codes, and their flow."""
        first = Phase("autoencoder", (self.q, self.p), self.autoencoder, scheduled=False)
        second = Phase("flow", (self.flow,), self.flow_matching, optim=OPTIM, scheduled=False)
        last = Stage("flow", (second,), self.fit_scale, "flow", ema=EMA)
        return Stage("codes", (first,), None, "autoencoder"), last

    def autoencoder(self, batch: Batch, clock: Clock) -> Terms:
        """``distortion + beta * rate`` of what was observed, from one draw of z each; the batch mean."""
        q = self.posterior(batch)
        z = q.rsample()
        distortion = -log_prob(self.p(z, self.given(batch)), batch.x, batch.mask)
        cost = rate(q, self.pz(), z)
        parts = {"distortion": distortion.detach(), "rate": cost.detach()}
        return Terms((distortion + self.beta * cost).mean(), parts)

    def flow_matching(self, batch: Batch, clock: Clock) -> Terms:
        """The squared error of the velocity of codes drawn for the examples, summed over a code; the batch mean."""
        absent = batch.absent.get(self.given.name)
        with torch.no_grad():
            z = self._map(self.infer(batch))
        error = self.flow.loss(z, self.given(batch), None if absent is None else ~absent)
        return Terms(error.mean(), {"error": error.detach()})

    def fit_scale(self, train: Batches, validation: Batches | None) -> Mapping[str, float]:
        """Mean and scale of the codes of the training examples."""

        def codes() -> Iterator[Tensor]:
            with torch.no_grad():
                yield from (self._map(self.infer(batch)) for batch in train())

        return self.flow.fit(codes())

    def posterior(self, batch: Batch) -> Distribution:
        """q(z|x) over ``(B, D)``; missing values of x are 0."""
        return self.q(self.sees(batch))

    def encode(self, batch: Batch) -> Tensor:
        """``(B, D)`` posterior means, those of a map row by row."""
        return self.posterior(batch).mean

    def infer(self, batch: Batch) -> Tensor:
        """``(B, D)`` draws from the posterior."""
        return self.posterior(batch).sample()

    def score(self, batch: Batch) -> Tensor:
        """``(B,)`` how unusual each example is: ``-log p(x|z)`` at its code, in nats."""
        return -log_prob(self.observation(self.encode(batch), self.given(batch)), batch.x, batch.mask)

    def draw(self, n: int, given: Batch | None = None) -> Tensor:
        """``(n, D)`` codes that the flow makes of noise."""
        noise = self.pz().sample((n,)).unflatten(1, self.code_shape)
        z = self.flow.forwards(noise, self.given(given, n))
        return z.flatten(2).transpose(1, 2).flatten(1) if z.dim() == 4 else z

    def _map(self, z: Tensor) -> Tensor:
        """Codes ``(B, D)`` as what the flow is of: a map ``(B, code_dim, h, w)``, or the row that they are."""
        if len(self.code_shape) == 1:
            return z
        return z.unflatten(1, (-1, self.code_shape[0])).transpose(1, 2).unflatten(2, self.code_shape[1:])


class Paired(torch.nn.Module):
    """Vectors of means and log variances, one after the other, as all means followed by all log variances.

    Args:
        encoder: ``(B, *shape)`` to ``(B, n * 2 * dim)``.
        dim: of a mean.

    Example:
        >>> Paired(torch.nn.Identity(), 2)(torch.arange(8.0)[None])
        tensor([[0., 1., 4., 5., 2., 3., 6., 7.]])
    """

    def __init__(self, encoder: torch.nn.Module, dim: int) -> None:
        super().__init__()
        self.encoder, self.dim = encoder, dim

    def forward(self, x: Tensor) -> Tensor:
        """``(B, 2 * n * dim)``."""
        return torch.cat([t.flatten(1) for t in self.encoder(x).unflatten(1, (-1, 2 * self.dim)).chunk(2, 2)], 1)

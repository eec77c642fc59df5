"""The very deep variational autoencoder: blocks of latents at every size of a picture, each given all above."""

from __future__ import annotations

from typing import Annotated, Any

from torch import Tensor
from torch.distributions import Distribution

from sandglass.core import Batch, Bound, Latent, Spec
from sandglass.distributions.chain import joined
from sandglass.distributions.observed import log_prob
from sandglass.distributions.rate import rate_per_dimension
from sandglass.distributions.standard import StandardNormal
from sandglass.errors import ConfigError
from sandglass.models._condition import Given, Sees
from sandglass.models._deep import Inference, Plan, TopDown
from sandglass.models._ladder import moments, normal
from sandglass.models._levels import LevelledModel
from sandglass.models._penalty import RatePenalty
from sandglass.registry import LikelihoodOption, OptionsOf, ScheduleOption, register, resolve


@register("vd-vae")
class VDVAE(LevelledModel):
    """Very deep VAE: blocks of latents at every size of a picture, each with a prior and a posterior given those above.

    ``p(x, z) = p(x|z) p(z_1) p(z_2|z_1) ... p(z_N|z_<N)``, diagonal Gaussians over maps of latents, from one pixel down
    to the largest map, ``blocks`` of them at every size. The encoder goes up by residual bottlenecks and keeps its
    maps; on the way down each block gives the prior, and with the map of its size the posterior. The objective of an
    example is ``distortion + beta * rate`` in nats, the rate being the sum over blocks of
    ``KL(q(z_i|x, z_<i) || p(z_i|z_<i))``: Child 2020, "Very Deep VAEs Generalize Autoregressive Models and Can
    Outperform Them on Images" (arXiv 2011.10650). It is much smaller than there, and q is the prior with its mean moved
    and its scale multiplied: Vahdat and Kautz 2020, "NVAE: A Deep Hierarchical Variational Autoencoder" (arXiv
    2007.03898).

    A code has the blocks in the coordinates of their priors, ``code_i = (z_i - mean_i(z_<i)) / scale_i(z_<i)``, from
    the top down: the prior of a code is the standard normal, and a draw times 0.8 is one at the temperature 0.8.
    :meth:`levels` gives the latents themselves. A row of numbers is one pixel, with ``blocks`` levels.

    Args:
        spec: the data.
        blocks: of latents at every size.
        z_channels: channels of the latents of a block.
        width: channels of the maps; the bottlenecks have a quarter of them, or 16 of fewer than 64.
        patch: side of the squares of pixels that are the channels of the largest map: 1, 2, 4, ...; by default the
            first with which the longer side of the map is at most 16.
        likelihood: p(x|z); auto as for the VAE.
        condition: what the model is conditioned on: labels, or a companion of each example; nothing when empty.
        sees: what the encoder reads: x or a companion of it, a picture for pictures, resized to theirs; auto is the
            damaged copy where there is one.
        beta_schedule: schedule of beta; a warm-up over the first 300 updates keeps more of the blocks in use.
        penalty: what the objective makes of the rate.

    Raises:
        ConfigError: a size below 1, a patch that is no power of two or of what is no picture, or a companion to see
            that is a picture where x is none, or none where x is one.

    Example:
        >>> import torch
        >>> model = VDVAE(Spec((1, 9, 7), "unit"), blocks=2, z_channels=3, width=16, likelihood="bernoulli")
        >>> [latent.name for latent in model.latents][-2:], model.latents[-1].shape
        (['z9x7_1', 'z9x7_2'], (9, 7, 3))
        >>> x = torch.rand(5, 1, 9, 7)
        >>> len(model.bound(Batch(x)).rates), model.encode(x).shape
        (8, torch.Size([5, 540]))
    """

    p: TopDown

    def __init__(
        self,
        spec: Spec,
        *,
        blocks: int = 2,
        z_channels: int = 4,
        width: int = 32,
        patch: int | None = None,
        likelihood: LikelihoodOption = "auto",
        condition: str = "",
        sees: str = "auto",
        beta_schedule: ScheduleOption = "warm-up",
        **penalty: Annotated[Any, OptionsOf(RatePenalty)],
    ) -> None:
        super().__init__()
        for name, value in (("blocks", blocks), ("z_channels", z_channels), ("width", width)):
            if value < 1:
                raise ConfigError(f"A very deep VAE needs {name} >= 1, not {value}.")
        if patch is not None and (patch < 1 or patch & (patch - 1)):
            raise ConfigError(f"The option patch must be 1, 2, 4 or another power of two, not {patch}.")
        if patch is not None and patch > 1 and not spec.is_image:
            raise ConfigError(f"A patch of {patch} is of pictures; examples of shape {spec.shape} have none.")
        plan = Plan(spec.shape, blocks, z_channels, width, patch)
        self.spec = spec
        self.latents = tuple(Latent(n, s) for n, s in zip(plan.names, plan.shapes, strict=True))
        self.given, self.sees = Given(condition, spec), Sees(sees, spec)
        self.penalty = RatePenalty(beta_schedule=beta_schedule, **penalty)
        self.needs = (*self.given.needs, *self.sees.needs)
        if self.sees.spec.is_image != spec.is_image:
            needed = "a picture, which is resized to theirs" if spec.is_image else "no picture"
            raise ConfigError(
                f"The encoder of a vd-vae for examples of shape {spec.shape} can see {needed}; the companion '{sees}' "
                f"has the shape {self.sees.spec.shape}. Leave out sees, or choose the model vae."
            )
        self.q = Inference(plan, self.sees.spec.shape, spec.shape, self.given.cond)
        self.p = TopDown(plan, spec, resolve("likelihood", likelihood, spec, spec=spec), self.given.cond)
        self.pz = StandardNormal(sum(plan.parts))

    def bound(self, batch: Batch) -> Bound:
        """The evidence bound from one draw of z an example, with the rate of every block, from the top down.

        A rate is a KL in closed form given the draw of the blocks above it, and a sum over dimensions.
        """
        chain, walk = self.q(self.sees(batch), self.given(batch), self.p)
        code, steps = chain.draw()
        distortion = -log_prob(walk.observe(code), batch.x, batch.mask)
        loc, scale = (joined({i: moments(steps[i])[k] for i in steps}) for k in (0, 1))
        found = rate_per_dimension(normal(loc, scale), self.prior())
        assert found is not None
        each = {n.name: part for n, part in zip(self.latents, found.split(chain.sizes, 1), strict=True)}
        return Bound({"x": distortion}, {name: part.sum(1) for name, part in each.items()}, each)

    def posterior(self, batch: Batch) -> Distribution:
        """q(code|x, c) over ``(B, D)``; what is missing enters as 0."""
        chain: Distribution = self.q(self.sees(batch), self.given(batch), self.p)[0]
        return chain

    def levels(self, code: Tensor, given: Batch | None = None) -> dict[str, Tensor]:
        """The latents themselves, ``(B, h, w, z_channels)`` by name, of codes ``(B, D)``.

        Example:
            >>> import torch
            >>> model = VDVAE(Spec((1, 5, 6), "unit"), blocks=1, width=8)
            >>> {name: z.shape for name, z in model.levels(torch.zeros(2, 160)).items()}
            {'z1x1_1': torch.Size([2, 1, 1, 4]), 'z3x3_1': torch.Size([2, 3, 3, 4]), 'z5x6_1': torch.Size([2, 5, 6, 4])}
        """
        z = self.p.to_levels(code, self.given(given, len(code)))
        return {latent.name: each for latent, each in zip(self.latents, z, strict=True)}

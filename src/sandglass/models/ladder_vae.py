"""The ladder variational autoencoder: several levels of latents, inferred from the top down."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal

from torch import Tensor
from torch.distributions import Distribution

from sandglass.core import Batch, Bound, Latent, Spec
from sandglass.distributions.chain import Transformed
from sandglass.distributions.observed import log_prob
from sandglass.distributions.rate import rate, rate_per_dimension
from sandglass.distributions.standard import StandardNormal
from sandglass.errors import ConfigError
from sandglass.models._condition import Given, Sees
from sandglass.models._ladder import BottomUpInference, Inference, TopDown, TopDownInference, Whitening
from sandglass.models._levels import LevelledModel
from sandglass.models._penalty import RatePenalty
from sandglass.registry import LikelihoodOption, NetOption, OptionsOf, register, resolve


@register("hierarchical-vae", inference="bottom-up", skips=False)
@register("ladder-vae")
class LadderVAE(LevelledModel):
    """Ladder VAE: latents in several levels, each with a prior given those above, and a posterior that refines it.

    ``p(x, z) = p(x|z) p(z_1|z_>1) ... p(z_L)``, diagonal Gaussians with p(z_L) standard normal. The encoder goes up
    without drawing; from the top down, ``q(z_i|x, z_>i)`` is the prior p(z_i|z_>i) changed by what the encoder gives
    for the level. The objective of an example is ``distortion + beta * rate`` in nats, the rate being the sum over
    levels of ``KL(q(z_i|x, z_>i) || p(z_i|z_>i))``: Sonderby, Raiko, Maaloe, Sonderby and Winther 2016, "Ladder
    Variational Autoencoders" (arXiv 1602.02282). There q is the product of the prior and a Gaussian. By default it is
    here the prior with its mean shifted and its scale multiplied, as in Vahdat and Kautz 2020, "NVAE: A Deep
    Hierarchical Variational Autoencoder" (arXiv 2007.03898). With bottom-up inference it is the hierarchical VAE that
    Sonderby et al. compare with.

    A code has the levels in the coordinates of their priors, ``code_i = (z_i - mean_i(z_>i)) / scale_i(z_>i)``: the
    prior of a code is the standard normal, 0 in a part stands for the prior mean given what is above, and a change in
    one level moves those below along. :meth:`levels` gives the levels themselves. Rates, bounds and likelihoods are the
    same in either.

    Args:
        spec: the data.
        latent_dims: sizes of the levels, the one next to the data first; one or more.
        inference: ``residual``, where q(z_i|x, z_>i) is the prior with its mean shifted and its scale multiplied;
            ``product``, where it is the prior times a Gaussian, normalised; or ``bottom-up`` for q(z_1|x) q(z_2|z_1)
            and so on.
        skips: whether each level, and x, is given all levels above it; otherwise the next one alone, as in the paper.
        width: of the features and hidden layers between the levels.
        net: network family of the encoder to the features and of the decoder; auto is conv for images and mlp for rows.
        likelihood: p(x|z); auto as for the VAE.
        condition: what the model is conditioned on: labels, or a companion of each example; nothing when empty.
        sees: what the encoder reads: x or a companion of it; auto is the damaged copy where there is one.
        penalty: what the objective makes of the rate.

    Raises:
        ConfigError: no level, an empty one, or free bits with bottom-up inference.

    Example:
        >>> import torch
        >>> model = LadderVAE(Spec((1, 8, 8), "unit"), latent_dims=(4, 2), net="mlp", likelihood="bernoulli")
        >>> bound = model.bound(Batch(torch.rand(5, 1, 8, 8)))
        >>> list(bound.rates), model.encode(torch.rand(5, 1, 8, 8)).shape
        (['z1', 'z2'], torch.Size([5, 6]))
    """

    p: TopDown

    def __init__(
        self,
        spec: Spec,
        *,
        latent_dims: Sequence[int] = (16, 8),
        inference: Literal["residual", "product", "bottom-up"] = "residual",
        skips: bool = True,
        width: int = 128,
        net: NetOption = "auto",
        likelihood: LikelihoodOption = "auto",
        condition: str = "",
        sees: str = "auto",
        **penalty: Annotated[Any, OptionsOf(RatePenalty)],
    ) -> None:
        super().__init__()
        dims = tuple(int(d) for d in latent_dims)
        if not dims or min(dims) < 1:
            raise ConfigError(
                f"latent_dims are the sizes of the levels, one or more, each at least 1, not {list(dims)}."
            )
        if width < 1:
            raise ConfigError(f"A ladder VAE needs width >= 1, not {width}.")
        if inference not in ("residual", "product", "bottom-up"):
            raise ConfigError(f"The inference is one of residual, product, bottom-up, not '{inference}'.")
        self.spec, self.latents = spec, tuple(Latent(f"z{i + 1}", (d,)) for i, d in enumerate(dims))
        self.given, self.sees, self.penalty = Given(condition, spec), Sees(sees, spec), RatePenalty(**penalty)
        self.needs = (*self.given.needs, *self.sees.needs)
        self.closed = inference != "bottom-up" or len(dims) == 1
        if self.penalty.free_bits and not self.closed:
            raise ConfigError("free_bits needs an inference other than bottom-up, whose rates are no KLs by dimension.")
        nets, cond = resolve("net", net, spec=spec), self.given.cond
        sizes = (nets, self.sees.spec.shape, dims, width, cond)
        self.q: Inference = (
            BottomUpInference(*sizes) if inference == "bottom-up" else TopDownInference(*sizes, merge=inference)
        )
        head = resolve("likelihood", likelihood, spec, spec=spec)
        self.p = TopDown(nets, dims, spec, head, width=width, skips=skips, cond=cond)
        self.pz = StandardNormal(sum(dims))

    def bound(self, batch: Batch) -> Bound:
        """The evidence bound from one draw of z an example, with the rate of every level, ``z1`` the lowest.

        A rate is a KL in closed form given the draw of the levels above it, and a sum over dimensions. With bottom-up
        inference that holds for the top level alone; the others are ``log q - log p`` of the draw.
        """
        c = self.given(batch)
        z, steps = self.q(self.sees(batch), c, self.p).draw()
        rates, each = {}, {}
        for i, latent in enumerate(self.latents):
            q, p = steps[i], self.p.prior(i, z, c)
            if self.closed or i == len(self.latents) - 1:
                found = rate_per_dimension(q, p)
                assert found is not None
                each[latent.name], rates[latent.name] = found, rate(q, p, z[i], found)
            else:
                rates[latent.name] = q.log_prob(z[i]) - p.log_prob(z[i])
        return Bound({"x": -log_prob(self.p.observe(z, c), batch.x, batch.mask)}, rates, each)

    def posterior(self, batch: Batch) -> Distribution:
        """q(code|x, c) over ``(B, D)``; what is missing enters as 0."""
        c = self.given(batch)
        return Transformed(self.q(self.sees(batch), c, self.p), Whitening(self.p, c))

    def levels(self, code: Tensor, given: Batch | None = None) -> dict[str, Tensor]:
        """The levels themselves, ``(B, size)`` by name, of codes ``(B, D)``: the mean and scale of each prior put back.

        Example:
            >>> import torch
            >>> model = LadderVAE(Spec((6,)), latent_dims=(3, 2))
            >>> {name: z.shape for name, z in model.levels(torch.zeros(5, 5)).items()}
            {'z1': torch.Size([5, 3]), 'z2': torch.Size([5, 2])}
        """
        z = self.p.to_levels(code, self.given(given, len(code)))
        return {latent.name: z[i] for i, latent in enumerate(self.latents)}

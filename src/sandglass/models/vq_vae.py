"""Autoencoders with discrete codes, and an autoregressive prior over these."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

import torch
from torch import Tensor
from torch.distributions import Distribution

from sandglass.core import Batch, Batches, Bound, Clock, Latent, Phase, Spec, Stage, Terms
from sandglass.distributions.conditional import Network, Observation
from sandglass.distributions.observed import log_prob
from sandglass.errors import ConfigError
from sandglass.models._code_map import CodeMap
from sandglass.models._code_prior import CodePrior
from sandglass.models._condition import Given, Sees
from sandglass.models._latent import LatentModel
from sandglass.models._quantise import Codebook, FiniteScalar, Quantiser, levels_for, usage
from sandglass.registry import LikelihoodOption, NetOption, OptionsOf, register, resolve


@register("vq-vae")
@register("fsq-vae", quantiser="fsq")
class VQVAE(LatentModel):
    """Vector-quantised autoencoder: a map of whole numbers as the code, and a learnt prior over such maps.

    The encoder makes a map of vectors; each becomes one of K codes, whose vectors the decoder reads: p(x|k). The first
    stage minimises ``-log p(x|k) + commitment * |h - e_k|^2`` in nats, the encoder learning by the straight-through
    gradient: van den Oord, Vinyals and Kavukcuoglu 2017, "Neural Discrete Representation Learning" (arXiv 1711.00937).
    The codebook begins with k-means and follows moving averages. ``fsq`` rounds every dimension instead: Mentzer et al.
    2023, "Finite Scalar Quantization: VQ-VAE Made Simple" (arXiv 2309.15505). The second stage fits p(k) by a causal
    transformer to the codes of the training examples; before it, all codes are equally likely.

    As k is a function of x, ``log p(x|k) + log p(k)`` is a lower bound on log p(x).

    Args:
        spec: the data.
        codes: codes of an example: at most so many for a net with maps, the largest of which is taken, and exactly so
            many for another. When not given, one for every 48 values of a picture, from 4 to 64, and 8 of a row.
        codebook_size: K, how many codes there are; fsq has as many as its levels make, at most so many.
        code_dim: size of the vector of a code; fsq has one dimension for each of its levels.
        quantiser: ``ema``, a codebook that follows moving averages, or ``fsq``, finite scalar quantisation.
        commitment: weight of the squared distance between the encoder's vectors and their codes; fsq has none.
        decay: what a step keeps of the moving averages of the codebook.
        revive: share of an even use below which a code is replaced by a vector of the batch; 0 for never.
        levels: of each dimension of fsq; found from the codebook_size when none are given.
        net: network family of encoder and decoder; auto is conv for images and mlp for rows.
        likelihood: p(x|k); auto as for the VAE.
        condition: what prior and decoder are conditioned on: labels, or a companion of each example; nothing if empty.
        sees: what the encoder reads: x or a companion of it; auto is the damaged copy where there is one.
        prior: the transformer over codes.

    Example:
        >>> model = VQVAE(Spec((1, 28, 28), "unit"), codebook_size=16)
        >>> x = torch.rand(5, 1, 28, 28)
        >>> model.latents[0].shape, model.encode(x).shape, model.encode(x).dtype
        ((4, 4), torch.Size([5, 16]), torch.int64)
        >>> [stage.name for stage in model.stages()]
        ['codes', 'prior']
    """

    provides = (
        "encode",
        "decode",
        "reconstruct",
        "interpolate",
        "bound",
        "log_prob",
        "score",
        "embed",
        "complete",
    )

    def __init__(
        self,
        spec: Spec,
        *,
        codes: int | None = None,
        codebook_size: int = 64,
        code_dim: int = 16,
        quantiser: Literal["ema", "fsq"] = "ema",
        commitment: float = 0.25,
        decay: float = 0.95,
        revive: float = 0.05,
        levels: Sequence[int] = (),
        net: NetOption = "auto",
        likelihood: LikelihoodOption = "auto",
        condition: str = "",
        sees: str = "auto",
        **prior: Annotated[Any, OptionsOf(CodePrior)],
    ) -> None:
        super().__init__()
        if quantiser not in ("ema", "fsq"):
            raise ConfigError(f"The quantiser is one of ema, fsq, not '{quantiser}'.")
        if levels and quantiser != "fsq":
            raise ConfigError("Only the quantiser fsq has levels; leave them out, or choose it.")
        if code_dim < 1:
            raise ConfigError(f"A code needs code_dim >= 1, not {code_dim}.")
        if not 0 <= commitment < float("inf"):
            raise ConfigError(f"The commitment must be finite and at least 0, not {commitment}.")
        self.spec, self.commitment = spec, commitment
        self.quantiser: Quantiser = (
            Codebook(codebook_size, code_dim, decay=decay, revive=revive)
            if quantiser == "ema"
            else FiniteScalar([int(n) for n in levels] or levels_for(codebook_size))
        )
        self.given, self.sees = Given(condition, spec), Sees(sees, spec)
        self.needs = (*self.given.needs, *self.sees.needs)
        nets = resolve("net", net, spec=spec)
        size, dim = self.quantiser.size, self.quantiser.dim
        maps = CodeMap(nets, self.sees.spec.shape, codes, dim)
        self.latents = (Latent("codes", maps.size, "index", size),)
        self.encoder = Network.encoder(maps, self.sees.spec.shape, self.code_size * dim)
        head = resolve("likelihood", likelihood, spec, spec=spec)
        self.p = Observation(maps, self.code_size * dim, spec, head, self.given.cond)
        self.pk = CodePrior(size, self.code_size, self.given.cond, nets, **prior)

    def stages(self) -> Sequence[Stage]:
        """Encoder, codebook and decoder, the codebook after k-means; then the prior over the codes."""
        follow = self.quantiser.follow if isinstance(self.quantiser, Codebook) else None
        trained = (self.encoder, self.quantiser, self.p)
        first = Phase("reconstruction", trained, self.reconstruction, scheduled=False, follow=follow)
        second = Phase("prior", (self.pk,), self.code_length, scheduled=False)
        fit = self.fit_codebook if isinstance(self.quantiser, Codebook) else None
        return Stage("codes", (first,), fit, "reconstruction"), Stage("prior", (second,), objective="prior")

    def reconstruction(self, batch: Batch, clock: Clock) -> Terms:
        """``-log p(x|k)`` of what was observed, and the commitment; the batch mean."""
        q = self.quantiser(self.vectors(batch))
        distortion = -log_prob(self.p(q.values.flatten(1), self.given(batch)), batch.x, batch.mask)
        loss, parts = distortion, {"distortion": distortion.detach()}
        if q.commitment is not None:
            loss = distortion + self.commitment * q.commitment
            parts["commitment"] = q.commitment.detach()
        return Terms(loss.mean(), parts, usage(q.codes, self.quantiser.size), q.statistics)

    def code_length(self, batch: Batch, clock: Clock) -> Terms:
        """``-log p(k)`` of the codes that the encoder gives, in nats: the rate; the batch mean."""
        rate = -self.pk(c=self.given(batch)).log_prob(self.encode(batch))
        return Terms(rate.mean(), {"rate": rate.detach()})

    def fit_codebook(self, train: Batches, validation: Batches | None) -> Mapping[str, float]:
        """K-means over what the encoder makes of the training examples."""
        assert isinstance(self.quantiser, Codebook)
        with torch.no_grad():
            return self.quantiser.fit(self.vectors(batch) for batch in train())

    def vectors(self, batch: Batch) -> Tensor:
        """``(B, n, D)`` what the encoder makes of the examples, before quantisation."""
        return self.encoder(self.sees(batch)).unflatten(1, (self.code_size, self.quantiser.dim))

    @torch.no_grad()
    def encode(self, batch: Batch) -> Tensor:
        """``(B, n)`` whole numbers, the codes of a map row by row."""
        return self.quantiser.encode(self.vectors(batch))

    def embed(self, code: Tensor) -> Tensor:
        """``(B, n)`` codes as their vectors one after the other, ``(B, n * D)``."""
        return self.quantiser.lookup(code.long()).to(self.dtype).flatten(1)

    def observation(self, code: Tensor, c: Tensor | None) -> Distribution:
        """p(x|k, c), from the vectors of the codes."""
        return self.p(self.embed(code), c)

    def bound(self, batch: Batch) -> Bound:
        """The lower bound ``log p(x|k) + log p(k)`` at the codes k of the examples; of what was observed."""
        codes, c = self.encode(batch), self.given(batch)
        distortion = -log_prob(self.observation(codes, c), batch.x, batch.mask)
        return Bound({"x": distortion}, {"codes": -self.pk(c=c).log_prob(codes)})

    def log_prob(self, batch: Batch, k: int = 1) -> Tensor:
        """``(B,)`` the bound on log p(x), in nats; more draws do not tighten it, for k is a function of x."""
        return self.bound(batch).elbo

    def score(self, batch: Batch) -> Tensor:
        """``(B,)`` how unusual each example is: the negative bound, in nats."""
        return -self.bound(batch).elbo

    def draw(self, n: int, given: Batch | None = None) -> Tensor:
        """``(n, codes)`` whole numbers from the prior."""
        c = self.given(given, n)
        return self.pk(c=c).sample(() if c is not None else (n,))

    def between(self, a: Tensor, b: Tensor, t: Tensor) -> Tensor:
        """The codes nearest to points on the line between the vectors of the codes a and b."""
        start, end = self.embed(a)[:, None], self.embed(b)[:, None]
        points = start * (1 - t) + end * t
        return self.quantiser.nearest(points.unflatten(2, (self.code_size, self.quantiser.dim)))

"""Autoencoders with discrete codes, and an autoregressive prior over these."""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from types import MappingProxyType
from typing import Annotated, Any

from torch import Tensor

from sandglass.core import Batch, Latent, Spec
from sandglass.distributions.conditional import Network, Observation
from sandglass.errors import ConfigError, named_type
from sandglass.models._code_map import CodeMap
from sandglass.models._code_model import CodeModel, check_commitment
from sandglass.models._code_prior import CodePrior
from sandglass.models._code_priors import code_prior
from sandglass.models._condition import Given, Sees
from sandglass.quantisers.quantiser import Quantiser
from sandglass.registry import LikelihoodOption, NetOption, OptionsOf, QuantiserOption, register, resolve

MOVED: Mapping[str, tuple[str, Any]] = MappingProxyType(
    {"decay": ("quantiser", 0.95), "revive": ("quantiser", 0.05), "levels": ("quantiser", ())}
)
"""Options of earlier models that are now those of their quantiser."""


@register("vq-vae")
@register("fsq-vae", quantiser="fsq")
@register("rq-vae", quantiser="residual")
class VQVAE(CodeModel):
    """Vector-quantised autoencoder: a map of whole numbers as the code, and a learnt prior over such maps.

    The encoder makes a map of vectors; each becomes one of K codes, whose vectors the decoder reads: p(x|k). The first
    stage minimises ``-log p(x|k) + commitment * |h - e_k|^2`` in nats, the encoder learning by the straight-through
    gradient: van den Oord, Vinyals and Kavukcuoglu 2017, "Neural Discrete Representation Learning" (arXiv 1711.00937).
    The codebook begins with k-means and follows moving averages. Other quantisers round every dimension of a vector
    (``fsq``), take its sign (``lfq``), or give it several codes one after the other (``residual``). The second stage
    fits p(k) to the codes of the training examples; before it, all codes are equally likely.

    As k is a function of x, ``log p(x|k) + log p(k)`` is a lower bound on log p(x).

    Args:
        spec: the data.
        codes: vectors of an example: at most so many for a net with maps, the largest of which is taken, and exactly so
            many for another. When not given, one for every 48 values of a picture, from 4 to 64, and 8 of a row.
        codebook_size: K, how many codes there are; fsq has as many as its levels make, at most so many, and lfq a power
            of two.
        code_dim: size of the vector of a code; fsq has one dimension for each of its levels, lfq one for each bit.
        quantiser: what makes codes of vectors.
        commitment: weight of the squared distance between the encoder's vectors and their codes; fsq has none.
        net: network family of encoder and decoder; auto is conv for images and mlp for rows.
        likelihood: p(x|k); auto as for the VAE.
        condition: what prior and decoder are conditioned on: labels, or a companion of each example; nothing if empty.
        sees: what the encoder reads: x or a companion of it; auto is the damaged copy where there is one.
        prior: the network over codes.

    Example:
        >>> import torch
        >>> model = VQVAE(Spec((1, 28, 28), "unit"), codebook_size=16)
        >>> x = torch.rand(5, 1, 28, 28)
        >>> model.latents[0].shape, model.encode(x).shape, model.encode(x).dtype
        ((4, 4), torch.Size([5, 16]), torch.int64)
        >>> [stage.name for stage in model.stages()]
        ['codes', 'prior']
    """

    moved_options = MOVED

    def __init__(
        self,
        spec: Spec,
        *,
        codes: int | None = None,
        codebook_size: int = 64,
        code_dim: int = 16,
        quantiser: QuantiserOption = "ema",
        commitment: float = 0.25,
        net: NetOption = "auto",
        likelihood: LikelihoodOption = "auto",
        condition: str = "",
        sees: str = "auto",
        **prior: Annotated[Any, OptionsOf(code_prior)],
    ) -> None:
        super().__init__()
        if code_dim < 1:
            raise ConfigError(f"A code needs code_dim >= 1, not {code_dim}.")
        self.spec, self.commitment = spec, check_commitment(commitment)
        self.quantiser: Quantiser = resolve("quantiser", quantiser, codebook_size, code_dim)
        if not isinstance(self.quantiser, Quantiser):
            raise ConfigError(f"The quantiser is a name, with options, or a Quantiser, not {named_type(quantiser)}.")
        self.given, self.sees = Given(condition, spec), Sees(sees, spec)
        self.needs = (*self.given.needs, *self.sees.needs)
        nets = resolve("net", net, spec=spec)
        size, dim, depth = self.quantiser.size, self.quantiser.dim, self.quantiser.depth
        maps = CodeMap(nets, self.sees.spec.shape, codes, dim)
        shape = (*maps.size, depth) if depth > 1 else maps.size
        self.latents = (Latent("codes", shape, "index", size),)
        places = self.code_size // depth
        self.encoder = Network.encoder(maps, self.sees.spec.shape, places * dim)
        head = resolve("likelihood", likelihood, spec, spec=spec)
        self.p = Observation(maps, places * dim, spec, head, self.given.cond)
        self.pk = code_prior(size, shape, self.given.cond, nets, (), False, **prior)

    @property
    def quantisers(self) -> Sequence[Quantiser]:
        """The only one."""
        return (self.quantiser,)

    @property
    def priors(self) -> Sequence[CodePrior]:
        """The only one."""
        return (self.pk,)

    def levels(self, batch: Batch) -> Generator[Tensor, Tensor, None]:
        """``(B, n, D)`` what the encoder makes of the examples."""
        h = self.encoder(self.sees(batch))
        yield h.unflatten(1, (-1, self.quantiser.dim))

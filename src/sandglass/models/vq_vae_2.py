"""Autoencoders with several maps of discrete codes, from coarse to fine."""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from typing import Annotated, Any, cast

from torch import Tensor, nn

from sandglass.core import Batch, Latent, Spec
from sandglass.distributions.conditional import Observation
from sandglass.errors import ConfigError
from sandglass.models._code_maps import CodeMaps
from sandglass.models._code_model import CodeModel, check_commitment
from sandglass.models._code_prior import CodePrior
from sandglass.models._code_priors import code_prior
from sandglass.models._condition import Given, Sees
from sandglass.quantisers.quantiser import Quantiser
from sandglass.registry import LikelihoodOption, NetOption, OptionsOf, QuantiserOption, register, resolve

_MOST = 5


@register("vq-vae-2")
class VQVAE2(CodeModel):
    """VQ-VAE-2: maps of whole numbers from coarse to fine as the code, and a learnt prior over each given those above.

    Razavi, van den Oord and Vinyals 2019, "Generating Diverse High-Fidelity Images with VQ-VAE-2" (arXiv 1906.00446).
    The top map has half the height and width of the next. It is quantised first; the vectors of each further map are
    made of the example and of the quantised ones above, and the decoder reads all. The first stage minimises ``-log
    p(x|k) + commitment * (sum over maps of |h - e_k|^2)`` in nats, as the VQ-VAE does. The second fits ``p(k_top)`` and
    ``p(k_bottom | k_top)`` to the codes of the training examples.

    As k is a function of x, ``log p(x|k) + log p(k)`` is a lower bound on log p(x).

    Args:
        spec: the data.
        codes: vectors of the bottom map: at most so many for a net with maps, the largest of which is taken, and
            exactly so many for another. When not given, one for every 48 values of a picture, from 4 to 64, and 8 of a
            row.
        maps: how many maps there are.
        codebook_size: K, how many codes a map has to choose from.
        code_dim: size of the vector of a code.
        quantiser: what makes codes of vectors, one for each map.
        commitment: weight of the squared distance between the encoder's vectors and their codes; fsq has none.
        net: network family of encoder and decoder; auto is conv for images and mlp for rows.
        likelihood: p(x|k); auto as for the VAE.
        condition: what prior and decoder are conditioned on: labels, or a companion of each example; nothing if empty.
        sees: what the encoder reads: x or a companion of it; auto is the damaged copy where there is one.
        prior: the networks over codes.

    Raises:
        ConfigError: fewer than 2 maps, more than 5 or than the bottom can be halved, or another value that makes no
            sense.

    Example:
        >>> import torch
        >>> model = VQVAE2(Spec((1, 28, 28), "unit"), codebook_size=16)
        >>> [(latent.name, latent.shape) for latent in model.latents]
        [('top', (2, 2)), ('bottom', (4, 4))]
        >>> model.encode(torch.rand(5, 1, 28, 28)).shape
        torch.Size([5, 20])
    """

    def __init__(
        self,
        spec: Spec,
        *,
        codes: int | None = None,
        maps: int = 2,
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
        if not 2 <= maps <= _MOST:
            raise ConfigError(f"A VQ-VAE-2 has 2 to {_MOST} maps, not {maps}; the model vq-vae has one.")
        if code_dim < 1:
            raise ConfigError(f"A code needs code_dim >= 1, not {code_dim}.")
        if not isinstance(quantiser, str | Mapping):
            raise ConfigError("Each map needs a quantiser of its own, so it is given by name, with options.")
        self.spec, self.commitment = spec, check_commitment(commitment)
        self.quantiser = nn.ModuleList(resolve("quantiser", quantiser, codebook_size, code_dim) for _ in range(maps))
        self.given, self.sees = Given(condition, spec), Sees(sees, spec)
        self.needs = (*self.given.needs, *self.sees.needs)
        nets, cond = resolve("net", net, spec=spec), self.given.cond
        dims = [q.dim for q in self.quantisers]
        family = CodeMaps(nets, self.sees.spec.shape, codes, dims)
        names = ("top", *(f"map{i + 2}" for i in range(maps - 2)), "bottom")
        self.latents = tuple(
            Latent(name, (*size, q.depth) if q.depth > 1 else size, "index", q.size)
            for name, size, q in zip(names, family.sizes, self.quantisers, strict=True)
        )
        self.encoder = family.encoder(self.sees.spec.shape)
        head = resolve("likelihood", likelihood, spec, spec=spec)
        vectors = sum(k.size // q.depth * q.dim for k, q in zip(self.latents, self.quantisers, strict=True))
        self.p = Observation(cast(Any, family), vectors, spec, head, cond)
        above = [(latent.levels, latent.shape) for latent in self.latents]
        self.pk = nn.ModuleList(
            code_prior(latent.levels, latent.shape, cond, nets, tuple(above[:i]), **prior)
            for i, latent in enumerate(self.latents)
        )

    @property
    def quantisers(self) -> Sequence[Quantiser]:
        """Those of the maps, from the top."""
        return [cast(Quantiser, q) for q in self.quantiser]

    @property
    def priors(self) -> Sequence[CodePrior]:
        """Those of the maps, from the top."""
        return [cast(CodePrior, p) for p in self.pk]

    def levels(self, batch: Batch) -> Generator[Tensor, Tensor, None]:
        """``(B, n, D)`` what the encoder makes of the examples for each map, given those above."""
        above: Tensor | None = None
        for i, features in enumerate(self.encoder(self.sees(batch))):
            values = yield self.encoder.vectors(i, features, above)
            above = self.encoder.descent(i, values.flatten(1), above)

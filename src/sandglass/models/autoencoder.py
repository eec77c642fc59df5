"""The plain autoencoder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Annotated, Any

import torch
from torch import Tensor

from sandglass.core import Batch, Batches, Clock, Latent, Phase, Spec, Stage, Terms
from sandglass.distributions.conditional import Network, Observation
from sandglass.distributions.observed import log_prob
from sandglass.errors import ConfigError
from sandglass.models._condition import Given, Sees
from sandglass.models._density import density_of
from sandglass.models._latent import LatentModel, sized
from sandglass.registry import LikelihoodOption, NetOption, OptionsOf, register, resolve


class PointAutoencoder(LatentModel):
    """A deterministic encoder to a code, and p(x|z): what autoencoders of other objectives share.

    Args:
        spec: the data.
        latent_dim: size of the code; by default 16 for rows, and for images 8 to 256 by their size.
        net: network family of encoder and decoder; auto is resnet for images and mlp for rows.
        likelihood: p(x|z), of which the loss is the negative logarithm; auto is bernoulli for ink on paper,
            logistic-mixture for photographs, gaussian for real values, and mixed for tables with columns of other
            kinds.
        sees: input of the encoder: ``"x"`` or a companion; auto is the damaged copy if there is one.
        masked: whether the encoder also gets the mask of missing values, which are 0 in its input.
    """

    provides: tuple[str, ...] = ("encode", "decode", "reconstruct", "interpolate", "score", "embed", "complete")

    defaults = staticmethod(sized)

    def __init__(
        self,
        spec: Spec,
        *,
        latent_dim: int | None = None,
        net: NetOption = "auto",
        likelihood: LikelihoodOption = "auto",
        sees: str = "auto",
        masked: bool = False,
    ) -> None:
        super().__init__()
        latent_dim = self.defaults(spec)["latent_dim"] if latent_dim is None else latent_dim
        if latent_dim < 1:
            raise ConfigError(f"An autoencoder needs latent_dim >= 1, not {latent_dim}.")
        self.spec, self.latents = spec, (Latent("z", (latent_dim,)),)
        self.given, self.sees = Given("", spec), Sees(sees, spec)
        self.needs, self.masked = self.sees.needs, masked
        nets = resolve("net", net, spec=spec, own=self.defaults(spec)["net"])
        self.encoder = Network.encoder(nets, self.sees.spec.shape, latent_dim, masked=masked)
        self.p = Observation(nets, latent_dim, spec, resolve("likelihood", likelihood, spec, spec=spec))

    def score(self, batch: Batch) -> Tensor:
        """``(B,)`` how unusual each example is: ``-log p(x|z)`` at its code, in nats."""
        return self.distortion(self.encode(batch), batch)

    def distortion(self, z: Tensor, batch: Batch) -> Tensor:
        """``(B,)`` ``-log p(x|z)`` of the observed values at codes ``(B, latent_dim)``, in nats."""
        return -log_prob(self.p(z), batch.x, batch.mask)

    def encode(self, batch: Batch) -> Tensor:
        """``(B, latent_dim)`` codes."""
        return self.encoder(self.sees(batch), mask=batch.mask if self.masked else None)


@register("ae")
class Autoencoder(PointAutoencoder):
    """Autoencoder: an encoder to a code and a decoder, trained to reconstruct.

    The objective of an example is ``-log p(x|z)`` in nats at its code z, summed over elements: binary cross-entropy
    with the Bernoulli, half the squared error plus a constant with a Gaussian of fixed scale 1. It has no prior, so
    ``sample`` draws codes from a mixture of Gaussians that is fitted to the training codes in a second stage, an
    ex-post density: Ghosh et al. 2020, "From Variational to Deterministic Autoencoders" (arXiv 1903.12436).

    Args:
        spec: the data.
        components: Gaussians of the mixture; 1 for one with the mean and covariance of the codes.
        options: see :class:`PointAutoencoder`.

    Raises:
        ConfigError: fewer than one component.

    Example:
        >>> model = Autoencoder(Spec((1, 8, 8), "unit"), latent_dim=2, net="mlp", likelihood="bernoulli")
        >>> model.reconstruct(torch.rand(5, 1, 8, 8)).shape
        torch.Size([5, 1, 8, 8])
    """

    earlier = MappingProxyType({"components": 1})

    def __init__(
        self, spec: Spec, *, components: int = 10, **options: Annotated[Any, OptionsOf(PointAutoencoder)]
    ) -> None:
        super().__init__(spec, **options)
        self.density = density_of(self.code_size, components)

    def stages(self) -> Sequence[Stage]:
        """Training of encoder and decoder, then the fit of a density to the codes in closed form."""
        phase = Phase("reconstruction", (self.encoder, self.p), self.reconstruction, scheduled=False)
        return Stage("train", (phase,), objective="reconstruction"), Stage("density", fit=self.fit_density)

    def reconstruction(self, batch: Batch, clock: Clock) -> Terms:
        """``-log p(x|z)`` of the observed values, averaged over the batch."""
        distortion = self.score(batch)
        return Terms(distortion.mean(), {"distortion": distortion.detach()})

    def fit_density(self, train: Batches, validation: Batches | None) -> Mapping[str, float]:
        """Fits the mixture to the codes of the training examples."""
        with torch.no_grad():
            return self.density.fit(torch.cat([self.encode(batch) for batch in train()]))

    def draw(self, n: int, given: Batch | None = None) -> Tensor:
        """``(n, latent_dim)`` draws from the density fitted to the training codes."""
        return self.density.sample(n)

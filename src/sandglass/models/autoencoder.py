"""The plain autoencoder."""

from __future__ import annotations

from collections.abc import Sequence
from types import MappingProxyType
from typing import Annotated, Any

from torch import Tensor

from sandglass.core import Batch, Clock, Latent, Phase, Spec, Stage, Terms
from sandglass.distributions.conditional import Network, Observation
from sandglass.distributions.observed import log_prob
from sandglass.errors import ConfigError
from sandglass.models._condition import Given, Sees
from sandglass.models._latent import LatentModel, sized
from sandglass.models._sampling import sampling
from sandglass.registry import LikelihoodOption, NetOption, OptionsOf, SamplerOption, register, resolve
from sandglass.samplers.sampler import Sampler


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
        sampler: distribution of codes that is fitted to those of the training examples, in a stage after training.

    Attributes:
        density: the sampler.
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
        sampler: SamplerOption = "gaussian-mixture",
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
        self.density: Sampler | None = resolve("sampler", sampler, latent_dim)

    def sampler_stage(self) -> tuple[Stage, ...]:
        """The stage in which the sampler is fitted, if there is one."""
        return sampling(self.density, self.infer)

    def draw(self, n: int, given: Batch | None = None) -> Tensor:
        """``(n, latent_dim)`` draws from the sampler that was fitted to the training codes."""
        assert self.density is not None
        return self.density.sample(n)

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
    ``sample`` draws codes from a distribution that is fitted to the training codes in a second stage, by default a
    mixture of Gaussians: Ghosh et al. 2020, "From Variational to Deterministic Autoencoders" (arXiv 1903.12436).

    Args:
        spec: the data.
        options: see :class:`PointAutoencoder`.

    Raises:
        ConfigError: the sampler is the prior, which it has not.

    Example:
        >>> model = Autoencoder(Spec((1, 8, 8), "unit"), latent_dim=2, net="mlp", likelihood="bernoulli")
        >>> model.reconstruct(torch.rand(5, 1, 8, 8)).shape
        torch.Size([5, 1, 8, 8])
    """

    earlier = MappingProxyType({"sampler": "gaussian"})

    def __init__(self, spec: Spec, **options: Annotated[Any, OptionsOf(PointAutoencoder)]) -> None:
        super().__init__(spec, **options)
        if self.density is None:
            raise ConfigError("An autoencoder has no prior: choose another sampler, such as gaussian-mixture.")

    def stages(self) -> Sequence[Stage]:
        """Training of encoder and decoder, then the fit of the sampler to their codes."""
        phase = Phase("reconstruction", (self.encoder, self.p), self.reconstruction, scheduled=False)
        return Stage("train", (phase,), objective="reconstruction"), *self.sampler_stage()

    def reconstruction(self, batch: Batch, clock: Clock) -> Terms:
        """``-log p(x|z)`` of the observed values, averaged over the batch."""
        distortion = self.score(batch)
        return Terms(distortion.mean(), {"distortion": distortion.detach()})

"""The variational autoencoder whose posterior a Hamiltonian flow moves towards high p(x, z)."""

from __future__ import annotations

from typing import Annotated, Any

from torch import Tensor

from sandglass.core import Batch, Clock, Spec, Terms
from sandglass.models._hamiltonian import FlowVAE, Moved, Steps, TemperingName, leapfrog
from sandglass.models.vae import VAE
from sandglass.registry import OptionsOf, register


@register("hamiltonian-vae")
class HamiltonianVAE(FlowVAE):
    """Hamiltonian VAE: codes of the encoder are moved by leapfrog steps on ``U(z) = -log p(x, z)``.

    Caterini, Doucet and Sejdinovic 2018, "Hamiltonian Variational Auto-Encoder" (arXiv 1805.11328). A draw z_0 from the
    Gaussian of the encoder, with a momentum ``v_0 = noise / sqrt(beta_0)``, goes through K steps of Hamiltonian
    dynamics, in each of which the momentum is cooled. The map is invertible, with a Jacobian determinant that is known
    and the same for all codes, so with standard normal momenta r there is a bound on log p(x) for the posterior of
    the moved codes: the mean over draws of ``log p(x, z_K) + log r(v_K) - log q(z_0|x) - log r(noise)``, for the
    determinant cancels that of the first momenta. It needs no further network: the decoder itself says where to.

    The objective is the VAE's, ``distortion + beta * rate`` in nats, with the distortion at z_K. The rate is the KL of
    the first codes in closed form, plus ``log p(z_0) - log p(z_K) + |v_K|^2 / 2 - |noise|^2 / 2``. Without steps, it is
    the VAE to the last bit.

    ``posterior`` is that of the moved codes. It has draws, and no density, since momenta are not integrated out;
    ``encode`` is where the mean goes with a momentum of 0; log_prob weights codes together with their momenta. Each
    step evaluates the decoder and its gradient once more, in training with second derivatives.

    Args:
        spec: the data.
        leapfrog: K, the number of leapfrog steps; 0 for the VAE.
        step_size: of the steps before training; one for each latent dimension is learnt.
        max_step_size: size that no step reaches.
        tempering: ``quadratic`` learns beta_0, and ``1 / sqrt(beta_k)`` falls as ``k^2`` to 1; ``free`` learns the
            factor of every step; ``none`` has no tempering.
        inverse_temperature: beta_0, before training, by default 0.5; only with tempering.
        vae: options of the VAE.

    Raises:
        ConfigError: an invalid value.

    Example:
        >>> import torch
        >>> model = HamiltonianVAE(Spec((6,)), latent_dim=2)
        >>> terms = model.elbo(Batch(torch.randn(5, 6)), Clock())
        >>> sorted(terms.parts), sorted(terms.scalars)
        (['distortion', 'rate'], ['beta', 'inverse_temperature', 'step_size'])
    """

    def __init__(
        self,
        spec: Spec,
        *,
        leapfrog: int = 3,
        step_size: float = 0.25,
        max_step_size: float = 0.5,
        tempering: TemperingName = "quadratic",
        inverse_temperature: float | None = None,
        **vae: Annotated[Any, OptionsOf(VAE)],
    ) -> None:
        super().__init__(spec, **vae)
        self.steps = Steps(self.code_size, leapfrog, step_size, max_step_size, tempering, inverse_temperature)

    def elbo(self, batch: Batch, clock: Clock) -> Terms:
        """``distortion + beta * rate`` of the moved codes, or with its capacity or free bits: the batch mean."""
        return self.terms(clock, self.bound(batch))

    def flow(self, batch: Batch, z: Tensor, noise: Tensor) -> Moved:
        """Codes after K leapfrog steps, with momenta from standard normal noise."""
        root, factors = self.steps.tempered()
        z, v, distortion = leapfrog(self.energy(batch), z, noise / root, self.steps.size, factors)
        return Moved(z, (v.square() - noise.square()) / 2, distortion)

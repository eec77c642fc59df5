"""Variational autoencoders whose objective also regularises the aggregate posterior."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated, Any, Literal

import torch
from torch import Tensor
from torch.distributions import Distribution

from sandglass.core import Batch, Clock, Spec, Stage, Terms
from sandglass.distributions.discrepancy import KERNELS
from sandglass.distributions.gaussian_posterior import DiagonalPosterior
from sandglass.errors import ConfigError
from sandglass.models._aggregate import discrepancy, off_whiteness, rate_parts
from sandglass.models._base_vae import BaseVAE
from sandglass.models.vae import VAE
from sandglass.registry import OptionsOf, register

_PARTS = ("information", "total_correlation", "dimension_kl")


@register("beta-tc-vae", total_correlation=6.0)
@register("dip-vae", off_diagonal=3.0, diagonal=3.0, covariance="codes")
@register("info-vae", beta=0.5, mmd=30.0)
class RegularizedVAE(BaseVAE):
    """VAE with a regularised aggregate posterior q(z), the mean of q(z|x) over the examples.

    The objective of an example is that of the VAE, ``distortion + beta * rate``, plus what the options weigh:

    * ``information``, ``total_correlation`` and ``dimension_kl`` are the weights of the three parts of the rate, 1 in
      the VAE: the mutual information of x and z, ``KL(q(z) || prod_j q(z_j))`` and ``sum_j KL(q(z_j) || p(z_j))``.
      Chen, Li, Grosse and Duvenaud 2018, "Isolating Sources of Disentanglement in VAEs" (beta-TC-VAE, arXiv
      1802.04942), whose alpha, beta and gamma they are. The rate itself is in closed form, and the estimate of each
      part is added with the weight ``beta * (weight - 1)``; with all weights at 1 it is the VAE to the last bit.
    * ``off_diagonal`` and ``diagonal`` are weights of ``sum_(i != j) C_ij^2`` and ``sum_i (C_ii - 1)^2``, with C the
      covariance of the posterior means or of the codes, in an unbiased estimate of each square: Kumar, Sattigeri and
      Balakrishnan 2018, "Variational Inference of Disentangled Latent Concepts from Unlabeled Observations" (DIP-VAE I
      and II, arXiv 1711.00848).
    * ``mmd`` is the weight of the squared maximum mean discrepancy of q(z) and p(z), in its unbiased estimate: Zhao,
      Song and Ermon 2019, "InfoVAE" (arXiv 1706.02262), whose ``1 - alpha`` is beta and whose ``alpha + lambda - 1`` is
      this weight. The kernels and their widths are those of Tolstikhin et al. 2018 (arXiv 1711.01558).

    They are statistics of a batch, or with ``accumulate`` of each of its shards, or of the part of each process; it has
    at least 2 examples, with the covariance 4. Larger ones estimate them better. The bound and log_prob are those of
    the VAE: the plain evidence bound with beta = 1. A capacity or free bits replace the rate alone; the parts keep the
    weight beta.

    Args:
        spec: the data.
        information: weight of the mutual information of x and z in the rate.
        total_correlation: weight of the total correlation of the latent dimensions in the rate.
        dimension_kl: weight of the sum over dimensions of the KL from the marginals of q(z) to the prior.
        sampling: how q(z) of all training examples is estimated from a batch: ``stratified``, without bias, or
            ``weighted``.
        off_diagonal: weight of the squared covariances of different dimensions.
        diagonal: weight of the squared differences of the variances from 1.
        covariance: of the posterior ``means`` (type I of the paper) or of the ``codes`` (type II).
        mmd: weight of the squared maximum mean discrepancy; it is at most 2, so weights are large.
        kernel: of the discrepancy, only with mmd > 0: ``imq`` (inverse multiquadratic) or ``rbf`` (Gaussian).
        vae: options of the VAE.

    Raises:
        ConfigError: an invalid value.

    Example:
        >>> model = RegularizedVAE(Spec((6,)), total_correlation=6.0, latent_dim=2)
        >>> terms = model.elbo(Batch(torch.randn(5, 6)), Clock.final())
        >>> sorted(terms.parts)
        ['dimension_kl', 'distortion', 'information', 'rate', 'total_correlation']
    """

    def __init__(
        self,
        spec: Spec,
        *,
        information: float = 1.0,
        total_correlation: float = 1.0,
        dimension_kl: float = 1.0,
        sampling: Literal["stratified", "weighted"] = "stratified",
        off_diagonal: float = 0.0,
        diagonal: float = 0.0,
        covariance: Literal["means", "codes"] = "means",
        mmd: float = 0.0,
        kernel: Literal["imq", "rbf"] = "imq",
        **vae: Annotated[Any, OptionsOf(VAE)],
    ) -> None:
        super().__init__(spec, **vae)
        self.by_part = dict(zip(_PARTS, (information, total_correlation, dimension_kl), strict=True))
        self.off_diagonal, self.diagonal, self.mmd = off_diagonal, diagonal, mmd
        weights = {**self.by_part, "off_diagonal": off_diagonal, "diagonal": diagonal, "mmd": mmd}
        for name, value in weights.items():
            if not 0 <= value < math.inf:
                raise ConfigError(f"The weight {name} must be a finite number of at least 0, not {value}.")
        for name, choice, known in (
            ("sampling", sampling, ("stratified", "weighted")),
            ("covariance", covariance, ("means", "codes")),
            ("kernel", kernel, tuple(KERNELS)),
        ):
            if choice not in known:
                raise ConfigError(f"The option {name} is one of {', '.join(known)}, not '{choice}'.")
        if (self.divides or self.whitens) and not isinstance(self.q.family, DiagonalPosterior):
            raise ConfigError("Parts of the rate and covariances are known of the posterior gaussian only; choose it.")
        self.sampling, self.covariance, self.kernel = sampling, covariance, kernel
        self.register_buffer("examples", torch.zeros((), dtype=torch.int64))

    @property
    def divides(self) -> bool:
        """Whether the parts of the rate have weights of their own."""
        return any(weight != 1 for weight in self.by_part.values())

    @property
    def whitens(self) -> bool:
        """Whether the covariance is penalised."""
        return bool(self.off_diagonal or self.diagonal)

    def stages(self) -> Sequence[Stage]:
        """One, before which examples are counted if parts of the rate are weighted; and that of the sampler."""
        least = 4 if self.whitens else 2 if self.divides or self.mmd else 1
        count = self.count if self.divides else None
        own = self.begun(Stage("train", tuple(self.phases()), count, objective="elbo", least=least))
        return (own, *self.sampler_stage())

    def elbo(self, batch: Batch, clock: Clock) -> Terms:
        """The VAE's objective and the weighted regularisers, the batch mean, from one draw of z each."""
        q, z, bound = self.inferred(batch)
        loss = (bound.distortion + self.penalty(bound, clock)).mean()
        parts = {"distortion": bound.distortion, "rate": bound.rate}
        if self.divides:
            found = rate_parts(q, self.prior(batch), z, self.examples, self.sampling)._asdict()
            weighted = [(self.by_part[name] - 1) * part for name, part in found.items() if self.by_part[name] != 1]
            loss = loss + self.penalty.beta(clock) * sum(weighted[1:], weighted[0]).mean()
            parts |= found
        value, scalars = self.regularisers(q, z)
        parts = {name: part.detach() for name, part in parts.items()}
        scalars = {name: scalar.detach() for name, scalar in scalars.items()}
        return Terms(loss if value is None else loss + value, parts, self.penalty.scalars(clock) | scalars)

    def regularisers(self, q: Distribution, z: Tensor) -> tuple[Tensor | None, dict[str, Tensor]]:
        """``()`` the weighted sum of the covariance penalties and the MMD, None without any; and each by name."""
        found: dict[str, Tensor] = {}
        if self.whitens:
            found["off_diagonal"], found["diagonal"] = off_whiteness(q, self.covariance)
        if self.mmd:
            found["mmd"] = discrepancy(z, self.prior(), self.kernel)
        values = [getattr(self, name) * value for name, value in found.items()]
        return (sum(values[1:], values[0]) if values else None), found

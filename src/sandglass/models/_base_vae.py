"""What all variational autoencoders over one code share, whatever their objective."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Annotated, Any

import torch
from torch import Tensor, nn
from torch.distributions import Distribution

from sandglass.core import Batch, Batches, Bound, Latent, Spec, Stage
from sandglass.distributions.conditional import Network, Observation
from sandglass.distributions.evidence import importance_weighted
from sandglass.distributions.observed import log_prob
from sandglass.distributions.posterior import Inference
from sandglass.distributions.rate import rate, rate_per_dimension
from sandglass.errors import ConfigError
from sandglass.models._condition import Given, Sees
from sandglass.models._latent import sized
from sandglass.models._penalty import RatePenalty
from sandglass.models._prior import prior_of
from sandglass.models._variational import VariationalModel
from sandglass.registry import (
    LikelihoodOption,
    NetOption,
    OptionsOf,
    PosteriorOption,
    PriorOption,
    SamplerOption,
    ScheduleOption,
    resolve,
)


class BaseVAE(VariationalModel):
    """q(z|x, c), p(x|z, c) and p(z) over one code, without an objective; the options are those of :class:`VAE`."""

    p: Observation
    examples: Tensor
    defaults = staticmethod(sized)

    def __init__(
        self,
        spec: Spec,
        *,
        latent_dim: int | None = None,
        net: NetOption = "auto",
        likelihood: LikelihoodOption = "auto",
        posterior: PosteriorOption = "gaussian",
        prior: PriorOption = "standard",
        condition: str = "",
        sees: str = "auto",
        masked: bool = False,
        beta_schedule: ScheduleOption = "warm-up",
        sampler: SamplerOption = "prior",
        **penalty: Annotated[Any, OptionsOf(RatePenalty)],
    ) -> None:
        super().__init__()
        latent_dim = self.defaults(spec)["latent_dim"] if latent_dim is None else latent_dim
        if latent_dim < 1:
            raise ConfigError(f"A VAE needs latent_dim >= 1, not {latent_dim}.")
        family = resolve("posterior", posterior, latent_dim)
        self.spec, self.latents = spec, (Latent("z", (latent_dim,), family.support),)
        self.given, self.sees = Given(condition, spec), Sees(sees, spec)
        self.penalty = RatePenalty(beta_schedule=beta_schedule, **penalty)
        self.needs, self.masked = (*self.given.needs, *self.sees.needs), masked
        nets = resolve("net", net, spec=spec, own=self.defaults(spec)["net"])
        seen = self.sees.spec.shape
        trunk = Network.encoder(nets, seen, family.width, self.given.cond, masked=masked)
        self.q = Inference(trunk, family)
        head = resolve("likelihood", likelihood, spec, spec=spec)
        self.p = Observation(nets, latent_dim, spec, head, self.given.cond)
        self.pz = prior_of(prior, latent_dim, family.support, attached=True)
        if hasattr(self.pz, "attach"):
            if condition or masked:
                raise ConfigError("A prior of the posteriors of pseudo-inputs takes neither a condition nor masks.")
            if any(isinstance(m, nn.modules.batchnorm._BatchNorm) for m in self.q.modules()):
                raise ConfigError(
                    "A prior of the posteriors of pseudo-inputs cannot go with batch normalisation, whose statistics "
                    "would be of both examples and pseudo-inputs: choose another norm of the net."
                )
            self.pz.attach(self.q, self.sees.spec)
        self.density = resolve("sampler", sampler, latent_dim)
        if self.density is not None and family.support != "real":
            raise ConfigError(
                f"Samplers are for codes of real numbers, not {family.support} ones: the sampler is the prior."
            )
        if self.density is not None and condition:
            raise ConfigError(
                "A sampler is fitted to the codes of all examples together, so it cannot follow a condition: "
                f"with condition={condition} the sampler is the prior."
            )
        if self.penalty.free_bits:
            some_q = family(torch.zeros(1, family.width))
            self.penalty.check(self._bound_of(some_q, some_q.mean, torch.zeros(1)))

    def bound(self, batch: Batch) -> Bound:
        """The evidence bound from one draw of z per example, of the observed values if some are missing."""
        return self.inferred(batch)[2]

    def inferred(self, batch: Batch) -> tuple[Distribution, Tensor, Bound]:
        """q(z|x, c), a draw of z per example, and the bound from that draw."""
        q = self.posterior(batch)
        z = q.rsample()
        return q, z, self._bound_of(q, z, -log_prob(self.p(z, self.given(batch)), batch.x, batch.mask), batch)

    def _bound_of(self, q: Distribution, z: Tensor, distortion: Tensor, batch: Batch | None = None) -> Bound:
        p = self.prior(batch)
        each = rate_per_dimension(q, p)
        return Bound({"x": distortion}, {"z": rate(q, p, z, each)}, {} if each is None else {"z": each})

    def log_prob(self, batch: Batch, k: int = 1) -> Tensor:
        """``(B,)`` lower bound on log p(x) in nats from ``k`` importance-weighted draws; it rises to log p(x) with k.

        Missing values are left out. Burda, Grosse and Salakhutdinov 2016, "Importance Weighted
        Autoencoders" (arXiv 1509.00519). Each example is encoded once, and the draws are decoded in pieces, so memory
        does not grow with k.
        """
        q, c = self.posterior(batch), self.given(batch)
        return importance_weighted(q, self.prior(), self.p, batch.x, k, batch.mask, c=c, size=self.p.size)

    def posterior(self, batch: Batch) -> Distribution:
        """q(z|x, c) over ``(B, latent_dim)``; missing values of x are 0."""
        return self.q(self.sees(batch), self.given(batch), batch.mask if self.masked else None)

    def prior(self, given: Batch | None = None) -> Distribution:
        """p over codes ``(latent_dim,)``; while it is trained, of examples as if they were not among its own."""
        if self.training and given is not None and given.index is not None and hasattr(self.pz, "without"):
            p: Distribution = self.pz.without(given.index)
            return p
        return super().prior(given)

    def between(self, a: Tensor, b: Tensor, t: Tensor) -> Tensor:
        """``(B, T, latent_dim)`` codes between codes, where codes lie."""
        return self.q.family.between(a, b, t)

    def draw(self, n: int, given: Batch | None = None) -> Tensor:
        """``(n, latent_dim)`` draws from the sampler, by default the prior."""
        return self.prior(given).sample((n,)) if self.density is None else self.density.sample(n)

    def stages(self) -> Sequence[Stage]:
        """One of its phases; and that of the sampler, if it is not the prior."""
        return (*map(self.begun, super().stages()), *self.sampler_stage())

    def begun(self, stage: Stage) -> Stage:
        """The stage, before which the prior is set to training examples if it begins with any."""
        if not hasattr(self.pz, "begin"):
            return stage

        def fit(train: Batches, validation: Batches | None) -> Mapping[str, float]:
            found = dict(stage.fit(train, validation)) if stage.fit is not None else {}
            return {**found, **self.pz.begin((self.sees(batch), batch.index) for batch in train())}

        return replace(stage, fit=fit)

    def count(self, train: Batches, validation: Batches | None) -> Mapping[str, float]:
        """Stores the number of training examples, for objectives that need it; a fit of a stage."""
        n = sum(len(batch) for batch in train())
        self.examples.fill_(n)
        return {"examples": float(n)}

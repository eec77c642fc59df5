"""The variational autoencoder of several modalities, any of which may be absent."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Annotated, Any, Literal

import torch
from torch import Tensor, nn
from torch.distributions import Distribution, Independent

from sandglass.core import Batch, Bound, Clock, FigureKind, Latent, Spec, Terms, total
from sandglass.distributions.evidence import importance_weighted
from sandglass.errors import CapabilityError, ConfigError
from sandglass.models._condition import Given
from sandglass.models._experts import Expert, Form, Subsets
from sandglass.models._fusion import Draws, Experts, Fusion, Posterior
from sandglass.models._modalities import (
    LABELS,
    Modality,
    Together,
    View,
    each_of,
    named,
    spec_of,
    variables,
    without,
)
from sandglass.models._penalty import RatePenalty
from sandglass.models._variational import VariationalModel
from sandglass.registry import LikelihoodOption, NetOption, OptionsOf, register, resolve

PRIVATE = 8
"""Size of a private latent where none is given."""

ALPHA = 0.1
"""Weight of the pull of a joint encoder where none is given."""


@register("jmvae", posterior="joint", terms="joint", private=(0,), latent_dim=16)
@register("mopoe-vae", posterior="mixture-of-products", terms="joint", private=(0,), latent_dim=16)
@register("mmvae", posterior="mixture", draws=8, terms="joint", private=(0,), latent_dim=16)
@register("mvae", terms="subsets", random_subsets=1, private=(0,), latent_dim=16)
@register("joint-vae")
class JointVAE(VariationalModel):
    """Multimodal variational autoencoder: x and what comes with it, from a shared latent and a private one each.

    With modalities x_1, ..., x_M the model is ``p(z) prod_m p(w_m) p(x_m | z, w_m)``, all priors standard normal, and
    the posterior ``q(z | x) prod_m q(w_m | x_m)``: the shared and private latents of Wang, Yan, Lee and Livescu 2016,
    "Deep Variational Canonical Correlation Analysis" (VCCA-private, arXiv 1610.03454). q(z|x) is the product of the
    prior and of one Gaussian expert for each modality that is present, so any of them may be absent: Wu and Goodman
    2018, "Multimodal Generative Models for Scalable Weakly-Supervised Learning" (MVAE, arXiv 1802.05335). An absent
    modality has no part in the product, the distortions, the rates or the gradients.

    ``posterior`` makes another q(z|x) of what is present. ``mixture``: the mean of the posteriors from each modality
    (Shi, Siddharth, Paige and Torr 2019, "Variational Mixture-of-Experts Autoencoders for Multi-Modal Deep Generative
    Models", MMVAE, arXiv 1911.03393). ``mixture-of-products``: the mean of the products over all subsets (Sutter,
    Daunhawer and Vogt 2021, "Generalized Multimodal ELBO", MoPoE, arXiv 2105.02470). Bounds of mixtures are stratified:
    every component is decoded. ``joint``: an encoder of its own for examples that have all modalities, to which the
    others are pulled by ``alpha sum_m KL(q(z|x) || q(z|x_m))`` (Suzuki, Nakayama and Matsuo 2016, "Joint Multimodal
    Learning with Deep Generative Models", JMVAE-kl, arXiv 1611.01891); examples that lack some have the product.

    The bound of all that is present leaves the experts of a product untrained on their own. ``terms`` adds, for each
    modality m of an example that has several: with ``subsets`` the bound on log p(x_m) from x_m alone (MVAE); with
    ``cross`` the bound on the log-probability of all that is present whose shared latent is inferred from x_m alone
    (Lee and Pavlovic 2021, "Private-Shared Disentangled Multimodal VAE for Learning of Latent Representations", DMVAE,
    arXiv 2012.13024). The objective of an example is the mean of its bounds, negated, in nats.

    Args:
        spec: the data.
        modalities: what is modelled beside x: labels, and names of companions; when empty the labels of data with
            classes, else all of its companions.
        latent_dim: size of the shared latent.
        private: sizes of the private latents, x first and then as the modalities, or one for all; when empty 8 each,
            and 0 for labels.
        posterior: of the shared latent: ``product``, ``mixture``, ``mixture-of-products`` or ``joint``.
        terms: which bounds are averaged: ``joint`` (all that is present, alone), ``subsets`` or ``cross``.
        random_subsets: how many further bounds of ``terms`` are averaged, each from a random subset of two or more
            modalities, but not all; an example of fewer than three has none.
        draws: of the codes of each component; more than one make every bound an importance-weighted one, with its own
            gradient: Burda, Grosse and Salakhutdinov 2016 (arXiv 1509.00519).
        alpha: weight of the pull of the posterior ``joint``; no other has one.
        weights: of the distortions in the objective, x first. When empty, the variables of the largest modality over
            its own, a label being one variable, so that none is small beside another, as Shi et al. 2019 scale
            likelihoods. With 1 (for all) the objective is a bound, and labels weigh little.
        net: network family of x, and of companions of the same layout; the others' is auto. Auto is conv for images and
            mlp for rows.
        likelihood: p(x|z, w); auto as for the VAE. That of a companion is always auto.
        penalty: what the objective makes of the rate.

    Raises:
        ConfigError: data without a second modality, or options that do not fit it or each other.

    Example:
        >>> _ = torch.manual_seed(0)
        >>> spec = Spec((1, 8, 8), "unit", classes=3, given={"tag": Spec((4,))})
        >>> model = JointVAE(spec, modalities=("labels", "tag"), latent_dim=2, private=(3, 0, 1), net="mlp")
        >>> [(latent.name, latent.shape) for latent in model.latents]
        [('shared', (2,)), ('x', (3,)), ('tag', (1,))]
        >>> some = Batch(torch.rand(2, 1, 8, 8), torch.tensor([2, -1]))  # no tag, and the second has no label
        >>> full = model.complete(some)
        >>> full.y.shape, full.given["tag"].shape, model.sample(5, Batch(y=torch.tensor([0, 0, 1, 1, -1]))).shape
        (torch.Size([2]), torch.Size([2, 4]), torch.Size([5, 1, 8, 8]))
    """

    provides = (*VariationalModel.provides, "translate")

    def __init__(
        self,
        spec: Spec,
        *,
        modalities: Sequence[str] = (),
        latent_dim: int = 8,
        private: Sequence[int] = (),
        posterior: Form = "product",
        terms: Literal["joint", "subsets", "cross"] = "cross",
        random_subsets: int = 0,
        draws: int = 1,
        alpha: float = ALPHA,
        weights: Sequence[float] = (),
        net: NetOption = "auto",
        likelihood: LikelihoodOption = "auto",
        **penalty: Annotated[Any, OptionsOf(RatePenalty)],
    ) -> None:
        super().__init__()
        if latent_dim < 1:
            raise ConfigError(f"A joint VAE needs latent_dim >= 1, not {latent_dim}.")
        if terms not in ("joint", "subsets", "cross"):
            raise ConfigError(f"The terms are one of joint, subsets, cross, not '{terms}'.")
        self.spec, self.terms, self.given, self.penalty = spec, terms, Given("", spec), RatePenalty(**penalty)
        names = ("x", *named(modalities, spec))
        self.form, self.draws, self.random_subsets, self.alpha = posterior, draws, random_subsets, alpha
        self._check()
        specs = {name: spec_of(name, spec) for name in names}
        sizes = each_of("private", private, [0 if name == LABELS else PRIVATE for name in names])
        counts = [variables(its) for its in specs.values()]
        self.weights = dict(zip(names, each_of("weights", weights, [max(counts) / n for n in counts]), strict=True))
        if sum(self.weights.values()) == 0:
            raise ConfigError("At least one of the weights must be above 0.")
        own = [Latent(name, (size,)) for name, size in zip(names, sizes, strict=True) if size]
        self.latents = (Latent("shared", (latent_dim,)), *own)
        self.modelled = tuple(LABELS if name == LABELS else f"{name}:{s.layout}" for name, s in specs.items())[1:]
        self.needs = self.modelled
        if LABELS in names:
            self.provides = (*self.provides, "classify")
        nets, parts, start = resolve("net", net, spec=spec), [], latent_dim
        families = [nets if its.layout == spec.layout else resolve("net", "auto", spec=its) for its in specs.values()]
        for (name, its), family, size in zip(specs.items(), families, sizes, strict=True):
            head = resolve("likelihood", likelihood if name == "x" else "auto", its, spec=its)
            parts.append(Modality(name, its, family, head, range(latent_dim), range(start, start + size)))
            start += size
        self.parts = nn.ModuleList(parts)
        self.p = parts[0].p
        self.pz = resolve("prior", "standard", start)
        self.fusion = Fusion(posterior, families, parts, latent_dim)
        self.subsets = Subsets(len(names))

    def _check(self) -> None:
        """Refuses options that do not go together."""
        mixture = self.form.startswith("mixture")
        for name, value, least in (("random_subsets", self.random_subsets, 0), ("draws", self.draws, 1)):
            if value < least:
                raise ConfigError(f"The option {name} must be at least {least}, not {value}.")
        if not 0 <= self.alpha < math.inf:
            raise ConfigError(f"The option alpha must be finite and at least 0, not {self.alpha}.")
        if self.alpha != ALPHA and self.form != "joint":
            raise ConfigError(f"alpha is the weight of the pull of posterior=joint; with {self.form} leave it out.")
        if self.random_subsets and (self.terms == "joint" or mixture):
            raise ConfigError("random_subsets needs terms=subsets or terms=cross, and a posterior that is no mixture.")
        if self.penalty.free_bits and (self.draws > 1 or mixture):
            raise ConfigError("free_bits needs one draw, and a posterior that is no mixture: product or joint.")
        if self.penalty.capacity.value and self.draws > 1:
            raise ConfigError("A capacity needs the rate of one draw: leave out one of capacity and draws.")

    @property
    def modalities(self) -> list[Modality]:
        """x and what is modelled with it."""
        return list(self.parts)  # type: ignore[arg-type]

    @property
    def kind(self) -> FigureKind:  # type: ignore[override]
        """A probability where all of its likelihoods give one; else what is neither takes over, then a density."""
        found = {m.p.kind for m in self.modalities}
        return next((kind for kind in ("cost", "cross-entropy", "density") if kind in found), "mass")

    def modality(self, name: str) -> Modality:
        """That of a name.

        Raises:
            ConfigError: there is none.
        """
        for found in self.modalities:
            if found.name == name:
                return found
        raise ConfigError(f"This model has no modality '{name}'; it has: {', '.join(self.weights)}.")

    def elbo(self, batch: Batch, clock: Clock) -> Terms:
        """The mean over the batch, and over an example's bounds, of ``distortion + beta * rate``."""
        views, experts = self._views(batch)
        q = self.fusion(views, experts)
        loss, bound = self._loss(q, views, clock)
        parts, count = {"distortion": bound.distortion, "rate": bound.rate}, torch.ones_like(bound.rate)
        parts |= {f"distortion_{k}": v for k, v in bound.distortions.items()}
        parts |= {f"rate_{k}": v for k, v in bound.rates.items()}
        for name, told in self._others(torch.stack([view.present for view in views])):
            used, (seen, their) = told.any(0), self._told(views, experts, told)
            other, its_bound = self._loss(self.fusion(seen, their, told), seen, clock)
            loss, count = loss + torch.where(used, other, 0), count + used
            parts[name] = -its_bound.elbo.masked_fill(~used, 0)
        loss = loss / count
        if self.form == "joint":
            parts["pull"] = self.fusion.pull(q, views, experts)
            loss = loss + self.alpha * parts["pull"]
        parts = {k: v.detach() for k, v in parts.items()}
        return Terms(loss.mean(), parts, self.penalty.scalars(clock))

    def _others(self, present: Tensor) -> Iterator[tuple[str, Tensor]]:
        """Names of further bounds, and the modalities ``(M, B)`` that each is from; none where it is not taken."""
        several = present.sum(0) > 1
        for m, part in enumerate(self.modalities if self.terms != "joint" else ()):
            only = torch.zeros_like(present)
            only[m] = several & present[m]
            yield f"from_{part.name}", only
        # Of two modalities no subset has several, but not all.
        for k in range(self.random_subsets if len(self.modalities) > 2 else 0):
            yield f"from_subset_{k + 1}", self.subsets(present)

    def _told(self, views: Sequence[View], experts: Experts, told: Tensor) -> tuple[Sequence[View], Experts]:
        """What a bound from some modalities is of: with ``subsets`` of nothing else."""
        if self.terms != "subsets":
            return views, experts
        seen = [replace(view, present=t) for view, t in zip(views, told, strict=True)]
        return seen, [(e, own.where(t)) for (e, own), t in zip(experts, told, strict=True)]

    def _loss(self, q: Posterior, views: Sequence[View], clock: Clock) -> tuple[Tensor, Bound]:
        """``(B,)``, the negative weighted bound, importance-weighted where there are several draws; and the bound."""
        drawn = Draws.of(q, self.modalities, views, self.draws)
        bound = drawn.bound(q, self.pz(), self.latents)
        if self.draws == 1:
            return self._objective(bound, clock), bound
        distortion = total({k: self.weights[k] * d for k, d in drawn.distortions.items()})
        log_ratio = self.pz().log_prob(drawn.codes) - q.log_prob(drawn.codes)
        log_w = self.penalty.beta(clock) * log_ratio - distortion
        return -(drawn.weight * (log_w.logsumexp(0) - math.log(self.draws))).sum(0), bound

    def _objective(self, bound: Bound, clock: Clock) -> Tensor:
        """``(B,)`` the weighted distortions and what the penalty makes of the rate."""
        return total({k: self.weights[k] * d for k, d in bound.distortions.items()}) + self.penalty(bound, clock)

    def _views(self, batch: Batch) -> tuple[list[View], list[tuple[Expert, Expert]]]:
        """Of each modality, what the batch holds of it and its experts."""
        views = [m.read(batch, self.dtype) for m in self.modalities]
        return views, [m.experts(view) for m, view in zip(self.modalities, views, strict=True)]

    def bound(self, batch: Batch) -> Bound:
        """The evidence bound of all that is present, from one draw of each component; what is absent adds 0."""
        views, experts = self._views(batch)
        q = self.fusion(views, experts)
        return Draws.of(q, self.modalities, views, 1).bound(q, self.pz(), self.latents)

    def log_prob(self, batch: Batch, k: int = 1) -> Tensor:
        """``(B,)`` lower bound on log p of all that is present, in nats, from ``k`` importance-weighted draws.

        It rises to log p with k: Burda, Grosse and Salakhutdinov 2016, "Importance Weighted Autoencoders" (arXiv
        1509.00519). What is absent is integrated out exactly, so ``replace(batch, y=None)`` gives log p(x).
        """
        views, experts = self._views(batch)
        if batch.mask is not None and not isinstance(self.p(self.prior().sample((1,))), Independent):
            raise CapabilityError("This likelihood does not support missing values; impute them or choose another one.")
        x = torch.cat([view.value.flatten(1) for view in views], 1)
        seen = torch.cat(
            [(view.seen & view.present.view(-1, *[1] * (view.value.dim() - 1))).flatten(1) for view in views], 1
        )
        size = sum(m.p.size for m in self.modalities)
        return importance_weighted(self.fusion(views, experts), self.prior(), self._together, x, k, seen, size=size)

    def _together(self, code: Tensor) -> Distribution:
        """p of all modalities, flattened and side by side, given codes ``(n, D)``."""
        return Independent(Together([m.p(code) for m in self.modalities]), 1, validate_args=False)

    def posterior(self, batch: Batch) -> Distribution:
        """q over the codes ``(B, D)`` given all that is present; a latent that nothing tells of has its prior."""
        return self.fusion(*self._views(batch))

    def draw(self, n: int, given: Batch | None = None) -> Tensor:
        """``(n, D)`` codes: from the posterior given labels and companions, without any from the prior.

        Raises:
            ConfigError: another number of them.
        """
        if given is None:
            return self.prior().sample((n,))
        if len(given) != n:
            raise ConfigError(f"{n} examples were asked for, and {len(given)} conditions were given.")
        return self.infer(without(given, "x"))

    def complete(self, batch: Batch, draws: int = 0) -> Batch:
        """The examples with every modality filled in where it is absent, and x where it is masked.

        Args:
            batch: what is known of the examples.
            draws: 0 fills in the mean given the posterior mean, and of a class the likeliest; n draws n completions of
                all examples, one after the other.
        """
        if draws:
            batch = batch.map(lambda t: t.repeat(draws, *[1] * (t.dim() - 1)))
        code = self.infer(batch) if draws else self.encode(batch)
        for m in self.modalities:
            batch = m.filled(batch, m.p(code), draws > 0)
        return batch

    def classify(self, batch: Batch) -> Tensor:
        """``(B, K)`` probabilities of the classes given x and the companions that are present, at the posterior mean.

        Raises:
            CapabilityError: a model whose modalities the labels are not.
        """
        if LABELS not in self.weights:
            raise CapabilityError("This model has no labels among its modalities; classify needs them.")
        return self.translate(batch, LABELS)

    def translate(self, batch: Batch, to: str = "x") -> Tensor:
        """``(B, *shape)`` means of the modality ``to`` given all others that are present; of labels, probabilities.

        Raises:
            ConfigError: there is no such modality.
        """
        return self.modality(to).p(self.encode(without(batch, to))).mean

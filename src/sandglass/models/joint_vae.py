"""The variational autoencoder of several modalities, any of which may be absent."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated, Any, Literal

import torch
from torch import Tensor, nn
from torch.distributions import Distribution, Independent, Normal

from sandglass.core import Batch, Bound, Clock, FigureKind, Latent, Spec, Terms, total
from sandglass.distributions.evidence import importance_weighted
from sandglass.distributions.rate import rate_per_dimension
from sandglass.errors import CapabilityError, ConfigError
from sandglass.models._condition import Given
from sandglass.models._modalities import (
    LABELS,
    Expert,
    Modality,
    Together,
    View,
    named,
    product_of_experts,
    spec_of,
    variables,
)
from sandglass.models._penalty import RatePenalty
from sandglass.models._variational import VariationalModel
from sandglass.registry import LikelihoodOption, NetOption, OptionsOf, register, resolve

PRIVATE = 8
"""Size of a private latent where none is given."""


@register("joint-vae")
class JointVAE(VariationalModel):
    """Multimodal variational autoencoder: x and what comes with it, from a shared latent and a private one each.

    With modalities x_1, ..., x_M the model is ``p(z) prod_m p(w_m) p(x_m | z, w_m)``, all priors standard normal, and
    the posterior ``q(z | x) prod_m q(w_m | x_m)``: the shared and private latents of Wang, Yan, Lee and Livescu 2016,
    "Deep Variational Canonical Correlation Analysis" (VCCA-private, arXiv 1610.03454). q(z|x) is the product of the
    prior and of one Gaussian expert for each modality that is present, so any of them may be absent: Wu and Goodman
    2018, "Multimodal Generative Models for Scalable Weakly-Supervised Learning" (MVAE, arXiv 1802.05335). An absent
    modality has no part in the product, the distortions, the rates or the gradients.

    The bound of all that is present leaves the experts untrained on their own. ``terms`` adds, for each modality m of
    an example that has several: with ``subsets`` the bound on log p(x_m) from x_m alone (MVAE); with ``cross`` the
    bound on the log-probability of all that is present whose shared latent is inferred from x_m alone (Lee and Pavlovic
    2021, "Private-Shared Disentangled Multimodal VAE for Learning of Latent Representations", DMVAE, arXiv 2012.13024).
    The objective of an example is the mean of its bounds, negated, in nats.

    Args:
        spec: the data.
        modalities: what is modelled beside x: labels, and names of companions; when empty the labels of data with
            classes, else all of its companions.
        latent_dim: size of the shared latent.
        private: sizes of the private latents, x first and then as the modalities; when empty 8 each, and 0 for labels.
        terms: which bounds are averaged: ``joint`` (all that is present, alone), ``subsets`` or ``cross``.
        weights: of the distortions in the objective, x first. When empty, the variables of the largest modality over
            its own, a label being one variable, so that none is small beside another: Shi, Siddharth, Paige and Torr
            2019, "Variational Mixture-of-Experts Autoencoders for Multi-Modal Deep Generative Models" (arXiv
            1911.03393), scale likelihoods in this way. With 1 each the objective is a bound, and labels weigh little.
        net: network family of x, and of companions of the same layout; the others' is auto. Auto is conv for images and
            mlp for rows.
        likelihood: p(x|z, w); auto as for the VAE. That of a companion is always auto.
        penalty: what the objective makes of the rate.

    Raises:
        ConfigError: data without a second modality, or options that do not fit it.

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
        terms: Literal["joint", "subsets", "cross"] = "cross",
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
        specs = {name: spec_of(name, spec) for name in names}
        sizes = _each("private", private, [0 if name == LABELS else PRIVATE for name in names])
        counts = [variables(its) for its in specs.values()]
        self.weights = dict(zip(names, _each("weights", weights, [max(counts) / n for n in counts]), strict=True))
        if sum(self.weights.values()) == 0:
            raise ConfigError("At least one of the weights must be above 0.")
        own = [Latent(name, (size,)) for name, size in zip(names, sizes, strict=True) if size]
        self.latents = (Latent("shared", (latent_dim,)), *own)
        self.modelled = tuple(LABELS if name == LABELS else f"{name}:{s.layout}" for name, s in specs.items())[1:]
        self.needs = self.modelled
        if LABELS in names:
            self.provides = (*self.provides, "classify")
        nets, parts, start = resolve("net", net, spec=spec), [], latent_dim
        for (name, its), size in zip(specs.items(), sizes, strict=True):
            family = nets if its.layout == spec.layout else resolve("net", "auto", spec=its)
            head = resolve("likelihood", likelihood if name == "x" else "auto", its, spec=its)
            parts.append(Modality(name, its, family, head, range(latent_dim), range(start, start + size)))
            start += size
        self.parts = nn.ModuleList(parts)
        self.p = parts[0].p
        self.pz = resolve("prior", "standard", start)

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
        """The mean over the batch, and over an example's bounds, of ``distortion + beta * rate``; one draw each."""
        views, experts = self._views(batch)
        present = [view.present for view in views]
        several = torch.stack(present).sum(0) > 1
        bound = self._bound(views, experts, present)
        loss, count = self._objective(bound, clock), torch.ones_like(bound.rate)
        parts = {"distortion": bound.distortion, "rate": bound.rate}
        parts |= {f"distortion_{k}": v for k, v in bound.distortions.items()}
        parts |= {f"rate_{k}": v for k, v in bound.rates.items()}
        for m, part in enumerate(self.modalities if self.terms != "joint" else ()):
            used = several & present[m]
            from_one = self._bound(views, experts, present, m)
            loss = loss + torch.where(used, self._objective(from_one, clock), 0)
            count = count + used
            parts[f"from_{part.name}"] = -from_one.elbo.masked_fill(~used, 0)
        parts = {k: v.detach() for k, v in parts.items()}
        return Terms((loss / count).mean(), parts, self.penalty.scalars(clock))

    def _objective(self, bound: Bound, clock: Clock) -> Tensor:
        """``(B,)`` the weighted distortions and what the penalty makes of the rate."""
        return total({k: self.weights[k] * d for k, d in bound.distortions.items()}) + self.penalty(bound, clock)

    def _views(self, batch: Batch) -> tuple[list[View], list[tuple[Expert, Expert]]]:
        """Of each modality, what the batch holds of it and its experts."""
        views = [m.read(batch, self.dtype) for m in self.modalities]
        return views, [m.experts(view) for m, view in zip(self.modalities, views, strict=True)]

    def _posterior(self, experts: Sequence[tuple[Expert, Expert]], only: int | None = None) -> Independent:
        """q over the codes ``(B, D)``; with ``only`` the shared latent is inferred from that modality alone."""
        shared = [e for m, (e, _) in enumerate(experts) if only is None or m == only]
        q = [product_of_experts(shared), *(product_of_experts([own]) for _, own in experts)]
        mean, scale = torch.cat([p.loc for p in q], -1), torch.cat([p.scale for p in q], -1)
        return Independent(Normal(mean, scale, validate_args=False), 1, validate_args=False)

    def _bound(
        self,
        views: Sequence[View],
        experts: Sequence[tuple[Expert, Expert]],
        present: Sequence[Tensor],
        only: int | None = None,
    ) -> Bound:
        """The bound from one draw an example; ``only`` as the terms have it: the shared latent from one modality."""
        if only is not None and self.terms == "subsets":
            present = [p if m == only else torch.zeros_like(p) for m, p in enumerate(present)]
            views = [replace(view, present=p) for view, p in zip(views, present, strict=True)]
            experts = [(e.where(p), own.where(p)) for (e, own), p in zip(experts, present, strict=True)]
        q = self._posterior(experts, only)
        code = q.rsample()
        distortions = {m.name: m.distortion(code, view) for m, view in zip(self.modalities, views, strict=True)}
        each = rate_per_dimension(q, self.pz())
        assert each is not None  # both are independent normals
        by_latent = self.split_code(each)
        return Bound(distortions, {k: v.sum(-1) for k, v in by_latent.items()}, by_latent)

    def bound(self, batch: Batch) -> Bound:
        """The evidence bound of all that is present, from one draw; what is absent has distortion and rate 0."""
        views, experts = self._views(batch)
        return self._bound(views, experts, [view.present for view in views])

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
        return importance_weighted(self._posterior(experts), self.prior(), self._together, x, k, seen, size=size)

    def _together(self, code: Tensor) -> Distribution:
        """p of all modalities, flattened and side by side, given codes ``(n, D)``."""
        return Independent(Together([m.p(code) for m in self.modalities]), 1, validate_args=False)

    def posterior(self, batch: Batch) -> Distribution:
        """q over the codes ``(B, D)`` given all that is present; a latent that nothing tells of has its prior."""
        return self._posterior(self._views(batch)[1])

    def draw(self, n: int, given: Batch | None = None) -> Tensor:
        """``(n, D)`` codes: from the posterior given labels and companions, without any from the prior.

        Raises:
            ConfigError: another number of them.
        """
        if given is None:
            return self.prior().sample((n,))
        if len(given) != n:
            raise ConfigError(f"{n} examples were asked for, and {len(given)} conditions were given.")
        return self.infer(_without(given, "x"))

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
        return self.modality(to).p(self.encode(_without(batch, to))).mean


def _without(batch: Batch, name: str) -> Batch:
    """The batch, that modality being absent."""
    device = next(t.device for t in (batch.x, batch.y, batch.index, *batch.given.values()) if t is not None)
    gone = torch.ones(len(batch), dtype=torch.bool, device=device)
    return replace(batch, absent={**batch.absent, name: gone})


def _each(what: str, given: Sequence[Any], default: Sequence[Any]) -> list[Any]:
    """A number for each modality.

    Raises:
        ConfigError: another number of them, or one that is negative or not finite.
    """
    found = list(given) or list(default)
    if len(found) != len(default) or not all(0 <= v < math.inf for v in found):
        raise ConfigError(
            f"The option {what} has a number from 0 on for each of {len(default)} modalities, not {found}."
        )
    return found

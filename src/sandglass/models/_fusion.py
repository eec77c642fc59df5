"""The posterior of several modalities by its form, and bounds from draws of its components."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, get_args

import torch
from torch import Tensor, nn
from torch.distributions import Independent, Normal, kl_divergence

from sandglass.core import Bound, Latent, total
from sandglass.distributions.gaussian_mixture import GaussianMixture, rates, stratified
from sandglass.errors import ConfigError
from sandglass.models._experts import MOST, Expert, Form, JointEncoder, mixed, product_of_experts, weights_of
from sandglass.models._modalities import Modality, View
from sandglass.nets.net import Net

Posterior = Independent | GaussianMixture
"""A Gaussian, or a mixture of some."""

Experts = Sequence[tuple[Expert, Expert]]
"""Of each modality, what it says of the shared latent and of its private one."""


class Fusion(nn.Module):
    """q over the shared latent and the private ones, from the experts of the modalities that are present.

    Args:
        form: of the shared latent's.
        nets: of each modality, for an encoder of them all.
        parts: the modalities.
        dim: size of the shared latent.

    Raises:
        ConfigError: an unknown form, or too many modalities for it.
    """

    def __init__(self, form: Form, nets: Sequence[Net], parts: Sequence[Modality], dim: int) -> None:
        super().__init__()
        if form not in get_args(Form):
            raise ConfigError(f"The posterior is one of {', '.join(get_args(Form))}, not '{form}'.")
        if form == "mixture-of-products" and len(parts) > MOST:
            raise ConfigError(f"A mixture of products has at most {MOST} modalities, not {len(parts)}.")
        self.dim, self.sets = dim, mixed(form, len(parts))
        self.whole = JointEncoder(nets, [part.spec for part in parts], dim) if form == "joint" else None

    def forward(self, views: Sequence[View], experts: Experts, told: Tensor | None = None) -> Posterior:
        """q over the codes ``(B, D)``; with ``told`` the shared latent has the product of those experts, ``(M, B)``."""
        each, sets = [shared for shared, _ in experts], self.sets
        if told is not None:
            each, sets = [e.where(t) for e, t in zip(each, told, strict=True)], []
        elif self.whole is not None:
            every = all_present(views)
            each = [e.where(~every) for e in each]
            each.append(self.whole([view.value for view in views]).where(every))
        own = [product_of_experts([private]) for _, private in experts]
        found = []
        for chosen in sets or [tuple(range(len(each)))]:
            q = [product_of_experts([each[m] for m in chosen]), *own]
            found.append((torch.cat([p.loc for p in q], -1), torch.cat([p.scale for p in q], -1)))
        if not sets:
            return Independent(Normal(*found[0], validate_args=False), 1, validate_args=False)
        loc, scale = (torch.stack(t, 1) for t in zip(*found, strict=True))
        return GaussianMixture(loc, scale, weights_of(sets, [view.present for view in views]).to(loc.dtype))

    def pull(self, q: Posterior, views: Sequence[View], experts: Experts) -> Tensor:
        """``(B,)``, the sum over modalities of ``KL(q(z|x) || q(z|x_m))`` where all of them are present, else 0."""
        assert isinstance(q, Independent)
        loc, scale = (t[:, : self.dim] for t in (q.base_dist.loc, q.base_dist.scale))
        shared = Normal(loc, scale, validate_args=False)
        each = {str(m): kl_divergence(shared, product_of_experts([e])).sum(-1) for m, (e, _) in enumerate(experts)}
        return total(each).masked_fill(~all_present(views), 0)


class Draws(NamedTuple):
    """Codes of each component of a posterior, and what they are worth.

    Args:
        codes: ``(k, S, B, D)``.
        weight: ``(S, B)`` of the components.
        distortions: ``(k, S, B)`` by modality.
    """

    codes: Tensor
    weight: Tensor
    distortions: dict[str, Tensor]

    @classmethod
    def of(cls, q: Posterior, modalities: Sequence[Modality], views: Sequence[View], draws: int) -> Draws:
        """As many draws of each component, and minus log p of what the views have given each code."""
        codes, weight = stratified(q, draws)
        each = {m.name: m.distortion(codes.flatten(0, 1), view) for m, view in zip(modalities, views, strict=True)}
        return cls(codes, weight, {name: d.unflatten(0, codes.shape[:2]) for name, d in each.items()})

    def mean(self, of: Tensor) -> Tensor:
        """``(B,)``, the expectation of ``(k, S, B)`` over draws and components."""
        return (self.weight * of.mean(0)).sum(0)

    def bound(self, q: Posterior, p: Independent, latents: Sequence[Latent]) -> Bound:
        """The evidence bound by its parts; the first of the latents is the shared one."""
        distortions = {name: self.mean(d) for name, d in self.distortions.items()}
        mixture, each = rates(q, p, self.codes, latents[0].size)
        own = latents if mixture is None else latents[1:]
        by_latent = dict(zip([k.name for k in own], each.split([k.size for k in own], -1), strict=True))
        summed = {name: v.sum(-1) for name, v in by_latent.items()}
        return Bound(distortions, summed if mixture is None else {latents[0].name: mixture, **summed}, by_latent)


def all_present(views: Sequence[View]) -> Tensor:
    """``(B,)``, True for examples that have every modality."""
    return torch.stack([view.present for view in views]).all(0)

"""The semi-supervised variational autoencoder: a class and a code, of which the class is seldom known."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated, Any

import torch
from torch import Tensor
from torch.distributions import Distribution

from sandglass.core import Batch, Bound, Clock, FigureKind, Latent, Spec, Stage, Terms
from sandglass.distributions.by_class import ByClass, WithClass
from sandglass.distributions.conditional import Network
from sandglass.errors import ConfigError
from sandglass.models._condition import Given, one_hot
from sandglass.models._latent import sized
from sandglass.models._penalty import RatePenalty
from sandglass.models._variational import VariationalModel
from sandglass.models.vae import VAE
from sandglass.registry import (
    LikelihoodOption,
    NetOption,
    OptionsOf,
    PosteriorOption,
    PriorOption,
    ScheduleOption,
    register,
    resolve,
)

SHARE = 0.25
"""Of a batch that is examples with a known label, where only some have one."""


@register("m2")
class M2(VariationalModel):
    """Semi-supervised VAE: p(y) p(z) p(x|y, z) with a classifier q(y|x), trained with few labels or with all.

    Kingma, Rezende, Mohamed and Welling 2014, "Semi-Supervised Learning with Deep Generative Models" (arXiv 1406.5298),
    whose M2 it is: a VAE conditioned on the class, ``log p(x, y) >= log p(y) + L(x|y)``, and a classifier. An example
    with a known label contributes that bound; one without (y = -1) the sum over all K classes, ``log p(x) >= sum_y
    q(y|x) (log p(y) + L(x|y)) + H(q(y|x))``. Nothing is sampled of y. Classes are equally likely in p(y).

    The bound of labelled examples does not train q(y|x), so ``-alpha log q(y|x)`` is added to theirs. In the paper
    alpha is 0.1 times the number of all examples for each labelled one. Here labelled examples make a share of every
    batch (``labelled_share`` of the training, a quarter unless it is given), so alpha is of each of them.

    A code is z and then y, as one of K corners of a simplex; of an example without a label it has the probabilities.

    Args:
        spec: the data, with classes.
        latent_dim: size of z; by default as that of the VAE.
        alpha: weight of the classification loss of an example with a label.
        net: network family of encoder, decoder and classifier; auto is resnet for images and mlp for rows.
        likelihood: p(x|y, z); auto as for the VAE.
        posterior: family of q(z|x, y).
        prior: p(z), where the codes of the posterior lie.
        sees: input of encoder and classifier: ``"x"`` or a companion; auto is the damaged copy if there is one.
        masked: whether encoder and classifier also get the mask of missing values, which are 0 in their input.
        beta_schedule: schedule of beta; the rate of y has the weight 1 throughout.
        penalty: on the rate of z, in the objective.

    Raises:
        ConfigError: data without classes, or a value that makes no sense.

    Example:
        >>> _ = torch.manual_seed(0)
        >>> model = M2(Spec((1, 8, 8), "unit", classes=3), latent_dim=2, net="mlp", likelihood="bernoulli")
        >>> batch = Batch(torch.rand(2, 1, 8, 8), torch.tensor([2, -1]))
        >>> model.classify(batch).shape, round(model.bound(batch).rates["y"][0].exp().item(), 3)  # one class of three
        (torch.Size([2, 3]), 3.0)
        >>> model.sample(4, Batch(y=torch.tensor([0, 0, 1, -1]))).shape, model.encode(batch)[0, 2:]
        (torch.Size([4, 1, 8, 8]), tensor([0., 0., 1.], grad_fn=<SliceBackward0>))
    """

    provides = (*VariationalModel.provides, "classify")
    modelled = ("labels",)
    defaults = staticmethod(sized)

    def __init__(
        self,
        spec: Spec,
        *,
        latent_dim: int | None = None,
        alpha: float = 5.0,
        net: NetOption = "auto",
        likelihood: LikelihoodOption = "auto",
        posterior: PosteriorOption = "gaussian",
        prior: PriorOption = "standard",
        sees: str = "auto",
        masked: bool = False,
        beta_schedule: ScheduleOption = "warm-up",
        **penalty: Annotated[Any, OptionsOf(RatePenalty)],
    ) -> None:
        super().__init__()
        if not 0 <= alpha < math.inf:
            raise ConfigError(f"The alpha must be finite and at least 0, not {alpha}.")
        nets = resolve("net", net, spec=spec, own=self.defaults(spec)["net"])
        self.vae = VAE(
            spec, latent_dim=latent_dim, net=nets, likelihood=likelihood, posterior=posterior, prior=prior,
            condition="labels", sees=sees, masked=masked, beta_schedule=beta_schedule, **penalty,
        )  # fmt: skip
        self.spec, self.alpha, self.classes = spec, alpha, spec.classes
        self.given, self.penalty = Given("", spec), self.vae.penalty
        self.needs, self.latents = self.vae.needs, (*self.vae.latents, Latent("y", (spec.classes,), "simplex"))
        self.qy = Network.encoder(nets, self.vae.sees.spec.shape, spec.classes, masked=masked)

    @property
    def kind(self) -> FigureKind | None:  # type: ignore[override]
        """The kind of p(x|y, z)."""
        return self.vae.kind

    def stages(self) -> Sequence[Stage]:
        """One, in which a share of every batch has labels."""
        return tuple(replace(stage, labelled_share=SHARE) for stage in super().stages())

    def elbo(self, batch: Batch, clock: Clock) -> Terms:
        """The bound, the rate of z weighted, and the classification loss of examples with a label; the batch mean."""
        bound, log_q = self._bound(batch)
        of_z = replace(bound, rates={"z": bound.rates["z"]})
        classification = -(one_hot(self._labels(batch), self.classes).to(log_q) * log_q).sum(-1)
        loss = bound.distortion + self.penalty(of_z, clock) + bound.rates["y"] + self.alpha * classification
        parts = {"distortion": bound.distortion, "rate": bound.rate, "rate_y": bound.rates["y"]}
        parts |= {"classification": classification}
        return Terms(loss.mean(), {k: v.detach() for k, v in parts.items()}, self.penalty.scalars(clock))

    def bound(self, batch: Batch) -> Bound:
        """The evidence bound from one draw of z for each class: on log p(x, y) with a label, on log p(x) without."""
        return self._bound(batch)[0]

    def _bound(self, batch: Batch) -> tuple[Bound, Tensor]:
        """The bound, and the log-probabilities ``(B, K)`` that the classifier gives to the classes."""
        log_q = self._classes(batch)
        known = self._labels(batch) >= 0
        weight = torch.where(known[:, None], one_hot(self._labels(batch), self.classes).to(log_q), log_q.exp())
        each = self.vae.bound(self._under_every_class(batch))
        rate_y = (weight * log_q).sum(-1).masked_fill(known, 0) + math.log(self.classes)

        def expected(t: Tensor) -> Tensor:
            by_class = t.unflatten(0, (self.classes, -1))
            return (weight.T.view(*by_class.shape[:2], *[1] * (t.dim() - 1)) * by_class).sum(0)

        distortions = {k: expected(t) for k, t in each.distortions.items()}
        rates = {k: expected(t) for k, t in each.rates.items()} | {"y": rate_y}
        return Bound(distortions, rates, {k: expected(t) for k, t in each.per_dimension.items()}), log_q

    def log_prob(self, batch: Batch, k: int = 1) -> Tensor:
        """``(B,)`` lower bound on log p(x, y) with a label and on log p(x) without, in nats; it rises to it with k.

        The classes are summed over, with ``k`` importance-weighted draws of z for each: Burda, Grosse and Salakhutdinov
        2016, "Importance Weighted Autoencoders" (arXiv 1509.00519). ``replace(batch, y=None)`` gives log p(x).
        """
        joint = self.vae.log_prob(self._under_every_class(batch), k).unflatten(0, (self.classes, -1)).T
        joint = joint - math.log(self.classes)
        y = self._labels(batch)
        of_label = joint.gather(1, y.clamp(min=0)[:, None])[:, 0]
        return torch.where(y >= 0, of_label, joint.logsumexp(1))

    def classify(self, batch: Batch) -> Tensor:
        """``(B, K)`` probabilities q(y|x) of the classes; labels are not looked at."""
        return self._classes(batch).exp()

    def posterior(self, batch: Batch) -> ByClass:
        """q over codes ``(B, latent_dim + K)``: of the class where there is no label, and of z under it."""
        known = (self._labels(batch) >= 0)[:, None]
        given = one_hot(self._labels(batch), self.classes).to(self.dtype).log()
        log_q = torch.where(known, given, self._classes(batch))
        return ByClass(log_q, self.vae.posterior(self._under_every_class(batch)))

    def prior(self, given: Batch | None = None) -> Distribution:
        """p over codes ``(latent_dim + K,)``."""
        return WithClass(self.vae.prior(), torch.zeros(self.classes, dtype=self.dtype, device=self.device))

    def draw(self, n: int, given: Batch | None = None) -> Tensor:
        """``(n, latent_dim + K)`` codes from the prior, of the given classes where there are any.

        Raises:
            ConfigError: another number of labels.
        """
        code = self.prior().sample((n,))
        if given is None or given.y is None:
            return code
        if given.y.shape[0] != n:
            raise ConfigError(f"{n} examples were asked for, and {len(given.y)} labels were given.")
        (z, y), known = self._divided(code), labels_of(given, code)
        return torch.cat([z, torch.where(known[:, None] >= 0, one_hot(known, self.classes).to(y), y)], 1)

    def observation(self, code: Tensor, c: Tensor | None) -> Distribution:
        """p(x|y, z) of codes ``(B, latent_dim + K)``."""
        return self.vae.p(*self._divided(code))

    def between(self, a: Tensor, b: Tensor, t: Tensor) -> Tensor:
        """``(B, T, D)`` codes between codes ``(B, D)``: z where its codes lie, y on the straight line."""
        (z_a, y_a), (z_b, y_b) = self._divided(a), self._divided(b)
        return torch.cat([self.vae.between(z_a, z_b, t), super().between(y_a, y_b, t)], -1)

    def complete(self, batch: Batch, draws: int = 0) -> Batch:
        """The examples with missing values and unknown labels filled in; see :meth:`LatentModel.complete`."""
        filled, code = self._completed(batch, draws)
        return labelled(filled, code, self.classes)

    def _divided(self, code: Tensor) -> tuple[Tensor, Tensor]:
        """z ``(..., latent_dim)`` and y ``(..., K)`` of codes."""
        return code[..., : -self.classes], code[..., -self.classes :]

    def _labels(self, batch: Batch) -> Tensor:
        return labels_of(batch, self.vae.sees(batch))

    def _classes(self, batch: Batch) -> Tensor:
        """``(B, K)`` log q(y|x)."""
        return self.qy(self.vae.sees(batch), mask=batch.mask if self.vae.masked else None).log_softmax(-1)

    def _under_every_class(self, batch: Batch) -> Batch:
        """``(K * B)`` examples: all under the first class, then all under the second, and so on."""
        n = self._labels(batch).shape[0]
        many = replace(batch, beside={}, absent=without_labels(batch)).map(
            lambda t: t.repeat(self.classes, *[1] * (t.dim() - 1))
        )
        device = self._labels(batch).device
        return replace(many, y=torch.arange(self.classes, device=device).repeat_interleave(n))


def labels_of(batch: Batch, x: Tensor) -> Tensor:
    """``(B,)`` class numbers of examples ``(B, ...)``, -1 where unknown or absent."""
    if batch.y is None:
        return torch.full(x.shape[:1], -1, dtype=torch.int64, device=x.device)
    gone = batch.absent.get("labels")
    return batch.y if gone is None else batch.y.masked_fill(gone, -1)


def without_labels(batch: Batch) -> dict[str, Tensor]:
    """What is absent of the examples, beside labels."""
    return {name: gone for name, gone in batch.absent.items() if name != "labels"}


def labelled(batch: Batch, code: Tensor, classes: int) -> Batch:
    """The examples, those without a label with the likeliest class of their codes, which end in the classes."""
    y, known = code[:, -classes:].argmax(-1), labels_of(batch, code)
    return replace(batch, y=torch.where(known >= 0, known, y), absent=without_labels(batch))

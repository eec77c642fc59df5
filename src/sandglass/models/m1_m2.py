"""A semi-supervised variational autoencoder on the codes of another one."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated, Any, cast

import torch
from torch import Tensor
from torch.distributions import Distribution

from sandglass.core import Batch, Bound, Clock, FigureKind, Latent, Spec, Stage, Terms
from sandglass.distributions.evidence import decoded_at_once, log_likelihoods
from sandglass.distributions.observed import log_prob
from sandglass.errors import ConfigError
from sandglass.models._condition import Given
from sandglass.models._latent import LatentModel, sized
from sandglass.models._penalty import RatePenalty
from sandglass.models.m2 import M2, labelled, labels_of
from sandglass.models.vae import VAE
from sandglass.registry import LikelihoodOption, NetOption, OptionsOf, ScheduleOption, register

_CODES = 2**12  # codes z1 under all classes at once; the same on every device, so that the draws are, too


@register("m1-m2")
class M1M2(LatentModel):
    """Stacked semi-supervised VAE: a VAE of the examples (M1), then M2 on its codes: p(y) p(z) p(z1|y, z) p(x|z1).

    Kingma, Rezende, Mohamed and Welling 2014, "Semi-Supervised Learning with Deep Generative Models" (arXiv 1406.5298),
    M1+M2. The first stage needs no label. The second draws codes z1 from q(z1|x), anew in every step, and learns a
    Gaussian p(z1|y, z) with :class:`~sandglass.models.m2.M2`, whose networks are small and so cost little for all K
    classes. A code is z1, z and then y, as one of K corners of a simplex; x depends on z1 alone.

    Args:
        spec: the data, with classes.
        latent_dim: size of z1; by default as that of the VAE.
        second_dim: size of z.
        widths: hidden layers of the networks of the second stage.
        alpha: weight of the classification loss of an example with a label, in the second stage.
        net: network family of the first stage; auto is resnet for images and mlp for rows.
        likelihood: p(x|z1); auto as for the VAE.
        sees: input of the encoder: ``"x"`` or a companion; auto is the damaged copy if there is one.
        masked: whether the encoder also gets the mask of missing values, which are 0 in its input.
        beta_schedule: schedule of beta, in the first stage.
        penalty: on the rate in the first stage.

    Raises:
        ConfigError: data without classes, or a value that makes no sense.

    Example:
        >>> spec = Spec((1, 8, 8), "unit", classes=3)
        >>> model = M1M2(spec, latent_dim=4, second_dim=2, net="mlp", likelihood="bernoulli")
        >>> [stage.name for stage in model.stages()], model.encode(torch.rand(5, 1, 8, 8)).shape
        (['m1', 'm2'], torch.Size([5, 9]))
    """

    provides = (
        *("encode", "decode", "reconstruct", "interpolate", "bound", "log_prob", "score", "embed", "complete"),
        "classify",
    )
    modelled = ("labels",)
    defaults = staticmethod(sized)

    def __init__(
        self,
        spec: Spec,
        *,
        latent_dim: int | None = None,
        second_dim: int = 50,
        widths: Sequence[int] = (500,),
        alpha: float = 5.0,
        net: NetOption = "auto",
        likelihood: LikelihoodOption = "auto",
        sees: str = "auto",
        masked: bool = False,
        beta_schedule: ScheduleOption = "warm-up",
        **penalty: Annotated[Any, OptionsOf(RatePenalty)],
    ) -> None:
        super().__init__()
        if not spec.classes:
            raise ConfigError("A model of labels needs data with classes; name their column with --labels.")
        if second_dim < 1:
            raise ConfigError(f"A second VAE needs second_dim >= 1, not {second_dim}.")
        self.m1 = VAE(
            spec, latent_dim=latent_dim, net=net, likelihood=likelihood, sees=sees, masked=masked,
            beta_schedule=beta_schedule, **penalty,
        )  # fmt: skip
        size = self.m1.code_size
        second = {"name": "mlp", "widths": tuple(widths), "activation": "softplus"}
        codes = Spec((size,), classes=spec.classes)
        self.m2 = M2(codes, latent_dim=second_dim, alpha=alpha, net=second, beta_schedule="constant")
        self.spec, self.given, self.penalty = spec, Given("", spec), self.m1.penalty
        self.latents = (Latent("z1", (size,)), *self.m2.latents)
        self.needs = ("labels", *self.m1.needs)

    @property
    def kind(self) -> FigureKind | None:  # type: ignore[override]
        """The kind of p(x|z1)."""
        return self.m1.kind

    def stages(self) -> Sequence[Stage]:
        """The VAE; then M2 on codes drawn from its posterior."""
        (first,), (second,) = self.m1.stages(), self.m2.stages()
        phases = tuple(replace(p, name="m2", loss=self.second) for p in second.phases)
        return replace(first, name="m1"), replace(second, name="m2", phases=phases, objective="m2")

    def second(self, batch: Batch, clock: Clock) -> Terms:
        """The objective of M2 for codes drawn from q(z1|x)."""
        with torch.no_grad():
            z1 = self.m1.infer(batch)
        return self.m2.elbo(Batch(z1, labels_of(batch, z1)), clock)

    def bound(self, batch: Batch) -> Bound:
        """The evidence bound from a draw of z1, and one of z for each class: on log p(x, y) or, unlabelled, log p(x).

        The rate of z1 is ``log q(z1|x) - log p(z1|y, z)`` at the draw.
        """
        q = self.m1.posterior(batch)
        z1 = q.rsample()
        second = self.m2.bound(Batch(z1, labels_of(batch, z1)))
        rates = {"z1": q.log_prob(z1) + second.distortion, **second.rates}
        return Bound({"x": -log_prob(self.m1.p(z1), batch.x, batch.mask)}, rates, second.per_dimension)

    def log_prob(self, batch: Batch, k: int = 1) -> Tensor:
        """``(B,)`` lower bound on log p(x, y) with a label and on log p(x) without, in nats; it rises to it with k.

        Of ``k`` importance-weighted draws of z1, with one of z for each class and draw; x is decoded in blocks.

        Raises:
            ConfigError: ``k`` is below 1.
        """
        if k < 1:
            raise ConfigError(f"log_prob needs k >= 1 draws, not {k}.")
        q, size = self.m1.posterior(batch), math.prod(batch.x.shape[1:])
        rows = decoded_at_once(size, batch.x.device)
        block = max(1, min(k, _CODES // len(batch.x)))
        total: Tensor | None = None
        for start in range(0, k, block):
            z1 = q.rsample(torch.Size([min(block, k - start)]))
            log_px = log_likelihoods(z1, self.m1.p, batch.x, batch.mask, rows=rows)
            y = labels_of(batch, batch.x).repeat(len(z1))
            second = self.m2.log_prob(Batch(z1.flatten(0, 1), y)).unflatten(0, z1.shape[:2])
            weight = (log_px + second - q.log_prob(z1)).logsumexp(0)
            total = weight if total is None else torch.logaddexp(total, weight)
        return cast(Tensor, total) - math.log(k)

    def score(self, batch: Batch) -> Tensor:
        """``(B,)`` how unusual each example is: the negative bound, in nats, from one draw."""
        return -self.bound(batch).elbo

    def classify(self, batch: Batch) -> Tensor:
        """``(B, K)`` probabilities q(y|z1) of the classes, at the posterior mean of z1; labels are not looked at."""
        return self.m2.classify(Batch(self.m1.encode(batch)))

    def encode(self, batch: Batch) -> Tensor:
        """``(B, D)`` posterior means: of z1, and of z and y given it."""
        z1 = self.m1.encode(batch)
        return torch.cat([z1, self.m2.encode(Batch(z1, labels_of(batch, z1)))], 1)

    def infer(self, batch: Batch) -> Tensor:
        """``(B, D)`` draws from the posterior."""
        z1 = self.m1.infer(batch)
        return torch.cat([z1, self.m2.infer(Batch(z1, labels_of(batch, z1)))], 1)

    def draw(self, n: int, given: Batch | None = None) -> Tensor:
        """``(n, D)`` codes from p(y) p(z) p(z1|y, z), of the given classes where there are any."""
        code = self.m2.draw(n, given)
        return torch.cat([self.m2.observation(code, None).sample(), code], 1)

    def observation(self, code: Tensor, c: Tensor | None) -> Distribution:
        """p(x|z1) of codes ``(B, D)``."""
        return self.m1.p(code[:, : self.m1.code_size])

    def complete(self, batch: Batch, draws: int = 0) -> Batch:
        """The examples with missing values and unknown labels filled in; see :meth:`LatentModel.complete`."""
        filled, code = self._completed(batch, draws)
        return labelled(filled, code, self.spec.classes)

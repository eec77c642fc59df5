"""Priors that are mixtures of one component for each of some examples: pseudo-inputs (VampPrior), or real ones."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn
from torch.distributions import Distribution

from sandglass.core import Spec
from sandglass.distributions.conditional import Conditional
from sandglass.distributions.gaussian_posterior import DiagonalPosterior
from sandglass.distributions.mixture import Mixture
from sandglass.distributions.posterior import Inference
from sandglass.errors import ConfigError
from sandglass.registry import register


class ExamplesPrior(Conditional):
    """A mixture of equal shares, each component of which the encoder gives for an example of those that it keeps.

    They begin as training examples, each as likely as any other.

    Args:
        count: of the examples.
    """

    inputs: Tensor
    begun: Tensor

    def __init__(self, count: int) -> None:
        super().__init__()
        self.count = count
        self.register_buffer("begun", torch.zeros((), dtype=torch.int64))

    def attach(self, q: Inference, spec: Spec) -> None:
        """Takes the encoder of the model, which is no part of the prior's own tensors.

        Args:
            q: q(z|x), without a condition or mask.
            spec: of what the encoder reads.
        """
        self._q = (q,)
        self.unit = spec.support in ("unit", "levels", "binary")

    @torch.no_grad()
    def begin(self, examples: Iterable[tuple[Tensor, Tensor | None]]) -> Mapping[str, float]:
        """Sets the inputs to examples ``(B, *shape)``, of all batches at random, each at most once if enough.

        Those of a model that was trained before stay, and are found again among the examples.

        Args:
            examples: each batch's, and their places in the split ``(B,)`` if these are known.
        """
        if self.begun:
            self.find(examples)
            return {"components": float(self.count)}
        kept, order = self.inputs.data[:0], self.inputs.data.new_zeros(0)
        rows = torch.zeros(0, dtype=torch.int64, device=kept.device)
        for x, index in examples:
            places = torch.full((len(x),), -1, device=x.device) if index is None else index
            kept, rows = torch.cat([kept, x]), torch.cat([rows, places])
            order = torch.cat([order, torch.rand(len(x), device=x.device, dtype=x.dtype)])
            best = order.argsort()[: self.count]
            kept, order, rows = kept[best], order[best], rows[best]
        times = -(-self.count // max(len(kept), 1))
        self.keep(rows.repeat(times)[: self.count])
        self.inputs.copy_(kept.repeat(times, *[1] * (kept.dim() - 1))[: self.count])
        self.begun.fill_(1)
        return {"components": float(min(self.count, len(kept)))}

    def keep(self, rows: Tensor) -> None:
        """Keeps the places of the inputs in the training split, ``(count,)``, -1 where unknown; by default not."""

    def find(self, examples: Iterable[tuple[Tensor, Tensor | None]]) -> None:
        """Finds the places of the inputs among examples that they were perhaps not chosen of; by default not."""


@register("vamp", kind="prior")
class VampPrior(ExamplesPrior):
    """The mean of the posteriors of learnt pseudo-inputs, ``p(z) = 1/K sum_k q(z|u_k)``.

    The best prior of a VAE is its aggregate posterior; this is one of few examples. Tomczak and Welling 2018, "VAE with
    a VampPrior" (arXiv 1705.07120). The pseudo-inputs begin as training examples, and those of pictures stay between
    0 and 1; they have gradients, and so has the encoder through them.

    Args:
        dim: size of a code.
        pseudo_inputs: K; each is as large as an example.

    Raises:
        ConfigError: fewer than one, or a model whose encoder takes more than the examples.

    Example:
        >>> from sandglass import registry
        >>> model = registry.build("vae", Spec((6,)), latent_dim=2, prior={"name": "vamp", "pseudo_inputs": 5})
        >>> model.prior().log_prob(model.draw(3)).shape
        torch.Size([3])
    """

    def __init__(self, dim: int, *, pseudo_inputs: int = 500) -> None:
        if pseudo_inputs < 1:
            raise ConfigError(f"A VampPrior needs pseudo_inputs >= 1, not {pseudo_inputs}.")
        super().__init__(pseudo_inputs)

    def attach(self, q: Inference, spec: Spec) -> None:
        """Takes the encoder, and makes pseudo-inputs as large as what it reads."""
        super().attach(q, spec)
        self.support = q.family.support
        noise = torch.rand(self.count, *spec.shape) if self.unit else torch.randn(self.count, *spec.shape)
        self.inputs = nn.Parameter(noise)

    def forward(self, h: Tensor | None = None, c: Tensor | None = None, mask: Tensor | None = None) -> Distribution:
        """The distribution over ``(dim,)``; the arguments are ignored."""
        (q,) = self._q
        inputs = _within(self.inputs) if self.unit else self.inputs
        parameters = q.parameters_of(inputs)
        return Mixture(q.family, parameters, parameters.new_full((self.count,), -math.log(self.count)))


@register("exemplar", kind="prior")
class ExemplarPrior(ExamplesPrior):
    """A mixture of Gaussians around the codes of training examples, ``p(z) = 1/K sum_k N(z; mean of q(z|x_k), s^2)``.

    A non-parametric prior: a code is drawn by choosing an example and changing it a little. s is one learnt number. In
    training an example's own component is left out and the others share its weight, so that copying the examples does
    not pay. Norouzi, Fleet and Norouzi 2020, "Exemplar VAE: Linking Generative Models, Nearest Neighbor Retrieval, and
    Data Augmentation" (arXiv 2004.04795), whose exemplars are half of the data anew in each epoch, found by nearest
    neighbours; here they are a fixed random subset, and all of them are encoded in every update.

    The exemplars are training examples, and a saved model holds them as they are.

    Args:
        dim: size of a code.
        exemplars: K, so many training examples.

    Raises:
        ConfigError: fewer than two, a posterior whose codes are not real numbers, or a model whose encoder takes more
            than the examples.

    Example:
        >>> from sandglass import registry
        >>> model = registry.build("vae", Spec((6,)), latent_dim=2, prior={"name": "exemplar", "exemplars": 5})
        >>> model.prior().log_prob(model.draw(3)).shape
        torch.Size([3])
    """

    support = "real"
    rows: Tensor

    def __init__(self, dim: int, *, exemplars: int = 500) -> None:
        if exemplars < 2:
            raise ConfigError(f"An exemplar prior needs exemplars >= 2, not {exemplars}.")
        super().__init__(exemplars)
        self.family = DiagonalPosterior(dim)
        self.log_scale = nn.Parameter(torch.zeros(()))
        self.register_buffer("rows", torch.full((exemplars,), -1))

    def attach(self, q: Inference, spec: Spec) -> None:
        """Takes the encoder, and makes room for examples of what it reads."""
        super().attach(q, spec)
        self.register_buffer("inputs", torch.zeros(self.count, *spec.shape))

    def keep(self, rows: Tensor) -> None:
        """Keeps the places of the exemplars in the training split.

        Raises:
            ConfigError: all of them are one example.
        """
        if rows.min() >= 0 and rows.min() == rows.max():
            raise ConfigError("An exemplar prior needs two training examples: each is modelled by the others.")
        self.rows.copy_(rows)

    def find(self, examples: Iterable[tuple[Tensor, Tensor | None]]) -> None:
        """Finds the exemplars among the examples: another split, or other data, has them elsewhere or nowhere."""
        wanted: dict[bytes, list[int]] = {}
        for k, row in enumerate(self.inputs.cpu().numpy()):
            wanted.setdefault(row.tobytes(), []).append(k)
        rows = torch.full_like(self.rows, -1)
        for x, index in examples:
            if index is None:
                continue
            for row, place in zip(x.to(self.inputs.dtype).cpu().numpy(), index.tolist(), strict=True):
                for k in wanted.get(row.tobytes(), ()):
                    rows[k] = place
        self.rows.copy_(rows)

    def forward(self, h: Tensor | None = None, c: Tensor | None = None, mask: Tensor | None = None) -> Mixture:
        """The distribution over ``(dim,)``; the arguments are ignored."""
        (q,) = self._q
        means = q(self.inputs).mean
        spread = (2 * self.log_scale).to(means.dtype).expand_as(means)
        weight = means.new_full((self.count,), -math.log(self.count))
        return Mixture(self.family, torch.cat([means, spread], 1), weight)

    def without(self, index: Tensor) -> Mixture:
        """The density for each of the training examples at these places ``(B,)``, their own components left out."""
        p, own = self(), self.rows == index[:, None]
        log_weight = p.log_weight - torch.log1p(-own.sum(1, keepdim=True) / self.count).to(p.log_weight.dtype)
        return Mixture(p.family, p.h, log_weight.masked_fill(own, -math.inf))


def _within(x: Tensor) -> Tensor:
    """Clamped to [0, 1], with a gradient everywhere, so that nothing stays outside."""
    return x + (x.clamp(0, 1) - x).detach()

"""Priors that are mixtures: of learnt Gaussians, or of the posteriors of pseudo-inputs (VampPrior)."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributions import Distribution

from sandglass.core import Spec
from sandglass.distributions.conditional import Conditional
from sandglass.distributions.gaussian_posterior import DiagonalPosterior
from sandglass.distributions.posterior import Inference, Posterior
from sandglass.errors import ConfigError
from sandglass.registry import register

_ONE = torch.Size()
_AT_ONCE = 2**24  # numbers of codes times components in memory without gradients


class Mixture(Distribution):
    """A mixture of members of a family of posteriors.

    Args:
        family: of the components.
        h: ``(K, family.width)``, their parameters.
        log_weight: ``(K,)``, normalised.
    """

    arg_constraints = {}  # noqa: RUF012 # as in every distribution of PyTorch

    def __init__(self, family: Posterior, h: Tensor, log_weight: Tensor) -> None:
        self.family, self.h, self.log_weight = family, h, log_weight
        self.components: Distribution = family(h)
        super().__init__(_ONE, torch.Size([family.dim]), validate_args=False)

    @property
    def support(self) -> Any:
        """That of the components."""
        return self.components.support

    @property
    def mean(self) -> Tensor:
        """``(dim,)``."""
        return self.log_weight.exp() @ self.components.mean

    @property
    def variance(self) -> Tensor:
        """``(dim,)``."""
        second = self.components.variance + self.components.mean.square()
        return self.log_weight.exp() @ second - self.mean.square()

    def log_prob(self, value: Tensor) -> Tensor:
        """``(...)`` of ``(..., dim)``, in nats; without gradients a part at a time."""
        rows = value.reshape(-1, 1, value.shape[-1])
        size = max(1, _AT_ONCE // (len(self.log_weight) * value.shape[-1]))
        parts = [rows] if torch.is_grad_enabled() else rows.split(size)
        found = [(self.components.log_prob(part) + self.log_weight).logsumexp(-1) for part in parts]
        return torch.cat(found).reshape(value.shape[:-1])

    def sample(self, sample_shape: torch.Size | list[int] | tuple[int, ...] = _ONE) -> Tensor:
        """``(*sample_shape, dim)``."""
        with torch.no_grad():
            which = torch.multinomial(self.log_weight.exp(), math.prod(sample_shape), replacement=True)
            z: Tensor = self.family(self.h[which]).sample()
        return z.view(*sample_shape, -1)


@register("mixture", kind="prior")
class MixturePrior(Conditional):
    """A mixture of Gaussians with learnt weights, means and standard deviations.

    With the evidence bound, codes of different clusters can lie apart: Dilokthanakul et al. 2016, "Deep Unsupervised
    Clustering with Gaussian Mixture Variational Autoencoders" (arXiv 1611.02648), here without a posterior over the
    component, whose best choice given z is known. Means start as draws from the standard normal, scales at 1.

    Args:
        dim: size of a code.
        components: number of Gaussians.

    Raises:
        ConfigError: fewer than one.

    Example:
        >>> p = MixturePrior(2, components=3)()
        >>> p.log_prob(p.sample((5,))).shape
        torch.Size([5])
    """

    def __init__(self, dim: int, *, components: int = 10) -> None:
        super().__init__()
        if components < 1:
            raise ConfigError(f"A mixture needs components >= 1, not {components}.")
        self.family = DiagonalPosterior(dim)
        with torch.device("cpu"):  # arithmetic on the device meta imports a compiler
            h = torch.cat([torch.randn(components, dim), torch.zeros(components, dim)], 1)
        self.h = nn.Parameter(h.to(torch.get_default_device()))
        self.logits = nn.Parameter(torch.zeros(components))

    def forward(self, h: Tensor | None = None, c: Tensor | None = None, mask: Tensor | None = None) -> Distribution:
        """The distribution over ``(dim,)``; the arguments are ignored."""
        return Mixture(self.family, self.h, self.logits.log_softmax(0))


@register("vamp", kind="prior")
class VampPrior(Conditional):
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

    inputs: nn.Parameter
    begun: Tensor

    def __init__(self, dim: int, *, pseudo_inputs: int = 500) -> None:
        super().__init__()
        if pseudo_inputs < 1:
            raise ConfigError(f"A VampPrior needs pseudo_inputs >= 1, not {pseudo_inputs}.")
        self.count = pseudo_inputs
        self.register_buffer("begun", torch.zeros((), dtype=torch.int64))

    def attach(self, q: Inference, spec: Spec) -> None:
        """Takes the encoder of the model, which is no part of the prior's own tensors.

        Args:
            q: q(z|x), without a condition or mask.
            spec: of what the encoder reads.
        """
        self._q = (q,)
        self.support = q.family.support
        self.unit = spec.support in ("unit", "levels", "binary")
        noise = torch.rand(self.count, *spec.shape) if self.unit else torch.randn(self.count, *spec.shape)
        self.inputs = nn.Parameter(noise)

    @torch.no_grad()
    def begin(self, examples: Iterable[Tensor]) -> Mapping[str, float]:
        """Sets the pseudo-inputs to examples ``(B, *shape)``, of all batches at random, each at most once if enough.

        Not where they are those of a model that was trained before.
        """
        if self.begun:
            return {"pseudo_inputs": float(self.count)}
        kept, order = self.inputs.data[:0], self.inputs.data.new_zeros(0)
        for x in examples:
            kept, order = torch.cat([kept, x]), torch.cat([order, torch.rand(len(x), device=x.device, dtype=x.dtype)])
            best = order.argsort()[: self.count]
            kept, order = kept[best], order[best]
        times = -(-self.count // max(len(kept), 1))
        self.begun.fill_(1)
        self.inputs.copy_(kept.repeat(times, *[1] * (kept.dim() - 1))[: self.count])
        return {"pseudo_inputs": float(min(self.count, len(kept)))}

    def forward(self, h: Tensor | None = None, c: Tensor | None = None, mask: Tensor | None = None) -> Distribution:
        """The distribution over ``(dim,)``; the arguments are ignored."""
        (q,) = self._q
        inputs = _within(self.inputs) if self.unit else self.inputs
        parameters = q.parameters_of(inputs)
        return Mixture(q.family, parameters, parameters.new_full((self.count,), -math.log(self.count)))


def _within(x: Tensor) -> Tensor:
    """Clamped to [0, 1], with a gradient everywhere, so that nothing stays outside."""
    return x + (x.clamp(0, 1) - x).detach()

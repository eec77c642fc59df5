"""Autoencoders without noise, whose decoder is kept smooth by a regulariser instead."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated, Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm
from torch.nn.utils.parametrize import register_parametrization

from sandglass.core import Batch, Clock, Phase, Spec, Stage, Terms
from sandglass.errors import ConfigError
from sandglass.models.autoencoder import PointAutoencoder
from sandglass.nets.attention import twice_differentiable
from sandglass.registry import OptionsOf, register

_WEIGHTS = {"gradient": 1.0, "weights": 0.01}
_NORMALISED = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.ConvTranspose2d)


@register("rae-gp")
@register("rae-l2", regulariser="weights")
@register("rae-sn", regulariser="spectral", beta=0.001)
@register("deterministic-vae", regulariser="none")
class RegularizedAutoencoder(PointAutoencoder):
    """Regularised autoencoder: a VAE without noise, with small codes and a smooth decoder, sampled by a fitted density.

    Ghosh, Sajjadi, Vergari, Black and Schoelkopf 2020, "From Variational to Deterministic Autoencoders" (arXiv
    1903.12436). The noise of a VAE makes its decoder smooth; here that is asked for. The objective of an example, at
    its code z, is ``-log p(x|z) + beta / 2 * |z|^2 + weight * R`` in nats. The regulariser R of the decoder is one of

    * ``gradient`` (``rae-gp``): ``|J|^2 / 2``, J the Jacobian of the mean of p(x|z) at the code, from one random
      projection, whose expectation it is;
    * ``weights`` (``rae-l2``): half the sum of the squared weights of the decoder;
    * ``spectral`` (``rae-sn``): none, but every layer of the decoder is divided by its largest singular value (Miyato,
      Kataoka, Koyama and Yoshida 2018, "Spectral Normalization for Generative Adversarial Networks", arXiv 1802.05957);
    * ``none`` (``deterministic-vae``): a VAE whose posterior is a point, where ``-log p(z)`` at the code is all that is
      left of the rate.

    The encoder gives a point, so there is no evidence bound and no log p(x); ``score`` is ``-log p(x|z)`` at the code.
    New codes are drawn from a distribution that is fitted to those of the training examples in a second stage.

    Args:
        spec: the data.
        regulariser: of the decoder: ``gradient``, ``weights``, ``spectral`` or ``none``.
        weight: of the regulariser, only with regulariser=gradient or weights; by default 1 and 0.01.
        beta: weight of half the squared norm of the codes.
        autoencoder: options of the autoencoder.

    Raises:
        ConfigError: an invalid value, or the sampler is the prior, which it has not.

    Example:
        >>> model = RegularizedAutoencoder(Spec((6,)), latent_dim=2)
        >>> sorted(model.reconstruction(Batch(torch.randn(5, 6)), Clock()).parts)
        ['code_norm', 'distortion', 'slope']
    """

    def __init__(
        self,
        spec: Spec,
        *,
        regulariser: Literal["gradient", "weights", "spectral", "none"] = "gradient",
        weight: float | None = None,
        beta: float = 0.1,
        **autoencoder: Annotated[Any, OptionsOf(PointAutoencoder)],
    ) -> None:
        super().__init__(spec, **autoencoder)
        if regulariser not in ("gradient", "weights", "spectral", "none"):
            raise ConfigError(f"The regulariser is one of gradient, weights, spectral, none, not '{regulariser}'.")
        if weight is not None and regulariser not in _WEIGHTS:
            raise ConfigError(f"The regulariser {regulariser} has no weight: leave it out.")
        weight = _WEIGHTS.get(regulariser, 0.0) if weight is None else weight
        for name, value in (("weight", weight), ("beta", beta)):
            if not 0 <= value < math.inf:
                raise ConfigError(f"The weight {name} must be a finite number of at least 0, not {value}.")
        if self.density is None:
            raise ConfigError("An autoencoder has no prior: choose another sampler, such as gaussian-mixture.")
        self.regulariser, self.weight, self.beta = regulariser, weight, beta
        if regulariser == "spectral":
            for layer in [m for m in self.network().modules() if isinstance(m, _NORMALISED)]:
                if layer.weight.is_meta:  # power iterations on the device meta would import a compiler
                    register_parametrization(layer, "weight", _Outline(layer), unsafe=True)
                else:
                    spectral_norm(layer)

    def network(self) -> nn.Module:
        """The network of the decoder."""
        trunk: Any = self.p.trunk
        return trunk

    def stages(self) -> Sequence[Stage]:
        """Training of encoder and decoder, then the fit of the sampler to their codes."""
        phase = Phase("reconstruction", (self.encoder, self.p), self.reconstruction, scheduled=False)
        return Stage("train", (phase,), objective="reconstruction"), *self.sampler_stage()

    def reconstruction(self, batch: Batch, clock: Clock) -> Terms:
        """``-log p(x|z)``, the norms of the codes and the regulariser, averaged over the batch."""
        z = self.encode(batch)
        distortion, norm = self.distortion(z, batch), z.square().sum(1)
        each = distortion + self.beta / 2 * norm
        parts, scalars = {"distortion": distortion.detach(), "code_norm": norm.detach()}, {}
        if self.regulariser == "gradient":
            slope = self.slope(z)
            each = each + self.weight / 2 * slope
            parts["slope"] = slope.detach()
        loss = each.mean()
        if self.regulariser == "weights":
            square = torch.stack([p.square().sum() for p in self.network().parameters()]).sum()
            loss = loss + self.weight / 2 * square
            scalars["weights"] = square.detach()
        return Terms(loss, parts, scalars)

    def slope(self, z: Tensor) -> Tensor:
        """``(B,)`` unbiased estimates of ``|J|^2``, J the Jacobian of the mean of p(x|z) at codes ``(B, latent_dim)``.

        ``|J^T v|^2`` with normal v of the size of x: Hutchinson 1990, "A Stochastic Estimator of the Trace of the
        Influence Matrix for Laplacian Smoothing Splines". It is differentiable where gradients are computed, and has a
        value where they are not.
        """
        wanted = torch.is_grad_enabled()
        with torch.enable_grad(), torch.autocast(z.device.type, enabled=False), twice_differentiable():
            at = z if z.requires_grad else z.detach().requires_grad_()
            mean = self.p(at).mean
            (slope,) = torch.autograd.grad((mean * torch.randn_like(mean)).sum(), at, create_graph=wanted)
        return slope.square().sum(1)


class _Outline(nn.Module):
    """The tensors of the spectral normalisation of a weight whose values are not known."""

    def __init__(self, layer: Any) -> None:
        super().__init__()
        weight, transposed = layer.weight, isinstance(layer, nn.ConvTranspose2d)
        rows = weight.shape[1 if transposed else 0]
        self.register_buffer("_u", weight.new_empty(rows))
        self.register_buffer("_v", weight.new_empty(weight.numel() // rows))

    def forward(self, weight: Tensor) -> Tensor:
        """The weight as it is."""
        return weight

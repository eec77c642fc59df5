"""The variational autoencoder, its weighted forms, and the conditional one."""

from __future__ import annotations

from sandglass.core import Batch, Clock, Terms
from sandglass.models._base_vae import BaseVAE
from sandglass.registry import register


@register("two-stage-vae", sampler="two-stage")
@register("gaussian-mixture-vae", prior="mixture")
@register("vamp-vae", prior="vamp")
@register("exemplar-vae", prior="exemplar")
@register("vae")
@register("beta-vae", beta=4.0, beta_schedule="constant")
@register("hyperspherical-vae", posterior="von-mises-fisher", prior="uniform-sphere")
@register("dirichlet-vae", posterior="dirichlet", prior="dirichlet")
@register("iaf-vae", posterior="iaf")
@register("linear-flow-vae", posterior="radial")
@register("cyclical-vae", beta_schedule="cyclical")
@register("disentangled-beta-vae", beta=1000.0, capacity=25.0, beta_schedule="constant")
@register("cvae", condition="labels")
@register("sigma-vae", likelihood="optimal-gaussian")
@register("ms-ssim-vae", likelihood="ms-ssim")
class VAE(BaseVAE):
    """Variational autoencoder: an encoder q(z|x), a decoder p(x|z) and a prior p(z), trained on the evidence bound.

    The objective of an example is ``distortion + beta * rate`` in nats, with distortion ``-E[log p(x|z)]`` summed over
    elements and rate ``KL(q(z|x) || p(z))`` summed over latent dimensions: Kingma and Welling 2014, "Auto-Encoding
    Variational Bayes" (arXiv 1312.6114). A capacity or free bits replace the rate in the objective, and nowhere else.

    With a condition c, encoder and decoder depend on it: q(z|x, c) and p(x|z, c). Sohn, Lee and Yan 2015, "Learning
    Structured Output Representation using Deep Conditional Generative Models" (NeurIPS 2015).

    Args:
        spec: the data.
        latent_dim: size of the latent; by default 16 for rows, and for images 8 to 256 by their size.
        net: network family of encoder and decoder; auto is resnet for images and mlp for rows.
        likelihood: p(x|z); auto is bernoulli for ink on paper, logistic-mixture for photographs, gaussian for
            real values, and mixed for tables with columns of other kinds.
        posterior: family of q(z|x, c).
        prior: p(z), where the codes of the posterior lie.
        condition: ``"labels"`` or the name of a companion; empty for an unconditional model.
        sees: input of the encoder: ``"x"`` or a companion; auto is the damaged copy if there is one.
        masked: whether the encoder also gets the mask of missing values, which are 0 in its input.
        beta_schedule: schedule of beta; a warm-up over the first 300 updates keeps more of the latent in use.
        sampler: of new codes: the prior, or a distribution that is fitted to the codes in a stage after training.
        penalty: on the rate, in the objective.

    Example:
        >>> import torch
        >>> from sandglass.core import Spec
        >>> model = VAE(Spec((1, 8, 8), "unit"), latent_dim=2, net="mlp", likelihood="bernoulli")
        >>> terms = model.elbo(Batch(x := torch.rand(5, 1, 8, 8)), Clock())
        >>> sorted(terms.parts), model.encode(x).shape
        (['distortion', 'rate'], torch.Size([5, 2]))
    """

    def elbo(self, batch: Batch, clock: Clock) -> Terms:
        """``distortion + beta * rate``, or with its capacity or free bits: the batch mean, one draw of z each."""
        bound = self.bound(batch)
        loss = (bound.distortion + self.penalty(bound, clock)).mean()
        parts = {"distortion": bound.distortion.detach(), "rate": bound.rate.detach()}
        return Terms(loss, parts, self.penalty.scalars(clock))

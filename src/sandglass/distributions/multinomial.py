"""The likelihood of tables of counts that are shares of a total, such as the words of a document."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.distributions import Distribution, Gamma, NegativeBinomial, Poisson, constraints
from torch.types import _size

from sandglass.core import FigureKind, Spec
from sandglass.distributions.likelihood import Likelihood
from sandglass.distributions.location_scale import scale_from
from sandglass.errors import ConfigError
from sandglass.registry import register


class Counts(Distribution):
    """Counts whose total is negative binomial, and which are a multinomial draw given the total.

    That is the same as a gamma draw of the expected total, and a Poisson draw of each count given that. So the counts
    of some of the columns have a distribution of this family, and columns that are not observed are left out exactly.

    Args:
        logits: ``(..., D)`` of the columns.
        mean: ``()`` or ``(...)`` of the total.
        r: of that shape, of the negative binomial: the variance of the total is ``mean + mean^2 / r``.
        shift: ``(D,)`` subtracted from the counts.
        scale: ``(D,)`` then divided by.
        log_seen: ``(...)`` log of the share of the columns that are observed.
    """

    arg_constraints: ClassVar = {}
    support = constraints.real_vector

    def __init__(
        self, logits: Tensor, mean: Tensor, r: Tensor, shift: Tensor, scale: Tensor, log_seen: Tensor | None = None
    ) -> None:
        self.log_share = logits.log_softmax(-1)
        self.expected, self.r, self.shift, self.scale, self.log_seen = mean, r, shift, scale, log_seen
        super().__init__(logits.shape[:-1], logits.shape[-1:], validate_args=False)

    def observing(self, mask: Tensor) -> Counts:
        """The distribution of the counts that are observed, ``mask`` being ``(..., D)``; all others have to be 0."""
        share = self.log_share.masked_fill(~mask, -torch.inf)
        none = ~mask.any(-1, keepdim=True)  # nothing is left of a row: a total of 0
        log_seen = share.masked_fill(none, 0).logsumexp(-1).masked_fill(none[..., 0], -30)
        shift = torch.where(mask, self.shift, 0)
        return Counts(share.masked_fill(none, 0), self.expected, self.r, shift, self.scale, log_seen)

    def given(self, value: Tensor, mask: Tensor) -> Counts:
        """The distribution given those counts of ``value`` that are observed, whose total tells of that of the others.

        Its mean and draws are right where ``mask`` is False, and not for what was observed.
        """
        share = self.log_share.to(self.scale.dtype).exp().masked_fill(~mask, 0).sum(-1)
        seen = self.counts(value).masked_fill(~mask, 0).sum(-1)
        expected = (self.r + seen) / (self.r / self.expected + share)
        return Counts(self.log_share, expected, self.r + seen, self.shift, self.scale)

    @property
    def mean(self) -> Tensor:
        """``(..., D)``, of counts as they are encoded."""
        expected = self.expected[..., None] * self.log_share.exp()
        return ((expected - self.shift) / self.scale).to(self.log_share.dtype)

    def counts(self, value: Tensor) -> Tensor:
        """``(..., D)`` the counts that are encoded."""
        return (value * self.scale + self.shift).round().clamp(min=0)

    def log_prob(self, value: Tensor) -> Tensor:
        """``(...)``, in nats."""
        counts = self.counts(value)
        total = counts.sum(-1)
        mean = self.expected if self.log_seen is None else self.expected * self.log_seen.to(counts.dtype).exp()
        length = NegativeBinomial(self.r, logits=(mean / self.r).log(), validate_args=False).log_prob(total)
        return (length + self.log_share_of(counts)).to(self.log_share.dtype)

    def log_share_of(self, counts: Tensor) -> Tensor:
        """``(...)`` log-probability of counts ``(..., D)`` given their total, in nats."""
        share = self.log_share.to(counts.dtype)
        each = torch.where(counts > 0, counts * share, 0)
        return (counts.sum(-1) + 1).lgamma() - (counts + 1).lgamma().sum(-1) + each.sum(-1)

    def sample(self, sample_shape: _size = ()) -> Tensor:
        """``(*sample_shape, ..., D)``, encoded."""
        with torch.no_grad():
            r, rate = self.r.expand(self.batch_shape), (self.r / self.expected).expand(self.batch_shape)
            total = Gamma(r, rate, validate_args=False).sample(torch.Size(sample_shape))
            counts = Poisson(total[..., None] * self.log_share.to(total.dtype).exp(), validate_args=False).sample()
            return ((counts - self.shift) / self.scale).to(self.log_share.dtype)


@register("multinomial", kind="likelihood")
class Multinomial(Likelihood):
    """Counts of one total: a multinomial distribution over the columns, and a negative binomial one of the total.

    For tables whose columns are counts of the same kind of thing, such as the words of documents, the species of plots
    or the products of baskets: the decoder says what their shares are, and nothing of how many there are, whose
    distribution is the same for all rows and learnt. Missing columns are left out exactly.

    Blei, Ng and Jordan 2003, "Latent Dirichlet Allocation" (JMLR 3), for words as a multinomial; Srivastava and Sutton
    2017, "Autoencoding Variational Inference For Topic Models" (arXiv 1703.01488), for it as the likelihood of a VAE.

    Args:
        spec: specification of the table; every column is a count.

    Raises:
        ConfigError: the data is not a table of counts.

    Example:
        >>> from sandglass.core import Column
        >>> columns = tuple(Column(word, "count") for word in ("apple", "pear", "fig"))
        >>> p = Multinomial(Spec((3,), columns=columns))(torch.zeros(1, 3))
        >>> counts = torch.tensor([[2.0, 1.0, 0.0]])
        >>> round(float(p.log_share_of(counts).exp()), 4)  # 3! / (2! 1!) / 3^3
        0.1111
    """

    shift: Tensor
    scale: Tensor
    usual: Tensor

    def __init__(self, spec: Spec) -> None:
        super().__init__()
        other = [c.name for c in spec.columns if c.kind != "count"]
        if not spec.columns or other or len(spec.shape) != 1:
            which = f", and {', '.join(other[:3])} {'is' if len(other) == 1 else 'are'} not" if other else ""
            raise ConfigError(f"The likelihood multinomial is for tables all of whose columns are counts{which}.")
        means, scales = [c.mean for c in spec.columns], [c.scale for c in spec.columns]
        self.register_buffer("shift", torch.tensor(means), persistent=False)
        self.register_buffer("scale", torch.tensor(scales), persistent=False)
        usual = sum(max(m, s / 2) for m, s in zip(means, scales, strict=True))
        self.register_buffer("usual", torch.tensor(float(usual)), persistent=False)
        self.log_total, self.spread = nn.Parameter(torch.zeros(())), nn.Parameter(torch.zeros(()))

    @staticmethod
    def kind(spec: Spec) -> FigureKind:
        """A probability."""
        return "mass"

    def channels(self, spec: Spec) -> int:
        """A logit for each column."""
        return spec.shape[0]

    def forward(self, h: Tensor) -> Counts:
        """``(B, D)`` logits to the distribution of the counts."""
        wide = torch.float32 if h.device.type == "mps" else torch.float64  # log factorials are wrong in float32
        mean, r = scale_from(self.log_total.to(wide)) * self.usual, scale_from(-self.spread.to(wide))
        return Counts(h, mean, r, self.shift.to(wide), self.scale.to(wide))

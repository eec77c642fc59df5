"""What all models with maps of discrete codes and a learnt prior over them share."""

from __future__ import annotations

import abc
from collections.abc import Generator, Mapping, Sequence

import torch
from torch import Tensor
from torch.distributions import Distribution

from sandglass.core import Batch, Batches, Bound, Clock, Phase, Stage, Terms
from sandglass.distributions.observed import log_prob
from sandglass.errors import ConfigError
from sandglass.models._code_prior import CodePrior
from sandglass.models._condition import Sees
from sandglass.models._latent import LatentModel
from sandglass.quantisers.quantiser import Fitted, Followed, Quantised, Quantiser


def check_commitment(commitment: float) -> float:
    """The weight of the commitment.

    Raises:
        ConfigError: it is negative or not finite.
    """
    if not 0 <= commitment < float("inf"):
        raise ConfigError(f"The commitment must be finite and at least 0, not {commitment}.")
    return commitment


class CodeModel(LatentModel):
    """Levels of vectors that are quantised, a decoder of all of them, and a prior over the codes as a second stage.

    The levels are those of ``latents``, the first at the top.

    Attributes:
        sees: reads what the encoder encodes.
        commitment: weight of the squared distance between vectors and their codes.
    """

    provides = (
        "encode",
        "decode",
        "reconstruct",
        "interpolate",
        "bound",
        "log_prob",
        "score",
        "embed",
        "complete",
    )
    sees: Sees
    commitment: float

    @property
    @abc.abstractmethod
    def quantisers(self) -> Sequence[Quantiser]:
        """Those of the levels, from the top."""

    @property
    @abc.abstractmethod
    def priors(self) -> Sequence[CodePrior]:
        """Those of the levels, from the top; each may be given the codes above it."""

    @abc.abstractmethod
    def levels(self, batch: Batch) -> Generator[Tensor, Tensor, None]:
        """``(B, n, D)`` the vectors of each level before they are quantised, from the top.

        It is a generator: it is sent the vectors ``(B, n, D)`` after quantisation before it goes on to the next level.
        """

    def stages(self) -> Sequence[Stage]:
        """Encoder, codebooks and decoder, the codebooks after k-means; then the prior over the codes."""
        followed = any(isinstance(q, Followed) for q in self.quantisers)
        second = tuple(self.priors)
        trained = tuple(m for m in self.children() if not any(p is m or p in m.modules() for p in second))
        follow = self.follow if followed else None
        first = Phase("reconstruction", trained, self.reconstruction, scheduled=False, follow=follow)
        fit = self.fit_codebooks if any(isinstance(q, Fitted) for q in self.quantisers) else None
        prior = Phase("prior", second, self.code_length, scheduled=False)
        least = 2 if any(q.of_batch for q in self.quantisers) else 1
        return Stage("codes", (first,), fit, "reconstruction", least=least), Stage("prior", (prior,), objective="prior")

    def reconstruction(self, batch: Batch, clock: Clock) -> Terms:
        """``-log p(x|k)`` of what was observed, the commitment and the penalty of the quantiser; the batch mean."""
        found = self.quantised(batch)
        values = torch.cat([q.values.flatten(1) for q in found], 1)
        loss = distortion = -log_prob(self.p(values, self.given(batch)), batch.x, batch.mask)
        parts = {"distortion": distortion.detach()}
        for name, weight in (("commitment", self.commitment), ("penalty", 1.0)):
            terms = [term for q in found if (term := getattr(q, name)) is not None]
            if terms:
                whole = sum(terms[1:], terms[0])
                loss, parts[name] = loss + weight * whole, whole.detach()
        scalars: dict[str, Tensor] = {}
        statistics: dict[str, Tensor] = {}
        for latent, quantiser, q in zip(self.latents, self.quantisers, found, strict=True):
            end = f"_{latent.name}" if len(found) > 1 else ""
            scalars |= {f"{name}{end}": value for name, value in quantiser.usage(q.codes).items()}
            statistics |= {f"{name}{end}": value for name, value in q.statistics.items()}
        return Terms(loss.mean(), parts, scalars, statistics)

    def code_length(self, batch: Batch, clock: Clock) -> Terms:
        """``-log p(k)`` of the codes that the encoder gives, in nats: the rate; the batch mean."""
        rates = self.rates(self.encode(batch), self.given(batch))
        rate = sum(list(rates.values())[1:], next(iter(rates.values())))
        each = {f"rate_{name}": value.detach() for name, value in rates.items()} if len(rates) > 1 else {}
        return Terms(rate.mean(), {"rate": rate.detach(), **each})

    def fit_codebooks(self, train: Batches, validation: Batches | None) -> Mapping[str, float]:
        """The fit of every quantiser to what the encoder makes of the training examples, from the top level."""
        figures: dict[str, float] = {}
        with torch.no_grad():
            for i, (latent, quantiser) in enumerate(zip(self.latents, self.quantisers, strict=True)):
                if isinstance(quantiser, Fitted):
                    found = quantiser.fit(self.vectors(batch, i) for batch in train())
                    end = f"_{latent.name}" if len(self.latents) > 1 else ""
                    figures |= {f"{name}{end}": value for name, value in found.items()}
        return figures

    def follow(self, statistics: Mapping[str, Tensor]) -> None:
        """Moves the codebooks by the statistics of a batch."""
        for latent, quantiser in zip(self.latents, self.quantisers, strict=True):
            if isinstance(quantiser, Followed):
                end = f"_{latent.name}" if len(self.latents) > 1 else ""
                own = {name.removesuffix(end): each for name, each in statistics.items() if name.endswith(end)}
                quantiser.follow(own)

    def quantised(self, batch: Batch) -> list[Quantised]:
        """Every level quantised, with the straight-through gradient."""
        found: list[Quantised] = []
        going = self.levels(batch)
        h = next(going)
        for quantiser in self.quantisers:
            found.append(quantiser(h))
            if len(found) < len(self.quantisers):
                h = going.send(found[-1].values)
        return found

    def vectors(self, batch: Batch, level: int = 0) -> Tensor:
        """``(B, n, D)`` what the encoder makes of the examples for a level, before quantisation."""
        going = self.levels(batch)
        h = next(going)
        for quantiser in self.quantisers[:level]:
            h = going.send(quantiser.lookup(quantiser.encode(h)).to(h.dtype))
        return h

    @torch.no_grad()
    def encode(self, batch: Batch) -> Tensor:
        """``(B, n)`` whole numbers, the codes of a map row by row, those of the top level first."""
        going, codes = self.levels(batch), []
        h = next(going)
        for quantiser in self.quantisers:
            codes.append(quantiser.encode(h))
            if len(codes) < len(self.quantisers):
                h = going.send(quantiser.lookup(codes[-1]).to(h.dtype))
        return torch.cat(codes, 1)

    def by_level(self, code: Tensor) -> tuple[Tensor, ...]:
        """``(..., n)`` codes of each level, from ``(..., n)`` of all."""
        return code.split([latent.size for latent in self.latents], -1)

    def embed(self, code: Tensor) -> Tensor:
        """``(B, n)`` codes as their vectors one after the other, ``(B, n * D)``."""
        parts = zip(self.quantisers, self.by_level(code.long()), strict=True)
        return torch.cat([quantiser.lookup(k).to(self.dtype).flatten(1) for quantiser, k in parts], 1)

    def observation(self, code: Tensor, c: Tensor | None) -> Distribution:
        """p(x|k, c), from the vectors of the codes."""
        return self.p(self.embed(code), c)

    def rates(self, code: Tensor, c: Tensor | None) -> dict[str, Tensor]:
        """``(B,)`` by level: ``-log p(k_i|k_<i, c)`` of the level given those above it, in nats."""
        found: dict[str, Tensor] = {}
        above: Tensor | None = None
        for latent, prior, k in zip(self.latents, self.priors, self.by_level(code), strict=True):
            found[latent.name] = -prior(above, c).log_prob(k)
            above = k if above is None else torch.cat([above, k], 1)
        return found

    def bound(self, batch: Batch) -> Bound:
        """The lower bound ``log p(x|k) + log p(k)`` at the codes k of the examples; of what was observed."""
        codes, c = self.encode(batch), self.given(batch)
        distortion = -log_prob(self.observation(codes, c), batch.x, batch.mask)
        return Bound({"x": distortion}, self.rates(codes, c))

    def log_prob(self, batch: Batch, k: int = 1) -> Tensor:
        """``(B,)`` the bound on log p(x), in nats; more draws do not tighten it, for k is a function of x."""
        return self.bound(batch).elbo

    def score(self, batch: Batch) -> Tensor:
        """``(B,)`` how unusual each example is: the negative bound, in nats."""
        return -self.bound(batch).elbo

    def draw(self, n: int, given: Batch | None = None) -> Tensor:
        """``(n, codes)`` whole numbers from the prior."""
        c = self.given(given, n)
        above: Tensor | None = None
        for prior in self.priors:
            alone = c is None and above is None
            k = prior(above, c).sample((n,) if alone else ())
            above = k if above is None else torch.cat([above, k], 1)
        assert above is not None
        return above

    def between(self, a: Tensor, b: Tensor, t: Tensor) -> Tensor:
        """The codes nearest to points on the line between the vectors of the codes a and b."""
        found = []
        for quantiser, one, other in zip(self.quantisers, self.by_level(a), self.by_level(b), strict=True):
            start, end = (quantiser.lookup(k.long()).to(self.dtype)[:, None] for k in (one, other))
            found.append(quantiser.nearest(start * (1 - t[..., None]) + end * t[..., None]))
        return torch.cat(found, -1)

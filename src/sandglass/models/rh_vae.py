"""The variational autoencoder that learns a metric of its latent space, by which its posterior moves and it samples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal, get_args

import torch
from torch import Tensor

from sandglass import rng
from sandglass.core import Batch, Batches, Clock, Spec, Stage, Terms
from sandglass.errors import ConfigError
from sandglass.models._hamiltonian import FlowVAE, Moved, Steps, TemperingName, slope
from sandglass.models._metric import Metric, MetricNetwork, drawn, riemannian_leapfrog
from sandglass.models.vae import VAE
from sandglass.registry import OptionsOf, register

DrawsName = Literal["metric", "prior"]

_STEP, _STEPS = 0.5, 5  # of the sampler: its size in standard deviations of sqrt(det G^-1) about a lone centroid


@register("rh-vae")
class RiemannianVAE(FlowVAE):
    """Riemannian Hamiltonian VAE: it learns where in the latent space the examples are, and samples codes there.

    Chadebec, Mantoux and Allassonniere 2020, "Geometry-Aware Hamiltonian Variational Auto-Encoder" (arXiv 2010.11518).
    A metric G of the latent space has ``G(z)^-1 = sum_i L_i L_i^T exp(-|z - c_i|^2 / T^2) + lambda I``: the centroids
    c_i are posterior means of examples, the factors L_i come from a small network. The draws of the encoder are moved
    as in ``hamiltonian-vae``, with momenta from N(0, G(z)) and generalised leapfrog steps, whose equations are solved
    by fixed-point iteration. The bound holds as far as these are solved.

    In training the centroids are those of the batch, each with a share of (all centroids) / (examples of the batch).
    Then, in a second stage, those of training examples drawn at random are kept, which bound, log_prob and codes use.

    Samples are decoded from codes drawn by Hamiltonian Monte Carlo on the density ``sqrt(det G(z)^-1)``, which is high
    near the codes of examples: Chadebec, Thibeau-Sutre, Burgos and Allassonniere 2022, "Data Augmentation in High
    Dimensional Low Sample Size Setting Using a Geometry-Based Variational Autoencoder" (arXiv 2105.00026). That is for
    few examples, of which the prior knows little. These samples are not from p(x), of which log_prob is the density;
    with ``draws=prior`` they are.

    Args:
        spec: the data.
        leapfrog: K, the number of leapfrog steps.
        step_size: of the steps before training; it is learnt. It is small since G^-1 is large at first, where the
            codes of all examples lie together.
        max_step_size: size that no step reaches; the iterations do not converge for large ones.
        tempering: of the momentum: ``quadratic``, ``free`` or ``none``.
        inverse_temperature: beta_0, before training, by default 0.5; only with tempering.
        fixed_point: iterations for each of the two implicit equations of a step.
        centroids: how many are kept at most; each takes the memory of D * D numbers for codes of D.
        temperature: T, the distance over which a centroid acts.
        regularization: lambda, the smallest eigenvalue of G^-1.
        metric_width: units of the hidden layer of the network of L_i.
        draws: where samples come from: ``metric`` or ``prior``.
        transitions: of each Markov chain that draws a code by the metric; it starts at a centroid.
        vae: options of the VAE.

    Raises:
        ConfigError: an invalid value.

    Example:
        >>> model = RiemannianVAE(Spec((6,)), latent_dim=2)
        >>> [stage.name for stage in model.stages()], model.sample(3).shape
        (['train', 'metric'], torch.Size([3, 6]))
    """

    def __init__(
        self,
        spec: Spec,
        *,
        leapfrog: int = 3,
        step_size: float = 0.005,
        max_step_size: float = 0.2,
        tempering: TemperingName = "quadratic",
        inverse_temperature: float | None = None,
        fixed_point: int = 3,
        centroids: int = 200,
        temperature: float = 1.5,
        regularization: float = 0.01,
        metric_width: int = 64,
        draws: DrawsName = "metric",
        transitions: int = 50,
        **vae: Annotated[Any, OptionsOf(VAE)],
    ) -> None:
        super().__init__(spec, **vae)
        for name, value in (("leapfrog", leapfrog), ("fixed_point", fixed_point), ("transitions", transitions)):
            if value < 1:
                raise ConfigError(f"The option {name} of an rh-vae must be at least 1, not {value}.")
        if draws not in get_args(DrawsName):
            raise ConfigError(f"The option draws is one of {', '.join(get_args(DrawsName))}, not '{draws}'.")
        self.fixed_point, self.draws, self.transitions = fixed_point, draws, transitions
        self.steps = Steps(1, leapfrog, step_size, max_step_size, tempering, inverse_temperature)
        self.metric = MetricNetwork(
            self.sees.spec.shape,
            self.code_size,
            centroids=centroids,
            temperature=temperature,
            floor=regularization,
            width=metric_width,
        )
        self.register_buffer("examples", torch.zeros((), dtype=torch.int64))

    def stages(self) -> Sequence[Stage]:
        """Training, before which the examples are counted; the fit of the centroids; and that of the sampler."""
        train = self.begun(Stage("train", tuple(self.phases()), self.count, objective="elbo"))
        return train, Stage("metric", fit=self.fit_metric), *self.sampler_stage()

    def fit_metric(self, train: Batches, validation: Batches | None) -> Mapping[str, float]:
        """Keeps posterior means and factors of training examples drawn at random, or of all where there is room."""
        n = sum(len(batch) for batch in train())
        chosen = rng.permutation(n, 0, "centroids")[: len(self.metric.centroids)].sort().values.to(self.device)
        codes, products, seen = [], [], 0
        with torch.no_grad():
            for batch in train():
                here = chosen[(chosen >= seen) & (chosen < seen + len(batch))] - seen
                some, seen = batch.map(lambda t, here=here: t[here]), seen + len(batch)  # type: ignore[misc]
                if len(here):
                    codes.append(self.start(some).mean)
                    products.append(self.metric.products(self.sees(some)))
        self.metric.keep(torch.cat(codes), torch.cat(products))
        return {"centroids": float(len(chosen))}

    def elbo(self, batch: Batch, clock: Clock) -> Terms:
        """``distortion + beta * rate`` of codes moved by the metric of the batch, the batch mean."""
        q = self.start(batch)
        z = q.rsample()
        share = self.examples.clamp(max=len(self.metric.centroids)).to(z).clamp(min=1) / len(z)
        metric = self.metric.of(self.sees(batch), q.mean, share)
        moved = self.moved(batch, z, torch.randn_like(z), metric)
        return self.terms(clock, self.moved_bound(batch, q, z, moved))

    def flow(self, batch: Batch, z: Tensor, noise: Tensor) -> Moved:
        """Codes after K steps by the metric of the kept centroids."""
        return self.moved(batch, z, noise, self.metric.fitted())

    def moved(self, batch: Batch, z: Tensor, noise: Tensor, metric: Metric) -> Moved:
        """Codes after K generalised leapfrog steps, with momenta from standard normal noise."""
        energy, size, (hot, factors) = self.energy(batch), self.steps.size, self.steps.tempered()
        first = metric.root(z)
        v = torch.linalg.solve_triangular(first.mT, noise[..., None] / hot, upper=True).squeeze(-1)  # N(0, G / beta_0)
        g, distortion = slope(energy, z)
        for factor in factors.unbind():
            z, middle = riemannian_leapfrog(metric, z, v, g, size, self.fixed_point)
            g, distortion = slope(energy, z)
            v = factor * (middle - size / 2 * (g + metric.kinetic_slope(z, middle)))
        last = metric.root(z)
        white = (last * v[..., None]).sum(1)  # C^T v
        volumes = [root.diagonal(dim1=1, dim2=2).log() for root in (first, last)]
        return Moved(z, (white.square() - noise.square()) / 2 + volumes[0] - volumes[1], distortion)

    @torch.no_grad()
    def draw(self, n: int, given: Batch | None = None) -> Tensor:
        """``(n, latent_dim)`` codes by the sampler, if there is one; by the metric; or from the prior.

        They are from the prior where draws=prior, or no centroids are kept.
        """
        if self.density is not None:
            return self.density.sample(n)
        count = int(self.metric.count)
        if self.draws == "prior" or not count:
            return self.prior(given).sample((n,))
        metric = self.metric.fitted()
        known = metric.centroids[:count]
        radius = (known - known.mean(0)).square().sum(1).max().sqrt() + metric.temperature
        start = known[torch.randint(count, (n,), device=known.device)]
        size = _STEP * metric.temperature / self.code_size**0.5
        return drawn(metric, start, radius, self.transitions, _STEPS, size)

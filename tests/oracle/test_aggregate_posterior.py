"""Regularisers of the aggregate posterior: exact identities, closed forms, estimators without bias."""

from __future__ import annotations

import itertools
import math
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.distributions import (
    AffineTransform,
    Categorical,
    Distribution,
    Independent,
    MixtureSameFamily,
    Normal,
    TransformedDistribution,
)

from helpers import fresh, make_loop, rows
from sandglass import registry, rng
from sandglass.core import Batch, Clock, Spec
from sandglass.distributions.discrepancy import KERNELS, mmd, squared_distances
from sandglass.distributions.standard import StandardNormal
from sandglass.errors import ConfigError
from sandglass.models._aggregate import covariance, discrepancy, distance, log_weights, off_whiteness, rate_parts
from sandglass.models.regularized_vae import RegularizedVAE


def normals(n: int, dim: int, seed: int = 0, spread: float = 0.5) -> Independent:
    """Posteriors of n examples in float64, overlapping."""
    g = torch.Generator().manual_seed(seed)
    mean = torch.randn(n, dim, generator=g, dtype=torch.float64)
    scale = spread + torch.rand(n, dim, generator=g, dtype=torch.float64)
    return Independent(Normal(mean, scale), 1)


def mixture(q: Independent) -> Distribution:
    """q(z), the mean of all posteriors."""
    return MixtureSameFamily(Categorical(torch.ones(len(q.mean), dtype=torch.float64)), q)


def some(q: Independent, rows: Any) -> Independent:
    return Independent(Normal(q.base_dist.loc[rows], q.base_dist.scale[rows]), 1)


def prior(dim: int) -> Distribution:
    found: Distribution = StandardNormal(dim).double()()
    return found


@pytest.mark.parametrize("sampling", ["stratified", "weighted"])
@pytest.mark.parametrize("n", [1, 2, 7])
def test_the_parts_sum_to_the_rate_of_the_draw(n: int, sampling: Any) -> None:
    q, p = normals(n, 3), prior(3)
    z = q.sample()
    parts = rate_parts(q, p, z, torch.tensor(50), sampling)
    assert torch.allclose(sum(parts), q.log_prob(z) - p.log_prob(z), atol=1e-12)


def test_with_all_examples_in_the_batch_q_of_z_is_the_mixture() -> None:
    """Mixtures and their marginals by torch.distributions; without a count the batch is taken for all examples."""
    q, p = normals(9, 2), prior(2)
    z = q.sample()
    joint = mixture(q).log_prob(z)
    marginals = sum(mixture(Independent(Normal(m[:, None], s[:, None]), 1)).log_prob(v[:, None]) for m, s, v in zip(
        q.base_dist.loc.T, q.base_dist.scale.T, z.T, strict=True))  # fmt: skip
    for count in (9, 0):
        parts = rate_parts(q, p, z, torch.tensor(count), "stratified")
        assert torch.allclose(parts.information, q.log_prob(z) - joint, atol=1e-12)
        assert torch.allclose(parts.total_correlation, joint - marginals, atol=1e-12)
        assert torch.allclose(parts.dimension_kl, marginals - p.log_prob(z), atol=1e-12)


@pytest.mark.parametrize("sampling", ["stratified", "weighted"])
def test_marginals_have_the_weights_of_the_examples(sampling: Any) -> None:
    """Three of nine examples: the weighted sum over them in every dimension on its own, by hand."""
    q, p = normals(3, 2), prior(2)
    z = q.sample()
    weights = log_weights(3, torch.tensor(9.0).double(), sampling).exp()
    expected = torch.zeros(3).double()
    for i in range(3):
        for d in range(2):
            each = Normal(q.base_dist.loc[:, d], q.base_dist.scale[:, d]).log_prob(z[i, d]).exp()
            expected[i] += (weights[i] * each).sum().log()
    found = rate_parts(q, p, z, torch.tensor(9), sampling)
    assert torch.allclose(found.dimension_kl, expected - p.log_prob(z), atol=1e-12)


@pytest.mark.parametrize("size", [2, 3, 5])
def test_stratified_sampling_has_no_bias(size: int) -> None:
    """Of q(z) itself: the mean over all batches that hold the example of z is exactly the mixture of all."""
    q = normals(6, 2)
    z, exact = q.mean[:1] + 0.3, mixture(q)
    estimates = []
    for others in itertools.combinations(range(1, 6), size - 1):
        each = some(q, [0, *others]).log_prob(z[:, None])[0]
        estimates.append((each + log_weights(size, torch.tensor(6.0).double(), "stratified")[0]).exp().sum())
    assert float(torch.stack(estimates).mean()) == pytest.approx(float(exact.log_prob(z)[0].exp()), abs=1e-14)


def test_stratified_weights_are_those_of_the_paper_on_average() -> None:
    """Chen et al. 2018: 1/N, and 1/M for each of M others but one, which has (N - M) / (N M); here any is the one."""
    n, m = 20, 4
    paper = torch.full((m, m), 1 / m).fill_diagonal_((n - m) / (n * m)).double()
    own = log_weights(m + 1, torch.tensor(float(n)).double(), "stratified").exp()[0]
    assert float(own[0]) == pytest.approx(1 / n)
    assert torch.allclose(own[1:], paper.mean(0), atol=1e-12)
    assert float(own.sum()) == pytest.approx(1)


def test_weighted_sampling_is_its_formula_and_lies_below() -> None:
    q, p = normals(40, 2), prior(2)
    z = q.sample()
    batch = some(q, slice(0, 8))
    pairs = batch.log_prob(z[:8, None])
    parts = rate_parts(batch, p, z[:8], torch.tensor(40), "weighted")
    formula = pairs.exp().sum(1).log() - math.log(8 * 40)
    assert torch.allclose(parts.information, batch.log_prob(z[:8]) - formula, atol=1e-12)
    assert float(formula.mean()) < float(mixture(q).log_prob(z[:8]).mean()) - 1


def test_the_parts_of_a_gaussian_aggregate_are_its_closed_forms() -> None:
    """x ~ N(0, C), q(z|x) = N(x, s^2 I): q(z) = N(0, C + s^2 I), whose three parts are known.

    2,000 examples and one draw of each: within 4.5 standard errors, refused once in 150,000 seeds for each part, and
    0.02 for what the number of examples adds.
    """
    own, s = torch.tensor([[1.0, 0.8], [0.8, 1.0]]).double(), 0.6
    with rng.forked("cpu", 5):
        x = torch.randn(2000, 2, dtype=torch.float64) @ torch.linalg.cholesky(own).T
        q = Independent(Normal(x, torch.full_like(x, s)), 1)
        z = q.sample()
    parts = rate_parts(q, prior(2), z, torch.tensor(2000), "stratified")
    cov = own + s**2 * torch.eye(2).double()
    information = 0.5 * float(torch.logdet(cov)) - 2 * math.log(s)
    total = 0.5 * float(cov.diagonal().log().sum() - torch.logdet(cov))
    kl = float(0.5 * (cov.diagonal() - 1 - cov.diagonal().log()).sum())
    for part, exact in zip(parts, (information, total, kl), strict=True):
        assert abs(float(part.mean()) - exact) < 4.5 * float(part.std()) / 2000**0.5 + 0.02
    assert total > 0.2


@pytest.mark.parametrize("kernel", KERNELS)
def test_mmd_has_the_gradient_of_finite_differences(kernel: str) -> None:
    g = torch.Generator().manual_seed(0)
    x, y = torch.randn(2, 6, 3, generator=g, dtype=torch.float64)
    x[1] = x[0]  # a distance of 0
    assert torch.autograd.gradcheck(lambda a: mmd(a, y, kernel, 6.0), (x.requires_grad_(),), eps=1e-6)


def test_squared_distances_far_from_the_origin_keep_their_digits() -> None:
    x = torch.randn(50, 4, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(squared_distances(x + 1000, x + 1000), squared_distances(x, x), atol=0.01)
    with torch.autocast("cpu", torch.bfloat16):
        found = squared_distances(x, x)
    assert found.dtype == torch.float32
    assert float((found - torch.cdist(x, x).square()).abs().max()) < 1e-4


@pytest.mark.parametrize("kernel", KERNELS)
def test_the_discrepancy_of_codes_from_the_prior_is_0_on_average(kernel: str) -> None:
    """2,000 batches of 8: |z| < 4, refused once in 16,000 seeds. The biased statistic is above 0 by 2/8 of a kernel."""
    p = prior(3)
    with rng.forked("cpu", 7):
        found = torch.stack([discrepancy(p.sample(torch.Size([8])), p, kernel) for _ in range(2000)])
        apart = torch.stack([discrepancy(1.5 * p.sample(torch.Size([8])), p, kernel) for _ in range(2000)])
    error = float(found.std()) / 2000**0.5
    assert abs(float(found.mean())) < 4 * error < 0.02
    assert float(apart.mean()) > 4 * error


def test_the_unit_of_the_discrepancy_is_the_squared_distance_of_two_draws_from_the_prior() -> None:
    """Of normals of scales 2 and 3 it is 2 (4 + 9) on average."""
    p, z = Independent(Normal(torch.zeros(2), torch.tensor([2.0, 3.0])), 1), torch.randn(8, 2)
    with rng.forked("cpu", 1):
        found = discrepancy(z, p, "imq")
    with rng.forked("cpu", 1):
        draws = p.sample(torch.Size([8]))
    assert torch.equal(found, mmd(z, draws, "imq", 26.0))


def test_a_prior_cannot_lower_the_discrepancy_by_its_kernel() -> None:
    """Of a prior whose draws have no gradient, it has none: the unit is a constant."""

    class Drawn(Normal):
        has_rsample = False

    scale = torch.ones(2, requires_grad=True)
    p = Independent(Drawn(torch.zeros(2), scale), 1)
    assert p.variance.requires_grad and not discrepancy(torch.randn(8, 2), p, "imq").requires_grad


def test_the_unit_of_a_prior_without_a_variance_is_estimated() -> None:
    """Of a flow: two variances of 1,000 draws each, within 16 % of 2 (4 + 9), at most 4 errors of 4 %."""
    base = Independent(Normal(torch.zeros(2), torch.ones(2)), 1)
    flow = TransformedDistribution(base, [AffineTransform(torch.ones(2), torch.tensor([2.0, 3.0]), event_dim=1)])
    with pytest.raises(NotImplementedError):
        _ = flow.variance
    with rng.forked("cpu", 1):
        assert float(distance(flow)) == pytest.approx(26, rel=0.16)
        assert torch.isfinite(discrepancy(torch.randn(8, 2), flow, "imq"))


def test_the_discrepancy_of_a_single_code_is_0_and_has_a_gradient() -> None:
    z = torch.randn(1, 3, requires_grad=True)
    value = discrepancy(z, StandardNormal(3)(), "imq")
    value.backward()  # type: ignore[no-untyped-call]
    assert float(value.detach()) == 0 and z.grad is not None and float(z.grad.abs().max()) == 0


def test_the_covariance_penalties_by_hand() -> None:
    """Halves of two examples: means (0, 0) and (2, 4), variances 1 and 9; means (0, 0) and (2, 2), variances 1."""
    mean = torch.tensor([[0.0, 0.0], [0.0, 0.0], [2.0, 4.0], [2.0, 2.0]])
    q = Independent(Normal(mean, torch.tensor([1.0, 1.0, 3.0, 1.0])[:, None].expand(4, 2)), 1)
    first, second = slice(0, None, 2), slice(1, None, 2)
    assert covariance(q, "means", first).tolist() == [[2, 4], [4, 8]]
    assert covariance(q, "means", second).tolist() == [[2, 2], [2, 2]]
    assert covariance(q, "codes", first).tolist() == [[7, 4], [4, 13]]
    assert covariance(q, "codes", second).tolist() == [[3, 2], [2, 3]]
    assert [float(v) for v in off_whiteness(q, "means")] == [2 * 4 * 2, 1 * 1 + 7 * 1]
    assert [float(v) for v in off_whiteness(q, "codes")] == [2 * 4 * 2, 6 * 2 + 12 * 2]
    for n in (1, 3):
        few = Independent(Normal(mean[:n], torch.ones(n, 2)), 1)
        assert [float(v) for v in off_whiteness(few, "codes")] == [0, 0]


def test_the_covariance_penalties_are_0_at_whitened_codes() -> None:
    x = torch.randn(2, 50, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    x = x - x.mean(1, keepdim=True)
    white = torch.stack([half @ torch.linalg.inv(torch.linalg.cholesky(half.T.cov()).T) for half in x], 1).flatten(0, 1)
    q = Independent(Normal(white, torch.full_like(white, 0.5)), 1)
    assert max(abs(float(v)) for v in off_whiteness(q, "means")) < 1e-20
    narrower = Independent(Normal(0.75**0.5 * white, torch.full_like(white, 0.5)), 1)  # 0.75 + 0.25 = 1
    assert max(abs(float(v)) for v in off_whiteness(narrower, "codes")) < 1e-20


@pytest.mark.parametrize(("of", "noise"), [("means", 0.0), ("codes", 0.35)])
def test_the_covariance_penalties_have_no_bias(of: Any, noise: float) -> None:
    """1,500 batches of 64 in 32 dimensions, each mean within 4 errors: |z| > 4 is refused once in 16,000 seeds.

    The control, the square of one covariance, is too large by C_ii C_jj + C_ij^2 over 63, here by 10 and more.
    """
    root = torch.eye(32, dtype=torch.float64) + 0.05 * torch.randn(
        32, 32, generator=torch.Generator().manual_seed(2), dtype=torch.float64
    )
    own = root @ root.T
    true = own + noise * torch.eye(32, dtype=torch.float64)
    exact = [float((own - own.diagonal().diag()).square().sum()), float((true.diagonal() - 1).square().sum())]
    found, square = [], []
    with rng.forked("cpu", 3):
        for _ in range(1500):
            mean = torch.randn(64, 32, dtype=torch.float64) @ root.T
            scale = (0.2 + 0.3 * torch.rand(64, 32, dtype=torch.float64)).sqrt()  # variances of 0.35 on average
            q = Independent(Normal(mean, scale), 1)
            found.append(torch.stack(off_whiteness(q, of)))
            whole = covariance(q, of)
            square.append((whole - whole.diagonal().diag()).square().sum())
    each = torch.stack(found)
    error = each.std(0) / 1500**0.5
    for value, stderr, expected in zip(each.mean(0).tolist(), error.tolist(), exact, strict=True):
        assert abs(value - expected) < 4 * stderr < 1, (value, expected, stderr)
    assert float(torch.stack(square).mean()) > exact[0] + 10


def test_covariance_under_autocast_is_that_in_single_precision() -> None:
    q = Independent(Normal(torch.randn(30, 4), torch.ones(30, 4)), 1)
    with torch.autocast("cpu", torch.bfloat16):
        found = covariance(q, "means")
    assert found.dtype == torch.float32
    assert torch.allclose(found, q.mean.T.cov(), atol=1e-5)


# the objective


def batch(n: int = 12) -> Batch:
    return Batch(torch.randn(n, 6, generator=torch.Generator().manual_seed(3)))


def model(name: str, **options: Any) -> RegularizedVAE:
    return fresh(name, rows(batch().x), latent_dim=3, net="mlp", **options)  # type: ignore[return-value]


def loss_of(found: Any, clock: Clock | None = None) -> Tensor:
    with rng.forked("cpu", 4):
        loss: Tensor = found.elbo(batch(), clock or Clock.final()).loss
    return loss.detach()


def test_with_weights_that_do_nothing_it_is_the_vae_to_the_last_bit() -> None:
    for clock in (Clock(), Clock.final()):
        assert torch.equal(loss_of(model("vae"), clock), loss_of(model("beta-tc-vae", total_correlation=1.0), clock))
        off = {"off_diagonal": 0.0, "diagonal": 0.0}
        assert torch.equal(loss_of(model("vae"), clock), loss_of(model("dip-vae", **off), clock))
    assert torch.equal(loss_of(model("vae", beta=0.5)), loss_of(model("info-vae", mmd=0.0)))


def test_the_weights_are_those_of_the_parts() -> None:
    """``distortion + beta * (rate + sum of (weight - 1) * part)``, with the parts that are logged."""
    weights = {"information": 0.5, "total_correlation": 6.0, "dimension_kl": 2.0}
    found = model("beta-tc-vae", beta=3.0, **weights)
    with rng.forked("cpu", 4):
        terms = found.elbo(batch(), Clock.final())
    expected = terms.parts["rate"] + sum((w - 1) * terms.parts[k] for k, w in weights.items())
    assert float(terms.loss.detach()) == pytest.approx(
        float((terms.parts["distortion"] + 3 * expected).mean()), rel=1e-6
    )


def test_the_weighted_penalties_are_added() -> None:
    plain = float(loss_of(model("vae")))
    found = model("dip-vae", off_diagonal=5.0, diagonal=7.0, mmd=11.0)
    with rng.forked("cpu", 4):
        terms = found.elbo(batch(), Clock.final())
    added = 5 * terms.scalars["off_diagonal"] + 7 * terms.scalars["diagonal"] + 11 * terms.scalars["mmd"]
    assert float(terms.loss.detach()) == pytest.approx(plain + float(added), rel=1e-6)
    assert all(float(terms.scalars[name]) != 0 for name in ("off_diagonal", "diagonal", "mmd"))


@pytest.mark.parametrize("name", ["beta-tc-vae", "dip-vae", "info-vae", "factor-vae"])
def test_the_bound_is_the_plain_one(name: str) -> None:
    own, plain = registry.build(name, Spec((6,)), latent_dim=3, net="mlp"), model("vae")
    own.load_state_dict(plain.state_dict(), strict=False)
    for call in ("bound", "log_prob"):
        with rng.forked("cpu", 4):
            a = getattr(own, call)(batch())
        with rng.forked("cpu", 4):
            b = getattr(plain, call)(batch())
        assert torch.equal(a.elbo if call == "bound" else a, b.elbo if call == "bound" else b)


def test_the_training_examples_are_counted_before_the_first_update(tmp_path: Any) -> None:
    data = rows(torch.randn(70, 6))
    for name, count in (("beta-tc-vae", 70), ("dip-vae", 0)):
        own: Any = fresh(name, data, latent_dim=3, net="mlp")
        loop, run = make_loop(own, data, tmp_path / name, epochs=1, batch_size=16)
        loop.fit()
        assert int(own.examples) == count
        assert int(run.load_model().examples) == count  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["beta-tc-vae", "dip-vae", "info-vae", "wae", "factor-vae", "aae"])
def test_a_batch_of_one_example_has_a_finite_loss(name: str) -> None:
    """The last batch of a validation may be one; training refuses it where the objective has statistics of a batch."""
    own = registry.build(name, Spec((6,)), latent_dim=3, net="mlp")
    for phase in own.phases():
        loss = phase.loss(batch(1), Clock.final()).loss
        loss.backward()  # type: ignore[no-untyped-call]
        assert torch.isfinite(loss)
        assert all(torch.isfinite(p.grad).all() for p in own.parameters() if p.grad is not None)


class Learnt(torch.nn.Module):
    """A prior with a parameter."""

    def __init__(self) -> None:
        super().__init__()
        self.mean = torch.nn.Parameter(torch.zeros(3))

    def forward(self) -> Distribution:
        return Independent(Normal(self.mean, torch.ones(3)), 1)


def test_a_prior_that_no_loss_would_train_is_refused() -> None:
    with pytest.raises(ConfigError, match="no loss trains the prior: choose one without parameters"):
        registry.build("aae", Spec((6,)), latent_dim=3, net="mlp", prior=Learnt())
    own: Any = registry.build("wae", Spec((6,)), latent_dim=3, net="mlp", prior=Learnt())
    own.reconstruction(batch(), Clock()).loss.backward()
    assert float(own.pz.mean.grad.abs().max()) > 0
    plain = StandardNormal(3)
    assert registry.build("aae", Spec((6,)), latent_dim=3, net="mlp", prior=lambda: plain()).sample(2).shape == (2, 6)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("beta-tc-vae", {"total_correlation": -1.0}, "total_correlation"),
        ("info-vae", {"mmd": math.inf}, "mmd"),
        ("beta-tc-vae", {"sampling": "even"}, "sampling is one of stratified, weighted"),
        ("dip-vae", {"covariance": "all"}, "covariance is one of means, codes"),
        ("info-vae", {"kernel": "linear"}, "kernel is one of imq, rbf"),
        ("wae", {"kernel": "linear"}, "kernel is one of imq, rbf"),
        ("wae", {"divergence": "kl"}, "divergence is one of mmd, adversarial"),
        ("wae", {"weight": -1.0}, "weight of a divergence"),
        ("aae", {"adversary": "relativistic"}, "adversary is one of"),
        ("aae", {"critic_width": 0}, "critic_width"),
        ("factor-vae", {"critic_depth": 0}, "critic_depth"),
        ("factor-vae", {"gamma": -1.0}, "gamma"),
    ],
)
def test_what_makes_no_sense_is_refused(name: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        registry.build(name, Spec((6,)), **options)

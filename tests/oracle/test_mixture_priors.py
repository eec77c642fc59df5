"""Priors that are mixtures, against closed forms and the aggregate posterior."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.distributions import Categorical, Independent, MixtureSameFamily, Normal

from helpers import fit, fresh, rows
from sandglass import rng
from sandglass.core import Batch, Clock, Model, Spec
from sandglass.distributions import mixture
from sandglass.distributions.mixture import HierarchicalMixturePrior, Mixture, MixturePrior
from sandglass.errors import ConfigError
from sandglass.registry import build

NET = {"name": "mlp", "widths": [16]}


def clusters(n: int, seed: int = 0) -> torch.Tensor:
    """Four clusters in the corners of a square, seen through a fixed map of 2 to 6 numbers."""
    with rng.forked("cpu", seed):
        corner = 3 * (2 * torch.randint(2, (n, 2)).float() - 1)
        return (corner + 0.3 * torch.randn(n, 2)) @ torch.linspace(-1, 1, 12).reshape(2, 6) + 0.1 * torch.randn(n, 6)


def test_a_mixture_is_that_of_torch(monkeypatch: object) -> None:
    """Density, mean and variance; in parts without gradients, with the same numbers."""
    prior = MixturePrior(3, components=4).double()
    prior.logits.data = torch.randn(4).double()
    loc, scale = prior.h[:, :3], (0.5 * prior.h[:, 3:]).exp()
    wanted = MixtureSameFamily(Categorical(logits=prior.logits), Independent(Normal(loc, scale), 1))
    p, z = prior(), torch.randn(7, 5, 3).double()
    assert torch.allclose(p.log_prob(z), wanted.log_prob(z), atol=1e-12)
    assert torch.allclose(p.mean, wanted.mean) and torch.allclose(p.variance, wanted.variance)
    whole, mixture._AT_ONCE = mixture._AT_ONCE, 24
    with torch.no_grad():
        assert torch.allclose(p.log_prob(z), wanted.log_prob(z), atol=1e-12)
    mixture._AT_ONCE = whole
    with rng.forked("cpu", 0):
        drawn = p.sample((50_000,))
    assert torch.all((drawn.mean(0) - wanted.mean).abs() < 5 * (wanted.variance / 50_000).sqrt())


def test_a_mixture_of_mixtures_is_the_flat_one_with_weights_multiplied() -> None:
    """Density against the torch mixture of its groups; the probabilities of groups by Bayes' rule."""
    prior = HierarchicalMixturePrior(2, groups=3, components=4).double()
    prior.logits.data, prior.shares.data = torch.randn(3).double(), torch.randn(3, 4).double()
    loc, log_variance = (prior.centres[:, None] + prior.offsets).chunk(2, -1)
    inner = Independent(Normal(loc, (0.5 * log_variance).exp()), 1)
    groups = MixtureSameFamily(Categorical(logits=prior.shares), inner)
    wanted = MixtureSameFamily(Categorical(logits=prior.logits), groups)
    z = torch.randn(7, 2).double()
    assert torch.allclose(prior().log_prob(z), wanted.log_prob(z), atol=1e-12)
    joint = groups.log_prob(z[:, None]) + prior.logits.log_softmax(0)
    assert torch.allclose(prior.group(z), joint.softmax(1), atol=1e-12)


def test_pseudo_inputs_begin_as_training_examples() -> None:
    """A random subset of all, each once, whatever the batches; repeated where there are too few."""
    x = torch.arange(200.0).reshape(100, 2)
    model = fresh("vae", rows(x), latent_dim=2, net=NET, prior={"name": "vamp", "pseudo_inputs": 30})
    (stage,) = model.stages()
    assert stage.fit is not None
    assert stage.fit(lambda: (Batch(part) for part in x.split(7)), None) == {"components": 30.0}
    before = model.pz.inputs.clone()
    stage.fit(lambda: [Batch(-x)], None)
    assert torch.equal(model.pz.inputs, before), "those of a model that was trained before stay"
    chosen = {tuple(row) for row in model.pz.inputs.tolist()}
    assert len(chosen) == 30 and chosen <= {tuple(row) for row in x.tolist()}
    assert max(row[0] for row in chosen) > 100, "not the first ones"
    few = fresh("vae", rows(x), latent_dim=2, net=NET, prior={"name": "vamp", "pseudo_inputs": 30})
    assert few.stages()[0].fit(lambda: [Batch(x[:4])], None) == {"components": 4.0}
    assert len({tuple(row) for row in few.pz.inputs.tolist()}) == 4


def test_with_all_examples_as_pseudo_inputs_it_is_the_aggregate_posterior() -> None:
    """So the mean of log q(z) - log p(z) over draws from q(z) is 0, exactly, before the pseudo-inputs are trained."""
    x = clusters(40)
    model = fresh("vae", rows(x), latent_dim=2, net=NET, prior={"name": "vamp", "pseudo_inputs": 40})
    model.stages()[0].fit(lambda: [Batch(x)], None)
    q = model.posterior(Batch(x))
    z = q.sample()
    aggregate = q.log_prob(z[:, None]).logsumexp(1) - torch.tensor(40.0).log()
    assert torch.allclose(model.prior().log_prob(z), aggregate, atol=1e-5)


def test_the_encoder_has_gradients_through_the_prior_and_is_stored_once() -> None:
    x = clusters(40)
    model = fresh("vae", rows(x), latent_dim=2, net=NET, prior={"name": "vamp", "pseudo_inputs": 5})
    names = [name for name, _ in model.named_parameters() if name.startswith("pz")]
    assert names == ["pz.inputs"]
    model.prior().log_prob(torch.zeros(1, 2)).sum().backward()
    assert all(p.grad is not None for p in model.q.parameters()) and model.pz.inputs.grad is not None
    terms = model.elbo(Batch(x), Clock.final())
    assert terms.loss.isfinite()


def exemplar_model(x: torch.Tensor, exemplars: int) -> Model:
    model = fresh("vae", rows(x), latent_dim=2, net=NET, prior={"name": "exemplar", "exemplars": exemplars})
    model.stages()[0].fit(lambda: [Batch(x, index=torch.arange(len(x)))], None)
    return model


def test_exemplars_are_training_examples_and_an_example_is_modelled_by_the_others() -> None:
    """In training with its place known, and nowhere else; against the mixture of torch without that component."""
    x = clusters(12)
    model, index = exemplar_model(x, 12), torch.arange(12)
    order = model.pz.rows
    assert torch.equal(model.pz.inputs, x[order]) and order.tolist() != index.tolist()
    model.pz.log_scale.data.fill_(-1)
    with torch.no_grad():
        means, z = model.posterior(Batch(x[order])).mean, torch.randn(12, 2)

        def density(kept: torch.Tensor) -> MixtureSameFamily:
            normals = Independent(Normal(means[kept], torch.tensor(-1.0).exp()), 1)
            return MixtureSameFamily(Categorical(torch.ones(int(kept.sum()))), normals)

        whole = density(index >= 0).log_prob(z)
        without = torch.stack([density(order != i).log_prob(z[i]) for i in range(12)])
        batch = Batch(x, index=index)
        assert torch.allclose(model.train().prior(batch).log_prob(z), without, atol=1e-5)
        assert torch.allclose(model.prior(batch).log_prob(torch.stack([z, z])), without.expand(2, 12), atol=1e-5)
        assert torch.allclose(model.eval().prior(batch).log_prob(z), whole, atol=1e-5)
        assert torch.allclose(model.train().prior(Batch(x)).log_prob(z), whole, atol=1e-5)


OBJECTIVES = ("vae", "iwae", "beta-tc-vae", "info-vae", "hamiltonian-vae", "semi-amortized-vae", "vae-gan")


@pytest.mark.parametrize("name", OBJECTIVES)
def test_every_objective_leaves_an_example_s_own_component_out(name: str) -> None:
    """The density of all exemplars enters no objective."""
    x = clusters(40)
    model = fresh(name, rows(x), latent_dim=2, net=NET, prior={"name": "exemplar", "exemplars": 40})
    batches = lambda: [Batch(x, index=torch.arange(40))]  # noqa: E731
    model.stages()[0].fit(batches, None)
    whole, within = model.pz.forward, []

    def forward() -> Mixture:
        p = whole()
        if not within:
            p.log_prob = lambda value: pytest.fail("the density of all exemplars")
        return p

    def without(index: torch.Tensor, own: Any = model.pz.without) -> Mixture:
        within.append(index)
        p = own(index)
        within.clear()
        return p

    model.pz.forward, model.pz.without = forward, without
    model.train().elbo(batches()[0], Clock.final()).loss.backward()
    assert model.pz.log_scale.grad is not None


def test_exemplars_are_found_again_in_another_split() -> None:
    """A model that goes on from another's weights keeps its exemplars; those that are elsewhere have new places."""
    x = clusters(12)
    model = exemplar_model(x, 12)
    other = torch.cat([clusters(3, 5), x[torch.arange(11, 2, -1)]])
    parts = [Batch(other[:7], index=torch.arange(7)), Batch(other[7:], index=torch.arange(7, 12))]
    model.stages()[0].fit(lambda: parts, None)
    for place, row in zip(model.pz.rows.tolist(), model.pz.inputs, strict=True):
        assert torch.equal(other[place], row) if place >= 0 else any(torch.equal(row, one) for one in x[:3])
    assert int((model.pz.rows < 0).sum()) == 3


def test_one_example_is_no_prior_of_exemplars() -> None:
    with pytest.raises(ConfigError, match="two training examples"):
        exemplar_model(clusters(1), 4)


def test_learnt_priors_have_a_better_bound_on_clusters() -> None:
    """Held-out bounds of importance weighting; the standard normal has to fill the gaps between the clusters."""
    train, test = clusters(600), clusters(400, 1)
    reached = {}
    for prior in ("standard", "mixture", "vamp", "maf"):
        own = {"name": "vamp", "pseudo_inputs": 40} if prior == "vamp" else prior
        model = fresh("vae", rows(train), latent_dim=2, net=NET, prior=own)
        fit(model, rows(train), epochs=25, batch_size=50, lr=3e-3)
        with rng.forked("cpu", 0), torch.no_grad():
            reached[prior] = float(model.eval().log_prob(test, k=100).mean())
    assert min(reached[name] for name in ("mixture", "vamp", "maf")) > reached["standard"] + 0.1, reached


def test_pseudo_inputs_do_not_go_with_batch_normalisation() -> None:
    net = {"name": "conv", "width": 4, "hidden": 8, "norm": "batch"}
    with pytest.raises(ConfigError, match="cannot go with batch normalisation"):
        build("vae", Spec((1, 8, 8), "unit"), latent_dim=2, net=net, prior="vamp")

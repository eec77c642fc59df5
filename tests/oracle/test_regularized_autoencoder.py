"""Regularised autoencoders: the objective by its parts, the Jacobian of a known decoder, singular values of 1."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from helpers import fresh, rows
from sandglass import rng
from sandglass.core import Batch, Clock
from sandglass.errors import ConfigError


def batch(n: int = 12) -> Batch:
    return Batch(torch.randn(n, 6, generator=torch.Generator().manual_seed(3)))


def model(name: str, **options: Any) -> Any:
    return fresh(name, rows(batch().x), **{"latent_dim": 3, "net": "mlp", **options})


def reconstruction(own: Any) -> Any:
    with rng.forked("cpu", 4):
        return own.reconstruction(batch(), Clock())


def test_the_objective_is_the_sum_of_its_parts() -> None:
    found = reconstruction(model("rae-gp", weight=3.0, beta=0.5))
    parts = found.parts["distortion"] + 0.25 * found.parts["code_norm"] + 1.5 * found.parts["slope"]
    assert float(found.loss.detach()) == pytest.approx(float(parts.mean()), rel=1e-6)


def test_weights_are_those_of_the_decoder_alone() -> None:
    own = model("rae-l2", weight=3.0, beta=0.0)
    found = reconstruction(own)
    square = sum(float(p.detach().square().sum()) for p in own.p.trunk.parameters())
    assert float(found.scalars["weights"]) == pytest.approx(square, rel=1e-5)
    expected = float(found.parts["distortion"].mean()) + 1.5 * square
    assert float(found.loss.detach()) == pytest.approx(expected, rel=1e-5)


def test_the_slope_is_the_squared_jacobian() -> None:
    """Of a linear decoder it is the sum of its squared weights everywhere.

    Of 20,000 estimates, within five standard errors, which refuses once in a million seeds. It is differentiable: the
    gradient of the expected slope is twice the weights.
    """
    own = model("rae-gp", net="linear")
    (weight,) = (m.weight for m in own.p.trunk.modules() if isinstance(m, torch.nn.Linear))
    with rng.forked("cpu", 5):
        slopes = own.slope(torch.randn(20_000, 3))
    exact, error = float(weight.detach().square().sum()), float(slopes.detach().std()) / 20_000**0.5
    assert abs(float(slopes.detach().mean()) - exact) < 5 * error
    slopes.mean().backward()
    assert float((weight.grad - 2 * weight.detach()).abs().max()) < 0.15 * float(weight.detach().abs().max())


def test_the_slope_has_a_value_where_no_gradient_is_computed() -> None:
    own, z = model("rae-gp"), torch.randn(5, 3)
    with rng.forked("cpu", 5):
        expected = own.slope(z)
    with rng.forked("cpu", 5), torch.no_grad():
        found = own.slope(z)
    assert torch.equal(found, expected.detach()) and not found.requires_grad


def test_the_slope_reaches_encoder_and_decoder() -> None:
    own = model("rae-gp", net={"name": "mlp", "widths": [8], "activation": "silu"})
    own.slope(own.encode(batch())).mean().backward()
    for part in (own.encoder, own.p.trunk):
        assert any(p.grad is not None and float(p.grad.abs().sum()) for p in part.parameters())


def test_every_layer_of_a_spectral_decoder_stretches_by_one() -> None:
    own = model("rae-sn").train()
    for _ in range(100):
        own.p(torch.zeros(1, 3))
    layers = [m for m in own.eval().p.trunk.modules() if isinstance(m, torch.nn.Linear)]
    assert len(layers) == 2
    for layer in layers:
        assert float(torch.linalg.matrix_norm(layer.weight.detach(), 2)) == pytest.approx(1.0, abs=1e-3)
    assert not any("parametrizations" in name for name, _ in own.encoder.named_parameters())


def test_without_weights_it_is_the_autoencoder_to_the_last_bit() -> None:
    plain, own = model("ae"), model("rae-gp", regulariser="none", beta=0.0)
    assert torch.equal(reconstruction(plain).loss, reconstruction(own).loss)


def test_what_has_no_evidence_bound_says_so() -> None:
    for name in ("rae-gp", "rae-l2", "rae-sn"):
        assert not {"bound", "log_prob", "posterior", "prior"} & set(model(name).provides)


@pytest.mark.parametrize("options", [{"regulariser": "l3"}, {"weight": -1.0}, {"beta": float("inf")}])
def test_bad_options_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=next(iter(options))):
        model("rae-gp", **options)


def test_the_prior_is_refused_as_a_sampler() -> None:
    with pytest.raises(ConfigError, match="no prior"):
        model("rae-gp", sampler="prior")

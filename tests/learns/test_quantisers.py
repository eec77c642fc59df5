"""What a preset of the VQ-VAE claims, against its parent on scikit-learn's digits."""

from __future__ import annotations

import pytest
import torch

import sandglass
from helpers import fit, fresh
from sandglass.quantisers.quantiser import usage


@pytest.mark.slow
def test_finite_scalar_quantisation_uses_its_codes_without_replacing_any() -> None:
    """Of 64 codes each, over 60 % are used by FSQ, under 40 % by a codebook whose unused codes are not replaced.

    The claim of Mentzer et al. 2023 (arXiv 2309.15505): no collapse, without replaced codes, commitment or k-means. The
    codes are those of the training examples after 420 updates.
    """
    data = sandglass.load_data("digits")
    x = data.train.batch(slice(None))
    used = {}
    for name, options in (("fsq-vae", {}), ("vq-vae", {"quantiser": {"name": "ema", "revive": 0.0}})):
        model = fresh(name, data, codebook_size=64, **options)
        assert (model.stages()[0].fit is None) == (name == "fsq-vae")
        fit(model, data, epochs=20, batch_size=64, lr=2e-3, schedule="cosine", stage={"prior": {"epochs": 1}})
        with torch.no_grad():
            assert model.eval().quantiser.size == 64
            used[name] = float(usage(model.encode(x), 64)["used"])
    assert used["fsq-vae"] > 0.6 and used["vq-vae"] < 0.4


def rows_of_digits(name: str, size: int, codes: int = 4) -> float:
    """The distortion of test pictures, in nats, of a model with so many vectors a picture and no map."""
    data = sandglass.load_data("digits")
    net = {"name": "mlp", "widths": [128]}
    prior = {"prior_width": 8, "prior_depth": 1, "prior_heads": 2}
    model = fresh(name, data, likelihood="bernoulli", net=net, codes=codes, codebook_size=size, **prior)
    fit(model, data, epochs=25, batch_size=64, lr=3e-3, schedule="cosine", stage={"prior": {"epochs": 1}})
    with torch.no_grad():
        return float(model.eval().bound(data.splits["test"].batch(slice(None))).distortion.mean())


@pytest.mark.slow
def test_residual_quantisation_reconstructs_better_at_the_same_bits() -> None:
    """Two codes of 8 for a vector against one of 64: 6 bits either way, with 16 vectors in the codebooks against 64.

    The claim of Lee et al. 2022 (arXiv 2203.01941) for ``rq-vae`` against ``vq-vae``.
    """
    assert rows_of_digits("rq-vae", 8) < rows_of_digits("vq-vae", 64) - 0.15


@pytest.mark.slow
def test_two_levels_reconstruct_better_at_the_same_bits() -> None:
    """Two codes of 16 at the top and four below against six of 16 in one row: 24 bits either way.

    What Razavi et al. 2019 (arXiv 1906.00446) build ``vq-vae-2`` for, against ``vq-vae``.
    """
    assert rows_of_digits("vq-vae-2", 16) < rows_of_digits("vq-vae", 16, codes=6) - 0.3

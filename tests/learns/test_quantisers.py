"""What a preset of the VQ-VAE claims, against its parent on scikit-learn's digits."""

from __future__ import annotations

import pytest
import torch

import sandglass
from helpers import fit, fresh
from sandglass.models._quantise import usage


@pytest.mark.slow
def test_finite_scalar_quantisation_uses_its_codes_without_replacing_any() -> None:
    """Of 64 codes each, over 60 % are used by FSQ, under 40 % by a codebook whose unused codes are not replaced.

    The claim of Mentzer et al. 2023 (arXiv 2309.15505): no collapse, without replaced codes, commitment or k-means. The
    codes are those of the training examples after 420 updates.
    """
    data = sandglass.load_data("digits")
    x = data.train.batch(slice(None))
    used = {}
    for name, options in (("fsq-vae", {}), ("vq-vae", {"revive": 0.0})):
        model = fresh(name, data, codebook_size=64, **options)
        assert (model.stages()[0].fit is None) == (name == "fsq-vae")
        fit(model, data, epochs=20, batch_size=64, lr=2e-3, schedule="cosine", stage={"prior": {"epochs": 1}})
        with torch.no_grad():
            assert model.eval().quantiser.size == 64
            used[name] = float(usage(model.encode(x), 64)["used"])
    assert used["fsq-vae"] > 0.6 and used["vq-vae"] < 0.4

"""What a Hamiltonian flow is for: a better log p(x) than the VAE with the same nets."""

from __future__ import annotations

from typing import Any

import torch

from benchmarks import importance_weighted as benchmark

DIGITS: dict[str, Any] = {"latent_dim": 8, "net": {"name": "mlp", "widths": [32], "activation": "silu"}}


def test_hamiltonian_vae_gains_nats_over_the_vae() -> None:
    """Of unseen digits in black and white, after 20 epochs; see the page of the model for seeds and margins."""
    data, unseen = benchmark.digits()
    found = {}
    for name, options in (("vae", {}), ("hamiltonian-vae", {"leapfrog": 2})):
        model = benchmark.trained(name, data, 0, {**DIGITS, **options}, epochs=20, lr=3e-3)
        found[name] = benchmark.figures(model, data, unseen[:250])
        assert torch.isfinite(torch.tensor(list(found[name].values()))).all()
    assert found["hamiltonian-vae"]["elbo"] > found["vae"]["elbo"] + 0.2, found
    assert found["hamiltonian-vae"]["log_p"] > found["vae"]["log_p"] + 0.2, found

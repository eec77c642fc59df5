"""What progress shows of a model whose phases all have a loss."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from helpers import Quiet, fresh, make_loop, pictures


class Shown(Quiet):
    """Keeps the terms."""

    def __init__(self) -> None:
        super().__init__()
        self.terms: dict[str, Mapping[str, float]] = {}

    def show(self, split: str, terms: Mapping[str, float]) -> None:
        self.terms[split] = terms


@pytest.mark.parametrize("name", ["factor-vae", "aae", "gan"])
def test_the_loss_is_that_of_the_model_and_not_of_its_critic(name: str, tmp_path: Path) -> None:
    """Of pictures of 64 pixels it is tens of nats, a critic's is about one; of a GAN it is the generator's."""
    data, shown = pictures(), Shown()
    model = fresh(name, data, latent_dim=2, net={"name": "mlp", "widths": [8]})
    loop, run = make_loop(model, data, tmp_path / "run", progress=shown, epochs=1, batch_size=25)
    loop.fit()
    phase = {"factor-vae": "elbo", "aae": "reconstruction", "gan": "generator"}[name]
    for split, term in (("train", "loss"), ("validation", "objective")):
        own = [r["value"] for r in run.metrics() if (r["split"], r["phase"], r["term"]) == (split, phase, term)]
        assert shown.terms[split][term] == pytest.approx(own[-1])

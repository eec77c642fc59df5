"""The precision that is chosen where none is given."""

from __future__ import annotations

from typing import Any

import pytest

from sandglass import registry
from sandglass.core import Spec
from sandglass.engine import device


@pytest.mark.parametrize(
    ("net", "chosen"),
    [
        ({"name": "mlp", "widths": [512]}, "bf16"),
        ({"name": "mlp", "widths": [256]}, "fp32"),
        ({"name": "conv", "width": 32, "hidden": 64}, "bf16"),
        ({"name": "conv", "width": 8, "hidden": 64}, "fp32"),
    ],
)
def test_bf16_is_chosen_for_wide_layers_where_the_cpu_has_it(
    net: dict[str, Any], chosen: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = registry.build("vae", Spec((1, 28, 28), "unit"), latent_dim=2, likelihood="bernoulli", net=net)
    for there in (True, False):
        monkeypatch.setattr(device, "has_bf16", lambda there=there: there)
        assert device.settle_precision("cpu", model.stages()) == (chosen if there else "fp32")
    assert device.settle_precision("cuda", model.stages()) == "tf32"
    monkeypatch.setattr(device, "has_bf16", lambda: True)
    assert device.settle_precision("cpu", model.double().stages()) == "fp32"

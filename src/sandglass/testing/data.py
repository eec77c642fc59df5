"""Small random data made for a model by what it needs: labels, companions and unpaired sets where it asks for them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from sandglass import registry, rng
from sandglass.core import Batch, Model, Spec
from sandglass.errors import ConfigError

SPECS = {
    "row": Spec((6,)),
    "grey": Spec((1, 9, 7), "unit"),
    "colour": Spec((3, 12, 17), "unit"),
    "binary": Spec((1, 5, 5), "binary"),
}
"""Kinds of data that a model is checked on."""

NETS: dict[str, dict[str, Any]] = {"conv": {"width": 4, "hidden": 16}, "mlp": {"widths": [16]}}
"""Small networks, for images and for rows."""

FEW = {"latent_dim": 3, "second_dim": 2, "codebook_size": 6, "code_dim": 3, "prior_width": 8, "prior_depth": 1}
FEW |= {"flow_width": 8, "flow_depth": 1, "blocks": 1, "z_channels": 2}
"""Small values of options that some models have; each of them refuses 0."""

_NO_COMPANION = ("labels", "complete", "beside")


def spec_for(name: str, kind: str) -> Spec:
    """Data of a kind, with all that the model needs with it."""
    spec = SPECS[kind]
    needs = registry.declared(name).needs
    given = {n: replace(spec, classes=0) for need in needs if (n := need.partition(":")[0]) not in _NO_COMPANION}
    beside = {need.removeprefix("beside:"): spec for need in needs if need.startswith("beside:")}
    return replace(spec, classes=3 if "labels" in needs else 0, given=given, beside=beside)


def suits(name: str, kind: str) -> bool:
    """Whether the model is for such data: one that needs images, or a likelihood of images, is not for rows."""
    if not SPECS[kind].is_image and any(need.endswith(":image") for need in registry.declared(name).needs):
        return False
    likelihood = registry.entry("model", name).preset.get("likelihood", "auto")
    try:
        registry.resolve("likelihood", likelihood, SPECS[kind], spec=SPECS[kind])
    except ConfigError:
        return False
    return True


def small(name: str) -> dict[str, Any]:
    """Few latents and little else, where that is an option."""
    return {o.name: FEW[o.name] for o in registry.schema("model", name) if o.name in FEW}


def make(name: str, spec: Spec, **options: Any) -> Model:
    """A small model with the same weights every time."""
    net = "conv" if spec.is_image else "mlp"
    for option in registry.schema("model", name):
        if option.kind == "net":
            options.setdefault(option.name, {"name": net, **NETS[net]})
    with rng.forked("cpu", 0, "weights"):
        return registry.build(name, spec, **{**small(name), **options})


def batch(spec: Spec, n: int = 16, seed: int = 0) -> Batch:
    """Examples with labels, companions and unpaired sets, as the data has them."""
    x = torch.randn(n, *spec.shape, generator=torch.Generator().manual_seed(seed))
    x = x if spec.support == "real" else (x > 0).float() if spec.support == "binary" else x.sigmoid()
    y = torch.arange(n) % spec.classes if spec.classes else None
    given = {name: batch(s, n, seed + 101 + i).x for i, (name, s) in enumerate(spec.given.items())}
    return Batch(x, y, given=given, beside={name: batch(s, n, seed + 2) for name, s in spec.beside.items()})


def observed(x: Tensor) -> Tensor:
    """A mask of ``x`` that is True for about 70% of its values."""
    return torch.rand(x.shape, generator=torch.Generator().manual_seed(1)) > 0.3


def given_of(data: Batch) -> Batch:
    """The conditions alone, and the unpaired sets."""
    return replace(data, x=None, mask=None, index=None)  # type: ignore[arg-type]

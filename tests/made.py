"""Data made for a model by what it needs: labels, companions and sets beside where it asks for them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch

from sandglass import registry
from sandglass.core import Batch, Model, Spec
from sandglass.data.dataset import Dataset, Split
from sandglass.data.transform import ArrayTransform

SPECS = {
    "row": Spec((6,)),
    "grey": Spec((1, 9, 7), "unit"),
    "colour": Spec((3, 12, 17), "unit"),
    "binary": Spec((1, 5, 5), "binary"),
}
MODELS = registry.names("model")
NETS = {"conv": {"width": 4, "hidden": 16}, "mlp": {"widths": [16]}}


def distinct() -> list[str]:
    """Names of models that differ in class, needs or weights; all other names are variants of these."""
    found: dict[Any, str] = {}
    for name in sorted(MODELS, key=lambda name: bool(registry.entry("model", name).preset)):
        model = registry.declared(name)
        weights = tuple((key, tuple(value.shape)) for key, value in model.state_dict().items())
        found.setdefault((type(model), model.needs, weights), name)
    return list(found.values())


def tiered(kinds: Sequence[str], names: Sequence[str] | None = None, full: Sequence[str] | None = None) -> list[Any]:
    """(name, kind) of every model and the data it suits, as parameters of a test.

    Kinds after the first are slow ones, except for the models in ``full``, by default all distinct ones.
    """
    first = set(distinct() if full is None else full)
    made = []
    for name in MODELS if names is None else names:
        suited = [kind for kind in kinds if suits(name, kind)]
        for place, kind in enumerate(suited):
            slow = [pytest.mark.slow] if name not in first and place else []
            made.append(pytest.param((name, kind), id=f"{name}-{kind}", marks=slow))
    return made


def spec_for(name: str, kind: str) -> Spec:
    """Data of that kind, with all that the model needs beside it."""
    spec = SPECS[kind]
    needs = registry.declared(name).needs
    given = {n: replace(spec, classes=0) for need in needs if (n := need.partition(":")[0]) not in NO_COMPANION}
    beside = {need.removeprefix("beside:"): spec for need in needs if need.startswith("beside:")}
    return replace(spec, classes=3 if "labels" in needs else 0, given=given, beside=beside)


NO_COMPANION = ("labels", "complete", "beside")


def suits(name: str, kind: str) -> bool:
    """Whether the model is for such data at all: one that needs pictures is not for rows."""
    images = any(need.endswith(":image") for need in registry.declared(name).needs)
    return SPECS[kind].is_image or not (images or name in IMAGES_ONLY)


IMAGES_ONLY: set[str] = set()


def small(name: str) -> dict[str, Any]:
    """Few latents and little else, where that is an option; each option refuses 0."""
    return {o.name: FEW[o.name] for o in registry.schema("model", name) if o.name in FEW}


FEW = {"latent_dim": 3, "codebook_size": 6, "code_dim": 3, "prior_width": 8, "prior_depth": 1}
FEW |= {"flow_width": 8, "flow_depth": 1}


def batch(spec: Spec, n: int = 16, seed: int = 0) -> Batch:
    """Examples with labels, companions and sets beside, as the data has them."""
    x = torch.randn(n, *spec.shape, generator=torch.Generator().manual_seed(seed))
    x = x if spec.support == "real" else (x > 0).float() if spec.support == "binary" else x.sigmoid()
    y = torch.arange(n) % spec.classes if spec.classes else None
    given = {name: batch(s, n, seed + 101 + i).x for i, (name, s) in enumerate(spec.given.items())}
    return Batch(x, y, given=given, beside={name: batch(s, n, seed + 2) for name, s in spec.beside.items()})


def given_of(model: Model, data: Batch) -> Batch:
    """The conditions alone, and the sets beside."""
    return replace(data, x=None, mask=None, index=None)


def dataset(spec: Spec, *, gaps: bool = False) -> Dataset:
    """Few examples with all that their spec says, a third of their values missing where there are to be gaps."""

    def split(n: int, seed: int) -> Split:
        data = batch(spec, n, seed)
        mask = torch.rand(data.x.shape, generator=torch.Generator().manual_seed(seed)) > 0.3 if gaps else None
        beside = {k: Split(b.x) for k, b in data.beside.items()}
        return Split(data.x, data.y, mask=mask, given=data.given, beside=beside)

    splits = {"train": split(50, 3), "validation": split(10, 4)}
    classes = tuple("abc"[: spec.classes])
    return Dataset("made", spec, ArrayTransform(spec.shape), splits, classes=classes, fingerprint="made")

"""Data made for a model by what it needs: labels, companions and sets beside where it asks for them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch

from sandglass import registry
from sandglass.core import Spec
from sandglass.data.dataset import Dataset, Split
from sandglass.data.transform import ArrayTransform
from sandglass.testing.data import NETS, SPECS, batch, given_of, small, spec_for, suits

__all__ = [
    "MODELS",
    "NETS",
    "SPECS",
    "batch",
    "dataset",
    "distinct",
    "given_of",
    "kinds",
    "normed",
    "small",
    "spec_for",
    "suits",
    "tiered",
    "with_prior",
]

MODELS = registry.names("model")


def distinct() -> list[str]:
    """Names of models that differ in class, needs or weights; all other names are variants of these."""
    found: dict[Any, str] = {}
    for name in sorted(MODELS, key=lambda name: bool(registry.entry("model", name).preset)):
        model = registry.declared(name)
        weights = tuple((key, tuple(value.shape)) for key, value in model.state_dict().items())
        found.setdefault((type(model), model.needs, weights), name)
    return list(found.values())


def kinds() -> list[str]:
    """Names of models that differ in class or needs."""
    found: dict[Any, str] = {}
    for name in distinct():
        model = registry.declared(name)
        found.setdefault((type(model), model.needs), name)
    return list(found.values())


def normed(name: str) -> dict[str, str]:
    """The option of a net with batch normalisation, or with group normalisation for a model that cannot have it."""
    return {"norm": "group" if hasattr(getattr(registry.declared(name), "pz", None), "attach") else "batch"}


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


def with_prior(prior: Any, dim: int) -> Any:
    """A VAE of rows with this prior, and a posterior whose codes are of the same kind."""
    name = prior if isinstance(prior, str) else prior["name"]
    support = getattr(registry.entry("prior", name).make, "support", "real")
    same = [n for n in registry.names("posterior") if registry.entry("posterior", n).make.support == support]  # type: ignore[attr-defined]
    posterior = "gaussian" if support == "real" else same[0]
    return registry.build("vae", Spec((6,)), latent_dim=dim, net="linear", posterior=posterior, prior=prior)


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

"""Weights of another model to start from."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import nn

from sandglass.core import Model, Stage
from sandglass.errors import ConfigError
from sandglass.runs.load import load


def start_from(model: Model, source: str | Path) -> list[str]:
    """Copies the weights of another run or model folder into ``model``: all of them, or else the bodies that fit.

    A body is a network without its last layer. So a model with a larger latent, another likelihood or another objective
    starts from the features that an encoder has already learnt.

    Returns:
        The names of the networks whose bodies were copied; empty where all weights were.

    Raises:
        ConfigError: no body fits.
    """
    theirs = load(source, **model.custom)
    if _layout(theirs) == _layout(model):
        model.load_state_dict(theirs.state_dict())
        return []
    copied, unused = [], list(bodies(theirs).values())
    for name, body in bodies(model).items():
        layout = _layout(body)
        found = next((other for other in unused if layout and _layout(other) == layout), None)
        if found is not None:
            body.load_state_dict(found.state_dict())
            unused.remove(found)
            copied.append(name)
    if not copied:
        here, there = dict(_layout(model)), dict(_layout(theirs))
        name = next(name for name in [*here, *there] if here.get(name) != there.get(name))
        shapes = [f"of shape {tuple(shapes[name])}" if name in shapes else "missing" for shapes in (here, there)]
        raise ConfigError(
            f"The weights of {source} do not fit this model, not even the body of a network: "
            f"'{name}' is {shapes[0]} in the model and {shapes[1]} there."
        )
    return copied


def start_after(before: Sequence[Stage], model: Model, source: str | Path) -> None:
    """Copies from another run or model folder what stages before have trained: all parts of the model that are alike.

    Args:
        before: the stages.
        model: to be trained further.
        source: the run or model folder.

    Raises:
        ConfigError: a parameter that these stages train is not there, or not of that shape.
    """
    theirs = load(source, **model.custom)
    others = {name: _layout(part) for name, part in theirs.named_children()}
    alike = {name for name, part in model.named_children() if others.get(name) == _layout(part)}
    known = theirs.state_dict()
    trained = {id(p) for stage in before for phase in stage.phases for p in phase.parameters()}
    tensors = [*model.named_parameters(), *model.named_buffers()]
    with torch.no_grad():
        for name, value in tensors:
            part, _, rest = name.partition(".")
            if name in known and (part in alike or (not rest and known[name].shape == value.shape)):
                value.copy_(known[name])
            elif id(value) in trained:
                raise ConfigError(_differs(before[-1].name, source, part, model, theirs))


def _differs(stage: str, source: str | Path, part: str, model: Model, theirs: Model) -> str:
    """The message about the first tensor of a part that is not as it is there."""
    here, there = ({name: shape for name, shape in _layout(m) if name.split(".")[0] == part} for m in (model, theirs))
    name = next(name for name in [*here, *there] if here.get(name) != there.get(name))
    shapes = [f"of shape {tuple(shapes[name])}" if name in shapes else "missing" for shapes in (here, there)]
    return f"The stage {stage} of {source} trained another model: '{name}' is {shapes[0]} here and {shapes[1]} there."


def bodies(model: Model) -> dict[str, nn.Module]:
    """The bodies of a model's encoders, by name: of all networks whose last layer, the head, is linear."""
    found = {name: m for name, m in model.named_modules() if isinstance(getattr(m, "head", None), nn.Linear)}
    return {name: m.body for name, m in found.items() if isinstance(m.body, nn.Module)}


def _layout(module: nn.Module) -> list[tuple[str, torch.Size]]:
    return [(name, value.shape) for name, value in module.state_dict().items()]

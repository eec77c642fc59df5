"""Optimisers by name, and updates that can be masked on the device."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from sandglass.core import Phase
from sandglass.engine.options import Training

_DEFAULT_LR = 1e-3


def make_optimizer(phase: Phase, options: Training) -> torch.optim.Optimizer:
    """The optimiser of a phase: the run's options, with the phase's own where the run leaves them open."""
    params = phase.parameters()
    lr = options.lr if options.lr is not None else phase.optim.get("lr", _DEFAULT_LR)
    common: dict[str, Any] = {"lr": lr, "weight_decay": options.weight_decay}
    if options.optimizer in ("adam", "adamw"):
        kind = torch.optim.Adam if options.optimizer == "adam" else torch.optim.AdamW
        return kind(params, **common, fused=True, betas=phase.optim.get("betas", (0.9, 0.999)))
    if options.optimizer == "sgd":
        return torch.optim.SGD(params, **common, momentum=options.momentum)
    return torch.optim.RMSprop(params, **common, momentum=options.momentum)


def masked_step(optimizer: torch.optim.Optimizer, good: Tensor) -> None:
    """One update where the 0-d tensor ``good`` is True, none where it is False, without asking the host which.

    The fused kernels of Adam take such a flag themselves; elsewhere everything is put back afterwards.
    """
    if isinstance(optimizer, torch.optim.Adam):
        optimizer.found_inf = (~good).to(torch.float32)  # type: ignore[attr-defined]
        optimizer.step()
        return
    params = [p for group in optimizer.param_groups for p in group["params"]]
    before = [p.detach().clone() for p in params]
    state = {(p, key): value.clone() for p in params for key, value in _tensors(optimizer.state.get(p, {}))}
    optimizer.step()
    with torch.no_grad():
        for p, old in zip(params, before, strict=True):
            p.copy_(torch.where(good, p, old))
            for key, value in _tensors(optimizer.state.get(p, {})):
                old_value = state.get((p, key))
                kept = torch.zeros_like(value) if old_value is None else old_value
                value.copy_(torch.where(good.to(value.device), value, kept))


def _tensors(state: Mapping[str, Any]) -> Iterable[tuple[str, Tensor]]:
    return [(key, value) for key, value in state.items() if isinstance(value, Tensor)]


def optimizer_tensors(optimizer: torch.optim.Optimizer, prefix: str) -> dict[str, Tensor]:
    """The state of an optimiser as named tensors, ``prefix/parameter number/key``."""
    params = [p for group in optimizer.param_groups for p in group["params"]]
    return {f"{prefix}/{i}/{key}": v for i, p in enumerate(params) for key, v in _tensors(optimizer.state.get(p, {}))}


def load_optimizer_tensors(optimizer: torch.optim.Optimizer, prefix: str, tensors: Mapping[str, Tensor]) -> None:
    """The inverse of :func:`optimizer_tensors`."""
    params: list[nn.Parameter] = [p for group in optimizer.param_groups for p in group["params"]]
    fused = bool(optimizer.param_groups[0].get("fused"))
    for name, value in tensors.items():
        if name.startswith(f"{prefix}/"):
            _, number, key = name.rsplit("/", 2)
            p = params[int(number)]
            device = p.device if fused or key != "step" else "cpu"
            optimizer.state[p][key] = value.to(device, copy=True)

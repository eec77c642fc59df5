"""Optimisers by name, and updates that are masked on the device."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from sandglass.core import OPTIM, Phase, Stage
from sandglass.engine.options import Training
from sandglass.engine.sharding import gathered, parts, piece
from sandglass.errors import CheckpointError, ConfigError

_DEFAULTS = {"lr": 1e-3, "betas": (0.9, 0.999), "weight_decay": 0.0, "momentum": 0.9}


class Adam(torch.optim.Optimizer):
    """Adam and AdamW by PyTorch's fused kernel, without the overhead of its ``step()``.

    Kingma and Ba 2015, "Adam: A Method for Stochastic Optimization" (arXiv 1412.6980); with ``decoupled`` weight decay
    Loshchilov and Hutter 2019, "Decoupled Weight Decay Regularization" (arXiv 1711.05101).

    Args:
        params: parameters or groups of them.
        lr: learning rate.
        betas: decay of the two moments.
        weight_decay: strength.
        decoupled: AdamW's decay of the weights, not Adam's of the gradient.

    Example:
        >>> w = nn.Parameter(torch.zeros(2))
        >>> w.grad = torch.tensor([1.0, -3.0])
        >>> Adam([w], lr=0.1).update(torch.tensor(True))
        >>> w.data
        tensor([-0.1000,  0.1000])
    """

    # Without the decorator that keeps it from the compiler of PyTorch, because that imports the compiler: a second.
    add_param_group = inspect.unwrap(torch.optim.Optimizer.add_param_group)

    def __init__(
        self,
        params: Iterable[nn.Parameter],
        *,
        lr: float,
        betas: tuple[float, float] = (0.9, 0.999),
        weight_decay: float = 0.0,
        decoupled: bool = False,
    ) -> None:
        super().__init__(params, {"lr": lr, "betas": betas, "weight_decay": weight_decay})
        self.kernel = torch._fused_adamw_ if decoupled else torch._fused_adam_

    @torch.no_grad()
    def update(self, good: Tensor) -> None:
        """One update of every parameter with a gradient where the 0-d tensor ``good`` is True, none where it is not."""
        counts = good.to(torch.float32)
        bad = 1 - counts
        for group in self.param_groups:
            params = [p for p in group["params"] if p.grad is not None]
            states = [self.state[p] or self._begin(p) for p in params]
            steps = [s["step"] for s in states]
            torch._foreach_add_(steps, [counts] * len(steps))  # a single tensor would be read by the host
            self.kernel(
                params,
                [p.grad for p in params],
                [s["exp_avg"] for s in states],
                [s["exp_avg_sq"] for s in states],
                [],
                steps,
                lr=group["lr"],
                beta1=group["betas"][0],
                beta2=group["betas"][1],
                weight_decay=group["weight_decay"],
                eps=1e-8,
                amsgrad=False,
                maximize=False,
                found_inf=bad,
            )

    def _begin(self, p: Tensor) -> dict[str, Tensor]:
        zeros = torch.zeros_like(p, memory_format=torch.preserve_format)
        step = torch.zeros((), dtype=torch.float32, device=p.device)
        self.state[p] = {"step": step, "exp_avg": zeros, "exp_avg_sq": zeros.clone()}
        return self.state[p]


def make_optimizers(stage: Stage, options: Training) -> dict[str, torch.optim.Optimizer]:
    """The optimisers of a stage by name; phases that name the same one share it."""
    sharing: dict[str, list[Phase]] = {}
    for phase in stage.phases:
        sharing.setdefault(phase.optimizer or phase.name, []).append(phase)
    return {name: make_optimizer(phases, stage, options) for name, phases in sharing.items()}


def make_optimizer(phases: Sequence[Phase], stage: Stage, options: Training) -> torch.optim.Optimizer:
    """The optimiser of the phases that share it.

    Each setting comes from the run if it is set there, else from the phase, the stage, or the default.
    """
    params = parts(dict.fromkeys(p for phase in phases for p in phase.parameters()))
    given = {name: value for name in OPTIM if (value := getattr(options, name, None)) is not None}
    chosen = {**_DEFAULTS, **stage.optim}
    for phase in phases:
        for name, value in phase.optim.items():
            first = next(p for p in phases if name in p.optim)
            if first.optim[name] != value:
                raise ConfigError(
                    f"The phases '{first.name}' and '{phase.name}' share an optimiser but not its '{name}'."
                )
        chosen |= phase.optim
    chosen |= given
    common: dict[str, Any] = {"lr": chosen["lr"], "weight_decay": chosen["weight_decay"]}
    if options.optimizer in ("adam", "adamw"):
        return Adam(params, **common, betas=chosen["betas"], decoupled=options.optimizer == "adamw")
    if options.optimizer == "sgd":
        return torch.optim.SGD(params, **common, momentum=chosen["momentum"])
    return torch.optim.RMSprop(params, **common, momentum=chosen["momentum"])


def masked_step(optimizer: torch.optim.Optimizer, good: Tensor) -> None:
    """One update where the 0-d tensor ``good`` is True, none where it is False, without a synchronisation.

    The fused kernels of Adam take such a flag; for other optimisers the old values are restored afterwards.
    """
    if isinstance(optimizer, Adam):
        optimizer.update(good)
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


def total_norm(gradients: list[Tensor]) -> Tensor:
    """The Euclidean norm of all gradients together; on a CPU by BLAS, which is twice as fast as the norm kernel."""
    if gradients[0].device.type != "cpu":
        return torch.nn.utils.get_total_norm(gradients)
    flat = [g.reshape(-1) for g in gradients]
    return torch.stack([torch.dot(g, g) for g in flat]).sum().sqrt()


def _tensors(state: Mapping[str, Any]) -> Iterable[tuple[str, Tensor]]:
    return [(key, value) for key, value in state.items() if isinstance(value, Tensor)]


def optimizer_tensors(optimizer: torch.optim.Optimizer, prefix: str) -> dict[str, Tensor]:
    """The state of an optimiser as named tensors, ``prefix/parameter number/key``, whole; all processes must ask."""
    params = [p for group in optimizer.param_groups for p in group["params"]]
    state = ((i, p, key, v) for i, p in enumerate(params) for key, v in _tensors(optimizer.state.get(p, {})))
    return {f"{prefix}/{i}/{key}": gathered(v, p) for i, p, key, v in state}


def load_optimizer_tensors(optimizer: torch.optim.Optimizer, prefix: str, tensors: Mapping[str, Tensor]) -> None:
    """The inverse of :func:`optimizer_tensors`.

    Raises:
        CheckpointError: a tensor is of no parameter, or has another shape than its own.
    """
    params: list[nn.Parameter] = [p for group in optimizer.param_groups for p in group["params"]]
    for name, value in tensors.items():
        if name.startswith(f"{prefix}/"):
            _, number, key = name.rsplit("/", 2)
            if not number.isdecimal() or int(number) >= len(params):
                raise CheckpointError(f"The state of the optimiser '{prefix}' is of another model: {name}.")
            p = params[int(number)]
            device = "cpu" if key == "step" and not isinstance(optimizer, Adam) else p.device
            value = piece(value, p).to(device, copy=True)
            if value.shape != p.shape and key != "step":
                raise CheckpointError(
                    f"The state of the optimiser '{prefix}' is of another model: {name} has the shape "
                    f"{tuple(value.shape)}, and its parameter {tuple(p.shape)}."
                )
            if value.shape == p.shape:  # files are contiguous; fused kernels need the memory format of the parameter
                value = torch.empty_like(p, dtype=value.dtype, requires_grad=False).copy_(value)
            optimizer.state[p][key] = value

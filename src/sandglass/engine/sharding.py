"""Weights that are divided among the processes: each keeps a part of every layer, its gradient and its optimiser.

PyTorch's ``fully_shard`` (FSDP2) gathers the weights of a layer where it is called, and adds up its gradients into
parts again. Everything else of a step works on these parts, which are plain parameters; see :func:`part`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from sandglass.core import Model
from sandglass.distributions.conditional import Conditional
from sandglass.engine.processes import Processes
from sandglass.errors import ConfigError
from sandglass.runs.weights import check_tensors

_LISTS = (nn.Sequential, nn.ModuleList)
_MISUSED = ("DTensor", "out of bounds for storage of size 0")  # in errors of PyTorch
_LAYERS = (nn.Linear, nn.Conv2d, nn.ConvTranspose2d)

_blocks: WeakKeyDictionary[nn.Module, list[Any]] = WeakKeyDictionary()  # by divided model


def blocks(model: nn.Module) -> list[nn.Module]:
    """The layers or blocks that are divided: the links of a chain of modules, and single layers.

    What remains, such as free parameters, is kept whole by every process.

    Example:
        >>> found = blocks(nn.ModuleDict({"a": nn.Sequential(nn.Linear(2, 3), nn.ReLU()), "b": nn.Linear(3, 2)}))
        >>> found
        [Linear(in_features=2, out_features=3, bias=True), Linear(in_features=3, out_features=2, bias=True)]
    """
    uses = Counter(id(p) for _, p in model.named_parameters(remove_duplicate=False))

    def visit(module: nn.Module, *, listed: bool) -> Iterator[nn.Module]:
        for child in module.children():
            if isinstance(child, _LISTS):
                yield from visit(child, listed=True)
            elif isinstance(child, _LAYERS) or (listed and _is_block(child)):
                own = list(child.parameters())
                if own and all(p.dim() and uses[id(p)] == 1 for p in own):
                    yield child
            else:
                yield from visit(child, listed=False)

    return list(visit(model, listed=False))


def _is_block(module: nn.Module) -> bool:
    """Whether a module is called for tensors, from which PyTorch knows when its gradient is computed."""
    called = type(module).forward is not nn.Module.forward
    return called and not any(isinstance(m, Conditional) for m in module.modules())


def divide(model: Model, processes: Processes) -> None:
    """Divides the weights of a model, which is the same in all processes, among them.

    Raises:
        ConfigError: it has no layers that can be divided.
    """
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    found = blocks(model)
    if not found:
        raise ConfigError("This model has no layers whose weights can be divided; leave out --shard-weights.")
    mesh = init_device_mesh(model.device.type, (processes.count,))
    # A stage of several phases may differentiate a gradient, which needs the weights until the end of the phase.
    together = all(len(stage.phases) < 2 for stage in model.stages())
    with torch.no_grad():
        for p in model.parameters():
            p.data = p.data.contiguous()
    _blocks[model] = found
    for block in found:
        block.register_forward_hook(_own_memory)  # before that of PyTorch
        divided: Any = fully_shard(block, mesh=mesh, reshard_after_forward=together)
        divided.set_reshard_after_backward(together)


def _own_memory(block: nn.Module, given: Any, made: Any) -> Any:
    """What a block made; a view is copied, because PyTorch loses its gradient if it is changed in place."""
    return made.clone() if isinstance(made, Tensor) and made._is_view() and made.requires_grad else made


def is_divided(t: Any) -> bool:
    """Whether a parameter is divided."""
    return hasattr(t, "full_tensor")


def part(p: nn.Parameter) -> nn.Parameter:
    """The part of a divided parameter that this process has and updates; other parameters are their own part."""
    if not is_divided(p):
        return p
    whole = _any(p)
    if not hasattr(whole, "part_here"):
        with torch.no_grad():
            whole.part_here = nn.Parameter(whole.to_local())
        whole.part_here.whole = whole
    own: nn.Parameter = whole.part_here
    return own


def _any(t: Any) -> Any:
    """A divided tensor, whose type is not imported before it is used."""
    return t


def _whole(t: Any) -> Tensor:
    """The whole of a divided tensor in the first process, and nothing in the others, which only take part."""
    whole: Tensor = t.full_tensor()
    return whole.cpu() if t.device_mesh.get_local_rank() == 0 else whole.new_empty(0, device="cpu")


def parts(parameters: Iterable[nn.Parameter]) -> list[nn.Parameter]:
    """The part of each."""
    return [part(p) for p in parameters]


def gathered(value: Tensor, own: Tensor) -> Tensor:
    """The whole of a tensor that goes with a part, in the first process; other tensors are returned as they are.

    All processes must ask.
    """
    whole = getattr(own, "whole", None)
    if whole is None or value.shape != own.shape:
        return value
    from torch.distributed.tensor import DTensor

    shape, stride = whole.shape, whole.stride()
    return _whole(DTensor.from_local(value, whole.device_mesh, whole.placements, shape=shape, stride=stride))


def piece(value: Tensor, own: Tensor) -> Tensor:
    """The inverse of :func:`gathered`: what of a whole tensor goes with a part."""
    whole = getattr(own, "whole", None)
    if whole is None or value.shape != whole.shape:
        return value
    mesh = whole.device_mesh
    chunks, rank = value.chunk(mesh.size(), 0), mesh.get_local_rank()
    return chunks[rank] if rank < len(chunks) else value[:0]


def state_of(model: nn.Module) -> dict[str, Tensor]:
    """The weights and buffers of a model by name, whole in the first process; all processes must ask."""
    return {name: _whole(value) if is_divided(value) else value for name, value in model.state_dict().items()}


def load(model: nn.Module, tensors: Mapping[str, Tensor], source: str) -> None:
    """Loads whole weights into a model that may be divided; see :func:`~sandglass.runs.weights.fill`.

    Raises:
        CheckpointError: they do not fit.
    """
    check_tensors(model, tensors, source)
    divided = {name: p for name, p in model.named_parameters() if is_divided(p)}
    forget(model)
    with torch.no_grad():
        for name, p in divided.items():
            part(p).copy_(piece(tensors[name], part(p)))
    model.load_state_dict({k: v for k, v in tensors.items() if k not in divided}, strict=False)


def forget(model: nn.Module) -> None:
    """Lets go of gathered weights, because their parts have changed or will."""
    for block in _blocks.get(model, ()):
        block.reshard()


class Divided:
    """The divided parameters of a model; none in most trainings.

    Args:
        model: to train.
    """

    def __init__(self, model: nn.Module) -> None:
        self.parameters = [(_any(p), part(p)) for p in model.parameters() if is_divided(p)]
        self.model = model

    def __bool__(self) -> bool:
        return bool(self.parameters)

    @contextmanager
    def gradients(self) -> Iterator[None]:
        """In this context gradients of the wholes are computed, and then belong to the parts.

        Raises:
            ConfigError: the model uses weights other than by calling their layer.
        """
        forget(self.model)
        for whole, own in self.parameters:
            whole.grad = None
            whole.requires_grad_(own.requires_grad)
        try:
            yield
        except RuntimeError as error:
            if not any(sign in str(error) for sign in _MISUSED):
                raise
            raise ConfigError(
                "The weights of this model cannot be divided, because it does not call a layer to use them, or a "
                "block of it returns no tensors; leave out --shard-weights."
            ) from error
        forget(self.model)
        for whole, own in self.parameters:
            # PyTorch takes the mean over the processes, of which this is the sum.
            own.grad = None if whole.grad is None else whole.grad.to_local().mul_(whole.device_mesh.size())
            whole.grad = None

"""Runs a trained model over examples and codes: batch by batch, in eval mode, with keyed noise."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from typing import overload

import torch
from torch import Tensor

from sandglass import rng
from sandglass.core import Batch, Model
from sandglass.data.dataset import Split
from sandglass.data.loading import in_order
from sandglass.engine.device import has_bf16

ROWS = 256
"""Maximum number of codes decoded, or examples sampled, at once."""

SIZE = 512
"""Maximum number of examples that are encoded, scored or the like at once."""

_COSTLY = 64  # the same where each takes many evaluations of a network: a full batch is drawn for a few samples

_ELEMENTS = 2**24  # maximum number of values in memory at once

Key = tuple[int | str, ...]
"""The key of the noise, such as ``(seed, "generate")``; the number of the batch is appended to it."""


@contextmanager
def observing(model: Model, *key: int | str) -> Iterator[None]:
    """Eval mode without gradients; on exit the modes of all modules and the global generators are restored.

    Args:
        model: to run.
        key: of the noise; without one the global generators are not seeded.

    Example:
        >>> from sandglass import registry
        >>> from sandglass.core import Spec
        >>> model = registry.build("vae", Spec((2,)), latent_dim=1).train()
        >>> with observing(model):
        ...     print(model.training)
        False
        >>> model.training
        True
    """
    with torch.no_grad(), rng.forked(model.device, *key):
        modes = [(module, module.training) for module in model.modules()]
        model.eval()
        try:
            yield
        finally:
            for module, mode in modes:
                module.training = mode


def over(
    model: Model,
    split: Split,
    f: Callable[[Batch], Tensor],
    *,
    key: Key = (0,),
    size: int = SIZE,
    fixed: bool = False,
    places: Iterable[int] | None = None,
) -> Tensor:
    """Applies ``f`` to every batch of a split and concatenates: ``(N, ...)`` on the CPU.

    Args:
        model: to run.
        split: the examples.
        f: from a batch, on the model's device and in its precision, to ``(B, ...)``.
        key: of the noise.
        size: maximum number of examples at once.
        fixed: whether every call gets the same number of examples, the last batch being padded. Matrix products of
            different sizes may round differently; with this an example's figures depend on no other example.
        places: numbers of the batches; all by default. What comes of one depends on no other.

    Example:
        >>> from sandglass import registry
        >>> from sandglass.core import Spec
        >>> model = registry.build("vae", Spec((2,)), latent_dim=1)
        >>> over(model, Split(torch.zeros(5, 2)), model.encode, size=2).shape
        torch.Size([5, 1])
    """
    found, batches = [], in_order(split, size, device=model.device, dtype=model.dtype)
    with observing(model, *key):
        for place in range(len(batches)) if places is None else places:
            batch = batches[place]()
            n = len(batch)
            if fixed and n < size:
                more = filled(torch.arange(n), size).to(model.device)
                batch = batch.map(lambda t, more=more: t[more])  # type: ignore[misc]
            rng.reseed(rng.key(*key, place), model.device)
            found.append(f(batch)[:n].cpu())
    return torch.cat(found)


def batches(split: Split) -> int:
    """The number of batches in which :func:`over` goes over a split.

    Example:
        >>> batches(Split(torch.zeros(1025, 2)))
        3
    """
    return len(in_order(split, SIZE))


def unlabelled(model: Model, batch: Batch) -> Batch:
    """What codes are made of that are compared with labels or coloured by them: without labels that would be in a code.

    A model of labels (m2, joint-vae) infers the code of an example from its label where it is known. Conditions are
    kept: a conditional model needs them, and they are not in its code.

    Example:
        >>> from sandglass import registry
        >>> from sandglass.core import Spec
        >>> batch = Batch(torch.zeros(2, 3), torch.tensor([0, 1]))
        >>> models = [registry.build(name, Spec((3,), classes=2), latent_dim=1) for name in ("m2", "cvae")]
        >>> [unlabelled(model, batch).y for model in models]
        [None, tensor([0, 1])]
    """
    return replace(batch, y=None) if "labels" in model.modelled else batch


def encode(model: Model, split: Split) -> Tensor:
    """``(N, D)`` codes of the examples, on the CPU."""
    return over(model, split, model.encode)


def reconstruct(model: Model, split: Split) -> Tensor:
    """``(N, *shape)`` reconstructions of the examples, on the CPU."""
    return over(model, split, model.reconstruct)


def decode(model: Model, codes: Tensor, given: Batch | None = None, *, fixed: bool = False) -> Tensor:
    """Decodes ``(N, D)`` codes to ``(N, *shape)``, on the CPU.

    Args:
        model: to decode with.
        codes: of real numbers or indices.
        given: the ``N`` conditions of a conditional model.
        fixed: see :func:`over`.
    """
    pieces, size = [], at_once(model)
    with observing(model), quickly(model):
        for part in torch.arange(len(codes)).split(size):
            index = filled(part, size) if fixed else part
            code = codes[index]
            code = code.to(model.device, model.dtype if code.is_floating_point() else code.dtype)
            pieces.append(model.decode(code, placed(model, given, index))[: len(part)].cpu())
    return torch.cat(pieces)


def sample(
    model: Model,
    n: int,
    *,
    key: Key = (0,),
    given: Batch | None = None,
    noise: bool = False,
    places: Iterable[int] | None = None,
) -> Tensor:
    """``(n, *shape)`` samples on the CPU: the same for the same key, and a larger n only adds samples.

    Args:
        model: to sample from.
        n: number of samples.
        key: of the noise.
        given: the ``n`` conditions of a conditional model.
        noise: see :meth:`~sandglass.core.Model.sample`.
        places: numbers of the batches of :func:`at_once`; all by default. What comes of one depends on no other.
    """
    pieces, size = [], at_once(model)
    parts = torch.arange(n).split(size)
    with observing(model, *key), quickly(model):
        for place in range(len(parts)) if places is None else places:
            part = parts[place]
            rng.reseed(rng.key(*key, place), model.device)
            conditions = placed(model, given, filled(part, size))
            pieces.append(model.sample(size, conditions, noise=noise)[: len(part)].cpu())
    return torch.cat(pieces)


def conditions(model: Model, split: Split, n: int, *key: int | str) -> Batch | None:
    """Conditions for ``n`` samples of a conditional model, by :func:`borrowed`; None for an unconditional one."""
    return borrowed(split, n, *key) if conditioned_on(model) else None


def borrowed(split: Split, n: int, *key: int | str) -> Batch:
    """Labels, companions and unpaired examples of a split, as conditions for ``n`` samples.

    They are taken from the split in random order, so samples have its class proportions. If n is larger than the split,
    it is gone through again in another order; a larger n only adds conditions. Unpaired sets have their own orders.

    Args:
        split: the examples.
        n: number of conditions.
        key: of the order.

    Example:
        >>> from sandglass import registry
        >>> from sandglass.core import Spec
        >>> model = registry.build("cvae", Spec((2,), classes=2), latent_dim=1)
        >>> split = Split(torch.zeros(4, 2), torch.tensor([0, 0, 0, 1]))
        >>> given = borrowed(split, 8, 0, "samples")
        >>> given.y.bincount(), sample(model, 8, given=given).shape
        (tensor([6, 2]), torch.Size([8, 2]))
    """

    def some(of: Split, *name: str) -> Batch:
        rounds = range(-(-n // len(of)))
        index = torch.cat([rng.permutation(len(of), *key, "conditions", *name, place) for place in rounds])[:n]
        return of.batch(index.to(of.x.device))

    beside = {name: some(other, name) for name, other in split.beside.items()}
    return replace(some(split), x=None, mask=None, index=None, beside=beside)  # type: ignore[arg-type]


def conditioned_on(model: Model) -> str:
    """What the samples of a model are conditional on, in words; empty for an unconditional model.

    Example:
        >>> from sandglass import registry
        >>> conditioned_on(registry.declared("cvae")), conditioned_on(registry.declared("gan"))
        ('labels', '')
    """
    sets = (f"set '{name}'" for kind, _, name in (need.partition(":") for need in model.needs) if kind == "beside")
    return ", ".join([*model.conditions, *sets])


def filled(index: Tensor, size: int) -> Tensor:
    """Pads positions up to ``size`` with copies of the first.

    Example:
        >>> filled(torch.tensor([4, 5]), 4)
        tensor([4, 5, 4, 4])
    """
    return torch.cat([index, index[:1].expand(max(0, size - len(index)))])


@overload
def placed(model: Model, given: Batch, index: Tensor | None = None) -> Batch: ...
@overload
def placed(model: Model, given: Batch | None, index: Tensor | None = None) -> Batch | None: ...
def placed(model: Model, given: Batch | None, index: Tensor | None = None) -> Batch | None:
    """Examples or conditions on the model's device and in its type; only those at ``index``, if given.

    An unpaired set is indexed too if it has as many examples or is all there is; otherwise it is kept whole.
    """
    if given is None:
        return None

    def there(t: Tensor) -> Tensor:
        return t.to(model.device, model.dtype if t.is_floating_point() else t.dtype)

    def taken(batch: Batch) -> Batch:
        return batch if index is None else batch.map(lambda t: t[index.to(t.device)])

    beside = {name: taken(b) if len(given) in (0, len(b)) else b for name, b in given.beside.items()}
    return replace(taken(replace(given, beside={})), beside=beside).map(there)


def at_once(model: Model) -> int:
    """How many examples of this size are processed at once."""
    rows = ROWS if model.evaluations == 1 else _COSTLY
    return max(1, min(rows, _ELEMENTS // model.spec.size))


def quickly(model: Model) -> AbstractContextManager[object]:
    """The precision of samples: bf16 where each takes many evaluations of a network that was trained so."""
    costly = model.evaluations > 1 and model.precision == "bf16" and model.dtype == torch.float32
    if costly and (model.device.type == "cuda" or (model.device.type == "cpu" and has_bf16())):
        return torch.autocast(model.device.type, torch.bfloat16)
    return nullcontext()

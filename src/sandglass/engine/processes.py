"""Several processes that train one model together, started by ``torchrun``, and all that they tell each other.

A batch is cut into the same shards whatever the number of processes. Each process computes its own shards; gradients,
figures and statistics are then summed over all, so that every process makes the same update. What one process alone can
decide, for it depends on the time or the disk, is decided by the first and told to the others.
"""

from __future__ import annotations

import dataclasses
import json
import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from functools import cache
from typing import Any, TypeVar

import torch
from torch import Tensor

from sandglass.core import Model
from sandglass.data.dataset import Dataset
from sandglass.engine.options import Settled, Training
from sandglass.errors import ConfigError, DataError, ProcessError

T = TypeVar("T")

_BUCKET = 2**26  # bytes that are sent at once; as much memory is needed for the copy
_PATIENCE = timedelta(days=1)  # a process that ends is noticed at once; this is for one that waits for an evaluation


@dataclass(frozen=True)
class Processes:
    """The processes of a training, as one of them sees them.

    Args:
        rank: its number, from 0; the first writes the run folder and shows the progress.
        count: number of processes.
        local: number of them on this machine.

    Example:
        >>> alone = Processes()
        >>> alone.writes, alone.first(lambda: [1, 2]), list(alone.shards(3, 3))
        (True, [1, 2], [0, 1, 2])
        >>> [list(Processes(rank, 2).shards(4, 3)) for rank in range(2)]
        [[0, 1], [2]]
    """

    rank: int = 0
    count: int = 1
    local: int = 1

    @property
    def writes(self) -> bool:
        """Whether this is the one that writes files and messages."""
        return self.rank == 0

    def shards(self, total: int, made: int) -> range:
        """The numbers of its shards.

        Args:
            total: number of shards that a batch is cut into.
            made: fewer, of a batch with fewer examples.
        """
        each = total // self.count
        return range(min(self.rank * each, made), min((self.rank + 1) * each, made))

    def sum(self, tensors: Sequence[Tensor]) -> None:
        """Replaces every tensor by its sum over the processes, in few large messages."""
        if self.count > 1:
            for bucket in buckets(tensors):
                flat = torch.cat([t.reshape(-1) for t in bucket])
                with _reported():
                    torch.distributed.all_reduce(flat)
                for t, part in zip(bucket, flat.split([t.numel() for t in bucket]), strict=True):
                    t.copy_(part.view(t.shape))

    def share(self, tensors: Iterable[Tensor]) -> None:
        """Replaces every tensor by that of the first process."""
        if self.count > 1:
            for bucket in buckets([t for t in tensors if t.numel()], any_type=True):
                flat = torch.cat([t.detach().reshape(-1).view(torch.uint8) for t in bucket])
                with _reported():
                    torch.distributed.broadcast(flat, 0)
                sizes = [t.numel() * t.element_size() for t in bucket]
                for t, part in zip(bucket, flat.split(sizes), strict=True):
                    t.detach().copy_(part.clone().view(t.dtype).view(t.shape))

    def first(self, make: Callable[[], T]) -> T:
        """What the first process makes, a plain value; the others do not call ``make``."""
        if self.count == 1:
            return make()
        made = json.dumps(make()).encode() if self.writes else b""
        length = torch.tensor([len(made)])
        self.share([length])
        data = torch.frombuffer(bytearray(made), dtype=torch.uint8) if made else torch.empty(int(length)).byte()
        self.share([data])
        value: T = json.loads(bytes(data.tolist()))
        return value

    def most(self, *numbers: int) -> list[int]:
        """The largest of each number over all processes."""
        if self.count == 1:
            return list(numbers)
        values = torch.tensor(numbers)
        with _reported():
            torch.distributed.all_reduce(values, torch.distributed.ReduceOp.MAX)
        return [int(v) for v in values.tolist()]

    def wait(self) -> None:
        """Waits until every process is here."""
        self.most(0)

    def clock(self) -> float:
        """Seconds, the same in every process, which must all ask."""
        return self.first(time.perf_counter)


ALONE = Processes()
"""One process."""


def buckets(tensors: Sequence[Tensor], *, any_type: bool = False) -> list[list[Tensor]]:
    """Tensors of one type and device together, in order, up to some size.

    Example:
        >>> a, b = torch.zeros(2), torch.zeros(3, dtype=torch.float64)
        >>> [len(bucket) for bucket in buckets([a, b, a])]
        [2, 1]
    """
    found: dict[Any, list[list[Tensor]]] = {}
    sizes: dict[Any, int] = {}
    for t in tensors:
        kind = (t.device, None if any_type else t.dtype)
        size = t.numel() * t.element_size()
        if kind not in found or sizes[kind] + size > _BUCKET:
            found.setdefault(kind, []).append([])
            sizes[kind] = 0
        found[kind][-1].append(t)
        sizes[kind] += size
    return [bucket for some in found.values() for bucket in some]


def cuts(n: int, count: int, least: int = 1) -> list[slice]:
    """``n`` examples in at most ``count`` parts of nearly equal size, of ``least`` examples or more if it has them.

    Example:
        >>> [(cut.start, cut.stop) for cut in cuts(5, 3)]
        [(0, 1), (1, 3), (3, 5)]
        >>> [(cut.start, cut.stop) for cut in cuts(5, 3, 2)]
        [(0, 2), (2, 5)]
    """
    count = max(1, min(count, n // least))
    return [slice(n * i // count, n * (i + 1) // count) for i in range(count)]


# joining

_now: list[Processes] = []


@contextmanager
def joined() -> Iterator[Processes]:
    """Joins the processes that ``torchrun`` started with this one; :data:`ALONE` where it started none.

    An error in one of them ends all: the first one keeps its message, in the others it becomes a
    :class:`~sandglass.errors.ProcessError`.

    Raises:
        ConfigError: the variables that ``torchrun`` sets are incomplete.
        ProcessError: another process ended.
    """
    if _now or int(os.environ.get("WORLD_SIZE") or 1) == 1:
        yield _now[-1] if _now else ALONE
        return
    processes, store = _join()
    _now.append(processes)
    try:
        yield processes
    except Exception as error:
        if _is_first(store):
            raise
        raise ProcessError("Another process of this training failed; its message says why.", reported=True) from error
    finally:
        _now.clear()
        torch.distributed.destroy_process_group()


def _join() -> tuple[Processes, Any]:
    missing = [name for name in ("RANK", "MASTER_ADDR", "MASTER_PORT") if name not in os.environ]
    if missing or not torch.distributed.is_available():
        raise ConfigError(
            f"WORLD_SIZE is {os.environ['WORLD_SIZE']}, but {missing[0] if missing else 'torch.distributed'} is "
            "missing: start several processes with torchrun, or unset WORLD_SIZE."
        )
    local = int(os.environ.get("LOCAL_RANK", 0))
    try:
        store, rank, count = _store()
    except RuntimeError as error:
        where = ":".join(os.environ[name] for name in ("MASTER_ADDR", "MASTER_PORT"))
        raise ProcessError(f"The processes did not meet at {where}: {str(error).splitlines()[0]}") from error
    from torch.distributed import distributed_c10d as distributed

    _joins.append(1)
    store = distributed.PrefixStore(f"sandglass/{len(_joins)}", store)
    gpus = torch.cuda.device_count()
    if local < gpus:
        torch.cuda.set_device(local)
    backend = "cpu:gloo,cuda:nccl" if gpus else "gloo"
    torch.distributed.init_process_group(backend, store=store, rank=rank, world_size=count, timeout=_PATIENCE)
    return Processes(rank, count, int(os.environ.get("LOCAL_WORLD_SIZE", 1))), store


_joins: list[int] = []  # every group has keys of its own in the store


@cache
def _store() -> tuple[Any, int, int]:
    from torch.distributed.rendezvous import rendezvous

    return next(rendezvous("env://", timeout=timedelta(minutes=10)))


def _is_first(store: Any) -> bool:
    """Whether no other process has failed before."""
    try:
        return bool(store.add("failed", 1) == 1)
    except RuntimeError:  # the store went with the process that had it
        return False


@contextmanager
def _reported() -> Iterator[None]:
    """An error of our own where another process is gone."""
    try:
        yield
    except RuntimeError as error:
        raise ProcessError("Another process of this training ended early, without a message.") from error


def check_alone(what: str) -> None:
    """Refuses several processes where each would do the same.

    Raises:
        ConfigError: ``torchrun`` started several.
    """
    if int(os.environ.get("WORLD_SIZE") or 1) > 1:
        raise ConfigError(f"{what} has processes of its own: start it without torchrun.")


# options


def shared(training: Training, processes: Processes) -> Training:
    """The options of training for this number of processes: every stage has at least a shard for each.

    Raises:
        ConfigError: the number of shards, a device or a batch size does not fit them.
    """
    if processes.count == 1:
        if training.shard_weights:
            raise ConfigError("--shard-weights divides the weights among several processes: start them with torchrun.")
        return training
    _check_device(training.device, processes)
    batches = [training.batch_size, *(own.get("batch_size") for own in training.stage.values())]
    if any(size is not None and size < processes.count for size in batches):
        raise ConfigError(f"A batch of {min(s for s in batches if s)} is too small for {processes.count} processes.")
    own = {name: dict(options) for name, options in training.stage.items()}
    for options in own.values():
        if "accumulate" in options:
            options["accumulate"] = _shards(options["accumulate"], processes)
    return dataclasses.replace(
        training,
        accumulate=_shards(training.accumulate, processes),
        stage=own,
        threads=training.threads or max(processes.local, cores()),
    )


def cores() -> int:
    """The cores of this machine that a process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _shards(given: int, processes: Processes) -> int:
    if given > 1 and given % processes.count:
        raise ConfigError(f"accumulate must be a multiple of the {processes.count} processes, not {given}.")
    return max(given, processes.count)


def _check_device(device: str, processes: Processes) -> None:
    gpus, local = torch.cuda.device_count(), int(os.environ.get("LOCAL_RANK", 0))
    if ":" in device:
        raise ConfigError(f"Every process has a device of its own: give --device cuda, not {device}.")
    if device in ("auto", "cuda") and 0 < gpus <= local:
        raise ConfigError(
            f"{processes.local} processes were started on a machine with {gpus} GPU{'s' * (gpus > 1)}: start as many "
            "processes as it has GPUs, or give --device cpu."
        )


def check_shards(training: Settled, stages: Sequence[str], processes: Processes) -> None:
    """Refuses a number of processes that the shards of a run cannot be dealt to.

    Raises:
        ConfigError: it does not divide the number of shards of a stage, or the device of the run is for one process.
    """
    if processes.count > 1:
        _check_device(training.device, processes)
    shards = {training.of_stage(name).accumulate for name in stages} or {training.accumulate}
    if any(n % processes.count for n in shards):
        able = [str(n) for n in range(1, min(shards) + 1) if not any(s % n for s in shards)]
        listed = " or ".join([", ".join(able[:-1]), able[-1]] if len(able) > 1 else able)
        raise ConfigError(
            f"This run cuts its batches into {' and '.join(map(str, sorted(shards)))} "
            f"shard{'s' * (shards != {1})}: {listed} process{'es' * (able != ['1'])} can train it, "
            f"not {processes.count}."
        )


def agreed(data: Dataset, processes: Processes) -> None:
    """Refuses data that differs between the processes.

    Raises:
        DataError: it does.
    """
    first = processes.first(lambda: data.fingerprint)
    if processes.most(first != data.fingerprint)[0]:
        raise DataError(f"The processes do not read the same data from '{data.name}'.")


def lines(model: Model, training: Settled, processes: Processes) -> list[str]:
    """What is said at the beginning of a training by several processes; nothing for one."""
    if processes.count == 1:
        return []
    said = [f"{processes.count} processes, {training.accumulate} shards"]
    if training.shard_weights:
        said.append("Weights, gradients and optimiser are divided among them; no sheets of samples are drawn.")
    if any(isinstance(m, torch.nn.modules.batchnorm._BatchNorm) for m in model.modules()):
        said.append(
            f"Batch normalisation: its statistics are those of each shard, of {training.batch_size} examples in "
            f"{training.accumulate}, not of the whole batch."
        )
    return said

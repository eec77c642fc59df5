"""One task on several workers: processes of one machine, or of many, which Ray starts and feeds."""

from __future__ import annotations

import abc
import logging
import os
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import torch
from safetensors import torch as tensor_files
from torch import Tensor

from sandglass import registry, running
from sandglass.core import Batch, Model
from sandglass.data.dataset import Dataset, Split
from sandglass.engine.processes import cores
from sandglass.errors import ConfigError, MissingPackageError, ProcessError
from sandglass.registry import OptionsOf
from sandglass.tasks.task import Task
from sandglass.tasks.trained import Source, Trained, check_count, opened


@dataclass(frozen=True)
class Work:
    """What a task computes in pieces that depend on each other in nothing.

    Args:
        pieces: how many.
        compute: from numbers of pieces to their results ``(n, ...)`` on the CPU, one after the other.
    """

    pieces: int
    compute: Callable[[Iterable[int]], Tensor]


class Spread(Task):
    """A task whose work several processes can share.

    Attributes:
        name: of the task.
        workers: processes that share the work.
    """

    name: ClassVar[str]
    workers: int

    @property
    @abc.abstractmethod
    def options(self) -> Mapping[str, Any]:
        """The options that the same task is made with in another process."""

    def settled(self, trained: Trained) -> Mapping[str, Any]:
        """The options for workers: nothing is left to draw from data that they do not have."""
        return self.options

    @abc.abstractmethod
    def work(self, trained: Trained) -> Work:
        """The work; the same in every process."""

    def computed(self, trained: Trained) -> Tensor:
        """All of the work, by the workers: the same whatever their number, with as many threads in each process.

        Raises:
            ConfigError: the workers cannot read the model or data by themselves.
            MissingPackageError: Ray is not installed.
            ProcessError: a worker failed.
        """
        check_count("The number of workers", self.workers)
        if self.workers > 1:
            self._check_readable(trained)
        work = self.work(trained)
        count = min(self.workers, work.pieces)
        return work.compute(range(work.pieces)) if count < 2 else torch.cat(_by_ray(self, trained, work.pieces, count))

    def _check_readable(self, trained: Trained) -> None:
        """Checks that other processes can read the model, and the data where the task reads any."""
        if custom := ", ".join(trained.model.custom):
            raise ConfigError(f"Several workers cannot load the model: its custom {custom} is in this process only.")
        data = self.options.get("data", "")
        own = trained.own if trained.source and data is None else trained.data
        in_memory = isinstance(own, Dataset) and not own.source
        if not trained.source or (in_memory and "data" in self.options) or isinstance(data, Dataset):
            raise ConfigError(
                "Each worker loads the model and the data by itself: give a run or model folder, and data from a path."
            )


class OfSplit(Spread):
    """A task with a result for each example of a split, or of all.

    Args:
        split: train, validation, test or all; all by default.
        workers: processes that share the work.
    """

    def __init__(
        self, *, split: str | None = None, workers: int = 1, **source: Annotated[Any, OptionsOf(Source)]
    ) -> None:
        self.split, self.workers, self.source = split, workers, Source(**source)

    @property
    def options(self) -> dict[str, Any]:
        """See :class:`Spread`."""
        return {"split": self.split, **self.source.options}


def place_of_data(task: Spread, trained: Trained) -> Any:
    """Where a worker finds the run's own data, if the task reads it and it is not where it was; else None."""
    reads = trained.run is not None and task.options.get("data", "") is None
    source = trained.data.source if reads and trained.data is not None else None
    return source["source"] if source else None


def over(model: Model, split: Split, f: Callable[[Batch], Tensor], *, key: running.Key = (0,)) -> Work:
    """The work of :func:`sandglass.running.over`: a piece is a batch."""
    return Work(running.batches(split), lambda places: running.over(model, split, f, key=key, places=places))


class Worker:
    """Computes pieces of a task in a process of its own, with a model that it loads once.

    Args:
        source: of the model.
        device: for it.
        task: name and options of the task.
        folder: which relative paths are in.
        threads: of PyTorch.
        imports: Python files that register what the model needs.
        data: the new place of the run's data, if it moved.
    """

    def __init__(
        self,
        source: str,
        device: str,
        task: Mapping[str, Any],
        folder: str,
        threads: int,
        imports: Sequence[str] = (),
        data: Any = None,
    ) -> None:
        if os.path.isdir(folder):
            os.chdir(folder)
        torch.set_num_threads(threads)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the first process has shown them
            for file in imports:
                registry.import_file(file)
            trained = opened(source, device, allow_nonfinite=True, data=data)
        made: Spread = registry.resolve("task", task)
        self.work = made.work(trained)

    def __call__(self, rows: Mapping[str, Any]) -> dict[str, list[Any]]:
        """The results of some pieces as bytes, by their numbers."""
        places = [int(place) for place in rows["place"]]
        results = [self.work.compute([place]).contiguous() for place in places]
        return {"place": places, "result": [tensor_files.save({"x": x}) for x in results]}


def _by_ray(task: Spread, trained: Trained, pieces: int, count: int) -> list[Tensor]:
    """The results of all pieces, in order."""
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")  # what fails is an error here
    try:
        import ray
        import ray.data
    except ImportError as error:
        raise MissingPackageError("Several workers need Ray: pip install 'sandglass-ml[ray]'.") from error
    started = not ray.is_initialized()
    if started:
        # Ray needs a processor of its own beside those of the workers.
        here = {"num_cpus": max(count + 1, cores()), "include_dashboard": False}
        local = {} if os.environ.get("RAY_ADDRESS") else here
        ray.init(log_to_driver=False, logging_level="error", **local)
    try:
        logging.getLogger("ray.data").setLevel(logging.ERROR)
        context = ray.data.DataContext.get_current()
        context.enable_progress_bars = False
        more = (registry.imported_files(), place_of_data(task, trained))
        threads = max(1, torch.get_num_threads() // count)
        made = {"name": task.name, **task.settled(trained)}
        device = trained.model.device.type
        arguments = (os.path.abspath(trained.source) if os.path.exists(trained.source) else trained.source, device)
        found = (
            ray.data.from_items([{"place": place} for place in range(pieces)], override_num_blocks=pieces)
            .map_batches(
                Worker,
                fn_constructor_args=(*arguments, made, os.getcwd(), threads, *more),
                batch_size=1,
                compute=ray.data.ActorPoolStrategy(size=count),
                num_gpus=1 if device == "cuda" else 0,
            )
            .take_all()
        )
    except ray.exceptions.RayError as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        raise ProcessError(f"A worker failed: {lines[-1] if lines else type(error).__name__}") from error
    finally:
        if started:
            ray.shutdown()
    results = {row["place"]: tensor_files.load(row["result"])["x"] for row in found}
    return [results[place] for place in sorted(results)]

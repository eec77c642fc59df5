"""The options of training, checked and settled before the first step."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from numbers import Real
from typing import Any, ClassVar, Literal, Self

import torch

from sandglass.core import Model, Stage
from sandglass.data.augment import AUGMENTATIONS
from sandglass.data.corrupt import SCALES
from sandglass.data.strengths import read, write
from sandglass.engine.batches import check_batches, fewest, updates_per_epoch
from sandglass.engine.checking import check, plain_number
from sandglass.engine.device import settle_device, settle_precision
from sandglass.engine.mirror import require
from sandglass.errors import ConfigError
from sandglass.registry import entry, nearest

OPTIMIZERS = ("adam", "adamw", "sgd", "rmsprop")
SCHEDULES = ("constant", "step", "cosine", "plateau", "triangular", "triangular2", "exp_range")
STAGE_OPTIONS = (
    "epochs",
    "max_steps",
    "batch_size",
    "accumulate",
    "lr",
    "optimizer",
    "weight_decay",
    "momentum",
    "schedule",
    "lr_warmup",
    "schedule_every",
    "schedule_factor",
    "schedule_peak",
    "clip",
    "ema",
    "labelled_share",
    "early_stopping",
    "select",
)
"""Options that a stage can set for itself."""

OF_STAGES = ("ema", "labelled_share")
"""Options that are each stage's own where the run does not set them."""


PRECISIONS = ("auto", "fp32", "tf32", "bf16", "fp64")


@dataclass(frozen=True, kw_only=True)
class Training:
    """How to train.

    Args:
        epochs: passes over the training examples; when not given 20, and on small data as many as make 2,000
            updates, but no more than 500.
        minutes: time for the training, in place of epochs: the epochs, the batch size and the width of the net are
            chosen to fit, by the time that a few steps take here; evaluation and report come after it.
        max_steps: updates after which a stage ends, in the midst of an epoch if need be; schedules are still those of
            all epochs. Training with minutes sets it where the time was up before the last epoch.
        batch_size: examples an update; the last batch of an epoch may be smaller. When not given, 16 to 128 by the
            size of the data, so that an epoch has 20 updates or more where it can.
        lr: learning rate; each phase's own (1e-3 if it has none) when not given.
        optimizer: adam, adamw, sgd or rmsprop.
        weight_decay: decay of the weights, decoupled from the gradient with adamw, added to it otherwise; each phase's
            own (0 if it has none) when not given.
        momentum: of sgd and rmsprop; each phase's own (0.9 if it has none) when not given.
        schedule: learning rate over time: constant, step, cosine (to 0 at the end), plateau, or the cycles triangular,
            triangular2 (each half as high) and exp_range (ever lower).
        lr_warmup: epochs over which the learning rate rises from near 0, before any schedule begins.
        schedule_every: epochs between the drops of step; epochs without improvement before a drop of plateau; epochs
            in half a cycle.
        schedule_factor: factor of the learning rate at a drop of step or plateau; factor of the height of the cycles
            in half a cycle of exp_range.
        schedule_peak: factor of the learning rate at the top of the first cycle.
        clip: largest global norm of a phase's gradient; none when not given.
        accumulate: number of shards that each batch is cut into, to save memory or for several processes, which divide
            them; the update is the same, apart from noise and batch statistics. At least one for each process.
        shard_weights: whether the processes that ``torchrun`` started divide the weights, gradients and optimiser among
            them, for a net that outgrows a device; slower where it does not.
        ema: decay of an exponential moving average of the weights, which is then validated and kept; 0 for none; each
            stage's own (0 if it has none) when not given. The decay of step n is at most ``(1 + n) / (10 + n)``.
        labelled_share: least share of every batch that is examples with a known label, where only some have one: they
            are drawn in turn, again and again, in the place of as many others; 0 draws all alike. Each stage's own (0
            if it has none) when not given.
        early_stopping: epochs without a better validation objective before stopping; 0 for never.
        seed: determines the initial weights, the order of the data and all noise.
        device: auto, cpu, cuda, cuda:N or mps.
        precision: fp32, tf32, bf16 or fp64; auto is tf32 on CUDA; on a CPU that has instructions for it (AMX or
            AVX-512) bf16 for convolutions of 32 channels and layers of 512 features or more, which is 1.5 to 3 times as
            fast; and fp32 elsewhere.
        threads: CPU threads, which the processes of a machine divide; PyTorch's choice when not given. Results depend
            on it, so it is stored with the run.
        log_every: steps between logged training figures; the end of an epoch always is.
        watch: the split validated after every epoch: auto (validation, if there is one), validation, test or none.
        select: which weights to keep: best (by the watched objective at its final weights) or last. The test split
            never chooses.
        save_every: epochs between checkpoints. A new best, the end and a stop always write one.
        save_seconds: minimum seconds between the checkpoints of ``save_every``, so that short epochs are not slowed.
        save_steps: also save a checkpoint every so many steps; none when not given.
        keep: number of newest checkpoints kept, in addition to the best.
        on_save_error: stop, or continue with a warning, when a checkpoint cannot be written and an older one is good.
        sheets: how many sheets of samples, all from the same noise, are written into figures/progress while a stage
            trains on images, evenly spread; reconstructions or translations where the stage cannot sample; 0 for none.
        augment: random changes of training images, by name or name=strength: flip, vflip, shift, rotate, scale, crop,
            brightness, contrast, mixup, binarise.
        corrupt: damage to the training inputs, which the model learns to undo, by name, name=strength or name@severity
            (1 to 5): gaussian, salt-pepper, blur, mask, jpeg.
        log_to: experiment trackers that figures are also logged to: tensorboard, mlflow.
        stage: options of single stages of a model, by name: ``{"prior": {"epochs": 30}}``. ``epochs`` is that of the
            first stage, and of later ones that set none; all other options hold for every stage.
        from_stage: the first stage to train; the weights of those before are of another run (init_from). Empty for all.

    Example:
        >>> small = Training().settled(["validation"], examples=1500)
        >>> small.batch_size, small.epochs
        (64, 84)
    """

    epochs: int | None = None
    minutes: float | None = None
    max_steps: int | None = None
    batch_size: int | None = None
    lr: float | None = None
    optimizer: Literal["adam", "adamw", "sgd", "rmsprop"] = "adam"
    weight_decay: float | None = None
    momentum: float | None = None
    schedule: Literal["constant", "step", "cosine", "plateau", "triangular", "triangular2", "exp_range"] = "constant"
    lr_warmup: float = 0.0
    schedule_every: float = 10.0
    schedule_factor: float = 0.1
    schedule_peak: float = 4.0
    clip: float | None = None
    accumulate: int = 1
    shard_weights: bool = False
    ema: float | None = None
    labelled_share: float | None = None
    early_stopping: int = 0
    seed: int = 0
    device: str = "auto"
    precision: Literal["auto", "fp32", "tf32", "bf16", "fp64"] = "auto"
    threads: int | None = None
    log_every: int = 50
    watch: Literal["auto", "validation", "test", "none"] = "auto"
    select: Literal["best", "last"] = "best"
    save_every: int = 1
    save_seconds: float = 10.0
    save_steps: int | None = None
    keep: int = 2
    on_save_error: Literal["stop", "continue"] = "stop"
    sheets: int = 20
    augment: Sequence[str] | Mapping[str, float] = ()
    corrupt: Sequence[str] | Mapping[str, float] = ()
    log_to: Sequence[str] = ()
    stage: Mapping[str, Mapping[str, Any]] = dataclasses.field(default_factory=dict)
    from_stage: str = ""

    least_epochs: ClassVar[int] = 1

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            number = plain_number(field.name, getattr(self, field.name), str(field.type))
            object.__setattr__(self, field.name, number)
        check("epochs", self.epochs is None or self.epochs >= self.least_epochs, self.epochs, "at least 1")
        for name in ("batch_size", "accumulate", "log_every", "save_every", "keep"):
            value = getattr(self, name)
            check(name, value is None or value >= 1, value, "at least 1")
        for name in ("weight_decay", "momentum", "lr_warmup", "early_stopping", "save_seconds"):
            value = getattr(self, name)
            check(name, value is None or value >= 0, value, "at least 0")
        # Every strength is written out, so that a run stays what it was when a usual strength changes.
        object.__setattr__(self, "augment", tuple(write(read("augmentation", AUGMENTATIONS, self.augment))))
        object.__setattr__(self, "corrupt", tuple(write(read("corruption", SCALES, self.corrupt))))
        object.__setattr__(self, "log_to", _loggers(self.log_to))
        stage = {}
        for name, own in self.stage.items():
            for option in own:
                if option not in STAGE_OPTIONS:
                    hint = nearest(option, list(STAGE_OPTIONS))
                    raise ConfigError(f"The stage '{name}' takes no option '{option}'.{hint}")
            alone = dataclasses.replace(self, **own, stage={})  # checks their values
            stage[name] = {k: getattr(alone, k) if isinstance(value, Real) else value for k, value in own.items()}
        object.__setattr__(self, "stage", stage)
        if self.minutes is not None and self.shard_weights:
            raise ConfigError(
                "minutes tries nets in one process, so it cannot be given with shard_weights: give epochs."
            )
        if self.minutes is not None and (given := self._lengths()):
            raise ConfigError(
                f"Give the length of training once: minutes chooses the epochs, so {given[0]} cannot be given as well."
            )
        check("minutes", self.minutes is None or 0 < self.minutes < math.inf, self.minutes, "a finite number above 0")
        check("sheets", self.sheets >= 0, self.sheets, "0 or more")
        for name in ("lr", "clip", "threads", "save_steps", "max_steps"):
            value = getattr(self, name)
            check(name, value is None or value > 0, value, "above 0")
        for name in ("ema", "labelled_share"):
            value = getattr(self, name)
            check(name, value is None or 0 <= value < 1, value, "in [0, 1)")
        check("lr_warmup", self.lr_warmup < math.inf, self.lr_warmup, "finite")
        check("schedule_every", 0 < self.schedule_every < math.inf, self.schedule_every, "a finite number above 0")
        check("schedule_factor", 0 < self.schedule_factor <= 1, self.schedule_factor, "in (0, 1]")
        check("schedule_peak", 1 < self.schedule_peak < math.inf, self.schedule_peak, "a finite number above 1")
        check("optimizer", self.optimizer in OPTIMIZERS, self.optimizer, f"one of {', '.join(OPTIMIZERS)}")
        check("schedule", self.schedule in SCHEDULES, self.schedule, f"one of {', '.join(SCHEDULES)}")
        check("precision", self.precision in PRECISIONS, self.precision, f"one of {', '.join(PRECISIONS)}")
        watches = ("auto", "validation", "test", "none")
        check("watch", self.watch in watches, self.watch, f"one of {', '.join(watches)}")
        check("select", self.select in ("best", "last"), self.select, "best or last")
        check("on_save_error", self.on_save_error in ("stop", "continue"), self.on_save_error, "stop or continue")
        if self.batch_size is not None:
            check("accumulate", self.accumulate <= self.batch_size, self.accumulate, "at most the batch size")
        if self.watch in ("test", "none"):
            check("select", self.select == "last", self.select, f"last when watch is {self.watch}")
            check("early_stopping", not self.early_stopping, self.early_stopping, f"0 when watch is {self.watch}")
            check("schedule", self.schedule != "plateau", self.schedule, f"another when watch is {self.watch}")

    def stages_of(self, model: Model) -> tuple[Stage, ...]:
        """The stages of a model that are trained: all, or those from ``from_stage`` on.

        Raises:
            ConfigError: the model has no such stage.
        """
        stages = tuple(model.stages())
        if not self.from_stage:
            return stages
        names = [stage.name for stage in stages]
        if self.from_stage not in names:
            hint = nearest(self.from_stage, names)
            raise ConfigError(
                f"There is no stage '{self.from_stage}' to begin from.{hint} The model has: {', '.join(names)}."
            )
        return stages[names.index(self.from_stage) :]

    def _lengths(self) -> list[str]:
        """The options given that say how long to train, other than minutes."""
        own = [
            f"stage.{name}.{o}" for name, options in self.stage.items() for o in ("epochs", "max_steps") if o in options
        ]
        return [o for o in ("epochs", "max_steps") if getattr(self, o) is not None] + own

    @classmethod
    def of(cls, options: Mapping[str, Any]) -> Self:
        """From plain options.

        Raises:
            ConfigError: an unknown option or a value that makes no sense.
        """
        known = {f.name for f in dataclasses.fields(cls)}
        unknown = sorted(set(options) - known)
        if unknown:
            raise ConfigError(f"Training has no option '{unknown[0]}'.{nearest(unknown[0], sorted(known))}")
        try:
            return cls(**options)
        except TypeError as error:
            raise ConfigError(f"A training option has a value of the wrong type: {error}.") from error

    def settled(self, watchable: Sequence[str], examples: int, stages: Sequence[Stage] = ()) -> Settled:
        """The options with every open one decided; on resume they are not decided again.

        Args:
            watchable: splits of the data other than train.
            examples: number of training examples.
            stages: of :meth:`stages_of`.

        Raises:
            ConfigError: a device, split or stage that does not exist.
            MissingPackageError: a logger needs a package that is not installed.
        """
        require(self.log_to)
        device = settle_device(self.device)
        precision = settle_precision(device, stages) if self.precision == "auto" else self.precision
        watch = self.watch
        if watch == "auto":
            watch = "validation" if "validation" in watchable else "none"
        check("watch", watch == "none" or watch in watchable, watch, f"one of {', '.join(watchable)} or none")
        if watch == "none":
            check("early_stopping", not self.early_stopping, self.early_stopping, "0 without a validation split")
            check("schedule", self.schedule != "plateau", self.schedule, "another without a validation split")
        least = max((fewest(stage, None, self.accumulate) for stage in stages), default=1)
        batch_size = self.batch_size or max(settle_batch_size(examples), least * self.accumulate)
        first = next((stage for stage in stages if stage.phases), None)
        steps = updates_per_epoch(first or Stage("train"), batch_size, self.accumulate, examples)
        epochs = settle_epochs(steps)
        usual = self.epochs or next((s.epochs for s in stages if s.phases), None) or epochs
        decided: dict[str, Any] = {
            "batch_size": batch_size,
            "epochs": usual if first or not stages else 0,
            **{
                name: next((getattr(s, name) for s in stages if s.phases), 0.0) if value is None else value
                for name in OF_STAGES
                for value in (getattr(self, name),)
            },
            "stage": settle_stages(self.stage, stages, self.epochs or epochs, vars(self)),
            "minutes": None,
            "device": device,
            "precision": precision,
            "watch": watch,
            "select": "last" if watch == "none" else self.select,
            "threads": self.threads or torch.get_num_threads(),
        }
        settled = Settled(**vars(self) | decided)
        for stage in stages:
            own = settled.of_stage(stage.name)
            check_batches(stage, own.batch_size, own.accumulate, examples)
        return settled

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        return {k: list(v) if isinstance(v, tuple) else v for k, v in dataclasses.asdict(self).items()}


@dataclass(frozen=True, kw_only=True)
class Settled(Training):
    """A :class:`Training` in which every option is decided; minutes have become epochs.

    Where all stages are fitted in closed form, there are 0 epochs.
    """

    least_epochs: ClassVar[int] = 0

    epochs: int = 20
    batch_size: int = 128
    ema: float = 0.0
    labelled_share: float = 0.0

    def of_stage(self, name: str) -> Settled:
        """The options of one stage: its own, else the run's."""
        return dataclasses.replace(self, **self.stage.get(name, {}), stage={})


def settle_stages(
    given: Mapping[str, Mapping[str, Any]], stages: Sequence[Stage], epochs: int, said: Mapping[str, Any] | None = None
) -> dict[str, dict[str, Any]]:
    """The options that stages set for themselves, with the number of epochs of every later stage.

    Args:
        given: options by stage.
        stages: of the model.
        epochs: of stages that say none.
        said: what the run says; of :data:`OF_STAGES`, a stage that differs from the first has its own where it says
            nothing.

    Raises:
        ConfigError: a stage that the model does not have, or one that is fitted in closed form.
    """
    known = {stage.name: stage for stage in stages}
    for name in given:
        if name not in known:
            listed = ", ".join(known) or "none"
            raise ConfigError(f"The model has no stage '{name}'.{nearest(name, list(known))} It has: {listed}.")
        if not known[name].phases:
            raise ConfigError(f"The stage '{name}' is fitted in closed form; it has no training options.")
    made = {name: dict(options) for name, options in given.items()}
    trained = [stage for stage in stages if stage.phases]
    for stage in trained[1:]:
        own = made.setdefault(stage.name, {})
        own.setdefault("epochs", stage.epochs or epochs)
        for name in OF_STAGES:
            value = getattr(stage, name)
            if (said or {}).get(name) is None and value != getattr(trained[0], name):
                own.setdefault(name, value)
    return made


def settle_batch_size(examples: int) -> int:
    """The largest power of two from 16 to 128 with which an epoch has 20 updates.

    Example:
        >>> [settle_batch_size(n) for n in (50, 1500, 60000)]
        [16, 64, 128]
    """
    return max((size for size in (16, 32, 64, 128) if examples >= 20 * size), default=16)


def settle_epochs(steps: int) -> int:
    """20 epochs of so many updates, or enough for 2,000, at most 500: on small data 20 epochs are too few.

    Example:
        >>> settle_epochs(469), settle_epochs(24), settle_epochs(4)
        (20, 84, 500)
    """
    return min(max(20, math.ceil(2000 / steps)), 500)


def _loggers(given: str | Sequence[str]) -> tuple[str, ...]:
    """Names of loggers, each once.

    Raises:
        ConfigError: there is no such logger.
    """
    names = given.split(",") if isinstance(given, str) else given
    return tuple(dict.fromkeys(entry("logger", name).name for name in names if name))

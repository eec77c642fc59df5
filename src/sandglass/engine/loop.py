"""The one training loop, through the stages of a model.

At every step boundary the state depends only on the configuration and the number of steps: batches, noise and learning
rates are functions of the step, and everything else that a step changes is in the checkpoint. So a run that is stopped
and resumed gives the same bits, on CPU, with the same versions and thread count.

Where a run was given minutes, the clock decides how many steps there are, and nothing else: what it decided is written
to the configuration before the next step, so that the configuration repeats the run.

Several processes run the same loop in step. What depends on the time or the disk is decided by the first one alone.

The file is long because steps, epochs, stages, signals and deadlines act on one state, at the same boundaries.
"""

from __future__ import annotations

import math
import signal
import time
from collections.abc import Callable, Mapping
from dataclasses import fields, replace
from typing import Any

import torch
from torch import Tensor

from sandglass import __version__, rng
from sandglass.core import Batches, Clock, Model
from sandglass.data.augment import make_augmentation
from sandglass.data.corrupt import make_corruption
from sandglass.data.dataset import Dataset, Split
from sandglass.data.loading import Loader, in_order
from sandglass.engine import snapshot
from sandglass.engine.budget import Budget
from sandglass.engine.meter import Bad
from sandglass.engine.options import Settled
from sandglass.engine.precision import settings
from sandglass.engine.processes import ALONE, Processes
from sandglass.engine.progress import Progress, Silent, merged, watching
from sandglass.engine.recorder import Recorder
from sandglass.engine.schedules import make_factor
from sandglass.engine.sharding import divide, forget, is_divided, load
from sandglass.engine.sheets import Sheets
from sandglass.engine.signals import Signals
from sandglass.engine.state import State, is_stale
from sandglass.engine.step import Stepper
from sandglass.engine.validate import validate
from sandglass.errors import CheckpointError, DivergedError, SaveError
from sandglass.runs.run import Checkpoint, Run

_HOPELESS = 10  # consecutive non-finite updates that end the run
_SPARE = 0.04  # of a stage's time: with more than this left after the last planned epoch, training goes on


class Loop:
    """Trains a model into a run folder.

    Args:
        model: built for the data; its weights are replaced on resume.
        data: with a ``train`` split.
        run: where everything is written; its ``config`` is complete.
        options: settled.
        card: makes the text of the model card, called when the model is written.
        progress: shows the progress of training.
        clock: tells the time, in seconds.
        processes: that train the model together; the run of all but the first is one that writes nothing.
    """

    def __init__(
        self,
        model: Model,
        data: Dataset,
        run: Run,
        options: Settled,
        *,
        card: Callable[[Run], str],
        progress: Progress | None = None,
        clock: Callable[[], float] = time.perf_counter,
        processes: Processes = ALONE,
    ) -> None:
        self.time, self.processes = clock, processes
        self.budget = Budget.of(run.config.get("plan"))
        dtype = torch.float64 if options.precision == "fp64" else torch.float32
        self.device = torch.device(options.device)
        self.model = model.to(self.device, dtype)
        processes.share(self.model.state_dict().values())
        self.divided = options.shard_weights and processes.count > 1
        if self.divided:
            divide(self.model, processes)
        self.data, self.run, self.options, self.card = data, run, options, card
        self.progress = progress or Silent()
        self.recorder = Recorder(run, options, self.progress.say)
        self.stages = options.stages_of(model)
        self.watched = None if options.watch == "none" else data.splits[options.watch]
        self.sheets = Sheets(
            run,
            model,
            data,
            options.sheets if run.writes and not self.divided else 0,
            split="train" if self.watched is None or not len(self.watched) else options.watch,
            seed=options.seed,
            say=self.progress.say,
            clock=clock,
        )
        self.signals = Signals()
        self._saved: int | None = None
        self._saved_at = self.time()
        self._before = 0.0
        self.begin(State(self.stages[0].name))

    def begin(self, state: State) -> None:
        """Sets up a stage: its options, optimisers, batches and learning rates."""
        self.now = state
        self.stage = next(stage for stage in self.stages if stage.name == state.stage)
        self.own = self.options.of_stage(state.stage)
        self.stepper = Stepper(self.model, self.stage, self.own, self.processes)
        self.loader = Loader(
            self.data.train,
            self.own.batch_size,
            seed=self.own.seed,
            device=self.device,
            dtype=self.model.dtype,
            augment=None if self.stage.of_codes else make_augmentation(self.own.augment, self.data.spec),
            corrupt=None if self.stage.of_codes else make_corruption(self.own.corrupt, self.data.spec),
            stream=state.stage,
            rows=self.stepper.gradient.rows,
            least=self.stepper.gradient.least,
            labelled_share=self.own.labelled_share,
        )
        self.settle_length()
        self._closing = self.budget.closing.get(state.stage, 0.0) if self.budget else 0.0
        self._training = self._new_best = False
        self._stored: tuple[float, int | None] = (math.inf, None)  # the best that is on disk

    def settle_length(self) -> None:
        """The number of steps of this stage, and the learning rates of all its epochs."""
        self.total = self.own.epochs * self.loader.steps_per_epoch if self.stage.phases else 0
        self.last = min(self.total, self.own.max_steps or self.total)
        self.lr_factor = make_factor(self.own, self.loader.steps_per_epoch)

    def fit(self, resume: Checkpoint | None = None, *, anew: bool = False, copied: bool = False) -> None:
        """Trains to the end, or until a signal.

        Args:
            resume: the checkpoint to go on from.
            anew: whether its epochs without improvement no longer count for early stopping.
            copied: whether the weights are those of another run; they are saved, for no seed would give them again.

        Raises:
            DivergedError: too many consecutive updates were not finite; the last good checkpoint is kept.
            KeyboardInterrupt: Ctrl-C, after a checkpoint of the current step.
            SystemExit: with 143 on SIGTERM, after a checkpoint of the current step.
            SaveError: a checkpoint could not be written; earlier ones are intact.
        """
        if resume is not None:
            self.load(resume)
            if self.now.best_step == self.now.total:
                self.keep_best(
                    snapshot.kept(self.stepper)
                )  # a crash may have come between writing the checkpoint and the model
        self.begun = self.time() - self.now.seconds
        if anew:
            self.now.stale, self.now.stopped_early = 0, False
        if anew or copied:
            self.save()
        first = self.now.total
        precision = settings(self.options, self.processes.local)
        with self.signals, precision, watching(self.progress):
            self.run.event("resume" if resume else "start", step=first)
            self.recorder.mirror.start(first)
            try:
                self.run_stage()
                while not self.is_last():
                    self.next_stage()
                    self.run_stage()
                self.report_time()
            finally:
                self.model.requires_grad_(True)
                self.recorder.mirror.stop(self.is_last() and self.is_over())
                seconds = self.time() - self.begun
                done = self.now.total - first
                self.run.event("stop", step=self.now.total, steps=done, seconds=round(seconds - self._before, 3))
        self.model.eval()
        self.processes.wait()

    def is_last(self) -> bool:
        """Whether this is the last stage."""
        return self.stage is self.stages[-1]

    def is_over(self) -> bool:
        """Whether this stage is finished."""
        return self.now.step >= self.last or self.now.stopped_early

    def run_stage(self) -> None:
        """Fits, then steps until the end, answering signals between steps."""
        self._first, self._stage_begun = self.now.step, self.time()
        self.show_length()
        if self.stage.fit is not None and not self.now.fitted:
            self.fit_stage()
        if self.at_epoch_end() and self.now.validated < self.now.step:
            self.end_epoch()
        while not self.is_over() or self.goes_on():
            self.answer_signals()
            self.step()
            if self.at_epoch_end():
                self.end_epoch()
            elif self.options.save_steps and self.now.step % self.options.save_steps == 0:
                self.save()
            self.draw_sheet()
        self.answer_signals()
        self.save()
        self.keep_model()

    def show_length(self) -> None:
        """Tells the progress display how long this stage is."""
        shown = self.stage.name if len(self.stages) > 1 else ""
        left = self.seconds_left() if self.is_timed() else None
        self.progress.start(self.now.step, self.last, self.loader.steps_per_epoch, shown, left)

    def fit_stage(self) -> None:
        """The stage's fit in closed form, before its training if it has any; it counts as one step."""
        assert self.stage.fit is not None
        batches = {name: self.batches(split) for name, split in self.data.splits.items()}
        self.model.eval()
        fit = self.stage.fit
        with rng.forked(self.device, self.own.seed, "fit", self.stage.name):
            made = dict(fit(batches["train"], batches.get("validation"))) if self.divided or self.run.writes else {}
        figures = self.processes.first(lambda: made)
        self.share()
        self.now.fitted, self.now.offset = True, self.now.offset + 1
        n = len(self.data.train)
        self.recorder.log(
            [self.record("train", self.stage.name, term, float(value), n) for term, value in figures.items()]
        )
        self.progress.show("train", figures)
        if self.stage.phases:
            self.save()

    def batches(self, split: Split) -> Batches:
        """The batches of a split, from the first one at every call."""
        return lambda: (make() for make in in_order(split, device=self.device, dtype=self.model.dtype))

    def next_stage(self) -> None:
        """Begins the next stage from the best weights of this one."""
        best = self.now.best_step if self.own.select == "best" else None
        if best is not None and (best != self.now.total or self.own.ema):
            if self.run.writes or self.divided:
                tensors = self.run.read_checkpoint(best).tensors
                load(self.model, tensors.get("ema") or tensors["model"], str(self.run.checkpoint_path(best)))
            self.share()
        elif self.own.ema:
            self.stepper.average.settle()
            forget(self.model)
        stage = self.stages[self.stages.index(self.stage) + 1]
        self.run.event("stage", step=self.now.total, stage=stage.name)
        self.begin(State(stage.name, self.now.total, start=best))

    def share(self) -> None:
        """Weights and buffers that every process has whole become those of the first one."""
        self.processes.share(t for t in self.model.state_dict().values() if not is_divided(t))

    def step(self) -> None:
        """One step of every due phase."""
        batch, whole = self.loader.batch(self.now.step), self.loader.size(self.now.step)
        if not self._training:
            self.stepper.train()
            self._training = True
        self.stepper(batch, self.clock(), self.lr_factor(self.now.step) * self.now.plateau, whole)
        self.now.step += 1
        self.answer_deadline()
        self.progress.advance(self.now.step, whole)
        if self.now.step % self.options.log_every == 0 or self.at_epoch_end():
            self.log_training()

    def clock(self) -> Clock:
        """The clock of the coming step of this stage."""
        epoch = self.now.step / self.loader.steps_per_epoch
        times = [torch.full((), t, dtype=self.model.dtype, device=self.device) for t in (epoch, float(self.now.step))]
        return Clock(self.now.step, self.total, *times)

    def draw_sheet(self) -> None:
        """Writes a sheet of pictures, if one is due."""
        if self.sheets.is_due(self.now.step, self.now.step if self.is_over() else self.last):
            self._training = False
            path = self.sheets.write(self.stepper, self.now.total, last=self.is_over())
            if path is not None:
                self.progress.drawn(path)

    def at_epoch_end(self) -> bool:
        """Whether an epoch has just ended, or the stage in the midst of one."""
        step = self.now.step
        return step > 0 and (step % self.loader.steps_per_epoch == 0 or step == self.last)

    def end_epoch(self) -> None:
        """Validates, updates the best weights, saves."""
        begun = self.time()
        if self.watched is not None and not self.validate():
            return
        self.now.validated = self.now.step
        epoch = self.now.step // self.loader.steps_per_epoch
        last = self.is_over()
        waited = self.processes.first(lambda: self.time() - self._saved_at >= self.options.save_seconds)
        if self._new_best or last or (epoch % self.options.save_every == 0 and waited):
            self.save()
        self._closing = max(0.7 * self._closing, self.time() - begun)  # saving does not take long every time

    # minutes

    def elapsed(self) -> float:
        """Seconds of the run's time that are used, planning and earlier parts of the run included."""
        trained = self.time() - self.begun
        return self.budget.used(trained) if self.budget else trained

    def is_timed(self) -> bool:
        """Whether this stage has to end at a given time."""
        return self.budget is not None and self.stage.name in self.budget.ends

    def seconds_left(self) -> float:
        """Seconds until the last step of this stage, if the run was given minutes."""
        assert self.budget is not None
        end = self.budget.ends[self.stage.name]
        return self.processes.first(lambda: end - self._closing - self.sheets.last_takes - self.elapsed())

    def answer_deadline(self) -> None:
        """After a step: if the time of the stage is up, this step becomes its last."""
        if not self.is_timed() or self.is_over() or self.seconds_left() > 0:
            return
        epochs = self.now.step / self.loader.steps_per_epoch
        self.progress.say(
            f"{self.named()}the time is up at step {self.now.step:,} of {self.total:,}, after {epochs:.1f} of "
            f"{self.own.epochs} epochs."
        )
        self.run.event("deadline", step=self.now.total, stage=self.stage.name, planned=self.total)
        self.change_length(max_steps=self.now.step)

    def goes_on(self) -> bool:
        """At the end of the stage: whether there is time for more epochs, which then follow.

        Not where the learning rate falls to 0 at the end. No other schedule knows the number of epochs, so the longer
        run has the same bits as one that had been planned so.
        """
        if not self.is_timed() or self.now.stopped_early or self.own.schedule == "cosine":
            return False
        assert self.budget is not None
        stopping = any(self.processes.most(self.signals.stop or 0))
        left, done = self.seconds_left(), self.now.step - self._first
        if self.own.max_steps or stopping or left < _SPARE * self.budget.length(self.stage.name):
            return False
        spent = self.processes.first(lambda: self.time() - self._stage_begun)
        per_epoch = spent / max(done, 1) * self.loader.steps_per_epoch
        more = max(1, int(left / per_epoch)) if done else 1
        before = self.own.epochs
        self.run.event("extended", step=self.now.total, stage=self.stage.name, epochs=before + more, planned=before)
        self.change_length(epochs=before + more)
        self.progress.say(f"{self.named()}time is left: {self.own.epochs} epochs instead of {before}.")
        self.show_length()
        return True

    def change_length(self, **own: int) -> None:
        """Changes the length of this stage, in the configuration as well."""
        name = self.stage.name
        stage = {**self.options.stage, name: {**self.options.stage.get(name, {}), **own}}
        changes: dict[str, Any] = {"stage": stage}
        if "epochs" in own and name == next(s.name for s in self.stages if s.phases):
            changes = {"epochs": own["epochs"]}  # those of the first stage are the run's
        self.options = replace(self.options, **changes)
        self.own = self.options.of_stage(name)
        self.stepper.options = self.own
        self.run.rewrite({**self.run.config, "training": self.options.to_dict()})
        self.settle_length()

    def report_time(self) -> None:
        """Says at the end how much of the minutes was used."""
        if self.budget is not None:
            used, given = self.elapsed(), self.budget.seconds
            early = ""
            if used < 0.9 * given:
                why = "it stopped early" if self.now.stopped_early else "its learning rate has fallen to 0"
                early = f", and no longer: {why}"
            self.progress.say(f"Trained for {used / 60:.2f} of {self.budget.text}{early}.")

    def named(self) -> str:
        """The stage's name before a message, if there are several."""
        return f"{self.stage.name}: " if len(self.stages) > 1 else ""

    # figures

    def log_training(self) -> None:
        """Logs the meter's means; this synchronises with the device."""
        readings = self.stepper.meter.read()
        records = []
        for phase in [p for p in self.stage.phases if p.name in readings]:
            reading = readings[phase.name]
            lr = self.stepper.optimizer(phase).param_groups[0]["lr"]
            values = {**reading.means, "lr": lr} | ({"skipped": reading.skipped} if reading.skipped else {})
            records += [self.record("train", phase.name, term, value, reading.n) for term, value in values.items()]
        self.recorder.log(records)
        means = {name: {k: v for k, v in r.means.items() if k != "grad_norm"} for name, r in readings.items()}
        self.progress.show("train", merged(means, self.stage.objective))
        for reading in readings.values():
            if reading.bad is not None:
                self.report_bad(reading.bad, reading.skipped)
        if self.stepper.meter.longest_streak() >= _HOPELESS:
            raise DivergedError(self.diverged("the last updates were all not finite"))

    def report_bad(self, bad: Bad, count: int) -> None:
        """Reports the update that was not finite, and its examples."""
        step, phase, term = bad.step, bad.phase, bad.term
        split = self.loader.split
        index = self.loader.indices(step).tolist()
        who = [split.names[i] for i in index] if split.names else index
        shown = ", ".join(map(str, who[:8])) + (", ..." if len(who) > 8 else "")
        place = self.now.offset + step
        self.run.event("skipped", step=place, phase=phase, term=term, count=count, examples=who[:64])
        self.progress.say(
            f"Step {place + 1}: '{term}' of phase '{phase}' was not finite; {count} update(s) skipped. "
            f"Examples: {shown}"
        )

    def diverged(self, why: str) -> str:
        """The message of a :class:`DivergedError`."""
        step = self.run.steps()
        kept = f"The checkpoint of step {step[-1]} is kept." if step else "Nothing was saved yet."
        return f"Training diverged by step {self.now.total}: {why}. {kept} Try a lower --lr, or --clip 1."

    def validate(self) -> bool:
        """Validates on the watched split; False if a signal interrupted it, and it must be repeated."""
        assert self.watched is not None
        self._training = False
        measured = validate(self.stepper, self.watched, self.clock(), interrupted=lambda: self.signals.stop is not None)
        if measured is None:
            self.answer_signals()
            return False
        split = self.options.watch
        values = [self.record(split, phase, term, v, len(self.watched)) for (phase, term), v in measured.items()]
        self.recorder.log(values)
        means = {p.name: {term: v for (name, term), v in measured.items() if name == p.name} for p in self.stage.phases}
        self.progress.show(split, merged(means, self.stage.objective))
        objective = measured.get((self.stage.objective or "", "objective"))
        if objective is not None and self.own.select == "best":
            self.compare(objective)
        return True

    def compare(self, objective: float) -> None:
        """Updates best weights, early stopping and the plateau schedule from the objective at its final weights."""
        if objective < self.now.best:
            self.now.best, self.now.best_step = objective, self.now.total
            self.now.stale = self.now.plateau_stale = 0
            self._new_best = True
            return
        self.now.stale += 1
        self.now.plateau_stale += 1
        if self.own.schedule == "plateau" and self.now.plateau_stale >= self.own.schedule_every:
            self.now.plateau *= self.own.schedule_factor
            self.now.plateau_stale = 0
        self.now.stopped_early = is_stale(self.now.stale, self.own.early_stopping)

    def record(self, split: str, phase: str, term: str, value: float, n: int) -> dict[str, Any]:
        """One line of the log; steps count through all stages, epochs within one."""
        epoch = self.now.step / self.loader.steps_per_epoch
        return {
            "step": self.now.total,
            "epoch": round(epoch, 6),
            "stage": self.stage.name,
            "split": split,
            "phase": phase,
            "term": term,
            "value": value,
            "n": n,
        }

    # signals and checkpoints

    def answer_signals(self) -> None:
        """At a step boundary: saves, and stops if a signal asked for it."""
        stop, save = self.signals.agree(self.processes)
        if save:
            self.save()
        if stop is None:
            return
        self.save()
        self.keep_model()
        of = f"{self.last} of the stage '{self.stage.name}'" if len(self.stages) > 1 else self.last
        again = f"sandglass train --resume {self.run.path}"
        self.progress.say(f"Stopped at step {self.now.step} of {of}; resume with: {again}")
        if stop == signal.SIGINT:
            raise KeyboardInterrupt
        raise SystemExit(128 + stop)

    def save(self) -> None:
        """Writes a checkpoint of this step; with new best weights, also the model folder.

        Raises:
            SaveError: it could not be written, and either this is the end of a stage or the options do not tolerate it.
        """
        if self._saved == self.now.total:
            return
        if any(self.processes.most(not snapshot.finite(self.stepper))):
            raise DivergedError(self.diverged("weights are not finite"))
        files = snapshot.tensors(self.stepper) if self.run.writes or self.divided else {}
        self.now.best, self.now.best_step, self._saved = self.processes.first(lambda: self.write(files))
        self._new_best = False
        self._saved_at = self.time()

    def write(self, files: Mapping[str, Mapping[str, Tensor]]) -> tuple[float, int | None, int | None]:
        """Writes a checkpoint of this step.

        Args:
            files: of :func:`~sandglass.engine.snapshot.tensors`.

        Returns:
            The best objective and its step, which are those on disk if this one was not saved, and the step of the
            newest checkpoint.
        """
        self.now.seconds = self.time() - self.begun
        now = vars(self.now) | {"best": self.now.best if math.isfinite(self.now.best) else None}
        state = {"loop": now, "meter": self.stepper.meter.state()}
        step = self.now.total
        about = {
            "sandglass": __version__,
            "torch": str(torch.__version__),
            "threads": torch.get_num_threads(),
            "device": str(self.device),
        }
        try:
            self.run.save_checkpoint(step, files, state, about)
            self._saved = step
            if self._new_best:
                self.keep_best(files.get("ema") or files["model"])
                self._stored = (self.now.best, self.now.best_step)
            self.prune()
        except SaveError as error:
            if self.signals.stop is not None or self.is_over():
                raise
            self.recorder.tolerate(error)
            if self._new_best:  # they were not saved: compare the next epoch with the best on disk
                return *self._stored, self._saved
        return self.now.best, self.now.best_step, self._saved

    def prune(self) -> None:
        """Keeps the newest checkpoints, the best, and the one this stage began from as long as it may be needed.

        To resume from a checkpoint of the previous stage takes that stage's best weights as well.
        """
        needed = {self.now.best_step}
        if any(step <= self.now.offset for step in self.run.steps()[-self.options.keep :]):
            needed.add(self.now.start)
        self.run.prune(self.options.keep, needed)

    def keep_best(self, kept: Mapping[str, Tensor]) -> None:
        """Marks the weights of this step as the best, and writes them to the model folder."""
        self.run.point("BEST", self.now.total)
        self.run.write_model(kept, self.card(self.run), self.now.total)

    def keep_model(self) -> None:
        """Writes the newest weights to the model folder where no objective chooses."""
        if self.own.select == "last" or self.now.best_step is None:
            self.run.write_model(snapshot.kept(self.stepper), self.card(self.run), self.now.total)

    def load(self, checkpoint: Checkpoint) -> None:
        """Restores the state after ``checkpoint.step`` steps.

        Raises:
            CheckpointError: it does not fit this model.
        """
        where = str(self.run.checkpoint_path(checkpoint.step))
        state = dict(checkpoint.state)
        try:
            values = {f.name: state["loop"][f.name] for f in fields(State)}
            best = values["best"]
            load(self.model, checkpoint.tensors["model"], where)
            self.begin(State(**values | {"best": math.inf if best is None else best}))
            snapshot.load(self.stepper, checkpoint.tensors, state.pop("meter"))
            self.run.rewind_log(state.pop("log_bytes"))
            self._stored = (self.now.best, self.now.best_step)
            self.now.stopped_early = is_stale(self.now.stale, self.own.early_stopping)  # it may have been raised
        except (KeyError, TypeError, StopIteration) as error:
            raise CheckpointError(f"{where} does not fit this run: {error}.") from error
        self._before = self.now.seconds

"""``sandglass train``: trains a model and writes its report."""

from __future__ import annotations

import math
import os
import re
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

from sandglass import api, recipes, registry
from sandglass.app import configure, flags
from sandglass.app.configure import Config
from sandglass.app.output import counted, duration, metrics_table, say, telling, wrong
from sandglass.app.words import Words, sort
from sandglass.core import Model, Stage
from sandglass.data.dataset import Dataset
from sandglass.data.selecting import held_out
from sandglass.data.trained_on import own_data
from sandglass.engine.batches import updates_per_epoch
from sandglass.engine.options import Settled, Training
from sandglass.engine.planning import Plan, free_width
from sandglass.engine.processes import ALONE, Processes, agreed, joined, shared
from sandglass.engine.record import BAD_FILES
from sandglass.engine.resume import ended_early, finished
from sandglass.engine.sheets import FOLDER
from sandglass.engine.train import choose, plan_minutes, spec_of, stages_for
from sandglass.engine.train import train as train_model
from sandglass.errors import ConfigError
from sandglass.runs.configuration import read_config
from sandglass.runs.needed import check_needed
from sandglass.runs.run import Run, find_run
from sandglass.runs.specification import from_plain
from sandglass.tasks.trained import opened

_FEW, _FEW_TIMED = 300, 1000  # warn below this total number of updates, and where the time decides


def train(words: Sequence[str]) -> int:
    """Trains a model, or resumes a run; of several processes, the first one alone reports."""
    with joined() as processes, ExitStack() as stack:
        if not processes.writes:
            nowhere = stack.enter_context(open(os.devnull, "w"))
            stack.enter_context(redirect_stdout(nowhere))
            stack.enter_context(redirect_stderr(nowhere))
        return run_command(words, processes)


def run_command(words: Sequence[str], processes: Processes) -> int:
    """The command, in each of the processes."""
    given = sort(words)
    if "--resume" in given.own and "--help" not in given.switches:
        return resume(given, processes)
    layers, show = read_layers(given)
    name = flags.model_name(given, layers)
    chosen = flags.chosen_names(name, layers, given.settings)
    own = flags.Flags(name, chosen)
    if "--help" in given.switches:
        from sandglass.app.helping import train_help

        print(train_help(name, own))
        return 0
    merged = merge(name, given, layers, own)
    config = settle(merged, given)
    data: Dataset | None = None
    unnamed = not flags.named(given, layers) and not merged["model"]["options"]
    if unnamed and "--print_config" in given.switches:
        config["model"] = {"name": registry.AUTO}
    elif unnamed and config["data"]["source"]:
        data = read_data(config)
        source = find_run(given.own["--init-from"]) if "--init-from" in given.own else None
        name, why = choose(data, Training.of(config["training"]), init_from=source)
        merged = merged | {"model": {"name": name, "options": {}}}
        config = settle(merged, given)
        say(f"No model is named: {name}, because {why}; `sandglass models` lists others.")
    elif not flags.named(given, layers) and "--print_config" not in given.switches:
        say(f"No model is named: {name}, because options of it are given; `sandglass models` lists others.")
    if "--print_config" in given.switches:
        print(configure.as_yaml(config), end="")
        return 0
    data = read_data(config) if data is None else data
    free = "--init-from" not in given.own and free_width(name, merged["model"]["options"])
    if "--dry-run" in given.switches:
        from sandglass.app.dry_run import dry_run

        return dry_run(config, data, width=free)
    run = start(config, data, given, width=free, processes=processes)
    if processes.writes:
        finish(run, data, show, "--no-report" not in given.switches)
    return 0


def read_layers(given: Words) -> tuple[list[Config], Mapping[str, Any]]:
    """The recipe and the configuration file, in that order, and the figures to write at the end."""
    layers: list[Config] = []
    show: Mapping[str, Any] = {}
    if "--recipe" in given.own:
        recipe = recipes.read(given.own["--recipe"])
        layers.append(configure.normal(recipe, f"The recipe {given.own['--recipe']}"))
        show = recipe.get("show") or {}
    if "--config" in given.own:
        layers.append(
            configure.normal(read_config(Path(given.own["--config"]), configure.SECTIONS), given.own["--config"])
        )
    return layers, show


def merge(name: str, given: Words, layers: Sequence[Config], own: flags.Flags) -> Config:
    """What preset, recipe, file and flags give; later ones override earlier ones.

    Raises:
        ConfigError: an option is unknown, or a value is invalid.
    """
    config: Config = {}
    for layer in layers:
        config = configure.over(config, layer)
    config = configure.over(config, {"model": {"name": name, "options": {}}})
    own.check(config, "The configuration")
    return configure.over(config, own.read(given.settings))


def settle(merged: Config, given: Words) -> Config:
    """The complete configuration.

    Raises:
        ConfigError: an option is unknown, or a value is invalid.
    """
    config = configure.complete(merged)
    if "--data" in given.own:
        config["data"]["source"] = given.own["--data"]
    return config


def read_data(config: Config) -> Dataset:
    """The data of a configuration.

    Raises:
        ConfigError: the configuration has no data.
    """
    options = dict(config["data"])
    source = options.pop("source")
    if not source:
        raise ConfigError("Give the data to train on: --data with a folder, a file or a name, such as --data digits.")
    return api.load_data(source, **options)


def start(config: Config, data: Dataset, given: Words, *, width: bool = False, processes: Processes = ALONE) -> Run:
    """Builds the model, resolves the training options, prints a summary, and trains.

    Args:
        config: complete.
        data: to train on.
        given: the command line.
        width: whether the width of the net may be chosen to fit a number of minutes.
        processes: that train together.
    """
    agreed(data, processes)
    name, options = config["model"]["name"], configure.given_options(config["model"]["options"])
    requested = shared(Training.of(config["training"]), processes)
    model = api.build(name, spec_of(data, requested), seed=requested.seed, **options)
    plan: Plan | None = None
    if requested.minutes is not None:
        plan, model = plan_minutes(model, data, requested, width=width, processes=processes)
        requested = plan.applied(requested)
    stages = stages_for(model, data, requested)
    training = requested.settled([s for s in data.splits if s != "train"], len(data.train), stages)
    say(f"{name} on {data.about}, {length(training, stages)}")
    short = shortage(training, stages, len(data.train), timed=plan is not None)
    for note in [*data.notes, *([short] if short else [])]:
        say(f"  note: {note}")
    if plan is not None:
        say(plan.line() + ("" if "--no-report" in given.switches else "; evaluation and report come after"))
    if data.bad:
        say(f"  note: {BAD_FILES} in the run folder lists every file that was left out, and why")
    return train_model(
        model,
        data,
        out=given.own.get("--out"),
        init_from=find_run(given.own["--init-from"]) if "--init-from" in given.own else None,
        recipe=given.own.get("--recipe"),
        plan=plan,
        **training.to_dict(),
    )


def length(training: Settled, stages: Sequence[Stage]) -> str:
    """The epochs and batch size, for each stage if several are trained."""
    trained = [stage.name for stage in stages if stage.phases]
    parts = []
    for name in trained:
        own = training.of_stage(name)
        of = f" of {name}" if len(trained) > 1 else ""
        parts.append(f"{own.epochs} epoch{'s' * (own.epochs != 1)}{of} in batches of {own.batch_size}")
    return ", then ".join(parts)


def shortage(training: Settled, stages: Sequence[Stage], examples: int, *, timed: bool) -> str:
    """The warning of :func:`few` for the first stage that is trained."""
    first = next((stage for stage in stages if stage.phases), None)
    if first is None:
        return ""
    own = training.of_stage(first.name)
    return few(own.epochs, updates_per_epoch(first, own.batch_size, own.accumulate, examples), timed=timed)


def few(epochs: int, steps: int, *, timed: bool = False) -> str:
    """A warning for a run with too few updates; empty for others.

    Args:
        epochs: of the run.
        steps: updates in an epoch.
        timed: whether the epochs were chosen to fit a time.

    Example:
        >>> print(few(30, 1))
        only 30 updates in total, expect poor results; use --epochs 2000 for 2,000 updates, or a smaller batch size
        >>> print(few(30, 10, timed=True))
        only 300 updates fit into the time, expect poor results; give it more minutes
    """
    updates = epochs * steps
    if updates >= (_FEW_TIMED if timed else _FEW):
        return ""
    counts = counted(updates, "update")
    if timed:
        return f"only {counts} fit{'s' * (updates == 1)} into the time, expect poor results; give it more minutes"
    enough = math.ceil(2000 / steps)
    return (
        f"only {counts} in total, expect poor results; use --epochs {enough} for {enough * steps:,} updates, or a "
        "smaller batch size"
    )


def resume(given: Words, processes: Processes = ALONE) -> int:
    """Resumes a run.

    Raises:
        ConfigError: an option would change the run.
    """
    lengths: dict[str, Any] = {}
    stage: dict[str, dict[str, int]] = {}
    for form, value in given.settings:
        if form in ("--minutes", "--training.minutes"):
            lengths["minutes"] = number(form, value)
            continue
        found = re.fullmatch(r"--(?:training\.)?(?:stage\.(.+)\.)?(epochs|early[-_]stopping)", form)
        if found is None:
            raise ConfigError(
                "--resume continues the run unchanged: only --epochs, --minutes and --early-stopping can be given, "
                f"not {form}."
            )
        if not value.isdigit():
            raise ConfigError(f"{form} must be a whole number, not {value}.")
        name, option = found[1], found[2].replace("-", "_")
        (stage.setdefault(name, {}) if name else lengths)[option] = int(value)
    extra = [o for o in (*given.own, *given.switches) if o not in ("--resume", "--data", "--no-report")]
    if extra or given.model:
        raise ConfigError(f"--resume continues the run unchanged; omit {[*extra, given.model][0]}.")
    run = Run(given.own["--resume"])
    if not lengths and not stage and finished(run):
        if run.config["training"]["epochs"] == 0:
            say(f"{run.path} is finished: it was fitted in closed form.")
            return 0
        steps, more = counted(run.steps()[-1], "step"), longer(run, outline_of(run))
        how, other = ("stopped early", ", or --early-stopping 0") if ended_early(run) else ("is finished", "")
        say(f"{run.path} {how}, after {steps}. To train it longer: {more}, or --minutes 10{other}")
        return 0
    data = own_data(run, given.own.get("--data"))
    run = api.resume(run.path, data=data, stage=stage, **lengths)
    show = recipes.read(run.config["recipe"]).get("show") if run.config.get("recipe") in recipes.names() else None
    if processes.writes:
        finish(run, data, show or {}, "--no-report" not in given.switches)
    return 0


def number(form: str, value: str) -> float:
    """The value of an option that is a number.

    Raises:
        ConfigError: it is none.
    """
    try:
        return float(value)
    except ValueError as error:
        raise ConfigError(f"{form} must be a number, not {value}.") from error


def finish(run: Run, data: Dataset, show: Mapping[str, Any], report: bool) -> None:
    """Evaluates the run, writes figures and report, and prints paths and suggested next commands."""
    split = held_out(data.splits)
    page: Path | None = None
    if report:
        from sandglass.app.show import figures
        from sandglass.reports.page import write_report

        begun = time.perf_counter()
        trained = opened(run, run.config["training"]["device"], data=data)
        with telling() as tell:
            measured = api.evaluate(run, split=split, data=data, model=trained.model, quick=True, progress=tell)
        images = figures(trained, show)
        page = write_report(run, trained.model, data, run.results())
        say(f"evaluation and report took {duration(time.perf_counter() - begun)}")
        examples = counted(len(data.splits[split]), f"{split} example")
        print(f"\nQuick figures on {examples}; for all, sandglass evaluate {run.path}:\n")
        metrics_table(measured["metrics"])
        wrong(measured["metrics"], trained.model.spec)
        print()
        for image in images:
            print(f"figure  {image}")
    else:
        print()
    print(f"run     {run.path}")
    if (run.path / FOLDER).is_dir():
        print(f"sheets  {run.path / FOLDER}")
    if page is not None:
        print(f"report  {page}")
    model = outline_of(run)
    print(f"\nnext:\n  {first(run, model)}\n  {second(run, model)}")


def outline_of(run: Run) -> Model | None:
    """The outline of the model of a run."""
    settings = run.config["model"]
    check_needed(run.config, settings["options"], run.path)
    return registry.outline(settings["name"], from_plain(run.config["spec"]), **settings["options"])


def first(run: Run, model: Model | None) -> str:
    """The command that shows what the model makes: samples, under its condition, or translations."""
    if model is None:
        return f"sandglass generate {run.path} -n 64"
    if "translate" in model.provides and not model.latents:
        return f"sandglass translate {run.path}"
    companions = [name for name in model.conditions if name != "labels"]
    words = [f"--given {name}=FILE" for name in companions] or ["--label each" if model.conditions else "-n 64"]
    return " ".join(["sandglass generate", str(run.path), *words])


def second(run: Run, model: Model | None) -> str:
    """Another command worth trying: reconstructions, or more epochs of the last stage."""
    if model is not None and model.latents and "reconstruct" in model.provides and model.spec.is_image:
        return f"sandglass reconstruct {run.path} -n 10"
    return longer(run, model)


def longer(run: Run, model: Model | None) -> str:
    """The command that trains the last stage of a run for twice the epochs."""
    training = Settled.of(run.config["training"])
    trained = [stage.name for stage in training.stages_of(model) if stage.phases] if model is not None else []
    flag = f"--stage.{trained[-1]}.epochs" if len(trained) > 1 else "--epochs"
    epochs = training.of_stage(trained[-1]).epochs if trained else training.epochs
    return f"sandglass train --resume {run.path} {flag} {2 * epochs}"

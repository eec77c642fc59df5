"""``sandglass sweep``: hyperparameter search by the validation split."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sandglass.app.output import duration, say, table
from sandglass.app.parsing import Parser, count
from sandglass.errors import ConfigError
from sandglass.runs.result import figure

if TYPE_CHECKING:
    from sandglass.app.flags import Flags
    from sandglass.sweeps.space import Dimension
    from sandglass.sweeps.study import Study
    from sandglass.sweeps.trials import Swept, Trial


def sweep(words: Sequence[str]) -> int:
    """Runs a hyperparameter search."""
    parser = make_parser()
    args, rest = parser.parse_known_args(list(words))

    from sandglass.app.words import sort
    from sandglass.sweeps.page import settings

    given = sort(rest)
    begun: dict[int, None] = {}

    def on_trial(trial: Trial, study: Study) -> None:
        begun[trial.number] = None
        best = next((t for t in study.trials() if t.value is not None), None)
        result = trial.reason if trial.value is None else f"{study.plan.metric} {figure(trial.value, trial.stderr)}"
        found = f"; best so far is trial {best.number}" if best is not None and best.number != trial.number else ""
        place = f"trial {trial.number} ({len(begun)} now, {study.plan.trials} in total)"
        say(f"{place} {trial.state}, {settings(trial)}: {result}, {duration(trial.seconds)}{found}")

    try:
        found = resumed(parser, args, given, on_trial) if args.resume else begin(args, given, on_trial)
    except KeyboardInterrupt:
        folder = args.resume or args.out or "the newest folder of sweeps/"
        say(f"Stopped; finished trials are kept. Continue with: sandglass sweep --resume {folder}")
        raise
    if args.json:
        from sandglass.runs.plain import strict_json

        print(strict_json(found.to_dict(), indent=1))
        return 0
    show(found)
    return 0


def make_parser() -> Parser:
    """The parser of the command's own options; all others are those of ``train``."""
    parser = Parser(
        "sweep",
        "Search hyperparameters and choose the best by the validation split. Options of `sandglass train` apply to\n"
        "all trials; those of the model and of training can be varied. Each trial is a run in the sweep folder.\n"
        "Ctrl-C stops at the next step; --resume continues without loss.",
        [
            "sweep vae --data digits --vary lr=1e-4..1e-2 latent_dim=2,8,32 --trials 20 --epochs 10",
            "sweep beta-vae --data mnist --vary beta=0.5,1,2,4 --sampler grid --metric mse --jobs 2",
            "sweep --resume sweeps/vae-digits-1 --trials 40",
        ],
    )
    parser.add_argument(
        "--vary",
        action="extend",
        nargs="+",
        default=[],
        metavar="OPTION=VALUES",
        help="options to vary: a list a,b,c or a range a..b, on a log scale if the ends are positive and at least a "
        "factor of 100 apart; force a scale with log:a..b or linear:a..b. Write list values in brackets",
    )
    parser.add_argument(
        "--trials", type=count, metavar="N", help="total number of trials (default: 20; all for a grid)"
    )
    parser.add_argument("--metric", metavar="FIGURE", help="the figure to optimise (default: elbo, else mse)")
    parser.add_argument(
        "--sampler", default="auto", help="grid (default where --trials suffice for it), tpe (else) or random"
    )
    parser.add_argument(
        "--prune", nargs="?", const="median", default="none", metavar="HOW",
        help="stop unpromising trials: median (default without HOW) or halving",
    )  # fmt: skip
    parser.add_argument(
        "--jobs", type=count, default=1, metavar="N", help="number of parallel trials, which share the threads"
    )
    parser.add_argument(
        "--folds", type=count, default=0, metavar="N", help="train every trial on N folds of the examples that are not "
        "held out for testing, and rank by the mean (default: one validation split)",
    )  # fmt: skip
    parser.add_argument("-o", "--out", metavar="DIR", help="the folder (default: sweeps/<model>-<data>-<number>)")
    parser.add_argument(
        "--resume",
        metavar="DIR",
        help="resume a sweep; --trials can raise the number of trials, --data name the place of moved data",
    )
    parser.add_argument("--json", action="store_true", help="print JSON and nothing else")
    return parser


def begin(args: Any, given: Any, on_trial: Any) -> Swept:
    """Starts a new sweep.

    Raises:
        ConfigError: an option is unknown, or not allowed in a sweep.
    """
    from sandglass.app import flags
    from sandglass.app.configure import given_options
    from sandglass.app.train import merge, read_data, read_layers, settle
    from sandglass.engine.train import next_folder
    from sandglass.sweeps.folds import folds_of
    from sandglass.sweeps.space import checked
    from sandglass.sweeps.study import Study
    from sandglass.sweeps.sweep import conduct, plan_of

    for word in [*given.switches, *given.own]:
        if word not in ("--data", "--recipe", "--config"):
            raise ConfigError(f"{word} is an option of `sandglass train` that sweeps do not support.")
    layers, _ = read_layers(given)
    name = flags.model_name(given, layers)
    own = flags.Flags(name, flags.chosen_names(name, layers, given.settings))
    vary = checked([dimension(own, text) for text in args.vary])
    config = settle(merge(name, given, layers, own), given)
    folds = folds_of(read_data(config), None, args.folds)
    data = folds[0]
    plan = plan_of(
        name, folds, vary, trials=args.trials, metric=args.metric, sampler=args.sampler, prune=args.prune,
        jobs=args.jobs, model_options=given_options(config["model"]["options"]), options=config["training"],
    )  # fmt: skip
    study = Study.create(Path(args.out) if args.out else next_folder(name, data.name, "sweeps"), plan)
    trials, epochs = plan.trials, plan.training["epochs"]
    say(
        f"{trials} trial{'s' * (trials != 1)} of {name} on {data.name}, {epochs} epoch{'s' * (epochs != 1)} each, "
        f"{f'{plan.folds} folds, ' if plan.folds else ''}"
        f"in {study.folder}"
    )
    return conduct(study, folds, args.jobs, on_trial)


def resumed(parser: Parser, args: Any, given: Any, on_trial: Any) -> Swept:
    """Resumes a sweep.

    Raises:
        ConfigError: an option would change the sweep.
    """
    from sandglass.sweeps.sweep import sweep as run

    defaults = parser.parse_args([])
    changed = [
        k for k in ("vary", "metric", "sampler", "prune", "folds", "out") if getattr(args, k) != getattr(defaults, k)
    ]
    own = [name for name in given.own if name != "--data"]
    extra = [*(f"--{k}" for k in changed), *given.switches, *own, *(form for form, _ in given.settings)]
    if extra or given.model:
        raise ConfigError(f"--resume continues the sweep unchanged; omit {[*extra, given.model][0]}.")
    place = given.own.get("--data")
    return run(resume=args.resume, data=place, trials=args.trials, jobs=args.jobs, on_trial=on_trial)


def dimension(own: Flags, text: str) -> Dimension:
    """Parses an argument of ``--vary``, with values of the option's type.

    Raises:
        ConfigError: it is not ``option=values``, or a value has the wrong type.
    """
    from sandglass.sweeps.space import written

    name, equals, values = text.partition("=")
    if not equals or not values:
        raise ConfigError(f"--vary takes option=values, such as lr=1e-4..1e-2 or latent_dim=2,8,32, not {text}.")
    form = f"--{name.strip()}"
    key = own.key(form)

    def read(value: str) -> Any:
        found: Any = own.read([(form, value)])
        section, *path = key.split(".")
        found = found[section]["options"] if section == "model" else found[section]
        for part in path:
            found = found[part]
        return found

    return written(own.options[key], key, values.strip(), read)


def show(found: Swept) -> None:
    """Prints the trials, the best first, and suggested next commands."""
    from sandglass.sweeps.page import short, shown, within_noise

    names = list(found.vary)
    rows = [
        [
            str(t.number),
            "" if t.value is None else figure(t.value, t.stderr),
            *(shown(t.values[n]) if n in t.values else "" for n in names),
            f"{t.epochs:g}",
            duration(t.seconds),
            t.state + (f": {t.reason}" if t.reason else ""),
        ]
        for t in found.trials
    ]
    print(f"\nvalidation {found.metric}, {found.better} is better\n")
    headers = ["trial", found.metric, *map(short, names), "epochs", "time", "state"]
    table(headers, rows, right=range(len(headers) - 1), wrap=(len(headers) - 1,))
    assert found.best is not None
    if found.folds:
        print(f"\nMeans over {found.folds} folds, with the standard errors over them. {within_noise(found)}".rstrip())
    print(f"\nbest    {found.best.folder}\npage    {found.folder / 'sweep.html'}")
    print(f"\nnext:\n  {found.again}")
    if not found.folds:
        print(f"  sandglass evaluate {found.best.folder}")

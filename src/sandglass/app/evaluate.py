"""Measuring a trained model, and the list of what can be measured."""

from __future__ import annotations

import re
from argparse import Namespace
from collections.abc import Mapping, Sequence
from typing import Any

from sandglass.app.output import metrics_table, table
from sandglass.app.parsing import Parser, examples_from, whole
from sandglass.errors import ConfigError


def evaluate(words: Sequence[str]) -> int:
    """Measures a trained model and, on the run's own data, writes ``results.json``."""
    parser = Parser(
        "evaluate",
        "Measure a trained model. On the run's own data the figures are kept in results.json.",
        ["evaluate runs/vae-digits-1", "evaluate runs/vae-digits-1 --metrics log_prob --log_prob.k 1000 --json"],
    )
    parser.add_argument("run", metavar="RUN", help="a run folder")
    parser.add_argument("--device", default="auto", help="auto (default), cpu, cuda, cuda:N or mps")
    examples_from(parser, "test")
    metrics_from(parser)
    parser.add_argument("--seed", type=int, default=0, help="of the noise (default: 0)")
    parser.add_argument("--json", action="store_true", help="print JSON and nothing else")
    args, options = parsed(parser, words)

    from sandglass import api
    from sandglass.engine.options import settle_device
    from sandglass.runs.plain import strict_json
    from sandglass.runs.run import Run
    from sandglass.tasks.trained import find_run, new_data

    run = Run(find_run(args.run))
    data = new_data(api.reading_of(run), args.data, args.labels) if args.data else None
    split = args.split or default_split(list(data.splits if data else run.config["data"]["examples"]), bool(data))
    common: dict[str, Any] = {"split": split, "data": data, "seed": args.seed, "device": settle_device(args.device)}
    results = api.evaluate(run, metrics=args.metrics, **common, **options)
    if args.json:
        print(strict_json(results, indent=1))
        return 0
    print(f"{results['model']} on {results['data']}, split {results['split']}, weights of step {results['step']:,}\n")
    metrics_table(results["metrics"])
    return 0


def default_split(there: list[str], new: bool) -> str:
    """The split to measure where none is named: never the training examples while there are others."""
    if new and "train" in there and len(there) == 1:
        return "train"  # other data that is in one piece
    return next((s for s in ("test", "validation") if s in there), "train")


def metrics_from(parser: Parser) -> None:
    """Adds ``--metrics`` and the options of metrics; the words are then for :func:`parsed`."""
    parser.add_argument(
        "--metrics",
        type=whole,
        default=[],
        metavar="A,B",
        help="which, by the name of the metric or of a figure; all that apply, but for the slow ones, when not given",
    )
    about = "an option of a metric; `sandglass metrics` lists them. It asks for the metric, too"
    parser.add_argument("--METRIC.OPTION", metavar="VALUE", help=about)


def parsed(parser: Parser, words: Sequence[str]) -> tuple[Namespace, dict[str, Any]]:
    """The options of a command that measures, and by metric those of the metrics.

    Raises:
        ConfigError: one that is none, or a value that makes no sense.
    """
    left, given = dotted(words)
    args = parser.parse(left)
    return args, {metric: typed(metric, values) for metric, values in given.items()}


def dotted(words: Sequence[str]) -> tuple[list[str], dict[str, dict[str, str]]]:
    """Takes the options of metrics out of a command line: the other words, and by metric its options.

    Raises:
        ConfigError: one has no value.

    Example:
        >>> dotted(["RUN", "--log_prob.k", "50", "--json"])
        (['RUN', '--json'], {'log_prob': {'k': '50'}})
    """
    left: list[str] = []
    options: dict[str, dict[str, str]] = {}
    rest = iter(words)
    for word in rest:
        name, _, value = word.partition("=")
        if not re.fullmatch(r"--\w+\.\w+", name):
            left.append(word)
            continue
        if "=" not in word:
            value = next(rest, "")
        if not value:
            raise ConfigError(f"{name} needs a value.")
        metric, option = name[2:].split(".")
        options.setdefault(metric, {})[option] = value
    return left, options


def typed(metric: str, given: Mapping[str, str]) -> dict[str, Any]:
    """The options of a metric, each as the type in its signature.

    Raises:
        ConfigError: no such metric or option, or a value of another type.

    Example:
        >>> typed("log_prob", {"k": "50"})
        {'k': 50}
    """
    from sandglass import registry
    from sandglass.app import flags
    from sandglass.metrics.measure import wanted

    wanted((), [metric])
    options = {option.name: option for option in registry.schema("metric", metric)}
    values: dict[str, Any] = {}
    for name, value in given.items():
        if name not in options:
            hint = registry.nearest(name, list(options))
            raise ConfigError(
                f"The metric '{metric}' has no option '{name}'.{hint} It has: {', '.join(options) or 'none'}."
            )
        values[name] = flags.typed(options[name], f"--{metric}.{name}", value)
    return values


def metrics(words: Sequence[str]) -> int:
    """Lists the measures, or what one is and its options."""
    about = "List what a trained model can be measured by; with a name, what it asks for and its options."
    parser = Parser("metrics", about, ["metrics", "metrics log_prob"])
    parser.add_argument("metric", nargs="?", metavar="METRIC", help="show this one")
    args = parser.parse(words)

    from sandglass.app.lists import options_table
    from sandglass.registry import entry, names, schema

    makes: dict[str, Any] = {name: entry("metric", name).make for name in names("metric")}

    if args.metric is None:
        rows = [[n, entry("metric", n).summary, ", ".join(makes[n].figures)] for n in names("metric")]
        table(["metric", "what it is", "figures"], rows, wrap=(1, 2))
        print("\n`sandglass metrics NAME` has the options of one; `evaluate --metrics` takes metrics and figures.")
        return 0
    print(f"{args.metric}: {entry('metric', args.metric).summary}")
    make = makes[args.metric]
    requires, by_default = getattr(make, "requires", ()), getattr(make, "by_default", True)
    print(f"figures: {', '.join(make.figures)}")
    print(f"of the model: {', '.join(make.needs) or 'nothing but samples'}")
    print(f"of the examples: {', '.join(requires) or 'nothing'}")
    suits = " and the data suits it" if callable(by_default) else ""
    print("taken: " + (f"by itself, where the model can be asked for it{suits}" if by_default else "when it is named"))
    if schema("metric", args.metric):
        print()
        options_table("metric", args.metric)
    return 0

"""``sandglass evaluate`` and ``sandglass metrics``."""

from __future__ import annotations

import re
from argparse import Namespace
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sandglass.app.output import metrics_table, say, table, telling, wrong
from sandglass.app.parsing import Parser, examples_from, whole
from sandglass.errors import ConfigError

TABLES = (".csv", ".parquet")


def evaluate(words: Sequence[str]) -> int:
    """Evaluates a trained model and, on the run's own data, writes ``results.json``."""
    parser = Parser(
        "evaluate",
        "Evaluate a trained model. On the run's own data the figures are saved to results.json.",
        ["evaluate runs/vae-digits-1", "evaluate runs/vae-digits-1 --metrics log_prob --log_prob.k 1000 --json"],
    )
    parser.add_argument("run", metavar="RUN", help="a run folder (or latest)")
    parser.add_argument("--device", default="auto", help="auto (default), cpu, cuda, cuda:N or mps")
    examples_from(parser, "test; all of other data")
    metrics_from(parser)
    parser.add_argument("--seed", type=int, default=0, help="random seed of the noise (default: 0)")
    parser.add_argument(
        "--each", metavar="FILE", help="also write the figures of every example, to a .csv or .parquet file"
    )
    parser.add_argument("--json", action="store_true", help="print JSON and nothing else")
    args, options = parsed(parser, words)
    if args.each and Path(args.each).suffix.lower() not in TABLES:
        raise ConfigError(f"--each {args.each} should end in {' or '.join(TABLES)}.")

    from sandglass import api
    from sandglass.runs.plain import strict_json
    from sandglass.runs.run import Run
    from sandglass.runs.specification import from_plain
    from sandglass.tasks.files import write_columns
    from sandglass.tasks.trained import Source, opened

    run = Run(args.run)
    trained = opened(run, args.device)
    source = Source(**{name: getattr(args, name) for name in ("data", "labels", "labels_from_names", "given")})
    data = source.read(trained)
    common: dict[str, Any] = {"data": data, "model": trained.model, "split": args.split, "seed": args.seed}
    with telling(quiet=args.json) as tell:
        results = api.evaluate(run, metrics=args.metrics, progress=tell, **common, **options)
    for note in trained.notes:
        say(f"note: {note}")
    if args.each:
        write_columns(Path(args.each), results.each)
    if args.json:
        print(strict_json(results, indent=1))
        return 0
    split = results["split"]
    what = f"all {sum(map(len, data.splits.values())):,} examples" if split == "all" else f"split {split}"
    print(f"{results['model']} on {results['data']}, {what}, weights of step {results['step']:,}\n")
    metrics_table(results["metrics"])
    wrong(results["metrics"], from_plain(run.config["spec"]))
    if args.each:
        figures = [name for name in results.each if name in results["metrics"]]
        print(f"\n{args.each}: {', '.join(figures) or 'no figure'} of each of {len(results.each['index']):,} examples")
    return 0


def metrics_from(parser: Parser) -> None:
    """Adds ``--metrics`` and the options of metrics; parse with :func:`parsed`."""
    parser.add_argument(
        "--metrics",
        type=whole,
        default=[],
        metavar="A,B",
        help="names of metrics or figures (default: all that apply, except slow ones)",
    )
    about = "an option of a metric, which also selects the metric; `sandglass metrics` lists them"
    parser.add_argument("--METRIC.OPTION", metavar="VALUE", help=about)


def parsed(parser: Parser, words: Sequence[str]) -> tuple[Namespace, dict[str, Any]]:
    """The options of an evaluating command, and the options of each metric.

    Raises:
        ConfigError: an option is unknown, or a value is invalid.
    """
    left, given = dotted(words)
    args = parser.parse(left)
    return args, {metric: typed(metric, values) for metric, values in given.items()}


def dotted(words: Sequence[str]) -> tuple[list[str], dict[str, dict[str, str]]]:
    """Splits a command line into other arguments and the options of each metric.

    Raises:
        ConfigError: an option has no value.

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
    """Parses the options of a metric by the types in its signature.

    Raises:
        ConfigError: the metric or option is unknown, or a value has the wrong type.

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
    """Lists the metrics, or describes one and its options."""
    about = "List the metrics; with a name, show its requirements and options."
    parser = Parser("metrics", about, ["metrics", "metrics log_prob"])
    parser.add_argument("metric", nargs="?", metavar="METRIC", help="show this one")
    args = parser.parse(words)

    from sandglass.app.lists import options_table
    from sandglass.registry import entry, names, schema

    makes: dict[str, Any] = {name: entry("metric", name).make for name in names("metric")}

    if args.metric is None:
        rows = [[n, entry("metric", n).summary, ", ".join(makes[n].figures)] for n in names("metric")]
        table(["metric", "what it is", "figures"], rows, wrap=(1, 2))
        print("\n`sandglass metrics NAME` shows its options; `evaluate --metrics` takes metrics and figures.")
        return 0
    print(f"{args.metric}: {entry('metric', args.metric).summary}")
    make = makes[args.metric]
    requires, by_default = getattr(make, "requires", ()), getattr(make, "by_default", True)
    print(f"figures: {', '.join(make.figures)}")
    print(f"model requirements: {', '.join(make.needs) or 'samples only'}")
    print(f"data requirements: {', '.join(requires) or 'none'}")
    suits = " and data" if callable(by_default) else ""
    end = ", and at the end of training" if getattr(make, "quick", False) else ""
    print("computed: " + (f"by default, for suitable models{suits}{end}" if by_default else "when requested by name"))
    if schema("metric", args.metric):
        print()
        options_table("metric", args.metric)
    return 0

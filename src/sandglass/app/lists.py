"""Commands that list models, nets, likelihoods, data sets, tasks and recipes."""

from __future__ import annotations

from collections.abc import Sequence

from sandglass.app.output import table
from sandglass.app.parsing import Parser


def models(words: Sequence[str]) -> int:
    """Lists the models, or the options of one."""
    parser = Parser("models", "List the models; with a name, show its options.", ["models", "models vae"])
    parser.add_argument("model", nargs="?", metavar="MODEL", help="show the options of this one")
    args = parser.parse(words)

    from sandglass.registry import declared, entry, names

    if args.model is None:
        rows = [[n, entry("model", n).summary, ", ".join(declared(n).provides)] for n in names("model")]
        table(["model", "what it is", "capabilities"], rows, wrap=(1, 2))
        print("\n`sandglass models NAME` shows the options of a model; every model can also sample.")
        return 0
    print(f"{args.model}: {entry('model', args.model).summary}")
    print(f"capabilities: {', '.join(('sample', *declared(args.model).provides))}\n")
    options_table("model", args.model)
    return 0


def nets(words: Sequence[str]) -> int:
    """Lists the network families, or the options of one."""
    return listed("net", words, "List the network families; with a name, show its options.")


def likelihoods(words: Sequence[str]) -> int:
    """Lists the likelihoods, or the options of one."""
    return listed("likelihood", words, "List the likelihoods; with a name, show its options.")


def posteriors(words: Sequence[str]) -> int:
    """Lists the posteriors, or the options of one."""
    return listed("posterior", words, "List the posteriors of the code; with a name, show its options.")


def priors(words: Sequence[str]) -> int:
    """Lists the priors, or the options of one."""
    return listed("prior", words, "List the priors of the code; with a name, show its options.")


def samplers(words: Sequence[str]) -> int:
    """Lists the samplers, or the options of one."""
    return listed("sampler", words, "List the samplers of new codes; with a name, show its options.")


def quantisers(words: Sequence[str]) -> int:
    """Lists the quantisers, or the options of one."""
    return listed("quantiser", words, "List the quantisers of discrete codes; with a name, show its options.")


def listed(kind: str, words: Sequence[str], about: str) -> int:
    """Lists everything registered of a kind, or the options of one."""
    from sandglass.registry import entry, names

    known = names(kind)
    parser = Parser(f"{kind}s", about, [f"{kind}s", f"{kind}s {known[0]}"])
    parser.add_argument("name", nargs="?", metavar=kind.upper(), help="show the options of this one")
    args = parser.parse(words)
    if args.name is None:
        table([kind, "what it is"], [[name, entry(kind, name).summary] for name in known], wrap=(1,))
        print(f"\n`sandglass {kind}s NAME` shows its options.")
        return 0
    print(f"{args.name}: {entry(kind, args.name).summary}\n")
    options_table(kind, args.name)
    return 0


def options_table(kind: str, name: str) -> None:
    """Prints the options of a registered name."""
    from sandglass import registry
    from sandglass.app.helping import plain, shown

    rows = []
    for option in registry.schema(kind, name):
        choices = f" One of: {', '.join(registry.names(option.kind))}." if option.kind else ""
        rows.append([option.name, "" if option.required else shown(option.default), plain(option.help) + choices])
    table(["option", "default", "meaning"], rows, wrap=(2,))


def datasets(words: Sequence[str]) -> int:
    """Lists the named data sets, or describes one and its options."""
    about = "List the named data sets; with a name, show its description and options."
    parser = Parser("datasets", about, ["datasets", "datasets shapes"])
    parser.add_argument("dataset", nargs="?", metavar="DATASET", help="show this data set")
    clears = "delete decoded images, unpacked archives and learnt features, which are recreated when needed"
    parser.add_argument("--clear-cache", action="store_true", help=clears)
    args = parser.parse(words)
    if args.clear_cache:
        from sandglass.data import cache

        print(f"{cache.home().parent}: {cache.clear() / 2**20:,.0f} MiB deleted")
        return 0

    from sandglass.app.helping import shown
    from sandglass.registry import entry, names, schema

    rows = []
    for name in [args.dataset] if args.dataset else names("dataset"):
        found = entry("dataset", name)
        size, licence, origin = (str(getattr(found.make, key, "")) for key in ("size", "licence", "origin"))
        shape = "x".join(map(str, getattr(found.make, "shape", ())))
        rows.append([name, size, shape, licence, found.summary, origin])
    headers = ["name", "examples", "shape", "licence", "what it is", "source"]
    if not args.dataset:
        table(headers, rows, wrap=(4, 5))
        print(
            "\nYour own data: --data with a folder or zip of images, an image, or a .csv, .parquet, .npy or .npz file."
        )
        return 0
    for header, cell in zip(headers, rows[0], strict=True):
        print(f"{header}: {cell}")
    if options := schema("dataset", args.dataset):
        print()
        options_table("dataset", args.dataset)
        first = options[0]
        example = f"data: {{source: {{name: {args.dataset}, {first.name}: {shown(first.default)}}}}}"
        print(f"\nIn a file for --config: {example}")
    return 0


def tasks(words: Sequence[str]) -> int:
    """Lists the uses of a trained model, or the options of one."""
    about = "List the uses of a trained model, each a separate command; with a name, show its options."
    parser = Parser("tasks", about, ["tasks", "tasks generate"])
    parser.add_argument("task", nargs="?", metavar="TASK", help="show the options of this one")
    args = parser.parse(words)

    from sandglass.registry import entry, names

    if args.task is None:
        rows = [[n, entry("task", n).summary, ", ".join(_needs(n)) or "samples"] for n in names("task")]
        table(["task", "what it does", "requires"], rows, wrap=(1,))
        print("\n`sandglass TASK --help` shows the options of a task.")
        return 0
    print(f"{args.task}: {entry('task', args.task).summary}\nrequires: {', '.join(_needs(args.task)) or 'samples'}\n")
    options_table("task", args.task)
    return 0


def _needs(task: str) -> tuple[str, ...]:
    from sandglass.registry import entry

    needs: tuple[str, ...] = entry("task", task).make.needs  # type: ignore[attr-defined]
    return needs


def recipes(words: Sequence[str]) -> int:
    """Lists the predefined configurations."""
    parser = Parser("recipes", "List the predefined configurations.", ["recipes", "train --recipe digits"])
    parser.parse(words)

    from sandglass import recipes as kept

    rows = []
    for name in kept.names():
        recipe = kept.read(name)
        training = recipe.get("training", {})
        data = recipe.get("data", {}).get("source", "")
        rows.append([name, recipe["model"]["name"], data, str(training.get("epochs", "")), recipe.get("summary", "")])
    table(["recipe", "model", "data", "epochs", "what it is"], rows, right=(3,), wrap=(4,))
    print("\n`sandglass train --recipe NAME` runs a recipe; add --print_config to print its configuration.")
    return 0

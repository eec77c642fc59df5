"""What there is to choose from: models, data sets, recipes."""

from __future__ import annotations

from collections.abc import Sequence

from sandglass.app.output import table
from sandglass.app.parsing import Parser


def models(words: Sequence[str]) -> int:
    """Lists the models, or the options of one."""
    parser = Parser("models", "List the models and what they do; with a name, its options.", ["models", "models vae"])
    parser.add_argument("model", nargs="?", metavar="MODEL", help="show the options of this one")
    args = parser.parse(words)

    from sandglass import registry
    from sandglass.app.helping import plain, shown
    from sandglass.registry import able, entry, names

    if args.model is None:
        rows = [[n, entry("model", n).summary, ", ".join(able(n))] for n in names("model")]
        table(["model", "what it is", "can"], rows, wrap=(1, 2))
        print("\n`sandglass models NAME` has the options of one; every model can also draw samples.")
        return 0
    print(f"{args.model}: {entry('model', args.model).summary}\ncan: {', '.join(('sample', *able(args.model)))}\n")
    rows = []
    for option in registry.schema("model", args.model):
        choices = f" One of: {', '.join(registry.names(option.kind))}." if option.kind else ""
        rows.append([option.name, shown(option.default), plain(option.help) + choices])
    table(["option", "default", "meaning"], rows, wrap=(2,))
    return 0


def datasets(words: Sequence[str]) -> int:
    """Lists the data sets known by name."""
    parser = Parser("datasets", "List the data sets known by name; folders and files need none.", ["datasets"])
    parser.parse(words)

    from sandglass.registry import entry, names

    rows = []
    for name in names("dataset"):
        found = entry("dataset", name)
        about = [str(getattr(found.make, key, "")) for key in ("size", "licence")]
        shape = "x".join(map(str, getattr(found.make, "shape", ())))
        rows.append([name, about[0], shape, about[1], found.summary])
    table(["name", "examples", "shape", "licence", "what it is"], rows, wrap=(4,))
    print(
        "\nYour own: --data with a folder of pictures, one picture, or a file of the kind .npy, .npz, .csv or .parquet."
    )
    return 0


def recipes(words: Sequence[str]) -> int:
    """Lists the ready-made configurations."""
    parser = Parser("recipes", "List the ready-made configurations.", ["recipes", "train --recipe digits"])
    parser.parse(words)

    from sandglass import recipes as kept

    rows = []
    for name in kept.names():
        recipe = kept.read(name)
        training = recipe.get("training", {})
        data = recipe.get("data", {}).get("source", "")
        rows.append([name, recipe["model"]["name"], data, str(training.get("epochs", "")), recipe.get("summary", "")])
    table(["recipe", "model", "data", "epochs", "what it is"], rows, right=(3,), wrap=(4,))
    print("\n`sandglass train --recipe NAME` runs one; add --print_config to see all of it.")
    return 0

"""The commands there are, known without importing what they do: those of this room, and a command for every task."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import entry_points
from importlib.resources import files

TASK = "tasks"
"""The module that runs every task."""


@dataclass(frozen=True)
class Command:
    """A command as the top level lists it.

    Args:
        name: what a person types.
        module: has a function of that name, and is imported when it is chosen; :data:`TASK` runs a task by its name.
        summary: what it does.
    """

    name: str
    module: str
    summary: str


_FIRST = (
    Command("inspect", "inspect", "look at data before training: what is in it, what is wrong, what to do"),
    Command("train", "train", "train a model on a folder of pictures, a table or a named data set"),
    Command("sweep", "sweep", "train a model with many settings and choose the best by validation"),
    Command("preview", "preview", "draw what augmentation and corruption do to the training pictures"),
)
_LAST = (
    Command("export", "export", "write a trained model as ONNX, to run without Sandglass"),
    Command("evaluate", "evaluate", "measure a trained model"),
    Command("compare", "compare", "set runs side by side: which is better, by more than the noise"),
    Command("report", "runs", "write the HTML page of a run"),
    Command("runs", "runs", "list the runs of a folder"),
    Command("verify", "runs", "check every file of a run against its checksum"),
    Command("models", "lists", "list the models, what they can do and their options"),
    Command("nets", "lists", "list the families of networks and their options"),
    Command("likelihoods", "lists", "list the likelihoods and their options"),
    Command("datasets", "lists", "list the data sets known by name"),
    Command("metrics", "evaluate", "list what a trained model can be measured by"),
    Command("tasks", "lists", "list what a trained model can be used for"),
    Command("recipes", "lists", "list the ready-made configurations"),
)


def commands() -> tuple[Command, ...]:
    """All of them, in the order of the help page; a task never takes the name of another command."""
    own = {c.name for c in (*_FIRST, *_LAST)}
    tasks = {c.name: c for c in (*of_packages(), *of_the_room()) if c.name not in own}
    return (*_FIRST, *sorted(tasks.values(), key=lambda c: c.name), *_LAST)


def of_the_room() -> Iterator[Command]:
    """The tasks of :mod:`sandglass.tasks`, read off the text of its files, for importing them would take seconds."""
    for file in files("sandglass.tasks").iterdir():
        if not file.name.endswith(".py") or file.name.startswith("_"):
            continue
        for node in ast.parse(file.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.ClassDef):
                for name in registered(node):
                    summary = (ast.get_docstring(node) or "").split("\n", 1)[0].rstrip(".")
                    yield Command(name, TASK, summary[:1].lower() + summary[1:])


def registered(node: ast.ClassDef) -> Iterator[str]:
    r"""The names that a class is registered under as a task.

    Example:
        >>> (node,) = ast.parse('@register("draw", kind="task")\nclass Draw(Task): ...').body
        >>> list(registered(node))
        ['draw']
    """
    for call in node.decorator_list:
        if isinstance(call, ast.Call) and ast.unparse(call.func).split(".")[-1] == "register":
            kinds = [k.value for k in call.keywords if k.arg == "kind"]
            if [ast.literal_eval(k) for k in kinds] == ["task"] and isinstance(call.args[0], ast.Constant):
                yield str(call.args[0].value)


def of_packages() -> Iterator[Command]:
    """Those of other packages: the entry points of the group ``sandglass.tasks``, each called as its task."""
    for point in entry_points(group="sandglass.tasks"):
        package = point.dist.name if point.dist is not None else "another package"
        yield Command(point.name, TASK, f"of the package {package}")

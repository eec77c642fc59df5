"""The list of commands, without importing them: the built-in ones, and one for every task."""

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
    """An entry of the command list.

    Args:
        name: of the command.
        module: module with a function of that name, imported on use; :data:`TASK` for tasks.
        summary: short description.
    """

    name: str
    module: str
    summary: str


_FIRST = (
    Command("inspect", "inspect", "inspect data before training: contents, problems and advice"),
    Command("train", "train", "train a model on a folder of images, a table or a named data set"),
    Command("sweep", "sweep", "search hyperparameters and choose the best by validation"),
    Command("preview", "preview", "show augmentations and corruptions of the training images"),
)
_LAST = (
    Command("sampler", "sampler", "draw from another distribution of codes, fitted to those of a finished run"),
    Command("export", "export", "write a trained model as ONNX, to run without Sandglass"),
    Command("evaluate", "evaluate", "evaluate a trained model"),
    Command("compare", "compare", "compare runs, with standard errors and significance"),
    Command("report", "runs", "write the HTML page of a run"),
    Command("runs", "runs", "list the runs of a folder"),
    Command("verify", "runs", "check every file of a run against its checksum"),
    Command("models", "lists", "list the models, their capabilities and options"),
    Command("nets", "lists", "list the network families and their options"),
    Command("likelihoods", "lists", "list the likelihoods and their options"),
    Command("posteriors", "lists", "list the posteriors and their options"),
    Command("priors", "lists", "list the priors and their options"),
    Command("samplers", "lists", "list the samplers and their options"),
    Command("quantisers", "lists", "list the quantisers of discrete codes and their options"),
    Command("datasets", "lists", "list the named data sets"),
    Command("metrics", "evaluate", "list the metrics and their options"),
    Command("tasks", "lists", "list the uses of a trained model"),
    Command("recipes", "lists", "list the predefined configurations"),
)


def commands() -> tuple[Command, ...]:
    """All commands, in the order of the help page; a task cannot replace a built-in command."""
    own = {c.name for c in (*_FIRST, *_LAST)}
    tasks = {c.name: c for c in (*of_packages(), *of_the_room()) if c.name not in own}
    return (*_FIRST, *sorted(tasks.values(), key=lambda c: c.name), *_LAST)


def of_the_room() -> Iterator[Command]:
    """The tasks of :mod:`sandglass.tasks`, parsed from source because importing them takes seconds."""
    for file in files("sandglass.tasks").iterdir():
        if not file.name.endswith(".py") or file.name.startswith("_"):
            continue
        for node in ast.parse(file.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.ClassDef):
                for name in registered(node):
                    summary = (ast.get_docstring(node) or "").split("\n", 1)[0].rstrip(".")
                    yield Command(name, TASK, summary[:1].lower() + summary[1:])


def registered(node: ast.ClassDef) -> Iterator[str]:
    r"""The names under which a class is registered as a task.

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
    """Tasks of other packages: the entry points of the group ``sandglass.tasks``."""
    for point in entry_points(group="sandglass.tasks"):
        package = point.dist.name if point.dist is not None else "another package"
        yield Command(point.name, TASK, f"from the package {package}")

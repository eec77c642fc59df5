"""A command for every registered task: its flags come from its signature, its outcome is written to a file."""

from __future__ import annotations

import warnings
from argparse import BooleanOptionalAction, Namespace
from collections.abc import Sequence
from typing import Any

from sandglass import registry
from sandglass.app.flags import is_switch, typed
from sandglass.app.helping import plain, shown, value_name
from sandglass.app.output import say
from sandglass.app.parsing import Parser, moved_data, output, trained_model
from sandglass.data.pixels import what_is_shown
from sandglass.registry import Option
from sandglass.tasks.outcome import ARRAYS, TABLES
from sandglass.tasks.task import Task, reads_data, written
from sandglass.tasks.trained import Trained, opened

_SHORT = {"number": "-n"}
_FORMS = {
    "examples": "a .png grid, .csv or .parquet for a table, .npy or .npz for arrays, or a folder for separate files",
    "arrays": "a .npz, .parquet or .csv file",
}


def use(name: str, words: Sequence[str]) -> int:
    """Runs a task on a trained model and writes its outcome."""
    make: type[Task] = registry.entry("task", name).make  # type: ignore[assignment]
    options = registry.schema("task", name)
    parser = parser_of(name, make, options)
    args = parser.parse(words)
    task = task_of(name, options, args)
    trained = open_trained(args.run, args.device, args.allow_nonfinite, None if reads_data(name) else args.data)
    outcome, path = written(task, trained, args.out, separate=getattr(args, "separate", False))
    assert outcome.transform is not None
    shown = what_is_shown(outcome.transform) if path.suffix.lower() not in (*TABLES, *ARRAYS) else ""
    whole = f"{path.name} shows {shown}; -o {make.file}.npy has all numbers"
    for note in [*outcome.notes, *([whole] if shown else [])]:
        say(f"note: {note}")
    print(f"{path}: {outcome.said}")
    return 0


def parser_of(name: str, make: type[Task], options: Sequence[Option]) -> Parser:
    """The parser of a task's command line."""
    parser = Parser(name, described(make), make.examples)
    trained_model(parser)
    for option in options:
        add(parser, option)
    if not reads_data(name):
        moved_data(parser)
    if make.makes != "arrays":
        parser.add_argument("--separate", action="store_true", help="write separate PNG files to a folder")
    ending = ".npz" if make.makes == "arrays" else ".png or .csv"
    output(parser, f"{_FORMS.get(make.makes, _FORMS['examples'])} (default: {make.file}{ending})")
    return parser


def described(make: type[Task]) -> str:
    """The description from the docstring, without the arguments."""
    from docstring_parser import parse

    found = parse(make.__doc__ or "")
    return "\n\n".join(filter(None, (found.short_description, found.long_description)))


def add(parser: Parser, option: Option) -> None:
    """Adds an option as a flag, or as a positional argument if it is required."""
    about = plain(option.help).rstrip(".").replace("%", "%%")
    if option.required:
        parser.add_argument(option.name, metavar=option.name.upper(), help=about)
        return
    if option.default not in (None, "", ()):
        about += f" (default: {shown(option.default)})"
    short = [_SHORT[option.name]] if option.name in _SHORT else []
    form = form_of(option)
    if is_switch(option.type):
        parser.add_argument(form, dest=option.name, action=BooleanOptionalAction, help=about)
    else:
        metavar = value_name(option.type)
        parser.add_argument(*short, form, dest=option.name, metavar=metavar, help=about)


def form_of(option: Option) -> str:
    """The flag of an option; a keyword of Python, such as ``from``, is an option that ends with an underscore."""
    return f"--{option.name.rstrip('_').replace('_', '-')}"


def task_of(name: str, options: Sequence[Option], args: Namespace) -> Task:
    """The task with the given options.

    Raises:
        ConfigError: a value has the wrong type or is invalid.
    """
    given: dict[str, Any] = {}
    for option in options:
        value = getattr(args, option.name)
        if value is not None:
            form = option.name.upper() if option.required else form_of(option)
            given[option.name] = typed(option, form, value) if isinstance(value, str) else value
    made: Task = registry.resolve("task", {"name": name, **given})
    return made


def open_trained(source: str, device: str, allow_nonfinite: bool, data: str | None) -> Trained:
    """Loads a trained model and prints warnings."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        trained = opened(source, device, allow_nonfinite, data=data)
    for warning in caught:
        say(str(warning.message))
    return trained

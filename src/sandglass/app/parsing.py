"""Argument parsing for every command but ``train``, without heavy imports."""

from __future__ import annotations

import argparse
import difflib
from collections.abc import Iterable, Sequence
from typing import Any, NoReturn

from sandglass.errors import ConfigError

EVERYWHERE = "with every command: --import FILE runs a Python file first, which registers models of your own"


class Parser(argparse.ArgumentParser):
    """An argument parser with one-line errors, and examples at the end of its help.

    Args:
        command: the command's name.
        about: its description.
        examples: command lines without the leading ``sandglass``.
    """

    def __init__(self, command: str, about: str, examples: Iterable[str]) -> None:
        lines = "\n".join(f"  sandglass {e}" for e in examples)
        super().__init__(
            prog=f"sandglass {command}",
            description=about,
            epilog=f"examples:\n{lines}\n\n{EVERYWHERE}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )

    def error(self, message: str) -> NoReturn:
        """Raises an error that argparse would print.

        Raises:
            ConfigError: always.
        """
        message = message.replace("the following arguments are required: ", "missing: ")
        raise ConfigError(f"{message[:1].upper()}{message[1:]}. `{self.prog} --help` shows the usage.")

    def parse(self, words: Sequence[str]) -> argparse.Namespace:
        """The parsed options.

        Raises:
            ConfigError: an option is unknown, or a value is invalid.
        """
        found, unknown = self.parse_known_args(words)
        if unknown:
            word = unknown[0].split("=")[0]
            known = [o for action in self._actions for o in action.option_strings]
            what = f"There is no option {word}" if word.startswith("-") else f"Unexpected argument '{word}'"
            raise ConfigError(f"{what}.{nearest(word, known)} `{self.prog} --help` lists all options.")
        for action in self._actions:
            value = getattr(found, action.dest, None)
            given = value if isinstance(value, list) else [value]
            if "" in given and action.default != "":  # an empty path would be the current folder
                name = action.option_strings[-1] if action.option_strings else action.metavar
                raise ConfigError(f"{name} needs a value.")
        return found


def nearest(word: str, known: Sequence[str]) -> str:
    """`` Did you mean ...?``, or an empty string."""
    close = difflib.get_close_matches(word, known, n=1)
    return f" Did you mean '{close[0]}'?" if close else ""


def count(text: str) -> int:
    """A whole number of at least 1."""
    try:
        value = int(text)
    except ValueError:
        value = 0
    if value < 1:
        raise argparse.ArgumentTypeError(f"must be a whole number of at least 1, not '{text}'")
    return value


def numbers(text: str) -> list[float]:
    """Numbers separated by commas."""
    try:
        return [float(part) for part in text.split(",")]
    except ValueError as error:
        raise argparse.ArgumentTypeError(
            f"must be numbers separated by commas, such as 0,4095, not '{text}'"
        ) from error


def trained_model(parser: Parser) -> None:
    """Adds the positional RUN, ``--device`` and ``--allow-nonfinite``."""
    parser.add_argument("run", metavar="RUN", help="a run folder (or latest), a model folder, or a hub id")
    parser.add_argument("--device", default="auto", help="auto (default), cpu, cuda, cuda:N or mps")
    parser.add_argument(
        "--allow-nonfinite", action="store_true", help="allow weights that contain NaN or infinite values"
    )


def moved_data(parser: Parser) -> None:
    """Adds ``--data`` for a command that reads the data of a run."""
    parser.add_argument("--data", metavar="PLACE", help="the place of the run's own data, if it has moved")


def examples_from(parser: Parser, split: str) -> None:
    """Adds ``--data``, ``--labels``, ``--labels-from-names``, ``--given`` and ``--split``."""
    about = "the new place of the run's own data, or other data, preprocessed like it"
    parser.add_argument("--data", metavar="SRC", help=about)
    about = "label column of a table in --data, FILE[:COLUMN] for pictures, or false for no labels"
    parser.add_argument("--labels", metavar="COL", help=about)
    about = "pattern of the file names in --data that holds their class, such as {label}_*.jpg"
    parser.add_argument("--labels-from-names", metavar="PATTERN", help=about)
    parser.add_argument("--given", metavar="NAME=SRC", help="companions of the examples in --data, separated by commas")
    parser.add_argument("--split", help=f"train, validation, test or all (default: {split})")


def output(parser: Parser, what: str) -> None:
    """Adds ``-o``."""
    parser.add_argument("-o", "--out", metavar="PATH", help=what)


def whole(values: Any) -> list[str]:
    """A comma-separated list."""
    return [part.strip() for part in str(values).split(",") if part.strip()]

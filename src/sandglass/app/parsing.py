"""Plain argument parsing for every command but ``train``; light, so that a help page comes at once."""

from __future__ import annotations

import argparse
import difflib
from collections.abc import Iterable, Sequence
from typing import Any, NoReturn

from sandglass.errors import ConfigError


class Parser(argparse.ArgumentParser):
    """An argument parser whose mistakes are one line, and whose help ends with examples.

    Args:
        command: the command's name.
        about: what it does.
        examples: command lines, each without the leading ``sandglass``.
    """

    def __init__(self, command: str, about: str, examples: Iterable[str]) -> None:
        lines = "\n".join(f"  sandglass {e}" for e in examples)
        super().__init__(
            prog=f"sandglass {command}",
            description=about,
            epilog=f"examples:\n{lines}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )

    def error(self, message: str) -> NoReturn:
        """Raises what argparse would print.

        Raises:
            ConfigError: always.
        """
        message = message.replace("the following arguments are required: ", "missing: ")
        raise ConfigError(f"{message[:1].upper()}{message[1:]}. `{self.prog} --help` shows how.")

    def parse(self, words: Sequence[str]) -> argparse.Namespace:
        """The options.

        Raises:
            ConfigError: an unknown option, or a value that makes no sense.
        """
        found, unknown = self.parse_known_args(words)
        if unknown:
            word = unknown[0].split("=")[0]
            known = [o for action in self._actions for o in action.option_strings]
            what = f"no option {word}" if word.startswith("-") else f"nothing to be made of '{word}'"
            raise ConfigError(f"Here is {what}.{nearest(word, known)} `{self.prog} --help` lists what there is.")
        return found


def nearest(word: str, known: Sequence[str]) -> str:
    """`` Did you mean ...?``, or nothing."""
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


def trained_model(parser: Parser) -> None:
    """Adds the positional RUN, ``--device`` and ``--allow-nonfinite``."""
    parser.add_argument("run", metavar="RUN", help="a run folder (or latest), a model folder, or a hub id")
    parser.add_argument("--device", default="auto", help="auto (default), cpu, cuda, cuda:N or mps")
    parser.add_argument(
        "--allow-nonfinite", action="store_true", help="use weights that hold NaN or infinities all the same"
    )


def examples_from(parser: Parser, split: str) -> None:
    """Adds ``--data``, ``--labels`` and ``--split``."""
    parser.add_argument("--data", metavar="SRC", help="other examples than the run's own, prepared as those were")
    parser.add_argument(
        "--labels", metavar="COL", help="of --data: a table's column of labels, or false to read no labels at all"
    )
    parser.add_argument("--split", help=f"which of the examples: train, validation or test (default: {split})")


def output(parser: Parser, what: str) -> None:
    """Adds ``-o``."""
    parser.add_argument("-o", "--out", metavar="PATH", help=what)


def whole(values: Any) -> list[str]:
    """A comma-separated list."""
    return [part.strip() for part in str(values).split(",") if part.strip()]

"""The command ``sandglass``: picks the command, and turns every expected failure into one line and an exit code."""

from __future__ import annotations

import importlib
import os
import sys
import traceback
from collections.abc import Sequence

import sandglass
from sandglass.app.commands import TASK, Command, commands
from sandglass.errors import ConfigError, SandglassError

_OPTIONS = ("--help", "--version")

_HELP = """usage: sandglass COMMAND [OPTION ...]

Generative models of your own images and tables.

commands:
{commands}

options:
  --help       this page; `sandglass COMMAND --help` has the options of a command
  --version    the version
  --traceback  with any command: show where an error came from

examples:
  sandglass train --recipe digits                    a first model, in about a minute
  sandglass inspect photos/                          what is in a folder, and what is wrong with it
  sandglass train --data photos/ --size 64           a VAE of your own pictures
  sandglass train beta-vae --data mnist --beta 2     another model, another data set
  sandglass generate runs/vae-digits-1 -n 64         new pictures from it
  sandglass evaluate runs/vae-digits-1               how good it is, with standard errors
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command.

    Args:
        argv: the words after ``sandglass``; those of the process when not given.

    Returns:
        0, or the exit code of what went wrong.

    Raises:
        SystemExit: with 0 after a help page, with 128 plus a signal's number when training was stopped by one.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    shown = "--traceback" in words
    words = [w for w in words if w != "--traceback"]
    try:
        code = run(words)
        sys.stdout.flush()  # a closed pipe shows here, where it is caught
        return code
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # What is still buffered has nowhere to go; the interpreter must not try once more when it ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except (SandglassError, OSError, MemoryError, RuntimeError) as error:
        message = explain(error)
        if message is None:
            raise
        if shown:
            traceback.print_exc()
        print(f"sandglass: {message}", file=sys.stderr)
        return error.exit_code if isinstance(error, SandglassError) else 74 if isinstance(error, OSError) else 71


def run(words: list[str]) -> int:
    """Finds the command and hands it the rest."""
    if not words or words[0] in ("--help", "-h", "help"):
        if len(words) > 1 and words[0] == "help":
            return run([words[1], "--help"])
        listing = "\n".join(f"  {c.name:<12} {c.summary}" for c in commands())
        print(_HELP.format(commands=listing), end="")
        return 0
    if words[0] in ("--version", "-V", "version"):
        print(f"sandglass {sandglass.__version__}")
        return 0
    command = find(words[0])
    if command.module == TASK:
        from sandglass.app.tasks import use

        return use(command.name, words[1:])
    module = importlib.import_module(f"sandglass.app.{command.module}")
    code: int = getattr(module, command.name)(words[1:])
    return code


def find(word: str) -> Command:
    """The command of a name.

    Raises:
        ConfigError: there is none.
    """
    known = {command.name: command for command in commands()}
    if word in known:
        return known[word]
    from sandglass.app.parsing import nearest

    synonyms = {
        "fit": "train",
        "sample": "generate",
        "eval": "evaluate",
        "embed": "encode",
        "impute": "complete",
        "inpaint": "complete",
        "list": "runs",
        "look": "inspect",
    }
    near = nearest(word, [*known, *(_OPTIONS if word.startswith("-") else ())])
    hint = f" Did you mean '{synonyms[word]}'?" if word in synonyms else near
    what = "option" if word.startswith("-") else "command"
    raise ConfigError(f"There is no {what} '{word}'.{hint} `sandglass --help` lists the commands.")


def explain(error: BaseException) -> str | None:
    """One line for a person, None for what is a fault of the program and deserves its traceback."""
    text = " ".join(str(error).split())
    if isinstance(error, SandglassError):
        return text
    if isinstance(error, OSError):
        where = f"{error.filename}: " if error.filename else ""
        return f"{where}{error.strerror or text}"
    if isinstance(error, MemoryError) or "out of memory" in text or "can't allocate memory" in text:
        return "There is not enough memory; try a smaller --batch-size, --size or --limit."
    return None


if __name__ == "__main__":
    sys.exit(main())

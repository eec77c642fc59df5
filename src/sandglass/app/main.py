"""The command ``sandglass``: dispatches to a command, and reports expected errors as one line and an exit code."""

from __future__ import annotations

import importlib
import os
import sys
import traceback
import warnings
from collections.abc import Sequence
from typing import Any

import sandglass
from sandglass.app.commands import TASK, Command, commands
from sandglass.errors import ConfigError, ProcessError, SandglassError

_OPTIONS = ("--help", "--version")

_HELP = """usage: sandglass COMMAND [OPTION ...]

Generative models of your own images and tables.

commands:
{commands}

options:
  --help       show this page; `sandglass COMMAND --help` shows the options of a command
  --version    show the version
  --traceback  with any command: show the traceback of an error
  --import     with any command: run this Python file first, which registers models of your own

examples:
  sandglass train --recipe digits                    a first model, in about a minute
  sandglass inspect photos/                          contents and problems of a folder
  sandglass train --data photos/ --minutes 15        the model that suits your images, in a quarter of an hour
  sandglass train vae --data photos/ --size 64       a VAE of them, at 64x64
  sandglass train beta-vae --data mnist --beta 2     another model, another data set
  sandglass generate runs/vae-digits-1 -n 64         new images from a trained model
  sandglass evaluate runs/vae-digits-1               metrics with standard errors
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command.

    Args:
        argv: the arguments after ``sandglass``; by default those of the process.

    Returns:
        0, or the exit code of the error.

    Raises:
        SystemExit: with 0 after a help page, with 128 plus the signal's number when a signal stopped training.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    shown = "--traceback" in words
    words = [w for w in words if w != "--traceback"]
    before, warnings.formatwarning = warnings.formatwarning, _as_line  # type: ignore[assignment]
    try:
        code = run(imported(words))
        sys.stdout.flush()  # raises BrokenPipeError here, where it is caught
        return code
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # Discard buffered output, so that the interpreter does not try to flush it again at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except ProcessError as error:
        if not error.reported:
            print(f"sandglass: {error}", file=sys.stderr)
        return error.exit_code
    except (SandglassError, OSError, MemoryError, RuntimeError) as error:
        message = explain(error)
        if message is None:
            raise
        if shown:
            traceback.print_exc()
        print(f"sandglass: {message}", file=sys.stderr)
        return error.exit_code if isinstance(error, SandglassError) else 74 if isinstance(error, OSError) else 71
    finally:
        warnings.formatwarning = before


def _as_line(message: Warning | str, *about: Any) -> str:
    return f"note: {message}\n"


def imported(words: list[str]) -> list[str]:
    """The other words, after the files of ``--import FILE`` were run.

    Raises:
        ConfigError: it has no file, or the file fails.
        NotFoundError: there is no such file.
    """
    left, rest = [], iter(words)
    for word in rest:
        if word.partition("=")[0] != "--import":
            left.append(word)
            continue
        file = word.partition("=")[2] or next(rest, "")
        if not file or file.startswith("-"):
            raise ConfigError("--import needs a Python file, such as --import my_model.py.")
        from sandglass.registry import import_file

        import_file(file)
    return left


def run(words: list[str]) -> int:
    """Finds and runs a command."""
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
    """The command with this name.

    Raises:
        ConfigError: unknown command.
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
    """A one-line error message; None for unexpected errors, which keep their traceback."""
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

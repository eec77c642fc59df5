"""The command ``sandglass``: picks the command, and turns every expected failure into one line and an exit code."""

from __future__ import annotations

import importlib
import os
import sys
import traceback
from collections.abc import Sequence
from dataclasses import dataclass

import sandglass
from sandglass.errors import ConfigError, SandglassError


@dataclass(frozen=True)
class Command:
    """A command as the top level lists it; ``module`` has a function of its name and is imported when it is chosen."""

    name: str
    module: str
    summary: str


COMMANDS = (
    Command("inspect", "inspect", "look at data before training: what is in it, what is wrong, what to do"),
    Command("train", "train", "train a model on a folder of pictures, a table or a named data set"),
    Command("sweep", "sweep", "train a model with many settings and choose the best by validation"),
    Command("preview", "preview", "draw what augmentation and corruption do to the training pictures"),
    Command("generate", "use", "draw new examples from a trained model"),
    Command("reconstruct", "use", "pass examples through the model and set them beside the originals"),
    Command("encode", "use", "write the latent codes of examples"),
    Command("decode", "use", "turn latent codes back into examples"),
    Command("interpolate", "use", "walk from one example to another through the latent space"),
    Command("manifold", "use", "decode a grid laid over two latent directions"),
    Command("export", "export", "write a trained model as ONNX, to run without Sandglass"),
    Command("evaluate", "evaluate", "measure a trained model"),
    Command("compare", "compare", "set runs side by side: which is better, by more than the noise"),
    Command("report", "runs", "write the HTML page of a run"),
    Command("runs", "runs", "list the runs of a folder"),
    Command("verify", "runs", "check every file of a run against its checksum"),
    Command("models", "lists", "list the models, what they can do and their options"),
    Command("datasets", "lists", "list the data sets known by name"),
    Command("metrics", "evaluate", "list what a trained model can be measured by"),
    Command("recipes", "lists", "list the ready-made configurations"),
)

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
        listing = "\n".join(f"  {c.name:<12} {c.summary}" for c in COMMANDS)
        print(_HELP.format(commands=listing), end="")
        return 0
    if words[0] in ("--version", "-V", "version"):
        print(f"sandglass {sandglass.__version__}")
        return 0
    command = find(words[0])
    module = importlib.import_module(f"sandglass.app.{command.module}")
    code: int = getattr(module, command.name)(words[1:])
    return code


def find(word: str) -> Command:
    """The command of a name.

    Raises:
        ConfigError: there is none.
    """
    for command in COMMANDS:
        if command.name == word:
            return command
    from sandglass.app.parsing import nearest

    synonyms = {
        "fit": "train",
        "sample": "generate",
        "eval": "evaluate",
        "embed": "encode",
        "list": "runs",
        "look": "inspect",
    }
    known = [*(c.name for c in COMMANDS), *(_OPTIONS if word.startswith("-") else ())]
    hint = f" Did you mean '{synonyms[word]}'?" if word in synonyms else nearest(word, known)
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

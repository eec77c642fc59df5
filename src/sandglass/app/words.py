"""Splits the arguments of ``sandglass train`` into the model's name, the command's own options, and settings."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from sandglass.errors import ConfigError

SWITCHES = {
    "--help": "show this page",
    "--dry-run": "show parameters and estimated time and memory, without training or writing anything",
    "--print_config": "print the complete configuration as YAML for --config, and exit",
    "--no-report": "train only, without evaluation on the test split and report.html",
}
OWN = {
    "--data": (
        "NAME_OR_PATH",
        "a name from `sandglass datasets`, a folder or zip of images, a .csv, .parquet, .npy or .npz file",
    ),
    "--out": ("DIR", "the run folder (default: the next unused runs/<model>-<data>-<number>)"),
    "--recipe": ("NAME", "start from a predefined configuration; `sandglass recipes` lists them"),
    "--config": ("FILE", "options from a YAML file, such as a run's config.yaml; flags override it"),
    "--init-from": ("RUN", "initialise with the weights of another run, or of the network bodies that fit"),
    "--resume": (
        "RUN",
        "resume a run, bit-identical to an uninterrupted one; --epochs and --early-stopping can be raised, --minutes "
        "trains it for further minutes, --data can name the place of moved data",
    ),
}
_SYNONYMS = {
    "--num-epochs": "--epochs", "--max-epochs": "--epochs", "--n-epochs": "--epochs",
    "--learning-rate": "--lr", "--output-dir": "--out", "--outdir": "--out", "-o": "--out", "--random-state": "--seed",
    "--z-dim": "--latent-dim", "--kl-weight": "--beta", "--image-size": "--size", "--img-size": "--size",
    "--print-config": "--print_config", "--dry_run": "--dry-run", "-h": "--help", "--ema-decay": "--ema",
    "--workers": "--threads", "--resume-from-checkpoint": "--resume", "--data.source": "--data",
    "--model.name": "--model",
}  # fmt: skip
_ALONE = {
    "--cache": ("--cache", "true"),
    "--no-cache": ("--cache", "false"),
    "--shard-weights": ("--shard-weights", "true"),
}  # settings that need no value


@dataclass(frozen=True)
class Words:
    """Parsed arguments of a command line.

    Args:
        model: the model's name, or None.
        switches: switches that are set.
        own: values of the command's own options.
        settings: ``(option, value)`` pairs of all other options, in order.
    """

    model: str | None = None
    switches: frozenset[str] = frozenset()
    own: Mapping[str, str] = field(default_factory=dict)
    settings: tuple[tuple[str, str], ...] = ()


def sort(words: Sequence[str]) -> Words:
    """Parses the arguments after ``sandglass train``.

    Raises:
        ConfigError: an option has no value, or there is a second model.

    Example:
        >>> sort(["vae", "--epochs", "3", "--dry-run"]).settings
        (('--epochs', '3'),)
    """
    model: str | None = None
    switches, own, settings = set(), {}, []
    left = list(words)
    while left:
        word = left.pop(0)
        if not word.startswith("-"):
            if model is not None:
                hint = "lists are written as 1,2,3" if word.isdecimal() else "options begin with --"
                raise ConfigError(f"Give only one model, not '{model}' and '{word}'; {hint}.")
            model = word
            continue
        option, equals, value = word.partition("=")
        option = option if option.startswith("--") or option in _SYNONYMS else f"-{option}"
        plain = option if "." in option else option.replace("_", "-")
        option = _SYNONYMS.get(option) or _SYNONYMS.get(plain) or option
        if option in SWITCHES:
            switches.add(option)
            continue
        if option in _ALONE and not equals and not (left and left[0].lower() in ("true", "false", "null")):
            settings.append(_ALONE[option])
            continue
        if not equals:
            if not left or re.match(r"--?[a-zA-Z]", left[0]):
                raise ConfigError(f"{option} needs a value; `sandglass train --help` lists the options.")
            value = left.pop(0)
        if not value and (option == "--model" or option in OWN or plain in OWN):
            raise ConfigError(f"{option} needs a value; `sandglass train --help` lists the options.")
        if option == "--model":
            model = value
        elif (plain if plain in OWN else option) in OWN:
            own[plain if plain in OWN else option] = value
        else:
            settings.append((option, value))
    return Words(model, frozenset(switches), own, tuple(settings))

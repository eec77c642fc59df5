"""The words after ``sandglass train``, sorted into the model's name, the command's own switches, and settings."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from sandglass.errors import ConfigError

SWITCHES = {
    "--help": "this page",
    "--dry-run": "show parameters, time and memory, measured on a throw-away copy; write nothing",
    "--print_config": "print the complete configuration as YAML, which --config accepts, and stop",
    "--no-report": "train only: no evaluation on the test split, no report.html",
}
OWN = {
    "--data": (
        "NAME_OR_PATH",
        "a name from `sandglass datasets`, a folder or zip of pictures, a .csv, .parquet, .npy or .npz file",
    ),
    "--out": ("DIR", "the run folder itself; the next free runs/<model>-<data>-<number> when not given"),
    "--recipe": ("NAME", "start from a ready-made configuration; `sandglass recipes` lists them"),
    "--config": ("FILE", "options from a YAML file, such as a run's config.yaml; flags win over it"),
    "--init-from": ("RUN", "start from the weights of another run, or from the network bodies that fit"),
    "--resume": ("RUN", "go on with a run, to the same bits as never stopping; --epochs can raise its total"),
}
_SYNONYMS = {
    "--num-epochs": "--epochs", "--max-epochs": "--epochs", "--n-epochs": "--epochs",
    "--learning-rate": "--lr", "--output-dir": "--out", "--outdir": "--out", "-o": "--out", "--random-state": "--seed",
    "--z-dim": "--latent-dim", "--kl-weight": "--beta", "--image-size": "--size", "--img-size": "--size",
    "--print-config": "--print_config", "--dry_run": "--dry-run", "-h": "--help", "--ema-decay": "--ema",
    "--workers": "--threads", "--resume-from-checkpoint": "--resume", "--data.source": "--data",
    "--model.name": "--model",
}  # fmt: skip
_ALONE = {"--cache": ("--cache", "true"), "--no-cache": ("--cache", "false")}  # settings that need no value


@dataclass(frozen=True)
class Words:
    """The words of a command line, sorted.

    Args:
        model: the model named, or None.
        switches: those that were set.
        own: values of the command's own options.
        settings: ``(option, value)`` of all others, in order.
    """

    model: str | None = None
    switches: frozenset[str] = frozenset()
    own: Mapping[str, str] = field(default_factory=dict)
    settings: tuple[tuple[str, str], ...] = ()


def sort(words: Sequence[str]) -> Words:
    """Sorts the words after ``sandglass train``.

    Raises:
        ConfigError: an option without its value, or a second model.

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
                raise ConfigError(f"Name one model, not '{model}' and '{word}'; options begin with --.")
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
        if option == "--model":
            model = value
        elif (plain if plain in OWN else option) in OWN:
            own[plain if plain in OWN else option] = value
        else:
            settings.append((option, value))
    return Words(model, frozenset(switches), own, tuple(settings))

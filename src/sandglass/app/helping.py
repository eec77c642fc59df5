"""The help page of ``train``, with the options of the chosen model."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from typing import Any

from sandglass import registry
from sandglass.app.flags import Flags, type_name
from sandglass.app.parsing import EVERYWHERE
from sandglass.app.words import OWN, SWITCHES
from sandglass.engine.options import STAGE_OPTIONS
from sandglass.registry import Option

_EXAMPLES = """examples:
  sandglass train --recipe digits
  sandglass train --data photos/ --size 64x48 --augment flip,shift --epochs 100
  sandglass train gan --data photos/ --minutes 15
  sandglass train beta-vae --data mnist --beta 2 --latent-dim 10 --net mlp --model.net.widths 512,256
  sandglass train ae --data customers.csv --labels segment --dry-run
  sandglass train --recipe mnist-512-2 --print_config > mine.yaml; sandglass train --config mine.yaml
  sandglass train --resume runs/vae-digits-1 --epochs 100"""


def train_help(model: str, flags: Flags) -> str:
    """The help page: the command's own options, then those of data, training and the model."""
    models = ", ".join(registry.names("model"))
    parts = [
        "usage: sandglass train [MODEL] --data NAME_OR_PATH [OPTION ...]",
        "Train a model, evaluate it and write its report to a run folder.",
        textwrap.fill(
            f"MODEL is one of {models} (default: what suits the data). Every option can also be given by its full name"
            " in a configuration file, such as --model.latent_dim or --training.lr.",
            100,
        ),
        "options:\n" + "\n".join(_line(f"{name} {value}", help_) for name, (value, help_) in OWN.items()),
        "\n".join(_line(name, help_) for name, help_ in SWITCHES.items()),
    ]
    titles = {"data": "data:", "training": "training:", "model": f"model '{model}':"}
    for section, options in flags.shown.items():
        parts.append(titles[section] + "\n" + "\n".join(_option(key, option, flags.forms) for key, option in options))
    if len(flags.stages) > 1:
        parts.append(f"stages of '{model}', in order:\n" + "\n".join(_stage(n, flags) for n in flags.stages))
    return "\n\n".join([*parts, _EXAMPLES, EVERYWHERE])


def _stage(name: str, flags: Flags) -> str:
    """A stage and the options that can be set for it separately."""
    stage = flags.stages[name]
    if not stage.phases:
        return _line(name, "fitted in closed form; no options")
    fitted = "fitted first, then trained; " if stage.fit else ""
    epochs = f"{stage.epochs} epochs by default; " if stage.epochs else ""
    options = ", ".join(option.replace("_", "-") for option in STAGE_OPTIONS)
    return _line(f"--stage.{name}.OPTION", f"{fitted}{epochs}set an OPTION for this stage only, one of: {options}")


def _option(key: str, option: Option, forms: Mapping[str, str]) -> str:
    short = f"--{option.name.replace('_', '-').removesuffix('.name')}"
    name = short if forms.get(short) == key else f"--{key}"
    default = "" if option.default is None else f" (default: {shown(option.default)})"
    help_ = plain(option.help).rstrip(".") + default
    return _line(f"{name} {value_name(option.type)}", help_)


def _line(name: str, help_: str) -> str:
    """A name and its description in two columns."""
    body = textwrap.wrap(help_, 70) or [""]
    head = f"  {name:<26} " if len(name) <= 26 else f"  {name}\n{'':<29}"
    return head + f"\n{'':<29}".join(body)


def value_name(hint: Any) -> str:
    """The metavar of an option.

    Example:
        >>> [value_name(hint) for hint in (int, bool | None, bool | str | None)]
        ['N', 'true|false', 'COLUMN']
    """
    described = type_name(hint)
    if "a whole number or a string" in described:
        return "N or HxW"
    if described == "true or false or null":
        return "true|false"
    metavars = {
        "a whole": "N",
        "whole": "N,N,...",
        "numbers": "X,X,...",
        "a number": "X",
        "names": "A,B,...",
        "true or false or a string": "COLUMN",
        "true": "true|false",
    }
    return next((v for k, v in metavars.items() if described.startswith(k)), "NAME")


def plain(help_: str) -> str:
    """A description from a docstring without markup."""
    return help_.replace("``", "").replace('"', "")


def shown(value: Any) -> str:
    """A default as it is written on the command line."""
    if isinstance(value, list | tuple):
        return ",".join(map(str, value)) or "none"
    return "none" if value is None or value == "" else str(value).lower() if isinstance(value, bool) else str(value)
